"""Training end to end, as small as it goes: it learns, it leaves what it should, and a stop changes nothing."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from safetensors.torch import load_file
from tiny import RECIPE, hasten, own_pictures, quiet, tied, unmeasured

from mixmodal import train as training
from mixmodal.chain import trained
from mixmodal.checkpoint import from_pretrained, load_run
from mixmodal.clock import Clock, warmed
from mixmodal.config import Recipe, from_json, override, to_json
from mixmodal.data import make_mixture
from mixmodal.optim import power_exponent
from mixmodal.parallel import ALONE
from mixmodal.prepare import compile_trunk, prepare
from mixmodal.recipes import own_data, recipes
from mixmodal.track import Track, sheet
from mixmodal.train import read_metrics, train
from mixmodal.watch import sample


@pytest.fixture(autouse=True)
def hastened(monkeypatch):
    hasten(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, and what it said."""
    said = []
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        folder = train(RECIPE, tmp_path_factory.mktemp("runs") / "tiny", say=said.append)
    return folder, said


def losses(folder) -> list[dict]:
    """The losses of every step, without what a clock says."""
    timed = ("seconds", "tokens_per_s", "share_of_peak", "waited")
    return [{k: v for k, v in line.items() if k not in timed} for line in read_metrics(folder) if "valid" not in line]


# What a run leaves


def test_the_loss_of_both_streams_falls(finished):
    lines = losses(finished[0])
    assert [line["step"] for line in lines] == list(range(1, 13))
    for name in ("text.nll", "patches.mse"):
        assert np.mean([line[name] for line in lines[-3:]]) < 0.9 * np.mean([line[name] for line in lines[:2]]), name


def test_a_run_leaves_metrics_samples_a_plot_checkpoints_and_the_model(finished):
    folder, _ = finished
    first, *_ = read_metrics(folder)
    assert set(first) == {"step", "text.nll", "patches.mse", "seconds", "tokens_per_s", "share_of_peak", "waited"}
    valid = [line for line in read_metrics(folder) if "valid" in line]
    assert [line["step"] for line in valid] == [6, 12]
    assert set(valid[0]["valid"]) == {"text.nll", "patches.mse"} and len(valid[0]["levels"]["patches"]) == 10
    assert all(value > 0 for value in valid[0]["levels"]["patches"])  # every level of noise was met
    for name in ("samples/step_00000006.png", "samples/step_00000012.png", "loss_by_noise.png"):
        with Picture.open(folder / name) as sheet:
            assert np.asarray(sheet).std() > 1
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["step_00000006", "step_00000012"]
    assert sorted(p.name for p in (folder / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    endings = {p.suffix for p in folder.rglob("*") if p.is_file()}
    assert endings <= {".json", ".jsonl", ".safetensors", ".png"}


def test_the_cost_is_told_before_the_first_step(finished):
    said = "\n".join(finished[1])
    for word in ("parameters", "positions/step  384", "FLOPs/step", "memory", "time            about"):
        assert word in said


def test_the_run_keeps_the_recipe_with_what_its_codecs_took_from_the_data(finished):
    kept = json.loads((finished[0] / "recipe.json").read_text("utf8"))
    recipe = from_json(type(RECIPE), kept)
    assert recipe.model.streams["text"].codec["vocabulary"] > 256
    assert replace(recipe, model=RECIPE.model) == RECIPE and to_json(recipe) == kept


def test_the_saved_model_says_how_it_was_made(finished):
    _, about = from_pretrained(finished[0])
    assert about["recipe"] == "tiny" and about["steps"] == 12 == about["of_steps"] and about["seed"] == 0
    assert about["sample_size"] == [16, 16] and about["sources"] == RECIPE.sources


def test_the_same_seed_trains_the_same_model_and_another_seed_another(finished, tmp_path):
    again = train(replace(RECIPE, steps=3, valid={}), tmp_path / "again", say=quiet)
    other = train(replace(RECIPE, steps=3, valid={}, seed=1), tmp_path / "other", say=quiet)
    assert losses(again)[0] == losses(finished[0])[0] != losses(other)[0]
    assert not (again / "samples").exists()


# Stops


class Killed(Exception):
    """Somebody pulled the plug."""


@pytest.mark.parametrize(
    "variant",
    [
        replace(RECIPE, optim=replace(RECIPE.optim, average=0.1)),
        replace(tied(RECIPE), optim=replace(RECIPE.optim, matrices="adamw", average=0.2), drop_prompt=0.5),
    ],
    ids=["muon, averaged", "adamw, averaged, tied"],
)
def test_stopped_and_resumed_is_never_stopped_to_the_bit(tmp_path, monkeypatch, variant):
    unmeasured(monkeypatch)
    recipe = replace(variant, steps=8, every=4)
    whole = train(recipe, tmp_path / "whole", say=quiet)

    calls = []
    step = training.train_step

    def dying(*arguments):
        calls.append(1)
        if len(calls) == 7:  # two steps are done that no checkpoint holds
            raise Killed
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_step", dying)
        with pytest.raises(Killed):
            train(recipe, tmp_path / "stopped", say=quiet)
    assert losses(tmp_path / "stopped")[-1]["step"] == 6
    said = []
    resumed = train(recipe, tmp_path / "stopped", resume=True, say=said.append)
    assert any(line.startswith("resumed at step 4") for line in said)

    for name in ("weights", "optimizer", "average"):
        path = f"checkpoints/step_00000008/{name}.safetensors"
        one, two = load_file(whole / path), load_file(resumed / path)
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one), name
    assert (whole / "model/model.safetensors").read_bytes() == (resumed / "model/model.safetensors").read_bytes()
    assert losses(whole) == losses(resumed)
    valid = [[line for line in read_metrics(folder) if "valid" in line] for folder in (whole, resumed)]
    assert valid[0] == valid[1]
    assert (whole / "samples/step_00000008.png").read_bytes() == (resumed / "samples/step_00000008.png").read_bytes()


def test_a_run_is_not_begun_anew_over_another(finished):
    with pytest.raises(FileExistsError, match="--resume"):
        train(RECIPE, finished[0], say=quiet)


def test_a_finished_run_that_is_resumed_stays_as_it_is(finished):
    before = (finished[0] / "model/model.safetensors").read_bytes()
    train(RECIPE, finished[0], resume=True, say=quiet)
    assert (finished[0] / "model/model.safetensors").read_bytes() == before
    assert len(losses(finished[0])) == 12


def test_a_run_killed_before_its_first_checkpoint_begins_anew_when_resumed(tmp_path, monkeypatch):
    recipe = replace(RECIPE, steps=3, every=3, valid={})
    with monkeypatch.context() as patch:
        patch.setattr(training, "_checkpoint", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            train(recipe, tmp_path / "run", say=quiet)
    train(recipe, tmp_path / "run", resume=True, say=quiet)
    assert [line["step"] for line in losses(tmp_path / "run")] == [1, 2, 3] and load_run(tmp_path / "run")


def test_a_run_killed_at_its_very_last_checkpoint_has_its_last_model_when_resumed(tmp_path, monkeypatch):
    recipe = replace(RECIPE, steps=4, every=2, valid={})
    saved = training.save_run

    def dying(folder, step, *arguments, **options):
        saved(folder, step, *arguments, **options)
        if step == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_run", dying)
        with pytest.raises(Killed):
            train(recipe, tmp_path / "run", say=quiet)
    train(recipe, tmp_path / "run", resume=True, say=quiet)
    assert from_pretrained(tmp_path / "run")[1]["steps"] == 4


# Ways to train


def test_the_saved_model_holds_the_average_of_the_weights(tmp_path):
    recipe = replace(RECIPE, steps=4, every=1, valid={}, optim=replace(RECIPE.optim, average=0.1))
    folder = train(recipe, tmp_path / "run", say=quiet)
    saved = load_file(folder / "model/model.safetensors")
    average = load_file(folder / "checkpoints/step_00000004/average.safetensors")
    weights = load_file(folder / "checkpoints/step_00000004/weights.safetensors")
    assert all(torch.equal(saved[name], average[name]) for name in average)
    before = load_file(folder / "checkpoints/step_00000003/average.safetensors")
    keep = (1 - 1 / 4) ** (power_exponent(0.1) + 1)
    for name in average:
        assert torch.allclose(average[name], keep * before[name] + (1 - keep) * weights[name], atol=1e-6), name
    assert sum(not torch.equal(saved[name], weights[name]) for name in average) > 0.9 * len(average)


def test_minutes_set_the_steps_and_the_measured_ones_are_undone(tmp_path):
    said = []
    folder = train(replace(RECIPE, minutes=1e-4, steps=99, valid={}), tmp_path / "run", say=said.append)
    recipe = json.loads((folder / "recipe.json").read_text("utf8"))
    assert recipe["steps"] == 10 and recipe["minutes"] == 1e-4 and any("10 steps fit" in line for line in said)
    plain = train(replace(RECIPE, steps=10, valid={}), tmp_path / "plain", say=quiet)
    assert losses(folder) == losses(plain)
    # Killed between a new plan, which is written at once, and its next checkpoint, it goes on by the old one.
    (folder / "recipe.json").write_text(json.dumps({**recipe, "steps": 12}), "utf8")
    again = from_json(Recipe, json.loads((folder / "recipe.json").read_text("utf8")))
    train(again, folder, resume=True, say=quiet)
    assert json.loads((folder / "recipe.json").read_text("utf8"))["steps"] == 10


def test_held_out_pictures_that_all_prove_broken_end_no_training(tmp_path):
    home = own_pictures(tmp_path / "own", 4)
    valid = {"own": {"kind": "folder", "path": str(home), "size": 16, "split": "valid"}}
    for name in make_mixture(valid, 0).sources[0].names():
        file = home / name
        file.write_bytes(file.read_bytes()[:-40])
    said = []
    folder = train(replace(RECIPE, steps=2, every=2, valid=valid), tmp_path / "run", say=said.append)
    told = [line for line in said if "no validation at step 2" in line]
    assert told and "can be decoded" in told[0] and (folder / "model" / "model.safetensors").exists()


def test_documents_that_no_row_holds_are_told_before_and_after(tmp_path):
    said = []
    folder = train(replace(RECIPE, steps=2, length=24, rows=4, valid={}), tmp_path / "run", say=said.append)
    assert sum("longer than a row of 24 positions" in line for line in said) >= 1
    assert any("too_long_so_far" in line for line in read_metrics(folder))


def test_prompts_are_drawn_at_every_sample():
    run = prepare(replace(RECIPE, prompts=("a red ring",), sample_size=(16, 16), steps_sampled=1, compile=False))
    true, made = sample(run, run.recipe)[-1]
    assert true.parts[0].text == "a red ring" and made.parts[-1].pixels.shape == (16, 16, 3)
    assert sheet([(true, made)]).size[0] > 16


def test_a_run_of_so_many_minutes_plans_again_by_the_steps_that_it_takes():
    recipe = replace(RECIPE, minutes=1.0, optim=replace(RECIPE.optim, settle=0.5))
    clock = Clock(SimpleNamespace(recipe=recipe, ranks=ALONE), time.perf_counter(), quiet)
    clock.joint, clock.settled = 1.0, 0.5  # what the trial said: 80 steps in a minute
    recipe = replace(recipe, steps=80)
    assert not any(clock.again(recipe, step, 2.0) for step in range(1, 12))
    planned = clock.again(recipe, 12, 2.0)  # a step takes 2 seconds: 84 of them with those that are left
    assert 62 < planned.steps <= 67
    assert not any(clock.again(planned, step, 2.0) for step in range(13, 31))
    planned = replace(planned, steps=62)
    clock.joint, clock.settled = 0.5, 0.5
    assert 90 < clock.again(planned, 31, 0.5).steps <= 98  # by all before it settles, of which this one was quick
    planned = replace(planned, steps=100)
    assert not any(clock.again(planned, step, 0.1) for step in range(51, 85))
    assert clock.again(planned, 85, 0.1).steps == 170  # it has settled, and stays so
    assert not any(clock.again(planned, step, 0.5) for step in range(86, 100))  # and no more


@pytest.mark.parametrize("why", [None, "no compiler"])
def test_what_a_training_compiles_is_compiled_before_it_with_its_rows_and_threads(why, monkeypatch):
    seen, threads = [], torch.get_num_threads()
    monkeypatch.setattr("mixmodal.clock.compile_trunk", lambda model, path: why)
    monkeypatch.setattr(
        "mixmodal.clock.train_step",
        lambda run, batch, optimizers, settled: seen.append(
            (settled, batch.shape, dict(optimizers), torch.get_num_threads())
        ),
    )
    recipe = replace(RECIPE, compile=True, optim=replace(RECIPE.optim, settle=0.5))
    took = warmed(recipe, 2)
    shape = (recipe.rows // 2, recipe.length)
    each = max(1, threads // 2)
    assert seen == ([] if why else [(False, shape, {}, each), (True, shape, {}, each)])
    assert (took == 0) == bool(why) and torch.get_num_threads() == threads


def test_what_is_planned_too_late_ends_with_the_next_step():
    recipe = replace(RECIPE, minutes=1.0, steps=100)
    clock = Clock(SimpleNamespace(recipe=recipe, ranks=ALONE), time.perf_counter() - 600, quiet)
    assert clock.again(recipe, 15, 1.0).steps == 16


def test_a_model_is_trained_on_from_a_saved_one(finished, tmp_path):
    run = prepare(replace(RECIPE, start=str(finished[0])))
    saved, _ = from_pretrained(finished[0])
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), saved.parameters(), strict=True))
    folder = train(replace(RECIPE, start=str(finished[0]), steps=2, valid={}), tmp_path / "on", say=quiet)
    assert losses(folder)[0]["text.nll"] < 0.8 * losses(finished[0])[0]["text.nll"]
    _, about = from_pretrained(folder)
    _, first = from_pretrained(finished[0])
    assert about["before"] == {"recipe": "tiny", "steps": first["steps"], "seconds": first["seconds"]}
    further = train(replace(RECIPE, start=str(folder), steps=2, valid={}), tmp_path / "further", say=quiet)
    assert from_pretrained(further)[1]["before"]["steps"] == first["steps"] + 2
    # It was started from a model, and goes on from its own checkpoint.
    train(replace(RECIPE, start="gone", steps=2, valid={}), folder, resume=True, say=quiet)


def test_the_plot_is_there_before_the_line_that_says_so(tmp_path, monkeypatch):
    """Killed between the two, a run would go on without it."""
    track, order = Track(tmp_path, 0, quiet), []
    monkeypatch.setattr(track, "_write", lambda entry: order.append((tmp_path / "loss_by_noise.png").exists()))
    found = {"losses": {"patches.mse": 0.5}, "score": 0.5, "levels": {"patches": [0.5, 0.4]}}
    track.validation(6, found)
    assert order == [True] and track.watched == {6}
    monkeypatch.setattr("mixmodal.track.plot", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        track.validation(12, found)
    assert len(order) == 2 and track.watched == {6, 12}  # noted all the same


def test_a_recipe_that_compiles_says_why_where_it_cannot(monkeypatch):
    run = prepare(RECIPE)
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "no C++ compiler" in compile_trunk(run.model)
    assert "segments of its own" in compile_trunk(run.model, "segments")
    monkeypatch.setattr("shutil.which", lambda _: "g++")
    with monkeypatch.context() as patch:
        patch.setattr("sysconfig.get_path", lambda _: "nowhere")
        assert "python3-dev" in compile_trunk(run.model)
    before = run.model.trunk.run_block
    assert compile_trunk(run.model) is None and run.model.trunk.run_block is not before


def test_validation_that_cannot_be_made_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="split"):
        train(replace(RECIPE, valid={"scenes": {"kind": "scenes", "split": "test"}}), tmp_path / "run", say=quiet)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


# One's own data


def test_a_folder_of_ones_own_pictures_trains_with_the_recipe_for_it(tmp_path):
    if "own_32" not in recipes():
        pytest.skip("there is no recipe own_32 yet")
    chosen = own_data(recipes()["own_32"](), own_pictures(tmp_path / "mine"))
    assert all("mine" in spec["path"] for spec in chosen.valid.values())
    chosen = replace(
        chosen,
        model=replace(chosen.model, trunk=RECIPE.model.trunk),
        sources={"pictures": chosen.sources["pictures"]},  # prose takes seconds to gather
        steps=2,
        every=1,
        rows=2,
        vocabulary=300,
        steps_sampled=1,
        compile=False,
    )
    folder = train(chosen, tmp_path / "run", say=quiet)
    assert len(losses(folder)) == 2 and (folder / "model/model.safetensors").exists()
    said = {line for line in losses(folder)[-1]}
    assert {"text.nll", "patches.mse"} <= said


def test_a_recipe_without_a_folder_refuses_ones_own(tmp_path):
    with pytest.raises(ValueError, match="reads no folder"):
        own_data(RECIPE, tmp_path)


def test_a_run_whose_trunk_rests_from_the_start_goes_on_too(tmp_path):
    settled = replace(RECIPE, steps=4, every=2, valid={}, optim=replace(RECIPE.optim, settle=0.0))
    whole = train(settled, tmp_path / "whole", say=quiet)
    begun = train(replace(settled, steps=2), tmp_path / "begun", say=quiet)
    kept = json.loads((begun / "recipe.json").read_text())
    (begun / "recipe.json").write_text(json.dumps(kept | {"steps": 4}))
    state = begun / "checkpoints" / "step_00000002" / "state.json"
    state.write_text(state.read_text().replace('"steps": 2', '"steps": 4'))
    assert losses(train(settled, begun, resume=True, say=quiet))[-1]["step"] == 4
    assert losses(whole)[-1]["step"] == 4


def test_a_head_that_reads_with_what_enters_the_trunk_lets_no_run_settle(tmp_path):
    with pytest.raises(ValueError, match="would not rest"):
        train(tied(replace(RECIPE, optim=replace(RECIPE.optim, settle=0.5))), tmp_path / "run", say=quiet)


def test_what_a_recipe_stands_on_is_its_own_and_said_where_it_is_not(finished, tmp_path, capsys):
    whole = replace(RECIPE, steps=12)
    kept = json.loads((finished[0] / "recipe.json").read_text())
    assert trained("tiny", finished[0], from_json(Recipe, kept, "recipe")) == finished[0]
    assert "taken as it is" not in capsys.readouterr().out
    trained("tiny", finished[0], replace(from_json(Recipe, kept, "recipe"), drop_prompt=0.7))
    assert "drop_prompt is 0.1 and not 0.7" in capsys.readouterr().out
    capsys.readouterr()
    newer = override(from_json(Recipe, kept, "recipe"), ["model.streams.patches.objective.sigma_data=0.5"])
    trained("tiny", finished[0], newer)  # an option that came since
    assert "sigma_data is None and not 0.5" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds a model of tiny, and other is wanted"):
        trained("other", finished[0], replace(whole, name="other"))
