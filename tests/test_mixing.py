"""The mixture: what is drawn depends on the seed and the number alone, and survives stops."""

import json
import time
from itertools import islice

import numpy as np
import pytest
from tiny import own_pictures

from mixmodal.data import make_mixture
from mixmodal.data.mixing import Mixture, document_key, document_rng, readable
from mixmodal.data.report import LeftOut
from mixmodal.parts import Document, Text


class Numbers:
    """A source whose documents tell which one they are and one random number."""

    def __init__(self, name: str, size: int | None = None) -> None:
        self.name, self.size = name, size

    def document(self, index: int, rng: np.random.Generator) -> Document:
        return Document((Text(f"{self.name} {index} {rng.random():.12f}"),), about={"own": index})


def three():
    return {Numbers("small", 7): 1, Numbers("large", 1000): 2, Numbers("endless"): 3}


def texts(documents) -> list[str]:
    return [document.parts[0].text for document in documents]


def test_the_same_seed_draws_the_same_documents_and_another_seed_others():
    first = texts(islice(Mixture(three(), seed=5), 200))
    assert first == texts(islice(Mixture(three(), seed=5), 200))
    assert first != texts(islice(Mixture(three(), seed=6), 200))


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70 + 1])
def test_any_whole_number_is_a_seed(seed):
    with np.errstate(all="raise"):
        assert len(texts(islice(Mixture(three(), seed=seed), 50))) == 50


def test_a_finite_source_gives_every_document_once_an_epoch_in_a_fresh_order():
    mixture = Mixture({Numbers("small", 50): 1, Numbers("endless"): 1}, seed=1)
    draws = [mixture.draw() for _ in range(600)]
    small = [draw for draw in draws if draw.source == 0]
    epochs = [[draw.index for draw in small[start : start + 50]] for start in (0, 50, 100, 150)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert [draw.visit for draw in small[:200]] == [0] * 50 + [1] * 50 + [2] * 50 + [3] * 50
    endless = [draw.index for draw in draws if draw.source == 1]
    assert endless == list(range(len(endless)))


def test_sources_come_by_their_weights_and_a_weight_of_zero_never_comes():
    sources = [(Numbers("never first"), 0), (Numbers("one"), 1), (Numbers("three"), 3), (Numbers("never last"), 0)]
    mixture = Mixture(sources, seed=3)
    drawn = np.bincount([mixture.draw().source for _ in range(20000)], minlength=4)
    assert drawn[0] == drawn[3] == 0
    assert abs(drawn[1] / 20000 - 0.25) < 0.01


def test_a_mixture_goes_on_from_its_state_as_if_it_had_never_stopped():
    whole = Mixture(three(), seed=9)
    expected = texts(islice(whole, 3000))
    stopped = Mixture(three(), seed=9)
    got = texts(islice(stopped, 1234))
    saved = json.dumps(stopped.state())
    assert len(saved) < 300
    resumed = Mixture(three(), seed=9)
    resumed.load(json.loads(saved))
    assert got + texts(islice(resumed, 3000 - 1234)) == expected


def test_a_preview_shows_what_comes_without_moving_on():
    mixture = Mixture(three(), seed=9)
    assert texts(mixture.preview(20)) == texts(islice(mixture, 20))


def test_a_document_has_its_stable_key_and_the_random_numbers_of_its_visit():
    document = next(mixture := Mixture({Numbers("small", 1): 1}, seed=4))
    again = next(mixture)
    assert document.key == again.key == document_key("small", 0) == 5111271660274093131
    assert document.about == {"own": 0, "source": "small", "index": 0, "visit": 0, "draw": 0}
    assert again.about["visit"] == 1
    assert document.parts[0].text.endswith(f"{document_rng(4, 'small', 0, 0).random():.12f}")
    assert document.parts[0].text != again.parts[0].text


def test_random_numbers_differ_between_sources_documents_visits_and_seeds():
    first = [
        document_rng(seed, name, index, visit).random()
        for seed in (0, 1)
        for name in ("a", "b")
        for index in (0, 1)
        for visit in (0, 1)
    ]
    assert len(set(first)) == 16


def test_drawing_costs_little_beside_the_source():
    mixture = Mixture(three(), seed=0)
    next(mixture)
    best = min(_seconds(mixture, 500) for _ in range(5))
    assert best < 200e-6  # 25 microseconds on a quiet machine


def _seconds(mixture: Mixture, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        next(mixture)
    return (time.perf_counter() - start) / count


def test_a_state_of_other_data_or_another_seed_is_refused():
    state = Mixture(three(), seed=1).state()
    with pytest.raises(ValueError, match="seed"):
        Mixture(three(), seed=2).load(state)
    with pytest.raises(ValueError, match="sizes"):
        Mixture({Numbers("small", 8): 1, Numbers("large", 1000): 2, Numbers("endless"): 3}, seed=1).load(state)
    with pytest.raises(ValueError, match="sizes"):
        Mixture({Numbers("small", 7): 1}, seed=1).load(state)


@pytest.mark.parametrize(
    "sources, says",
    [
        ({}, "weights"),
        ([(Numbers("a"), 0)], "weights"),
        ([(Numbers("a"), -1), (Numbers("b"), 3)], "weights"),
        ([(Numbers("a"), float("nan"))], "weights"),
        ([(Numbers("a"), 1), (Numbers("a"), 1)], "different names"),
        ([(Numbers("a", 0), 1)], "empty"),
    ],
)
def test_sources_that_cannot_be_mixed_are_refused_with_a_reason(sources, says):
    with pytest.raises(ValueError, match=says):
        Mixture(sources)


def test_documents_that_cannot_be_read_are_passed_over_and_no_number_lies_beyond_the_end():
    class Broken:
        name, size = "broken", 4

        def document(self, index, rng):
            if index == 1:
                raise LeftOut("broken")
            return Document((Text(f"{index} {rng.integers(100)}"),))

    read = [d.parts[0].text for d in readable(Broken(), range(9), 3)]
    assert [text.split()[0] for text in read] == ["0", "2", "3"]
    assert read == [d.parts[0].text for d in readable(Broken(), range(9), 3)]


@pytest.mark.parametrize("kind", ["pictures", "world"])
def test_words_are_those_of_the_next_documents_and_no_picture_is_decoded(kind, tmp_path, monkeypatch):
    spec = {"kind": "scenes", "level": "one"}
    if kind == "pictures":
        spec = {"kind": "folder", "path": str(own_pictures(tmp_path / "own", 8)), "size": 16}
    mixture = make_mixture({"a": spec, "prose": {"kind": "prose"}}, 3)
    told = [[part.text for part in d.parts if part.medium == "text"] for d in mixture.preview(40)]
    if kind == "pictures":
        monkeypatch.setattr("mixmodal.data.found.decode_at", lambda *_, **__: pytest.fail("a picture was decoded"))
        mixture.sources[0]._kept.clear()
    assert [[part.text for part in d.parts] for d in mixture.words(40)] == told
    assert mixture.state()["number"] == 0
