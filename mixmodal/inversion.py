"""Pictures to noise and back along the flow's path, which runs in either direction.

Source:  Song et al. 2021 (arXiv:2011.13456), section 4.3: the probability flow encodes.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mixmodal.config import unknown
from mixmodal.interpolant import mix
from mixmodal.layout import after
from mixmodal.linear import narrowed
from mixmodal.model import Model, Stream
from mixmodal.parts import Document
from mixmodal.sequence import Grid, Run, Sequence, collate
from mixmodal.solvers import SOLVERS

BOUND = 1e3  # no noise is so large


@dataclass(eq=False)
class Path:
    """What stands before the last part of a document, and that part's grid: all that its flow depends on."""

    stream: Stream
    prefix: list[Run]
    origin: float
    grid: Grid


@torch.inference_mode()
def to_noise(
    model: Model,
    documents: Several[Document],
    steps: int = 25,
    solver: str = "heun",
    dtype: torch.dtype = torch.float32,
    *,
    start: float = 1.0,
    rng: torch.Generator | None = None,
) -> list[np.ndarray]:
    """For the last part of each document, the values at t = 0 from which the flow leads to it.

    Where `start` is below 1, the way begins there, at the part with as much noise from `rng` as training has at that
    time. At 1 there is no noise to follow: what becomes of it is made of the model's errors, is no normal noise, and
    some models meet it with values without bounds.
    Limits:  no guidance. Heun evaluates twice a step, but once at the end.
    Raises:  ValueError where the values grow without bounds.
    """
    paths = [_path(model, document) for document in documents]
    values = [_begun(path, start, rng) for path in paths]
    with narrowed(model, dtype):
        noise = _run(model, paths, values, _times(paths, start, steps).flip(0), solver, dtype, _near(paths, start))
    if not all(np.abs(n).max() < BOUND for n in noise):
        hint = "begin where training is at home, with start=0.9 for one" if start == 1 else "take a smaller start"
        raise ValueError(f"the way to noise from t = {start:g} has no bounds in this model: {hint}, or more steps")
    return noise


@torch.inference_mode()
def from_noise(
    model: Model,
    documents: Several[Document],
    noise: Several[np.ndarray],
    steps: int = 25,
    solver: str = "heun",
    dtype: torch.dtype = torch.float32,
    *,
    start: float = 1.0,
) -> list[Document]:
    """The documents, their last part made from such values at t = 0; from where their way began, by one step."""
    paths = [_path(model, document) for document in documents]
    times = _times(paths, start, steps)
    if start < 1:
        times = torch.cat((times, torch.ones(1)))
    with narrowed(model, dtype):
        made = _run(model, paths, noise, times, solver, dtype, _near(paths, start))
    return [
        replace(d, parts=(*d.parts[:-1], p.stream.codec.decode(values, p.grid, d.parts[-1])))
        for d, p, values in zip(documents, paths, made, strict=True)
    ]


def _times(paths: list[Path], start: float, steps: int) -> Tensor:
    """Times from noise to `start`.

    Raises:  ValueError if there is nothing to go through.
    """
    if not paths or steps < 1 or not 0 < start <= 1:
        raise ValueError(
            f"got {len(paths)} documents, {steps} steps, start {start:g}: want at least one of both, and a start of"
            " more than 0 and at most 1"
        )
    return paths[0].stream.objective.begun(torch.linspace(0, start, steps + 1))


def _near(paths: list[Path], start: float) -> float:
    """What is divided by at least: on a way that ends at the data itself there is no noise left to divide by."""
    objective = paths[0].stream.objective
    return objective.config.clamp if start == 1 else objective.nearest


def _path(model: Model, document: Document) -> Path:
    part = replace(document.parts[-1], wanted=True, known=None)
    document = replace(document, parts=(*document.parts[:-1], part))
    stream = model.writer(part.medium)
    if not hasattr(stream.objective, "velocity"):
        raise ValueError(
            f"what makes {part.medium!r} in this model has no velocity to follow: take a model with a flow"
        )
    runs = model.lay_out(document, np.random.default_rng(0), times=(0.5,)).runs
    last = max(number for number, run in enumerate(runs) if run.private >= 0)  # the part's own, noisy
    prefix = [run for run in runs[:last] if run.private < 0]
    return Path(stream, prefix, after(prefix[-1]), stream.codec.encode(part))


def _begun(path: Path, start: float, rng: torch.Generator | None) -> np.ndarray:
    """The values of a part at the time `start`."""
    if start == 1:
        return path.grid.values
    if rng is None or not 0 < start < 1:
        raise ValueError(f"start is {start:g}: take 1, or a time between 0 and 1 together with a generator as rng")
    noise = torch.randn(path.grid.values.shape, generator=rng) * path.stream.objective.config.noise_scale
    return mix(torch.from_numpy(path.grid.values), noise, torch.tensor(start)).numpy()


def _run(
    model: Model,
    paths: list[Path],
    values: Several[np.ndarray],
    times: Tensor,
    solver: str,
    dtype: torch.dtype,
    near: float,
) -> list[np.ndarray]:
    """Values of every path at the last of the times."""
    if solver not in SOLVERS:
        raise ValueError(unknown(f"solver {solver!r}", solver, SOLVERS))
    solvers = [SOLVERS[solver](torch.from_numpy(np.asarray(v, np.float32)), times) for v in values]
    asked = [next(s) for s in solvers]
    device, out = next(model.parameters()).device, [None] * len(paths)
    while True:
        runs, sequences = [], []
        for path, (x, t) in zip(paths, asked, strict=True):
            run = path.stream.objective.noisy(path.stream.name, path.stream.codec, path.grid, x.numpy(), t)
            run.coords = run.coords + np.float32(path.origin)
            runs.append(run)
            sequences.append(Sequence([*path.prefix, run]))
        length = max(map(len, sequences))
        batch = collate(sequences, [[n] for n in range(len(sequences))], length, model.blank()).to(device)
        hidden = model(batch, dtype=dtype)
        for number, (path, run) in enumerate(zip(paths, runs, strict=True)):
            end = len(sequences[number])
            objective = path.stream.objective
            found = objective.velocity(
                path.stream.codec, hidden[number, end - len(run) : end], run, asked[number][0], near
            )
            try:
                asked[number] = solvers[number].send(found)
            except StopIteration as last:
                out[number] = last.value.numpy()
        if out[0] is not None:
            return out
