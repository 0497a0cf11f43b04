"""Random numbers made of a number: the same on every machine, in every batch, for whoever holds the number."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TURN = -7046029254386353131  # 2^64 divided by the golden ratio, as a signed number
MIX = (-4658895280553007687, -7723592293110705685)
PLACES = 24  # bits of a uniform number: what fp32 tells apart


def uniform(chance_N: Tensor, count: int, stream: int = 0) -> Tensor:
    """`count` numbers in (0, 1) for each of `chance_N`; another `stream` gives others.

    Shapes:  [N] int64 -> [N, count] fp32.
    Source:  the mixing of Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators".
    """
    steps = torch.arange(1, count + 1, device=chance_N.device) + stream * (1 << 32)
    mixed = chance_N[:, None] + steps * TURN  # whole numbers of 64 bits turn over
    for shift, factor in zip((30, 27), MIX, strict=True):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    mixed = mixed ^ _shifted(mixed, 31)
    return (_shifted(mixed, 64 - PLACES).double() + 0.5).mul(2.0**-PLACES).float()


def normal(chance_N: Tensor, count: int, stream: int = 0) -> Tensor:
    """`count` standard normal numbers for each of `chance_N`.

    Shapes:  [N] int64 -> [N, count] fp32.
    """
    pairs = (count + 1) // 2
    length, angle = uniform(chance_N, 2 * pairs, stream).chunk(2, 1)
    radius = (-2 * length.log()).sqrt()
    return torch.cat(((2 * math.pi * angle).cos() * radius, (2 * math.pi * angle).sin() * radius), 1)[:, :count]


def _shifted(values: Tensor, by: int) -> Tensor:
    """Bits moved to the right, zeros behind them: torch repeats the sign."""
    return (values >> by) & ((1 << (64 - by)) - 1)
