"""Janus: pictures are read through an encoder of their own, and written as codes by next token.

Source:  Wu et al. 2024 (arXiv:2410.13848); the codes as Sun et al. 2024 (arXiv:2406.06525).
Differs: the encoder is trained with all else and from nothing, in the paper it is SigLIP; one matrix joins it to the
         trunk; guidance in logits; what follows a written picture reads it through the encoder too.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(
    trunk: TrunkConfig,
    *,
    nets: dict[str, Any],
    patch: int = 8,
    blocks: int = 2,
    scan: str = "raster",
    medium: str = "image",
    picture_weight: float = 1.0,
    text_weight: float = 0.5,
) -> ModelConfig:
    """The configuration: text that speaks, pictures that are encoded to be read, and codes to be written."""
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, {"kind": "categorical"}, text_weight)
    codes = StreamConfig(
        medium,
        {"kind": "codes", "nets": nets},
        {"kind": "next_token", "scan": scan, "flat": True},
        {"kind": "categorical", "temperature": 1.0},
        picture_weight,
        "write",
    )
    encoder = {"kind": "encoded", "patch": [1, patch, patch], "blocks": blocks}
    encoded = StreamConfig(medium, encoder, {"kind": "next_token", "flat": True}, role="read")
    return ModelConfig(trunk, {"text": text, "codes": codes, "encoded": encoded}, "text")
