"""Documents laid out ahead of their step, by processes beside the one that trains.

What a document is depends on its draw and the progress alone, so who makes it, and how many do, changes nothing.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch

from mixmodal.data.mixing import Draw
from mixmodal.data.report import LeftOut, Report
from mixmodal.sequence import Sequence

DEEP = 3  # documents that a process is asked for at once, so that it never waits for the one that trains
PATIENCE = 5.0  # seconds in which a process has to end

Made = tuple[Sequence | None, dict[str, Report]]  # nothing for one that cannot be read; what sources say since
_own: dict[str, Any] = {}  # in a process that lays out: with what


class Ahead:
    """`count` processes that lay out what was ordered; each begins as a copy of this one, with its data and codecs.

    Where one of them ends (by a full memory), nothing is taken from them any more, and `ended` says so. Each has a
    pipe of its own whose far end it alone holds: so it is seen to end even amid what it sends, where a pool of
    concurrent.futures waits for the rest for ever.
    Limits:  only where a process can be copied (fork: Linux, macOS). Each keeps decoded pictures of its own.
    """

    def __init__(self, lay_out: Callable[[Draw, float], Sequence], sources: list, count: int) -> None:
        if "fork" not in multiprocessing.get_all_start_methods():
            raise ValueError(f"workers is {count}, but this system cannot copy a process: set workers=0")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not come through a copy
        self.sources, self.ended = {source.name: source for source in sources}, False
        self.processes: list[BaseProcess] = []
        self._orders: queue.SimpleQueue[tuple[Future, Draw, float] | None] = queue.SimpleQueue()
        self._ordered: dict[tuple[int, float], Future] = {}
        self._late: list[Future] = []  # nobody wants the document, but what its reader left out counts
        context, pipes = multiprocessing.get_context("fork"), []
        for _ in range(count):
            here, there = context.Pipe()
            pipes.append(here)
            given = (there, list(pipes), lay_out, sources, os.getpid())
            self.processes.append(context.Process(target=_work, args=given))
            self.processes[-1].start()
            there.close()
        # After the last copy was made: a copy has this thread alone.
        self._threads = [threading.Thread(target=self._serve, args=(pipe,), daemon=True) for pipe in pipes]
        for thread in self._threads:
            thread.start()
        atexit.register(self.close)

    def order(self, draw: Draw, progress: float) -> None:
        """Have the document of a draw laid out, unless it is already."""
        if (key := (draw.number, progress)) not in self._ordered and self._threads and not self.ended:
            self._ordered[key] = Future()
            self._orders.put((self._ordered[key], draw, progress))

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
        made = result.result()
        if made is None:
            return None
        for name, report in made[1].items():
            self.sources[name].report.take(report)
        return made

    def close(self) -> None:
        """End the processes, once they have what they were at."""
        atexit.unregister(self.close)
        self.forget()
        for _ in self._threads:
            self._orders.put(None)
        until = time.monotonic() + PATIENCE
        for thread, process in zip(self._threads, self.processes, strict=True):
            thread.join(max(0.0, until - time.monotonic()))
            process.join(max(0.1, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._threads = []

    def _serve(self, pipe: Connection) -> None:
        """Hand orders to one process and give out what it makes: None for each, once one of them has ended."""
        flying: deque[Future] = deque()
        opened = True
        while opened or flying:
            try:
                while opened and len(flying) < DEEP:
                    if (order := self._orders.get(block=not flying)) is None:
                        opened = False
                    elif order[0].set_running_or_notify_cancel():
                        flying.append(order[0])
                        pipe.send(order[1:])
            except (queue.Empty, OSError):  # no more orders yet; or it has ended, as what follows finds too
                pass
            if not flying:
                continue
            try:
                made = pipe.recv()
            except (EOFError, OSError):
                self.ended = True
                while flying:
                    flying.popleft().set_result(None)
            except Exception as error:  # what no process sends but an exception that cannot be made again
                flying.popleft().set_exception(error)
            else:
                result = flying.popleft()
                result.set_exception(made) if isinstance(made, Exception) else result.set_result(made)
        pipe.close()  # which ends the process


def _work(pipe: Connection, others: list[Connection], *given: Any) -> None:
    """Lay out what is asked for until nobody asks any more."""
    for other in others:
        other.close()  # else they would not be seen to end
    _begin(*given)
    while True:
        try:
            order = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            told = ForkingPickler.dumps(_make(*order))
        except Exception as error:
            error.add_note(f"in a process that lays out documents:\n{traceback.format_exc()}")
            told = _pickled(error)
        pipe.send_bytes(told)


def _pickled(error: Exception) -> memoryview:
    try:
        return ForkingPickler.dumps(error)
    except Exception:  # an exception may hold anything
        return ForkingPickler.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


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
