"""Where the objects of a scene stand: cut the picture in two again and again, one object a piece.

A cut tree always leads to places that do not touch, so nothing is tried more than a bounded number of times.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mixmodal.data.worlds.scene_grammar import Meaning
from mixmodal.data.worlds.scene_render import GAP, MARGIN, extent, unit_of

CLEAR = 1.25  # along the axis of a relation two groups are at least this much further apart than across it
_TRIES = 12


@dataclass(frozen=True)
class Scene:
    """A meaning and where it stands: per group the centres (x, y) in px, y downward."""

    meaning: Meaning
    centres: tuple[tuple[tuple[float, float], ...], ...]
    side: int


@functools.lru_cache(maxsize=16)
def _trees(count: int) -> tuple:
    """All ways to cut room for `count` equal objects: (columns, rows, axis, first, second), a leaf (1, 1)."""
    if count == 1:
        return ((1, 1),)
    found = []
    for part in range(1, count):
        for first in _trees(part):
            for second in _trees(count - part):
                found.append((first[0] + second[0], max(first[1], second[1]), 0, first, second))
                found.append((max(first[0], second[0]), first[1] + second[1], 1, first, second))
    return tuple(found)


def _need(tree: tuple, box: tuple[float, float], gap: float) -> tuple[float, float]:
    return tree[0] * (box[0] + gap) - gap, tree[1] * (box[1] + gap) - gap


@functools.lru_cache(maxsize=65536)
def _choices(counts: tuple[int, ...], boxes: tuple[tuple[float, float], ...], axis: int, side: int) -> tuple:
    """The trees (one a group) that fit, with the relation's cut along `axis`."""
    unit = unit_of(side)
    room, gap = side - 2 * MARGIN * unit, GAP * unit
    if len(counts) == 1:
        return tuple((tree,) for tree in _trees(counts[0]) if max(_need(tree, boxes[0], gap)) <= room)
    found = []
    for first in _trees(counts[0]):
        one = _need(first, boxes[0], gap)
        if max(one) > room:
            continue
        for second in _trees(counts[1]):
            two = _need(second, boxes[1], gap)
            if max(two) <= room and one[axis] + gap + two[axis] <= room:
                found.append((first, second))
    return tuple(found)


def _spread(tree, box, gap, x0, y0, x1, y1, draws, out) -> None:
    if len(tree) == 2:
        width, height = box
        out.append(
            (x0 + width / 2 + (x1 - x0 - width) * next(draws), y0 + height / 2 + (y1 - y0 - height) * next(draws))
        )
        return
    _, _, axis, first, second = tree
    one, two = _need(first, box, gap)[axis], _need(second, box, gap)[axis]
    if axis == 0:
        cut = x0 + one + (x1 - x0 - one - two - gap) * next(draws)
        _spread(first, box, gap, x0, y0, cut, y1, draws, out)
        _spread(second, box, gap, cut + gap, y0, x1, y1, draws, out)
    else:
        cut = y0 + one + (y1 - y0 - one - two - gap) * next(draws)
        _spread(first, box, gap, x0, y0, x1, cut, draws, out)
        _spread(second, box, gap, x0, cut + gap, x1, y1, draws, out)


def _mean(points: list, axis: int) -> float:
    return sum(point[axis] for point in points) / len(points)


def _clear(first: list, second: list, axis: int) -> bool:
    along = abs(_mean(first, axis) - _mean(second, axis))
    return along > CLEAR * abs(_mean(first, 1 - axis) - _mean(second, 1 - axis))


def _aligned(points: list, reach: float, axis: int, low: float, high: float) -> list:
    """The group moved along `axis` so that its mean is in the middle, as far as the edges let it."""
    values = [point[axis] for point in points]
    shift = (low + high) / 2 - sum(values) / len(values)
    shift = min(max(shift, low + reach - min(values)), high - reach - max(values))
    if axis == 0:
        return [(x + shift, y) for x, y in points]
    return [(x, y + shift) for x, y in points]


def fits(meaning: Meaning, side: int) -> bool:
    """Whether a picture `side` px wide has room for this."""
    return bool(_options(meaning.canonical(), side))


def _options(meaning: Meaning, side: int) -> tuple:
    counts = tuple(group.count for group in meaning.groups)
    boxes = tuple(extent(group.shape, group.size, side) for group in meaning.groups)
    return _choices(counts, boxes, int(meaning.relation == "above"), side)


def _draws(rng: np.random.Generator, freedom: float) -> Iterator[float]:
    return iter((0.5 + freedom * (rng.random(32) - 0.5)).tolist())


def place(meaning: Meaning, side: int, rng: np.random.Generator, freedom: float = 1.0) -> Scene | None:
    """A scene with this meaning at random places, or None where it does not fit.

    Units: `freedom` is the share of its room in which an object is placed; 0 puts it in the middle, 1 anywhere.

    Objects keep the gap and the margin; the members of one group all lie on their side of a cut, and the
    offset between the two groups is longer along the relation than across it by `CLEAR`.
    """
    plain = meaning.canonical()
    options = _options(plain, side)
    if not options:
        return None
    unit = unit_of(side)
    low, high, gap = MARGIN * unit, side - MARGIN * unit, GAP * unit
    boxes = [extent(group.shape, group.size, side) for group in plain.groups]
    if len(boxes) == 1:
        (tree,) = options[int(rng.integers(len(options)))]
        out: list = []
        _spread(tree, boxes[0], gap, low, low, high, high, _draws(rng, freedom), out)
        return Scene(meaning, (tuple(out),), side)
    axis = int(plain.relation == "above")
    for _ in range(_TRIES):
        trees = options[int(rng.integers(len(options)))]
        draws = _draws(rng, freedom)
        one, two = (_need(tree, box, gap)[axis] for tree, box in zip(trees, boxes, strict=True))
        cut = low + one + (high - low - one - two - gap) * next(draws)
        first: list = []
        second: list = []
        if axis == 0:
            _spread(trees[0], boxes[0], gap, low, low, cut, high, draws, first)
            _spread(trees[1], boxes[1], gap, cut + gap, low, high, high, draws, second)
        else:
            _spread(trees[0], boxes[0], gap, low, low, high, cut, draws, first)
            _spread(trees[1], boxes[1], gap, low, cut + gap, high, high, draws, second)
        if _clear(first, second, axis):
            break
    else:
        across = 1 - axis
        first = _aligned(first, boxes[0][across] / 2, across, low, high)
        second = _aligned(second, boxes[1][across] / 2, across, low, high)
        if not _clear(first, second, axis):
            return None
    both = (tuple(first), tuple(second))
    return Scene(meaning, both if plain is meaning else both[::-1], side)
