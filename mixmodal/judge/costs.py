"""What training and sampling multiply, counted from what is run and not from a formula."""

from __future__ import annotations

import math
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mixmodal.config import Recipe
from mixmodal.judge.suites import Exam
from mixmodal.optim import has_settled
from mixmodal.parts import Document
from mixmodal.prepare import Run, prepare

BATCHES = 6  # at even shares of a training: a curriculum costs less at its beginning
TIMED = 3  # parts made one after the other, of which the median time is told


@dataclass(frozen=True)
class StepCost:
    """What one step takes on average over a training.

    Units:   `flops` of the products in it (2 a multiplication), encoding included; `text_share` is the share of them
             that went into documents of the speaker's medium alone, by positions.
    """

    flops: float
    text_share: float
    parameters: int


def counter() -> FlopCounterMode:
    """A context that counts the products of all that runs in it, those of generation on a CPU too."""
    counted = {
        torch.ops.mkldnn._linear_pointwise: _linear,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    }
    return FlopCounterMode(display=False, custom_mapping=counted)


def _linear(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * math.prod(x) * out_shape[-1]


def _attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return 2 * math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


def step_cost(recipe: Recipe) -> StepCost:
    """The cost of a step of this recipe, from a few batches of its own data."""
    run = prepare(recipe)
    flops, text, every = [], 0, 0
    for number in range(BATCHES):
        progress = (number + 0.5) / BATCHES
        with counter() as count:
            batch = run.loader.next(progress).to(run.device)
            _gradients(run, batch, has_settled(int(progress * recipe.steps), recipe.steps, recipe.optim))
        flops.append(count.get_total_flops())
        for _, sequence in run.loader.held:
            every += len(sequence)
            text += len(sequence) * all(piece.stream == run.model.speaker.name for piece in sequence.runs)
    learned = sum(p.numel() for p in run.model.parameters())
    return StepCost(statistics.fmean(flops), text / max(1, every), learned)


def _gradients(run: Run, batch: Any, settled: bool) -> None:
    weights = run.model.weights()
    found = run.model.losses(batch, run.recipe.path, run.dtype, settled)
    total = sum(
        value / count.clamp(min=1) * weights[name.split(".")[0]]
        for name, (value, count) in found.items()
        if value.requires_grad
    )
    total.backward()
    run.model.zero_grad(set_to_none=True)


def sampling_cost(exam: Exam, documents: list[Document]) -> dict[str, float]:
    """What it takes to make the last part of one document, alone, on average over those of `documents`.

    Units:   `passes` through the trunk, each guidance branch counted, the prompt's too; `flops`; `seconds`, the median.
    """
    passes = 0

    def seen(_: Any, given: tuple, __: Any) -> None:
        nonlocal passes
        passes += given[0].shape[0]

    hook = exam.model.trunk.register_forward_hook(seen)
    try:
        with counter() as count:
            for document in documents:
                exam.answers([document])
    finally:
        hook.remove()
    seconds = []
    for document in documents[:TIMED]:
        began = time.perf_counter()
        exam.answers([document])
        seconds.append(time.perf_counter() - began)
    share = 1 / len(documents)
    return {
        "passes": passes * share,
        "flops": count.get_total_flops() * share,
        "seconds": statistics.median(seconds),
    }


def peak_memory() -> int:
    """The most memory that this process has held so far.

    Units:   bytes.
    """
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024
