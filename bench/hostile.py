"""Read 1,000 damaged, odd and hostile files through `mixmodal data check` and through the readers of a training.

    python bench/hostile.py                     # 1,000 files from seed 0; with pyarrow, tables too
    python bench/hostile.py --files 300 --seed 1 --keep hostile

Each set of files is read in a process of its own. It counts as read if that process ends by itself in time and under
the limit of memory, if everything in the set is either good or left out with a reason, as many as there are, and if a
round of training gives each good one once. A set in which nothing is good must be refused with a line that says why.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import hostile  # noqa: E402 - after the paths are set

MIB = 2**20


def main() -> None:
    """Print what is wrong, and how many files of each kind were read as they should be."""
    told = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    told.add_argument("--files", type=int, default=1000)
    told.add_argument("--seed", type=int, default=0)
    told.add_argument("--memory", type=int, default=1024, help="MiB that a process may hold at its peak")
    told.add_argument("--seconds", type=int, default=120, help="of a processor that a set may take")
    told.add_argument("--keep", type=Path, help="folder in which to leave the files")
    asked = told.parse_args()
    home = Path(tempfile.mkdtemp(prefix="hostile-")) if asked.keep is None else asked.keep
    home.mkdir(parents=True, exist_ok=True)
    tables = find_spec("pyarrow") is not None
    made, _, _ = _apart(lambda: _told(hostile.make(home, asked.files, asked.seed, heavy=True, tables=tables)), 600)
    cases = [hostile.Case(Path(path), *rest) for path, *rest in json.loads(made)]
    files, fine, good, left_out = Counter(), Counter(), 0, 0
    most, longest, began = (0, ""), (0.0, ""), time.perf_counter()
    for case in cases:
        found, took, memory = _read(case, asked.seconds)
        most, longest = max(most, (memory, case.path.name)), max(longest, (took, case.path.name))
        if not found.startswith("ok"):
            print(f"{case.about} {case.path.name}: {found}")
        elif memory > asked.memory or took > asked.seconds:
            print(f"{case.about} {case.path.name}: {memory} MiB at its peak, {took:.0f} s")
        else:
            fine[case.about] += case.files
            good, left_out = good + int(found.split()[1]), left_out + int(found.split()[2])
        files[case.about] += case.files
    for about, count in files.items():
        print(f"{about:28} {fine[about]:4} of {count:4} files")
    print(f"{good} things good, {left_out} left out with a reason; longest {longest[0]:.1f} s ({longest[1]})")
    print(f"most memory {most[0]} MiB ({most[1]}), the limit is {asked.memory}, {_memory_now()} of it before any file")
    total = sum(files.values())
    print(f"{sum(fine.values())} of {total} files read as they should be, {time.perf_counter() - began:.0f} s in all")
    if asked.keep is None:
        shutil.rmtree(home)
    raise SystemExit(sum(fine.values()) != total)


def _told(cases: list[hostile.Case]) -> bytes:
    return json.dumps([[str(case.path), case.files, case.items, case.about] for case in cases]).encode()


def _read(case: hostile.Case, seconds: int) -> tuple[str, float, int]:
    """What a process of its own says of a case: "ok", good and left out, or what is wrong; seconds, MiB at its peak."""

    def look() -> bytes:
        good, left_out, wrong = hostile.looked_at(case)
        return (wrong or f"ok {good} {left_out}").encode("utf8", "backslashreplace")

    said, took, memory = _apart(look, 10 * seconds)  # a busy machine takes longer, but not without end
    return said.decode(), took, memory


def _apart(work: Callable[[], bytes], seconds: int) -> tuple[bytes, float, int]:
    """What a function returns in a process of its own, or how that ended; its processor seconds, MiB at its peak."""
    here, there = os.pipe()
    child = os.fork()
    if not child:
        os.close(here)
        signal.alarm(seconds)
        try:
            said = work()
        except BaseException:
            said = f"a crash\n{traceback.format_exc()}".encode()
        with open(there, "wb") as stream:
            stream.write(said)
        os._exit(0)
    os.close(there)
    with open(here, "rb") as stream:
        said = stream.read()
    _, status, used = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        said = f"not done after {seconds} s" if number == signal.SIGALRM else f"killed by signal {number}"
        said = said.encode()
    return said, used.ru_utime + used.ru_stime, used.ru_maxrss // 1024


def _memory_now() -> str:
    with open("/proc/self/status", encoding="utf8") as stream:
        line = next(line for line in stream if line.startswith("VmRSS"))
    return f"{int(line.split()[1]) // 1024} MiB"


if __name__ == "__main__":
    main()
