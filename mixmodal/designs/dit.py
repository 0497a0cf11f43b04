"""DiT: a control. Text by next token as ever; noisy pictures by a transformer of their own, on what the trunk says.

Source:  Peebles & Xie 2022 (arXiv:2212.09748).
Differs: raw patches for latents; the flow and its prediction are those of all others here; the trunk encodes the text.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, TrunkConfig
from mixmodal.designs import controlled


def model(trunk: TrunkConfig, *, width: int = 128, depth: int = 4, heads: int = 4, **options: Any) -> ModelConfig:
    """The configuration: text that speaks, patches that are read, and a transformer that writes them."""
    return controlled(trunk, {"net": "tower", "width": width, "depth": depth, "heads": heads}, **options)
