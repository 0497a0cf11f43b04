"""JanusFlow: pictures are read through an encoder of their own, and written as latents by flow.

Source:  Ma et al. 2024 (arXiv:2411.07975); the latents as Rombach et al. 2022 (arXiv:2112.10752).
Differs: the encoder is trained with all else and from nothing, in the paper it is SigLIP, and what the trunk makes of
         noisy latents is not drawn near to what it sees; positions of a picture see one another both ways; `ends` are
         small U-Nets where the paper has ConvNeXt blocks; what follows a written picture reads it through the encoder.
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
    square: int = 2,
    ends: int = 0,
    flow: dict[str, Any] | None = None,
    medium: str = "image",
    picture_weight: float = 1.0,
    text_weight: float = 0.5,
) -> ModelConfig:
    """The configuration: text that speaks, encoded pictures to be read, and squares of latents to be written."""
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, {"kind": "categorical"}, text_weight)
    latents = StreamConfig(
        medium,
        {"kind": "latents", "nets": nets, "inner": {"kind": "arrays", "patch": [1, square, square], "ends": ends}},
        {"kind": "flow", "prediction": "v", "time": "token", **(flow or {})},
        None,
        picture_weight,
        "write",
    )
    encoder = {"kind": "encoded", "patch": [1, patch, patch], "blocks": blocks}
    encoded = StreamConfig(medium, encoder, {"kind": "flow", "time": "trunk"}, role="read")
    return ModelConfig(trunk, {"text": text, "latents": latents, "encoded": encoded}, "text")
