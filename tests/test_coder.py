"""The range coder: what goes in comes out, at the price of its probability."""

import numpy as np
import pytest

from mixmodal.coder import cumulative, decode, decode_adaptively, encode, encode_adaptively


def laws_of(kind: str, count: int = 2000) -> list[np.ndarray]:
    """Scores of random laws, some of them extreme."""
    rng = np.random.default_rng(len(kind))
    sizes = rng.integers(1, 300, count)
    if kind == "even":
        return [np.zeros(size) for size in sizes]
    if kind == "sure":  # nearly always one number
        return [np.where(np.arange(size) == size // 2, 30.0, 0.0) for size in sizes]
    return [rng.normal(0, {"mild": 1, "wild": 8, "absurd": 300}[kind], size).astype(np.float32) for size in sizes]


def price(scores: list[np.ndarray], numbers: list[int]) -> float:
    """Bits by the softmax."""
    return sum(np.logaddexp.reduce(s.astype(np.float64)) - s[n] for s, n in zip(scores, numbers, strict=True)) / np.log(
        2
    )


@pytest.mark.parametrize("kind", ["even", "mild", "wild", "sure"])
def test_numbers_come_back_and_cost_what_their_law_says(kind):
    scores, rng = laws_of(kind), np.random.default_rng(1)
    laws = [cumulative(s) for s in scores]
    numbers = [int(np.searchsorted(law, rng.integers(law[-1]), side="right")) - 1 for law in laws]
    data = encode(numbers, laws)
    assert decode(data, laws) == numbers
    bits = price(scores, numbers)
    assert abs(8 * len(data) - bits) <= 0.001 * bits + 64
    assert 8 * len(data) <= bits * (1 + 1e-6) + 16


@pytest.mark.parametrize("kind", ["wild", "sure", "absurd"])
def test_the_least_likely_numbers_come_back_too(kind):
    scores = laws_of(kind, 300)
    laws, numbers = [cumulative(s) for s in scores], [int(s.argmin()) for s in scores]
    assert decode(encode(numbers, laws), laws) == numbers
    assert all(law[0] == 0 and (np.diff(law) > 0).all() and law[-1] <= 2**32 for law in laws)


def test_a_carry_runs_back_over_many_bytes():
    law = np.array([0, 1, 2**32 - 1, 2**32])
    for last in (0, 1, 2):
        numbers = [2] * 40 + [1] * 40 + [2, 0] * 20 + [last] * 30
        assert decode(encode(numbers, [law] * len(numbers)), [law] * len(numbers)) == numbers


def test_nothing_takes_no_bytes_and_few_numbers_few():
    assert encode([], []) == b""
    sure = cumulative(np.array([0.0, 40.0]))
    assert len(encode([1] * 1000, [sure] * 1000)) <= 1
    assert len(encode([3], [np.arange(257)])) <= 2


def test_a_number_that_a_law_never_gives_is_refused():
    for number in (1, 3, -1):
        with pytest.raises(ValueError, match="never gives"):
            encode([number], [np.array([0, 4, 4, 9])])
    assert decode(encode([0, 2], [np.array([0, 4, 4, 9])] * 2), [np.array([0, 4, 4, 9])] * 2) == [0, 2]


@pytest.mark.parametrize("size", [1, 2, 256, 5000])
def test_an_adaptive_law_learns_what_is_frequent(size):
    numbers = np.minimum(np.random.default_rng(size).geometric(0.3, 4000) - 1, size - 1)
    data = encode_adaptively(numbers, size)
    assert np.array_equal(decode_adaptively(data, len(numbers), size), numbers)
    counts, bits = np.zeros(size), 0.0
    for at, number in enumerate(numbers):
        bits -= np.log2((counts[number] + 0.5) / (at + size / 2))
        counts[number] += 1
    assert abs(8 * len(data) - bits) <= 0.001 * bits + 64
