"""Solvers of the flow's ODE as generators: each yields (values, time), is sent the velocity there, returns the end."""

from __future__ import annotations

from collections.abc import Generator

from torch import Tensor

Solver = Generator[tuple[Tensor, float], Tensor, Tensor]


def euler(x: Tensor, times: Tensor) -> Solver:
    """The end of the path by one evaluation a step."""
    for now, then in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        velocity = yield x, now
        x = x + (then - now) * velocity
    return x


def heun(x: Tensor, times: Tensor) -> Solver:
    """The end of the path by two evaluations a step, the last step by one.

    Source:  Karras et al. 2022 (arXiv:2206.00364), algorithm 1 without churn.
    """
    steps = list(zip(times[:-1].tolist(), times[1:].tolist(), strict=True))
    for number, (now, then) in enumerate(steps):
        velocity = yield x, now
        ahead = x + (then - now) * velocity
        if number < len(steps) - 1:
            later = yield ahead, then
            ahead = x + (then - now) * (velocity + later) / 2
        x = ahead
    return x


def adams(x: Tensor, times: Tensor) -> Solver:
    """The end of the path by one evaluation a step, each step led by the velocity of the one before it too.

    Source:  Adams & Bashforth 1883, the two-step method, for steps of unequal length.
    """
    before, length = None, 1.0
    for now, then in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        velocity = yield x, now
        ahead = velocity if before is None else velocity + (then - now) / (2 * length) * (velocity - before)
        x, before, length = x + (then - now) * ahead, velocity, then - now
    return x


SOLVERS = {"euler": euler, "heun": heun, "adams": adams}
