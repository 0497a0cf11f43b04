"""Two and three ranks do what one process does, exchange data and checkpoints among their numbers, and never hang."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import mixed_documents, small_model

from mixmodal.board import Room
from mixmodal.checkpoint import lacks, load_run
from mixmodal.cluster import MACHINES, Job, estimate, job_of, lines
from mixmodal.config import Recipe
from mixmodal.parallel import ALONE, Ranks, joined
from mixmodal.sequence import collate, pack
from mixmodal.train import read_metrics

HERE = Path(__file__).resolve().parent
CLOSE = 1e-5
WAYS = {"muon": ["", ", sent", ", sharded"], "adamw, tied": ["", ", sent", ", sharded"], "settled": ["", ", sent"]}
WAYS["judged"] = WAYS["settled"]  # a tokenizer whose decoder learns against its judge
WAYS["codes"] = [", sharded"]  # they stand on a codec that stays whole on every rank
VARIANTS = [name + way for name, ways in WAYS.items() for way in ways]
linux = pytest.mark.skipif(sys.platform != "linux", reason="torch is loaded once, and then forked")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The folder of all that several ranks did, and how they ended."""
    home = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    done = subprocess.run(
        [sys.executable, str(HERE / "ranks.py"), str(home)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return home, json.loads((home / "ended.json").read_text("utf8")), done.stderr


# One step


@linux
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_of_several_ranks_one_of_them_with_words_only_is_that_of_one(found, count, variant):
    home, ended, said = found
    assert ended["codes"][f"compared {count}"] == [0] * count, said
    told = json.loads((home / f"compared_{count}.json").read_text("utf8"))[variant]
    assert told["taken"] and told["losses"] < CLOSE
    assert told["gradients"] < CLOSE and told["weights"] < CLOSE
    assert told["spread"]  # every rank has what the owners moved
    assert told["saved"]


@linux
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_that_is_not_finite_on_one_rank_is_skipped_on_all(found, count, variant):
    assert json.loads((found[0] / f"compared_{count}.json").read_text("utf8"))[variant]["skipped"]


@linux
@pytest.mark.parametrize("count", [2, 3])
def test_the_model_of_costs_counts_what_is_sent_and_kept(found, count):
    told = json.loads((found[0] / f"compared_{count}.json").read_text("utf8"))["cost"]
    for planned, counted in told.values():
        assert planned == pytest.approx(counted, rel=0.01)


@linux
@pytest.mark.parametrize("count", [2, 3])
def test_the_model_of_costs_foresees_the_time_of_a_step(found, count):
    planned, measured = json.loads((found[0] / f"compared_{count}.json").read_text("utf8"))["seconds"]
    assert 1 / 5 < planned / measured < 5  # other work on the machine comes and goes


@linux
def test_the_codebook_of_two_ranks_is_that_of_one_process_also_where_codes_begin_again(found):
    home, ended, said = found
    assert ended["codes"]["books"] == [0, 0], said
    told = json.loads((home / "books.json").read_text("utf8"))
    assert told["apart"] < 1e-4 and told["used"] > 0.5


# Runs: two ranks, sharded, then three, then one


def drawn(home: Path, name: str) -> dict[int, list[int]]:
    """The documents by their draws that all ranks were trained on together, by step."""
    out: dict[int, list[int]] = {}
    for line in (home / f"{name}.drawn.jsonl").read_text("utf8").splitlines():
        step, numbers = json.loads(line)
        out.setdefault(step, []).extend(numbers)
    return out


@linux
def test_two_three_and_one_ranks_train_on_the_documents_of_one_process_none_lost_none_doubled(found):
    home, ended, said = found
    assert ended["codes"]["whole"] == ended["codes"]["1"] == [0], said
    whole, parts = drawn(home, "whole"), drawn(home, "parts")
    assert {step: sorted(numbers) for step, numbers in parts.items()} == {
        step: sorted(numbers) for step, numbers in whole.items()
    }
    times = Counter(number for numbers in parts.values() for number in numbers)
    loader = load_run(home / "parts")[1]["loader"]
    waiting = {number for number, *_ in loader["waiting"]}
    assert set(times.values()) == {1} and not waiting & set(times)
    assert sorted(waiting | set(times)) == list(range(loader["mixture"]["number"])) and len(times) > 60


@linux
def test_a_stop_of_any_rank_stops_all_after_the_same_step_with_one_checkpoint(found):
    home, ended, said = found
    assert ended["codes"]["2"] == [143, 143] and ended["codes"]["3"] == [130] * 3, said
    kept = [name for name in ended["names"]["2"] if "/" not in name]
    assert kept == ["step_00000004"]  # the disk of one rank was full at step 2
    told = (home / "parts.said.txt").read_text("utf8")
    assert "step 2 was not written (No space left on device (on another rank): make room)" in told
    assert "resumed at step 4" in told and "resumed at step 6" in told


@linux
def test_only_the_first_rank_writes_metrics_and_they_are_those_of_one_process(found):
    home, _, said = found
    one, many = read_metrics(home / "whole"), read_metrics(home / "parts")
    assert [line["step"] for line in one if "valid" not in line] == list(range(1, 10))
    assert [(line["step"], "valid" in line) for line in one if "valid" not in line] == [
        (line["step"], "valid" in line) for line in many if "valid" not in line
    ]
    for mine, other in zip(one, [line for line in many if "valid" not in line or line["step"] % 2 == 0], strict=False):
        for name in ("text.nll", "patches.mse"):
            if name in mine:
                assert other[name] == pytest.approx(mine[name], rel=1e-2), mine["step"]


@linux
def test_a_checkpoint_of_several_ranks_counts_only_with_the_files_of_all(found, tmp_path):
    home, ended, _ = found
    files = [name for name in ended["names"]["3"] if name.startswith("step_00000006/")]
    assert sum(name.endswith("-of-3.safetensors") for name in files) == 3 * len(
        ("weights", "optimizer", "average", "generators")
    )
    assert {Path(name).suffix for name in files} == {".safetensors", ".json"}  # no pickle
    shutil.copytree(home / "parts/checkpoints", tmp_path / "checkpoints")
    for later in (7, 8, 9):
        shutil.rmtree(tmp_path / f"checkpoints/step_0000000{later}", ignore_errors=True)
    one, other = load_run(tmp_path)[0], load_run(home / "whole")[0]
    assert all(set(one[name]) == set(other[name]) for name in ("weights", "optimizer", "average"))
    assert all(one["weights"][name].shape == tensor.shape for name, tensor in other["weights"].items())
    (tmp_path / "checkpoints/step_00000006/optimizer.1-of-3.safetensors").unlink()
    assert "optimizer.1-of-3.safetensors is missing" in lacks(tmp_path / "checkpoints/step_00000006")
    said = []
    assert load_run(tmp_path, said.append)[1]["step"] == 4 and "passed over" in said[0]


@linux
def test_two_processes_are_started_by_the_command(found):
    home, ended, said = found
    assert ended["codes"]["command"] == [0], said
    assert [line["step"] for line in read_metrics(home / "command")] == [1, 2]
    assert (home / "command/checkpoints/step_00000002/weights.1-of-2.safetensors").exists()
    assert json.loads((home / "command/model/config.json").read_text("utf8"))["about"]["ranks"] == 2


LOSING = """
import multiprocessing, os, sys, torch
from mixmodal.parallel import together

begun = multiprocessing.get_context
multiprocessing.get_context = lambda how: begun("fork")  # as any other, but at once: torch is here already

def work(ranks, loser):
    assert ranks.room and ranks.texts("here") == ["here"] * 2
    if ranks.rank == loser:
        os._exit(9)
    ranks.total(torch.ones(1))

if __name__ == "__main__":
    try:
        together(2, work, 1)
    except ConnectionError as error:
        print(f"said: {error}", file=sys.stderr)
    together(2, work, 0)
"""


@linux
def test_who_waits_for_a_rank_that_ended_ends_too(tmp_path):
    """First the one that was started is lost, then the one that started it."""
    (tmp_path / "losing.py").write_text(LOSING, "utf8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, str(tmp_path / "losing.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)  # waits for both
    first, second = done.stderr.count("said: "), done.stderr.count("another rank ended")
    assert done.returncode == 9 and first == 1 and second == 2, done.stderr


def test_a_board_where_there_is_no_memory_is_none(tmp_path, monkeypatch):
    room = Room(str(tmp_path), 0, [[None]])
    heard = []
    board = room.board(64, lambda here: heard.append(here) or here, lambda file: [file])
    assert [part.tolist() for part in board.exchanged([[torch.arange(3.0)]], [3])] == [[0, 1, 2]]
    assert [part.tolist() for part in board.shown([torch.arange(4.0)], 4)] == [[0, 1, 2, 3]]

    def full(handle, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("mixmodal.board._reserve", full)
    assert room.board(64, lambda here: heard.append(here) or here, lambda file: [file]) is None
    assert heard == [True, True, False, True] and not list(tmp_path.iterdir())


# Alone, and what is refused


def test_alone_nothing_is_sent():
    assert ALONE.told([3]) == [[3]] and ALONE.texts("a, ä") == ["a, ä"] and ALONE.all(True) and not ALONE.all(False)
    assert list(ALONE.rows(5)) == [0, 1, 2, 3, 4]


def test_rows_are_shared_out_and_fewer_than_ranks_are_refused():
    assert [list(Ranks(rank, 3).rows(8)) for rank in range(3)] == [[0, 1], [2, 3, 4], [5, 6, 7]]
    with pytest.raises(ValueError, match="2 rows are fewer than 3 ranks: set rows to a multiple of 3"):
        Ranks(0, 3).rows(2)


# Costs


def test_what_saves_memory_counts_and_costs():
    model = small_model(trunk={"depth": 4})
    plain = Recipe("r", model.config, {}, rows=8, length=64)
    rng = np.random.default_rng(0)
    laid = [model.lay_out(document, rng, 0.0) for document in mixed_documents()[:4] * 4]
    batch = collate(laid, pack(laid, 8, 64), 64, model.blank())
    saving = ({}, {"accumulate": 4}, {"recompute": True})
    jobs = [job_of(model, replace(plain, **more), [batch]) for more in saving]
    assert jobs[1].moving < 0.4 * jobs[0].moving and jobs[1].flops == jobs[0].flops
    assert jobs[2].moving < 0.6 * jobs[0].moving
    assert 1.1 < jobs[2].flops / jobs[0].flops < 4 / 3  # the ends run once


JOB = Job(
    parameters=4_000_000_000,
    learning=4_000_000_000,
    blocks=3_600_000_000,
    depth=36,
    size=2,
    states=5_000_000_000,
    average=False,
    flops=6 * 4e9 * 524_288,
    turning=1e13,
    moving=200e9,
    rows=128,
    positions=524_288,
)


def test_more_gpus_take_less_memory_and_time_each_and_a_large_model_is_sharded():
    steps = [estimate(JOB, MACHINES["h100"], count, True) for count in (2, 4, 8)]
    assert steps[0].memory > steps[1].memory > steps[2].memory
    assert steps[0].seconds > steps[1].seconds > steps[2].seconds
    told = "\n".join(lines(JOB, "h100", 8, 1000))
    assert "sharded (--shard)" in told and "does not fit" not in told
    assert "whole model on each" in "\n".join(lines(JOB, "b200", 8, 1000))
    assert "it does not fit: take more GPUs" in "\n".join(lines(JOB, "4090", 2, 1000))


def test_a_model_without_a_trunk_is_estimated_and_minutes_decide_the_steps():
    assert "memory of each" in "\n".join(lines(replace(JOB, depth=0, blocks=0), "b200", 2, 1000))
    told = "\n".join(lines(JOB, "h100", 8, 1000, minutes=30.0))
    assert "about 29.9 min for 338 steps" in told and "--shard" not in "\n".join(lines(JOB, "4090", 2, 1000, False))


def test_shards_want_several_processes(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match="--shard divides a model among processes, and this is one"), joined(True):
        pass


def test_costs_of_unknown_gpus_and_of_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="unknown GPU 'h10': did you mean h100"):
        lines(JOB, "h10", 8, 10)
    with pytest.raises(ValueError, match="128 rows are fewer than 256 GPUs: --set rows=256"):
        lines(JOB, "h100", 256, 10)
    assert "are no multiple of 3" in "\n".join(lines(JOB, "h100", 3, 10))


@pytest.mark.long
def test_torchrun_trains_as_one_process_does(tmp_path):
    """Half a minute: three processes import torch."""
    small = "trunk.width=32 trunk.depth=1 trunk.heads=2 trunk.kv_heads=2 trunk.head_size=16".split()
    chosen = [*(f"model.{setting}" for setting in small), "vocabulary=300", "steps=2", "every=2", "minutes=0"]
    chosen += ["compile=false", "rows=4", "valid={}", "precision=float32"]
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    for name, before in (("one", []), ("two", launch)):
        told = [
            sys.executable,
            "-m",
            *before,
            "mixmodal",
            "train",
            "scenes_two",
            "--out",
            str(tmp_path / name),
            "--set",
        ]
        subprocess.run([*told, *chosen], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    one, two = (read_metrics(tmp_path / name) for name in ("one", "two"))
    for name in ("text.nll", "patches.mse"):
        assert [line[name] for line in two] == pytest.approx([line[name] for line in one], rel=1e-4)
