"""A comparison killed at random moments, and one left alone: do they end with the same result?

    python bench/compare_killed.py [--kills 6] [--out runs/compare_killed]

Both are the miniature of `mixmodal compare designs --smoke`; times and memory, which are of the moment, are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

OF_THE_MOMENT = ("seconds", "seconds_of_nets", "seconds_of_seeds", "memory")


def untimed(result: Any) -> Any:
    """A result without what depends on the moment."""
    if isinstance(result, dict):
        return {name: untimed(value) for name, value in result.items() if name not in OF_THE_MOMENT}
    return [untimed(value) for value in result] if isinstance(result, list) else result


def started(out: Path) -> subprocess.Popen:
    """The comparison as a user starts it, in a group of its own."""
    command = [sys.executable, "-m", "mixmodal", "compare", "designs", "--smoke", "--out", str(out)]
    with open(out.with_suffix(".log"), "a", encoding="utf8") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def main() -> None:
    """Run both, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("runs/compare_killed"))
    chosen = parser.parse_args()
    shutil.rmtree(chosen.out, ignore_errors=True)
    chosen.out.mkdir(parents=True)
    whole, killed, rng = chosen.out / "whole", chosen.out / "killed", random.Random(0)
    began = time.perf_counter()
    if started(whole).wait():
        raise SystemExit(f"it failed: {whole.with_suffix('.log')}")
    took = time.perf_counter() - began
    print(f"left alone: {took:.0f} s")
    for number in range(chosen.kills):
        process = started(killed)
        time.sleep(rng.uniform(0.1, 0.5) * took)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            print(f"kill {number + 1}: {len(list(killed.rglob('*.json')))} files")
        process.wait()
    if started(killed).wait():
        raise SystemExit(f"it failed: {killed.with_suffix('.log')}")
    one, two = (untimed(json.loads((at / "result.json").read_text(encoding="utf8"))) for at in (whole, killed))
    print("the same" if one == two else "NOT the same")
    raise SystemExit(one != two)


if __name__ == "__main__":
    main()
