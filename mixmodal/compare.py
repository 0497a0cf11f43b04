"""Designs compared: every arm with every seed, trained on one budget, tuned, judged; each piece once, and resumable.

A comparison is a folder. Each piece of work leaves one file there, and is passed over where that file is: whatever
stops it, the same command goes on.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from mixmodal import appraise
from mixmodal import config as values
from mixmodal.chain import standing, stands_on
from mixmodal.checkpoint import write_json
from mixmodal.compute import fast_dtype
from mixmodal.config import Recipe
from mixmodal.curves import processor
from mixmodal.guard import EXIT, NotFinite, Stopped
from mixmodal.judge.costs import code, peak_memory
from mixmodal.plan import (
    TRAINED,
    Comparison,
    begin,
    comparison_in,
    estimate,
    home,
    net_of,
    paid,
    planned,
    twins_of,
)
from mixmodal.train import read_metrics, train

STOPS = 20  # checkpoints besides, of where it was stopped
EVERY = 5.0  # seconds, after which it is told again how far each piece is


@dataclass(frozen=True)
class Piece:
    """One piece of work, the file that says it is done, and those that must be there before it."""

    kind: str
    label: str
    seed: int
    file: Path
    needs: tuple[Path, ...] = ()


def run(comparison: Comparison, out: Path, after: Callable[[], None], jobs: int = 0) -> None:
    """All that is still to do, `jobs` pieces at a time, each with its share of the cores.

    One seed comes before the next, and `after` is called when all of one is judged: who stops early has fewer seeds,
    and not half of all.
    Raises:  ValueError that says which piece failed, with the end of its log; or if another process is at it.
    """
    cores = torch.get_num_threads()
    jobs = min(
        jobs or (1 if torch.cuda.is_available() else cores), max(1, len(comparison.arms) * len(comparison.seeds))
    )
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        comparison = begin(comparison, out)
        plan = planned(comparison, out)
        for line in estimate(comparison, plan, jobs):
            print(line)
        with _stopping():
            _work_off(pieces(comparison, out), out, jobs, max(1, cores // jobs), after)
        after()


@contextmanager
def _stopping() -> Iterator[None]:
    """SIGTERM and SIGHUP stop as Ctrl-C does: the trainings are told, and save before they leave."""

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        raise Stopped(f"stopped by {name}; trainings were saved, the same command goes on", EXIT[name])

    before = {}
    if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """No other process compares in this folder meanwhile, where the system can tell.

    Raises:  ValueError if one does.
    """
    with open(out / "lock", "w", encoding="utf8") as file:
        with suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(f"another process compares in {out}: let it end, or take another --out") from None
        yield


def pieces(comparison: Comparison, out: Path) -> list[Piece]:
    """All pieces in the order in which they are wanted; what is tuned is tuned with the first seed."""
    first = comparison.seeds[0]
    tuned = {label: out / "tuned" / f"{label}.json" for label in comparison.arms}
    nets = list(dict.fromkeys(name for arm in comparison.arms.values() for name in stands_on(arm)))
    twins = planned(comparison, out)["twins"]
    found = []
    for seed in comparison.seeds:
        trained = {name: home(out, name, seed) / TRAINED for name in (*nets, *comparison.arms, *twins)}
        found += [Piece("net", name, seed, trained[name]) for name in nets]
        for label, arm in comparison.arms.items():
            found.append(Piece("train", label, seed, trained[label], tuple(trained[name] for name in stands_on(arm))))
        if seed == first:
            found += [Piece("tune", label, seed, file, (trained[label],)) for label, file in tuned.items()]
        for name, twin in twins.items():  # it writes with the words of that arm
            found.append(Piece("train", name, seed, trained[name], (trained[twin["of"]],)))
        for label in (*comparison.arms, *twins, *nets):
            of = twins.get(label, {}).get("of", label)
            needs = (trained[label], *([tuned[of]] if of in tuned else []))
            found.append(Piece("judge", label, seed, home(out, label, seed) / "scores.json", needs))
    return found


def _work_off(every: list[Piece], out: Path, jobs: int, threads: int, after: Callable[[], None]) -> None:
    """Run the pieces that are not done, each in a process of its own, so that its memory is its own."""
    spawned = _processes()
    waiting, running, shown = [piece for piece in every if not piece.file.exists()], {}, 0.0
    with tqdm(total=len(every), initial=len(every) - len(waiting), unit="piece") as bar:
        try:
            while waiting or running:
                ready = [piece for piece in waiting if all(need.exists() for need in piece.needs)]
                for piece in ready[: jobs - len(running)]:
                    waiting.remove(piece)
                    process = spawned.Process(target=work, args=(out, piece, threads, os.getpid()))
                    process.start()
                    running[process] = piece
                for process in [p for p in running if not p.is_alive()]:
                    piece = running.pop(process)
                    if process.exitcode or not piece.file.exists():
                        raise ValueError(_failure(out, piece, process.exitcode))
                    bar.update()
                    if piece.kind == "judge" and not any(p.seed == piece.seed for p in (*waiting, *running.values())):
                        after()
                if time.monotonic() > shown + EVERY:
                    now = (f"{p.kind} {p.label} {p.seed}{_at(out, p)}" for p in running.values())
                    bar.set_postfix_str(", ".join(now))
                    shown = time.monotonic()
                time.sleep(0.2)
        finally:
            for process in running:
                process.terminate()  # a training saves first
            for process in running:
                process.join()


def _processes() -> Any:
    """How pieces get processes of their own: on Linux from one that has imported torch already, which takes seconds."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


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


def work(out: Path, piece: Piece, threads: int, parent: int) -> None:
    """Do one piece in this process, which tells of it in a log of its own, and ends with its parent."""
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(threads)
    log = log_of(out, piece)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    do(out, piece)


def _leave_with(parent: int) -> None:
    """End this process when the one that started it is gone: the next would do the same piece beside it."""
    while _lives(parent):
        time.sleep(0.2)
    os._exit(1)


def _lives(process: int) -> bool:
    """Whether a process of that number runs; one that has ended and that nobody asked about does not."""
    try:
        os.kill(process, 0)
        told = Path(f"/proc/{process}/stat")
        return (
            not told.exists() or told.read_text(encoding="utf8", errors="replace").rpartition(")")[2].split()[0] != "Z"
        )
    except OSError:
        return False


def do(out: Path, piece: Piece) -> None:
    """Do one piece, and write its file. Of a training that diverged that is told, and nothing else is asked."""
    comparison = comparison_in(out)
    piece.file.parent.mkdir(parents=True, exist_ok=True)
    lost = _lost(piece)
    if piece.kind in ("net", "train"):
        _train(comparison, out, piece, lost)
    elif lost:
        write_json(piece.file, lost | {"tuned": {}, "scores": {}, **made()})
    elif piece.kind == "tune":
        write_json(piece.file, appraise.tuned(comparison, home(out, piece.label, piece.seed)) | made())
    else:
        folder, show = home(out, piece.label, piece.seed), piece.seed == comparison.seeds[0]
        told = appraise.judged(comparison, folder, _chosen(comparison, out, piece), show)
        write_json(piece.file, told | made())


def _chosen(comparison: Comparison, out: Path, piece: Piece) -> dict[str, Any]:
    """What was tuned for the arm of a piece, with the first seed; where that diverged, with its own.

    A twin is judged by the weights, the last or averaged ones, that its arm took.
    """
    twin = planned(comparison, out)["twins"].get(piece.label, {})
    file = out / "tuned" / f"{twin.get('of', piece.label)}.json"
    chosen = json.loads(file.read_text(encoding="utf8")) if file.exists() else {}
    if "diverged" in chosen:
        chosen = appraise.tuned(comparison, home(out, piece.label, piece.seed)) if not twin else {}
    wanted = ("weights",) if twin else ("guidance", "temperature", "weights", "tried")
    return {name: chosen[name] for name in wanted if name in chosen}


def recipe_of(comparison: Comparison, out: Path, label: str, seed: int) -> Recipe:
    """The recipe of one run, with its budget, its seed, and what it stands on trained."""
    plan = planned(comparison, out)
    if label in plan["twins"]:
        own = plan["twins"][label]
        other, found = own["of"], twins_of(comparison)[own["of"]]
        arm, told = plan["arms"][other], _told(home(out, other, seed))
        steps = max(1, round(told["steps"] * own["steps"] / arm["steps"]))
        warmup = min(found.optim.warmup, steps // 5)
        words = str(home(out, other, seed) / "model" / "tokenizer.json")
        found = replace(found, tokenizer=words, minutes=0.0, optim=replace(found.optim, warmup=warmup))
        found = standing(found, home(out, label, seed), _seeded(comparison, plan, stands_on(found), seed))
    else:
        own, found = plan["arms"][label], comparison.arms[label]
        steps, names = own["steps"], stands_on(found)
        found = standing(found, home(out, label, seed), _seeded(comparison, plan, names, seed))
        if minutes := comparison.budget.get("minutes", 0):
            spent = sum(_told(home(out, name, seed))["seconds"] for name in paid(comparison, label)) / 60
            if spent >= minutes:
                raise ValueError(
                    f"{minutes:g} minutes are over before {label} begins: what it stands on took {spent:.1f}"
                )
            found = replace(found, minutes=minutes - spent)
    timed = found.minutes > 0 and "minutes" in comparison.budget
    if not timed:
        found = replace(found, minutes=0.0, steps=steps)
    shape = {"rows": own["rows"], "length": own["length"]}
    # judged when all are trained, and not in between
    every = 100 * steps if timed else math.ceil(steps / comparison.points)  # by the clock nobody knows the steps
    kept = comparison.points + STOPS
    return replace(found, seed=seed, keep=kept, valid={}, prompts=(), every=every, **shape)


def _seeded(comparison: Comparison, plan: dict[str, Any], names: list[str], seed: int) -> dict[str, Recipe]:
    shapes = {name: {key: plan["nets"][name][key] for key in ("rows", "length")} for name in names}
    return {name: replace(net_of(comparison, name), seed=seed, **shapes[name]) for name in names}


def made() -> dict[str, str]:
    """What a piece of work ran with: the digest of the code, and the machine."""
    return {"code": code(), "machine": machine()}


def machine() -> str:
    """What this process runs on."""
    kind = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    dtype = str(fast_dtype()).removeprefix("torch.")
    return f"{kind}, {torch.get_num_threads()} of {os.cpu_count()} cores, {dtype}, torch {torch.__version__}"


def _told(folder: Path) -> dict[str, Any]:
    return json.loads((folder / TRAINED).read_text(encoding="utf8"))


def _lost(piece: Piece) -> dict[str, str]:
    """Why there is no model to go on with: a training diverged, this one or one that it stands on; else nothing."""
    for file in piece.needs:
        if file.name == TRAINED and (why := json.loads(file.read_text(encoding="utf8")).get("diverged")):
            return {"diverged": why if file.parent.name == piece.label else f"{file.parent.name}: {why}"}
    return {}


def _train(comparison: Comparison, out: Path, piece: Piece, lost: dict[str, str]) -> None:
    folder = home(out, piece.label, piece.seed)
    if lost:
        write_json(piece.file, lost | {"steps": 0, "seconds": 0.0, "memory": 0, **made()})
        return
    if piece.kind == "net":
        chosen = _seeded(comparison, planned(comparison, out), [piece.label], piece.seed)[piece.label]
    else:
        chosen = recipe_of(comparison, out, piece.label, piece.seed)
    kept = folder / "recipe.json"
    if kept.exists():
        chosen = values.from_json(Recipe, json.loads(kept.read_text(encoding="utf8")), "recipe")
    try:
        train(chosen, folder, resume=kept.exists())
        about = json.loads((folder / "model" / "config.json").read_text(encoding="utf8"))["about"]
        told = {"steps": about["steps"], "seconds": about["seconds"]}
    except NotFinite as error:  # a finding, and no reason to lose the others
        last = [line for line in read_metrics(folder) if "seconds" in line][-1]
        told = {"steps": last["step"], "seconds": last["seconds"], "diverged": str(error)}
    write_json(piece.file, told | {"memory": peak_memory(), **made()})
