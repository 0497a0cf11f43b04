"""Questions about scenes are asked of what was trained on them, and answers are right or wrong."""

from __future__ import annotations

import numpy as np
import pytest

from mixmodal.data import make_source
from mixmodal.judge.suite_questions import examine


class Answering:
    """An exam whose model looks the answers up, or says nothing of use."""

    def __init__(self, knows: bool, tasks: dict[str, float]) -> None:
        self.knows, self.n, self.seed, self.options = knows, 40, 0, {}
        self.about = {"sources": {"two": {"kind": "scenes", "level": "two", "tasks": tasks}}}

    def source(self, kind: str) -> dict:
        return {"kind": kind, "level": "two"}

    def answers(self, documents):
        from dataclasses import replace

        told = [d.about["answer"] if self.knows else "hm" for d in documents]
        return [
            replace(d, parts=(*d.parts[:-1], replace(d.parts[-1], text=text)))
            for d, text in zip(documents, told, strict=True)
        ]


@pytest.mark.parametrize("knows", [True, False])
def test_right_answers_are_counted_by_what_is_asked(knows):
    scores = examine(Answering(knows, {"compare": 1.0, "ask": 1.0}))
    rates = {name: score["value"] for name, score in scores.items() if isinstance(score, dict)}
    assert set(rates) >= {"one_picture.exact", "two_pictures.exact", "two_pictures.changed", "two_pictures.same"}
    assert 0.2 < rates["two_pictures.blind"] < 0.8 and 0.2 < rates["one_picture.blind"] < 0.8
    assert rates["two_pictures.same_blind"] > 0.5
    rates = {name: value for name, value in rates.items() if not name.endswith("blind")}
    assert set(rates.values()) == {float(knows)}


def test_what_was_never_asked_in_training_is_not_asked():
    scores = examine(Answering(True, {"compare": 1.0}))
    assert "two_pictures.exact" in scores and "one_picture.exact" not in scores


def test_the_answers_of_two_pictures_are_not_all_the_same():
    world = make_source({"kind": "scenes", "level": "two", "split": "heldout", "tasks": {"compare": 1.0}})
    rng = np.random.default_rng(0)
    answers = [world.document(0, rng).about["answer"] for _ in range(100)]
    assert max(answers.count(answer) for answer in set(answers)) < 60
