"""The demonstration from end to end, and the model in the box."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import RECIPE, hasten

from mixmodal import api, demo
from mixmodal.data import make_source
from mixmodal.data.worlds.scene_grammar import same_meaning
from mixmodal.judge.scenes import judge

BOX = Path(api.__file__).parent / "boxed" / "scenes"


def test_the_demo_trains_judges_and_leaves_a_page(tmp_path, monkeypatch, capsys):
    hasten(monkeypatch)
    monkeypatch.setattr(demo, "recipe", lambda _: replace(RECIPE, minutes=0.0))
    monkeypatch.setattr(demo, "_processes", lambda: 1)
    monkeypatch.setattr(demo, "SHOWN", 2)
    page = demo.demo(tmp_path / "demo", seed=3, n=2)
    text, said = page.read_text("utf8"), capsys.readouterr().out
    assert "exact pictures from sentences" in said and str(page) in said
    assert text.count("<img") == 2 + 2 + 2 + 8  # drawn, described, on the way, from the box
    assert "After 6 steps" in text and "After 12 steps" in text
    assert not re.search(r"(src|href)=.https?:", text)  # it needs no network
    scores = json.loads((tmp_path / "demo" / "scores.json").read_text("utf8"))
    assert scores["n"] == 2 and scores["trained"]["seed"] == 3 and scores["trained"]["steps"] == 12
    with pytest.raises(ValueError, match="--minutes is -1"):
        demo.demo(tmp_path / "demo", minutes=-1.0)


def test_the_model_in_the_box_draws_and_describes_and_is_small():
    assert sum(path.stat().st_size for path in BOX.iterdir()) <= 16 * 2**20
    loaded = api.load("builtin:scenes")
    world = make_source({"kind": "scenes", "level": "full", "split": "heldout"})
    rng = np.random.default_rng(7)
    scenes = [world.draw(rng, "heldout") for _ in range(8)]
    prompts = [world.caption(scene) for scene in scenes]
    drawn = loaded.sample(prompts)
    exact = sum(judge(np.asarray(made), prompt, world.level).exact for made, prompt in zip(drawn, prompts, strict=True))
    said = loaded.caption([world.render(scene) for scene in scenes])
    right = sum(same_meaning(one, prompt) for one, prompt in zip(said, prompts, strict=True))
    assert min(exact, right) >= 7  # of all, more than 19 of 20
