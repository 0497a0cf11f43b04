"""Codecs: how a part becomes values on a grid, and back. One file a kind, found by its name.

A codec has `encode(part) -> Grid`, `decode(values, grid, part) -> part`, `empty(size) -> Grid`,
`embed(fields, dtype) -> [N, D]`, `read(hidden_ND, fields) -> prediction`, `coords(grid)`, `fields(grid)`, and
`blank() -> fields` of one slot that means nothing. Its file has `Config` and `build(config, width)`; a `prepare`
completes the options from the data before training. It `mixes` where what enters at one position tells of others, and
is `lossy` where values that are decoded and encoded become others. One that stands on a trained one has it in its
option `nets`. For a flow that predicts "asym" it has `smoothest(rank)` too, the directions of its greatest variance.

Where it has them, these are used:
`sizes` or `vocabulary`    how many values each number of a code, or a token, may have: what a categorical head draws
`size`                     how many values a vector has: what a denoiser draws
`fill`                     the token that stands where a text of a fixed length has ended
`table_added`, `kept`      rows that were added to a table, which learn, and how many stand before them, which do not
`rebuilt(part) -> part`    there and back, for who judges what is lost
`bits`, `embedding_rank()` a position's bits, and the rank of the matrix by which it enters: `info` and `audit` tell
`moved(ranks, taken)`      of any module: called after each step, for what follows the data without a gradient
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mixmodal.config import options
from mixmodal.kinds import kind_of

PLACES = 128  # along a side: patches or codes beyond them share the last one's


def learned_place(width: int) -> nn.Parameter:
    """A vector for each row and each column, of about the length that a patch of clean pixels is embedded with."""
    return nn.Parameter(torch.randn(2, PLACES, width) * 0.8)


def placed(x_ND: Tensor | float, place_2PD: Tensor, cells_N2: Tensor) -> Tensor:
    """Vectors with the learned places of their rows and columns added.

    Shapes:  [N, D], [2, P, D], [N, 2] -> [N, D].
    """
    cells_N2 = cells_N2.clamp(max=place_2PD.shape[1] - 1)
    return x_ND + place_2PD[0][cells_N2[:, 0]] + place_2PD[1][cells_N2[:, 1]]


def frozen(nets: dict[str, Any]) -> nn.Module:
    """The codec that `nets` spells, none of whose weights learn."""
    module, own = kind_of("codecs", nets), {key: value for key, value in nets.items() if key != "from"}
    return module.build(options(module.Config, own, "codec.nets"), 1).requires_grad_(False)
