"""Chameleon: text and codes of pictures in one sequence, one vocabulary, all by next token.

Source:  Chameleon Team 2024 (arXiv:2405.09818); the codes as in Esser et al. 2021 (arXiv:2012.09841).
Differs: the tokenizer is trained here; pictures weigh 1, text 0.5 and prompts less, in the paper all the same; the
         scan of the codes may be chosen; guidance in logits, as Sun et al. 2024 (arXiv:2406.06525) draw.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(
    trunk: TrunkConfig,
    *,
    nets: dict[str, Any],
    scan: str = "raster",
    flat: bool = True,
    joint: bool = True,
    medium: str = "image",
    picture_weight: float = 1.0,
    text_weight: float = 0.5,
) -> ModelConfig:
    """The configuration: text and codes, each predicted from the position before it.

    `flat` counts codes on like text; `joint` is the one vocabulary, for tokenizers whose codes are one number.
    """
    head = {"kind": "categorical", "joint": joint}
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, head, text_weight)
    codes = StreamConfig(
        medium,
        {"kind": "codes", "nets": nets},
        {"kind": "next_token", "scan": scan, "flat": flat},
        {**head, "temperature": 1.0},
        picture_weight,
    )
    return ModelConfig(trunk, {"text": text, "codes": codes}, "text")
