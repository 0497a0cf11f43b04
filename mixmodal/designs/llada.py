"""LLaDA: text by masked diffusion, whole or block after block; pictures may be read in front of it.

Source:  Nie et al. 2025 (arXiv:2502.09992); blocks of Arriola et al. 2025 (arXiv:2503.09573); with pictures, MMaDA:
         Yang et al. 2025 (arXiv:2505.15809).
Differs: a text is filled with end tokens to a fixed length, as in their fine-tuning; what stands before it is causal.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(
    trunk: TrunkConfig,
    *,
    fill: int = 32,
    block: int = 0,
    patch: int = 8,
    masked: dict[str, Any] | None = None,
    codec: dict[str, Any] | None = None,
    medium: str = "image",
) -> ModelConfig:
    """The configuration: text that is read, the same text written masked, and, with a `patch`, pictures to read."""
    head = {"kind": "categorical"}
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, head, 0.0, role="read")
    words = StreamConfig(
        "text",
        {"kind": "text", "fill": fill},
        {"kind": "masked", "schedule": "linear", "noise": 0.0, "fair": True, "block": block, **(masked or {})},
        head,
        role="write",
    )
    patches = StreamConfig(
        medium,
        {"kind": "arrays", "patch": [1, patch, patch], **(codec or {})},
        {"kind": "next_token", "flat": True},
        role="read",
    )
    streams = {"text": text, "words": words} | ({"patches": patches} if patch else {})
    return ModelConfig(trunk, streams, "text")
