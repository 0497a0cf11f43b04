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
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from mixmodal.data.mixing import Draw
from mixmodal.data.report import LeftOut, Report
from mixmodal.sequence import Sequence

Made = tuple[Sequence | None, dict[str, Report]]  # nothing for one that cannot be read; what sources say since
_own: dict[str, Any] = {}  # in a process that lays out: with what


class Ahead:
    """`count` processes that lay out what was ordered; each begins as a copy of this one, with its data and codecs.

    Where one of them ends (by a full memory), nothing is taken from them any more, and `ended` says so.
    Limits:  only where a process can be copied (fork: Linux, macOS). Each keeps decoded pictures of its own.
    """

    def __init__(self, lay_out: Callable[[Draw, float], Sequence], sources: list, count: int) -> None:
        if "fork" not in multiprocessing.get_all_start_methods():
            raise ValueError(f"workers is {count}, but this system cannot copy a process: set workers=0")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not come through a copy
        self.sources, self.ended = {source.name: source for source in sources}, False
        given = (lay_out, sources, os.getpid())
        self._pool = ProcessPoolExecutor(count, multiprocessing.get_context("fork"), _begin, given)
        self._ordered: dict[tuple[int, float], Future] = {}
        self._late: list[Future] = []  # nobody wants the document, but what its reader left out counts

    def order(self, draw: Draw, progress: float) -> None:
        """Have the document of a draw laid out, unless it is already."""
        if (key := (draw.number, progress)) not in self._ordered and not self.ended:
            try:
                self._ordered[key] = self._pool.submit(_make, draw, progress)
            except BrokenProcessPool:
                self.ended = True

    def take(self, draw: Draw, progress: float) -> Sequence | None:
        """What was ordered, once it is there; None for what was not.

        Raises:  LeftOut if it cannot be read.
        """
        if (result := self._ordered.pop((draw.number, progress), None)) is None:
            return None
        if (made := self._told(result)) is None:
            return None
        if made[0] is None:
            raise LeftOut(f"draw {draw.number} cannot be read")
        return made[0]

    def forget(self) -> None:
        """What was ordered and not taken is not wanted any more."""
        self._late += [result for result in self._ordered.values() if not result.cancel()]
        self._ordered.clear()
        self.gather()

    def gather(self) -> None:
        """Count what the processes could not read of that which nobody took: they tell it once."""
        done = [result for result in self._late if result.done()]
        self._late = [result for result in self._late if result not in done]
        for result in done:
            self._told(result)

    def _told(self, result: Future) -> Made | None:
        try:
            sequence, told = result.result()
        except BrokenProcessPool:
            self.ended = True
            return None
        for name, report in told.items():
            self.sources[name].report.take(report)
        return sequence, told

    def close(self) -> None:
        """Let the processes end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _begin(lay_out: Callable[[Draw, float], Sequence], sources: list, parent: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a stop is for the one that trains; they leave with it
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    reports = [(source.name, report) for source in sources if (report := getattr(source, "report", None))]
    told = {(name, reason): report.count(reason) for name, report in reports for reason in report}
    _own.update(lay_out=lay_out, sources=sources, told=told)


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _make(draw: Draw, progress: float) -> Made:
    try:
        sequence = _own["lay_out"](draw, progress)
    except LeftOut:
        sequence = None
    return sequence, {s.name: news for s in _own["sources"] if (news := _news(s.name, getattr(s, "report", None)))}


def _news(name: str, report: Report | None) -> Report:
    """What a report holds since it was last asked for."""
    found = Report()
    for reason in report or ():
        told = _own["told"].get((name, reason), 0)
        for number in range(told, report.count(reason)):
            names = report[reason]
            found.add(reason, names[number] if number < len(names) else names[-1])
        _own["told"][name, reason] = report.count(reason)
    return found
