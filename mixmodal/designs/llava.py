"""LLaVA: each picture through an encoder of its own, what comes out among the words, text out.

Source:  Liu et al. 2023 (arXiv:2304.08485), on an encoder as Dosovitskiy et al. 2020 (arXiv:2010.11929) have it.
Differs: the encoder is trained with all else and from nothing; one matrix joins it to the trunk.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(
    trunk: TrunkConfig, *, patch: int = 8, blocks: int = 3, codec: dict[str, Any] | None = None, medium: str = "image"
) -> ModelConfig:
    """The configuration: text that speaks, and pictures that are encoded and read."""
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, {"kind": "categorical"})
    encoded = StreamConfig(
        medium,
        {"kind": "encoded", "patch": [1, patch, patch], "blocks": blocks, **(codec or {})},
        {"kind": "flow", "time": "trunk"},
        role="read",
    )
    return ModelConfig(trunk, {"text": text, "encoded": encoded}, "text")
