"""MaskGIT: masked codes of pictures alone, on a class or a caption that is only read.

Source:  Chang et al. 2022 (arXiv:2202.04200); codes of several numbers as Yu et al. 2023 (arXiv:2310.05737), MAGVIT-v2.
Differs: the condition is text in front, in the same trunk.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(
    trunk: TrunkConfig,
    *,
    nets: dict[str, Any],
    masked: dict[str, Any] | None = None,
    medium: str = "image",
) -> ModelConfig:
    """The configuration: text without a loss, and masked codes; a code of several numbers has a law for each."""
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, {"kind": "categorical"}, 0.0)
    codes = StreamConfig(
        medium,
        {"kind": "codes", "nets": nets},
        {"kind": "masked", **(masked or {})},
        {"kind": "categorical", "temperature": 1.0},
    )
    return ModelConfig(trunk, {"text": text, "codes": codes}, "text")
