"""Telling shapes apart: blobs of a mask, and the template that fits one best.

Lengths are in px of the picture at hand; areas that stand as numbers are for a picture 32 px wide.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from mixmodal.data.worlds.scene_grammar import SHAPES, SIZES
from mixmodal.data.worlds.scene_render import coverage, extent, unit_of

STEPS = 8  # templates are kept for this many sub-pixel places a px
SCALES = (0.88, 0.94, 1.0, 1.06, 1.12)  # a drawn object may be a little too small or too large
STRENGTH = (0.75, 1.35)  # how strong an object may be beside its strongest pixels
BLURS = (0.0, 0.5, 0.9)  # and a little soft, px at 32 px
_SMALL_BELOW = 80.0  # a small object covers less than this, px at 32 px
_BIG_ABOVE = 58.0


@dataclass(frozen=True)
class Match:
    """The best template: its shape, size and centre, how strong it is in the picture (1: as given), the share of
    its energy left unexplained (`error`), and how clearly it beats the best template of any other shape or size
    (`margin`: 1 where the picture equals the best, 0 half way between the two)."""

    shape: str
    size: str
    centre: tuple[float, float]
    strength: float
    error: float
    margin: float


def blobs(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Labels 1 to n of the 8-connected regions of a mask (0 elsewhere), and n.

    Shapes: mask [h, w] of booleans; labels [h, w].
    """
    height, width = mask.shape
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    parent = list(range(len(rows)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    runs = list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))
    above = 0
    for index, (row, start, end) in enumerate(runs):
        while above < index and runs[above][0] < row - 1:
            above += 1
        other = above
        while other < index and runs[other][0] == row - 1 and runs[other][1] <= end:
            if runs[other][2] >= start:
                parent[root(other)] = root(index)
            other += 1
    names: dict[int, int] = {}
    labels = np.zeros((height, width), dtype=np.int32)
    for index, (row, start, end) in enumerate(runs):
        labels[row, start:end] = names.setdefault(root(index), len(names) + 1)
    return labels, len(names)


def reach_of(size: str, side: int) -> int:
    """Half the width of the square patch in which templates of this size are compared."""
    widest = max(max(extent(shape, size, side)) for shape in SHAPES)
    return int(np.ceil(widest * SCALES[-1] / 2 + 2.5 * unit_of(side)))


def _blurred(alpha: np.ndarray, sigma: float) -> np.ndarray:
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        alpha = np.apply_along_axis(np.convolve, axis, alpha, kernel, mode="same")
    return alpha


@functools.lru_cache(maxsize=4096)
def _bank(size: str, side: int, step_x: int, step_y: int) -> tuple[np.ndarray, np.ndarray]:
    """Templates [shape, scale, blur] whose centroids lie at one sub-pixel place, flat, and their squares."""
    reach = reach_of(size, side)
    offsets = np.arange(-reach, reach + 1) + 0.5
    x, y = offsets[None, :] - (step_x + 0.5) / STEPS, offsets[:, None] - (step_y + 0.5) / STEPS
    found = []
    for shape in SHAPES:
        width, height = extent(shape, size, side)
        for scale in SCALES:
            down = scale * height / 6 if shape == "triangle" else 0.0
            alpha = coverage(shape, width * scale, height * scale, x, y + down)
            found += [alpha if blur == 0 else _blurred(alpha, blur * unit_of(side)) for blur in BLURS]
    bank = np.stack(found).reshape(len(found), -1).astype(np.float32)
    return bank, bank * bank


def _compare(alpha, weight, size, side, step_x, step_y) -> list[tuple]:
    """Per shape: error, shape, size, scale, strength, and the fitted template (flat) of its best template."""
    bank, square = _bank(size, side, step_x, step_y)
    known = (alpha * weight).ravel()
    energy = square @ weight.ravel()
    shared = bank @ known
    # A soft object is paler than its colour: its strength is fitted, within bounds.
    strength = np.clip(shared / np.maximum(energy, 1e-6), *STRENGTH)
    left = known @ alpha.ravel() - 2 * strength * shared + strength * strength * energy
    # Where most of a template lies on pixels that do not count, it explains nothing.
    wrong = left / (strength * strength * np.maximum(energy, 0.5 * square.sum(1)))
    best = wrong.reshape(len(SHAPES), -1).argmin(axis=1)
    found = []
    for index, shape in enumerate(SHAPES):
        row = index * len(SCALES) * len(BLURS) + int(best[index])
        scale = SCALES[int(best[index]) // len(BLURS)]
        found.append((float(wrong[row]), shape, size, scale, float(strength[row]), bank[row]))
    return found


def match(alpha, weight, own, stray, noise: float, side: int) -> Match | None:
    """The best template for one blob, or None where it is far too small or too large.

    Shapes: arrays [h, w]: how much of each pixel the object covers, which pixels count (0 or 1), where the blob
    and its rim are, and the squared part of each pixel that no covering explains. `noise` is the part of the
    squares of a pixel, of both kinds, that is noise.
    """
    inside = alpha * own
    area = float(inside.sum())
    unit = unit_of(side)
    per_unit = area / unit**2
    sizes = [size for size, fine in zip(SIZES, (per_unit < _SMALL_BELOW, per_unit > _BIG_ABOVE), strict=True) if fine]
    if per_unit < 15 or per_unit > 220:
        return None
    axis_x, axis_y = np.arange(alpha.shape[1]) + 0.5, np.arange(alpha.shape[0]) + 0.5
    cx, cy = float(inside.sum(0) @ axis_x) / area, float(inside.sum(1) @ axis_y) / area
    if not (0 <= cx < alpha.shape[1] and 0 <= cy < alpha.shape[0]):
        return None  # pixels of another colour pull the centre out: no object
    column, row = int(cx), int(cy)
    step_x, step_y = int((cx - column) * STEPS), int((cy - row) * STEPS)
    found = []
    for size in sizes:
        reach = reach_of(size, side)
        # Beyond the picture all is ground, so an object cut by the edge lacks what was cut.
        counts = _window(weight, row, column, reach, 1.0)
        measured = float(_window(weight, row, column, reach).sum())
        extra = float((_window(stray, row, column, reach) * counts).sum()) - noise * measured
        # Blob pixels that the patch leaves out are unexplained too.
        extra += float((inside * inside).sum()) - float((_window(inside, row, column, reach) ** 2).sum())
        covers = _window(alpha, row, column, reach)
        for error, *rest in _compare(covers, counts, size, side, step_x, step_y):
            found.append((max(error + extra / area, 0.0), *rest, counts))
    found.sort(key=lambda one: one[0])
    error, shape, size, scale, strength, template, counts = found[0]
    margin = (found[1][0] - error) / _apart(found[0], found[1])
    down = scale * extent(shape, size, side)[1] / 6 if shape == "triangle" else 0.0
    return Match(shape, size, (cx, cy - down), strength, error, margin)


def _apart(best: tuple, rival: tuple) -> float:
    """The error that the rival would have if the picture were the best template itself."""
    if best[2] != rival[2]:
        return 0.3  # a small and a big one: far apart whatever the shape
    one, two, counts = best[4] * best[5], rival[4] * rival[5], best[6].ravel()
    return max(float((counts * (one - two) ** 2).sum()) / max(float((counts * two * two).sum()), 1e-6), 1e-3)


def _window(array: np.ndarray, row: int, column: int, reach: int, beyond: float = 0.0) -> np.ndarray:
    """The square of pixels around one; `beyond` stands for what lies outside the picture."""
    top, left = row - reach, column - reach
    bottom, right = row + reach + 1, column + reach + 1
    height, width = array.shape
    inner = array[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    if inner.shape == (2 * reach + 1, 2 * reach + 1):
        return inner
    out = np.full((2 * reach + 1, 2 * reach + 1), beyond, dtype=array.dtype)
    out[max(-top, 0) : max(-top, 0) + inner.shape[0], max(-left, 0) : max(-left, 0) + inner.shape[1]] = inner
    return out
