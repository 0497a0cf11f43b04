"""The suite `questions`: answers about one scene, and about two, each told exactly."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from mixmodal.data import make_source
from mixmodal.data.worlds.scene_questions import CHANGED, SAME
from mixmodal.judge.intervals import rate
from mixmodal.judge.suites import Exam

TASKS = {"ask": "one_picture", "compare": "two_pictures"}


def examine(exam: Exam) -> dict[str, Any]:
    """Rates of right answers by number of pictures, and for two by what is asked of them.

    `blind` is that of whoever sees no picture and says, to each kind of question, what is right most often: of all, and
    of each kind.
    """
    spec = {**exam.source("scenes"), **exam.options}
    spec.pop("splits", None)
    scores: dict[str, Any] = {"level": spec.get("level", "full"), "size": spec.get("size", 32)}
    for task, name in TASKS.items():
        if not _shown(exam, task):
            continue
        world = make_source({**spec, "split": "heldout", "tasks": {task: 1.0}})
        rng = np.random.default_rng([exam.seed, 21 if task == "ask" else 22])
        asked = [world.document(0, rng) for _ in range(exam.n)]
        said = [made.parts[-1].text for made in exam.answers([replace(document) for document in asked])]
        right = [text.strip() == d.about["answer"] for text, d in zip(said, asked, strict=True)]
        scores[f"{name}.exact"] = rate(right)
        by_kind, answers = defaultdict(list), defaultdict(Counter)
        for hit, document in zip(right, asked, strict=True):
            kind = _kind(document.about["question"]) if task == "compare" else _asking(document.about["question"])
            by_kind[kind].append(hit)
            answers[kind][document.about["answer"]] += 1
        guessed = {kind: found.most_common(1)[0][1] for kind, found in answers.items()}
        if task == "compare":
            scores |= {f"{name}.{kind}": rate(hits) for kind, hits in sorted(by_kind.items())}
            for kind, count in sorted(guessed.items()):
                scores[f"{name}.{kind}_blind"] = rate([n < count for n in range(len(by_kind[kind]))])
        scores[f"{name}.blind"] = rate([n < sum(guessed.values()) for n in range(len(asked))])
    return scores


def _shown(exam: Exam, task: str) -> bool:
    """Whether the model's training asked this."""
    return any((spec.get("tasks") or {}).get(task) for spec in exam.about.get("sources", {}).values())


def _asking(question: str) -> str:
    """What a question about one scene is after: its first words, since the others name what is in the picture."""
    return " ".join(question.split()[:2])


def _kind(question: str) -> str:
    """What a question about two scenes is after."""
    if "background" in question:
        return "backgrounds"
    return "same" if question.startswith(SAME) else "changed" if question.startswith(CHANGED) else "which"
