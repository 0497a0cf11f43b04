"""Recipes over the values of small pictures: exact bits, one position a value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mixmodal.config import ModelConfig, OptimConfig, Recipe
from mixmodal.designs import imagegpt, small_trunk

OPTIM = OptimConfig(matrix_rate=0.012, newton_schulz=3)


def imagegpt_digits() -> Recipe:
    """Handwritten digits of 8 px, grey, value after value (scikit-learn's, extra `data`), with their words.

    Result:  600 steps, seed 0, 33 minutes of a core shared with ten other processes: 1.93 bits a value on 200 digits
             held out, alone; after their word 1.73 on 24 of them.
    """
    model = imagegpt.model(small_trunk(4), grey=True, text_weight=0.5)
    return replace(_recipe("imagegpt_digits", model, "digits", {"kind": "digits", "size": 8}), length=160)


def values_squares() -> Recipe:
    """Squares of 8 px of any pictures, red, green and blue of each pixel: what `mixmodal audit --minutes` trains.

    Result:  `mixmodal audit scenes --set level=two --minutes 2 --n 8`, seed 0, 61 steps of a busy core: 0.816 bits a
             byte, PNG 0.936, WebP 0.541; all of its steps were not run yet.
    """
    squares = {"kind": "squares", "of": {"kind": "scenes", "level": "two"}, "size": 8}
    return replace(
        _recipe("values_squares", imagegpt.model(small_trunk(4)), "squares", squares), length=200, guidance=1.0
    )


def _recipe(name: str, model: ModelConfig, source: str, pictures: dict[str, Any]) -> Recipe:
    return Recipe(
        name=name,
        model=model,
        sources={source: pictures},
        valid={source: {**pictures, "split": "heldout"}},
        optim=OPTIM,
        vocabulary=300,
        rows=16,
        steps=600,
        every=600,
        sample_size=(8, 8),
        compile=False,
    )
