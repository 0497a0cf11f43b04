"""The training loop, readable from top to bottom: estimate, then steps, with validation, samples and checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mixmodal import config as values
from mixmodal.checkpoint import from_pretrained, load_run, save_pretrained, save_run, write_json
from mixmodal.compute import Cost, cost_of, duration, fast_dtype, measured_peak
from mixmodal.config import Recipe
from mixmodal.data import make_mixture
from mixmodal.data.loading import Loader
from mixmodal.generate import Request, generate
from mixmodal.model import Model, kind_of
from mixmodal.optim import PowerAverage, load_state, make_optimizers, rate_share, set_rate, state_of
from mixmodal.parts import Document
from mixmodal.sampling import Settings
from mixmodal.sequence import Batch, collate, fitting_row
from mixmodal.track import Track
from mixmodal.trunk import run_block

GRID = tuple((i + 0.5) / 10 for i in range(10))  # fixed noise levels of validation
VALID_DOCUMENTS = 24
TOKENIZER_DOCUMENTS = 3000


@dataclass(eq=False)
class Run:
    """All that a training in progress holds."""

    recipe: Recipe
    model: Model
    loader: Loader
    cost: Cost
    dtype: torch.dtype
    peak: float
    device: str


def prepare(recipe: Recipe, device: str | None = None) -> Run:
    """A run ready to start: codecs completed from the data, model made from the seed, cost counted."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    mixture = make_mixture(recipe.sources, recipe.seed)
    if recipe.valid:
        make_mixture(recipe.valid, 1)  # what cannot be made is refused now, not at the first checkpoint
    if recipe.start:
        model, _ = from_pretrained(recipe.start)
        recipe = replace(recipe, model=replace(model.config, streams=_merged(recipe.model, model.config)))
        started = Model(recipe.model)
        started.load_state_dict(model.state_dict())
        model = started
    else:
        recipe = replace(recipe, model=_complete(recipe, mixture))
        torch.manual_seed(recipe.seed)
        model = Model(recipe.model)
    dtype = fast_dtype(device) if recipe.precision == "auto" else getattr(torch, recipe.precision)
    loader = Loader(mixture, model, recipe)
    cost = cost_of(model, recipe.rows, recipe.length, dtype, recipe.optim.average > 0)
    return Run(recipe, model.to(device).train(), loader, cost, dtype, measured_peak(dtype, device), device)


class _Preview:
    """The documents from which a codec may learn, made only if it asks for them."""

    def __init__(self, mixture) -> None:
        self.mixture = mixture

    def __iter__(self):
        return iter(self.mixture.preview(TOKENIZER_DOCUMENTS))


def _complete(recipe: Recipe, mixture) -> values.ModelConfig:
    """The model's configuration with what its codecs take from the data."""
    streams, documents = {}, None
    for name, stream in recipe.model.streams.items():
        module = kind_of("codecs", stream.codec)
        if hasattr(module, "prepare"):
            documents = documents or _Preview(mixture)
            media = {s.medium for s in recipe.model.streams.values()} - {stream.medium}
            options = values.options(module.Config, stream.codec, f"streams.{name}.codec")
            made = values.to_json(module.prepare(options, documents, media, recipe))
            stream = replace(stream, codec={"kind": stream.codec["kind"], **made})
        streams[name] = stream
    return replace(recipe.model, streams=streams)


def _merged(wanted: values.ModelConfig, found: values.ModelConfig) -> dict:
    """The streams of a model that is trained on: its own codecs, the recipe's objectives and weights."""
    return {
        name: replace(stream, objective=wanted.streams[name].objective, weight=wanted.streams[name].weight)
        if name in wanted.streams
        else stream
        for name, stream in found.streams.items()
    }


def train(recipe: Recipe, out: Path, *, resume: bool = False, say: Callable[[str], None] = print) -> Path:
    """The folder of the finished run: `model/` (safetensors, config.json, tokenizer.json), metrics, pictures.

    Raises:  FileExistsError if `out` holds a run and `resume` is false.
    """
    if (out / "recipe.json").exists() and not resume:
        raise FileExistsError(f"{out} already holds a run: go on with --resume, or choose another --out")
    resumed = load_run(out) if resume else None
    if resumed:
        recipe = values.from_json(Recipe, resumed[1]["recipe"], "recipe")
    run = prepare(replace(recipe, start="") if resumed else recipe)
    recipe = run.recipe
    out.mkdir(parents=True, exist_ok=True)
    for line in run.cost.lines(run.peak, recipe.steps, 0.0 if resumed else recipe.minutes):
        say(line)
    optimizers = make_optimizers(run.model.groups(), recipe.optim)
    average = PowerAverage(run.model, recipe.optim.average) if recipe.optim.average > 0 else None
    step, spent = 0, 0.0
    if resumed:
        tensors, state = resumed
        run.model.load_state_dict(tensors["weights"])
        load_state(optimizers, tensors["optimizer"])
        if average:
            average.weights = {n: t.to(run.device) for n, t in tensors["average"].items()}
        run.loader.load(state["loader"])
        step, spent = state["step"], state["seconds"]
        say(f"resumed at step {step:,} after {duration(spent)}")
    track = Track(out, step, say)
    if recipe.compile and (why := compile_trunk(run.model)):
        say(f"not compiled: {why}")
    began = time.perf_counter() - spent
    if recipe.minutes > 0 and not resumed:
        recipe, began = _timed(run, optimizers, average, began, say)
    write_json(out / "recipe.json", values.to_json(recipe))
    track.begin(step, recipe.steps)
    while step < recipe.steps:
        set_rate(optimizers, rate_share(step, recipe.steps, recipe.optim))
        tick = time.perf_counter()
        losses = train_step(run, run.loader.next(step / recipe.steps).to(run.device), optimizers)
        step += 1
        if average:
            average.update(run.model, step)
        now = time.perf_counter()
        share = run.cost.flops / (now - tick) / run.peak
        track.step(step, losses, positions=run.cost.positions, seconds=now - tick, elapsed=now - began, share=share)
        if step % recipe.every == 0 or step == recipe.steps:
            _checkpoint(run, recipe, out, step, optimizers, average, track, time.perf_counter() - began)
    track.end()
    return out


def _timed(run: Run, optimizers: dict, average: PowerAverage | None, began: float, say) -> tuple[Recipe, float]:
    """The recipe with as many steps as its minutes allow, by the speed of a few steps that are then undone."""
    weights = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    state = run.loader.state()
    ticks = []
    for _ in range(8):
        tick = time.perf_counter()
        train_step(run, run.loader.next(0.0).to(run.device), optimizers)
        ticks.append(time.perf_counter() - tick)
    run.loader.load(state)
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            parameter.copy_(weights[name])
    for optimizer in optimizers.values():
        optimizer.state.clear()
    left = run.recipe.minutes * 60 - (time.perf_counter() - began)
    steps = max(10, int(left / (1.04 * float(np.median(ticks[3:])))))
    say(f"{steps:,} steps fit into what is left of {run.recipe.minutes:g} min")
    return replace(run.recipe, steps=steps, minutes=0.0), began


def compile_trunk(model: Model) -> str | None:
    """Compile the block, once for all layers; where that cannot be done, the reason."""
    import shutil

    if next(model.parameters()).device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return "no C++ compiler is on this machine (g++ or clang++); training is slower without"
    model.trunk.run_block = torch.compile(run_block, dynamic=False)
    return None


def train_step(run: Run, batch: Batch, optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, float]:
    """One step of every optimizer; the mean of each loss before it."""
    losses = run.model.losses(batch, run.recipe.path, run.dtype)
    weights = run.model.weights()
    means = {name: total / count.clamp(min=1e-8) for name, (total, count) in losses.items()}
    sum(mean * weights[name.split(".")[0]] for name, mean in means.items()).backward()
    if run.recipe.optim.clip > 0:
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.recipe.optim.clip)
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {name: float(mean.detach()) for name, mean in means.items()}


def _checkpoint(
    run: Run,
    recipe: Recipe,
    out: Path,
    step: int,
    optimizers: dict,
    average: PowerAverage | None,
    track: Track,
    seconds: float,
) -> None:
    tensors: dict[str, dict[str, Tensor]] = {"weights": run.model.state_dict(), "optimizer": state_of(optimizers)}
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
    # The model first: a run that is killed here goes on from the checkpoint before, and writes it again.
    save_pretrained(run.model, out / "model", about=about, weights=average.weights if average else None)
    save_run(out, step, tensors, {"recipe": values.to_json(recipe), "loader": run.loader.state(), "seconds": seconds})
    if recipe.valid:
        kept = {name: p.detach().clone() for name, p in run.model.named_parameters()} if average else {}
        if average:
            run.model.load_state_dict(average.weights, strict=False)
        track.validation(step, validate(run, recipe))
        track.samples(step, sample(run, recipe))
        if average:
            run.model.load_state_dict(kept, strict=False)


@torch.no_grad()
def validate(run: Run, recipe: Recipe) -> dict[str, dict[str, float] | dict[str, list[float]]]:
    """Losses on fixed documents at fixed noise levels, comparable between time laws; and by level of noise."""
    mixture = make_mixture(recipe.valid, 1)
    documents = mixture.preview(VALID_DOCUMENTS)
    totals: dict[str, list[float]] = {}
    levels: dict[str, list[Tensor]] = {}
    sequences = []
    for number, document in enumerate(documents):
        for level, t in enumerate(GRID):
            rng = np.random.default_rng([recipe.seed, number, level])
            sequence = run.model.lay_out(document, rng, 1.0, (t,))
            if len(sequence) <= recipe.length:
                sequences.append(sequence)
    run.model.eval()
    trunk, compiled = run.model.trunk, run.model.trunk.run_block
    trunk.run_block = run_block  # without gradients a compiled one would be compiled anew
    while sequences:
        plan, room, chosen = [[] for _ in range(recipe.rows)], [recipe.length] * recipe.rows, []
        while sequences and (row := fitting_row(room, len(sequences[-1]))) is not None:
            plan[row].append(len(chosen))
            room[row] -= len(sequences[-1])
            chosen.append(sequences.pop())
        batch = collate(chosen, plan, recipe.length, run.model.blank()).to(run.device)
        hidden = run.model(batch, recipe.path, run.dtype).flatten(0, 1)
        for name, slots in batch.slots.items():
            stream = run.model.streams[name]
            at = hidden[slots.predict_at]
            for loss, pair in stream.objective.losses(stream.codec, stream.head, at, slots.predict).items():
                total = totals.setdefault(f"{name}.{loss}", [0.0, 0.0])
                total[0] += float(pair[0])
                total[1] += float(pair[1])
            if hasattr(stream.objective, "levels"):
                found = torch.stack(stream.objective.levels(stream.codec, at, slots.predict))
                levels[name] = [found + levels[name][0]] if name in levels else [found]
    run.model.train()
    trunk.run_block = compiled
    means = {name: total / max(count, 1e-8) for name, (total, count) in totals.items()}
    return {"losses": means, "levels": {n: (f[0][0] / f[0][1].clamp(min=1)).tolist() for n, f in levels.items()}}


def sample(run: Run, recipe: Recipe) -> list[tuple[Document, Document]]:
    """Some validation documents, each with what the model makes of its last part."""
    mixture = make_mixture(recipe.valid, 2)
    documents = mixture.preview(16)
    requests = [
        Request(
            replace(d.emptied(), key=number),
            Settings(steps=recipe.steps_sampled, guidance=recipe.guidance, max_tokens=60),
            seed=0,
        )
        for number, d in enumerate(documents)
    ]
    run.model.eval()
    made = generate(run.model, requests, dtype=run.dtype)
    run.model.train()
    return list(zip(documents, made, strict=True))


def read_metrics(folder: Path) -> list[dict]:
    """The lines of a run's metrics.jsonl."""
    with open(folder / "metrics.jsonl", encoding="utf8") as file:
        return [json.loads(line) for line in file if line.strip()]
