"""One step of training: losses, gradients, and a move of every optimizer where all of it is finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixmodal.prepare import Run
from mixmodal.sequence import Batch, split


def train_step(
    run: Run, batch: Batch, optimizers: dict[str, torch.optim.Optimizer], settled: bool = False
) -> tuple[dict[str, float], bool]:
    """The mean of each loss before a step of every optimizer; and whether there was one: not where it is not finite.

    `settled`: the trunk rests, and only what reads it learns.
    """
    parts = split(batch, run.recipe.accumulate, run.model.blank()) if run.recipe.accumulate > 1 else [batch]
    weights = run.model.weights()
    # What a loss is divided by counts the whole step, all parts and ranks of it, before its first gradient is made.
    counted = run.ranks.total(torch.stack([slots.predict["weights"].sum() for slots in batch.slots.values()]))
    counts = dict(zip(batch.slots, counted.clamp(min=1e-8), strict=True))
    sums: dict[str, Tensor] = {}
    for part in parts:
        found = run.model.losses(part, run.recipe.path, run.dtype, settled)
        losses = {name: total for name, (total, _) in found.items()}
        sum(loss / counts[of(name)] * weights[of(name)] for name, loss in losses.items()).backward()
        sums = {name: loss.detach() + sums.get(name, 0) for name, loss in losses.items()}
    totals = run.ranks.total(torch.stack(list(sums.values())))
    run.owned.gather(settled)
    norm = run.owned.clip(run.recipe.optim.clip)
    means = {name: float(total / counts[of(name)]) for name, total in zip(sums, totals, strict=True)}
    # One number says it for all, and for all ranks: a loss or a gradient that is not finite leaves no finite sum.
    taken = math.isfinite(sum(means.values()) + float(norm))
    for optimizer in optimizers.values():
        if taken:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if taken:
        run.owned.spread(settled)
    for module in run.model.streams.modules():
        if hasattr(module, "moved"):  # follows the data without a gradient
            module.moved(run.ranks, taken)
    return means, taken


def of(loss: str) -> str:
    """The stream that a loss is of."""
    return loss.split(".")[0]
