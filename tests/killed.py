"""Trains in processes of its own and kills them, for test_killed.py: `python killed.py FOLDER` leaves their folders.

Each is a fork of this process, which itself computes nothing: so torch is loaded once for all of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch._dynamo  # which optimizers load, and which takes seconds
from tiny import RECIPE, hasten, unmeasured

from mixmodal import checkpoint, cli
from mixmodal import train as training
from mixmodal.config import to_json
from mixmodal.track import Track

torch.set_num_threads(1)
CHOSEN = replace(RECIPE, steps=8, every=3, optim=replace(RECIPE.optim, average=0.1))
FIRST, EACH = 2, 9  # files moved into place before the first step, and at each checkpoint


def forked(folder: Path, meddle: Callable[[], None] = lambda: None) -> int:
    """The process that trains in `folder`, from its newest checkpoint if there is one."""
    folder.mkdir(exist_ok=True)
    if not (folder / "recipe.json").exists():
        known = folder.parent / "whole" / "recipe.json"  # with its tokenizer, which takes time to learn
        told = known.read_text("utf8") if known.exists() else json.dumps(to_json(CHOSEN))
        (folder / "recipe.json").write_text(told, "utf8")
    sys.stdout.flush()
    if child := os.fork():
        return child
    out = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = 0
    try:
        patch = pytest.MonkeyPatch()
        hasten(patch)
        unmeasured(patch)
        meddle()
        cli.main(["train", str(folder), "--resume"])
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    os._exit(code)


def ended(child: int) -> int:
    """How a process ended: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    """End as the power plug ends things."""
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(owner: object, name: str, number: int, half: Callable[..., None] | None = None) -> Callable[[], None]:
    """Die at the `number`th call of a function, before it does anything or once `half` was done."""

    def meddle() -> None:
        whole, calls = getattr(owner, name), []

        def counted(*arguments, **options):
            calls.append(1)
            if len(calls) == number:
                if half:
                    half(*arguments, **options)
                die()
            return whole(*arguments, **options)

        setattr(owner, name, counted)

    return meddle


def half_a_line(track: Track, *_: object, **__: object) -> None:
    """Write as much of the line as a kill may leave."""
    with open(track.file, "a", encoding="utf8") as file:
        file.write(track._waiting[:9])


MOMENTS = {
    "before the first checkpoint": at_call(training, "train_step", 2),
    "two steps after a checkpoint": at_call(training, "train_step", 6),
    "in the middle of a line of the metrics": at_call(Track, "_append", 8, half_a_line),
    "while the model is saved": at_call(os, "replace", FIRST + EACH + 2),
    "while a checkpoint is written": at_call(os, "replace", FIRST + EACH + 6),
    "before a checkpoint counts": at_call(os, "replace", FIRST + 2 * EACH),
    "between a checkpoint and its validation": at_call(training, "validate", 2),
    "before the line of validation": at_call(Track, "validation", 2),
    "after the line of validation": at_call(training, "prune", 2),
    "before the very last validation": at_call(Track, "validation", 3),
}


def slowly() -> None:
    """Make steps so slow, once there are four, that a stop comes before the last."""
    whole, calls = training.train_step, []

    def slow(*arguments):
        calls.append(1)
        time.sleep(1.0 if len(calls) > 4 else 0.0)
        return whole(*arguments)

    training.train_step = slow


def stuck() -> None:
    """Make the third step one that lasts for ever."""
    at_call(training, "train_step", 3, lambda *_: time.sleep(60))()


def wait_for(folder: Path, file: str, found: str, count: int = 1) -> None:
    """Wait until a file holds a text so many times."""
    for _ in range(2000):
        if (folder / file).exists() and (folder / file).read_text("utf8").count(found) >= count:
            return
        time.sleep(0.01)
    raise TimeoutError(f"{found!r} never stood {count} times in {folder / file}")


def main(home: Path) -> None:
    """Leave the folders `whole`, one for each moment, and how each process ended in ended.json."""
    codes: dict[str, list[int]] = {}
    began = time.perf_counter()
    codes["whole"] = [ended(forked(home / "whole"))]
    took = time.perf_counter() - began
    for moment, meddle in MOMENTS.items():
        folder = home / moment
        codes[moment] = [ended(forked(folder, meddle)), ended(forked(folder))]
    folder = home / "again and again"
    codes[folder.name] = []
    for share in (0.4, 0.6, 0.8):  # at whatever it does just then
        child = forked(folder)
        time.sleep(share * took)
        os.kill(child, signal.SIGKILL)
        codes[folder.name].append(ended(child))
    codes[folder.name].append(ended(forked(folder)))
    for number in (signal.SIGTERM, signal.SIGINT):
        folder = home / number.name
        child = forked(folder, slowly)
        wait_for(folder, "metrics.jsonl", '"seconds"', 4)
        os.kill(child, number)
        codes[folder.name] = [ended(child)]
        kept = [path.name for path in checkpoint.checkpoints(folder)]
        codes[folder.name] += [int(kept[-1][-1]), ended(forked(folder))]
    folder = home / "SIGINT twice"
    child = forked(folder, stuck)
    wait_for(folder, "metrics.jsonl", '"seconds"', 2)
    began = time.perf_counter()
    os.kill(child, signal.SIGINT)
    wait_for(folder, "said.txt", "a checkpoint is saved after this step")
    os.kill(child, signal.SIGINT)
    codes[folder.name] = [ended(child), int(time.perf_counter() - began)]
    (home / "ended.json").write_text(json.dumps(codes), "utf8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
