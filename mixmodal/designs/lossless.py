"""Lossless: text by next token, raw patches in and out by flow, one transformer.

Source:  Su 2024, "Lossless input"; Li & He 2025 (arXiv:2511.13720); Tuna-2 (arXiv:2604.24763).
Differs: patches enter through one matrix of full column rank, so nothing of a picture is lost on its way in; with
         `sigma_data`, as most recipes have it, noisy ones enter as the best linear guess of the clean ones;
         sampling takes 25 even-spaced steps of Euler after a shift, where Li & He take 50 of Heun and no shift.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(
    trunk: TrunkConfig,
    *,
    patch: tuple[int, int, int] = (1, 8, 8),
    channels: int = 3,
    medium: str = "image",
    flow: dict[str, Any] | None = None,
    codec: dict[str, Any] | None = None,
    places: int = 0,
    picture_weight: float = 1.0,
    text_weight: float = 0.5,
) -> ModelConfig:
    """The configuration: a text stream that speaks, and a stream of patches of `medium`.

    `places` > 0 adds learned places to the first so many tokens of a text.
    """
    words = {"kind": "text", **({"learned": places} if places else {})}
    text = StreamConfig("text", words, {"kind": "next_token"}, {"kind": "categorical"}, text_weight)
    patches = StreamConfig(
        medium,
        {"kind": "arrays", "patch": list(patch), "channels": channels, **(codec or {})},
        {"kind": "flow", **(flow or {})},
        None,
        picture_weight,
    )
    return ModelConfig(trunk, {"text": text, "patches": patches}, "text")
