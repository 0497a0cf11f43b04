"""Masked: some values of a part are hidden and predicted from all others; sampling uncovers more of them each step.

Source:  Chang et al. 2022 (arXiv:2202.04200), MaskGIT; Li et al. 2024 (arXiv:2406.11838), MAR, where the values are
         continuous; Nie et al. 2025 (arXiv:2502.09992), LLaDA, for text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixmodal.objectives import Ask, Block, Lay, chances
from mixmodal.sequence import Grid, Run

OPEN, CLEAN, HIDDEN = 0, 1, 2  # kinds of positions: a value among hidden ones, a clean copy, a hidden value
# How much is hidden when the share r of the steps, or of the draws in training, lies behind.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda r: math.cos(math.pi / 2 * r),
    "linear": lambda r: 1 - r,
    "square": lambda r: 1 - r**2,
    "root": lambda r: 1 - math.sqrt(r),
}


@dataclass(frozen=True)
class Config:
    """Options of masked.

    Units:   `schedule` is how much stays hidden, in training and in sampling; `order` uncovers where the draw is
             surest ("sure") or anywhere ("random"); `noise` times a Gumbel number, falling to 0 over the steps, is
             added to how sure a draw is; `copies` hidings are trained per part and visit; `fair` weighs each by one
             over its hidden share, so that the loss bounds the likelihood; `least` is the smallest share hidden in
             training. Values have as many `steps` as the settings say.
    """

    schedule: str = "cosine"
    order: str = "sure"
    noise: float = 2.0
    copies: int = 1
    fair: bool = False
    least: float = 0.0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {self.schedule!r}: take one of {', '.join(SCHEDULES)}")
        if self.order not in ("sure", "random"):
            raise ValueError(f"order is {self.order!r}: take sure or random")


class Objective(nn.Module):
    """Partly hidden copies in private two-way groups; a value is predicted where it is hidden."""

    needs_copy = True

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.config = config
        self.kind = nn.Parameter(torch.randn(3, width) * 0.5)

    def lay(self, stream: str, codec: Any, grid: Grid, lay: Lay) -> list[Run]:
        """`copies` runs, each private, with stratified shares of their values hidden."""
        config, count = self.config, len(grid.values)
        shares = lay.times
        if shares is None:
            shares = (lay.rng.permutation(config.copies) + lay.rng.random(config.copies)) / config.copies
        free = np.ones(count, bool) if grid.known is None else ~grid.known.reshape(count, -1).all(1)
        runs = []
        for copy, share in enumerate(shares):
            rate = max(config.least, SCHEDULES[config.schedule](float(share)))
            hidden = free & _some(lay.rng, count, max(1, math.ceil(rate * count)))
            run = self._covered(stream, codec, grid, hidden)
            run.coords = run.coords + np.float32(lay.origin)
            run.private = lay.group + copy
            run.predict_at = np.flatnonzero(hidden)
            number = len(run.predict_at)
            weight = lay.weight * (count / number if config.fair and number else 1.0)
            run.predict = {
                "targets": grid.values[hidden],
                "weights": np.full(number, weight, np.float32),
            } | chances(codec, number, lay.rng)
            runs.append(run)
        return runs

    def show(self, stream: str, codec: Any, grid: Grid, origin: float) -> Run:
        """The values clean, as a two-way run."""
        fields = codec.fields(grid) | {"kind": np.full(len(grid.values), CLEAN)}
        return Run(stream, fields, codec.coords(grid) + np.float32(origin), two_way=True)

    def _covered(self, stream: str, codec: Any, grid: Grid, hidden: np.ndarray) -> Run:
        shape = (-1,) + (1,) * (grid.values.ndim - 1)
        values = np.where(hidden.reshape(shape), np.zeros_like(grid.values), grid.values)
        fields = codec.fields(Grid(values, grid.cells, grid.size)) | {"kind": np.where(hidden, HIDDEN, OPEN)}
        return Run(stream, fields, codec.coords(grid), two_way=True, private=0)

    def blank(self, codec: Any) -> dict[str, Tensor]:
        """One embedding slot of no meaning."""
        return codec.blank() | {"kind": torch.full((1,), CLEAN)}

    def blank_predict(self, codec: Any) -> dict[str, Tensor]:
        """One prediction of weight 0."""
        chance = {name: torch.from_numpy(values) for name, values in chances(codec, 1).items()}
        return {"targets": codec.blank()["values"], "weights": torch.zeros(1)} | chance

    def embed(self, codec: Any, fields: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The codec's embedding, of a hidden value that of 0, and the kind of position, which tells them apart.

        Shapes:  -> [N, D].
        """
        return codec.embed(fields, dtype) + self.kind[fields["kind"]]

    def losses(self, codec: Any, head: Any, hidden_ND: Tensor, fields: dict[str, Tensor]) -> dict:
        """Sum and count of the weighted loss of the head at hidden values."""
        loss_N = head.loss(hidden_ND, fields["targets"], fields.get("chance"))
        return {"nll": ((loss_N * fields["weights"]).sum(), fields["weights"].sum())}

    def sampler(self, codec: Any, head: Any, grid: Grid, ask: Ask) -> Generator[Block, list[Tensor], np.ndarray]:
        """All values, uncovered in steps; where `grid.known`, they are kept exactly."""
        settings, count = ask.settings, len(grid.values)
        hidden = np.ones(count, bool) if grid.known is None else ~grid.known.reshape(count, -1).all(1)
        values, total = grid.values.copy(), int(hidden.sum())
        branches = 2 if ask.guided and settings.guidance != 1 else 1
        for step in range(1, settings.steps + 1):
            left = math.floor(SCHEDULES[self.config.schedule](step / settings.steps) * total)
            open_now = int(hidden.sum()) - left
            if step < settings.steps and open_now < 1:
                continue  # fewer values than steps: nothing is due yet
            states = yield Block(self._covered("", codec, Grid(values, grid.cells, grid.size), hidden), False, branches)
            places = np.flatnonzero(hidden)
            if self.config.order == "random":  # chosen before the draw, which then has fewer to make
                places = places[torch.randperm(len(places), generator=ask.rng)[:open_now].numpy()]
            at = torch.from_numpy(places)
            drawn, sure = head.draw([h[at.to(h.device)] for h in states], settings, ask.rng, ask.banned)
            drawn, sure = drawn.cpu().numpy(), sure.cpu()
            if self.config.order == "sure":
                gumbel = -torch.empty(len(sure)).exponential_(generator=ask.rng).log()
                sure = sure + self.config.noise * (1 - step / settings.steps) * gumbel
                best = sure.argsort(descending=True)[:open_now].numpy()
                places, drawn = places[best], drawn[best]
            values[places], hidden[places] = drawn, False
            if not hidden.any():
                break
        return values if grid.known is None else np.where(grid.known, grid.values, values)


def _some(rng: np.random.Generator, count: int, number: int) -> np.ndarray:
    """A mask of `count` with so many true, anywhere."""
    mask = np.zeros(count, bool)
    mask[rng.permutation(count)[:number]] = True
    return mask


def build(config: Config, width: int) -> Objective:
    """The objective for a trunk of `width`."""
    return Objective(config, width)
