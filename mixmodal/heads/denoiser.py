"""A density over the values of a position: noise becomes values along a path that a small net knows.

Source:  Li et al. 2024 (arXiv:2406.11838), section 3.1, with the path of Liu et al. 2022 (arXiv:2209.03003).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixmodal.chance import normal, uniform
from mixmodal.interpolant import sampling_times, waves
from mixmodal.sampling import Settings, guide

WAVES = 32  # sines and as many cosines tell the time


@dataclass(frozen=True)
class Config:
    """Options of the net.

    Units:   `width` and `depth` of its residual blocks; each position is trained at `copies` noise levels, drawn
             logit-normal with `mean` and deviation `std`; `steps` evaluations make a value; `temperature` scales the
             noise that they begin with.
    """

    width: int = 256
    depth: int = 3
    copies: int = 4
    mean: float = 0.0
    std: float = 1.0
    steps: int = 20
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if min(self.copies, self.steps) < 1:
            raise ValueError(f"head.copies is {self.copies} and head.steps {self.steps}: take 1 or more")


class Head(nn.Module):
    """The velocity of noisy values, from them, the time, and the hidden state of their position."""

    def __init__(self, config: Config, width: int, codec: Any) -> None:
        super().__init__()
        if not hasattr(codec, "size"):
            raise ValueError("the head denoiser draws continuous values, and this codec has numbers: take categorical")
        self.config, self.size, own = config, codec.size, config.width
        draw = lambda rows, columns, scale=1.0: nn.Parameter(torch.randn(rows, columns) * scale * columns**-0.5)  # noqa: E731
        self.values_in, self.hidden_in, self.time_in = draw(own, codec.size), draw(own, width), draw(own, 2 * WAVES)
        self.shift = nn.ParameterList(draw(3 * own, own, 0.1) for _ in range(config.depth))
        self.first = nn.ParameterList(draw(own, own) for _ in range(config.depth))
        self.second = nn.ParameterList(draw(own, own) for _ in range(config.depth))
        self.last = nn.Parameter(torch.zeros(codec.size, own))

    def velocity(self, hidden_ND: Tensor, noisy_NC: Tensor, time_N: Tensor) -> Tensor:
        """Where noisy values go, per unit of time, in fp32.

        Shapes:  [N, D], [N, C], [N] -> [N, C].
        """
        kind = hidden_ND.dtype
        clock_ND = F.linear(waves(time_N, WAVES).to(kind), self.time_in.to(kind))
        given = F.silu(F.linear(hidden_ND, self.hidden_in.to(kind)) + clock_ND)
        x = F.linear(noisy_NC.to(kind), self.values_in.to(kind))
        for shift, first, second in zip(self.shift, self.first, self.second, strict=True):
            move, scale, gate = F.linear(given, shift.to(kind)).chunk(3, 1)
            h = F.rms_norm(x, x.shape[1:]) * (1 + scale) + move
            x = x + (1 + gate) * F.linear(F.silu(F.linear(h, first.to(kind))), second.to(kind))
        return F.linear(F.rms_norm(x, x.shape[1:]), self.last.to(kind)).float()

    def loss(self, hidden_ND: Tensor, targets_NC: Tensor, chance_N: Tensor, counted_NC: Tensor) -> Tensor:
        """Squared error of the velocity, averaged over the values of a position that count and its noise levels.

        Shapes:  [N, D], [N, C], [N], [N, C] -> [N].
        """
        config, count = self.config, len(targets_NC)
        strata = (
            torch.arange(config.copies, device=chance_N.device) + uniform(chance_N, config.copies)
        ) / config.copies
        time = torch.sigmoid(config.mean + config.std * torch.special.ndtri(strata.clamp(1e-6, 1 - 1e-6)))
        noise = normal(chance_N, config.copies * self.size, 1).view(count, config.copies, self.size)
        values = targets_NC[:, None]
        noisy = time[..., None] * values + (1 - time[..., None]) * noise
        found = self.velocity(
            hidden_ND.repeat_interleave(config.copies, 0), noisy.flatten(0, 1), time.flatten()
        ).view_as(noisy)
        wrong_NC = (found - (values - noise)).square().mean(1)
        return (wrong_NC * counted_NC).sum(1) / counted_NC.sum(1).clamp(min=1)

    def draw(
        self, branches: list[Tensor], settings: Settings, rng: torch.Generator, banned: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Values for each position; a density is sure of none.

        Shapes:  twice [N, D] at most -> [N, C], and [N].
        """
        temperature = self.config.temperature if settings.temperature is None else settings.temperature
        x = (torch.randn(len(branches[0]), self.size, generator=rng) * temperature).to(branches[0].device)
        times = sampling_times(self.config.steps, 1.0)
        for now, then in zip(times[:-1], times[1:], strict=True):
            at = torch.full((len(x),), float(now), device=x.device)
            x = x + (float(then) - float(now)) * guide([self.velocity(h, x, at) for h in branches], settings.guidance)
        return x, torch.zeros(len(x), device=x.device)


def build(config: Config, width: int, codec: Any) -> Head:
    """The head for a trunk of `width`, over the values of `codec`."""
    return Head(config, width, codec)
