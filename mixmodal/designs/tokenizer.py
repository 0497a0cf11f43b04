"""Tokenizer: pictures through a narrow grid of vectors or codes and back; what other designs take for picture tokens.

Source:  van den Oord et al. 2017 (arXiv:1711.00937), VQ-VAE; Esser et al. 2021 (arXiv:2012.09841); Yu et al. 2023
         (arXiv:2310.05737), MAGVIT-v2.
Differs: no trunk and no downloaded network; perceptual distance by features that nobody trained.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(
    *,
    quantizer: dict[str, Any] | None = None,
    codec: dict[str, Any] | None = None,
    losses: dict[str, Any] | None = None,
    medium: str = "image",
) -> ModelConfig:
    """The configuration: an autoencoder, and a trunk without blocks that carries its pictures."""
    trunk = TrunkConfig(width=8, depth=0, heads=1, kv_heads=1, head_size=8, mlp_width=8)
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, {"kind": "categorical"}, 0.0)
    nets = {"kind": "autoencoder", **(codec or {}), "quantizer": quantizer or {}}
    pictures = StreamConfig(medium, nets, {"kind": "reconstruct", **(losses or {})})
    return ModelConfig(trunk, {"text": text, "pictures": pictures}, "text")
