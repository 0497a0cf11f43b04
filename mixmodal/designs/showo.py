"""Show-o: text by next token, codes of pictures masked, told apart by a token that names the task.

Source:  Xie et al. 2024 (arXiv:2408.12528), on masked codes of Chang et al. 2022 (arXiv:2202.04200).
Differs: nothing is run again for a token that follows a picture; the temperature does not compound over steps.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig


def model(
    trunk: TrunkConfig,
    *,
    nets: dict[str, Any],
    masked: dict[str, Any] | None = None,
    medium: str = "image",
    picture_weight: float = 1.0,
    text_weight: float = 0.5,
) -> ModelConfig:
    """The configuration: text that speaks and opens with its task, and masked codes."""
    text = StreamConfig(
        "text", {"kind": "text", "tasks": True}, {"kind": "next_token"}, {"kind": "categorical"}, text_weight
    )
    codes = StreamConfig(
        medium,
        {"kind": "codes", "nets": nets},
        {"kind": "masked", **(masked or {})},
        {"kind": "categorical", "temperature": 1.0},
        picture_weight,
    )
    return ModelConfig(trunk, {"text": text, "codes": codes}, "text")
