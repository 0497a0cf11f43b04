"""Codecs: how a part becomes values on a grid, and back. One file a kind, found by its name.

A codec has `encode(part) -> Grid`, `decode(values, grid, part) -> part`, `empty(size) -> Grid`,
`embed(fields, dtype) -> [N, D]`, `read(hidden_ND, fields) -> prediction`, `coords(grid)`, `fields(grid)`, and
`blank() -> fields` of one slot that means nothing. Its file has `Config` and `build(config, width)`; a `prepare`
completes the options from the data before training. One that stands on a trained one has it in its option `nets`. For
a flow that predicts "asym" it has `smoothest(rank)` too, the directions in which its values vary most.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from mixmodal.config import options
from mixmodal.kinds import kind_of


def frozen(nets: dict[str, Any]) -> nn.Module:
    """The codec that `nets` spells, none of whose weights learn."""
    module, own = kind_of("codecs", nets), {key: value for key, value in nets.items() if key != "from"}
    return module.build(options(module.Config, own, "codec.nets"), 1).requires_grad_(False)
