"""Next token: each value is predicted from the position before it. In reading order no copy is needed."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixmodal.objectives import Ask, Block, Lay
from mixmodal.sequence import Grid, Run


@dataclass(frozen=True)
class Config:
    """Next token has no options."""


class Objective(nn.Module):
    """Values one by one, each from the hidden state of the position before."""

    needs_copy = False

    def lay(self, stream: str, codec: Any, grid: Grid, lay: Lay) -> list[Run]:
        """One causal run, predicted from one position earlier."""
        run = self.show(stream, codec, grid, lay.origin)
        count = len(grid.values)
        run.predict_at = np.arange(-1, count - 1)
        run.predict = {"targets": grid.values, "weights": np.full(count, lay.weight, np.float32)}
        return [run]

    def show(self, stream: str, codec: Any, grid: Grid, origin: float) -> Run:
        """The values as context, causal."""
        return Run(stream, codec.fields(grid), codec.coords(grid) + np.float32(origin))

    def blank(self, codec: Any) -> dict[str, Tensor]:
        """One embedding slot of no meaning."""
        return codec.blank()

    def blank_predict(self, codec: Any) -> dict[str, Tensor]:
        """One prediction of weight 0."""
        return {"targets": codec.blank()["values"], "weights": torch.zeros(1)}

    def embed(self, codec: Any, fields: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """What the codec embeds.

        Shapes:  -> [N, D].
        """
        return codec.embed(fields, dtype)

    def losses(self, codec: Any, head: Any, hidden_ND: Tensor, fields: dict[str, Tensor]) -> dict:
        """Sum and count of the weighted cross-entropy."""
        loss_N = head.loss(hidden_ND, fields["targets"])
        return {"nll": ((loss_N * fields["weights"]).sum(), fields["weights"].sum())}

    def sampler(self, codec: Any, head: Any, grid: Grid, ask: Ask) -> Generator[Block | None, list[Tensor], np.ndarray]:
        """The values drawn, as many as the grid has cells; of an empty one, until one ends the part, itself included.

        The first thing it yields is None: it asks for the hidden state of the last kept position.
        """
        values: list[np.ndarray] = []
        sized = len(grid.values)
        hidden = (yield None)[0][-1:]
        while len(values) < (sized or ask.settings.max_tokens):
            number = len(values)
            value = head.draw(hidden, ask.settings, ask.rng, ask.banned).cpu().numpy()
            if grid.known is not None:
                value = np.where(grid.known[number : number + 1], grid.values[number : number + 1], value)
            values.append(value)
            if ask.stops and int(value[0]) in ask.stops:
                break
            if sized:
                run = self.show("", codec, Grid(value, grid.cells[number : number + 1], grid.size), 0)
            else:
                run = self.show("", codec, codec.grid(value, number), 0)
            hidden = (yield Block(run, keep=True, branches=1))[0][-1:]
        return np.concatenate(values) if values else grid.values


def build(config: Config, width: int) -> Objective:
    """The objective for a trunk of `width`."""
    return Objective()
