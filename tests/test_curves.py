"""The shipped recipes begin as when their curves were recorded: to the bit there, elsewhere within 1 % in fp64.

The first steps of one recipe belong to every run of the tests; all steps of all recipes to `pytest -m long`. Where a
change of the losses is meant, `OMP_NUM_THREADS=1 mixmodal doctor --record all` writes all curves anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny import RECIPE, hasten, unmeasured
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mixmodal import curves, optim
from mixmodal.cli import main
from mixmodal.curves import FOLDER, curve_of, distances, first_losses, record, steady, this_machine, unlike
from mixmodal.recipes import recipes

RECORDED = sorted(path.stem for path in FOLDER.glob("*.json"))
FIRST = {"digits_16": 3}  # of the recipes whose steps are quickest, and how many of them


class Watched(TorchDispatchMode):
    """A step of training, and the operations in it that took or gave fractions of fewer bits than fp64."""

    def __init__(self, step: Callable) -> None:
        super().__init__()
        self.step, self.narrow = step, set()

    def __call__(self, *given) -> tuple[dict[str, float], bool]:
        with self:
            return self.step(*given)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, made)):
            if isinstance(tensor, torch.Tensor) and tensor.dtype in (torch.float32, torch.bfloat16, torch.float16):
                self.narrow.add(str(func))
        return made


def follows(name: str, steps: int | None = None) -> None:
    """The first steps of a recipe, or all that were recorded, are those of its curve."""
    curve, chosen = curve_of(name), recipes()[name]()
    assert unlike(curve, chosen) == [], f"the recipe changed: mixmodal doctor --record {name}"
    steps, here = steps or len(next(iter(curve["losses"].values()))), curve["machine"] == this_machine(chosen)
    if not here:
        steps = min(steps, curve.get("steady", steps))  # behind these, what machines round otherwise shows
    kind = "losses" if here or "exact" not in curve else "exact"
    try:
        losses = first_losses(chosen, steps, exact=kind == "exact")
    except (FileNotFoundError, ImportError) as error:
        pytest.skip(str(error))
    found = {loss: [step[loss] for step in losses] for loss in losses[0]}
    wanted = {loss: values[:steps] for loss, values in curve[kind].items()}
    assert found.keys() == wanted.keys()
    if here:
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
    curve = json.loads((tmp_path / "tiny.json").read_text("utf8"))
    assert len(curve["losses"]["text.nll"]) == len(curve["exact"]["text.nll"]) == 2


def test_a_curve_in_fp64_is_what_rounds_away_in_fp32_and_says_how_far(tmp_path, monkeypatch):
    """Its weights, its values and what is kept between steps; afterwards all is as it was."""
    hasten(monkeypatch)
    unmeasured(monkeypatch)
    monkeypatch.setattr(optim, "fast_dtype", lambda _: torch.float32)  # Muon's own products in bf16 lead farther
    curve = json.loads(record(RECIPE, tmp_path, 3).read_text("utf8"))
    for name, exact in curve["exact"].items():
        losses = curve["losses"][name]
        assert losses != exact and losses == pytest.approx(exact, rel=1e-5)
        astray = sum(losses) / sum(exact) - 1
        assert astray and distances({"losses": curve["exact"]}, curve["losses"])[name] == pytest.approx(astray)
        assert all(loss != float(np.float32(loss)) for loss in exact)
    assert curve["steady"] == 3
    one, far = [{"a": 2.0, "b": 1.0}] * 3, {"a": 2.0, "b": 1.002}
    assert steady(one, [one[0], {"a": 2.001, "b": 1.0}, far]) == 2 and steady(one, [far, *one[:2]]) == 0
    assert torch.get_default_dtype() == torch.float32 and torch.zeros(1).float().dtype == torch.float32
    monkeypatch.setattr(curves, "train_step", watched := Watched(curves.train_step))
    first_losses(RECIPE, 1, exact=True)
    assert watched.narrow == set()
    again = first_losses(RECIPE, 3)
    assert [step["text.nll"] for step in again] == curve["losses"]["text.nll"]
