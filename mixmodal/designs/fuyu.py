"""Fuyu: raw patches in, text out. A picture is read like words, in raster order, without an encoder.

Source:  Bavishi et al. 2023, "Fuyu-8B: a multimodal architecture for AI agents" (Adept).
Differs: no token ends a row: the size is announced, and places are learned; patches may see all of their picture.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(
    trunk: TrunkConfig,
    *,
    patch: int = 8,
    codec: dict[str, Any] | None = None,
    flat: bool = True,
    two_way: bool = False,
    medium: str = "image",
) -> ModelConfig:
    """The configuration: text that speaks, and patches that are only read, each by those before it or `two_way`."""
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, {"kind": "categorical"})
    patches = StreamConfig(
        medium,
        {"kind": "arrays", "patch": [1, patch, patch], **(codec or {})},
        {"kind": "flow", "time": "trunk"} if two_way else {"kind": "next_token", "flat": flat},
        role="read",
    )
    return ModelConfig(trunk, {"text": text, "patches": patches}, "text")
