"""How values are drawn: temperature, nucleus, guidance, and the settings that a caller may give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Settings:
    """What a caller may choose; each objective takes what it knows.

    Units:   `guidance` 1 is none; `interval` are the times in which it acts; `max_tokens` bounds one written part,
             in whole blocks where text is made in blocks;
             `temperature` 0 takes the likeliest, None leaves it to each head (in which order values are uncovered may
             be by chance all the same).
    """

    steps: int = 25
    guidance: float = 2.0
    interval: tuple[float, float] = (0.0, 1.0)
    shift: float = 2.0
    solver: str = "euler"
    temperature: float | None = None
    top_p: float = 1.0
    max_tokens: int = 200

    def __post_init__(self) -> None:
        chosen = (
            ("steps", isinstance(self.steps, int) and self.steps >= 1, "a whole number, 1 or more"),
            ("guidance", math.isfinite(self.guidance), "a number"),
            ("interval", len(self.interval) == 2 and all(map(math.isfinite, self.interval)), "two times"),
            ("shift", math.isfinite(self.shift) and self.shift > 0, "more than 0"),
            ("temperature", self.temperature is None or 0 <= self.temperature < math.inf, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "more than 0 and at most 1"),
            ("max_tokens", isinstance(self.max_tokens, int) and self.max_tokens >= 0, "a whole number, 0 or more"),
        )
        for name, good, want in chosen:
            if not good:
                raise ValueError(f"{name} is {getattr(self, name)!r}: want {want}")


def draw(logits_NV: Tensor, temperature: float, top_p: float, rng: torch.Generator) -> Tensor:
    """One number per row, drawn from the softmax of the logits.

    Shapes:  [N, V] -> [N].
    Limits:  of the likeliest, as few are kept as reach the probability `top_p` together.
    """
    if temperature <= 0:
        return logits_NV.argmax(-1)
    probabilities = (logits_NV.float() / temperature).softmax(-1)
    if top_p < 1:
        ordered, at = probabilities.sort(-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter_(-1, at, ordered)
    return torch.multinomial(probabilities.to(rng.device), 1, generator=rng)[:, 0]


def guide(branches: list[Tensor], guidance: float) -> Tensor:
    """The first prediction pushed away from the second: second + guidance * (first - second).

    Source:  Ho & Salimans 2022 (arXiv:2207.12598).
    """
    if len(branches) == 1:
        return branches[0]
    return branches[1] + guidance * (branches[0] - branches[1])
