"""Documents laid out ahead of their step, by processes beside the one that trains.

What a document is depends on its draw and the progress alone, so who makes it, and how many do, changes nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.pool import AsyncResult
from typing import Any

import torch

from mixmodal.data.mixing import Draw
from mixmodal.data.report import LeftOut, Report
from mixmodal.sequence import Sequence

Made = tuple[Sequence | None, dict[str, Report]]  # nothing for one that cannot be read; what sources say since
_own: dict[str, Any] = {}  # in a process that lays out: with what


class Ahead:
    """`count` processes that lay out what was ordered; each begins as a copy of this one, with its data and codecs.

    Limits:  only where a process can be copied (fork: Linux, macOS). What it makes by a net is made on the CPU.
    """

    def __init__(self, lay_out: Callable[[Draw, float], Sequence], sources: list, count: int) -> None:
        if "fork" not in multiprocessing.get_all_start_methods():
            raise ValueError(f"workers is {count}, but this system cannot copy a process: set workers=0")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not come through a copy
        self.sources = {source.name: source for source in sources}
        context = multiprocessing.get_context("fork")
        self.pool = context.Pool(count, _begin, (lay_out, sources, os.getpid()))
        self._ordered: dict[tuple[int, float], AsyncResult] = {}

    def order(self, draw: Draw, progress: float) -> None:
        """Have the document of a draw laid out, unless it is already."""
        if (key := (draw.number, progress)) not in self._ordered:
            self._ordered[key] = self.pool.apply_async(_make, (draw, progress))

    def take(self, draw: Draw, progress: float) -> Sequence | None:
        """What was ordered, once it is there; None for what was not.

        Raises:  LeftOut if it cannot be read.
        """
        if (result := self._ordered.pop((draw.number, progress), None)) is None:
            return None
        sequence, told = result.get()
        for name, report in told.items():
            self.sources[name].report.take(report)
        if sequence is None:
            raise LeftOut(f"draw {draw.number} cannot be read")
        return sequence

    def forget(self) -> None:
        """What was ordered and not taken is not wanted any more."""
        self._ordered.clear()

    def close(self) -> None:
        """End the processes."""
        self.pool.terminate()


def _begin(lay_out: Callable[[Draw, float], Sequence], sources: list, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that trains, and so is a stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    _own.update(lay_out=lay_out, sources=sources, told={})


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _make(draw: Draw, progress: float) -> Made:
    try:
        sequence = _own["lay_out"](draw, progress)
    except LeftOut:
        sequence = None
    told = {}
    for source in _own["sources"]:
        report = getattr(source, "report", None)
        if report and report.total() != _own["told"].get(source.name, 0):
            _own["told"][source.name] = report.total()
            told[source.name] = report
    return sequence, told
