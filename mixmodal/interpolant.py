"""The clock (t = 0 is noise, t = 1 is data), the straight path between them, what is predicted, and time laws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PREDICTIONS = ("x", "v", "noise", "asym")


@dataclass(frozen=True)
class TimeLaw:
    """How times are drawn in training: "logit_normal" (mean, std of the logit) or "uniform".

    With `switch` > 0 the law has two phases: after that share of the training it is `later_mean`, `later_std`
    (or uniform, when `later_std` is 0). `base_side` > 0 shifts times towards noise for pictures with longer sides.
    """

    kind: str = "logit_normal"
    mean: float = -0.8
    std: float = 0.8
    switch: float = 0.0
    later_mean: float = 0.0
    later_std: float = 1.0
    base_side: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("logit_normal", "uniform"):
            raise ValueError(f"time law {self.kind!r} is unknown: take logit_normal or uniform")


def draw_times(uniform: np.ndarray, law: TimeLaw, progress: float = 0.0, side: float = 0.0) -> np.ndarray:
    """Times with the law's distribution, from numbers uniform in (0, 1): its quantile function.

    Units:   `progress` is the share of the training done; `side` is the square root of the picture's area in pixels.
    Source:  Esser et al. 2024 (arXiv:2403.03206), logit-normal times and the resolution shift of eq. 23.
    """
    mean, std, flat = law.mean, law.std, law.kind == "uniform"
    if 0 < law.switch <= progress:
        mean, std, flat = law.later_mean, law.later_std, law.later_std == 0
    logit = np.log(uniform) - np.log1p(-uniform) if flat else mean + std * _normal_quantile(uniform)
    if law.base_side > 0 and side > 0:
        logit = logit - math.log(side / law.base_side)
    return (1 / (1 + np.exp(-logit))).astype(np.float32)


def _normal_quantile(uniform: np.ndarray) -> np.ndarray:
    wide = torch.from_numpy(np.clip(np.asarray(uniform, np.float64), 1e-9, 1 - 1e-9))
    return torch.special.ndtri(wide).numpy()


def waves(time: Tensor, count: int = 32) -> Tensor:
    """`count` sines and as many cosines of each time, from one turn of a radian to a thousand.

    Shapes:  [...] -> [..., 2 * count].
    """
    angle = time[..., None] * torch.exp(torch.linspace(0, math.log(1000), count, device=time.device))
    return torch.cat((angle.sin(), angle.cos()), -1)


def mix(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The point at time `t` on the straight path from `noise` to `clean`."""
    return noise + (clean - noise) * t


def expected(noisy: Tensor, t: Tensor, sigma_data: float, noise_scale: float = 1.0) -> Tensor:
    """The best linear guess of the clean values at time `t`: noise fades to nothing, what is clean stays as it is.

    Units:   `sigma_data` is the standard deviation that clean values are taken to have, about 0.
    Source:  Wiener 1949; Karras et al. 2022 (arXiv:2206.00364), c_skip of table 1, in this clock.
    """
    spread = sigma_data**2
    return noisy * (t * spread / (t * t * spread + ((1 - t) * noise_scale) ** 2))  # at t = 1 by 1 exactly


def to_velocity(
    predicted_NC: Tensor, noisy_NC: Tensor, t_N1: Tensor, prediction: str, *, clamp: float, basis: Tensor | None = None
) -> Tensor:
    """The velocity (data minus noise) that a prediction implies at `noisy_NC`: of x, v, noise, or asym between them.

    Shapes:  `basis` [C, rank], orthonormal: of asym the directions in which it is v, while it is x in all others.
    Limits:  1 - t (for x) and t (for noise) are taken as at least `clamp`, since they divide.
    Raises:  ValueError for an unknown prediction.
    Source:  Li & He 2025 (arXiv:2511.13720), table 1; Chen et al. 2026 (arXiv:2605.12964), asym: x - P noise.
    """
    if prediction in ("x", "asym"):
        velocity_NC = (predicted_NC - noisy_NC) / (1 - t_N1).clamp(min=clamp)
        return velocity_NC if prediction == "x" else replaced(velocity_NC, predicted_NC, basis)
    if prediction == "v":
        return predicted_NC
    if prediction == "noise":
        return (noisy_NC - predicted_NC) / t_N1.clamp(min=clamp)
    raise ValueError(f"prediction {prediction!r} is unknown: take one of {', '.join(PREDICTIONS)}")


def replaced(outside_NC: Tensor, inside_NC: Tensor, basis: Tensor) -> Tensor:
    """The first, but for its share in the span of `basis`, which is that of the second."""
    return outside_NC + (inside_NC - outside_NC) @ basis @ basis.T


def sampling_times(steps: int, shift: float = 1.0) -> Tensor:
    """steps + 1 times from 0 to 1; a `shift` above 1 spends more of them near noise.

    Shapes:  -> [steps + 1].
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: sampling takes at least 1")
    even = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return (even / (shift - (shift - 1) * even)).float()
