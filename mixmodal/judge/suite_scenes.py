"""The suite `scenes`: pictures from held-out sentences, sentences about held-out pictures, read back exactly."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from mixmodal.data import make_source
from mixmodal.data.worlds.scene_grammar import same_meaning
from mixmodal.data.worlds.scenes import level_of
from mixmodal.judge.intervals import mean_share, rate
from mixmodal.judge.scenes import judge
from mixmodal.judge.suites import Exam
from mixmodal.parts import Document, Image, Text

TUNED = {"splits": "train"}  # of what is held out some levels have too few for a test and what is tuned on
NEAREST_OF = 2000  # training scenes among which the nearest is looked for


def examine(exam: Exam) -> dict[str, Any]:
    """Rates of exact pictures and captions for held-out combinations, pairs with a relation where a level has any."""
    spec = {**exam.source("scenes"), **exam.options}
    level = spec.get("level", "full")
    kinds = level_of(level).kinds
    spec.setdefault("kinds", {kind: 1 for kind in ("pair", "groups") if kind in kinds} or dict(kinds))
    scores: dict[str, Any] = {"level": level, "size": spec.get("size", 32), "kinds": spec["kinds"]}
    scores |= {"freedom": f"{spec['freedom']:g}"} if "freedom" in spec else {}
    wanted = spec.pop("splits", "heldout unseen").split()
    if "train" in wanted and len(wanted) > 1:
        raise ValueError(f"splits is {' '.join(wanted)}: what was trained on is asked alone")
    for split, prefix in (("heldout", ""), ("unseen", "unseen_pairs."), ("train", "")):
        if split not in wanted:
            continue
        world = make_source({**spec, "split": split})
        rng = np.random.default_rng([exam.seed, 7 if split == "heldout" else 8])
        scenes = [world.draw(rng, split) for _ in range(exam.n)]
        captions = [world.caption(scene) for scene in scenes]
        pictures = [world.render(scene) for scene in scenes]
        scores[f"{prefix}different"] = len(set(captions))  # a level may have fewer meanings than are asked
        if exam.makes(Image.medium):
            scores |= _drawn(exam, captions, pictures, level, prefix)
        if exam.makes(Text.medium):
            shown = [
                Document((Image(picture, wanted=False), Text(caption)))
                for caption, picture in zip(captions, pictures, strict=True)
            ]
            written = [made.parts[-1].text for made in exam.answers(shown)]
            scores[f"{prefix}image_to_text.exact"] = rate(
                same_meaning(said, caption) for said, caption in zip(written, captions, strict=True)
            )
        if split == "heldout" and not exam.only:
            scores |= _nearest(world, spec, captions, exam.seed)
    return scores


def questions(exam: Exam) -> list[Document]:
    """Documents that end in a scene to draw."""
    spec = {**exam.source("scenes"), **exam.options}
    spec.pop("splits", None)
    world, rng = make_source({**spec, "split": "heldout"}), np.random.default_rng([exam.seed, 5])
    drawn = [world.draw(rng, "heldout") for _ in range(exam.n)]
    return [Document((Text(world.caption(thing)), Image(world.render(thing)))) for thing in drawn]


def _drawn(exam: Exam, captions: list[str], pictures: list[np.ndarray], level: str, prefix: str) -> dict[str, Any]:
    """The rates of pictures drawn for these sentences."""
    asked = [Document((Text(caption), Image(picture))) for caption, picture in zip(captions, pictures, strict=True)]
    verdicts = [
        judge(made.parts[-1].pixels, caption, level)
        for made, caption in zip(exam.answers(asked), captions, strict=True)
    ]
    scores = {
        f"{prefix}text_to_image.exact": rate(verdict.exact for verdict in verdicts),
        f"{prefix}text_to_image.parts": mean_share(verdict.fraction for verdict in verdicts),
    }
    for part in ("background", "count", "colours", "shapes", "sizes", "relation"):
        if told := [v.parts[part] for v in verdicts if part in v.parts]:  # captions of one group have no relation
            scores[f"{prefix}text_to_image.{part}"] = rate(told)
    return scores


def _nearest(world: Any, spec: dict, captions: list[str], seed: int) -> dict[str, Any]:
    """What the training picture whose caption shares most words with the sentence would score."""
    trained = make_source({**spec, "split": "train"})
    rng = np.random.default_rng([seed, 9])
    scenes = [trained.draw(rng, "train") for _ in range(NEAREST_OF)]
    bags = [Counter(trained.caption(scene).split()) for scene in scenes]
    level = spec.get("level", "full")
    verdicts = []
    for caption in captions:
        words = Counter(caption.split())
        shared = [(words & bag).total() - (bag - words).total() for bag in bags]
        verdicts.append(judge(trained.render(scenes[int(np.argmax(shared))]), caption, level))
    return {
        "nearest_training.exact": rate(v.exact for v in verdicts),
        "nearest_training.parts": mean_share(v.fraction for v in verdicts),
    }
