"""Codes of an array: what a frozen tokenizer makes of a part, as numbers on a grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixmodal.codecs import frozen, learned_place, placed
from mixmodal.healing import healed
from mixmodal.sequence import Grid, raster


@dataclass(frozen=True)
class Config:
    """Options of codes.

    `nets` are the options of the tokenizer, {"kind": file name, option: value}; a recipe gives {"from": PLACE} instead,
    the folder of a trained one or recipe:NAME for one to be trained first. `learned` adds a learned place (row and
    column) to the rotary one.
    """

    nets: dict[str, Any] = field(default_factory=dict)
    learned: bool = True


class Codec(nn.Module):
    """Rows of a table, one for each number of a code, added up. The tokenizer learns nothing here.

    Limits:  lossy: a position carries `bits`, and the tokenizer decides what of a picture they are.
    """

    lossy = True

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        if not config.nets.get("quantizer"):
            raise ValueError(
                "the codec codes wants a tokenizer with a quantizer: set codec.nets.from to the folder of a trained"
                " one, such as `mixmodal train tokenizer_vq` leaves"
            )
        self.config, self.nets = config, frozen(config.nets)
        self.sizes, self.bits = tuple(self.nets.quantizer.sizes), self.nets.quantizer.bits
        self.table = nn.Parameter(torch.randn(sum(self.sizes), width) * len(self.sizes) ** -0.5)
        self.first = np.cumsum([0, *self.sizes[:-1]])  # row of each number's value 0
        self.place = learned_place(width) if config.learned else None

    def encode(self, part: Any) -> Grid:
        """Codes in raster order; known are those all of whose pixels are."""
        latents, known = self.nets.latents(part), self.nets.known(part)
        grid = self.empty(latents.shape[:3])
        if known is not None:
            known = known.reshape(-1, 1).repeat(len(self.sizes), axis=1)
        return Grid(self.nets.to_codes(latents), grid.cells, grid.size, None, known)

    def cells(self, extent: tuple[int, int, int]) -> tuple[int, int, int]:
        """How many codes cover frames, rows and columns of `extent`."""
        return self.nets.cells(extent)

    def extent(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Frames, height and width that `size` codes cover."""
        return self.nets.extent(size)

    def coords(self, grid: Grid) -> np.ndarray:
        """Coordinates of the positions, relative to where the part begins."""
        return grid.cells

    def empty(self, size: tuple[int, int, int]) -> Grid:
        """The grid of a part of `size` codes that are not known yet."""
        cells = raster(size)
        return Grid(np.zeros((len(cells), len(self.sizes)), np.int64), cells, tuple(size))

    def decode(self, values: np.ndarray, grid: Grid, part: Any) -> Any:
        """The part with the array that the tokenizer makes of these codes, cut to the part's own size."""
        made = self.nets.pictures(self.nets.from_codes(values, (*grid.size, self.nets.vector)))
        return part.with_array(healed(made, part))

    def fields(self, grid: Grid) -> dict[str, np.ndarray]:
        """What a position embeds."""
        return {"values": grid.values, "cells": grid.cells[:, 1:].astype(np.int64)}

    def blank(self) -> dict[str, Tensor]:
        """One slot that embeds nothing of meaning."""
        return {
            "values": torch.zeros(1, len(self.sizes), dtype=torch.int64),
            "cells": torch.zeros(1, 2, dtype=torch.int64),
        }

    def embed(self, fields: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The sum of the rows of a code's numbers, with their learned place.

        Shapes:  [N, G] -> [N, D].
        """
        first_G = torch.from_numpy(self.first).to(self.table.device)
        x_ND = self.table[fields["values"] + first_G].sum(1)
        if self.place is not None:
            x_ND = placed(x_ND, self.place, fields["cells"])
        return x_ND

    def read(self, hidden_ND: Tensor, fields: dict[str, Tensor]) -> Tensor:
        """The hidden state itself: a head reads codes."""
        return hidden_ND


def build(config: Config, width: int) -> Codec:
    """The codec for a trunk of `width`."""
    return Codec(config, width)
