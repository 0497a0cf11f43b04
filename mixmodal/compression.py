"""Pictures as bytes by a model that predicts their values one by one: what it says they cost is what they take.

Coder and decoder both go through the one generation loop: where a sampler would draw, a number is coded or decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Several
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixmodal.coder import Decoder, Encoder, cumulative
from mixmodal.generate import Request, generate
from mixmodal.model import Model, Stream
from mixmodal.parts import Document
from mixmodal.sampling import Settings
from mixmodal.sequence import Sequence, collate

TOGETHER = 64  # documents in the loop at a time


@torch.inference_mode()
def bits(model: Model, documents: Several[Document]) -> list[float]:
    """What the model says that the last part of each document costs, by one pass as in training.

    Units:   bits, in fp32. Of a vocabulary that two streams share, what belongs to the part alone counts: its medium is
             known.
    Raises:  ValueError where the model has no exact law for such a part.
    """
    device, out = next(model.parameters()).device, []
    for document in documents:
        stream, sequence = _laid(model, document)
        batch = collate([sequence], [[0]], len(sequence), model.blank()).to(device)
        slots = batch.slots[stream.name]
        numbers_NG = _numbers(slots.predict["targets"])
        hidden_ND = model(batch).flatten(0, 1)[slots.predict_at]
        nats = 0.0
        for at in range(0, len(hidden_ND), 4096):
            pieces = stream.head.logits(hidden_ND[at : at + 4096]).double().split(stream.head.sizes, 1)
            for piece_NV, number_N in zip(pieces, numbers_NG[at : at + 4096].T, strict=True):
                nats -= float(piece_NV.log_softmax(1).gather(1, number_N[:, None]).sum())
        out.append(nats / float(np.log(2)))
    return out


def compress(model: Model, documents: Several[Document]) -> bytes:
    """The last parts of all documents as bytes; `decompress` is told the other parts, and the sizes of the last.

    Raises:  ValueError where the model has no exact law for such a part.
    """
    coder, requests = Encoder(), []
    for document in documents:
        stream, sequence = _laid(model, document)
        (targets,) = [r.predict["targets"] for r in sequence.runs if r.stream == stream.name and r.predict]
        requests.append(_request(document, _putting(coder, _numbers(targets).reshape(-1).tolist())))
    generate(model, requests, live=TOGETHER)
    return coder.finish()


def decompress(model: Model, documents: Several[Document], data: bytes) -> list[Document]:
    """The documents, the last part of each made from the bytes; what it holds here is not read.

    Limits:  all documents of `compress`, in the same order: they share the bytes, and laws are the same to the bit only
             in the same company, on the same machine with as many threads.
    """
    for document in documents:
        _writer(model, document)
    coder = Decoder(data)
    made = generate(model, [_request(document, coder.take) for document in documents], live=TOGETHER)
    return [replace(d, parts=(*d.parts[:-1], m.parts[-1])) for d, m in zip(documents, made, strict=True)]


def exact(stream: Stream) -> bool:
    """Whether a stream has an exact law of one number after the other, so that its bits can be told and spent."""
    return hasattr(stream.head, "logits") and getattr(stream.objective, "exact", False)


class _Coding:
    """A head that codes where another one draws."""

    def __init__(self, head: Any, code: Callable[[np.ndarray], int]) -> None:
        self.head, self.code = head, code

    def draw(self, branches: list[Tensor], settings: Settings, rng: Any, banned: list[int]) -> tuple[Tensor, Tensor]:
        """One position's value, and nothing of how sure it is."""
        (logits_V,) = self.head.logits(branches[0])
        numbers = [self.code(cumulative(piece.cpu().numpy())) for piece in logits_V.split(self.head.sizes)]
        return torch.tensor(numbers if self.head.single else [numbers]), torch.zeros(1)


def _putting(coder: Encoder, numbers: list[int]) -> Callable[[np.ndarray], int]:
    waiting: Iterator[int] = iter(numbers)
    return lambda law: coder.put(next(waiting), law)


def _request(document: Document, code: Callable[[np.ndarray], int]) -> Request:
    before = tuple(replace(part, wanted=False) for part in document.parts[:-1])
    asked = replace(document, parts=(*before, replace(document.emptied().parts[-1], wanted=True)))
    return Request(asked, Settings(guidance=1.0), through=lambda head: _Coding(head, code))


def _laid(model: Model, document: Document) -> tuple[Stream, Sequence]:
    """The stream of the last part, and the document as training lays it out, only that part wanted."""
    stream = _writer(model, document)
    before = tuple(replace(part, wanted=False) for part in document.parts[:-1])
    wanted = replace(document, parts=(*before, replace(document.parts[-1], wanted=True, known=None)))
    return stream, model.lay_out(wanted, np.random.default_rng(0))


def _writer(model: Model, document: Document) -> Stream:
    part = document.parts[-1]
    stream = model.writer(part.medium)
    if part.medium == model.speaker.medium:
        raise ValueError(f"the last part of document {document.key} is {part.medium}, of no size: let it be a picture")
    if not exact(stream):
        raise ValueError(
            f"what makes {part.medium!r} in this model has no exact law of one value after the other: take a model by"
            " next token over values or codes"
        )
    return stream


def _numbers(targets: Any) -> Any:
    """[N] or [N, G] as [N, G]."""
    return targets.reshape(len(targets), -1)
