"""Next token: each value is predicted from the position before it. In reading order no copy is needed."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixmodal.objectives import Ask, Block, Lay, chances, counted
from mixmodal.scans import ordered, scan
from mixmodal.sequence import Grid, Run


@dataclass(frozen=True)
class Config:
    """Options of next token.

    `scan` is the order of a part's cells (see `scans.py`); `flat` has each position count on like text, whatever its
    row and column.
    """

    scan: str = "raster"
    flat: bool = False


class Objective(nn.Module):
    """Values one by one, each from the hidden state of the position before."""

    needs_copy = False
    asks_head = True
    exact = True  # each value has a law, given those before: their product is that of the part

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        scan(config.scan, (1, 1, 1))  # a name that does not exist is refused now

    def lay(self, stream: str, codec: Any, grid: Grid, lay: Lay) -> list[Run]:
        """One causal run, predicted from one position earlier."""
        grid = self._scanned(grid)
        run = self._run(stream, codec, grid, lay.origin)
        count = len(grid.values)
        run.predict_at = np.arange(-1, count - 1)
        weights = np.full(count, lay.weight, np.float32)
        if grid.known is not None:
            weights = weights * ~grid.known.reshape(count, -1).all(1)
        run.predict = {"targets": grid.values, "weights": weights} | chances(codec, count, lay.rng)
        run.predict |= counted(codec, grid)
        return [run]

    def show(self, stream: str, codec: Any, grid: Grid, origin: float) -> Run:
        """The values as context, causal."""
        return self._run(stream, codec, self._scanned(grid), origin)

    def _run(self, stream: str, codec: Any, grid: Grid, origin: float, first: int = 0) -> Run:
        coords = codec.coords(grid)
        if self.config.flat:
            coords = np.arange(first, first + len(grid.values), dtype=np.float32)[:, None].repeat(3, axis=1)
        return Run(stream, codec.fields(grid), coords + np.float32(origin))

    def _scanned(self, grid: Grid) -> Grid:
        """The grid with its cells in the order of the scan."""
        return grid if self.config.scan == "raster" else _taken(grid, ordered(self.config.scan, grid.cells, grid.size))

    def blank(self, codec: Any) -> dict[str, Tensor]:
        """One embedding slot of no meaning."""
        return codec.blank()

    def blank_predict(self, codec: Any) -> dict[str, Tensor]:
        """One prediction of weight 0."""
        values = codec.blank()["values"]
        extra = chances(codec, 1) | counted(codec, Grid(values.numpy(), None, None))
        return {"targets": values, "weights": torch.zeros(1)} | {n: torch.from_numpy(v) for n, v in extra.items()}

    def embed(self, codec: Any, fields: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """What the codec embeds.

        Shapes:  -> [N, D].
        """
        return codec.embed(fields, dtype)

    def losses(self, codec: Any, head: Any, hidden_ND: Tensor, fields: dict[str, Tensor]) -> dict:
        """Sum and count of the weighted loss of the head: for a categorical one, the cross-entropy."""
        loss_N = head.loss(hidden_ND, fields["targets"], *(fields[n] for n in ("chance", "counted") if n in fields))
        return {"nll": ((loss_N * fields["weights"]).sum(), fields["weights"].sum())}

    def sampler(self, codec: Any, head: Any, grid: Grid, ask: Ask) -> Generator[Block | None, list[Tensor], np.ndarray]:
        """The values drawn, as many as the grid has cells; of an empty one, until one ends the part, itself included.

        The first thing it yields is None: it asks for the hidden state of the last kept position.
        """
        values: list[np.ndarray] = []
        sized, scanned = len(grid.values), self._scanned(grid)
        branches = 2 if ask.guided and ask.settings.guidance != 1 else 1
        hidden = yield None
        while len(values) < (sized or ask.settings.max_tokens):
            number = len(values)
            drawn, _ = head.draw([h[-1:] for h in hidden[:branches]], ask.settings, ask.rng, ask.banned)
            value = drawn.cpu().numpy()
            if scanned.known is not None:
                value = np.where(scanned.known[number : number + 1], scanned.values[number : number + 1], value)
            values.append(value)
            if ask.stops and int(value[0]) in ask.stops:
                break
            if sized:
                at = slice(number, number + 1)
                run = self._run("", codec, Grid(value, scanned.cells[at], grid.size), 0, number)
            else:
                run = self.show("", codec, codec.grid(value, number), 0)
            hidden = yield Block(run, keep=True, branches=branches)
        if not values:
            return grid.values
        made = np.concatenate(values)
        if sized and self.config.scan != "raster":
            made[ordered(self.config.scan, grid.cells, grid.size)] = made.copy()
        return made


def _taken(grid: Grid, order: np.ndarray) -> Grid:
    counted, known = (None if values is None else values[order] for values in (grid.counted, grid.known))
    return Grid(grid.values[order], grid.cells[order], grid.size, counted, known)


def build(config: Config, width: int) -> Objective:
    """The objective for a trunk of `width`."""
    return Objective(config)
