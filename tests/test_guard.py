"""Trainings that meet trouble: losses that are no numbers, full disks, broken checkpoints, other recipes."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from tiny import RECIPE, hasten, quiet, unmeasured

from mixmodal import checkpoint, data, track
from mixmodal import train as training
from mixmodal.checkpoint import checkpoints, from_pretrained, home_step, load_run, prune, save_run
from mixmodal.cli import main
from mixmodal.config import to_json
from mixmodal.data.loading import Loader
from mixmodal.diagnosis import diagnose
from mixmodal.guard import Finite, NotFinite, Stop, Stopped, continued
from mixmodal.optim import PowerAverage, make_optimizers, state_of
from mixmodal.parts import Document, Text
from mixmodal.prepare import prepare
from mixmodal.sequence import collate
from mixmodal.track import Track
from mixmodal.train import read_metrics, train

SHORT = replace(RECIPE, steps=6, every=2, valid={})


@pytest.fixture(autouse=True)
def hastened(monkeypatch):
    hasten(monkeypatch)
    unmeasured(monkeypatch)


def kept(folder: Path) -> list[int]:
    """The steps of a run's checkpoints."""
    return [home_step(home) for home in checkpoints(folder)]


def poisoned(monkeypatch, *steps: int) -> None:
    """Put what is no number among the targets of these steps' batches."""
    whole, calls = Loader.next, []

    def following(self, progress, *then):
        batch = whole(self, progress, *then)
        calls.append(1)
        if len(calls) - 1 in steps:  # the first one is for estimates
            batch.slots["patches"].predict["targets"][0] = math.nan
        return batch

    monkeypatch.setattr(Loader, "next", following)


# Steps that are not finite


def test_a_step_whose_loss_is_no_number_is_skipped_counted_and_written_down(tmp_path, monkeypatch):
    poisoned(monkeypatch, 3, 5)
    folder = train(SHORT, tmp_path / "run", say=quiet)
    lines = read_metrics(folder)
    assert [line.get("skipped") for line in lines] == [None, None, "patches.mse", None, "patches.mse", None]
    assert [line.get("skipped_so_far") for line in lines] == [None, None, 1, None, 2, None]
    assert lines[2]["patches.mse"] is None and lines[2]["text.nll"] > 0
    assert "NaN" not in (folder / "metrics.jsonl").read_text("utf8")  # which is no JSON
    assert load_run(folder)[1]["finite"] == {"row": 0, "total": 2}
    model, _ = from_pretrained(folder)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


@pytest.mark.parametrize("clip", [1.0, 0.0])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_skipped_step_moves_neither_weights_nor_optimizers(where, clip):
    run = prepare(replace(RECIPE, optim=replace(RECIPE.optim, clip=clip)))
    optimizers = make_optimizers(run.model.groups(), run.recipe.optim)
    assert training.train_step(run, run.loader.next(0.0), optimizers)[1]
    weights = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    states = {name: tensor.clone() for name, tensor in state_of(optimizers).items()}
    batch = run.loader.next(0.0)
    if where == "loss":
        batch.slots["patches"].predict["targets"][0] = math.inf
    else:
        run.model.trunk.blocks[0].mlp.up.weight.register_hook(lambda gradient: gradient * math.nan)
    losses, taken = training.train_step(run, batch, optimizers)
    assert not taken and math.isfinite(losses["patches.mse"]) == (where == "gradient")
    assert all(torch.equal(weights[name], p) for name, p in run.model.named_parameters())
    assert all(torch.equal(states[name], tensor) for name, tensor in state_of(optimizers).items())
    assert all(p.grad is None for p in run.model.parameters())


def test_steps_are_counted_at_a_stretch_and_in_all():
    finite = Finite()
    assert finite.count({"a": 1.0}, True) == {}
    assert finite.count({"a": math.nan, "b": 1.0}, False) == {"skipped": "a", "skipped_so_far": 1}
    assert finite.count({"a": 1.0}, False) == {"skipped": "gradient", "skipped_so_far": 2} and finite.row == 2
    assert finite.count({"a": 1.0}, True) == {} and finite.state() == {"row": 0, "total": 2}


class Worsening:
    """Documents whose weight is no number from the sixtieth on."""

    def __init__(self) -> None:
        self.name, self.size = "worsening", None

    def document(self, index: int, rng: np.random.Generator) -> Document:
        return Document((Text(f"number {index}", weight=1.0 if index < 60 else math.nan),))


def test_several_in_a_row_end_the_run_with_a_diagnosis_in_one_line_and_in_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(data.KINDS, "worsening", f"{__name__}:Worsening")
    chosen = replace(
        SHORT, sources={"own": {"kind": "worsening"}}, steps=20, optim=replace(SHORT.optim, bad_steps=3), every=1
    )
    said = []
    with pytest.raises(NotFinite, match="3 steps in a row, up to step .*: the loss text.nll is not finite") as error:
        train(chosen, tmp_path / "run", say=said.append)
    told = (tmp_path / "run/diagnosis.txt").read_text("utf8")
    assert "do it alone: own 6" in told or "each of the batch's" in told
    assert "every layer's output is finite" in told and "try: " in told and "try: " in said[-1]
    assert "\n" not in str(error.value) and "diagnosis.txt" in str(error.value)
    with pytest.raises(SystemExit) as end:
        main(["train", str(tmp_path / "run"), "--resume"])
    assert end.value.code == 2 and "steps in a row" in capsys.readouterr().err.splitlines()[-1]


def test_the_diagnosis_names_the_weights_and_the_first_layer_that_they_break():
    run = prepare(RECIPE)
    with torch.no_grad():
        run.model.trunk.blocks[0].mlp.up.weight[0, 0] = math.inf
    lines = diagnose(run.model, run.loader.next(0.0), run.loader, partial(run.model.losses, dtype=torch.float32))
    assert lines[0] == "trunk.blocks.0.mlp.up.weight hold weights that are not finite"
    assert lines[1] == "the loss text.nll and patches.mse is not finite"
    assert lines[2] == "the first layer whose output is not finite is trunk.blocks.0.mlp.up; its input is finite"
    assert "documents does it alone: the weights are to blame" in lines[3] and "half of optim.rate" in lines[4]
    assert not any(module._forward_hooks for module in run.model.modules())


def test_the_diagnosis_names_the_documents_that_do_it():
    run = prepare(RECIPE)
    run.loader.next(0.0)
    draw, sequence = run.loader.held[1]
    for part in sequence.runs:
        if part.predict:
            part.predict = {**part.predict, "weights": part.predict["weights"] * np.float32(math.nan)}
    sequences = [held for _, held in run.loader.held]
    batch = collate(sequences, [[n] for n in range(len(sequences))], RECIPE.length, run.model.blank())
    lines = diagnose(run.model, batch, run.loader, partial(run.model.losses, dtype=torch.float32))
    name = f"scenes {draw.index} (visit 0, key {draw.key})"
    assert f"1 of the batch's {len(sequences)} documents do it alone: {name}" in lines
    assert "every layer's output is finite" in lines[1] and "look at these documents" in lines[-1]


def test_the_diagnosis_names_the_gradients_where_the_losses_are_finite():
    run = prepare(RECIPE)
    batch = run.loader.next(0.0)
    losses = partial(run.model.losses, dtype=run.dtype)
    assert "a second pass over the same batch is finite" in diagnose(run.model, batch, run.loader, losses)[0]
    run.model.trunk.blocks[0].attention.q.weight.register_hook(lambda gradient: gradient * math.inf)
    lines = diagnose(run.model, batch, run.loader, losses)
    assert lines[0] == "the losses are finite, the gradients of trunk.blocks.0.attention.q.weight are not"
    assert all(p.grad is None for p in run.model.parameters())


def test_weights_that_are_not_finite_never_replace_a_good_checkpoint(tmp_path, monkeypatch):
    whole, calls = training.train_step, []

    def breaking(run, *arguments):
        out = whole(run, *arguments)
        calls.append(1)
        if len(calls) == 4:
            with torch.no_grad():
                run.model.trunk.blocks[0].mlp.up.weight[0, 0] = math.nan
        return out

    monkeypatch.setattr(training, "train_step", breaking)
    with pytest.raises(NotFinite, match="at step 4 1 parameters are not finite, trunk.blocks.0.mlp.up.weight for one"):
        train(SHORT, tmp_path / "run", say=quiet)
    assert kept(tmp_path / "run") == [2] and from_pretrained(tmp_path / "run")[1]["steps"] == 2


# Full disks


def full(*_: object, **__: object) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path, monkeypatch):
    whole, said = checkpoint.save_file, []
    calls = []

    def sometimes(*arguments, **options):
        calls.append(1)
        return full() if 6 <= len(calls) <= 6 else whole(*arguments, **options)  # weights of step 4

    monkeypatch.setattr(checkpoint, "save_file", sometimes)
    folder = train(SHORT, tmp_path / "run", say=said.append)
    told = [line for line in said if "was not written" in line]
    assert len(told) == 1 and told[0].startswith("the checkpoint of step 4 was not written (No space left on device:")
    assert "make room); the last good one is of step 2; the run goes on" in told[0]
    assert kept(folder) == [2, 6] and not list(folder.rglob("*.part"))


def test_a_full_disk_at_the_end_is_said_in_one_line_and_the_last_good_checkpoint_is_kept(tmp_path, monkeypatch, capsys):
    whole = checkpoint.save_run

    def sometimes(folder, step, *arguments, **options):
        if step == 6:
            monkeypatch.setattr(checkpoint, "save_file", full)
        whole(folder, step, *arguments, **options)

    monkeypatch.setattr(training, "save_run", sometimes)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.json").write_text(json.dumps(to_json(SHORT)), "utf8")
    with pytest.raises(SystemExit) as end:
        main(["train", str(tmp_path / "run"), "--resume"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 2 and line.startswith("mixmodal: the checkpoint of step 6 was not written (No space left")
    assert "the last good one is of step 4; then go on with: mixmodal train" in line and line.endswith("--resume")
    assert kept(tmp_path / "run") == [2, 4] and not list(tmp_path.rglob("*.part"))


def test_lines_that_a_full_disk_does_not_take_wait_and_no_half_of_one_stays(tmp_path, monkeypatch):
    said, numbers = [], {"positions": 10, "seconds": 1.0, "elapsed": 1.0, "share": 0.1}
    written = Track(tmp_path, 0, said.append)
    written.step(1, {"a": 1.0}, **numbers)

    def half(path, mode, **options):
        with open(path, mode, **options) as file:
            file.write('{"ste')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(track, "open", half, raising=False)
        written.step(2, {"a": 2.0}, **numbers)
        written.step(3, {"a": 3.0}, **numbers)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]
    assert len(said) == 1 and "No space left on device): make room, its lines wait" in said[0]
    written.step(4, {"a": 4.0}, **numbers)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]


# Which checkpoints are kept, and which is gone on from


def saved(folder: Path, step: int, **options) -> None:
    save_run(folder, step, {"weights": {"a": torch.full((2,), float(step))}}, {"seconds": 1.5}, **options)


def test_the_last_ones_and_the_best_one_are_kept(tmp_path):
    for step in (1, 2, 3, 4, 5):
        saved(tmp_path, step, keep=2, scores={1: 0.5, 2: 0.3, 3: 0.4})
    assert kept(tmp_path) == [2, 4, 5]
    prune(tmp_path, 1, {4: 0.1, 2: 0.3, 99: 0.0})  # what is not there is not the best
    assert kept(tmp_path) == [4, 5]
    prune(tmp_path, 0)
    assert kept(tmp_path) == [5]


def test_a_run_keeps_as_many_as_it_is_told_and_the_one_that_validated_best(tmp_path, monkeypatch):
    scores = iter([0.5, 0.2, 0.4, math.nan, 0.3, 0.6])
    found = {"losses": {"a": 1.0}, "levels": {}}
    monkeypatch.setattr(training, "validate", lambda *_: {**found, "score": next(scores)})
    recipe = replace(RECIPE, steps=6, every=1, keep=3, optim=replace(RECIPE.optim, average=0.1))
    folder = train(recipe, tmp_path / "run", say=quiet)
    assert kept(folder) == [2, 4, 5, 6] and load_run(folder)[1]["step"] == 6
    assert [line["score"] for line in read_metrics(folder) if "valid" in line][:3] == [0.5, 0.2, 0.4]
    assert Track(folder, 6, quiet).scores == {1: 0.5, 2: 0.2, 3: 0.4, 5: 0.3, 6: 0.6}


def test_a_checkpoint_that_is_not_whole_is_passed_over_and_that_is_said(tmp_path):
    for step in (2, 4):
        saved(tmp_path, step)
    (tmp_path / "checkpoints/step_00000006.part").mkdir()
    file = tmp_path / "checkpoints/step_00000004/weights.safetensors"
    said, size = [], file.stat().st_size
    os.truncate(file, size - 3)
    assert load_run(tmp_path, said.append)[1]["step"] == 2
    assert "step_00000006.part was half written when the run was stopped: passed over" in said[0]
    assert f"step_00000004 is not whole (weights.safetensors has {size - 3} of {size} bytes): passed over" in said[1]
    file.unlink()
    assert load_run(tmp_path, said.append)[1]["step"] == 2 and "(weights.safetensors is missing)" in said[-1]
    (file.parent / "state.json").write_text('{"format": ', "utf8")
    assert load_run(tmp_path, said.append)[1]["step"] == 2 and "state.json cannot be read" in said[-1]
    saved(tmp_path, 3, keep=1)  # what was passed over does not take the place of a good one
    assert kept(tmp_path) == [3] and load_run(tmp_path)[1]["step"] == 3


def test_a_run_without_a_whole_checkpoint_is_not_begun_anew_behind_ones_back(tmp_path):
    saved(tmp_path, 2)
    (tmp_path / "checkpoints/step_00000002/state.json").unlink()
    with pytest.raises(ValueError, match="has 1 checkpoints and none is whole: restore one from a copy"):
        load_run(tmp_path)


# Another recipe


def test_a_run_goes_on_with_its_own_recipe_or_not_at_all(tmp_path):
    folder = train(replace(SHORT, steps=2), tmp_path / "run", say=quiet)
    with pytest.raises(ValueError, match=r"keeps its recipe \(rows is 8, but it began with 4\): give the same, or"):
        train(replace(SHORT, steps=2, rows=8), folder, resume=True, say=quiet)
    wider = replace(SHORT.model, trunk=replace(SHORT.model.trunk, depth=2))
    with pytest.raises(ValueError, match="model.trunk.depth is 2, but it began with 1"):
        train(replace(SHORT, steps=2, model=wider), folder, resume=True, say=quiet)
    train(replace(SHORT, steps=2, keep=5, every=1), folder, resume=True, say=quiet)
    assert json.loads((folder / "recipe.json").read_text("utf8"))["keep"] == 5


def test_what_only_watches_may_change_and_a_clock_may_have_set_the_steps():
    clocked = replace(SHORT, minutes=3.0)
    given = replace(clocked, steps=99, keep=7, prompts=("a",))
    assert continued(given, clocked) == replace(clocked, keep=7, prompts=("a",))
    with pytest.raises(ValueError, match="steps is 99"):
        continued(replace(SHORT, steps=99), SHORT)
    with pytest.raises(ValueError, match="minutes is 20"):
        continued(replace(clocked, minutes=20.0), clocked)


def test_what_a_run_never_spelled_out_or_does_not_know_is_no_setting_to_go_on_with():
    model = SHORT.model
    patches = model.streams["patches"]
    for change in ({"prediction": "noise"}, {"no_such_option": 7}):
        stream = replace(patches, objective={**patches.objective, **change})
        given = replace(SHORT, model=replace(model, streams={**model.streams, "patches": stream}))
        with pytest.raises(ValueError, match="a resumed run keeps its recipe"):
            continued(given, SHORT)
        with pytest.raises(ValueError, match="a resumed run keeps its recipe"):
            continued(replace(given, start="a/run"), replace(SHORT, start="a/run"))
    wider = replace(model, trunk=replace(model.trunk, width=2 * model.trunk.width))
    assert continued(replace(SHORT, model=wider, start="a/run"), replace(SHORT, start="a/run")).model == model


def test_a_run_that_goes_on_remembers_what_it_started_from(tmp_path):
    train(SHORT, tmp_path / "first", say=quiet)
    given = replace(SHORT, start=str(tmp_path / "first"), steps=4, every=2)
    train(given, tmp_path / "second", say=quiet)
    for home in checkpoints(tmp_path / "second")[1:]:
        shutil.rmtree(home)
    train(given, tmp_path / "second", say=quiet, resume=True)
    assert json.loads((tmp_path / "second" / "recipe.json").read_text())["start"] == given.start
    assert load_run(tmp_path / "second", quiet)[1]["recipe"]["start"] == given.start


def test_a_lost_rank_is_no_trouble_of_the_disk(tmp_path, monkeypatch):
    def lost(*_, **__):
        raise ConnectionError("another rank ended")

    monkeypatch.setattr(training, "save_run", lost)
    with pytest.raises(ConnectionError, match="^another rank ended$"):
        train(SHORT, tmp_path / "run", say=quiet)


def test_a_checkpoint_that_is_not_whole_takes_no_place_of_one_that_is(tmp_path):
    train(replace(SHORT, steps=8, every=2, keep=9), tmp_path, say=quiet)
    homes = checkpoints(tmp_path)
    (homes[-2] / "weights.safetensors").write_bytes(b"")
    prune(tmp_path, 2)
    assert checkpoints(tmp_path) == [homes[-3], homes[-1]]


def test_the_diagnosis_of_a_run_that_has_settled_looks_at_what_it_learns_then():
    run = prepare(RECIPE)
    batch, asked = run.loader.next(0.0), []

    def losses(batch):
        asked.append(batch)
        return {name: (total * math.nan, count) for name, (total, count) in run.model.losses(batch).items()}

    assert "is not finite" in diagnose(run.model, batch, run.loader, losses)[0] and len(asked) > 1


def test_what_was_left_out_stays_counted():
    loader = prepare(RECIPE).loader
    loader.skipped["scenes"] = 3
    other = prepare(RECIPE).loader
    other.load(json.loads(json.dumps(loader.state())))
    assert other.skipped == {"scenes": 3}


def test_an_average_is_lent_and_taken_back():
    run = prepare(RECIPE)
    average = PowerAverage(run.model, 0.1)
    name, parameter = next(iter(run.model.named_parameters()))
    own = parameter.detach().clone()
    average.weights[name] += 1
    with pytest.raises(KeyError), average.lent(run.model):
        assert torch.equal(parameter, average.weights[name])
        raise KeyError
    assert torch.equal(parameter, own)


# Being asked to stop


def test_a_stop_is_noticed_once_and_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        assert stop.asked == ""
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked == "SIGTERM"
        with pytest.raises(Stopped, match="left at once"):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_in_another_thread_leaves_signals_alone(tmp_path):
    errors = []

    def inside():
        try:
            train(replace(SHORT, steps=1), tmp_path / "run", say=quiet)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert not errors and kept(tmp_path / "run") == [1]
