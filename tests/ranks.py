"""Trains on several ranks, for test_parallel.py: `python ranks.py FOLDER` leaves there what they found.

Each rank is a fork of this process, which itself computes nothing: so torch is loaded once for all of them.
"""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo  # which optimizers load, and which takes seconds
from conftest import picture
from tiny import RECIPE, hasten, tied, unmeasured
from torch import distributed as dist

from mixmodal import checkpoint, cli
from mixmodal import train as training
from mixmodal.board import Room
from mixmodal.cluster import Machine, estimate, job_of
from mixmodal.config import Recipe, from_json, to_json
from mixmodal.data.loading import Loader
from mixmodal.designs import chameleon, tokenizer
from mixmodal.optim import has_settled, make_optimizers
from mixmodal.parallel import ALONE, Ranks, joined
from mixmodal.parts import Document, Image, Text
from mixmodal.prepare import EXAMPLES, Run, prepare
from mixmodal.sequence import Batch, collate
from mixmodal.step import train_step

torch.set_num_threads(1)
PATIENCE = 90  # seconds after which a rank that waits is taken for one that hangs
ROWS = 6
CHOSEN = replace(
    RECIPE, steps=9, every=2, keep=9, rows=ROWS, optim=replace(RECIPE.optim, average=0.1), prompts=(), drop_prompt=0.1
)
JUDGED = tokenizer.model(codec={"features": 8, "blocks": 1}, losses={"adversary": 0.1, "features": 0.0})

NETS = {"kind": "autoencoder", "features": 8, "blocks": 1, "quantizer": {"kind": "vq", "size": 16, "width": 4}}


class Far(Room):
    """A room as of ranks that share no memory."""

    def open(self, agree, names):
        """None."""


def group(count: int, work: Callable[..., None], *given: Any, sharded: bool = False, room: type = Room) -> list[int]:
    """How `count` ranks that did `work(ranks, *given)` ended: exit codes, or minus the signals that killed them."""
    children, context = [], multiprocessing.get_context("fork")
    bells = [[context.Semaphore(0) for _ in range(count)] for _ in range(count)]
    with tempfile.TemporaryDirectory() as home:
        for rank in range(count):
            sys.stdout.flush()
            if child := os.fork():
                children.append(child)
                continue
            signal.alarm(PATIENCE)
            code = 0
            try:
                patch = pytest.MonkeyPatch()
                hasten(patch)
                unmeasured(patch)
                with joined(sharded, room(home, rank, bells)) as ranks:
                    work(ranks, *given)
            except SystemExit as end:
                code = int(end.code or 0)
            except KeyboardInterrupt as stop:
                print(stop, file=sys.stderr)
                code = getattr(stop, "code", 130)
            except BaseException:
                traceback.print_exc()
                code = 99
            os._exit(code)
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


# Gradients


def batch_of(run: Run, rows: range, words_only: range) -> Batch:
    """Some rows of a batch of documents made by hand: a picture and words in each, but only words in some."""
    sequences = []
    for row in rows:
        text = Text(("a big red circle", "two green rings above a plus", "blue")[row % 3])
        parts = (text, picture(row)) if row % 2 else (Image(picture(row).pixels, wanted=False), text)
        document = Document((text,) if row in words_only else parts)
        sequences.append(run.model.lay_out(document, np.random.default_rng(row), 0.5))
    return collate(sequences, [[n] for n in range(len(sequences))], run.recipe.length, run.model.blank())


def moved(recipe: Recipe, ranks: Ranks, words_only: range) -> dict[str, Any]:
    """Losses, gradients and weights after a step of these ranks, and whether all skip what one of them cannot do."""
    run = prepare(recipe, ranks=ranks)
    optimizers = make_optimizers(run.owned.groups(), recipe.optim)
    gradients: dict[str, torch.Tensor] = {}
    whole = run.owned.gather

    def gathering(settled: bool) -> None:
        whole(settled)
        for name, parameter in run.owned.named_parameters():
            gradients[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()

    run.owned.gather = gathering
    batch = batch_of(run, ranks.rows(ROWS), words_only)
    settled = has_settled(0, 1, recipe.optim)
    losses, taken = train_step(run, batch, optimizers, settled)
    gradients, run.owned.gather = run.owned.whole(gradients), whole
    weights = run.owned.whole(run.owned.state_dict())
    if ranks.rank == ranks.count - 1:
        batch.slots["text"].predict["weights"][0] = math.nan
    skipped = not train_step(run, batch, optimizers, settled)[1]
    after = run.owned.whole(run.owned.state_dict())
    here = {n: p.full_tensor() if hasattr(p, "full_tensor") else p for n, p in run.model.named_parameters()}
    return {
        "losses": losses,
        "gradients": gradients,
        "weights": weights,
        "taken": ranks.all(taken),
        "skipped": ranks.all(skipped) and all(torch.equal(weights[n], after[n]) for n in after),
        "spread": all(torch.equal(here[n], after[n]) for n in after),
        "saved": _comes_back(run.model, after) if ranks.first else True,
    }


def _comes_back(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    """Whether a model that is here perhaps in part is saved whole, with these weights."""
    with tempfile.TemporaryDirectory() as home:
        checkpoint.save_pretrained(model, home, weights=weights)
        held = dict(checkpoint.from_pretrained(home)[0].named_parameters())
    return all(n in held and torch.equal(held[n], whole.to(held[n].dtype)) for n, whole in weights.items())


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest distance between tensors of two models, relative to their length."""
    assert one.keys() == other.keys()
    return max(float((one[n] - other[n]).norm() / one[n].norm().clamp(min=1e-12)) for n in one)


def compared(ranks: Ranks, home: Path) -> None:
    """Write how far a step of these ranks lies from one of one process."""
    found = {}
    variants = {
        "muon": CHOSEN,
        "adamw, tied": replace(tied(CHOSEN), optim=replace(CHOSEN.optim, matrices="adamw")),
        "settled": replace(CHOSEN, optim=replace(CHOSEN.optim, settle=0.0)),
        "judged": replace(CHOSEN, model=JUDGED, optim=replace(CHOSEN.optim, matrices="adamw", settle=0.0)),
        "codes": replace(CHOSEN, model=chameleon.model(CHOSEN.model.trunk, nets=NETS)),
    }
    for name, recipe in variants.items():
        last = ranks.count - 1
        words_only = range(ROWS * last // ranks.count, ROWS)  # all that the last rank has
        sharded = [replace(ranks, shard=True)] if recipe.optim.settle == 1 else []
        plain = [ranks, replace(ranks, room=None)] if name != "codes" else []
        one = moved(recipe, ALONE, words_only) if ranks.first else {}
        for here in (*plain, *sharded):
            many = moved(recipe, here, words_only)
            if ranks.first:
                kind = ", sharded" if here.shard else "" if here.room else ", sent"
                found[f"{name}{kind}"] = {
                    "losses": max(abs(one["losses"][n] - many["losses"][n]) for n in one["losses"]),
                    "gradients": apart(one["gradients"], many["gradients"]),
                    "weights": apart(one["weights"], many["weights"]),
                    **{told: many[told] for told in ("taken", "skipped", "spread", "saved")},
                }
    far = replace(ranks, room=None)
    found["cost"], found["seconds"] = counted(far), timed(far)
    if ranks.first:
        (home / f"compared_{ranks.count}.json").write_text(json.dumps(found), "utf8")


def books(ranks: Ranks, home: Path) -> None:
    """Write how far the codebook of these ranks lies from that of one process, after steps in which codes revive."""
    vq = {"kind": "vq", "size": 32, "width": 4, "decay": 0.9, "revive": 4}
    model = tokenizer.model(quantizer=vq, codec={"features": 8, "blocks": 1})
    recipe = replace(CHOSEN, model=model, valid={}, optim=replace(RECIPE.optim, matrices="adamw"))

    def trained(who: Ranks) -> dict[str, torch.Tensor]:
        run = prepare(recipe, ranks=who)
        optimizers = make_optimizers(run.owned.groups(), recipe.optim)
        for _ in range(24):
            assert train_step(run, run.loader.next(0.5), optimizers)[1]
        return {n: p.detach().clone() for n, p in run.model.named_parameters() if ".quantizer." in n}

    many = trained(ranks)
    if ranks.first:
        one = trained(ALONE)
        used = float((one[next(n for n in one if n.endswith("count"))] > 0.1).float().mean())
        (home / "books.json").write_text(json.dumps({"apart": apart(one, many), "used": used}), "utf8")


def counted(ranks: Ranks) -> dict[str, list[float]]:
    """Bytes that a rank sends in a step and keeps between steps, by the model of costs and as they are."""
    recipe = replace(CHOSEN, optim=replace(CHOSEN.optim, average=0.0))
    run = prepare(recipe, ranks=ranks)
    optimizers = make_optimizers(run.owned.groups(), recipe.optim)
    sent = []
    exchange, broadcast = dist.all_to_all_single, dist.broadcast

    def exchanging(got, given, got_sizes, given_sizes):
        sent.append(4 * (given.numel() - given_sizes[ranks.rank]))
        return exchange(got, given, got_sizes, given_sizes)

    def broadcasting(tensor, source):
        if source == ranks.rank:
            sent.append(4 * tensor.numel() * (ranks.count - 1))
        return broadcast(tensor, source)

    dist.all_to_all_single, dist.broadcast = exchanging, broadcasting
    train_step(run, batch_of(run, ranks.rows(ROWS), range(0)), optimizers)
    dist.all_to_all_single, dist.broadcast = exchange, broadcast
    states = sum(t.nbytes for o in optimizers.values() for s in o.state.values() for t in s.values() if t.ndim)
    held = states + sum(p.numel() for p in run.model.parameters()) * 4
    job = job_of(run.model, recipe, [run.loader.next(0.0)], torch.float32)
    totals = ranks.told([sum(sent), held])
    plan = estimate(replace(job, moving=0.0), Machine(1e11, 1e10, 1e9), ranks.count, False)
    packed = 4 * (job.learning * 3 + job.parameters)
    return {
        "sent": [plan.sent, sum(each[0] for each in totals) / ranks.count],
        "held": [plan.memory - packed, sum(each[1] for each in totals) / ranks.count],
    }


def timed(ranks: Ranks) -> list[float]:
    """Seconds of a step by the model of costs, from what all ranks reach at once on this machine, and as they are."""
    wide = replace(RECIPE.model.trunk, width=128, depth=2, heads=4, head_size=32, kv_heads=4, mlp_width=512)
    recipe = replace(CHOSEN, model=replace(CHOSEN.model, trunk=wide), rows=12, optim=RECIPE.optim)

    def seconds(who: Ranks) -> tuple[float, Any]:
        run = prepare(recipe, ranks=who)
        optimizers, spans = make_optimizers(run.owned.groups(), recipe.optim), []
        for _ in range(4):
            batch = run.loader.next(0.0)
            began = time.perf_counter()
            train_step(run, batch, optimizers)
            spans.append(time.perf_counter() - began)
        return min(spans[1:]), job_of(run.model, recipe, [batch], torch.float32)

    here, job = seconds(ALONE)  # all at once: the cores are shared, as they are below
    plan = estimate(job, Machine(1.0, 1e10, 1e9, share=1.0), 1, False)
    flops = (plan.computing + plan.moving) / here
    numbers, got = torch.zeros(ranks.count * 100_000), torch.zeros(ranks.count * 100_000)
    dist.all_to_all_single(got, numbers)
    began = time.perf_counter()
    for _ in range(5):
        dist.all_to_all_single(got, numbers)
    speed = 5 * 4e5 * (ranks.count - 1) / (time.perf_counter() - began)
    planned = estimate(job, Machine(flops, 1e10, speed, share=1.0), ranks.count, False).seconds
    return [planned, seconds(ranks)[0]]


# Runs


def stops_at(step: int, number: int | None) -> None:
    """Have this process sent a signal in the middle of a step, if there is one to send."""
    whole, calls = training.train_step, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == step and number:
            signal.raise_signal(number)
        return whole(*arguments)

    training.train_step = stopping


def goes_on(ranks: Ranks, home: Path, name: str, step: int, signals: dict[int, int], full: int) -> None:
    """Train in a folder until one of the ranks is stopped; every rank writes down what it is trained on."""
    stops_at(step, signals.get(ranks.rank))
    whole, moving, writing, at = Loader.next, training.train_step, checkpoint.write_tensors, [0.0]

    def following(self, progress, *then):
        at[0] = progress
        return whole(self, progress, *then)

    def noting(run, *arguments):
        with open(home / f"{name}.drawn.jsonl", "a", encoding="utf8") as file:
            file.write(json.dumps([round(at[0] * CHOSEN.steps), [draw.number for draw, _ in run.loader.held]]) + "\n")
        return moving(run, *arguments)

    def filling(path, tensors):
        if ranks.rank == full and "step_00000002" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return writing(path, tensors)

    Loader.next, training.train_step, checkpoint.write_tensors = following, noting, filling
    told = home / name / "recipe.json"
    recipe = from_json(Recipe, json.loads(told.read_text("utf8"))) if told.exists() else CHOSEN
    said = open(home / f"{name}.said.txt", "a", encoding="utf8")  # noqa: SIM115
    training.train(
        recipe, home / name, resume=told.exists(), ranks=ranks, say=lambda line: print(line, file=said, flush=True)
    )


def alone(ranks: Ranks, folder: Path) -> None:
    """Train with two processes, as the command line starts them; the second is not hastened."""
    pytest.MonkeyPatch().setattr("mixmodal.prepare.EXAMPLES", EXAMPLES)
    cli.main(["train", str(folder), "--resume", "--processes", "2"])


def main(home: Path) -> None:
    """Leave all that is found, and how each process ended in ended.json."""
    codes = {f"compared {count}": group(count, compared, home) for count in (2, 3)}
    codes["books"] = group(2, books, home)
    codes["whole"] = group(1, goes_on, home, "whole", 0, {}, -1)
    term, control = int(signal.SIGTERM), int(signal.SIGINT)
    codes["2"] = group(2, goes_on, home, "parts", 4, {1: term}, 1, sharded=True, room=Far)
    kept = home / "parts/checkpoints"
    names = {"2": sorted(str(path.relative_to(kept)) for path in kept.rglob("*"))}
    # In shards again, and first what was due when it was stopped: to sample and validate.
    codes["3"] = group(3, goes_on, home, "parts", 2, {0: control}, -1, sharded=True)
    names["3"] = sorted(str(path.relative_to(kept)) for path in kept.rglob("*"))
    codes["1"] = group(1, goes_on, home, "parts", 0, {}, -1)
    (home / "command").mkdir()
    short = from_json(Recipe, json.loads((home / "whole/recipe.json").read_text("utf8")))
    (home / "command/recipe.json").write_text(json.dumps(to_json(replace(short, steps=2, valid={}))), "utf8")
    codes["command"] = group(1, alone, home / "command")
    (home / "ended.json").write_text(json.dumps({"codes": codes, "names": names}), "utf8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
