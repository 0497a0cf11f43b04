"""Using a model: from Python in three lines, and from the command line, in this process and in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from tiny import RECIPE, hasten, quiet

import mixmodal
from mixmodal import recipes as known
from mixmodal import train as training
from mixmodal.api import load
from mixmodal.cli import main
from mixmodal.parts import Document, Image, Text

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "model.trunk.width=32",
    "model.trunk.depth=1",
    "model.trunk.heads=2",
    "model.trunk.kv_heads=2",
    "model.trunk.head_size=16",
    "vocabulary=300",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a run of two steps."""
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        return training.train(replace(RECIPE, steps=2, valid={}), tmp_path_factory.mktemp("use") / "run", say=quiet)


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Picture.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return path


# From Python


def test_the_package_loads_its_names_when_they_are_asked_for():
    assert mixmodal.load is load and mixmodal.Text is Text and mixmodal.train is training
    assert callable(mixmodal.recipe) and set(mixmodal.__all__) > {"load", "Document"}
    with pytest.raises(AttributeError, match="mixmodal has no 'lod': it has Document"):
        _ = mixmodal.lod


def test_a_loaded_model_draws_for_every_prompt_in_order(run):
    model = load(run, dtype=torch.float32)
    one = model.sample("a red circle")
    assert len(one) == 1 and one[0].size == (16, 16) and model.size == (16, 16)
    several = model.sample(["a red circle", "a blue ring"], n=2, size=(10, 18), steps=1, guidance=1.0)
    assert [picture.size for picture in several] == [(18, 10)] * 4
    arrays = [np.asarray(picture) for picture in several]
    assert not np.array_equal(arrays[0], arrays[1])  # n of them differ
    again = model.sample(["a red circle", "a blue ring"], n=2, size=(10, 18), steps=1, guidance=1.0)
    assert all(np.array_equal(a, np.asarray(b)) for a, b in zip(arrays, again, strict=True))
    other = model.sample("a red circle", seed=1)
    assert not np.array_equal(np.asarray(one[0]), np.asarray(other[0]))


def test_the_models_own_settings_hold_unless_others_are_chosen(run):
    model = load(run)
    assert model.settings() == model.settings(steps=None, guidance=None)
    assert model.settings().steps == 2 and model.settings().guidance == 2.0
    assert model.settings(steps=7, temperature=0.5).steps == 7


def test_an_empty_prompt_asks_for_any_picture_and_for_no_words(run, monkeypatch):
    loaded = load(run)
    asked = []
    monkeypatch.setattr(loaded, "generate", lambda documents, *_: asked.extend(documents) or documents)
    with pytest.raises(AttributeError):
        loaded.sample("")
    assert [part.medium for part in asked[0].parts] == ["image"]


def test_a_loaded_model_writes_about_paths_pictures_and_arrays(run, photo):
    model = load(run, dtype=torch.float32)
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    said = model.caption([photo, str(photo), Picture.open(photo), pixels], max_tokens=5)
    assert len(said) == 4 and all(isinstance(line, str) for line in said) and said[0] == said[1]
    assert len(model.caption(photo, max_tokens=3)) == 1 and len(model.caption(pixels, max_tokens=3)) == 1
    assert model.caption(photo, fit=False, max_tokens=3, prompt="what is it?")
    assert model.caption(Picture.open(photo).convert("L"), fit=False, max_tokens=3)


def test_documents_of_any_kind_are_filled(run):
    made = load(run).generate([Document((Text("a red circle"), Image(size=(16, 16)), Text()))])[0]
    assert [part.medium for part in made.parts] == ["text", "image", "text"] and not made.parts[1].empty


# From the command line


def refused(capsys, *arguments: str) -> str:
    """What is said on the error stream when a command ends with 2."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == 2
    return capsys.readouterr().err


def test_pictures_are_drawn_to_files(run, tmp_path, capsys):
    main(["sample", str(run), "a red circle", "-o", str(tmp_path / "new" / "one.png"), "--steps", "1"])
    with Picture.open(tmp_path / "new" / "one.png") as picture:
        assert picture.size == (16, 16)
    main(["sample", str(run), "a", "b", "--n", "2", "--size", "8x12", "--scale", "2", "-o", str(tmp_path / "p.png")])
    assert sorted(p.name for p in tmp_path.glob("*.png")) == [f"p_{n}.png" for n in range(4)]
    with Picture.open(tmp_path / "p_3.png") as picture:
        assert picture.size == (24, 16)
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path / 'p_3.png'}  b"


def test_pictures_are_described_and_a_model_tells_what_it_is(run, photo, capsys):
    main(["caption", str(run), str(photo), str(photo)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2 and lines[0].startswith(f"{photo}: ")
    main(["info", str(run)])
    told = capsys.readouterr().out
    assert "width 32, depth 1" in told and "image by arrays + flow, rank" in told and "recipe      tiny" in told


def test_recipes_are_listed_with_what_they_are(capsys):
    main(["recipes"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(known.recipes()) and any(line.startswith("scenes_two ") for line in lines)
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)  # every recipe has a docstring


def test_a_dry_run_tells_the_cost_and_writes_nothing(tmp_path, capsys, monkeypatch):
    hasten(monkeypatch)
    monkeypatch.chdir(tmp_path)
    main(["train", "scenes_two", "--dry-run", "--set", *SMALL, "steps=7", "minutes=0"])
    told = capsys.readouterr().out
    assert "parameters      0." in told and "for 7 steps" in told and not list(tmp_path.iterdir())


def test_a_run_is_trained_resumed_by_its_folder_and_not_overwritten(tmp_path, capsys, monkeypatch):
    hasten(monkeypatch)
    monkeypatch.setattr(known, "recipe", lambda name: RECIPE)
    out = tmp_path / "run"
    main(["train", "tiny", "--out", str(out), "--set", "steps=2", "every=2", "valid={}"])
    assert f"the model is in {out / 'model'}" in capsys.readouterr().out
    assert "--resume" in refused(capsys, "train", "tiny", "--out", str(out))
    monkeypatch.undo()
    hasten(monkeypatch)
    main(["train", str(out), "--resume"])  # as its help says: the folder of a run to go on with
    assert "resumed at step 2" in capsys.readouterr().out
    main(["train", str(out), "--resume", "--set", "workers=1", "every=7"])  # which decide nothing about the weights
    assert "for anything else train on in another folder" in refused(
        capsys, "train", str(out), "--resume", "--set", "optim.rate=1"
    )
    assert "no run is in" in refused(capsys, "train", str(tmp_path / "nowhere"), "--resume")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "scenes_too"], "unknown recipe 'scenes_too': did you mean scenes_two"),
        (["train", "scenes_two", "--set", "optim.rates=1"], "unknown optim.rates: did you mean rate"),
        (["train", "scenes_two", "--data", "pictures"], "'scenes_two' reads no folder"),
        (["sample", "nowhere", "a"], "no model in nowhere"),
        (["sample", "builtin:nothing", "a"], "no model builtin:nothing is in the box"),
        (["sample", "RUN"], "no prompt was given"),
        (["sample", "RUN", "a", "--size", "big"], "--size is 'big': write SIDE or HEIGHTxWIDTH"),
        (["sample", "RUN", "a", "--size", "8x8x8"], "HEIGHTxWIDTH"),
        (["sample", "RUN", "a", "--size", "0"], "HEIGHTxWIDTH"),
        (["sample", "RUN", "a", "--n", "0"], "--n is 0 and --scale 1: want 1 or more"),
        (["sample", "RUN", "a", "-o", "picture"], "for example picture.png"),
        (["sample", "RUN", "a", "--guidance", "nan"], "guidance is nan: want a number"),
        (["sample", "RUN", "a", "--device", "gpu"], "device is 'gpu'"),
        (["sample", "RUN", "a\udce9"], "is no valid Unicode"),
        (["caption", "RUN", "nowhere.png"], "nowhere.png is not there"),
        (["caption", "RUN", "RUN/recipe.json"], "picture"),
        (["train", "own_32", "--dry-run"], "no folder of pictures is named: give it"),
        (["train", "scenes_two", "--set", "codec.ends=4"], "of a stream it is model.streams.NAME.codec.ends"),
        (["eval", "RUN", "--suite", "scense"], "unknown suite 'scense': did you mean scenes"),
    ],
)
def test_a_mistake_ends_with_2_and_one_clear_line(arguments, message, run, capsys):
    said = refused(capsys, *(argument.replace("RUN", str(run)) for argument in arguments))
    lines = [line for line in said.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("mixmodal: ") and message in lines[0], said


def test_an_unknown_command_or_option_ends_with_2(capsys):
    refused(capsys, "paint")
    assert "--guidance" in refused(capsys, "sample", "x", "y", "--guidanse", "1")


def test_an_interruption_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(known, "recipe", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["train", "tiny"])
    assert end.value.code == 130 and "--resume" in capsys.readouterr().err


# In a process of its own


def process(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mixmodal", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_help_names_every_command_without_loading_torch():
    done = process("--help")
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == 0 and not {"torch", "numpy"} & loaded and "tyro" in loaded
    for command in ("train", "sample", "caption", "eval", "info", "recipes", "demo"):
        assert command in done.stdout


def test_the_recipes_are_listed_without_loading_torch():
    done = process("recipes")
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == 0 and "scenes_two" in done.stdout and "torch" not in loaded


def test_a_run_goes_on_by_the_command_that_began_it_and_by_no_other(tmp_path, capsys, monkeypatch):
    hasten(monkeypatch)
    monkeypatch.setattr(known, "recipe", lambda name: replace(RECIPE, name=name))
    begun = ["train", "tiny", "--out", str(tmp_path / "run"), "--set", "steps=2", "every=2", "valid={}"]
    main(begun)
    main([*begun, "--resume"])
    main(["train", "tiny", "--out", str(tmp_path / "run"), "--resume"])
    assert "resumed at step 2" in capsys.readouterr().out
    assert "steps is 3, but it began with 2" in refused(capsys, *begun[:-3], "steps=3", "valid={}", "--resume")
    assert "holds a run of tiny" in refused(capsys, "train", "other", "--out", str(tmp_path / "run"), "--resume")
    assert "go on with it by --resume" in refused(capsys, "train", str(tmp_path / "run"))
    assert "holds something" in refused(capsys, "merge", "builtin:scenes", str(tmp_path / "run"))
