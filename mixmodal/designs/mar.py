"""MAR: continuous values in a masked order, each drawn by a small flow on its hidden state.

Source:  Li et al. 2024 (arXiv:2406.11838); flow for diffusion as Liu et al. 2022 (arXiv:2209.03003).
Differs: one trunk instead of an encoder and a decoder; on raw patches too, where nothing is lost on the way in;
         guidance stays as it is while the paper's grows with what is uncovered.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(
    trunk: TrunkConfig,
    *,
    nets: dict[str, Any] | None = None,
    patch: int = 1,
    head: dict[str, Any] | None = None,
    masked: dict[str, Any] | None = None,
    medium: str = "image",
    picture_weight: float = 1.0,
    text_weight: float = 0.5,
) -> ModelConfig:
    """The configuration: text that speaks, and masked squares of `patch` latents of `nets`, or of pixels without."""
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, {"kind": "categorical"}, text_weight)
    arrays = {"kind": "arrays", "patch": [1, patch, patch]}
    squares = StreamConfig(
        medium,
        {"kind": "latents", "nets": nets, "inner": arrays} if nets else arrays,
        {"kind": "masked", "order": "random", "least": 0.7, **(masked or {})},
        {"kind": "denoiser", **(head or {})},
        picture_weight,
    )
    return ModelConfig(trunk, {"text": text, "squares": squares}, "text")
