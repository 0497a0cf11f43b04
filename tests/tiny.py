"""A recipe so small that a training takes a second, and what makes training quick to start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from mixmodal import prepare, watch
from mixmodal.config import OptimConfig, Recipe, TrunkConfig
from mixmodal.designs import lossless

TRUNK = TrunkConfig(width=32, depth=1, heads=2, kv_heads=2, head_size=16, mlp_width=64, mlp="relu2", norm_gain=False)
WORLD = {"kind": "scenes", "level": "one", "size": 16}
RECIPE = Recipe(
    "tiny",
    lossless.model(TRUNK, flow={"copies": 2, "clamp": 0.1}),
    {"scenes": WORLD},
    {"scenes": {**WORLD, "split": "heldout"}},
    OptimConfig(matrix_rate=0.02, rate=0.01, warmup=2, decay=0.2),
    vocabulary=300,
    rows=4,
    length=96,
    steps=12,
    every=6,
    precision="float32",
    compile=False,
    sample_size=(16, 16),
    steps_sampled=2,
)


def tied(recipe: Recipe) -> Recipe:
    """The recipe with a head that reads with the table of its codec."""
    streams = recipe.model.streams
    text = replace(streams["text"], head={"kind": "categorical", "tied": True})
    return replace(recipe, model=replace(recipe.model, streams={**streams, "text": text}))


def hasten(patch: pytest.MonkeyPatch) -> None:
    """Fewer documents for the tokenizer, for estimates and for validation, and no measurement of the machine."""
    patch.setattr(prepare, "TOKENIZER_DOCUMENTS", 40)
    patch.setattr(prepare, "EXAMPLES", 1)
    patch.setattr(watch, "VALID_DOCUMENTS", 3)
    patch.setattr(watch, "SAMPLED", 4)
    patch.setattr(watch, "TOKENS", 6)
    patch.setattr(prepare, "measured_peak", lambda *_: 1e11)


def unmeasured(patch: pytest.MonkeyPatch) -> None:
    """No estimate of memory, which takes a third of a short training: for tests of what comes behind it."""
    patch.setattr(prepare, "memory_of", lambda *_: 1e8)


def quiet(_: str) -> None:
    """Nothing is said."""


def own_pictures(folder: Path, count: int = 6) -> Path:
    """A folder of pictures of several sizes and forms, each with a caption beside it."""
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (20 + 4 * number, 40, 3), dtype=np.uint8)
        ending = ("png", "jpg")[number % 2]
        Picture.fromarray(pixels).save(folder / f"{number}.{ending}")
        (folder / f"{number}.txt").write_text(f"picture number {number}\n", encoding="utf8")
    return folder
