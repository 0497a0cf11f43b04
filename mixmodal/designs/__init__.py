"""Designs: one short file for each named system, its paper, its place in the table, and what differs.

And the trunk that the small ones share.
"""

from __future__ import annotations

from mixmodal.config import TrunkConfig


def small_trunk(depth: int) -> TrunkConfig:
    """The trunk of the recipes that learn on a CPU: as wide as a patch of 8 x 8 has values."""
    return TrunkConfig(
        width=192,
        depth=depth,
        heads=6,
        kv_heads=6,
        head_size=32,
        mlp_width=768,
        mlp="relu2",
        norm_gain=False,
        qk_scale=2.0,
        rope_theta=100.0,
    )
