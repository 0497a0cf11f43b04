"""MAGVIT-v2: masked codes of a large vocabulary without a table, each code in several numbers that are drawn apart.

Source:  Yu et al. 2023 (arXiv:2310.05737); one mask for all numbers of a code, section 3.2 and appendix.
Differs: pictures alone; a caption instead of a class, in the same trunk.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(
    trunk: TrunkConfig,
    *,
    nets: dict[str, Any],
    noise: float = 4.0,
    medium: str = "image",
) -> ModelConfig:
    """The configuration: text without a loss, and masked codes of `nets`, whose quantizer has groups of bits."""
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, {"kind": "categorical"}, 0.0)
    codes = StreamConfig(
        medium,
        {"kind": "codes", "nets": nets},
        {"kind": "masked", "noise": noise},
        {"kind": "categorical", "temperature": 1.0},
    )
    return ModelConfig(trunk, {"text": text, "codes": codes}, "text")
