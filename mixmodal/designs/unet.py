"""U-Net: a control. Text by next token as ever; noisy pictures by a U-Net, on what the trunk says of their text.

Source:  Ho et al. 2020 (arXiv:2006.11239); Dhariwal & Nichol 2021 (arXiv:2105.05233).
Differs: the flow and its prediction are those of all others here; the trunk encodes the text, and reads given pictures.
"""

from __future__ import annotations

from typing import Any

from mixmodal.config import ModelConfig, TrunkConfig
from mixmodal.designs import controlled


def model(trunk: TrunkConfig, *, width: int = 32, halvings: int = 2, heads: int = 4, **options: Any) -> ModelConfig:
    """The configuration: text that speaks, patches that are read, and a U-Net that writes them."""
    return controlled(trunk, {"net": "pyramid", "width": width, "depth": halvings, "heads": heads}, **options)
