"""LlamaGen: codes of pictures by next token, after a caption that is only read.

Source:  Sun et al. 2024 (arXiv:2406.06525).
Differs: the caption goes through the same trunk; guidance is in logits as there.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(trunk: TrunkConfig, *, nets: dict[str, Any], scan: str = "raster", medium: str = "image") -> ModelConfig:
    """The configuration: text without a loss, and codes with two-dimensional places, in the order of the scan."""
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, {"kind": "categorical"}, 0.0)
    codes = StreamConfig(
        medium,
        {"kind": "codes", "nets": nets},
        {"kind": "next_token", "scan": scan},
        {"kind": "categorical", "temperature": 1.0},
    )
    return ModelConfig(trunk, {"text": text, "codes": codes}, "text")
