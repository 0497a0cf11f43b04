"""Recipes on the world `scenes`."""

from __future__ import annotations

from mixmodal.config import OptimConfig, Recipe, TrunkConfig
from mixmodal.designs import lossless


def scenes_two() -> Recipe:
    """Two objects and a relation, 32 px, in five minutes on two cores."""
    trunk = TrunkConfig(
        width=192,
        depth=4,
        heads=6,
        kv_heads=6,
        head_size=32,
        mlp_width=768,
        mlp="relu2",
        norm_gain=False,
        rope_theta=100.0,
    )
    flow = {"copies": 4, "clamp": 0.1, "time_law": {"mean": -0.8, "std": 1.2}}
    return Recipe(
        name="scenes_two",
        model=lossless.model(trunk, flow=flow),
        sources={"scenes": {"kind": "scenes", "level": "two"}},
        valid={"scenes": {"kind": "scenes", "level": "two", "split": "heldout"}},
        optim=OptimConfig(),
        minutes=4.8,
        rows=24,
        length=128,
        every=500,
    )
