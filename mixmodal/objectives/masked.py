"""Masked: some values of a part are hidden and predicted from all others; sampling uncovers more of them each step.

Source:  Chang et al. 2022 (arXiv:2202.04200), MaskGIT; Li et al. 2024 (arXiv:2406.11838), MAR, where the values are
         continuous; Nie et al. 2025 (arXiv:2502.09992), LLaDA, for text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixmodal.objectives import Ask, Block, Lay, chances, counted
from mixmodal.sequence import Grid, Run

SPREAD = 0.25  # of MAR's law of hidden shares
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
             over its hidden share, so that with the schedule "linear" the loss bounds the likelihood; with `least` > 0
             training hides shares of a normal law about 1, cut there and at 1, as MAR does, and not those of the
             schedule. A part is made in as many steps as the settings say; with `block` > 0 in blocks of so many
             positions, each after the ones before it, each in so many steps (Arriola et al. 2025, arXiv:2503.09573).
    """

    schedule: str = "cosine"
    order: str = "sure"
    noise: float = 2.0
    copies: int = 1
    fair: bool = False
    least: float = 0.0
    block: int = 0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {self.schedule!r}: take one of {', '.join(SCHEDULES)}")
        if self.order not in ("sure", "random"):
            raise ValueError(f"order is {self.order!r}: take sure or random")
        if self.copies < 1 or self.block < 0:
            raise ValueError(f"copies is {self.copies} and block {self.block}: take 1 or more, and 0 or more")
        if not 0 <= self.least < 1:
            raise ValueError(f"least is {self.least}: take 0, or a share below 1 such as MAR's 0.7")


class Objective(nn.Module):
    """Partly hidden copies in private two-way groups; a value is predicted where it is hidden."""

    asks_head = True

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.config = config
        self.needs_copy = self.whole = not config.block  # blocks leave their own behind
        # Whether the loss bounds the likelihood: where every number of hidden values is as likely.
        self.bounds = config.fair and config.schedule == "linear" and not config.least
        self.kind = nn.Parameter(torch.randn(3, width) * 0.5)

    def lay(self, stream: str, codec: Any, grid: Grid, lay: Lay) -> list[Run]:
        """`copies` runs, each private, with stratified shares of their values hidden; of blocks, each with its copy."""
        if not self.config.block:
            return self._hidings(stream, codec, grid, lay)
        runs: list[Run] = []
        for block in blocks(grid, self.config.block):
            group = lay.group + sum(run.private >= 0 for run in runs)
            runs += self._hidings(stream, codec, block, replace(lay, group=group))
            runs.append(self.show(stream, codec, block, lay.origin))
        return runs

    def _hidings(self, stream: str, codec: Any, grid: Grid, lay: Lay) -> list[Run]:
        config, count = self.config, len(grid.values)
        shares = lay.times
        if shares is None:
            shares = (lay.rng.permutation(config.copies) + lay.rng.random(config.copies)) / config.copies
        free = np.ones(count, bool) if grid.known is None else ~grid.known.reshape(count, -1).all(1)
        runs = []
        for copy, share in enumerate(shares):
            rate = _normal(float(share), config.least) if config.least else SCHEDULES[config.schedule](float(share))
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
            run.predict |= {name: counts[hidden] for name, counts in counted(codec, grid).items()}
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
        values = codec.blank()["values"]
        extra = chances(codec, 1) | counted(codec, Grid(values.numpy(), None, None))
        return {"targets": values, "weights": torch.zeros(1)} | {n: torch.from_numpy(v) for n, v in extra.items()}

    def embed(self, codec: Any, fields: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The codec's embedding, of a hidden value that of 0, and the kind of position, which tells them apart.

        Shapes:  -> [N, D].
        """
        return codec.embed(fields, dtype) + self.kind[fields["kind"]]

    def losses(self, codec: Any, head: Any, hidden_ND: Tensor, fields: dict[str, Tensor]) -> dict:
        """Sum and count of the weighted loss of the head at hidden values."""
        loss_N = head.loss(hidden_ND, fields["targets"], *(fields[n] for n in ("chance", "counted") if n in fields))
        return {"nll": ((loss_N * fields["weights"]).sum(), fields["weights"].sum())}

    def sampler(self, codec: Any, head: Any, grid: Grid, ask: Ask) -> Generator[Block, list[Tensor], np.ndarray]:
        """All values, uncovered in steps; where `grid.known`, they are kept exactly.

        An empty grid, one of a part without a size, is made block by block until one of `ask.stops` ends it; without
        blocks it is as long as the codec fills a part.
        """
        block, branches = self.config.block, 2 if ask.guided and ask.settings.guidance != 1 else 1
        sized = len(grid.values) > 0
        if sized and not block:
            return (yield from self._uncovered(codec, head, grid, ask))
        pieces = blocks(grid, block) if sized else None
        each = block or getattr(codec, "fill", 0)
        if not each:
            raise ValueError("a part without a size, made whole, wants a length: set objective.block, or codec.fill")
        made: list[np.ndarray] = []
        for number in range(len(pieces) if pieces else max(1, -(-ask.settings.max_tokens // each))):
            piece = pieces[number] if pieces else codec.grid([0] * each, number * each)
            made.append((yield from self._uncovered(codec, head, piece, ask)))
            if block:  # the last one too: what follows sees it, as in training
                yield Block(self.show("", codec, replace(piece, values=made[-1]), 0), keep=True, branches=branches)
            if not sized and (not block or np.isin(made[-1], ask.stops).any()):
                break
        return np.concatenate(made)

    def _uncovered(self, codec: Any, head: Any, grid: Grid, ask: Ask) -> Generator[Block, list[Tensor], np.ndarray]:
        settings, count = ask.settings, len(grid.values)
        hidden = np.ones(count, bool) if grid.known is None else ~grid.known.reshape(count, -1).all(1)
        values, total = grid.values.copy(), int(hidden.sum())
        branches = 2 if ask.guided and settings.guidance != 1 else 1
        if not total:
            return values
        for step in range(1, settings.steps + 1):
            left = math.floor(SCHEDULES[self.config.schedule](step / settings.steps) * total + 1e-9)
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


def blocks(grid: Grid, length: int) -> list[Grid]:
    """The grid in pieces of so many positions, the last one perhaps shorter."""
    out = []
    for first in range(0, len(grid.values), length):
        at = slice(first, first + length)
        counted, known = (None if values is None else values[at] for values in (grid.counted, grid.known))
        out.append(Grid(grid.values[at], grid.cells[at], grid.size, counted, known))
    return out


def _normal(share: float, least: float) -> float:
    """The hidden share that so much of the law of MAR lies above: normal about 1, cut at `least` and 1."""
    law = NormalDist(1.0, SPREAD)
    return law.inv_cdf(0.5 - share * (0.5 - law.cdf(least)))


def _some(rng: np.random.Generator, count: int, number: int) -> np.ndarray:
    """A mask of `count` with so many true, anywhere."""
    mask = np.zeros(count, bool)
    mask[rng.permutation(count)[:number]] = True
    return mask


def build(config: Config, width: int) -> Objective:
    """The objective for a trunk of `width`."""
    return Objective(config, width)
