"""The examples of CONTRIBUTING.md, as they stand there: found, trained for two steps, asked and judged."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mixmodal.data
from mixmodal.api import load
from mixmodal.config import override
from mixmodal.judge.suites import Exam, examine
from mixmodal.recipes import recipe
from mixmodal.train import train

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL)
CELLS = {
    "as it is": [],
    "codec": ["model.streams.patches.codec.kind=differences"],
    "objective": ['model.streams.patches.objective={"kind": "denoise"}'],
    "head": [
        'model.streams.patches.objective={"kind": "denoise"}',
        'model.streams.patches.head={"kind": "gaussian"}',
    ],
}


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """The examples as files beside the package's own, for as long as these tests run."""
    home, packages = tmp_path_factory.mktemp("examples"), set()
    with pytest.MonkeyPatch.context() as patch:
        for block in BLOCKS:
            first, _, code = block.partition("\n")
            if found := re.match(r"# mixmodal/(\S+)/\S+\.py$", first):
                file = home / first[2:]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(code, "utf-8")
                packages.add(found[1].replace("/", "."))
            elif line := re.match(r' +"(\w+)": "(mixmodal\S+)",$', first):
                patch.setitem(mixmodal.data.KINDS, line[1], line[2])
        for name in packages:
            package = importlib.import_module(f"mixmodal.{name}")
            patch.setattr(package, "__path__", [*package.__path__, str(home / "mixmodal" / name)])
        yield


@pytest.mark.parametrize("cell", CELLS)
def test_every_example_of_the_contributing_page_trains_and_is_judged(examples, cell, tmp_path):
    short = ["steps=2", "rows=2", "compile=false", "steps_sampled=2", "vocabulary=280", 'precision="float32"']
    chosen = replace(override(recipe("halves"), [*short, *CELLS[cell]]), valid={})
    loaded = load(train(chosen, tmp_path / "run", say=lambda line: None))
    picture = loaded.sample("red on the left, blue on the right", steps=2)[0]
    assert picture.size == (16, 16)
    scores = examine("halves", Exam(loaded.model, loaded.about, 2, settings=loaded.settings(max_tokens=4)))
    assert 0 <= scores["text_to_image.exact"]["value"] <= 1
    if cell == "codec":
        source = mixmodal.data.make_source({"kind": "halves"})
        part = source.document(0, np.random.default_rng(0)).parts
        image = next(p for p in part if p.medium == "image")
        codec = loaded.model.streams["patches"].codec
        grid = codec.encode(image)
        assert (codec.decode(grid.values, grid, image.cleared()).pixels == image.pixels).all()
        assert codec.embedding_rank() == codec.size
