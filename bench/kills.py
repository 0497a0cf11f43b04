"""Kill a tiny training with kill -9 at many moments, resume each, and compare all that it leaves, to the bit.

    python bench/kills.py                       # 50 moments, spread over the whole run, drawn from seed 0
    python bench/kills.py --moments 200 --twice 0.5

A run is a process of its own, forked from this one so that torch is loaded once. It is compared with a run that nobody
stopped: weights, optimizers, averages, generators, the model, the samples, and every line of losses. Only what a clock
says may differ. Linux only.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import killed  # noqa: E402 - after the paths are set
from test_killed import left, lines  # noqa: E402

LONGEST = 300  # seconds of one process; a run that hangs is a failure, not a wait


def main() -> None:
    """Print one line for each moment, and how many of them ended as the run that nobody stopped."""
    told = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    told.add_argument("--moments", type=int, default=50)
    told.add_argument("--seed", type=int, default=0)
    told.add_argument("--steps", type=int, default=24)
    told.add_argument("--twice", type=float, default=0.2, help="share of runs whose resumption is killed as well")
    asked = told.parse_args()
    killed.CHOSEN = replace(killed.CHOSEN, steps=asked.steps, every=max(1, asked.steps // 6))
    rng = random.Random(asked.seed)
    home = Path(tempfile.mkdtemp(prefix="kills-"))
    began = time.perf_counter()
    try:
        same = _all(home, asked, rng)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(f"{same} of {asked.moments} runs ended as the one never stopped, {time.perf_counter() - began:.0f} s in all")
    raise SystemExit(same != asked.moments)


def _all(home: Path, asked: argparse.Namespace, rng: random.Random) -> int:
    # The first run learns the tokenizer, which all others take from its recipe; the second is as long as they are.
    if _run(home / "whole") or _run(home / "again"):
        raise SystemExit((home / "whole" / "said.txt").read_text("utf8"))
    began = time.perf_counter()
    if _run(home / "timed"):
        raise SystemExit((home / "timed" / "said.txt").read_text("utf8"))
    took = time.perf_counter() - began
    wanted = _what_is_left(home / "whole")
    if _what_is_left(home / "again") != wanted:
        raise SystemExit("two runs that nobody stopped differ already: nothing can be compared here")
    print(f"a run takes {took:.2f} s and {asked.steps} steps, with a checkpoint every {killed.CHOSEN.every}")
    same, found = 0, Counter()
    for number in range(asked.moments):
        seconds = took * (number + rng.random()) / asked.moments
        twice = rng.random() if rng.random() < asked.twice else None
        folder, at = home / f"{number:03}", ""
        while not at:  # a run that was done before its moment is run again, and killed a little earlier
            shutil.rmtree(folder, ignore_errors=True)
            at = _killed(folder, seconds)
            seconds *= 1.0 if at else 0.97
        if twice is not None:
            at += ", then " + (_killed(folder, twice * took) or "not killed")
        code = _run(folder)
        good = code == 0 and _what_is_left(folder) == wanted
        same += good
        found[at.split(",")[0]] += 1
        print(f"{number + 1:3}  killed after {seconds:5.2f} s, {at}: {'same' if good else 'DIFFERS'}", flush=True)
        if not good:
            print((folder / "said.txt").read_text("utf8"))
            _tell(wanted, _what_is_left(folder))
        shutil.rmtree(folder)
    print("; ".join(f"{count} {at}" for at, count in sorted(found.items())))
    return same


def _run(folder: Path, seconds: float = LONGEST) -> int:
    """How a run ends that is left alone."""
    return _ended(killed.forked(folder), seconds)


def _killed(folder: Path, seconds: float) -> str:
    """Where a run stood that was killed after so many seconds; nothing if it was done by then."""
    child = killed.forked(folder)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)  # one that is done still waits for us to look
    if killed.ended(child) != -signal.SIGKILL:
        return ""
    steps = len(lines_of(folder))
    homes = [path.name for path in (folder / "checkpoints").glob("step_*")]
    half = " while one was written" if any(name.endswith(".part") for name in homes) else ""
    whole = sum(not name.endswith(".part") for name in homes)
    return f"{'with' if whole else 'before'} a checkpoint{half}, {steps} lines of metrics"


def lines_of(folder: Path) -> list[bytes]:
    """The lines of metrics that a killed run left, whole or not."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def _ended(child: int, seconds: float) -> int:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    killed.ended(child)
    return 98


def _what_is_left(folder: Path) -> dict:
    try:
        return {**left(folder), "lines of metrics": lines(folder)}
    except (OSError, ValueError) as error:
        return {"unreadable": str(error)}


def _tell(wanted: dict, got: dict) -> None:
    for name in sorted(wanted.keys() | got.keys()):
        if wanted.get(name) != got.get(name):
            print(f"     {name}: {'missing' if name not in got else 'not wanted' if name not in wanted else 'differs'}")


if __name__ == "__main__":
    main()
