"""Recipes on real pictures: named sets, and your own folder."""

from __future__ import annotations

from typing import Any

from mixmodal.config import OptimConfig, Recipe
from mixmodal.designs import lossless, small_trunk


def _recipe(name: str, source: dict[str, Any], *, steps: int, length: int = 192, side: int = 32) -> Recipe:
    """Pictures and their names, both ways."""
    trunk = small_trunk(6)
    flow = {"copies": 4, "clamp": 0.1, "time_law": {"mean": 0.0, "std": 1.2}}
    return Recipe(
        name=name,
        model=lossless.model(trunk, flow=flow, codec={"ends": 16}, picture_weight=3.0),
        sources={"pictures": source, "prose": {"kind": "prose", "share": 0.02}},
        valid={"pictures": {**source, "split": "valid"}},
        optim=OptimConfig(matrix_rate=0.02, newton_schulz=3, weight_decay=0.01, average=0.1),
        vocabulary=1024,
        steps=steps,
        rows=12,
        length=length,
        every=500,
        guidance=3.0,
        sample_size=(side, side),
    )


def emoji_32() -> Recipe:
    """Noto emoji at 32 px: name and keywords to picture, picture to name.

    Result:  950 steps, 10 minutes of one core, seed 0: faces become yellow discs and flags rectangles, little else;
             names of pictures never seen are often of the right kind (docs/pictures/emoji_32.png).
    """
    return _recipe("emoji_32", {"kind": "emoji-noto", "size": 32}, steps=950)


def tiles_32() -> Recipe:
    """Tiles of a dungeon game at 32 px: name and category to picture, picture to name."""
    return _recipe("tiles_32", {"kind": "tiles-crawl", "size": 32}, steps=4000)


def own_32() -> Recipe:
    """Your own pictures with captions, or documents, at 32 px: `mixmodal train own_32 --data PATH`."""
    return _recipe("own_32", {"kind": "folder", "path": "", "size": 32}, steps=3000)


def digits_16() -> Recipe:
    """Real handwritten digits at 16 px (scikit-learn's, extra `data`) and their words, both ways."""
    return _recipe("digits_16", {"kind": "digits"}, steps=600, length=160, side=16)
