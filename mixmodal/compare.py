"""Designs compared: every arm with every seed, trained on one budget, tuned, judged; each piece once, and resumable.

A comparison is a folder. Each piece of work leaves one file there, and is passed over where that file is: whatever
stops it, the same command goes on.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mixmodal import config as values
from mixmodal.chain import standing, stands_on, untrained
from mixmodal.checkpoint import write_json
from mixmodal.compute import duration, fast_dtype, measured_peak
from mixmodal.config import Recipe
from mixmodal.recipes import recipe as known_recipe

BUDGETS = ("steps", "tokens", "flops", "minutes")
TWIN = "text_alone"  # the arm that reads and writes the same prose, and nothing else


@dataclass(frozen=True)
class Comparison:
    """A question to trained models.

    `arms` are recipes by label, `nets` recipes that these may stand on ("recipe:NAME"), before those of the package.
    Units:   `budget` is one of steps, tokens (positions), flops (of training and of what an arm stands on) or minutes,
             for each arm; `n` questions of each kind, `few` where guidance is tuned and curves are drawn; `guidances`
             are those tried, `evaluations` the numbers of steps sampled with, `points` the models of a training judged.
    """

    name: str
    question: str
    arms: dict[str, Recipe]
    budget: dict[str, float]
    nets: dict[str, Recipe] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    suite: str = "scenes"
    options: dict[str, Any] = field(default_factory=dict)
    n: int = 200
    few: int = 60
    guidances: tuple[float, ...] = (1.0, 2.0, 4.0)
    evaluations: tuple[int, ...] = (2, 4, 8, 16, 32)
    points: int = 4
    twin: bool = True

    def __post_init__(self) -> None:
        if len(self.budget) != 1 or next(iter(self.budget)) not in BUDGETS:
            raise ValueError(f"budget is {self.budget}: give one of {', '.join(BUDGETS)}, for example steps=500")
        if TWIN in self.arms or not self.arms:
            raise ValueError(f"arms are {sorted(self.arms)}: want at least one, and none called {TWIN!r}")


@dataclass(frozen=True)
class Piece:
    """One piece of work, and the file that says it is done."""

    kind: str
    label: str
    seed: int
    file: Path


def smoke(whole: Comparison) -> Comparison:
    """The same comparison in miniature: three arms, two seeds, a few steps, a few questions."""
    arms = {label: replace(arm, compile=False, rows=4) for label, arm in list(whole.arms.items())[:3]}
    named = {name for arm in arms.values() for name in stands_on(arm)}
    nets = {name: replace(whole.nets.get(name) or known_recipe(name), steps=4, every=4, rows=8) for name in named}
    return replace(
        whole,
        arms=arms,
        nets=nets,
        budget={"steps": 4},
        seeds=(0, 1),
        n=4,
        few=4,
        guidances=(1.0, 2.0),
        evaluations=(2, 4),
        points=2,
    )


def begin(comparison: Comparison, out: Path) -> Comparison:
    """The comparison that lies in `out`, put there unless it is.

    Raises:  ValueError if another lies there.
    """
    file = out / "comparison.json"
    if file.exists():
        kept = values.from_json(Comparison, json.loads(file.read_text(encoding="utf8")), "comparison")
        if values.to_json(kept) != values.to_json(comparison):
            raise ValueError(f"{out} holds another comparison, {kept.name!r} with other settings: take another --out")
        return kept
    out.mkdir(parents=True, exist_ok=True)
    write_json(file, values.to_json(comparison))
    return comparison


def run(comparison: Comparison, out: Path, *, jobs: int = 0, say: Callable[[str], None] = print) -> None:
    """All that is still to do, `jobs` pieces at a time, each with its share of the cores.

    Raises:  ValueError that says which piece failed, with the end of its log.
    """
    import torch

    cores = torch.get_num_threads()
    jobs = min(
        jobs or (1 if torch.cuda.is_available() else cores), max(1, len(comparison.arms) * len(comparison.seeds))
    )
    begin(comparison, out)
    plan = planned(comparison, out)
    for line in estimate(comparison, plan, jobs):
        say(line)
    for number, stage in enumerate(stages(comparison, out), 1):
        left = [piece for piece in stage if not piece.file.exists()]
        if left:
            _work_off(left, out, jobs, max(1, cores // jobs), f"{number}/4 {stage[0].kind}")


def stages(comparison: Comparison, out: Path) -> Iterator[list[Piece]]:
    """The pieces in the order in which they wait for one another."""
    nets = dict.fromkeys(name for arm in comparison.arms.values() for name in stands_on(arm))
    labels = [*comparison.arms, *([TWIN] if _has_twin(comparison, out) else [])]
    yield [Piece("net", n, s, out / f"seed_{s}" / n / "trained.json") for s in comparison.seeds for n in nets]
    # the twin writes with the words of another arm, so it waits for that one
    first = [Piece("train", a, s, home(out, a, s) / "trained.json") for s in comparison.seeds for a in comparison.arms]
    yield first
    yield [
        *(Piece("tune", a, comparison.seeds[0], out / "tuned" / f"{a}.json") for a in comparison.arms),
        *(
            Piece("train", a, s, home(out, a, s) / "trained.json")
            for s in comparison.seeds
            for a in labels[len(comparison.arms) :]
        ),
    ]
    yield [Piece("judge", a, s, home(out, a, s) / "scores.json") for s in comparison.seeds for a in labels]


def home(out: Path, label: str, seed: int) -> Path:
    """The folder of one run."""
    return out / f"seed_{seed}" / label


def _has_twin(comparison: Comparison, out: Path) -> bool:
    return bool(planned(comparison, out).get("twin"))


def planned(comparison: Comparison, out: Path) -> dict[str, Any]:
    """Steps and costs of every arm, counted once and kept in `out`."""
    from mixmodal.judge.costs import step_cost

    file = out / "plan.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf8"))
    arms, nets = {}, {}
    for label, arm in comparison.arms.items():
        for name in stands_on(arm):
            if name not in nets:
                inner = comparison.nets.get(name) or known_recipe(name)
                nets[name] = step_cost(inner).flops * inner.steps
        cost = step_cost(untrained(arm, comparison.nets))
        before = sum(nets[name] for name in stands_on(arm))
        arms[label] = {
            "flops_a_step": cost.flops,
            "flops_of_nets": before,
            "text_share": cost.text_share,
            "parameters": cost.parameters,
            "positions": arm.rows * arm.length,
            "steps": _steps(comparison.budget, arm, cost.flops, before, label),
        }
    plan: dict[str, Any] = {"arms": arms, "nets": nets, "twin": {}}
    if comparison.twin and (twin := _twin(next(iter(comparison.arms.values())))) is not None:
        first, cost = next(iter(arms.values())), step_cost(twin)
        flops = first["flops_a_step"] * first["steps"] * first["text_share"]
        plan["twin"] = {
            "flops_a_step": cost.flops,
            "flops_of_nets": 0,
            "text_share": 1.0,
            "parameters": cost.parameters,
            "positions": twin.rows * twin.length,
            "steps": max(1, round(flops / cost.flops)),
        }
    write_json(file, plan)
    return plan


def _steps(budget: dict[str, float], arm: Recipe, flops: float, before: float, label: str) -> int:
    """The steps that a budget allows; under minutes, a guess until they have been taken."""
    ((kind, amount),) = budget.items()
    if kind == "steps":
        return int(amount)
    if kind == "tokens":
        return max(1, round(amount / (arm.rows * arm.length)))
    if kind == "flops":
        if amount <= before:
            raise ValueError(
                f"the budget of {amount:.3g} FLOPs is spent before {label} begins: what it stands on takes {before:.3g}"
            )
        return max(1, round((amount - before) / flops))
    return max(1, round(amount * 60 * 0.3 * measured_peak(fast_dtype()) / flops))


def _twin(arm: Recipe) -> Recipe | None:
    """The recipe of the arm's prose alone, on the same trunk; None where it learns none."""
    prose = {name: spec for name, spec in arm.sources.items() if spec.get("kind") in ("prose", "file")}
    if not prose:
        return None
    speaker = arm.model.speaker
    alone = replace(arm.model, streams={speaker: arm.model.streams[speaker]})
    return replace(arm, name=TWIN, model=alone, sources=prose, valid={}, prompts=())


def estimate(comparison: Comparison, plan: dict[str, Any], jobs: int) -> list[str]:
    """What it will cost, for people."""
    peak, lines, total = measured_peak(fast_dtype()), [], 0.0
    for label, arm in (*plan["arms"].items(), *([(TWIN, plan["twin"])] if plan["twin"] else [])):
        flops = arm["flops_a_step"] * arm["steps"] + arm["flops_of_nets"]
        total += flops * len(comparison.seeds)
        lines.append(
            f"{label:24} {arm['parameters'] / 1e6:6.2f} M parameters, {arm['steps']:6,} steps,"
            f" {flops / 1e12:8.2f} TFLOPs"
            + (f", {arm['flops_of_nets'] / flops:.0%} of them for what it stands on" if arm["flops_of_nets"] else "")
        )
    seconds = total / (0.3 * peak)
    lines.append(
        f"{len(comparison.seeds)} seeds: {total / 1e12:,.0f} TFLOPs of training, about {duration(seconds)} at 30 % of"
        f" this machine's speed, and judging besides; {jobs} at a time"
    )
    return lines


def _work_off(left: list[Piece], out: Path, jobs: int, threads: int, title: str) -> None:
    """Run the pieces, each in a process of its own, so that its memory is its own."""
    spawned = multiprocessing.get_context("spawn")
    waiting, running = list(left), {}
    with tqdm(total=len(left), desc=title, unit="piece") as bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    piece = waiting.pop(0)
                    process = spawned.Process(target=work, args=(out, piece, threads))
                    process.start()
                    running[process] = piece
                for process in [p for p in running if not p.is_alive()]:
                    piece = running.pop(process)
                    if process.exitcode or not piece.file.exists():
                        raise ValueError(_failure(out, piece, process.exitcode))
                    bar.update()
                bar.set_postfix_str(", ".join(f"{p.label} {p.seed}{_at(out, p)}" for p in running.values()))
                time.sleep(0.2)
        finally:
            for process in running:
                process.terminate()  # a training saves first
            for process in running:
                process.join()


def _at(out: Path, piece: Piece) -> str:
    """How far a training is."""
    file = home(out, piece.label, piece.seed) / "metrics.jsonl"
    if piece.kind not in ("train", "net") or not file.exists():
        return ""
    with open(file, "rb") as opened:
        opened.seek(max(0, file.stat().st_size - 4096))
        lines = opened.read().decode("utf8", "ignore").splitlines()
    for line in reversed(lines):
        try:
            return f" at {json.loads(line)['step']}"
        except (ValueError, KeyError):
            continue
    return ""


def log_of(out: Path, piece: Piece) -> Path:
    """Where a piece of work tells what it does."""
    return out / "logs" / f"{piece.kind}_{piece.label}_{piece.seed}.txt"


def _failure(out: Path, piece: Piece, code: int | None) -> str:
    log = log_of(out, piece)
    end = log.read_text(encoding="utf8", errors="replace").splitlines()[-6:] if log.exists() else []
    return "\n  ".join([f"{piece.kind} of {piece.label}, seed {piece.seed}, ended with {code}; {log} ends with:", *end])


def work(out: Path, piece: Piece, threads: int) -> None:
    """Do one piece in this process, which tells of it in a log of its own."""
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    log = log_of(out, piece)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    do(out, piece)


def _leave_with(parent: int) -> None:
    """End this process when the one that started it is gone: the next would do the same piece beside it."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def do(out: Path, piece: Piece) -> None:
    """Do one piece, and write its file."""
    from mixmodal import appraise

    comparison = begin_again(out)
    piece.file.parent.mkdir(parents=True, exist_ok=True)
    if piece.kind in ("net", "train"):
        _train(comparison, out, piece)
    elif piece.kind == "tune":
        write_json(piece.file, appraise.tuned(comparison, home(out, piece.label, piece.seed)))
    else:
        tuned = out / "tuned" / f"{piece.label}.json"
        chosen = json.loads(tuned.read_text(encoding="utf8")) if tuned.exists() else {}
        show = piece.seed == comparison.seeds[0]
        write_json(piece.file, appraise.judged(comparison, home(out, piece.label, piece.seed), chosen, show))


def begin_again(out: Path) -> Comparison:
    """The comparison that lies in `out`."""
    return values.from_json(Comparison, json.loads((out / "comparison.json").read_text(encoding="utf8")), "comparison")


def recipe_of(comparison: Comparison, out: Path, label: str, seed: int) -> Recipe:
    """The recipe of one run, with its budget, its seed, and what it stands on trained."""
    plan = planned(comparison, out)
    if label == TWIN:
        other = next(iter(comparison.arms))
        words = home(out, other, seed) / "model" / "tokenizer.json"
        found, steps = _twin(comparison.arms[other]), plan["twin"]["steps"]
        found = replace(found, tokenizer=str(words))
    else:
        found, steps = comparison.arms[label], plan["arms"][label]["steps"]
        names = stands_on(found)
        found = standing(found, home(out, label, seed), _seeded(comparison, names, seed))
        if minutes := comparison.budget.get("minutes", 0):
            spent = sum(_told(out / f"seed_{seed}" / name)["seconds"] for name in names) / 60
            if spent >= minutes:
                raise ValueError(
                    f"{minutes:g} minutes are over before {label} begins: what it stands on took {spent:.1f}"
                )
            found = replace(found, minutes=minutes - spent)
    if "minutes" not in comparison.budget:
        found = replace(found, minutes=0.0, steps=steps)
    # judged when all are trained, and not in between
    judged_later = {"valid": {}, "prompts": (), "every": math.ceil(steps / comparison.points)}
    return replace(found, seed=seed, keep=comparison.points + 1, **judged_later)


def _seeded(comparison: Comparison, names: list[str], seed: int) -> dict[str, Recipe]:
    return {name: replace(comparison.nets.get(name) or known_recipe(name), seed=seed) for name in names}


def _told(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "trained.json").read_text(encoding="utf8"))


def _train(comparison: Comparison, out: Path, piece: Piece) -> None:
    from mixmodal.judge.costs import peak_memory
    from mixmodal.train import train

    folder = home(out, piece.label, piece.seed)
    if piece.kind == "net":
        chosen = _seeded(comparison, [piece.label], piece.seed)[piece.label]
    else:
        chosen = recipe_of(comparison, out, piece.label, piece.seed)
    kept = folder / "recipe.json"
    if kept.exists():
        chosen = values.from_json(Recipe, json.loads(kept.read_text(encoding="utf8")), "recipe")
    train(chosen, folder, resume=kept.exists())
    about = json.loads((folder / "model" / "config.json").read_text(encoding="utf8"))["about"]
    told = {"steps": about["steps"], "seconds": about["seconds"], "memory": peak_memory()}
    write_json(piece.file, told)
