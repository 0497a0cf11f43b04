"""Quantizers: vectors as codes, and back. One file a kind, found by its name.

A quantizer has
`sizes`                                  how many values each number of a code takes; `bits` is what a code carries
`forward(z_ND, progress) -> Quantized`   codes of vectors, the vectors they stand for, and what it adds to the loss
`lookup(codes_NG) -> [N, D]`             the vectors that codes stand for
`moved(ranks, taken)`                    called after each step of training: what follows the data without a gradient
and its file `Config` (with `width`) and `build(config)`. It computes in fp32; gradients pass straight through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Quantized(NamedTuple):
    """What a quantizer makes of vectors.

    Shapes:  `values_ND`, `codes_NG` int64; `losses` are scalars, weighed already.
    """

    values_ND: Tensor
    codes_NG: Tensor
    losses: dict[str, Tensor]


@dataclass(frozen=True)
class Use:
    """How codes were used: how many of all occurred, and the entropy, in bits, of how often each did."""

    seen: int
    share: float
    bits: float

    @property
    def perplexity(self) -> float:
        """The sides of a fair die as hard to guess."""
        return 2**self.bits


class Quantizer(nn.Module):
    """What all of them have: numbers of sub-codes as one index, and what a code carries.

    `binary` is true where each bit of a code says something by itself.
    """

    sizes: tuple[int, ...] = ()
    binary = False

    @property
    def bits(self) -> float:
        """What a code of fixed length carries."""
        return sum(math.log2(size) for size in self.sizes)

    def index(self, codes_NG: Tensor) -> Tensor:
        """The numbers of each code as one, the last turning fastest.

        Shapes:  [N, G] -> [N].
        Limits:  62 bits.
        """
        return indexed(codes_NG, self.sizes)

    def codes(self, index_N: Tensor) -> Tensor:
        """The codes that `index` numbered so.

        Shapes:  [N] -> [N, G].
        """
        return numbers_of(index_N, self.sizes)

    def moved(self, ranks: Any, taken: bool) -> None:
        """Nothing: only what keeps averages of the data has something to do.

        `ranks` adds up over all of them; what a step that was not `taken` saw is forgotten.
        """


def indexed(codes_NG: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Several numbers as one, the last turning fastest.

    Shapes:  [N, G] -> [N].
    """
    out = torch.zeros_like(codes_NG[:, 0])
    for number, size in enumerate(sizes):
        out = out * size + codes_NG[:, number]
    return out


def numbers_of(index_N: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The numbers that `indexed` made one of.

    Shapes:  [N] -> [N, G].
    """
    numbers = []
    for size in reversed(sizes):
        numbers.append(index_N % size)
        index_N = index_N // size
    return torch.stack(numbers[::-1], 1)


def straight_through(z_ND: Tensor, values_ND: Tensor) -> Tensor:
    """The values, with the gradient of the vectors that they were made of."""
    return z_ND + (values_ND - z_ND).detach()


def use_of(codes_N: Tensor, size: float) -> Use:
    """How these codes, out of `size`, were used."""
    counts = torch.unique(codes_N, return_counts=True)[1].double()
    share = counts / counts.sum()
    return Use(len(counts), len(counts) / size, float(-(share * share.log2()).sum()))
