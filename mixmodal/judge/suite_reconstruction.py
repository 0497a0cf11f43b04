"""Reconstruction: how held-out pictures come back out of a tokenizer, and what their codes cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mixmodal.data import has_splits, make_source
from mixmodal.data.mixing import readable
from mixmodal.features import RandomFeatures
from mixmodal.judge.audit import coded, entropy, joined
from mixmodal.judge.suites import Exam
from mixmodal.parts import Image
from mixmodal.quantizers import use_of
from mixmodal.similarity import edge_energy, ms_ssim, psnr, ssim

JUDGING_SEED = 2  # of the random features: not those that are trained by
BATCH = 64


@torch.inference_mode()
def examine(exam: Exam) -> dict[str, Any]:
    """Means over `exam.n` held-out pictures; `edges` is their energy over that of the true ones.

    Limits:  pictures of one size, which a position of the codec divides.
    Units:   `asked` pictures, fewer than n where there are no more; dB of PSNR; `bits_per_pixel` of codes of fixed
             length; `coded` as an arithmetic coder spends them that learns as it goes how often each number of a code
             occurs, `ideal` if that were known for nothing; of numbers that are not quantized, 32 bits each.
    Raises:  ValueError for a model without a tokenizer.
    """
    codec = _codec(exam)
    made, true, codes = _rebuilt(exam, codec)
    found = {
        "psnr": psnr(made, true),
        "ssim": ssim(made, true),
        "random_features": RandomFeatures(JUDGING_SEED)(made, true),
    }
    if min(made.shape[2:]) > 160:
        found["ms_ssim"] = ms_ssim(made, true)
    scores: dict[str, Any] = {"asked": len(made)} | {name: float(each.mean()) for name, each in found.items()}
    scores["edges"] = float(edge_energy(made).mean() / edge_energy(true).mean())
    return scores | _cost(codec, codes)


def _codec(exam: Exam) -> Any:
    for stream in exam.model.streams.values():
        for codec in (stream.codec, getattr(stream.codec, "nets", None)):
            if hasattr(codec, "rebuilt"):
                return codec
    raise ValueError("this model has no tokenizer: take one that `mixmodal train tokenizer_vq` made, or its like")


def _rebuilt(exam: Exam, codec: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Pictures as they come back, as they were, and the codes between."""
    source = _source(exam)
    device = next(exam.model.parameters()).device
    made, true, codes = [], [], []
    drawn = readable(source, range(exam.n), exam.seed)
    shown = [part for d in drawn if (part := next((p for p in d.parts if isinstance(p, Image)), None)) is not None]
    if not shown:
        raise ValueError(f"there are no held-out pictures in {source.name}: name others with --set, as kind=kodak24")
    sizes, cut = {part.size for part in shown}, codec.config.shrink
    if len(sizes) > 1 or any(side % cut for side in shown[0].size):
        told = ", ".join(f"{high} x {wide}" for high, wide in sorted(sizes)[:3])
        raise ValueError(f"pictures are {told} px: want all of one size, both sides multiples of {cut}; --set size=...")
    for first in range(0, len(shown), BATCH):
        arrays = [part.array()[0] for part in shown[first : first + BATCH]]
        pictures = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).to(device)
        back, found, _ = codec(pictures)
        made.append(back.float().clamp(-1, 1).cpu())
        true.append(pictures.cpu())
        codes.append(None if found is None else found.cpu())
    return torch.cat(made), torch.cat(true), None if codes[0] is None else torch.cat(codes)


def _source(exam: Exam) -> Any:
    """What the model's training drew pictures from, held out; or what the options say."""
    learned = (spec["kind"] for spec in exam.about.get("sources", {}).values())
    kind = exam.options.get("kind") or next(learned, None)
    if kind is None:
        raise ValueError("this model does not say what it learned from: name pictures with --set, as kind=kodak24")
    spec = {**exam.source(kind), **exam.options}
    return make_source({"split": "heldout", **spec} if has_splits(spec) else spec)


def _cost(codec: Any, codes: torch.Tensor | None) -> dict[str, Any]:
    """How codes are used, and the bits that they take; of bits by sign, `dead_bits` are (nearly) always the same."""
    pixels = codec.config.shrink**2
    if codes is None:
        return {"bits_per_pixel": 32 * codec.config.vector / pixels}
    quantizer, number = codec.quantizer, 2.0**codec.quantizer.bits
    use = use_of(quantizer.index(codes), number)
    area = pixels * len(codes)
    whole, sizes = joined(codes.numpy(), quantizer.sizes)
    scores = {
        "codes": round(number),
        "codes_used": use.seen,
        "use": use.share,
        "perplexity": use.perplexity,
        "bits_per_pixel": quantizer.bits / pixels,
        "bits_per_pixel_coded": coded(whole, sizes) / area,
        "bits_per_pixel_ideal": entropy(whole) / area,
    }
    if quantizer.binary:
        on = (quantizer.index(codes)[:, None] >> torch.arange(round(quantizer.bits)) & 1).double().mean(0)
        scores["dead_bits"] = int(((on < 0.01) | (on > 0.99)).sum())
    return scores
