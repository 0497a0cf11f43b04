"""The training loop, readable from top to bottom: estimate, then steps, with validation, samples and checkpoints."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

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
from mixmodal.clock import Clock
from mixmodal.compute import duration
from mixmodal.config import Recipe
from mixmodal.data.report import NothingLeft
from mixmodal.diagnosis import FOUND_NOTHING, diagnose
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
from mixmodal.optim import PowerAverage, has_settled, load_state, make_optimizers, set_rate, state_of
from mixmodal.parallel import ALONE, Ranks, compile_blocks
from mixmodal.prepare import Run, compile_trunk, prepare, recalled, resuming
from mixmodal.sequence import Batch
from mixmodal.step import train_step
from mixmodal.track import Track, Untracked
from mixmodal.watch import sample, validate


def train(
    recipe: Recipe, out: Path, *, resume: bool = False, say: Callable[[str], None] = print, ranks: Ranks = ALONE
) -> Path:
    """The folder of the finished run: `model/` (safetensors, config.json, tokenizer.json), metrics, pictures.

    Raises:  FileExistsError if `out` holds a run and `resume` is false, ValueError if that run has another recipe;
             Stopped, once a checkpoint is saved, if the run was asked to stop; NotFinite if it cannot go on.
    """
    entered = time.perf_counter()
    if not ranks.first:
        say = silent
    if (out / "recipe.json").exists() and not resume:
        raise FileExistsError(f"{out} already holds a run: go on with --resume, or choose another --out")
    resumed = load_run(out, say) if resume else None
    if resumed:
        recipe = continued(recipe, values.from_json(Recipe, resumed[1]["recipe"], "recipe"))
    run = prepare(resuming(recipe) if resumed else recipe, ranks=ranks)
    recipe, ranks = recalled(run.recipe, recipe) if resumed else run.recipe, run.ranks
    ranks.same(json.dumps([values.to_json(recipe), resumed[1]["step"] if resumed else 0]))
    out.mkdir(parents=True, exist_ok=True)
    for line in run.cost.lines(run.peak, recipe.steps, 0.0 if resumed else recipe.minutes, recipe.optim.settle):
        say(line)
    told = run.loader.left_out()
    for line in told:
        say(line)
    optimizers = make_optimizers(run.owned.groups(), recipe.optim)
    average = PowerAverage(run.owned, recipe.optim.average) if recipe.optim.average > 0 else None
    step, spent, finite = 0, 0.0, Finite()
    if resumed:
        tensors, state = resumed
        refuse_other_shapes(run.owned, tensors["weights"], out)
        run.owned.load_state_dict(tensors["weights"])
        moved = run.owned.own_states(tensors["optimizer"], rested=recipe.optim.settle <= 0)
        load_state({name: optimizers[name] for name in {flat.split("/")[0] for flat in moved}}, moved)
        if average:
            average.weights = {n: tensors["average"][n].to(run.device).clone() for n, _ in run.owned.named_parameters()}
        set_generators(tensors.get("generators", {}), ranks.rank)
        run.loader.load(state["loader"])
        run.origin = state.get("origin", {})
        step, spent, finite = state["step"], state["seconds"], Finite(**state.get("finite", {}))
        (out / "diagnosis.txt").unlink(missing_ok=True)  # if what it tells is still so, it will be told again
        say(f"resumed at step {step:,} after {duration(spent)}")
        resumed = True  # its files are mapped: held, they would keep their room when they are pruned
        del tensors, state, moved
    track = Track(out, step, say) if ranks.first else Untracked(out, step, say)
    if recipe.compile and (why := compile_trunk(run.model, recipe.path)):
        say(f"not compiled: {why}")
    elif recipe.compile and ranks.shard:
        compile_blocks(run.model.trunk)
    began = time.perf_counter() - spent
    with Stop(told=ranks.first) as stop, track, closing(run.loader):
        clock = Clock(run, entered, say) if recipe.minutes > 0 and not resumed else None
        if clock:
            recipe = clock.first(optimizers)
        if ranks.first:
            write_json(out / "recipe.json", values.to_json(recipe))
        if resumed and _due(recipe, step) and ranks.all(step not in track.watched):  # stopped before it got to that
            _watch(run, recipe, step, average, track)
        track.begin(step, recipe.steps)
        while step < recipe.steps:
            set_rate(optimizers, step, recipe.steps, recipe.optim)
            tick = time.perf_counter()
            batch = run.loader.next(step / recipe.steps, (step + 1) / recipe.steps).to(run.device)
            waited = time.perf_counter() - tick
            settled = has_settled(step, recipe.steps, recipe.optim)
            losses, taken = train_step(run, batch, optimizers, settled)
            step += 1
            if average and taken:
                average.update(run.owned, step)
            now = time.perf_counter()
            track.step(
                step,
                losses,
                positions=run.cost.positions,
                seconds=now - tick,
                elapsed=now - began,
                share=(run.cost.settled if settled else run.cost.flops) / (now - tick) / run.peak,
                skipped=(skipped := finite.count(losses, taken))
                | _broken(run)
                | {"waited": round(waited / (now - tick), 4)},
            )
            if skipped and finite.row >= recipe.optim.bad_steps:
                track.end()
                _give_up(run, batch, out, step, finite, settled, say)
            if clock and (planned := clock.again(recipe, step, now - tick)):
                recipe = planned
                track.steps(recipe.steps)
                if ranks.first:
                    write_json(out / "recipe.json", values.to_json(recipe))
            asked = stop.of_all(ranks)
            if asked or _due(recipe, step):
                last = bool(asked) or step == recipe.steps
                _checkpoint(run, recipe, out, step, optimizers, average, track, now - began, finite, last)
            if asked:
                raise Stopped(
                    f"stopped by {asked} after step {step:,} of {recipe.steps:,}, which is saved; go on with:"
                    f" mixmodal train {out} --resume",
                    EXIT[asked],
                )
            if _due(recipe, step):
                _watch(run, recipe, step, average, track)
    for line in run.loader.left_out():
        if line not in told:
            say(line)
    return out


def train_as(ranks: Ranks, recipe: Recipe, out: Path, resume: bool) -> None:
    """The command: train as one of `ranks`; the first tells where the model is, and why the run stopped."""
    try:
        train(recipe, out, resume=resume, ranks=ranks)
    except Stopped as stop:
        if ranks.first:
            raise
        sys.exit(stop.code)
    if ranks.first:
        print(f"the model is in {out / 'model'}")


def _broken(run: Run) -> dict[str, int]:
    """For the metrics, how many documents so far could not be read, or fit no row; nothing where all did."""
    counts = {"broken_so_far": run.loader.broken, "too_long_so_far": run.loader.skipped}
    return {name: sum(found.values()) for name, found in counts.items() if found}


def _due(recipe: Recipe, step: int) -> bool:
    return step > 0 and (step % recipe.every == 0 or step == recipe.steps)


def silent(_: str) -> None:
    """Nothing: what ranks but the first say."""


def _give_up(
    run: Run, batch: Batch, out: Path, step: int, finite: Finite, settled: bool, say: Callable[[str], None]
) -> None:
    """End a run whose steps are not finite any more, and say why."""
    lines = _diagnosis(run, batch, settled)
    if run.ranks.first:
        write_text(out / "diagnosis.txt", "\n".join([f"step {step:,}", *lines, ""]))
    for line in lines:
        say(line)
    raise NotFinite(
        f"{finite.row} steps in a row, up to step {step:,}, had a loss or a gradient that is not finite: {lines[0]};"
        f" what was found and what to try stands in {out / 'diagnosis.txt'}"
    )


def _diagnosis(run: Run, batch: Batch, settled: bool) -> list[str]:
    """What the first rank that finds something finds in its rows: each looks into its own, where it can alone."""
    if run.ranks.shard:
        return [
            "the model is sharded, so no rank can look into it alone: train on in another folder with --set start=RUN,"
            " fewer rows and without --shard"
        ]
    losses = partial(run.model.losses, path=run.recipe.path, dtype=run.dtype, settled=settled)
    told = run.ranks.texts("\n".join(diagnose(run.model, batch, run.loader, losses)))
    return next((text for text in told if not text.startswith(FOUND_NOTHING)), told[0]).split("\n")


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
    ranks, own = run.ranks, run.owned.state_dict()
    if broken := " ".join(ranks.texts(" ".join(broken_weights(run.owned)))).split():
        raise NotFinite(
            f"at step {step:,} {len(broken)} parameters are not finite, {broken[0]} for one, so they are not saved; the"
            " last checkpoint is kept: train on from it in another folder, with --set start=RUN and lower rates"
        )
    tensors: dict[str, dict[str, Tensor]] = {
        "weights": own,
        "optimizer": run.owned.named_states(state_of(optimizers)),
        "generators": generators_state(ranks.rank),
    }
    if average:
        tensors["average"] = average.weights
    whole = run.owned.whole(average.weights if average else own)
    about = {
        **run.origin,
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
        "ranks": ranks.count,
    }
    state = {
        "recipe": values.to_json(recipe),
        "loader": run.loader.state(),
        "seconds": seconds,
        "finite": finite.state(),
        "origin": run.origin,
    }
    track.to_disk()
    try:
        # The model first: a run that is killed here goes on from the checkpoint before, and writes it again.
        with ranks.agreeing():
            if ranks.first:
                save_pretrained(run.model, out / "model", about=about, weights=whole)
        save_run(out, step, tensors, state, keep=recipe.keep, scores=track.scores, ranks=ranks)
    except ConnectionError:  # an OSError too, and none of the disk: another rank has ended
        raise
    except OSError as error:
        good = [home_step(home) for home in checkpoints(out) if not lacks(home)]
        told = f"the checkpoint of step {step:,} was not written ({disk_trouble(error)}); "
        told += f"the last good one is of step {good[-1]:,}" if good else "there is none yet"
        if last:
            raise OSError(f"{told}; then go on with: mixmodal train {out} --resume") from error
        track.say(f"{told}; the run goes on and tries again at its next checkpoint")


def _watch(run: Run, recipe: Recipe, step: int, average: PowerAverage | None, track: Track) -> None:
    """Validate and sample. The line of validation comes last: a resumed run that lacks it does all of this again.

    Of a model in shards, what its blocks are gathered into is made by whoever comes first, and kept: the sampler, which
    runs in inference mode, would leave the trainer tensors that it may not write into.
    """
    if not recipe.valid:
        return
    ranks, pairs, found = run.ranks, [], {}
    with average.lent(run.owned) if average else nullcontext():
        if ranks.first or ranks.shard:  # a model in shards runs on all ranks or on none
            try:
                found = validate(run, recipe)
                pairs = sample(run, recipe)
            except NothingLeft as error:
                track.say(f"no validation at step {step:,}: {error}; the run goes on")
    if not ranks.first:
        return
    try:
        if found:
            track.samples(step, pairs)
            track.validation(step, found)
    except OSError as error:
        track.say(f"the samples of step {step:,} were not written ({disk_trouble(error)}); the run goes on")
    prune(track.folder, recipe.keep, track.scores)


def read_metrics(folder: Path) -> list[dict]:
    """The lines of a run's metrics.jsonl."""
    with open(folder / "metrics.jsonl", encoding="utf8") as file:
        return [json.loads(line) for line in file if line.strip()]
