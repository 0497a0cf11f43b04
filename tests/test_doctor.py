"""The doctor: what it says of a machine, an installation and a run; and the curves that say whether a loss is right.

`python tests/test_doctor.py` (with the repository in PYTHONPATH) writes the curve of the tiny recipe anew: after a
change that is meant to change what is learned.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import RECIPE, hasten, quiet

from mixmodal import curves, doctor
from mixmodal.checkpoint import checkpoints
from mixmodal.cli import main
from mixmodal.curves import begins, curve_of, distances, first_losses, record, this_machine, unlike
from mixmodal.doctor import Finding, by_curve, installation, machine, of_run
from mixmodal.train import read_metrics, train

CURVES = Path(__file__).resolve().parent / "curves"
STEPS = 12
SHORT = replace(RECIPE, steps=STEPS, every=6, valid={})


@pytest.fixture(autouse=True)
def hastened(monkeypatch):
    hasten(monkeypatch)
    monkeypatch.setattr(doctor, "measured_peak", lambda *_: 1e11)


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a finished run."""
    return train(replace(SHORT, steps=3, every=1), tmp_path / "run", say=quiet)


def said(findings: list[Finding], state: str) -> str:
    """What the findings of one state say."""
    return "\n".join(f"{finding.what}: {finding.told}" for finding in findings if finding.state == state)


# Curves


def test_the_first_steps_of_the_tiny_recipe_are_those_of_its_curve():
    """To the bit on the machine that recorded it, within 1 % elsewhere."""
    curve = curve_of("tiny", CURVES)
    assert unlike(curve, RECIPE) == [], "the recipe changed: python tests/test_doctor.py"
    found = first_losses(RECIPE, STEPS)
    found = {name: [step[name] for step in found] for name in found[0]}
    if curve["machine"] == this_machine(RECIPE):
        assert found == curve["losses"], "python tests/test_doctor.py writes it anew if that is meant"
    assert found.keys() == curve["losses"].keys()
    assert all(abs(share) < 0.01 for share in distances(curve, found).values())


def test_a_run_follows_the_curve_of_its_recipe(tmp_path):
    """What `train` writes down and what `first_losses` finds are the same numbers."""
    folder = train(SHORT, tmp_path / "run", say=quiet)
    curve = json.loads(record(SHORT, tmp_path / "curves", STEPS).read_text("utf8"))
    lines = read_metrics(folder)
    for name, losses in curve["losses"].items():
        assert [round(loss, 5) for loss in losses] == [line[name] for line in lines]


def test_a_curve_belongs_to_the_settings_that_decide_the_first_steps():
    curve = {"settings": json.loads(json.dumps(begins(RECIPE)))}
    assert unlike(curve, replace(RECIPE, seed=9, steps=99, every=3, keep=9, prompts=("a",))) == []
    assert unlike(curve, replace(RECIPE, rows=5, optim=replace(RECIPE.optim, rate=0.5))) == ["rows", "optim.rate"]
    assert {"rows", "optim.rate", "model.trunk.depth", "sources"} <= set(curve["settings"])
    del curve["settings"]["optim.clip"]  # as if that option had come later
    assert unlike(curve, RECIPE) == []


def test_distances_are_of_the_late_steps_and_pass_over_skipped_ones():
    curve = {"losses": {"a": [9.0] * 5 + [2.0] * 10, "b": [1.0] * 15}}
    found = distances(curve, {"a": [1.0] * 5 + [2.2] * 10, "b": [None] * 14 + [1.0]})
    assert found == pytest.approx({"a": 0.1, "b": 0.0}) and distances(curve, {}) == {}


def test_a_run_is_compared_with_the_curve_of_its_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "recipes", lambda: {"tiny": lambda: RECIPE})
    curve = {"settings": begins(RECIPE), "seed": 0, "losses": {"text.nll": [2.0] * 12}}
    (tmp_path / "tiny.json").write_text(json.dumps(curve), "utf8")

    def told(value: float, count: int = 12, **changes) -> tuple[str, str]:
        lines = [{"step": n + 1, "text.nll": value} for n in range(count)]
        finding = by_curve(replace(RECIPE, **changes), lines, tmp_path)
        return finding.state, finding.told

    assert told(2.01) == ("ok", "the losses are where they should be: text.nll +0.5%")
    assert told(2.1)[0] == "WRONG" and "text.nll +5.0%, 1% allowed" in told(2.1)[1]
    assert told(2.1, seed=4)[0] == "ok" and told(2.3, seed=4)[0] == "WRONG"
    rounded = {**curve, "exact": curve["losses"], "losses": {"text.nll": [1.96] * 12}}  # where it was recorded
    (tmp_path / "tiny.json").write_text(json.dumps(rounded), "utf8")
    assert told(2.1)[0] == "ok" and told(2.2)[0] == "WRONG" and "6% allowed" in told(2.2)[1]
    (tmp_path / "tiny.json").write_text(json.dumps({**rounded, "losses": {"text.nll": [1.9] * 12}}), "utf8")
    assert told(2.28, seed=4)[0] == "ok" and told(2.32, seed=4)[0] == "WRONG"  # farther than seeds lie apart
    late = {**rounded, "losses": {"text.nll": [2.0] * 11 + [1.2]}, "steady": 11}  # of the last step nothing is held
    (tmp_path / "tiny.json").write_text(json.dumps(late), "utf8")
    assert told(2.01)[0] == "ok" and "1% allowed" in told(2.1)[1]
    (tmp_path / "tiny.json").write_text(json.dumps(curve), "utf8")
    assert told(2.0, count=5) == ("note", "too early: 5 steps, ten are compared at least")
    # Of a shorter run the rates fall sooner, and what it loses from there on says nothing.
    assert told(2.0, steps=9) == ("note", "8 steps at its rates, ten are compared at least")
    assert told(2.0, rows=9) == ("note", "there is none to compare with: the run changes rows")
    patches = RECIPE.model.streams["patches"]
    louder = replace(patches, objective={**patches.objective, "sigma_data": 0.5})  # which the recipe does not spell
    louder = replace(RECIPE.model, streams={**RECIPE.model.streams, "patches": louder})
    assert told(2.1, model=louder)[1].endswith("the run changes model.streams.patches.objective.sigma_data")
    assert told(2.0, start="runs/a")[1] == "there is none to compare with: it starts from another model"
    assert "none was recorded for other" in told(2.0, name="other")[1]
    (tmp_path / "tiny.json").write_text(json.dumps({**curve, "settings": {"rows": 99}}), "utf8")
    assert told(2.0) == ("note", "its recipe changed rows since: mixmodal doctor --record tiny")


def test_every_curve_of_the_package_is_of_a_recipe_as_it_is():
    known = doctor.recipes()
    for path in sorted(curves.FOLDER.glob("*.json")):
        curve = json.loads(path.read_text("utf8"))
        assert unlike(curve, known[path.stem]()) == [], f"mixmodal doctor --record {path.stem}"


# The machine and what is installed


def test_the_machine_is_told_with_its_cores_memory_disk_and_speed(tmp_path):
    findings = machine(tmp_path / "not" / "there")
    assert [f.what for f in findings if f.what not in ("load", "threads", "precision")] == [
        "processor",
        "memory",
        "disk",
        "speed",
        "compiler",
        *["GPU"] * max(1, torch.cuda.device_count()),
    ]
    assert "float32 100 GFLOP/s, bfloat16 100 GFLOP/s; precision=auto takes" in said(findings, "ok")


def test_too_many_threads_and_a_full_disk_are_wrong(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.torch, "get_num_threads", lambda: 999)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: type("Use", (), {"free": 1000}))
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    findings = machine(tmp_path)
    assert "set OMP_NUM_THREADS=" in said(findings, "WRONG") and "make room" in said(findings, "WRONG")
    assert "no C++ compiler" in said(findings, "note")


def test_what_is_installed_is_told_and_what_is_missing_is_wrong(monkeypatch, tmp_path):
    monkeypatch.setenv("MIXMODAL_DATA", str(tmp_path / "gone"))
    findings = installation()
    assert f"torch {torch.__version__}" in said(findings, "ok") and "is not there" in said(findings, "WRONG")
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("tyro", "pyarrow") else "1.0")
    monkeypatch.delenv("MIXMODAL_DATA")
    findings = installation()
    assert said(findings, "WRONG") == "missing: tyro: pip install tyro"
    assert "extra data: without pyarrow: pip install 'mixmodal[data]'" in said(findings, "note")


# A run


def test_a_good_run_has_nothing_wrong_with_it(run):
    findings = of_run(run)
    assert not said(findings, "WRONG")
    fine = said(findings, "ok")
    assert "recipe: tiny, seed 0, 3 steps" in fine and "progress: step 3 of 3: finished" in fine
    assert "checkpoint: step 3 is whole\ncheckpoint: step 2 is whole" in fine
    assert "not finite: no step was skipped" in fine


def test_what_is_wrong_with_a_run_is_found(run):
    newest = checkpoints(run)[-1]
    os.truncate(newest / "optimizer.safetensors", 10)
    state = checkpoints(run)[-2] / "state.json"
    told = json.loads(state.read_text("utf8"))
    told["loader"]["skipped"] = {"scenes": 4}
    state.write_text(json.dumps(told), "utf8")
    (run / "checkpoints/step_00000004.part").mkdir()
    lines = (run / "metrics.jsonl").read_text("utf8").splitlines()
    bad = [json.dumps({"step": step, "skipped": "text.nll", "seconds": 1}) for step in (4, 5)]
    (run / "metrics.jsonl").write_text("\n".join([lines[0], lines[2], *bad, '{"st']) + "\n", "utf8")
    (run / "diagnosis.txt").write_text("step 5\nthe loss is bad\ntry: rest\n", "utf8")
    findings = of_run(run)
    wrong, noted = said(findings, "WRONG"), said(findings, "note")
    assert f"step 2 is whole: mixmodal train {run} --resume goes on from there" in said(findings, "ok")
    assert "step_00000003 is not whole (optimizer.safetensors has 10 of" in wrong
    assert "metrics: 1 steps lack a line, 0 have two, 1 lines are broken" in wrong
    assert "not finite: 2 steps were skipped, first 4, last 5, by text.nll: lower optim.rate" in wrong
    assert "diagnosis: at step 5 it ended itself: the loss is bad; try: rest" in wrong
    assert "left out: too long for a row of 96: 4 of scenes" in noted and "step_00000004.part was half" in noted


def test_a_run_that_has_hardly_begun_is_told_so(tmp_path):
    (tmp_path / "recipe.json").write_text('{"name": 3}', "utf8")
    assert "recipe.json cannot be read" in said(of_run(tmp_path), "WRONG")
    train(replace(SHORT, steps=1), tmp_path / "run", say=quiet)
    with pytest.raises(FileNotFoundError, match="no run is in .*: looked for recipe.json"):
        of_run(tmp_path / "nothing")


# The command


def test_the_command_prints_what_it_finds_and_ends_with_one_if_something_is_wrong(run, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "machine", lambda _: [Finding("ok", "processor", "a good one")])
    monkeypatch.setattr(doctor, "installation", lambda: [])
    main(["doctor"])
    assert capsys.readouterr().out == "ok     processor    a good one\n"
    main(["doctor", str(run)])
    assert "step 3 is whole" in capsys.readouterr().out
    (run / "diagnosis.txt").write_text("step 5\nthe loss is bad\n", "utf8")
    with pytest.raises(SystemExit) as end:
        main(["doctor", str(run)])
    assert end.value.code == 1 and capsys.readouterr().out.endswith("1 thing is wrong\n")
    with pytest.raises(SystemExit) as end:
        main(["doctor", str(run / "nowhere")])
    assert end.value.code == 2 and "mixmodal: no run is in" in capsys.readouterr().err


def test_the_command_records_the_curve_of_a_recipe(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mixmodal.recipes.recipe", lambda name: replace(RECIPE, name=name))
    main(["doctor", "--record", "small", "--out", str(tmp_path), "--steps", "2", "--set", "seed=5"])
    assert "small.json" in capsys.readouterr().out
    curve = curve_of("small", tmp_path)
    assert curve["seed"] == 5 and [len(losses) for losses in curve["losses"].values()] == [2, 2]


if __name__ == "__main__":
    torch.set_num_threads(1)
    hasten(pytest.MonkeyPatch())
    print(record(RECIPE, CURVES, STEPS))
