"""One step of training: losses, gradients, and a move of every optimizer where all of it is finite."""

from __future__ import annotations

import math

import torch

from mixmodal.prepare import Run
from mixmodal.sequence import Batch


def train_step(run: Run, batch: Batch, optimizers: dict[str, torch.optim.Optimizer]) -> tuple[dict[str, float], bool]:
    """The mean of each loss before a step of every optimizer; and whether there was one: not where it is not finite."""
    losses = run.model.losses(batch, run.recipe.path, run.dtype)
    weights = run.model.weights()
    means = {name: total / count.clamp(min=1e-8) for name, (total, count) in losses.items()}
    whole = sum(mean * weights[name.split(".")[0]] for name, mean in means.items())
    whole.backward()
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.recipe.optim.clip or float("inf"))
    # One number says it for all: a loss or a gradient that is not finite leaves no finite sum.
    taken = math.isfinite(float(whole.detach() + norm))
    for optimizer in optimizers.values():
        if taken:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {name: float(mean.detach()) for name, mean in means.items()}, taken
