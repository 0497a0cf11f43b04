"""Recipes of text alone, which others may start from: `--set start=recipe:words`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mixmodal.config import OptimConfig, Recipe
from mixmodal.designs import lossless, small_trunk


def words() -> Recipe:
    """English prose that every Python brings along, on the trunk of the small designs.

    Result:  not trained to its end by itself yet.
    """
    return _recipe("words", {"kind": "prose"}, steps=600)


def shakespeare() -> Recipe:
    """Shakespeare's plays (`tinyshakespeare`), a speech or more at a time.

    Result:  not trained yet.
    """
    return _recipe("shakespeare", {"kind": "tinyshakespeare"}, steps=1_000)


def _recipe(name: str, text: dict[str, Any], steps: int) -> Recipe:
    whole = lossless.model(small_trunk(5))
    split = "heldout" if text["kind"] == "prose" else "valid"
    return Recipe(
        name=name,
        model=replace(whole, streams={whole.speaker: whole.streams[whole.speaker]}),
        sources={"prose": text},
        valid={"prose": {**text, "split": split}},
        optim=OptimConfig(matrix_rate=0.012, newton_schulz=3),
        steps=steps,
        rows=16,
        length=192,
        every=steps,
    )
