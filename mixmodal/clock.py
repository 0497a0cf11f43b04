"""How many steps fit into the minutes of a recipe: told by a few that are undone, and again on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from mixmodal.config import Recipe
from mixmodal.guard import generators_state, set_generators
from mixmodal.optim import has_settled
from mixmodal.prepare import Run, compile_trunk, prepare
from mixmodal.step import train_step

FEWEST = 10
TRIED = 6  # steps of each phase; the first half warms up
AGAIN = (0.15, 0.5, 0.85)  # shares of the steps after which the rest is planned by those that were taken


class Clock:
    """Plans the steps of a run of so many minutes, the same on all ranks; before and after it settles they differ.

    Units:   `began` and `ends` as of time.perf_counter.
    """

    def __init__(self, run: Run, began: float, say: Callable[[str], None]) -> None:
        self.run, self.minutes, self.ends, self.say = run, run.recipe.minutes, began + 60 * run.recipe.minutes, say
        self.settle = min(run.recipe.optim.settle, 1.0)
        self.joint = self.settled = 0.0
        self._taken: dict[bool, list[float]] = {False: [], True: []}  # settled or not
        self._again = list(AGAIN)

    def first(self, optimizers: dict[str, torch.optim.Optimizer]) -> Recipe:
        """The recipe with its steps, after a few of both phases that are then undone."""
        run = self.run
        weights = {name: p.detach().clone() for name, p in run.owned.named_parameters()}
        state, generators = run.loader.state(), generators_state()
        if self.settle > 0:
            self.joint = self._tried(optimizers, False, self.settle / 2)
        if self.settle < 1:
            self.settled = self._tried(optimizers, True, 0.99)
        run.loader.load(state)
        set_generators(generators)
        run.owned.load_state_dict(weights)
        for optimizer in optimizers.values():
            optimizer.state.clear()
        recipe = replace(run.recipe, steps=self._fitting(0))
        self.say(f"{recipe.steps:,} steps fit into what is left of {self.minutes:g} min")
        return recipe

    def again(self, recipe: Recipe, step: int, seconds: float) -> Recipe | None:
        """After a step that took so long: the recipe with other steps, where it is time to plan again."""
        settled = has_settled(step - 1, recipe.steps, recipe.optim)
        self._taken[settled].append(seconds)
        if not self._again or step < self._again[0] * recipe.steps:
            return None
        self._again.pop(0)
        if settled:
            self.settled = float(np.mean(self._taken[True]))
        else:
            self.joint = float(np.mean(self._taken[False]))
        return replace(recipe, steps=max(self._fitting(step, settled), step + 1))

    def _fitting(self, step: int, settled: bool = False) -> int:
        left = self.ends - time.perf_counter()
        if settled:
            steps = step + int(left / self.settled)
            if self.settle > 0:
                steps = min(steps, int(step / self.settle))  # of more, the run would not have settled yet
        else:
            each = self.settle * self.joint + (1 - self.settle) * self.settled
            steps = int((left + step * self.joint) / each)
        return self.run.ranks.told([max(FEWEST, steps)])[0][0]

    def _tried(self, optimizers: dict[str, torch.optim.Optimizer], settled: bool, progress: float) -> float:
        ticks = []
        for _ in range(TRIED):
            tick = time.perf_counter()
            train_step(self.run, self.run.loader.next(progress).to(self.run.device), optimizers, settled)
            ticks.append(time.perf_counter() - tick)
        return float(np.median(ticks[TRIED // 2 :]))


def warmed(recipe: Recipe, processes: int) -> float:
    """The seconds it took to compile what a training in so many processes will look up in torch's cache on disk.

    0 where nothing is compiled. In the training each process would do it, within its minutes.
    """
    began, before = time.perf_counter(), torch.get_num_threads()
    if recipe.rows % processes and recipe.rows > processes:  # some have a row more
        each = recipe.rows // processes
        return sum(warmed(replace(recipe, rows=rows * processes), processes) for rows in (each, each + 1))
    run = prepare(replace(recipe, rows=max(1, recipe.rows // processes), minutes=0.0))
    if not recipe.compile or compile_trunk(run.model, recipe.path):
        return 0.0
    phases = [(False, recipe.optim.settle / 2)] * (recipe.optim.settle > 0) + [(True, 0.99)] * (recipe.optim.settle < 1)
    torch.set_num_threads(max(1, before // processes))  # code is made for a number of threads
    try:
        for settled, progress in phases:
            train_step(run, run.loader.next(progress).to(run.device), {}, settled)
            run.model.zero_grad()
    finally:
        torch.set_num_threads(before)
    return time.perf_counter() - began
