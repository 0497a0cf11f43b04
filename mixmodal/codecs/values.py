"""Values of an array one by one: every pixel's every channel is a position, a whole number from 0 to 255."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixmodal.codecs import learned_place, placed
from mixmodal.sequence import Grid, raster

VALUES = 256
ORDERS = ("pixels", "planes")


@dataclass(frozen=True)
class Config:
    """Options of values.

    `order` goes through all channels of a pixel before the next pixel ("pixels"), or through a whole plane of one
    channel before the next channel ("planes"); within that the objective's scan decides. `grey` says that all channels
    of a pixel are equal: then they are one position. `learned` adds a learned place (row and column) to the rotary one.
    """

    channels: int = 3
    grey: bool = False
    order: str = "pixels"
    learned: bool = True


class Codec(nn.Module):
    """A row of a table for each value, one for each channel: nothing is lost, and a position carries 8 bits.

    A grid's cells are frame, row, column and channel; with "planes", every channel is a frame of its own.
    """

    vocabulary, bits = VALUES, 8.0

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        if config.order not in ORDERS:
            raise ValueError(f"codec.order is {config.order!r}: take {' or '.join(ORDERS)}")
        self.config, self.deep = config, 1 if config.grey else config.channels
        self.table = nn.Embedding(VALUES, width)
        self.channel = nn.Parameter(torch.randn(self.deep, width) * 0.8)
        self.place = learned_place(width) if config.learned else None

    def encode(self, part: Any) -> Grid:
        """Values in raster order; those of a known pixel are known.

        Raises:  ValueError for a coloured part where all is said to be grey.
        """
        array = part.array()
        if self.config.grey and (array != array[..., :1]).any():
            raise ValueError("codec.grey is true, but a part has colour: set it to false, or make the part grey first")
        grid = self.empty(array.shape[:3])
        values = np.rint((array[..., : self.deep] + 1) * 127.5).astype(np.int64)
        known = None
        if part.known is not None:
            known = self._ordered(np.broadcast_to(part.known[None, :, :, None], values.shape))
        return Grid(self._ordered(values), grid.cells, grid.size, None, known)

    def _ordered(self, values: np.ndarray) -> np.ndarray:
        """[frames, rows, columns, channels] as positions."""
        return (np.moveaxis(values, -1, 1) if self.config.order == "planes" else values).reshape(-1)

    def cells(self, extent: tuple[int, int, int]) -> tuple[int, int, int]:
        """Frames, rows and columns of pixels."""
        return tuple(extent)

    def extent(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Frames, rows and columns of pixels."""
        return tuple(size)

    def empty(self, size: tuple[int, int, int]) -> Grid:
        """The grid of a part of `size` pixels that has no values yet."""
        channel = np.arange(self.deep, dtype=np.float32)
        cells = raster(tuple(size)).reshape(*size, 1, 3).repeat(self.deep, axis=3)
        cells = np.concatenate((cells, np.broadcast_to(channel[:, None], (*size, self.deep, 1))), axis=-1)
        if self.config.order == "planes":
            cells = np.moveaxis(cells, 3, 1)
            cells[..., 0] = cells[..., 0] * self.deep + cells[..., 3]
        cells = cells.reshape(-1, 4)
        return Grid(np.zeros(len(cells), np.int64), cells, tuple(size))

    def coords(self, grid: Grid) -> np.ndarray:
        """Coordinates of the positions, relative to where the part begins: all channels of a pixel share theirs."""
        coords = grid.cells[:, :3].copy()
        if self.config.order == "planes":
            coords[:, 0] //= self.deep
        return coords

    def decode(self, values: np.ndarray, grid: Grid, part: Any) -> Any:
        """The part with these values."""
        values, size = np.asarray(values).reshape(-1), grid.size
        if self.config.order == "planes":
            values = np.moveaxis(values.reshape(size[0], self.deep, *size[1:]), 1, -1)
        array = values.reshape(*size, self.deep).astype(np.float32) / np.float32(127.5) - np.float32(1)
        return part.with_array(array.repeat(self.config.channels // self.deep, axis=-1))

    def fields(self, grid: Grid) -> dict[str, np.ndarray]:
        """What a position embeds."""
        return {"values": grid.values.astype(np.int64), "cells": grid.cells[:, 1:].astype(np.int64)}

    def blank(self) -> dict[str, Tensor]:
        """One slot that embeds nothing of meaning."""
        return {"values": torch.zeros(1, dtype=torch.int64), "cells": torch.zeros(1, 3, dtype=torch.int64)}

    def embed(self, fields: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The row of the value and that of its channel, with their learned place.

        Shapes:  [N] -> [N, D].
        """
        x_ND = self.table(fields["values"]) + self.channel[fields["cells"][:, 2]]
        if self.place is not None:
            x_ND = placed(x_ND, self.place, fields["cells"][:, :2])
        return x_ND

    def read(self, hidden_ND: Tensor, fields: dict[str, Tensor]) -> Tensor:
        """The hidden state itself: a head reads values."""
        return hidden_ND


def build(config: Config, width: int) -> Codec:
    """The codec for a trunk of `width`."""
    return Codec(config, width)
