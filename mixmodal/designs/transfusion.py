"""Transfusion: text by next token, latents of pictures by flow, one transformer.

Source:  Zhou et al. 2024 (arXiv:2408.11039); the latents as Rombach et al. 2022 (arXiv:2112.10752).
Differs: flow where the paper has DDPM; time is added to noisy positions; pictures weigh
         twice as much as text, in the paper five times; the law of times is that of pixels unless `flow` has another;
         what follows a picture sees a clean copy of it, in the paper the noised one.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(
    trunk: TrunkConfig,
    *,
    nets: dict[str, Any],
    patch: int = 2,
    ends: int = 0,
    flow: dict[str, Any] | None = None,
    medium: str = "image",
    picture_weight: float = 1.0,
    text_weight: float = 0.5,
) -> ModelConfig:
    """The configuration: text that speaks, and squares of `patch` latents; `ends` > 0 has small U-Nets around them."""
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, {"kind": "categorical"}, text_weight)
    inner = {"kind": "arrays", "patch": [1, patch, patch], "ends": ends}
    latents = StreamConfig(
        medium,
        {"kind": "latents", "nets": nets, "inner": inner},
        {"kind": "flow", "prediction": "v", **(flow or {})},
        None,
        picture_weight,
    )
    return ModelConfig(trunk, {"text": text, "latents": latents}, "text")
