"""Recipes of text alone, which others may start from: `--set start=recipe:words`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mixmodal.config import OptimConfig, Recipe
from mixmodal.designs import lossless, small_trunk


def words() -> Recipe:
    """English prose that every Python brings along, on the trunk of the small designs.

    Result:  600 steps, 8 minutes of one core without bf16, seed 0: 2.56 bits a byte of held-out prose
             (docs/gallery.md); three seeds with bf16, 5 minutes each: 2.53 (docs/results/README.md).
    """
    return _recipe("words", {"kind": "prose"}, steps=600)


def shakespeare() -> Recipe:
    """Shakespeare's plays (`tinyshakespeare`), a speech or more at a time.

    Result:  1,000 steps, 14 minutes of one core without bf16, seed 0: 2.03 bits a byte of held-out speeches; it writes
             whose turn it is and what sounds like them (docs/gallery.md).
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
