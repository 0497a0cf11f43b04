"""Paired timing: what is compared runs in turns in one process, so that whatever else goes on hits all of it."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mixmodal.compute import keep_freed_memory

Work = dict[str, Callable[[], object]]
_records: list[Path] = []  # where `show` keeps what it prints, one line of JSON for each table


def paired(work: Work, rounds: int = 7, warm: int = 2) -> dict[str, list[float]]:
    """Seconds of each work in each of `rounds` turns, after `warm` turns that are not counted.

    Units:   with one thread, seconds of this process's own work, which others on its core lengthen less.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(warm + rounds):
        for name, run in work.items():
            began = clock()
            run()
            if turn >= warm:
                seconds[name].append(clock() - began)
    return seconds


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> float:
    """The median over the turns of how many times longer `slow` took than `fast`."""
    return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))


def show(title: str, seconds: dict[str, list[float]], ours: str) -> None:
    """Print a row for each work: median, the fastest and the slowest turn, and how many times longer than `ours`."""
    print(f"\n{title}")
    for name, found in seconds.items():
        spread = f"{min(found):.3f} to {max(found):.3f}"
        print(
            f"  {name:44} {statistics.median(found):8.3f} s  ({spread})  {ratio(seconds, name, ours):6.2f}", flush=True
        )
    told = {name: {"seconds": statistics.median(s), "times": ratio(seconds, name, ours)} for name, s in seconds.items()}
    for file in _records:
        with file.open("a", encoding="utf8") as lines:
            lines.write(json.dumps({"title": title.strip(), "ours": ours, "turns": len(found), "work": told}) + "\n")


def arguments(about: str | None, **numbers: int) -> argparse.Namespace:
    """What the command line says: `--threads`, `--rounds`, and a whole number for each of `numbers`."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    for name, value in {"threads": 1, "rounds": 7, **numbers}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--only", default="", help="run only the parts whose name contains this")
    parser.add_argument("--record", type=Path, help="a file to which each table is added, a line of JSON")
    given = parser.parse_args()
    _records[:] = [given.record] if given.record else []
    torch.set_num_threads(given.threads)
    keep_freed_memory()  # as our training does; in one process, all that is compared has the good of it
    torch.manual_seed(0)
    return given
