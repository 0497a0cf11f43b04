"""The suite `inpainting`: the box of one object of a held-out scene is hidden and filled, and the whole read back."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from mixmodal.data import make_source
from mixmodal.data.worlds.scene_render import extent
from mixmodal.data.worlds.scenes import level_of
from mixmodal.filling import masked
from mixmodal.generate import Request, generate
from mixmodal.judge.intervals import rate
from mixmodal.judge.scenes import judge
from mixmodal.judge.suites import Exam
from mixmodal.parts import Document, Image, Text

MARGIN = 1  # px around an object that are hidden with it: its edge is soft


def examine(exam: Exam) -> dict[str, Any]:
    """Rates of exact pictures, filled and drawn from nothing, and how steep the seam is next to the true picture's."""
    spec = {**exam.source("scenes"), **exam.options}
    level = spec.get("level", "full")
    spec.setdefault("kinds", {kind: 1 for kind in ("pair", "groups") if kind in level_of(level).kinds})
    world = make_source({**spec, "split": "heldout"})
    rng = np.random.default_rng([exam.seed, 11])
    scenes = [world.draw(rng, "heldout") for _ in range(exam.n)]
    captions, pictures = [world.caption(s) for s in scenes], [world.render(s) for s in scenes]
    boxes = [box_of(scene, rng) for scene in scenes]
    asked = []
    for caption, picture, box in zip(captions, pictures, boxes, strict=True):
        known = np.ones(picture.shape[:2], bool)
        known[box] = False
        asked.append(Document((Text(caption), masked(picture, known))))
    requests = [Request(replace(d, key=number), exam.settings, exam.seed) for number, d in enumerate(asked)]
    filled = [d.parts[-1].pixels for d in generate(exam.model, requests, live=128, dtype=exam.dtype, watch=exam.watch)]
    drawn = exam.answers([Document((Text(c), Image(p))) for c, p in zip(captions, pictures, strict=True)])
    kept = [
        bool((made == true)[d.parts[-1].known].all()) for made, true, d in zip(filled, pictures, asked, strict=True)
    ]
    steep = [(seam(made, box), seam(true, box)) for made, true, box in zip(filled, pictures, boxes, strict=True)]
    return {
        "level": level,
        "filled.exact": rate(judge(made, caption, level).exact for made, caption in zip(filled, captions, strict=True)),
        "text_to_image.exact": rate(
            judge(made.parts[-1].pixels, caption, level).exact for made, caption in zip(drawn, captions, strict=True)
        ),
        "kept.exact": rate(kept),
        "seam.gradient": float(np.mean([a for a, _ in steep])),
        "seam.gradient_true": float(np.mean([b for _, b in steep])),
        "seam.gradient_ratio": float(np.mean([a for a, _ in steep]) / max(np.mean([b for _, b in steep]), 1e-8)),
    }


def box_of(scene: Any, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of one of the scene's objects, with its soft edge."""
    objects = [
        (group, centre)
        for group, centres in zip(scene.meaning.groups, scene.centres, strict=True)
        for centre in centres
    ]
    group, (x, y) = objects[int(rng.integers(len(objects)))]
    width, height = extent(group.shape, group.size, scene.side)

    def along(middle: float, length: float) -> slice:
        first, last = math.floor(middle - length / 2) - MARGIN, math.ceil(middle + length / 2) + MARGIN
        return slice(max(first, 0), min(last, scene.side))

    return along(y, height), along(x, width)


def seam(pixels: np.ndarray, box: tuple[slice, slice]) -> float:
    """The mean difference of neighbours of which one lies in the box and one does not.

    Units:   grey levels.
    """
    values, (rows, columns) = pixels.astype(np.float32), box
    steps = []
    for edge, inside in ((rows.start, rows.start - 1), (rows.stop - 1, rows.stop)):
        if 0 <= inside < len(values):
            steps.append(np.abs(values[edge, columns] - values[inside, columns]).ravel())
    for edge, inside in ((columns.start, columns.start - 1), (columns.stop - 1, columns.stop)):
        if 0 <= inside < values.shape[1]:
            steps.append(np.abs(values[rows, edge] - values[rows, inside]).ravel())
    return float(np.concatenate(steps).mean()) if steps else 0.0
