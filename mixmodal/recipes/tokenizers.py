"""Recipes of picture tokenizers: 32 px squares of film as 8 x 8 codes of about ten bits, in a minute of one core."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mixmodal.config import OptimConfig, Recipe
from mixmodal.designs import tokenizer

VQ = {"kind": "vq", "size": 1024, "width": 8}


def _recipe(name: str, quantizer: dict[str, Any] | None, **more: Any) -> Recipe:
    crops = {"kind": "clip-crops", "size": 32}
    return Recipe(
        name=name,
        model=tokenizer.model(quantizer=quantizer, **more),
        sources={"crops": crops},
        valid={"crops": {**crops, "split": "valid"}},
        optim=OptimConfig(matrices="adamw", matrix_rate=0.002, filter_rate=0.002, rate=0.002, warmup=10, decay=0.9),
        rows=32,
        length=72,  # a picture of 64 positions, announced and ended
        steps=400,
        every=400,
        compile=False,
    )


def tokenizer_plain() -> Recipe:
    """Ten numbers a position, not quantized: what the quantizers are compared with.

    Result:  73 s of one core with AVX2 alone, NASA frames held out, PSNR with seeds 0, 1, 2: 20.9, 21.2, 22.7.
    """
    return _recipe("tokenizer_plain", None)


def tokenizer_vq() -> Recipe:
    """A codebook of 1,024 vectors.

    Result:  likewise 20.4, 21.7, 21.3; of the codes 69 to 79 % are used on 2,000 squares of those frames, 99.6 to
             99.9 % on as many of the films trained on.
    """
    return _recipe("tokenizer_vq", VQ)


def tokenizer_fsq() -> Recipe:
    """1,000 codes by levels of 8, 5, 5 and 5.

    Result:  likewise 19.7, 20.6, 19.9.
    """
    return _recipe("tokenizer_fsq", {"kind": "fsq", "levels": [8, 5, 5, 5]})


def tokenizer_lfq() -> Recipe:
    """1,024 codes by ten signs, normed before; the entropy weighs as little as leaves nine in ten codes in use.

    Result:  likewise 18.6, 19.3, 19.3; of the codes 68 to 76 % are used on those frames, 92 to 93 % on the films
             trained on.
    """
    return _recipe("tokenizer_lfq", {"kind": "lfq", "bits": 10, "entropy": 0.015})


def tokenizer_bsq() -> Recipe:
    """1,024 codes by ten signs, on the sphere.

    Result:  likewise 18.8, 19.2 with seeds 0 and 1.
    """
    quantizer = {"kind": "lfq", "bits": 10, "sphere": True, "normed": False, "sharpness": 1.0, "entropy": 0.02}
    return _recipe("tokenizer_bsq", quantizer)


def tokenizer_transformer() -> Recipe:
    """The codebook of tokenizer_vq, between two small transformers instead of convolutions.

    Result:  62 s of one core, seed 0: 22.7 dB where tokenizer_vq has 20.1 (47 s, n = 256), with seams between patches.
    """
    chosen = _recipe("tokenizer_transformer", VQ, codec={"net": "transformer"})
    return replace(chosen, optim=replace(chosen.optim, matrices="muon", matrix_rate=0.02))


def tokenizer_learned() -> Recipe:
    """tokenizer_vq with features of the encoder of tokenizer_plain, trained first, instead of random ones.

    Result:  97 s of one core with what it stands on, seed 0: 20.3 dB (tokenizer_vq 20.1, n = 256).
    """
    losses = {"features": 0.0, "trained": 0.3, "nets": {"from": "recipe:tokenizer_plain"}}
    return _recipe("tokenizer_learned", VQ, losses=losses)


def tokenizer_late() -> Recipe:
    """tokenizer_vq whose decoder alone learns on in the last 30 %, against a net that judges its squares.

    Result:  seed 0, with slope 1, which is too much: 19.5 dB, edges as blurry as without the judge. On from a trained
             tokenizer_vq (start=RUN optim.settle=0 steps=160, slope 0.01): 20.7 dB and a sixth more energy of edges.
    """
    chosen = _recipe("tokenizer_late", VQ, losses={"adversary": 0.1})
    return replace(chosen, optim=replace(chosen.optim, settle=0.7))
