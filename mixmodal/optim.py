"""Optimizers (torch's own Muon and AdamW), the learning-rate schedule, and a power-law average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from mixmodal.compute import fast_dtype
from mixmodal.config import OptimConfig

SQUARES = 3  # steps of Newton and Schulz up to which a square, with half the digits, loses none that count: 3e-6


class Muon(torch.optim.Muon):
    """Torch's Muon, but for the dtype in which updates are made orthogonal: that of the weights, where torch has bf16.

    For CPUs that multiply no bf16: there torch's takes four times as long, two fifths of a step of a small model.
    Limits:  Nesterov's momentum and rates by shape as torch's defaults have them, whatever its options for those say.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move every weight that has a gradient, by the options and the state of torch's own."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if (gradient := parameter.grad) is None:
                    continue
                held = self.state[parameter]
                if not held:
                    held["momentum_buffer"] = torch.zeros_like(gradient)
                moving = held["momentum_buffer"].lerp_(gradient, 1 - momentum)
                update = orthogonal(gradient.lerp(moving, momentum), group["ns_coefficients"], group["ns_steps"])
                parameter.mul_(1 - rate * group["weight_decay"])
                rows, columns = parameter.shape
                parameter.add_(update, alpha=-rate * max(1.0, rows / columns) ** 0.5)


def orthogonal(update: Tensor, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    """Nearly the orthogonal matrix that is nearest, by `steps` of Newton and Schulz.

    Shapes:  [rows, columns] -> [rows, columns].
    Source:  Jordan et al. 2024, Muon.
    """
    a, b, c = coefficients
    high = len(update) > len(update.T)
    x = update.T if high else update
    x = x / x.norm().clamp(min=1e-7)
    if steps <= SQUARES and 2 * len(x) <= len(x.T):
        x = _by_squares(x, coefficients, steps)
    else:
        for _ in range(steps):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if high else x


def _by_squares(x: Tensor, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    """The same for a long matrix, by the square of its products with itself: two products with the long one in all."""
    a, b, c = coefficients
    gram, turned = x @ x.T, None
    for step in range(steps):
        once = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        once.diagonal().add_(a)
        turned = once if turned is None else once @ turned
        if step < steps - 1:
            gram = once @ gram @ once
    return turned @ x


def make_optimizers(
    groups: dict[str, list[tuple[str, nn.Parameter]]], config: OptimConfig
) -> dict[str, torch.optim.Optimizer]:
    """An optimizer for each group of parameters.

    Source:  Jordan et al. 2024, Muon; Loshchilov & Hutter 2017 (arXiv:1711.05101), AdamW.
    """
    made: dict[str, torch.optim.Optimizer] = {}
    for name, named in groups.items():
        parameters = [parameter for _, parameter in named]
        if not parameters:
            continue
        rate = {"matrices": config.matrix_rate, "filters": config.filter_rate or config.matrix_rate}.get(name)
        if rate is not None and config.matrices == "muon":
            own = fast_dtype(parameters[0].device.type) != torch.bfloat16 or parameters[0].dtype == torch.float64
            made[name] = (Muon if own else torch.optim.Muon)(
                parameters,
                lr=rate,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                ns_steps=config.newton_schulz,
            )
        else:
            made[name] = torch.optim.AdamW(
                parameters,
                lr=config.rate if rate is None else rate,
                betas=config.betas,
                eps=1e-10,
                weight_decay=config.weight_decay,
                fused=True,
            )
    for optimizer in made.values():
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made


def rate_share(step: float, steps: float, config: OptimConfig) -> float:
    """The share of the peak rate at `step` of `steps`: warm-up, level, then linear to 0."""
    rising = min(1.0, (step + 1) / max(1, config.warmup))
    left = (steps - step) / max(1.0, config.decay * steps)
    return max(0.0, min(rising, left, 1.0))


def phase_share(step: int, steps: int, config: OptimConfig) -> float:
    """The share of the peak rate at `step`: each phase, before and after the run settles, is a run of its own.

    What rests comes to rest at a rate of 0; what reads begins again at its peak, and falls to 0 at the end.
    """
    turn = config.settle * steps
    if step < turn or config.settle >= 1:
        return rate_share(step, turn, config)
    return rate_share(step - turn, steps - turn, replace(config, warmup=1, decay=1.0))


def has_settled(step: int, steps: int, config: OptimConfig) -> bool:
    """Whether the trunk rests at `step` of `steps`, and only what reads it learns."""
    return step >= config.settle * steps


def set_rate(optimizers: dict[str, torch.optim.Optimizer], step: int, steps: int, config: OptimConfig) -> None:
    """Set every rate to its share of its peak."""
    share = phase_share(step, steps, config)
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share


class PowerAverage:
    """An average of weights whose memory is a fixed share of the training so far, so it needs no warm-up.

    Units:   `width` is the standard deviation of the averaging window relative to its end (0.05 to 0.2).
    Source:  Karras et al. 2024 (arXiv:2312.02696), equations 3 and 126.
    """

    def __init__(self, model: nn.Module, width: float) -> None:
        self.exponent = power_exponent(width)
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after `step` (counted from 1)."""
        keep = (1 - 1 / step) ** (self.exponent + 1)
        named = dict(model.named_parameters())  # by name: a file gives weights back in another order
        averaged = [self.weights[name] for name in named]
        torch._foreach_lerp_(averaged, [p.detach() for p in named.values()], 1 - keep)

    @contextmanager
    def lent(self, model: nn.Module) -> Iterator[None]:
        """Within it the model has the averaged weights, and its own again behind it."""
        kept = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.load_state_dict(self.weights, strict=False)
        try:
            yield
        finally:
            model.load_state_dict(kept, strict=False)


def power_exponent(width: float) -> float:
    """The exponent whose power-law window has relative standard deviation `width`.

    Raises:  ValueError where `width` is not between 0 and 0.288.
    """
    if not 0 < width < 0.288:
        raise ValueError(f"optim.average is {width}: the relative width of the average lies between 0 and 0.288")
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        found = math.sqrt(middle + 1) / ((middle + 2) * math.sqrt(middle + 3))
        low, high = (middle, high) if found > width else (low, middle)
    return low


def state_of(optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Every tensor of every optimizer's state, by a flat name."""
    out = {}
    for name, optimizer in optimizers.items():
        for number, entries in optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                out[f"{name}/{number}/{key}"] = torch.as_tensor(value).detach().contiguous()
    return out


def load_state(optimizers: dict[str, torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Put back what `state_of` gave.

    Raises:  ValueError if it is of optimizers that share out the parameters otherwise.
    """
    owners = {flat.split("/")[0] for flat in tensors}
    if tensors and owners != set(optimizers):
        raise ValueError(
            f"saved with optimizers for {sorted(owners)}, but here they are for {sorted(optimizers)}: go on with the"
            " version that saved it, or train on in another folder with --set start=RUN"
        )
    for name, optimizer in optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state = optimizer.state_dict()
        state["state"] = {}
        for flat, value in tensors.items():
            owner, number, key = flat.split("/")
            if owner == name:
                # A step count has no shape. Torch itself looks at no shape, and would go on with another's moments.
                if int(number) >= len(parameters) or value.ndim and value.shape != parameters[int(number)].shape:
                    raise ValueError(f"{flat} was saved for another parameter: go on with the version that saved it")
                state["state"].setdefault(int(number), {})[key] = value.clone()
        optimizer.load_state_dict(state)
