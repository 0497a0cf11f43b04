"""What keeps a training from being lost: a stop that is asked for, steps that are not finite, a full disk."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import replace
from types import FrameType
from typing import Any

import torch

from mixmodal.config import Recipe, to_json
from mixmodal.parallel import Ranks

WATCHING = ("every", "keep", "prompts", "guidance", "steps_sampled", "sample_size", "compile", "workers")
EXIT = {"Ctrl-C": 130, "SIGTERM": 143, "SIGHUP": 129}  # what a shell says of a process that ended so


class Stopped(KeyboardInterrupt):
    """A run was asked to stop, and did. `code` is what the process should end with."""

    def __init__(self, message: str, code: int = 130) -> None:
        super().__init__(message)
        self.code = code


class NotFinite(ValueError):
    """A run ended since its losses, gradients or weights are no numbers any more."""


class Stop:
    """While it is entered, Ctrl-C, SIGTERM and SIGHUP ask for a stop instead of killing; another Ctrl-C leaves at once.

    `asked` is what asked, nothing as long as nobody did. What the caller's caller ignores (nohup) stays ignored. Of
    several ranks one has it `told`.
    """

    def __init__(self, told: bool = True) -> None:
        self.asked, self.told = "", told
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._noticed)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def of_all(self, ranks: Ranks) -> str:
        """What asked any of the ranks: the same on each, so that all stop after one step."""
        known = ["", *EXIT]
        return known[max(number for (number,) in ranks.told([known.index(self.asked)]))]

    def _noticed(self, number: int, frame: FrameType | None) -> None:
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        if self.asked and name == "Ctrl-C":
            raise Stopped("left at once; the last checkpoint is kept, --resume goes on from it")
        if not self.asked:
            self.asked = name
            # Not print: a handler may interrupt one, and two at a time are an error.
            with contextlib.suppress(OSError):
                if not self.told:
                    return
                os.write(2, f"\n{name}: a checkpoint is saved after this step; Ctrl-C leaves at once\n".encode())


class Finite:
    """Counts the steps that were skipped since their loss or gradient was not finite: `row` at a stretch, `total`."""

    def __init__(self, row: int = 0, total: int = 0) -> None:
        self.row, self.total = row, total

    def count(self, losses: dict[str, float], taken: bool) -> dict[str, Any]:
        """What the metrics should say about the step: nothing if it was taken."""
        if taken:
            self.row = 0
            return {}
        self.row, self.total = self.row + 1, self.total + 1
        broken = [name for name, value in losses.items() if not math.isfinite(value)]
        return {"skipped": ", ".join(broken) or "gradient", "skipped_so_far": self.total}

    def state(self) -> dict[str, int]:
        """The counts, for JSON."""
        return {"row": self.row, "total": self.total}


def continued(given: Recipe, kept: Recipe) -> Recipe:
    """The recipe with which a run goes on: the one it has, watched and kept as the given one says.

    Raises:  ValueError if the given one trains anything else, or otherwise.
    """
    here, there = settings(given), settings(kept)
    unlike = differing(given, kept)
    if given.minutes > 0:  # the steps were set by the clock when the run began, and perhaps again on the way
        unlike = [key for key in unlike if key != "steps"]
    if given.start:  # the model is the one that training started from, but for what it is to learn
        learned = (".objective.", ".weight")
        unlike = [key for key in unlike if not key.startswith("model.") or any(part in key for part in learned)]
    if unlike:
        told = "; ".join(f"{key} is {here[key]!r}, but it began with {there.get(key)!r}" for key in unlike[:3])
        raise ValueError(
            f"a resumed run keeps its recipe ({told}): give the same, or train on in another folder with"
            " --set start=RUN and your settings"
        )
    return replace(kept, **{name: getattr(given, name) for name in WATCHING})


def differing(one: Recipe, other: Recipe) -> list[str]:
    """The dotted keys of what decides how weights move, where two recipes have another."""
    here, there = settings(one), settings(other)
    # What a run was completed with stands in `other` alone, and where a trained net lay is told by its options there.
    return [k for k in here if not k.endswith(".nets.from") and (k not in there or here[k] != there[k])]


def settings(recipe: Recipe) -> dict[str, Any]:
    """What decides how weights move, by dotted keys; a source is one entry."""
    out: dict[str, Any] = {}
    waiting = [(key, value) for key, value in to_json(recipe).items() if key not in (*WATCHING, "name", "start")]
    while waiting:
        key, value = waiting.pop(0)
        nested = isinstance(value, dict) and value and key not in ("sources", "valid")
        if nested:
            waiting += [(f"{key}.{name}", entry) for name, entry in value.items()]
        else:
            out[key] = value
    return out


def broken_weights(model: torch.nn.Module) -> list[str]:
    """The names of the parameters that hold a number that is not finite."""
    return [name for name, p in model.named_parameters() if not bool(torch.isfinite(p.detach()).all())]


def generators_state(rank: int = 0) -> dict[str, torch.Tensor]:
    """Torch's own generators: documents have theirs, but a part that somebody adds may draw from these.

    Those of other ranks than the first are called by their rank.
    """
    out = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        out |= {f"cuda.{n}": state for n, state in enumerate(torch.cuda.get_rng_state_all())}
    return {f"{rank}:{name}" if rank else name: state for name, state in out.items()}


def set_generators(states: Mapping[str, torch.Tensor], rank: int = 0) -> None:
    """Put back what `generators_state` gave on this rank, as far as there are such devices here."""
    for name, state in states.items():
        whose, _, device = name.rpartition(":")
        if int(whose or 0) != rank:
            continue
        kind, _, number = device.partition(".")
        if kind == "cpu":
            torch.set_rng_state(state)
        elif torch.cuda.is_available() and int(number) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, int(number))


def disk_trouble(error: OSError) -> str:
    """What a disk that refused to be written says, and what to do about it."""
    full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None), errno.EFBIG)
    return f"{error.strerror or error}: {'make room' if full else 'look after the disk and the rights to write'}"
