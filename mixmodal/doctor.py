"""What a machine, an installation and a run are like, and what is wrong with them, in lines for people."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch

from mixmodal import __version__
from mixmodal.checkpoint import checkpoints, find_model, home_step, lacks
from mixmodal.compute import fast_dtype, lacks_compiler, measured_peak
from mixmodal.config import Recipe, from_json
from mixmodal.curves import FOLDER, allowed, begins, curve_of, distances, processor, unlike
from mixmodal.data.named import data_folder
from mixmodal.optim import phase_share
from mixmodal.recipes import recipes

GIB = 2**30
NEEDED = ("torch", "numpy", "pillow", "einops", "safetensors", "tokenizers", "tyro", "tqdm")
WAITS = 0.1  # of the time of a step, for its data
EXTRAS = {"data": ("scikit-learn", "pyarrow", "datasets"), "hub": ("huggingface_hub",), "video": ("av",)}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `state` is "ok", "note" (worth knowing) or "WRONG" (something is to be done)."""

    state: str
    what: str
    told: str

    def __str__(self) -> str:
        return f"{self.state:5}  {self.what:12} {self.told}"


def machine(folder: Path = Path(".")) -> list[Finding]:
    """What the machine has; `folder` says which disk is meant."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    out = [Finding("ok", "processor", f"{processor()}, {cores} cores for this process, {threads} threads of torch")]
    if threads > cores:
        told = f"{threads} threads share {cores} cores, which is slow: set OMP_NUM_THREADS={cores}"
        out.append(Finding("WRONG", "threads", told))
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > 0.7 * cores:
        out.append(Finding("note", "load", f"{load:.1f} of {cores} cores are busy: speeds below are those of the rest"))
    out.append(_memory())
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    advice = "" if free > GIB else ": make room, a checkpoint that is not written is lost"
    out.append(Finding("ok" if free > GIB else "WRONG", "disk", f"{free / GIB:.1f} GiB free{advice}"))
    speeds = {name: measured_peak(getattr(torch, name)) / 1e9 for name in ("float32", "bfloat16")}
    taken = str(fast_dtype()).removeprefix("torch.")
    told = ", ".join(f"{name} {speed:.0f} GFLOP/s" for name, speed in speeds.items())
    out.append(Finding("ok", "speed", f"{told}; precision=auto takes {taken} on the processor"))
    if speeds[taken] < 0.8 * max(speeds.values()):
        out.append(Finding("note", "precision", f"{max(speeds, key=speeds.get)} is faster here: --set precision=..."))
    lacking = lacks_compiler()
    told = f"{lacking}: training is slower without, install it" if lacking else "what it takes is there"
    out.append(Finding("note" if lacking else "ok", "compiler", told))
    if not torch.cuda.is_available():
        return [*out, Finding("ok", "GPU", "none that torch can use: everything runs on the processor")]
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        free, whole = torch.cuda.mem_get_info(number)
        out.append(Finding("ok", "GPU", f"{about.name}, {free / GIB:.1f} of {whole / GIB:.1f} GiB free"))
    if lacking := lacks_compiler("cuda"):
        out.append(Finding("note", "GPU compiler", f"{lacking}: training is slower without"))
    return out


def _memory() -> Finding:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf8").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        whole, free = sizes["MemTotal"], sizes["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        return Finding("note", "memory", "this system does not say")
    state, advice = ("ok", "") if free > GIB else ("WRONG", ": end something else, or take fewer rows")
    return Finding(state, "memory", f"{free / GIB:.1f} of {whole / GIB:.1f} GiB free{advice}")


def installation() -> list[Finding]:
    """The versions of what is installed, and which extras are."""
    versions = {name: _version(name) for name in NEEDED}
    told = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
    out = [Finding("ok", "versions", f"mixmodal {__version__}, Python {platform.python_version()}, {told}")]
    if missing := [name for name, found in versions.items() if not found]:
        out.append(Finding("WRONG", "missing", f"{', '.join(missing)}: pip install {' '.join(missing)}"))
    for extra, names in EXTRAS.items():
        lacking = [name for name in names if not _version(name)]
        told = f"without {', '.join(lacking)}: pip install 'mixmodal[{extra}]'" if lacking else ", ".join(names)
        out.append(Finding("note" if lacking else "ok", f"extra {extra}", told))
    where, named = data_folder(), "MIXMODAL_DATA" in os.environ
    if where.is_dir():
        return [*out, Finding("ok", "named data", str(where))]
    told = f"{where} is not there" + ("" if named else " yet: `mixmodal data get` puts data into it")
    return [*out, Finding("WRONG" if named else "note", "named data", told)]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def of_run(folder: Path) -> list[Finding]:
    """Whether a run is whole, can go on, and how it went.

    Raises:  FileNotFoundError if no run is in the folder.
    """
    if not (folder / "recipe.json").exists():
        raise FileNotFoundError(f"no run is in {folder}: looked for recipe.json; name the folder that --out named")
    try:
        recipe = from_json(Recipe, json.loads((folder / "recipe.json").read_text(encoding="utf8")), "recipe")
    except ValueError as error:
        return [Finding("WRONG", "recipe", f"recipe.json cannot be read: {error}")]
    out = [Finding("ok", "recipe", f"{recipe.name}, seed {recipe.seed}, {recipe.steps:,} steps")]
    found, state = _checkpoints(folder, recipe.steps)
    out += found
    try:
        find_model(folder)
    except FileNotFoundError:
        out.append(Finding("note", "model", "there is none yet: it comes with the first checkpoint"))
    out += _metrics(folder, recipe)
    if state and (skipped := state["loader"].get("skipped")):
        told = ", ".join(f"{count} of {name}" for name, count in skipped.items())
        out.append(Finding("note", "left out", f"too long for a row of {recipe.length}: {told}; a larger `length`?"))
    if state and (broken := state["loader"].get("broken")):
        told = ", ".join(f"{count} of {name}" for name, count in broken.items())
        told += ": they prove broken only when they are decoded; mixmodal data check PATH names them"
        out.append(Finding("note", "left out", told))
    if (folder / "diagnosis.txt").exists():
        lines = (folder / "diagnosis.txt").read_text(encoding="utf8").split("\n")
        out.append(
            Finding("WRONG", "diagnosis", f"at {lines[0]} it ended itself: {'; '.join(filter(None, lines[1:]))}")
        )
    return out


def _checkpoints(folder: Path, steps: int) -> tuple[list[Finding], dict | None]:
    """What there is to go on from, and the state of the newest whole checkpoint."""
    out, state, size = [], None, 0
    for home in reversed(checkpoints(folder)):
        try:
            why = lacks(home)
        except ValueError as error:
            out.append(Finding("WRONG", "checkpoint", str(error)))
            continue
        if why:
            out.append(Finding("WRONG", "checkpoint", f"{home.name} is not whole ({why}): it is passed over"))
        elif state is None:
            state = json.loads((home / "state.json").read_text(encoding="utf8"))
            size = sum(file.stat().st_size for file in home.iterdir())
            told = f"step {home_step(home):,} is whole"
            if home_step(home) < steps:
                told += f": mixmodal train {folder} --resume goes on from there"
            out.append(Finding("ok", "checkpoint", told))
        else:
            out.append(Finding("ok", "checkpoint", f"step {home_step(home):,} is whole"))
    for left in sorted((folder / "checkpoints").glob("*.part")):
        out.append(Finding("note", "checkpoint", f"{left.name} was half written: it goes at the next one"))
    if not out:
        out.append(Finding("note", "checkpoint", "there is none yet: --resume begins anew"))
    free = shutil.disk_usage(folder).free
    if free < 2 * size and (state is None or state["step"] < steps):
        told = f"{free / GIB:.2f} GiB are free, the next one takes {size / GIB:.2f}: make room"
        out.append(Finding("WRONG", "disk", told))
    return out, state


def _metrics(folder: Path, recipe: Recipe) -> list[Finding]:
    """What the lines of metrics say."""
    entries, broken = [], 0
    if (folder / "metrics.jsonl").exists():
        for line in (folder / "metrics.jsonl").read_text(encoding="utf8").splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                broken += 1
    steps = [entry for entry in entries if "valid" not in entry]
    numbers = [entry["step"] for entry in steps]
    if not numbers:
        return [Finding("note", "metrics", "there are none yet")]
    out = []
    if numbers != list(range(1, len(numbers) + 1)) or broken:
        told = f"{len(set(range(1, numbers[-1] + 1)) - set(numbers))} steps lack a line,"
        told += f" {len(numbers) - len(set(numbers))} have two, {broken} lines are broken"
        out.append(Finding("WRONG", "metrics", f"{told}: the run was stopped hard; --resume mends what comes after"))
    ready = "finished" if numbers[-1] >= recipe.steps else "not finished"
    out.append(Finding("ok", "progress", f"step {numbers[-1]:,} of {recipe.steps:,}: {ready}"))
    if skipped := [entry for entry in steps if entry.get("skipped")]:
        told = f"{len(skipped)} steps were skipped, first {skipped[0]['step']:,}, last {skipped[-1]['step']:,}"
        few = len(skipped) <= 0.001 * len(steps) + 1
        advice = "" if few else ": lower optim.rate and optim.matrix_rate, or look at the data"
        names = ", ".join(sorted({entry["skipped"] for entry in skipped}))
        out.append(Finding("note" if few else "WRONG", "not finite", f"{told}, by {names}{advice}"))
    else:
        out.append(Finding("ok", "not finite", "no step was skipped"))
    waits = sorted(entry["waited"] for entry in steps if "waited" in entry)
    if waits and (share := waits[len(waits) // 2]) > WAITS:
        told = f"steps wait {share:.0%} of their time for it: --set workers=2 lays it out meanwhile, where that can be"
        out.append(Finding("note", "data", told))
    if scores := {e["step"]: e["score"] for e in entries if e.get("score") is not None}:
        best, last = min(scores, key=scores.get), max(scores)
        out.append(Finding("ok", "validation", f"best at step {best:,}: {scores[best]:.4f}; last {scores[last]:.4f}"))
    return [*out, by_curve(recipe, steps)]


def by_curve(recipe: Recipe, steps: list[dict], folder: Path = FOLDER) -> Finding:
    """Whether the first losses of a run are those that its recipe should have."""
    curve, known = curve_of(recipe.name, folder), recipes()
    if curve is None or recipe.name not in known:
        return Finding("note", "curve", f"none was recorded for {recipe.name}: mixmodal doctor --record NAME writes it")
    named = known[recipe.name]()
    if changed := unlike(curve, named):
        told = f"its recipe changed {', '.join(changed[:4])} since: mixmodal doctor --record {recipe.name}"
        return Finding("note", "curve", told)
    here, there = begins(recipe), begins(named)
    others = unlike(curve, recipe)  # and options that neither it nor the recipe spells; a codec is completed from data
    others += [key for key in here if key not in there and key not in curve["settings"] and ".codec." not in key]
    if others or recipe.start:
        told = "it starts from another model" if recipe.start else f"the run changes {', '.join(others[:4])}"
        return Finding("note", "curve", f"there is none to compare with: {told}")
    # A shorter run lets its rates fall sooner: until then its losses are the same.
    rates = [[phase_share(at, r.steps, r.optim) for at in range(len(steps))] for r in (recipe, named)]
    alike = sum(takewhile(bool, (one == other for one, other in zip(*rates, strict=True))))
    same, wanted = recipe.seed == curve["seed"], {"losses": curve.get("exact", curve["losses"])}
    held = min(alike, curve.get("steady", alike)) if same else alike  # behind these, what rounds otherwise shows
    away = distances(wanted, {name: [line.get(name) for line in steps[:held]] for name in curve["losses"]})
    if not away or alike < 10:
        few = f"{alike} steps at its rates" if alike < len(steps) else f"too early: {len(steps)} steps"
        return Finding("note", "curve", f"{few}, ten are compared at least")
    most = allowed(curve, held, same)
    told = ", ".join(f"{name} {share:+.1%}" for name, share in away.items())
    if all(abs(share) <= most for share in away.values()):
        return Finding("ok", "curve", f"the losses are where they should be: {told}")
    return Finding(
        "WRONG",
        "curve",
        f"the losses are not where they should be: {told}, {most:.0%} allowed; has the data changed?",
    )
