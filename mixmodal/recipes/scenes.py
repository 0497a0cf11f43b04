"""Recipes on the world `scenes`. What was tried to find them stands in docs/experiments.md."""

from __future__ import annotations

from dataclasses import replace

from mixmodal.config import OptimConfig, Recipe
from mixmodal.designs import lossless, small_trunk

FLOW = {
    "copies": 4,
    "clamp": 0.1,
    "time_law": {"mean": -1.2, "std": 1.2, "switch": 0.7, "later_mean": -0.2, "later_std": 1.2},
}
# Two phases: words and places at much noise, then, with the trunk at rest, outlines at half as much.
SETTLING = OptimConfig(matrix_rate=0.012, filter_rate=0.02, newton_schulz=3, settle=0.7)
PROSE = {"kind": "prose", "share": 0.003}


def scenes_two() -> Recipe:
    """Two objects and a relation, 32 px, in five minutes on two cores.

    Patches enter and leave by plain matrices, noisy ones as what is expected of them; times are near noise until 0.7.
    Batches are small and many, the trunk shallow: in five minutes what counts is how often it moves.

    Result:  two quiet cores with AVX2 alone, 4.8 minutes, seeds 0, 1, 2, n = 500: 1,232 to 1,258 steps, exact pictures
             56.6, 68.6, 69.4 %, exact captions 95.4, 96.8, 96.6 %. Two with bf16, seed 0: 6,217 steps, 94.0 and 100 %.
             With five blocks, twice the rows and a quicker Muon it took 465 steps with AVX2 alone, and had 32.0 and
             49.6 % (seed 0).
    """
    two = {"kind": "scenes", "level": "two"}
    return Recipe(
        name="scenes_two",
        model=lossless.model(small_trunk(3), flow={**FLOW, "sigma_data": 1.0}, picture_weight=3.0),
        sources={
            "two": {**two, "share": 0.9},
            "single": {**two, "size": 16, "kinds": {"single": 1.0}, "share": 0.1},
            "prose": PROSE,
        },
        valid={"two": {**two, "split": "heldout"}},
        optim=OptimConfig(matrix_rate=0.008, newton_schulz=3),
        minutes=4.9,
        rows=8,
        length=120,  # a document to draw and one to describe, one sometimes longer
        every=500,
        guidance=2.0,
    )


def scenes_full() -> Recipe:
    """The full level: up to four of a kind, six shapes, eight colours, anywhere; the model in the box.

    Result:  69 minutes of one core with bf16, 583 TFLOPs, seed 0, n = 500: exact pictures 75.2 % (71.2 to 78.8), exact
             captions 96.2 %, with unseen pairs 74.6 and 90.4 %. The model in the box came to 95.4 % and 99.4 % in five
             times the steps, in eight pieces, which its card tells.
    """
    kinds = {"single": 0.1, "group": 0.2, "pair": 0.4, "groups": 0.3}
    single = {"kind": "scenes", "level": "one", "size": 16}
    return Recipe(
        name="scenes_full",
        model=lossless.model(small_trunk(6), flow=FLOW, codec={"ends": 16}, picture_weight=3.0),
        sources={
            "first": {**single, "share": 0.97, "until": 0.08},
            "full": {"kind": "scenes", "level": "full", "kinds": kinds, "share": 0.87, "from": 0.08},
            "single": {**single, "share": 0.1, "from": 0.08},
            "prose": PROSE,
        },
        valid={"full": {"kind": "scenes", "level": "full", "split": "heldout", "kinds": kinds}},
        optim=replace(SETTLING, decay=0.5),
        steps=9_000,
        rows=12,
        length=192,
        every=500,
        guidance=2.0,
    )
