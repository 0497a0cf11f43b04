"""Recipes on the world `glyphs`: reading and writing words from raw pixels."""

from __future__ import annotations

from typing import Any

from mixmodal.config import OptimConfig, Recipe
from mixmodal.designs import lossless, small_trunk

TASKS = {"write": 0.5, "read": 0.5}
FLOW = {
    "copies": 4,
    "clamp": 0.1,
    "time_law": {"mean": -1.0, "std": 1.2, "switch": 0.7, "later_mean": 0.3, "later_std": 1.2},
}
OPTIM = OptimConfig(matrix_rate=0.012, filter_rate=0.02, newton_schulz=3, settle=0.8)
PROSE = {"kind": "prose", "share": 0.003}
HELDOUT = {"tasks": TASKS, "split": "heldout"}


def _words(level: str, share: float, short: bool = False, **when: float) -> dict[str, Any]:
    """Words of a level in a part of the training; where `short`, of 1 to 3 letters in a picture of six patches."""
    few = {"lengths": [1, 3], "size": [16, 24]} if short else {}
    return {"kind": "glyphs", "level": level, "tasks": TASKS, "share": share, **few, **when}


def glyphs_grid() -> Recipe:
    """Words of 3 to 10 letters, black on white, one in a cell: read and written; no word of the test is in training.

    Short words come first, in pictures of six patches: what a letter looks like, and that the first one asked for
    stands first, is learned there; without them nothing is written.

    Result:  1,000 steps, 9.3 minutes of one core, seed 0, n = 200: reads and writes 100 % of unseen words (98.1 to
             100 %).
    """
    return Recipe(
        name="glyphs_grid",
        model=lossless.model(small_trunk(5), flow=FLOW, codec={"ends": 16}, places=24, picture_weight=3.0),
        sources={
            "short": _words("grid", 0.97, short=True, until=0.4),
            "grid": _words("grid", 0.8, **{"from": 0.4}),
            "still": _words("grid", 0.17, short=True, **{"from": 0.4}),
            "prose": PROSE,
        },
        valid={"grid": {"kind": "glyphs", "level": "grid", **HELDOUT}},
        optim=OPTIM,
        steps=1_000,
        rows=10,
        length=192,
        every=500,
        sample_size=(16, 80),
    )


def glyphs_line() -> Recipe:
    """Words of 3 to 10 letters in two fonts and six colourings, read and written; no word of the test is in training.

    Result:  2,200 steps, 19 minutes of one core, seed 0: reads 199 of 200 unseen words (97.2 to 99.9 %), in the
             font that is held out 8 %; writes none of them yet on this level, where colours and place are left open,
             but reads and writes 200 of 200 of the level `grid`, which comes before it.
    """
    return Recipe(
        name="glyphs_line",
        model=lossless.model(small_trunk(5), flow=FLOW, codec={"ends": 16}, places=24, picture_weight=3.0),
        sources={
            "short": _words("grid", 0.97, short=True, until=0.2),
            "grid": _words("grid", 0.7, until=0.45, **{"from": 0.2}),
            "still": _words("grid", 0.25, short=True, until=0.45, **{"from": 0.2}),
            "line": _words("line", 0.75, **{"from": 0.45}),
            "before": _words("grid", 0.2, **{"from": 0.45}),
            "prose": PROSE,
        },
        valid={"line": {"kind": "glyphs", "level": "line", **HELDOUT}},
        optim=OPTIM,
        steps=2_200,
        rows=10,
        length=192,
        every=500,
        sample_size=(16, 88),
    )
