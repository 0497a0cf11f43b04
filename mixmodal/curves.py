"""Reference curves: the first losses of a recipe, with which anybody can see whether theirs are right.

Processors round otherwise, and in fifty steps some recipes make percents of that. So a curve has its losses in fp64,
too, which says with the others how far rounding alone leads, and for how many steps nothing as small as that shows.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mixmodal import __version__, rotary
from mixmodal.checkpoint import write_json
from mixmodal.config import Recipe
from mixmodal.guard import settings
from mixmodal.optim import has_settled, make_optimizers, set_rate
from mixmodal.prepare import prepare
from mixmodal.sequence import Batch
from mixmodal.step import train_step

FOLDER = Path(__file__).parent / "recipes" / "curves"
STEPS = 50
LATE = 10  # so many of the last steps in common are compared: the first ones say little
NUDGE = 1e-6  # of the first weights: more than they differ by between machines, as what fp32 rounds away
SAME_SEED = 0.01  # how far from a curve a run may lie
OTHER_SEED = 0.1  # how far another seed may lead in that time
ROUNDINGS = 3  # where rounding alone led farther, when the curve was recorded: so many times as far
OF_LENGTH = ("steps", "minutes", "valid")  # what says how long and how a run is watched, not how it begins


def begins(recipe: Recipe) -> dict[str, Any]:
    """What decides the first steps of a recipe, by dotted keys."""
    return {key: value for key, value in settings(recipe).items() if key.split(".")[0] not in OF_LENGTH}


def unlike(curve: dict[str, Any], recipe: Recipe) -> list[str]:
    """The settings, but for the seed, in which a recipe begins otherwise than when the curve was recorded.

    An option that came since then changes nothing where it is not used, so it does not count, nor does what a codec
    took from the data.
    """
    here = begins(recipe)
    return [key for key, value in curve["settings"].items() if key != "seed" and here.get(key) != value]


def first_losses(recipe: Recipe, steps: int = STEPS, exact: bool = False, nudge: float = 0.0) -> list[dict[str, float]]:
    """The losses of the first steps, nothing compiled; as many steps in all as the recipe says, whatever the clock.

    `exact` computes all but the data and the first weights in fp64, on the CPU. `nudge` moves each of these weights, by
    chance, by about such a share of itself.
    """
    precision = "float64" if exact else recipe.precision
    run = prepare(replace(recipe, minutes=0.0, valid={}, precision=precision), "cpu" if exact else None)
    if exact:
        run.model.double()
        for stream in run.model.streams.values():
            if isinstance(net := getattr(stream.codec, "nets", None), nn.Module):
                net.float()  # a tokenizer, which makes data outside of the step
    if nudge:
        _nudge(run.model, nudge)
    optimizers, out = make_optimizers(run.model.groups(), recipe.optim), []
    for step in range(steps):
        set_rate(optimizers, step, recipe.steps, recipe.optim)
        batch, settled = run.loader.next(step / recipe.steps), has_settled(step, recipe.steps, recipe.optim)
        if exact:
            with _in_fp64():
                losses, _ = train_step(run, _widened(batch), optimizers, settled)
        else:
            losses, _ = train_step(run, batch.to(run.device), optimizers, settled)
        out.append(losses)
    return out


@torch.no_grad()
def _nudge(model: nn.Module, by: float) -> None:
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        chance = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        weight.mul_(1 + weight.requires_grad * by * chance.to(weight.device))


class _Wide(TorchFunctionMode):
    """What asks for fp32 gets fp64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if kwargs.get("dtype") is torch.float32:
            kwargs = {**kwargs, "dtype": torch.float64}
        args = tuple(torch.float64 if given is torch.float32 else given for given in args)
        return (Tensor.double if func is Tensor.float else func)(*args, **kwargs)


@contextmanager
def _in_fp64() -> Iterator[None]:
    """Within it nothing is rounded to fp32, tables that are kept from before included."""
    before = torch.get_default_dtype()
    rotary.turning.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        with _Wide():
            yield
    finally:
        torch.set_default_dtype(before)
        rotary.turning.cache_clear()


def _widened(batch: Batch) -> Batch:
    """The same batch, its fractions in fp64."""
    batch.time_BL, batch.coords_BL3 = batch.time_BL.double(), batch.coords_BL3.double()
    for slots in batch.slots.values():
        for fields in (slots.embed, slots.predict):
            fields |= {name: value.double() for name, value in fields.items() if value.is_floating_point()}
    return batch


def this_machine(recipe: Recipe) -> dict[str, Any]:
    """What numbers depend on to the last bit."""
    return {
        "processor": processor(),
        "features": _features(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "precision": recipe.precision,
    }


def processor() -> str:
    """The name of the processor, as it calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _features() -> str:
    """The fingerprint of what the processor can do: machines that differ in it round otherwise, whatever their name."""
    told = {"capability": torch.backends.cpu.get_cpu_capability(), "machine": platform.machine()}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features", "cpu family", "model", "stepping", "cache size"):
                told.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def record(recipe: Recipe, folder: Path = FOLDER, steps: int = STEPS) -> Path:
    """The file of the curve of a recipe, which it trains for a few steps to write it."""
    found = {"losses": first_losses(recipe, steps), "exact": first_losses(recipe, steps, exact=True)}
    told = {kind: {name: [step[name] for step in of] for name in of[0]} for kind, of in found.items()}
    nudged = first_losses(recipe, steps, exact=True, nudge=NUDGE)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{recipe.name}.json"
    write_json(
        path,
        {
            "recipe": recipe.name,
            "seed": recipe.seed,
            "settings": begins(recipe),
            "mixmodal": __version__,
            "machine": this_machine(recipe),
            **told,
            "steady": steady(found["exact"], nudged),
        },
    )
    return path


def curve_of(name: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """The curve of the recipe called `name`, None if none was recorded."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf8")) if path.exists() else None


def steady(one: list[dict[str, float]], other: list[dict[str, float]]) -> int:
    """For how many steps no loss of two runs differs by a tenth of `SAME_SEED`."""
    pairs = zip(one, other, strict=True)
    near = (all(abs(a[name] - b[name]) <= 0.1 * SAME_SEED * abs(a[name]) for name in a) for a, b in pairs)
    return len(list(takewhile(bool, near)))


def allowed(curve: dict[str, Any], steps: int, same: bool) -> float:
    """How far from the first `steps` of a curve a run may lie, of the same seed or of another."""
    first = {name: values[:steps] for name, values in curve["losses"].items()}
    astray = distances({"losses": curve.get("exact", curve["losses"])}, first).values()
    return max(SAME_SEED if same else OTHER_SEED, ROUNDINGS * max(map(abs, astray), default=0.0))


def distances(curve: dict[str, Any], losses: dict[str, list[float | None]]) -> dict[str, float]:
    """How far losses lie from those of a curve, as a share: the means of the last steps that both have.

    Units:   0.01 is one per cent above.
    """
    out = {}
    for name, wanted in curve["losses"].items():
        pairs = [(w, g) for w, g in zip(wanted, losses.get(name, []), strict=False) if None not in (w, g)][-LATE:]
        if pairs:
            mean_wanted, mean_got = np.mean(np.array(pairs), 0)
            out[name] = float(mean_got / mean_wanted - 1)
    return out
