"""What training and sampling multiply, counted from what is run and not from a formula."""

from __future__ import annotations

import hashlib
import math
import resource
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mixmodal.config import Recipe
from mixmodal.data import make_mixture
from mixmodal.data.loading import shares_at
from mixmodal.data.mixing import readable
from mixmodal.judge.suites import Exam
from mixmodal.optim import has_settled, make_optimizers
from mixmodal.parts import Document
from mixmodal.prepare import Run, made, prepare

BATCHES = 6  # at even shares of a training: a curriculum costs less at its beginning
DIGESTED = 16  # documents of a source
LOOKED_AT = 100  # documents of a source
SPARED = 0.1  # of them, that may be longer than a row
TIMED = 3  # parts made one after the other, of which the median time is told


@dataclass(frozen=True)
class StepCost:
    """What one step takes on average over a training.

    Units:   `flops` of the products in it (2 a multiplication), encoding and those of the optimizer included; `fill` is
             the share of its positions in which anything stands.
    """

    flops: float
    parameters: int
    fill: float


@dataclass(frozen=True)
class Fare:
    """What the rows of a recipe hold, of a few documents of each source.

    Units:   `length` positions of a row: the recipe's own where nearly all documents of each source fit, else as many
             as the longest takes, in multiples of 64; `text_share` of the positions are in documents of the speaker's
             medium alone, and a position holds so many `pictures`, parts of another medium: over the training.
    """

    length: int
    text_share: float
    pictures: float


def fare(recipe: Recipe) -> Fare:
    """What the rows of a recipe hold."""
    recipe, model, mixture, _ = made(recipe)
    longest, fit, held = 0, True, []
    for source in mixture.sources:
        lengths, alone, pictures = [], [], []
        for number, document in enumerate(readable(source, range(LOOKED_AT))):
            lengths.append(len(model.lay_out(document, np.random.default_rng(number), 0.5)))
            pictures.append(sum(part.medium != model.speaker.medium for part in document.parts))
            alone.append(not pictures[-1])
        longest = max(longest, *lengths)
        fit &= sum(length > recipe.length for length in lengths) <= SPARED * len(lengths)
        held.append((np.mean(lengths), np.mean(np.multiply(lengths, alone)), np.mean(pictures)))
    shares = np.array([shares_at(recipe.sources, (number + 0.5) / BATCHES) for number in range(BATCHES)])
    positions, words, others = (shares @ np.array(held)).T
    length = recipe.length if fit else -(-longest // 64) * 64
    return Fare(length, float(np.mean(words / positions)), float(np.mean(others / positions)))


def digest(mixtures: list[dict[str, dict[str, Any]]]) -> str:
    """A digest of the first documents of every source, so of the data itself and not of its name."""
    held = hashlib.sha256()
    for specs in mixtures:
        for source in make_mixture(specs, 0).sources:
            for document in readable(source, range(DIGESTED)):
                for part in document.parts:
                    pixels = getattr(part, "pixels", None)
                    held.update(b"" if pixels is None else np.ascontiguousarray(pixels).tobytes())
                    held.update(getattr(part, "text", "").encode())
    return held.hexdigest()[:16]


def counter() -> FlopCounterMode:
    """A context that counts the products of all that runs in it, those of generation on a CPU too."""
    counted = {
        torch.ops.mkldnn._linear_pointwise: _linear,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _gradient,
    }
    made = FlopCounterMode(display=False, custom_mapping=counted)
    made.mod_tracker = _Nowhere()
    return made


class _Nowhere:
    """No module is told apart: what finds out which one runs cannot bear the gradient within a pass of an adversary."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _linear(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * math.prod(x) * out_shape[-1]


def _attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return 2 * math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


def _gradient(_: Any, q: Any, k: Any, v: Any, *__: Any, **___: Any) -> int:
    """The scores again, and the gradients of all that they and the values come from."""
    return 2 * math.prod(q[:-1]) * k[-2] * (3 * q[-1] + 2 * v[-1])


def step_cost(recipe: Recipe) -> StepCost:
    """The cost of a step of this recipe, from a few batches of its own data."""
    run = prepare(recipe)
    optimizers = make_optimizers(run.model.groups(), replace(recipe.optim, matrix_rate=0.0, filter_rate=0.0, rate=0.0))
    flops, fill = [], []
    for number in range(BATCHES):
        progress = (number + 0.5) / BATCHES
        with counter() as count:
            batch = run.loader.next(progress).to(run.device)
            _step(run, batch, optimizers, has_settled(int(progress * recipe.steps), recipe.steps, recipe.optim))
        flops.append(count.get_total_flops())
        fill.append(run.loader.fill)
    return StepCost(statistics.fmean(flops), sum(p.numel() for p in run.model.parameters()), statistics.fmean(fill))


def _step(run: Run, batch: Any, optimizers: dict[str, torch.optim.Optimizer], settled: bool) -> None:
    """A step at rates of 0."""
    weights = run.model.weights()
    found = run.model.losses(batch, run.recipe.path, run.dtype, settled)
    total = sum(
        value / count.clamp(min=1) * weights[name.split(".")[0]]
        for name, (value, count) in found.items()
        if value.requires_grad
    )
    total.backward()
    for optimizer in optimizers.values():
        optimizer.step()
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


def code() -> str:
    """A digest of the package as it lies there."""
    held, package = hashlib.sha256(), Path(__file__).parents[1]
    for file in sorted(package.rglob("*.py")):
        held.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    return held.hexdigest()[:16]


def peak_memory() -> int:
    """The most memory that this process has held so far; on a GPU, of that.

    Units:   bytes.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "linux":  # what the process itself held: the other figure begins at that of its parent
        with open("/proc/self/status", encoding="utf8") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024
