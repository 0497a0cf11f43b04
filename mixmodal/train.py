"""The training loop, readable from top to bottom: estimate, then steps, with validation, samples and checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mixmodal import config as values
from mixmodal.checkpoint import (
    checkpoints,
    home_step,
    lacks,
    load_run,
    prune,
    refuse_other_shapes,
    save_pretrained,
    save_run,
    write_json,
    write_text,
)
from mixmodal.compute import duration
from mixmodal.config import Recipe
from mixmodal.diagnosis import diagnose
from mixmodal.guard import (
    EXIT,
    Finite,
    NotFinite,
    Stop,
    Stopped,
    broken_weights,
    continued,
    disk_trouble,
    generators_state,
    set_generators,
)
from mixmodal.optim import PowerAverage, load_state, make_optimizers, rate_share, set_rate, state_of
from mixmodal.prepare import Run, compile_trunk, prepare
from mixmodal.sequence import Batch
from mixmodal.step import train_step
from mixmodal.track import Track
from mixmodal.watch import sample, validate


def train(recipe: Recipe, out: Path, *, resume: bool = False, say: Callable[[str], None] = print) -> Path:
    """The folder of the finished run: `model/` (safetensors, config.json, tokenizer.json), metrics, pictures.

    Raises:  FileExistsError if `out` holds a run and `resume` is false, ValueError if that run has another recipe;
             Stopped, once a checkpoint is saved, if the run was asked to stop; NotFinite if it cannot go on.
    """
    if (out / "recipe.json").exists() and not resume:
        raise FileExistsError(f"{out} already holds a run: go on with --resume, or choose another --out")
    resumed = load_run(out, say) if resume else None
    if resumed:
        recipe = continued(recipe, values.from_json(Recipe, resumed[1]["recipe"], "recipe"))
    run = prepare(replace(recipe, start="") if resumed else recipe)
    recipe = run.recipe
    out.mkdir(parents=True, exist_ok=True)
    for line in run.cost.lines(run.peak, recipe.steps, 0.0 if resumed else recipe.minutes):
        say(line)
    optimizers = make_optimizers(run.model.groups(), recipe.optim)
    average = PowerAverage(run.model, recipe.optim.average) if recipe.optim.average > 0 else None
    step, spent, finite = 0, 0.0, Finite()
    if resumed:
        tensors, state = resumed
        refuse_other_shapes(run.model, tensors["weights"], out)
        run.model.load_state_dict(tensors["weights"])
        load_state(optimizers, tensors["optimizer"])
        if average:
            average.weights = {n: t.to(run.device) for n, t in tensors["average"].items()}
        set_generators(tensors.get("generators", {}))
        run.loader.load(state["loader"])
        step, spent, finite = state["step"], state["seconds"], Finite(**state.get("finite", {}))
        (out / "diagnosis.txt").unlink(missing_ok=True)  # if what it tells is still so, it will be told again
        say(f"resumed at step {step:,} after {duration(spent)}")
    track = Track(out, step, say)
    if recipe.compile and (why := compile_trunk(run.model)):
        say(f"not compiled: {why}")
    began = time.perf_counter() - spent
    with Stop() as stop, track:
        if recipe.minutes > 0 and not resumed:
            recipe, began = _timed(run, optimizers, average, began, say)
        write_json(out / "recipe.json", values.to_json(recipe))
        if resumed and _due(recipe, step) and step not in track.watched:  # it was stopped before it got to that
            _watch(run, recipe, step, average, track)
        track.begin(step, recipe.steps)
        while step < recipe.steps:
            set_rate(optimizers, rate_share(step, recipe.steps, recipe.optim))
            tick = time.perf_counter()
            batch = run.loader.next(step / recipe.steps).to(run.device)
            losses, taken = train_step(run, batch, optimizers)
            step += 1
            if average and taken:
                average.update(run.model, step)
            now = time.perf_counter()
            track.step(
                step,
                losses,
                positions=run.cost.positions,
                seconds=now - tick,
                elapsed=now - began,
                share=run.cost.flops / (now - tick) / run.peak,
                skipped=(skipped := finite.count(losses, taken)),
            )
            if skipped and finite.row >= recipe.optim.bad_steps:
                track.end()
                _give_up(run, batch, out, step, finite, say)
            if stop.asked or _due(recipe, step):
                last = bool(stop.asked) or step == recipe.steps
                _checkpoint(run, recipe, out, step, optimizers, average, track, now - began, finite, last)
            if stop.asked:
                raise Stopped(
                    f"stopped by {stop.asked} after step {step:,} of {recipe.steps:,}, which is saved; go on with:"
                    f" mixmodal train {out} --resume",
                    EXIT[stop.asked],
                )
            if _due(recipe, step):
                _watch(run, recipe, step, average, track)
    return out


def _due(recipe: Recipe, step: int) -> bool:
    return step > 0 and (step % recipe.every == 0 or step == recipe.steps)


def _timed(run: Run, optimizers: dict, average: PowerAverage | None, began: float, say) -> tuple[Recipe, float]:
    """The recipe with as many steps as its minutes allow, by the speed of a few steps that are then undone."""
    weights = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    state, generators = run.loader.state(), generators_state()
    ticks = []
    for _ in range(8):
        tick = time.perf_counter()
        train_step(run, run.loader.next(0.0).to(run.device), optimizers)
        ticks.append(time.perf_counter() - tick)
    run.loader.load(state)
    set_generators(generators)
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            parameter.copy_(weights[name])
    for optimizer in optimizers.values():
        optimizer.state.clear()
    left = run.recipe.minutes * 60 - (time.perf_counter() - began)
    steps = max(10, int(left / (1.04 * float(np.median(ticks[3:])))))
    say(f"{steps:,} steps fit into what is left of {run.recipe.minutes:g} min")
    return replace(run.recipe, steps=steps, minutes=0.0), began


def _give_up(run: Run, batch: Batch, out: Path, step: int, finite: Finite, say: Callable[[str], None]) -> None:
    """End a run whose steps are not finite any more, and say why."""
    lines = diagnose(run.model, batch, run.loader, run.recipe.path, run.dtype)
    write_text(out / "diagnosis.txt", "\n".join([f"step {step:,}", *lines, ""]))
    for line in lines:
        say(line)
    raise NotFinite(
        f"{finite.row} steps in a row, up to step {step:,}, had a loss or a gradient that is not finite: {lines[0]};"
        f" what was found and what to try stands in {out / 'diagnosis.txt'}"
    )


def _checkpoint(
    run: Run,
    recipe: Recipe,
    out: Path,
    step: int,
    optimizers: dict,
    average: PowerAverage | None,
    track: Track,
    seconds: float,
    finite: Finite,
    last: bool,
) -> None:
    """Save the run; where the disk does not take it, say so and go on, unless nothing comes after this."""
    if broken := broken_weights(run.model):
        raise NotFinite(
            f"at step {step:,} {len(broken)} parameters are not finite, {broken[0]} for one, so they are not saved; the"
            " last checkpoint is kept: train on from it in another folder, with --set start=RUN and lower rates"
        )
    tensors: dict[str, dict[str, Tensor]] = {
        "weights": run.model.state_dict(),
        "optimizer": state_of(optimizers),
        "generators": generators_state(),
    }
    if average:
        tensors["average"] = average.weights
    about = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "steps": step,
        "seconds": round(seconds, 1),
        "of_steps": recipe.steps,
        "sources": recipe.sources,
        "guidance": recipe.guidance,
        "steps_sampled": recipe.steps_sampled,
        "sample_size": list(recipe.sample_size),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    state = {
        "recipe": values.to_json(recipe),
        "loader": run.loader.state(),
        "seconds": seconds,
        "finite": finite.state(),
    }
    track.to_disk()
    try:
        # The model first: a run that is killed here goes on from the checkpoint before, and writes it again.
        save_pretrained(run.model, out / "model", about=about, weights=average.weights if average else None)
        save_run(out, step, tensors, state, keep=recipe.keep, scores=track.scores)
    except OSError as error:
        good = [home_step(home) for home in checkpoints(out) if not lacks(home)]
        told = f"the checkpoint of step {step:,} was not written ({disk_trouble(error)}); "
        told += f"the last good one is of step {good[-1]:,}" if good else "there is none yet"
        if last:
            raise OSError(f"{told}; then go on with: mixmodal train {out} --resume") from error
        track.say(f"{told}; the run goes on and tries again at its next checkpoint")


def _watch(run: Run, recipe: Recipe, step: int, average: PowerAverage | None, track: Track) -> None:
    """Sample and validate. The line of validation comes last: a resumed run that lacks it does all of this again."""
    if not recipe.valid:
        return
    with average.lent(run.model) if average else nullcontext():
        pairs, found = sample(run, recipe), validate(run, recipe)
    try:
        track.samples(step, pairs)
        track.validation(step, found)
    except OSError as error:
        track.say(f"the samples of step {step:,} were not written ({disk_trouble(error)}); the run goes on")
    prune(track.folder, recipe.keep, track.scores)


def read_metrics(folder: Path) -> list[dict]:
    """The lines of a run's metrics.jsonl."""
    with open(folder / "metrics.jsonl", encoding="utf8") as file:
        return [json.loads(line) for line in file if line.strip()]
