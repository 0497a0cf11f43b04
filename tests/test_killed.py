"""Trainings that are killed or stopped, in processes of their own: gone on with, they are as if never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TIMED = ("seconds", "tokens_per_s", "share_of_peak", "waited")

if sys.platform != "linux":
    pytest.skip("processes with torch in them are forked, which only Linux does well", allow_module_level=True)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of all those runs, and how their processes ended."""
    home = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    done = subprocess.run(
        [sys.executable, str(HERE / "killed.py"), str(home)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return home, json.loads((home / "ended.json").read_text("utf8"))


def lines(folder: Path) -> list[dict]:
    """The lines of a run's metrics in their order, without what a clock says."""
    said = (folder / "metrics.jsonl").read_text("utf8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMED} for line in said]


def left(folder: Path) -> dict[str, bytes | dict]:
    """Every file that a run leaves but for the clock's and what was said, by its name."""
    out = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or name in ("metrics.jsonl", "said.txt"):
            continue
        out[name] = path.read_bytes()
        if path.suffix == ".json":
            out[name] = json.loads(out[name])
            for told in (out[name], out[name].get("about", {})):
                told.pop("seconds", None)
    return out


MOMENTS = [
    "before the first checkpoint",
    "two steps after a checkpoint",
    "in the middle of a line of the metrics",
    "while the model is saved",
    "while a checkpoint is written",
    "before a checkpoint counts",
    "between a checkpoint and its validation",
    "before the line of validation",
    "after the line of validation",
    "before the very last validation",
]


def same(home: Path, name: str) -> None:
    whole, other = left(home / "whole"), left(home / name)
    assert whole.keys() == other.keys(), name
    assert [key for key in whole if whole[key] != other[key]] == [], name
    assert lines(home / "whole") == lines(home / name), name


def test_a_run_that_is_left_alone_has_a_line_for_each_step_and_each_validation(killed):
    home, codes = killed
    assert codes["whole"] == [0], (home / "whole/said.txt").read_text("utf8")
    said = [(line["step"], "valid" in line) for line in lines(home / "whole")]
    steps = [(step, False) for step in range(1, 9)]
    assert said == steps[:3] + [(3, True)] + steps[3:6] + [(6, True)] + steps[6:] + [(8, True)]
    for name in ("weights", "optimizer", "average", "generators"):
        assert f"checkpoints/step_00000008/{name}.safetensors" in left(home / "whole")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_and_resumed_is_one_never_stopped_to_the_bit(killed, moment):
    home, codes = killed
    assert codes[moment] == [-signal.SIGKILL, 0], (home / moment / "said.txt").read_text("utf8")
    same(home, moment)


def test_a_run_that_is_killed_again_and_again_at_any_time_gets_there_all_the_same(killed):
    home, codes = killed
    *before, last = codes["again and again"]
    assert last == 0 and set(before) <= {-signal.SIGKILL, 0}  # a quick machine may be done before it is killed
    same(home, "again and again")


@pytest.mark.parametrize(("name", "told", "code"), [("SIGTERM", "SIGTERM", 143), ("SIGINT", "Ctrl-C", 130)])
def test_a_run_that_is_asked_to_stop_saves_what_it_has_and_says_how_to_go_on(killed, name, told, code):
    home, codes = killed
    ended, step, resumed = codes[name]
    said = (home / name / "said.txt").read_text("utf8")
    assert (ended, resumed) == (code, 0) and step >= 4, said
    assert f"{told}: a checkpoint is saved after this step; Ctrl-C leaves at once" in said
    assert f"mixmodal: stopped by {told} after step {step} of 8, which is saved; go on with: mixmodal train" in said
    assert "--resume" in said and f"resumed at step {step}" in said and "Traceback" not in said
    assert lines(home / "whole") == lines(home / name)
    one, two = left(home / "whole"), left(home / name)
    newest = [key for key in one if "step_00000008" in key or key.startswith("model/")]
    assert newest and all(one[key] == two[key] for key in newest)


def test_a_second_ctrl_c_leaves_at_once(killed):
    home, codes = killed
    code, seconds = codes["SIGINT twice"]
    said = (home / "SIGINT twice" / "said.txt").read_text("utf8")
    assert code == 130 and seconds < 20 and "left at once" in said and "Traceback" not in said, said
    assert not (home / "SIGINT twice" / "checkpoints").exists()
