"""ImageGPT: every value of a picture by next token, so that its bits are exact.

Source:  Chen et al. 2020, "Generative Pretraining from Pixels"; the exact factorisation over values, channel after
         channel: van den Oord et al. 2016 (arXiv:1601.06759), PixelRNN; by a transformer: Child et al. 2019
         (arXiv:1904.10509).
Differs: values as they are, not a palette of 512 colours; two-dimensional places, the scan and the order of channels
         may be chosen; a caption may come before.
"""

from __future__ import annotations

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(
    trunk: TrunkConfig,
    *,
    scan: str = "raster",
    order: str = "pixels",
    grey: bool = False,
    medium: str = "image",
    text_weight: float = 0.0,
) -> ModelConfig:
    """The configuration: text, and one position for each value."""
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, {"kind": "categorical"}, text_weight)
    pixels = StreamConfig(
        medium,
        {"kind": "values", "order": order, "grey": grey},
        {"kind": "next_token", "scan": scan},
        {"kind": "categorical", "temperature": 1.0},
    )
    return ModelConfig(trunk, {"text": text, "pixels": pixels}, "text")
