"""Quantizers: vectors as codes, and back. One file a kind, found by its name.

A quantizer has
`sizes`                                  how many values each number of a code takes; `bits` is what a code carries
`forward(z_ND, progress) -> Quantized`   codes of vectors, the vectors they stand for, and what it adds to the loss
`lookup(codes_NG) -> [N, D]`             the vectors that codes stand for
`moved(ranks)`                           called after each step of training: what follows the data without a gradient
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
    """How codes were used: the share of all that occurred, and the perplexity, that of a fair die of as many sides."""

    share: float
    perplexity: float
    bits: float


class Quantizer(nn.Module):
    """What all of them have: numbers of sub-codes as one index, and what a code carries."""

    sizes: tuple[int, ...] = ()

    @property
    def bits(self) -> float:
        """What a code of fixed length carries."""
        return sum(math.log2(size) for size in self.sizes)

    def index(self, codes_NG: Tensor) -> Tensor:
        """The numbers of each code as one, the last turning fastest.

        Shapes:  [N, G] -> [N].
        Limits:  62 bits.
        """
        out = torch.zeros_like(codes_NG[:, 0])
        for number, size in enumerate(self.sizes):
            out = out * size + codes_NG[:, number]
        return out

    def codes(self, index_N: Tensor) -> Tensor:
        """The codes that `index` numbered so.

        Shapes:  [N] -> [N, G].
        """
        numbers = []
        for size in reversed(self.sizes):
            numbers.append(index_N % size)
            index_N = index_N // size
        return torch.stack(numbers[::-1], 1)

    def moved(self, ranks: Any) -> None:
        """Nothing: only what keeps averages of the data has something to do; `ranks` adds up over all of them."""


def straight_through(z_ND: Tensor, values_ND: Tensor) -> Tensor:
    """The values, with the gradient of the vectors that they were made of."""
    return z_ND + (values_ND - z_ND).detach()


def use_of(codes_NG: Tensor, sizes: tuple[int, ...]) -> list[Use]:
    """How each of the numbers of these codes was used."""
    out = []
    for column, size in zip(codes_NG.T, sizes, strict=True):
        share_K = torch.bincount(column, minlength=size).double() / len(column)
        entropy = float(-(share_K * share_K.clamp(min=1e-300).log2()).sum())
        out.append(Use(float((share_K > 0).double().mean()), 2**entropy, entropy))
    return out
