"""Designs: one short file for each named system, its paper, its place in the table, and what differs.

And what several of them share: the trunk of the small ones, and the streams around a control.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig, relu2_trunk


def small_trunk(depth: int) -> TrunkConfig:
    """The trunk of the recipes that learn on a CPU: as wide as a patch of 8 x 8 has values."""
    return relu2_trunk(192, depth, heads=6)


def controlled(
    trunk: TrunkConfig,
    net: dict[str, Any],
    *,
    patch: tuple[int, int, int] = (1, 8, 8),
    flow: dict[str, Any] | None = None,
    medium: str = "image",
    picture_weight: float = 1.0,
    text_weight: float = 0.5,
) -> ModelConfig:
    """Text that speaks, noisy patches that a `net` of their own predicts, and patches that the trunk reads."""
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, {"kind": "categorical"}, text_weight)
    codec = {"kind": "control", "patch": list(patch), **net}
    drawn = StreamConfig(medium, codec, {"kind": "flow", **(flow or {})}, None, picture_weight, "write")
    given = StreamConfig(
        medium, {"kind": "arrays", "patch": list(patch)}, {"kind": "flow", "time": "trunk"}, role="read"
    )
    return ModelConfig(trunk, {"text": text, "drawn": drawn, "given": given}, "text")
