"""Slow, obvious ways to make what generation makes: full passes without a cache, solvers by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from mixmodal.layout import after, lay_out, tokens
from mixmodal.model import Model
from mixmodal.objectives.flow import CLOCK, FIRST, NEAREST, NOISY
from mixmodal.parts import Document, Part
from mixmodal.sampling import Settings
from mixmodal.sequence import Run, Sequence, collate


def full(model: Model, runs: list[Run]) -> torch.Tensor:
    """Hidden states of everything at once."""
    sequence = Sequence(runs)
    return model(collate([sequence], [[0]], len(sequence), model.blank()))[0]


def context(model: Model, parts: list[Part]) -> list[Run]:
    """What stands before a part that is to be made: begin, and the parts before it, clean."""
    if not parts:
        return [tokens(model.speaker, [model.speaker.codec.begin], 0.0)]
    shown = tuple(replace(part, wanted=False) for part in parts)
    return lay_out(model, Document(shown), np.random.default_rng(0)).runs


def greedy(model: Model, runs: list[Run], count: int) -> list[int]:
    """Greedy tokens, each from a pass over everything that stands before it."""
    codec, written = model.speaker.codec, []
    banned = {codec.begin, *codec.closing("image"), *codec.size_tokens(), codec.opening("image", (1, 1, 1))[0]}
    runs, start = list(runs), after(runs[-1])
    while len(written) < count:
        logits = model.speaker.head.logits(full(model, runs)[-1:])[0]
        logits[list(banned)] = -torch.inf
        token = int(logits.argmax())
        if token == codec.end:
            break
        grid = codec.grid([token], len(written))
        runs.append(model.speaker.objective.show(model.speaker.name, codec, grid, start))
        written.append(token)
    return written


def hidden_of_noise(model: Model, before: list[Run], values: torch.Tensor, size: tuple, t: float) -> torch.Tensor:
    """Hidden states of noisy patches behind `before` and a header, in one full pass."""
    speaker, stream = model.speaker, model.writer("image")
    runs = [*before, tokens(speaker, speaker.codec.opening("image", size), after(before[-1]))]
    rows, columns = size[1:]
    cells = np.array([[0, r, c] for r in range(rows) for c in range(columns)])
    fields = {
        "values": values.numpy(),
        "cells": cells[:, 1:],
        "size": np.array([[rows, columns]] * len(cells)),
        "kind": np.full(len(cells), NOISY),
        "time": np.full(len(cells), t, np.float32),
    }
    if stream.objective.config.time == "token":
        fields = {name: np.concatenate((field[:1], field)) for name, field in fields.items()}
        fields["kind"][0], fields["cells"][0], fields["size"][0] = CLOCK, 0, 1
        cells = np.concatenate((cells[:1], cells))
    box = stream.codec.config.box
    scale = np.array([1, *[box / max(rows, columns) if box else 1] * 2])
    coords = (cells * scale).astype(np.float32) + np.float32(after(runs[-1]))
    runs.append(Run(stream.name, fields, coords, fields["time"], two_way=True, private=0))
    return full(model, runs)[-len(values) :]


def velocity_by_hand(model: Model, parts: list[Part], x: torch.Tensor, size: tuple, t: float, guidance: float):
    """The guided velocity, with the text and without it, each computed alone."""
    stream = model.writer("image")
    found = []
    for kept in (parts, [part for part in parts if part.medium != "text"]):
        hidden = hidden_of_noise(model, context(model, kept), x, size, t)
        predicted = hidden @ stream.codec.out.T
        if stream.codec.config.ends:
            fields = {"values": x, "size": torch.tensor([size[1:]] * len(x)), "time": torch.full((len(x),), t)}
            predicted = stream.codec.read(hidden, fields)
        match stream.objective.config.prediction:
            case "x":
                found.append((predicted - x) / max(1 - t, NEAREST))
            case "v":
                found.append(predicted)
            case "asym":
                basis, x_velocity = (
                    stream.codec.smoothest(9),
                    (predicted - x) / max(1 - t, NEAREST),
                )
                found.append(x_velocity - (x_velocity - predicted) @ basis @ basis.T)
            case "noise":
                found.append((x - predicted) / max(t, NEAREST))
    return found[1] + guidance * (found[0] - found[1])


def picture_by_hand(model: Model, parts: list[Part], size: tuple, settings: Settings, noise: torch.Tensor):
    """The values of a picture behind `parts`, by Euler's or Heun's steps written out."""
    x = noise * model.writer("image").objective.config.noise_scale
    times = [i / settings.steps for i in range(settings.steps + 1)]
    times = [t / (settings.shift - (settings.shift - 1) * t) for t in times]
    if model.writer("image").objective.config.prediction == "noise":
        times[0] = min(FIRST, times[1] / 2)

    def velocity(x, t):
        inside = settings.interval[0] <= t <= settings.interval[1]
        return velocity_by_hand(model, parts, x, size, t, settings.guidance if inside else 1.0)

    for now, then in zip(times, times[1:], strict=False):
        slope = velocity(x, now)
        end = x + (then - now) * slope
        if settings.solver == "heun" and then < 1:
            end = x + (then - now) * (slope + velocity(end, then)) / 2
        x = end
    return x.numpy()


def noise_of(seed: int, key: int, *shapes: tuple) -> list[torch.Tensor]:
    """The noise of the pictures of one request, in the order in which they are made."""
    rng = torch.Generator().manual_seed(seed * 1_000_003 + key)
    return [torch.randn(shape, generator=rng) for shape in shapes]
