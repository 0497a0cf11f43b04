"""Paired timing: what is compared runs in turns in one process, so that whatever else goes on hits all of it."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from mixmodal.compute import keep_freed_memory, measured_peak

MEASURED = 2  # runs after which memory has been as full as it gets: an optimizer has its state only then
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


class Cost(NamedTuple):
    """What a side's work takes at least: FLOPs of its products, and the memory that it adds at most."""

    flops: float
    bytes: int


def costs(work: Work, turns: int = 1) -> dict[str, Cost]:
    """The cost of each side's work, the mean over `turns` of it; to be asked before anything else has run.

    Limits:  memory is measured in a fork of this process, and on Linux alone; elsewhere it is 0.
    """
    added = {name: _added(run, max(turns, MEASURED)) for name, run in work.items()}
    return {name: Cost(_flops(run, turns), added[name]) for name, run in work.items()}


def _flops(run: Callable[[], object], turns: int) -> float:
    own = {
        torch.ops.mkldnn._linear_pointwise: lambda x, w, *_, out_shape=None, **__: 2 * _count(x) * out_shape[-1],
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    }
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        for _ in range(turns):
            run()
    return counter.get_total_flops() / turns


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _added(run: Callable[[], object], turns: int) -> int:
    if not os.path.exists("/proc/self/clear_refs"):
        return 0
    reading, writing = os.pipe()
    if not (child := os.fork()):
        status = 1
        try:
            with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
                file.write("5")  # what was most so far is forgotten
            before = _resident("VmRSS")
            for _ in range(turns):
                run()
            os.write(writing, str(_resident("VmHWM") - before).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as told:
        found = told.read()
    os.waitpid(child, 0)
    return int(found or 0)


def _resident(what: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(what))


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> float:
    """The median over the turns of how many times longer `slow` took than `fast`."""
    return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))


def show(title: str, seconds: dict[str, list[float]], ours: str, least: dict[str, Cost] | None = None) -> None:
    """Print a row for each work: median, the fastest and the slowest turn, and how many times longer than `ours`.

    Where `least` has the cost of what a work's name begins with, also how long its products would take at the peak of
    this machine, in bf16 where the name says so, what share of its time that is, and its memory.
    """
    print(f"\n{title}")
    told: dict[str, dict[str, float]] = {}
    for name, found in seconds.items():
        middle, times = statistics.median(found), ratio(seconds, name, ours)
        told[name] = {"seconds": middle, "times": times}
        line = f"  {name:44} {middle:8.3f} s  ({min(found):.3f} to {max(found):.3f})  {times:6.2f}"
        side = max((of for of in least or {} if name.startswith(of)), key=len, default="")
        if side:
            floor = least[side].flops / _peak("bf16" in name)
            told[name] |= {"flops": least[side].flops, "floor": floor, "peak": floor / middle}
            line += f"  floor {floor:.3f} s, {floor / middle:.0%} of the peak"
            if side == name and least[side].bytes:
                told[name]["bytes"] = least[side].bytes
                line += f", {least[side].bytes / 2**20:,.0f} MiB"
        print(line, flush=True)
    for file in _records:
        with file.open("a", encoding="utf8") as lines:
            lines.write(json.dumps({"title": title.strip(), "ours": ours, "turns": len(found), "work": told}) + "\n")


@cache
def _peak(narrow: bool) -> float:
    return max(measured_peak(torch.bfloat16 if narrow else torch.float32) for _ in range(3))


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
