"""Arrays as raw patches: nothing is lost on the way in, whatever the medium.

A part with `array()` (float [frames, height, width, channels] in [-1, 1]) and `with_array()` fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mixmodal.codecs import learned_place, placed
from mixmodal.convnets import Down, Up, by_size, to_canvas, to_patches, together
from mixmodal.sequence import Grid, raster


@dataclass(frozen=True)
class Config:
    """Options of raw patches.

    Units:   `patch` is frames, rows, columns of one patch; `rank` > 0 bounds the rank of the embedding (not
             lossless then); `box` > 0 fits the longer side of a part to that many coordinates; `learned` adds a
             learned place (row and column) to the rotary one; `ends` > 0 is the width of small convolutional nets
             over the whole part, beside the matrices (one frame only): one into the trunk, and behind it a U-Net
             that also sees the noisy values. They are told the time of each part where the objective has one.
             `quick` has the first of them mix at its coarsest level alone.
    """

    patch: tuple[int, int, int] = (1, 8, 8)
    channels: int = 3
    rank: int = 0
    box: float = 0.0
    learned: bool = True
    ends: int = 0
    quick: bool = False


class Patches(nn.Module):
    """Parts as patches of a grid and back, whatever then becomes of the patches."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.size = int(np.prod(config.patch)) * config.channels

    def encode(self, part: Any) -> Grid:
        """Patches of the part in raster order; a part that a patch does not divide is padded with its edge."""
        array = part.array()
        missing = [(-side) % patch for side, patch in zip(array.shape, self.config.patch, strict=False)]
        counted = known = None
        if not any(missing):
            values = self._patches(array)
        else:
            values = self._patches(np.pad(array, [(0, m) for m in missing] + [(0, 0)], mode="edge"))
            inside = np.pad(np.ones(array.shape, np.float32), [(0, m) for m in missing] + [(0, 0)])
            counted = self._patches(inside)
        if part.known is not None:
            mask = np.broadcast_to(part.known[None, :, :, None], array.shape)
            # what is padded is known too, or a patch at the edge would never be
            known = self._patches(np.pad(mask, [(0, m) for m in missing] + [(0, 0)], constant_values=True))
        size = self.cells(array.shape[:3])
        return Grid(values, raster(size), size, counted, known)

    def cells(self, extent: tuple[int, int, int]) -> tuple[int, int, int]:
        """How many patches cover frames, rows and columns of `extent`."""
        return tuple(-(-side // patch) for side, patch in zip(extent, self.config.patch, strict=True))

    def extent(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Frames, height and width that `size` patches cover."""
        return tuple(cells * patch for cells, patch in zip(size, self.config.patch, strict=True))

    def coords(self, grid: Grid) -> np.ndarray:
        """Coordinates of the positions, relative to where the part begins."""
        if not self.config.box:
            return grid.cells
        scale = np.asarray([1, 1, 1], np.float32)
        scale[1:] = self.config.box / max(grid.size[1:])
        return (grid.cells * scale).astype(np.float32)

    def empty(self, size: tuple[int, int, int]) -> Grid:
        """The grid of a part of `size` cells that has no values yet."""
        cells = raster(size)
        return Grid(np.zeros((len(cells), self.size), np.float32), cells, size)

    def decode(self, values: np.ndarray, grid: Grid, part: Any) -> Any:
        """The part with the array that the patches make, cut to the part's own size."""
        frames, rows, columns = grid.size
        p, q, r = self.config.patch
        array = rearrange(
            values,
            "(f h w) (p q r c) -> (f p) (h q) (w r) c",
            f=frames,
            h=rows,
            w=columns,
            p=p,
            q=q,
            r=r,
            c=self.config.channels,
        )
        return part.with_array(array)

    def fields(self, grid: Grid) -> dict[str, np.ndarray]:
        """What a position embeds."""
        size = np.tile(np.asarray(grid.size[1:], np.int64), (len(grid.values), 1))
        return {"values": grid.values.astype(np.float32), "cells": grid.cells[:, 1:].astype(np.int64), "size": size}

    def blank(self) -> dict[str, Tensor]:
        """One slot that embeds nothing of meaning."""
        return {
            "values": torch.zeros(1, self.size),
            "cells": torch.zeros(1, 2, dtype=torch.long),
            "size": torch.ones(1, 2, dtype=torch.long),
        }

    def smoothest(self, rank: int) -> Tensor:
        """The `rank` smoothest directions of a patch, orthonormal: cosines, those of the lowest frequency first.

        Shapes:  -> [C, rank].
        Source:  Ahmed, Natarajan & Rao 1974: nearly the principal components of what is alike from place to place.
        """
        if not 0 <= rank <= self.size:
            raise ValueError(f"objective.rank is {rank}: a patch has {self.size} values, take 0 to {self.size}")
        return _cosines(tuple(self.config.patch), self.config.channels, rank)

    def _patches(self, array: np.ndarray) -> np.ndarray:
        p, q, r = self.config.patch
        return rearrange(array, "(f p) (h q) (w r) c -> (f h w) (p q r c)", p=p, q=q, r=r)


class Codec(Patches):
    """Patches in and out by one matrix each."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__(config)
        self.into = nn.Parameter(torch.empty(width, self.size))
        # Full column rank from the first step wherever width >= size; few values are as loud as many beside a place.
        nn.init.orthogonal_(self.into, gain=max(1.0, width / self.size) ** 0.5)
        self.low = nn.Parameter(torch.randn(config.rank, self.size) * self.size**-0.5) if config.rank else None
        if config.rank:
            self.into = nn.Parameter(torch.randn(width, config.rank) * config.rank**-0.5)
        self.out = nn.Parameter(torch.zeros(self.size, width))
        self.mixes = config.ends > 0
        if self.mixes:
            if config.patch[0] != 1:
                raise ValueError(f"codec.ends are nets over one frame, and a patch has {config.patch[0]}: set ends=0")
            levels = min(2, *((side & -side).bit_length() - 1 for side in config.patch[1:]))
            self.coarse = tuple(side >> levels for side in config.patch[1:])  # a patch on the coarsest level
            size = self.coarse[0] * self.coarse[1] * (config.ends << levels)
            # one channel more: how noisy the picture is
            self.down = Down(config.channels + 1, config.ends, levels, config.quick)
            # its own pyramid: it learns on when the trunk rests, and what the trunk reads must not move then
            self.beside = Down(config.channels + 1, config.ends, levels)
            self.up = Up(config.channels, config.ends, levels)
            self.from_down = nn.Parameter(torch.randn(width, size) * size**-0.5)
            self.to_up = nn.Parameter(torch.randn(size, width) * width**-0.5)
        self.place = learned_place(width) if config.learned else None

    def embed(self, fields: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """Patches through one matrix, with their learned place; convolutions run in `dtype`.

        Shapes:  [N, C] -> [N, D].
        """
        values = fields["values"]
        if self.low is not None:
            values = F.linear(values, self.low)
        x_ND = F.linear(values, self.into)
        if self.config.ends:
            x_ND = x_ND + self._convolved(fields, dtype)
        if self.place is not None:
            x_ND = placed(x_ND, self.place, fields["cells"])
        return x_ND

    def read(self, hidden_ND: Tensor, fields: dict[str, Tensor]) -> Tensor:
        """Predicted patches in fp32; `fields` are the (noisy) values that stood there.

        Shapes:  [N, D] -> [N, C].
        """
        predicted_NC = F.linear(hidden_ND, self.out.to(hidden_ND.dtype)).float()
        if not self.config.ends:
            return predicted_NC
        features = F.linear(hidden_ND, self.to_up.to(hidden_ND.dtype))
        out = []
        for rows, columns, at in by_size(fields["size"]):
            pyramid = self.beside(self._canvas(fields, at, (rows, columns), hidden_ND.dtype))
            change = self.up(to_canvas(features[at], rows, columns, self.coarse), pyramid)
            out.append((at, to_patches(change, self.config.patch[1:]).float()))
        return predicted_NC + together(out)

    def _convolved(self, fields: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        out = []
        for rows, columns, at in by_size(fields["size"]):
            canvas = self._canvas(fields, at, (rows, columns), dtype)
            out.append((at, to_patches(self.down(canvas)[-1], self.coarse)))
        # normed: left alone they grow tenfold in training and drown places and words
        features = F.rms_norm(together(out).float(), (self.from_down.shape[1],)).to(dtype)
        return F.linear(features, self.from_down.to(dtype)).float()

    def _canvas(self, fields: dict[str, Tensor], at: Tensor, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Whole pictures with one more channel: their time, 1 where nothing is noisy."""
        canvas = to_canvas(fields["values"][at].to(dtype), *size, self.config.patch[1:])
        if "time" in fields:
            time = fields["time"][at][:: size[0] * size[1]].to(dtype)
        else:
            time = canvas.new_ones(len(canvas))
        clock = (2 * time - 1)[:, None, None, None].expand(-1, 1, *canvas.shape[2:])
        return torch.cat((canvas, clock), 1).contiguous(memory_format=torch.channels_last)

    def embedding_rank(self) -> int:
        """The column rank of the patch embedding: lossless where it equals the number of values of a patch."""
        return int(torch.linalg.matrix_rank(self._matrix()))

    def embedded(self, values: np.ndarray) -> np.ndarray:
        """What can be told of the values of patches from what enters the trunk in fp32, by least squares.

        Shapes:  [N, C] -> [N, C].
        """
        matrix = self._matrix()
        entering = torch.from_numpy(values).to(matrix.device, torch.float32) @ matrix.T.float()
        found = entering.to(matrix) @ torch.linalg.pinv(matrix).T
        return found.float().cpu().numpy()

    def _matrix(self) -> Tensor:
        matrix = self.into.detach().double()
        return matrix if self.low is None else matrix @ self.low.detach().double()


@cache
def _cosines(patch: tuple[int, ...], channels: int, rank: int) -> Tensor:
    """See `smoothest`: asked for at every loss and every step of a solver."""
    axes, frequency = np.eye(1), np.zeros(1)
    for side in patch:
        at = np.arange(side)
        waves = np.cos(np.pi * np.outer(at + 0.5, at) / side)
        axes = np.kron(axes, waves / np.linalg.norm(waves, axis=0))
        frequency = np.add.outer(frequency, (at / side) ** 2).ravel()
    order = np.argsort(np.repeat(frequency, channels), kind="stable")[:rank]
    with torch.inference_mode(False):
        return torch.from_numpy(np.kron(axes, np.eye(channels))[:, order].astype(np.float32))


def build(config: Config, width: int) -> Codec:
    """The codec for a trunk of `width`."""
    return Codec(config, width)
