"""Reconstruction: how held-out pictures come back out of a tokenizer, and what their codes cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mixmodal.data import make_source
from mixmodal.features import RandomFeatures
from mixmodal.judge.suites import Exam
from mixmodal.parts import Image
from mixmodal.quantizers import use_of
from mixmodal.similarity import edge_energy, ms_ssim, psnr, ssim

JUDGING_SEED = 2  # of the random features: not those that are trained by
BATCH = 64


@torch.inference_mode()
def examine(exam: Exam) -> dict[str, Any]:
    """Means over `exam.n` held-out pictures.

    Units:   dB of PSNR; `bits_per_pixel` of codes of fixed length, and of an entropy coder that knows how often each
             number of a code occurs; of numbers that are not quantized, 32 bits each.
    Raises:  ValueError for a model without a tokenizer.
    """
    codec = _codec(exam)
    made, true, codes = _rebuilt(exam, codec)
    found = {
        "psnr": psnr(made, true),
        "ssim": ssim(made, true),
        "edges": edge_energy(made) / edge_energy(true).clamp(min=1e-8),
        "random_features": RandomFeatures(JUDGING_SEED)(made, true),
    }
    if min(made.shape[2:]) > 160:
        found["ms_ssim"] = ms_ssim(made, true)
    scores: dict[str, Any] = {name: float(each.mean()) for name, each in found.items()}
    scores["edges"] = float(edge_energy(made).mean() / edge_energy(true).mean())
    return scores | _cost(codec, codes, true)


def _codec(exam: Exam) -> Any:
    for stream in exam.model.streams.values():
        if hasattr(stream.codec, "rebuilt"):
            return stream.codec
    raise ValueError("this model has no tokenizer: take one that `mixmodal train tokenizer_vq` made, or its like")


def _rebuilt(exam: Exam, codec: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Pictures as they come back, as they were, and the codes between."""
    kinds = [spec["kind"] for spec in exam.about.get("sources", {}).values()]
    source = make_source({**exam.source(kinds[0]), "split": "heldout", **exam.options})
    made, true, codes = [], [], []
    for first in range(0, exam.n, BATCH):
        numbers = range(first, min(exam.n, first + BATCH))
        drawn = [source.document(i, np.random.default_rng([exam.seed, i])) for i in numbers]
        arrays = [next(part for part in d.parts if isinstance(part, Image)).array()[0] for d in drawn]
        pictures = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        back, found, _ = codec(pictures)
        made.append(back.float().clamp(-1, 1))
        true.append(pictures)
        codes.append(found)
    return torch.cat(made), torch.cat(true), None if codes[0] is None else torch.cat(codes)


def _cost(codec: Any, codes: torch.Tensor | None, true: torch.Tensor) -> dict[str, Any]:
    """How codes are used, and the bits that they take."""
    pixels = codec.config.shrink**2
    if codes is None:
        return {"bits_per_pixel": 32 * codec.config.vector / pixels}
    quantizer = codec.quantizer
    uses = use_of(codes, quantizer.sizes)
    whole = quantizer.index(codes)
    seen, counts = torch.unique(whole, return_counts=True)
    share = counts.double() / counts.sum()
    entropy = float(-(share * share.log2()).sum())
    bits = ((seen[:, None] >> torch.arange(max(1, int(np.ceil(quantizer.bits))))) & 1).double()
    on = (bits * share[:, None]).sum(0)
    return {
        "codes_used": len(seen),
        "codes": float(np.prod([float(size) for size in quantizer.sizes])),
        "use": len(seen) / float(np.prod([float(size) for size in quantizer.sizes])),
        "perplexity": 2**entropy,
        "dead_bits": int(((on < 0.01) | (on > 0.99)).sum()),
        "bits_per_pixel": quantizer.bits / pixels,
        "bits_per_pixel_coded": sum(use.bits for use in uses) / pixels,
    }
