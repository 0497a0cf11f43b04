"""The suite `likeness`, of held-out data without exact answers: how like the true pictures are, how words are told."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from mixmodal.data import has_splits, make_source, options_of, source_class
from mixmodal.data.mixing import readable
from mixmodal.features import RandomFeatures
from mixmodal.judge.suites import FEWEST, Exam, bits_of_words
from mixmodal.parts import Document, Image, Text
from mixmodal.similarity import frechet

SEED = 3  # of the features: no tokenizer is trained by them
TRIES = 20  # documents looked at for each that is wanted


def examine(exam: Exam) -> dict[str, Any]:
    """The Frechet distance of drawn pictures to true ones, and bits that the model spends on a byte of true captions.

    `features` names the net of the distance, `floor` is that between two halves of the true pictures.
    Limits:  pictures of one size, each asked once, so perhaps fewer than `n`: `asked` tells. `source` is what
             `make_source` takes. A distance depends on how many are asked: compare those of equal numbers alone.
    Raises:  ValueError where the data has no documents of either kind.
    """
    drawn = questions(exam)
    described = _documents(exam, "describe")
    told = [d for d in described if isinstance(d.parts[-1], Text) and isinstance(d.parts[0], Image)][: exam.n]
    if not drawn and not told:
        raise ValueError("no document ends in a picture, or in words about one: take data with captions")
    scores: dict[str, Any] = {"features": f"random convolutions, seed {SEED}", "asked": len(drawn)}
    if len(drawn) >= FEWEST and exam.makes(Image.medium):
        true = _features([d.parts[-1] for d in drawn])
        made = _features([d.parts[-1] for d in exam.answers(drawn)])
        scores["text_to_image.frechet"] = frechet(made, true)
        scores["text_to_image.floor"] = frechet(true[::2], true[1::2])
    if told and exam.makes(Text.medium):
        scores["image_to_text.bits_per_byte"] = bits_of_words(exam, told)
    return scores


def questions(exam: Exam) -> list[Document]:
    """Documents that end in a picture to draw, by what is said before."""
    return [d for d in _documents(exam, "draw") if isinstance(d.parts[-1], Image) and len(d.parts) > 1][: exam.n]


def _documents(exam: Exam, task: str) -> list[Document]:
    """Half of the held-out documents: those of even number for even seeds, of odd number for odd ones.

    Where a pair may be asked either way, all of them are asked for the task.
    """
    if "source" not in exam.options:
        raise ValueError(
            "the suite likeness wants its data: give the option source, as a recipe has its sources, for example"
            """ --set 'source={"kind": "folder", "path": "my/pictures"}'"""
        )
    spec = exam.options["source"]
    if not isinstance(spec, dict) or "kind" not in spec:
        raise ValueError(f'source is {spec!r}: want its kind and options as JSON, {{"kind": ...}}')
    if has_splits(spec):
        spec = {"split": "heldout", **spec}
    source, half = make_source(_for_task(spec, task)), exam.seed % 2
    return list(readable(source, range(half, exam.n * TRIES if source.size is None else source.size, 2)))


def _for_task(spec: dict[str, Any], task: str) -> dict[str, Any]:
    """The source with this task alone, where it has tasks."""
    if "of" in spec:
        return {**spec, "of": _for_task(spec["of"], task)}
    return {**spec, "tasks": {task: 1.0}} if "tasks" in (options_of(source_class(spec["kind"])) or ()) else spec


@torch.inference_mode()
def _features(parts: list[Image]) -> torch.Tensor:
    """Of each picture the mean of every feature over its places.

    Shapes:  -> [n, D].
    """
    net = RandomFeatures(SEED)
    pictures = torch.from_numpy(np.stack([part.array()[0] for part in parts])).permute(0, 3, 1, 2)
    return torch.cat([F.adaptive_avg_pool2d(layer, 1).flatten(1) for layer in net.layers(pictures)], 1)
