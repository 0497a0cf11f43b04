"""BAGEL: pictures are read through an encoder, and written as latents by flow, which an expert of its own does.

Source:  Deng et al. 2025 (arXiv:2505.14683); experts as Liang et al. 2024 (arXiv:2411.04996).
Differs: the encoder and both experts begin at random, in the paper as SigLIP 2 and one language model; time is added
         to the latents. A picture that was given or written is read through the encoder alone, in the paper its clean
         latents stand beside, for the second expert, as every latent is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(
    trunk: TrunkConfig,
    *,
    nets: dict[str, Any],
    patch: int = 8,
    blocks: int = 2,
    square: int = 2,
    flow: dict[str, Any] | None = None,
    medium: str = "image",
    picture_weight: float = 1.0,
    text_weight: float = 0.5,
) -> ModelConfig:
    """The configuration: text and what is read go through the first expert, the latents that are written the second.

    The trunk has two experts, whatever it had.
    """
    text = StreamConfig(
        "text", {"kind": "text"}, {"kind": "next_token"}, {"kind": "categorical"}, text_weight, expert=0
    )
    latents = StreamConfig(
        medium,
        {"kind": "latents", "nets": nets, "inner": {"kind": "arrays", "patch": [1, square, square]}},
        {"kind": "flow", "prediction": "v", **(flow or {})},
        None,
        picture_weight,
        "write",
        expert=1,
    )
    encoder = {"kind": "encoded", "patch": [1, patch, patch], "blocks": blocks}
    encoded = StreamConfig(medium, encoder, {"kind": "flow", "time": "trunk"}, role="read", expert=0)
    return ModelConfig(replace(trunk, experts=2), {"text": text, "latents": latents, "encoded": encoded}, "text")
