"""The world `digits`: real handwriting, in both directions, with a fixed split."""

import sys

import numpy as np
import pytest

from mixmodal.data.worlds import digits
from mixmodal.data.worlds.digits import NAMES, Digits


@pytest.fixture
def recorded():
    pytest.importorskip("sklearn", reason="digits come with scikit-learn: pip install 'mixmodal[data]'")


def test_every_digit_is_in_one_split(recorded):
    train, held = Digits(split="train"), Digits(split="heldout")
    assert train.size + held.size == 1797 and 300 < held.size < 420
    assert set(train.digits) == set(held.digits) == set(range(10))
    assert not {p.tobytes() for p in train.pictures} & {p.tobytes() for p in held.pictures}


def test_a_picture_shows_its_digit(recorded):
    world = Digits(size=8)
    means = np.stack([world.pictures[world.digits == digit].mean(axis=0).ravel() for digit in range(10)])
    held = Digits(size=8, split="heldout")
    right = 0
    for index in range(held.size):
        pixels, name = held.pair(index)
        nearest = ((means - pixels[..., 0].ravel()) ** 2).sum(axis=1).argmin()
        right += NAMES[nearest] == name
    assert right / held.size > 0.85


def test_documents_go_both_ways(recorded):
    world, tasks = Digits(), set()
    for index in range(20):
        document = world.document(index, np.random.default_rng(index))
        tasks.add(document.about["task"])
        picture, text = sorted(document.parts, key=lambda part: part.medium)
        assert picture.pixels.shape == (16, 16, 3) and (picture.pixels[..., 0] == picture.pixels[..., 2]).all()
        assert world.parse(text.text) == world.digits[index]
        assert picture.wanted == (document.about["task"] == "draw")
    assert tasks == {"draw", "describe"}


def test_a_caption_names_its_digit():
    assert [Digits.parse(name) for name in NAMES] == list(range(10))
    assert Digits.parse(" An  Eight ") == 8
    assert Digits.parse("eight") is None


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    digits._recorded.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'mixmodal\[data\]'"):
        Digits()


def test_a_picture_is_not_smaller_than_it_was_recorded():
    with pytest.raises(ValueError, match="wanted 8 to 256 px"):
        Digits(size=4)
