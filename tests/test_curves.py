"""The shipped recipes begin as when their curves were recorded: to the bit on that machine, within 1 % elsewhere.

The first steps of one recipe belong to every run of the tests; all steps of all recipes to `pytest -m long`. Where a
change of the losses is meant, `OMP_NUM_THREADS=1 mixmodal doctor --record all` writes all curves anew.
"""

from __future__ import annotations

import json

import pytest
from tiny import RECIPE, hasten, unmeasured

from mixmodal.cli import main
from mixmodal.curves import FOLDER, curve_of, distances, first_losses, this_machine, unlike
from mixmodal.recipes import recipes

RECORDED = sorted(path.stem for path in FOLDER.glob("*.json"))
FIRST = {"digits_16": 3}  # of the recipes whose steps are quickest, and how many of them


def follows(name: str, steps: int | None = None) -> None:
    """The first steps of a recipe, or all that were recorded, are those of its curve."""
    curve, chosen = curve_of(name), recipes()[name]()
    assert unlike(curve, chosen) == [], f"the recipe changed: mixmodal doctor --record {name}"
    steps = steps or len(next(iter(curve["losses"].values())))
    try:
        losses = first_losses(chosen, steps)
    except (FileNotFoundError, ImportError) as error:
        pytest.skip(str(error))
    found = {loss: [step[loss] for step in losses] for loss in losses[0]}
    wanted = {loss: values[:steps] for loss, values in curve["losses"].items()}
    assert found.keys() == wanted.keys()
    if curve["machine"] == this_machine(chosen):
        assert found == wanted, f"mixmodal doctor --record {name} writes it anew, if that is meant"
    away = distances({"losses": wanted}, found)
    assert all(abs(share) < 0.01 for share in away.values()), away


@pytest.mark.parametrize("name", FIRST)
def test_the_first_steps_of_a_shipped_recipe_are_those_of_its_curve(name, monkeypatch):
    unmeasured(monkeypatch)
    if name not in RECORDED:
        pytest.skip(f"no curve was recorded: mixmodal doctor --record {name}")
    follows(name, FIRST[name])


@pytest.mark.long
@pytest.mark.parametrize("name", RECORDED)
def test_a_shipped_recipe_follows_its_curve(name):
    follows(name)


def test_the_command_records_all_recipes_whose_data_is_here(tmp_path, capsys, monkeypatch):
    def lacking():
        raise FileNotFoundError("no data here")

    hasten(monkeypatch)
    monkeypatch.setattr("mixmodal.recipes.recipes", lambda: {"tiny": lambda: RECIPE, "other": lacking})
    main(["doctor", "--record", "all", "--out", str(tmp_path), "--steps", "2"])
    told = capsys.readouterr().out
    assert "other: left out, no data here" in told and "tiny.json" in told
    assert len(json.loads((tmp_path / "tiny.json").read_text("utf8"))["losses"]["text.nll"]) == 2
