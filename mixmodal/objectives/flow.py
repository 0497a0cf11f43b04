"""Flow: all values of a part at once, from noise (t = 0) to data (t = 1) along a straight path.

Source:  Liu et al. 2022 (arXiv:2209.03003); predictions and weighting of Li & He 2025 (arXiv:2511.13720).
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixmodal.config import unknown
from mixmodal.interpolant import (
    PREDICTIONS,
    TimeLaw,
    draw_times,
    expected,
    mix,
    replaced,
    sampling_times,
    to_velocity,
    waves,
)
from mixmodal.objectives import Ask, Block, Lay
from mixmodal.sampling import guide
from mixmodal.sequence import Grid, Run
from mixmodal.solvers import SOLVERS

NOISY, CLEAN, CLOCK = 0, 1, 2  # kinds of positions: noisy values, a clean copy, a time token
LEVELS = 10  # noise levels by which losses are reported
LASTING = ("sigma_data", "noise_scale")  # options that say what its weights are shown: who trains on keeps them
NEAREST = 1e-3  # what a sampler divides by at least: its last step shall end where the prediction is
FIRST = 0.02  # where a sampler begins that predicts noise, which at t = 0 says nothing of the data


@dataclass(frozen=True)
class Config:
    """Options of flow.

    Units:   `clamp` bounds 1 - t from below in the loss weight, `copies` noise levels are trained per part and visit,
             `noise_scale` is the standard deviation of the noise where the values span [-1, 1]; `sigma_data` > 0 is
             that of the clean values: noisy ones then enter the trunk as their best linear guess of those, so that no
             noise drowns the words while they alone say what is drawn (for x alone: who predicts anything else must be
             shown the noise; a control reads them itself, as loud as they are); where some values are `known` they are
             as "noisy" as the others and each step is taken `rounds` times (Lugmayr et al. 2022, arXiv:2201.09865),
             which wants no training with any, or "clean" for who trains with them; `rank` is in how many directions,
             the smoothest of a patch, the prediction "asym" is of the velocity; the error of the `loss` is that of the
             velocity, or of the prediction itself (of noise, that of Ho et al. 2020).
    """

    prediction: str = "x"
    loss: str = "velocity"
    rank: int = 9
    time_law: TimeLaw = field(default_factory=TimeLaw)
    clamp: float = 0.05
    noise_scale: float = 1.0
    sigma_data: float = 0.0
    copies: int = 1
    time: str = "add"
    rounds: int = 4
    known: str = "noisy"

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction is {self.prediction!r}: take one of {', '.join(PREDICTIONS)}")
        if self.loss not in ("velocity", "prediction") or (self.loss == "prediction" and self.prediction == "asym"):
            raise ValueError(f"loss is {self.loss!r}: take velocity, or prediction for one that is not asym")
        if self.time not in ("add", "token", "trunk"):
            raise ValueError(f"time is {self.time!r}: take add, token, or trunk for one that is adaptive")
        if self.sigma_data < 0 or (self.sigma_data > 0 and self.prediction != "x"):
            raise ValueError(
                f"sigma_data is {self.sigma_data:g} and prediction {self.prediction!r}: want 0, or more for x alone,"
                " since who predicts anything of the noise has to be shown it"
            )
        if self.known not in ("noisy", "clean"):
            raise ValueError(f"known is {self.known!r}: take noisy or clean")
        if self.known == "clean" and self.sigma_data:
            raise ValueError("known is 'clean', and would fade with the noise: take noisy, or sigma_data=0")
        if min(self.copies, self.rounds) < 1:
            raise ValueError(f"copies is {self.copies} and rounds {self.rounds}: take 1 or more")


class Objective(nn.Module):
    """Noisy copies in private two-way groups; the prediction stands where the noise stood."""

    needs_copy = True
    whole = True  # a part stands as a whole, and none of it is hidden from the rest
    nearest = NEAREST

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.config, self.clockless = config, config.time == "trunk"
        self.kind = nn.Parameter(torch.randn(3, width) * 0.3)
        if not self.clockless:
            self.clock_in = nn.Parameter(torch.randn(width, 64) * 64**-0.5)
            self.clock_out = nn.Parameter(torch.randn(width, width) * (0.5 * width**-0.5))

    def lay(self, stream: str, codec: Any, grid: Grid, lay: Lay) -> list[Run]:
        """`copies` noisy runs, each private, at stratified times."""
        config = self.config
        side = math.sqrt(np.prod(codec.extent(grid.size)[1:]))
        times = lay.times
        if times is None:
            strata = (lay.rng.permutation(config.copies) + lay.rng.random(config.copies)) / config.copies
            times = draw_times(np.clip(strata, 1e-6, 1 - 1e-6), config.time_law, lay.progress, side)
        counted = np.ones_like(grid.values) if grid.counted is None else grid.counted
        if grid.known is not None:
            counted = counted * ~grid.known
        weights = np.float32(lay.weight) * counted.any(1)  # what is known whole is free of loss
        runs, names = [], list(codec.blank())
        for copy, t in enumerate(times):
            noise = lay.rng.standard_normal(grid.values.shape, np.float32) * np.float32(config.noise_scale)
            run = self.noisy(stream, codec, grid, mix(grid.values, noise, np.float32(t)), float(t))
            run.coords = run.coords + np.float32(lay.origin)
            run.private = lay.group + copy
            first = len(run) - len(grid.values)
            run.predict_at = np.arange(first, len(run))
            run.predict = {name: run.embed[name][first:] for name in names} | {
                "targets": grid.values,
                "counted": counted,
                "time": np.full(len(grid.values), t, np.float32),
                "weights": weights,
            }
            runs.append(run)
        return runs

    def show(self, stream: str, codec: Any, grid: Grid, origin: float) -> Run:
        """The values clean, as a two-way run."""
        fields = codec.fields(grid) | {"kind": np.full(len(grid.values), CLEAN)}
        fields["time"] = np.ones(len(grid.values), np.float32)
        return Run(stream, fields, codec.coords(grid) + np.float32(origin), two_way=True)

    def noisy(self, stream: str, codec: Any, grid: Grid, noisy: np.ndarray, t: float) -> Run:
        """A private run of noisy values at the time `t`, counted from where the part begins."""
        if grid.known is not None and self.config.known == "clean":
            noisy = np.where(grid.known, grid.values, noisy)
        fields, kind = codec.fields(Grid(noisy, grid.cells, grid.size)), np.full(len(noisy), NOISY)
        coords = codec.coords(grid)
        if self.config.time == "token":
            blank = codec.blank()
            fields = {name: np.concatenate((blank[name].numpy(), values)) for name, values in fields.items()}
            kind = np.concatenate(([CLOCK], kind))
            coords = np.concatenate((coords[:1], coords))
        fields["kind"] = kind
        fields["time"] = np.full(len(coords), t, np.float32)
        return Run(stream, fields, coords, fields["time"], two_way=True, private=0)

    def velocity(self, codec: Any, hidden_ND: Tensor, run: Run, noisy_NC: Tensor, clamp: float) -> Tensor:
        """Where the noisy values of a run go, per unit of time, as its hidden states say.

        Shapes:  [N, D], [N, C] -> [N, C], on the device of `noisy_NC`.
        """
        at = slice(-len(noisy_NC), None)  # behind the token of the time, if there is one
        fields = {n: torch.from_numpy(run.embed[n][at]).to(hidden_ND.device) for n in (*codec.blank(), "time")}
        predicted = codec.read(hidden_ND[at], fields).to(noisy_NC.device)
        time_N1 = torch.from_numpy(run.embed["time"][at])[:, None].to(noisy_NC.device)
        return self._implied(codec, predicted, noisy_NC, time_N1, clamp)

    def blank(self, codec: Any) -> dict[str, Tensor]:
        """One embedding slot of no meaning."""
        return codec.blank() | {"kind": torch.full((1,), CLEAN), "time": torch.ones(1)}

    def blank_predict(self, codec: Any) -> dict[str, Tensor]:
        """One prediction of weight 0."""
        values = codec.blank()["values"]
        return codec.blank() | {
            "targets": values,
            "counted": values,
            "time": torch.zeros(1),
            "weights": torch.zeros(1),
        }

    def embed(self, codec: Any, fields: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The codec's embedding, the kind of position, and the time: added, in a token, or the trunk's.

        Shapes:  -> [N, D].
        """
        kind_N, config = fields["kind"], self.config
        if config.sigma_data:
            guess = expected(fields["values"], fields["time"][:, None], config.sigma_data, config.noise_scale)
            fields = fields | {"values": guess}
        x_ND = codec.embed(fields, dtype)
        if self.config.time == "token":
            x_ND = torch.where((kind_N == CLOCK)[:, None], self._clock(fields["time"]), x_ND)
        elif self.config.time == "add":
            x_ND = x_ND + self._clock(fields["time"]) * (kind_N == NOISY)[:, None]
        return x_ND + self.kind[kind_N]

    def _clock(self, time_N: Tensor) -> Tensor:
        """Sines and cosines of the time through two matrices."""
        return torch.nn.functional.silu(waves(time_N) @ self.clock_in.T) @ self.clock_out.T

    def losses(self, codec: Any, head: Any, hidden_ND: Tensor, fields: dict[str, Tensor]) -> dict:
        """Sum and count of the squared error of what `loss` says, averaged over the values of a position."""
        error_N = self.errors(codec, hidden_ND, fields)
        return {"mse": ((error_N * fields["weights"]).sum(), fields["weights"].sum())}

    def errors(self, codec: Any, hidden_ND: Tensor, fields: dict[str, Tensor]) -> Tensor:
        """Squared error of what `loss` says at each position, averaged over its values that count.

        Shapes:  -> [N].
        """
        t_N1, noisy_NC = fields["time"][:, None], fields["values"]
        predicted, asked = codec.read(hidden_ND, fields), self.config.prediction
        true = to_velocity(fields["targets"], noisy_NC, t_N1, "x", clamp=1e-4)
        if self.config.loss == "prediction":
            error = predicted - {"x": fields["targets"], "v": true, "noise": noisy_NC - t_N1 * true}[asked]
        else:
            clamp = self.config.clamp  # bounds the weight of the error of what it divides; the velocity itself is exact
            if asked in ("x", "asym"):
                bounded = to_velocity(fields["targets"], noisy_NC, t_N1, "x", clamp=clamp)
                true = replaced(bounded, true, self._basis(codec, true)) if asked == "asym" else bounded
            elif asked == "noise":
                true = to_velocity(noisy_NC - t_N1 * true, noisy_NC, t_N1, "noise", clamp=clamp)
            error = self._implied(codec, predicted, noisy_NC, t_N1, clamp) - true
        square = error.square() * fields["counted"]
        return square.sum(1) / fields["counted"].sum(1).clamp(min=1)

    def _implied(self, codec: Any, predicted_NC: Tensor, noisy_NC: Tensor, t_N1: Tensor, clamp: float) -> Tensor:
        """The velocity that a prediction implies."""
        basis = self._basis(codec, predicted_NC) if self.config.prediction == "asym" else None
        return to_velocity(predicted_NC, noisy_NC, t_N1, self.config.prediction, clamp=clamp, basis=basis)

    def _basis(self, codec: Any, like: Tensor) -> Tensor:
        return codec.smoothest(self.config.rank).to(like)

    def levels(self, codec: Any, hidden_ND: Tensor, fields: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The sum of errors and the number of positions in each tenth of the clock.

        Shapes:  -> twice [levels].
        """
        error_N = self.errors(codec, hidden_ND, fields)
        level_N = (fields["time"] * LEVELS).long().clamp(max=LEVELS - 1)
        there = (fields["weights"] > 0).float()
        total = torch.zeros(LEVELS, device=error_N.device).index_add_(0, level_N, error_N * there)
        return total, torch.zeros(LEVELS, device=error_N.device).index_add_(0, level_N, there)

    def sampler(self, codec: Any, head: Any, grid: Grid, ask: Ask) -> Generator[Block, list[Tensor], np.ndarray]:
        """The values at the end of the path; where `grid.known`, they are kept exactly."""
        settings = ask.settings
        x = torch.randn(grid.values.shape, generator=ask.rng) * self.config.noise_scale
        times = self.begun(sampling_times(settings.steps, settings.shift))
        if grid.known is None or self.config.known == "clean":
            x = yield from self._path(codec, grid, ask, x, times)
            return x.numpy() if grid.known is None else np.where(grid.known, grid.values, x.numpy())
        if settings.solver != "euler":
            raise ValueError(
                f"solver is {settings.solver!r}, but where some values are known steps are Euler's: take it"
            )
        known, true = torch.from_numpy(grid.known), torch.from_numpy(grid.values)
        for now, then in zip(times[:-1], times[1:], strict=True):
            for again in range(self.config.rounds):
                noise = torch.randn(x.shape, generator=ask.rng) * self.config.noise_scale
                if again:  # back by the step just taken: what is made and what is known come to agree
                    share = now / then
                    x = share * x + ((1 - now) ** 2 - (share * (1 - then)) ** 2).clamp(min=0).sqrt() * noise
                # as noisy as all else, as in training
                x = torch.where(known, mix(true, noise, now), x)
                x = yield from self._path(codec, grid, ask, x, torch.stack((now, then)))
        return torch.where(known, true, x).numpy()

    def begun(self, times: Tensor) -> Tensor:
        """Times from 0 on, the first where sampling begins: who predicts noise is told nothing of the data at 0."""
        if self.config.prediction != "noise":
            return times
        return torch.cat((torch.clamp(times[1:2] / 2, max=FIRST), times[1:]))

    def _path(
        self, codec: Any, grid: Grid, ask: Ask, x: Tensor, times: Tensor
    ) -> Generator[Block, list[Tensor], Tensor]:
        """Where the flow takes `x` from the first of the times to the last."""
        settings, bare = ask.settings, Grid(grid.values, grid.cells, grid.size, None, grid.known)
        if settings.solver not in SOLVERS:
            raise ValueError(unknown(f"solver {settings.solver!r}", settings.solver, SOLVERS))
        solver = SOLVERS[settings.solver](x, times)
        x, t = next(solver)
        while True:
            inside = settings.interval[0] <= t <= settings.interval[1]
            branches = 2 if ask.guided and settings.guidance != 1 and inside else 1
            run = self.noisy("", codec, bare, x.numpy(), t)
            hidden = yield Block(run, keep=False, branches=branches)
            found = [self.velocity(codec, h, run, x, NEAREST) for h in hidden]
            try:
                x, t = solver.send(guide(found, settings.guidance))
            except StopIteration as end:
                return end.value


def build(config: Config, width: int) -> Objective:
    """The objective for a trunk of `width`."""
    return Objective(config, width)
