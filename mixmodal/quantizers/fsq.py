"""Finite scalar quantization: each number is rounded to one of a few levels.

Source:  Mentzer et al. 2023 (arXiv:2309.15505).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixmodal.quantizers import Quantized, Quantizer, indexed, numbers_of, straight_through


@dataclass(frozen=True)
class Config:
    """Options: how many levels each number of a vector has.

    `joint` makes one number of a code, as the paper does: who learns codes learns what goes together in one.
    """

    levels: tuple[int, ...] = (8, 5, 5, 5)
    joint: bool = False

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        return len(self.levels)


MOST = 1000  # levels of a number: of more, the bound leaves them


class FSQ(Quantizer):
    """Levels at whole numbers about 0, bounded by a tanh, divided by half their range."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        if not config.levels or not 3 <= min(config.levels) <= max(config.levels) <= MOST:
            raise ValueError(f"levels are {config.levels}: give each number 3 to {MOST}; for bits take lfq")
        self.config = config
        self.sizes = (math.prod(config.levels),) if config.joint else tuple(config.levels)
        levels = torch.tensor(config.levels, dtype=torch.float32)
        self.register_buffer("middle", levels // 2, persistent=False)
        reach = (levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        self.register_buffer("reach", reach, persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("shift", torch.atanh(offset / reach), persistent=False)

    def forward(self, z_ND: Tensor, progress: float = 0.0) -> Quantized:
        """The nearest levels."""
        bounded_ND = torch.tanh(z_ND.float() + self.shift) * self.reach - self.offset
        rounded_ND = straight_through(bounded_ND, bounded_ND.round())
        codes_NG = (rounded_ND.detach().round() + self.middle).long()
        if self.config.joint:
            codes_NG = indexed(codes_NG, self.config.levels)[:, None]
        return Quantized(rounded_ND / self.middle, codes_NG, {})

    def lookup(self, codes_NG: Tensor) -> Tensor:
        """The numbers at these levels.

        Shapes:  [N, G] -> [N, D].
        """
        if self.config.joint:
            codes_NG = numbers_of(codes_NG[:, 0], self.config.levels)
        return (codes_NG - self.middle) / self.middle


def build(config: Config) -> FSQ:
    """The quantizer."""
    return FSQ(config)
