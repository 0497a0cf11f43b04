"""Reads a picture of the world `glyphs` back into its word, by comparing it with every font at every height.

Ink and paper are unknown colours, so a picture is first projected on the line between them. Every font, height and
baseline that its ink allows is a hypothesis; the letters that explain most of the ink under one are found exactly
(dynamic programming over columns). The winner must then explain the picture: as a whole, letter by letter against
the next best letter, and with nothing left over beside the word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from string import ascii_lowercase

import numpy as np

from mixmodal.data.fonts import FONTS, face
from mixmodal.data.worlds.glyphs import HEIGHTS

MIN_FIT = 0.7  # share of the contrast around the word that it must explain
MIN_LETTER_FIT = 0.5  # and that each letter must explain within its own columns
MIN_LEAD = 0.2  # how far towards the letter, from halfway (0) to drawn exactly (1), against any other
MAX_STRAY = 0.28  # greatest mean of 3 x 3 pixels left over, in units of full ink
MAX_OTHER = 0.3  # and greatest strength of a letter beside the word
MAX_SPECKS = 8  # most pixels left over of half the ink or more
MIN_CONTRAST = 20.0  # least distance of ink and paper, in levels of 255
SOFTNESS = (0.0, 0.2)  # share of a pixel that runs into each neighbour: sharp letters are tried first
INKED = 0.4  # coverage from which a pixel counts as ink
GOOD_FIT = 0.9  # from which on softer letters are not tried
GLANCE = 32  # columns over which hypotheses are compared
KEPT = 5  # of them that are read in full


@dataclass(frozen=True)
class Reading:
    """What a picture shows, and how well: `fit` is the share of its contrast that the word explains, at most 1.

    Units: pixels; `top` is the row of the top of an l, `lefts` the first column of each letter.
    """

    word: str
    font: str
    height: int
    softness: float
    top: int
    lefts: tuple[int, ...]
    ink: tuple[int, int, int]
    paper: tuple[int, int, int]
    fit: float


@dataclass(frozen=True, eq=False)
class _Bank:
    """A face's letters, each with its blank column after it, on a common window; columns before rows.

    Shapes: `windows` [26, wide, rows], `flat` [wide * rows, 26]; `widths` and `energy` [26].
    """

    font: str
    height: int
    softness: float
    windows: np.ndarray
    flat: np.ndarray
    widths: np.ndarray
    energy: np.ndarray
    full: float  # what full ink comes to in these letters
    tops: frozenset[int]  # rows at which the ink of a letter may begin
    bottoms: frozenset[int]  # and end

    @property
    def wide(self) -> int:
        return self.windows.shape[1]

    @property
    def rows(self) -> int:
        return self.windows.shape[2]


@cache
def _bank(font: str, height: int, softness: float) -> _Bank:
    letters = face(font, height)
    blank = min(letters.gap, 1)
    widths = np.array([letters.masks[letter].shape[1] + blank for letter in ascii_lowercase])
    windows = np.zeros((26, widths.max(), letters.height + letters.depth), dtype=np.float32)
    for window, letter in zip(windows, ascii_lowercase, strict=True):
        mask = letters.masks[letter]
        window[: mask.shape[1]] = mask.T
    peaks = [window.max(axis=0) / window.max() for window in windows]
    # A faint first row may or may not be seen as ink.
    rows = [np.flatnonzero(peak > least) for peak in peaks for least in (0.3, 0.5)]
    if softness:
        for axis in (1, 2):
            padded = np.pad(windows, [(0, 0), *((1, 1) if i == axis else (0, 0) for i in (1, 2))])
            before, after = (np.take(padded, np.arange(windows.shape[axis]) + i, axis=axis) for i in (0, 2))
            windows = (1 - 2 * softness) * windows + softness * (before + after)
        windows *= np.arange(windows.shape[1])[None, :, None] < widths[:, None, None]
    return _Bank(
        font,
        height,
        softness,
        windows,
        np.ascontiguousarray(windows.reshape(26, -1).T),
        widths,
        (windows**2).sum(axis=(1, 2)),
        _full_ink(windows),
        frozenset(int(row[0]) for row in rows),
        frozenset(int(row[-1]) for row in rows),
    )


def read(pixels: np.ndarray) -> str | None:
    """The word that the picture shows, or None where it shows none, or none clearly.

    Shapes: `pixels` uint8 [height, width, 3].
    """
    reading = inspect(pixels)
    return reading.word if reading is not None and is_clear(pixels, reading) else None


def likeness(said: str | None, word: str) -> float:
    """1 where they are the same word, less an equal part for each letter wrong, missing or too many, at least 0."""
    row = list(range(len(word) + 1))
    for i, a in enumerate(said or "", 1):
        last, row[0] = row[0], i
        for j, b in enumerate(word, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return max(0.0, 1 - row[-1] / len(word))


def inspect(pixels: np.ndarray, fonts: tuple[str, ...] = FONTS, heights: tuple[int, int] = HEIGHTS) -> Reading | None:
    """The word that explains the picture best, however badly, or None where it holds no ink.

    Shapes: `pixels` uint8 [height, width, 3].
    Raises: ValueError for another shape.
    """
    coverage = _coverage(_checked(pixels))
    if coverage is None:
        return None
    inked = (coverage > INKED) & (mean3(coverage) > INKED / 3)  # a lone pixel is noise, or the dot of an i
    if not inked.any():
        return None
    rows, columns = (np.flatnonzero(inked.any(axis=axis)) for axis in (1, 0))
    sheet = _Sheet(coverage, int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1]))
    best = None
    for softness in SOFTNESS:
        banks = [_bank(font, height, softness) for font in fonts for height in range(heights[0], heights[1] + 1)]
        found = _best_of(sheet, _hypotheses(sheet, banks, slack=int(softness > 0)))
        if found is not None and (best is None or found[0] > best[0]):
            best = found
        if best is not None and best[0] > GOOD_FIT:
            break
    if best is None:
        return None
    fit, bank, top, spots = best
    ink, paper = _colours(pixels, _line(bank, top, spots, coverage.shape))
    word = "".join(ascii_lowercase[letter] for letter, _ in spots)
    lefts = tuple(left for _, left in spots)
    return Reading(word, bank.font, bank.height, bank.softness, top, lefts, ink, paper, fit)


def is_clear(pixels: np.ndarray, reading: Reading) -> bool:
    """Whether the picture shows the word of its reading and no other, and nothing beside it.

    Shapes: `pixels` uint8 [height, width, 3].
    """
    way = np.subtract(reading.ink, reading.paper).astype(np.float32)
    strength = float(way @ way)
    if strength < MIN_CONTRAST**2 or reading.fit < MIN_FIT:
        return False
    bank = _bank(reading.font, reading.height, reading.softness)
    spots = [(ascii_lowercase.index(letter), left) for letter, left in zip(reading.word, reading.lefts, strict=True)]
    line = _line(bank, reading.top, spots, pixels.shape[:2])
    shift = _checked(pixels) - np.array(reading.paper, dtype=np.float32)
    coverage = shift @ way / strength
    aside = (shift - coverage[..., None] * way) / np.sqrt(strength)
    if max(_stray((coverage - line)[..., None]), _stray(aside) / 2) > MAX_STRAY:
        return False
    sheet, rest = _Sheet(coverage, 0, 0, 0, 0), coverage - line
    noise = float(np.median(np.abs(rest))) / 0.6745
    if int((np.abs(rest) > max(0.5, 5 * noise)).sum()) > MAX_SPECKS or _another(rest, noise, bank, reading) > MAX_OTHER:
        return False
    end = None
    for letter, left in spots:
        if end is not None and left - end > reading.height:  # a blank as wide as that parts two words
            return False
        end = left + int(bank.widths[letter])
        if not _is_letter(sheet.strip(reading.top, bank.rows, left, end), bank, letter):
            return False
    return True


def _another(rest: np.ndarray, noise: float, bank: _Bank, reading: Reading) -> float:
    """How strong the strongest letter is that stands before or behind the word, in its line; 1 is full ink.

    Four times what noise makes of one is taken off.
    """
    strengths = _Sheet(rest, 0, 0, 0, 0).products(bank, reading.top, 0, rest.shape[1]) / bank.energy
    strengths = strengths - 4 * noise / np.sqrt(bank.energy)
    starts, ends = np.arange(rest.shape[1])[:, None], np.arange(rest.shape[1])[:, None] + bank.widths
    last = reading.lefts[-1] + int(bank.widths[ascii_lowercase.index(reading.word[-1])])
    apart = (ends <= reading.lefts[0]) | (starts >= last)
    return float(np.where(apart, strengths, 0.0).max())


class _Sheet:
    """Coverage with paper all around it, and the first and last row and column that hold ink."""

    def __init__(self, coverage: np.ndarray, first_row: int, last_row: int, first: int, last: int) -> None:
        self.margin = 48
        self.columns = np.pad(coverage, self.margin).T  # [width, height]
        self.first_row, self.last_row, self.first, self.last = first_row, last_row, first, last
        self.energy = float((coverage[max(first_row - 1, 0) : last_row + 2, max(first - 1, 0) : last + 2] ** 2).sum())

    def strip(self, top: int, rows: int, start: int, stop: int) -> np.ndarray:
        """Columns start to stop of these rows, [columns, rows]; paper where they leave the picture."""
        at = self.margin
        return np.ascontiguousarray(self.columns[at + start : at + stop, at + top : at + top + rows])

    def products(self, bank: _Bank, top: int, start: int, stop: int) -> np.ndarray:
        """Products of each letter with the ink, set at columns start to stop, [stop - start, 26]."""
        strip = self.strip(top, bank.rows, start, stop + bank.wide - 1)
        step = strip.strides[1]
        windows = np.lib.stride_tricks.as_strided(
            strip, (stop - start, bank.wide * bank.rows), (bank.rows * step, step), writeable=False
        )
        return windows @ bank.flat


def _checked(pixels: np.ndarray) -> np.ndarray:
    pixels = np.asarray(pixels)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"got {pixels.dtype} {pixels.shape}, wanted uint8 pixels [height, width, 3]")
    return pixels.astype(np.float32)


def _coverage(pixels: np.ndarray) -> np.ndarray | None:
    """How much ink each pixel holds, about 0 to 1, or None where the picture is blank."""
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    shift = pixels - np.median(edge, axis=0)
    flat = shift.reshape(-1, 3)
    way = np.linalg.eigh(flat.T @ flat)[1][:, -1]  # the direction from paper to ink
    coverage = shift @ way
    if coverage.sum() < 0:
        coverage = -coverage
    full = _full_ink(coverage)
    return None if full < MIN_CONTRAST else coverage / full


def _full_ink(values: np.ndarray) -> float:
    """The mean of all values that come near the greatest."""
    peak = np.partition(values, -8, axis=None)[-8:].mean()
    return float(values[values >= 0.6 * peak].mean())


def _hypotheses(sheet: _Sheet, banks: list[_Bank], slack: int) -> list[tuple[_Bank, int]]:
    """(face, row of its top) for what the ink's first and last row allow, the most promising few."""
    found, around = [], range(-slack, slack + 1)
    for bank in banks:
        starts = {sheet.first_row + shift - top for top in bank.tops for shift in around}
        ends = {sheet.last_row + shift - bottom for bottom in bank.bottoms for shift in around}
        found += [(bank, top) for top in starts & ends]
    if len(found) <= KEPT:
        return found
    start, stop = sheet.first - 2, min(sheet.first + GLANCE, sheet.last) + 2
    products = [sheet.products(bank, top, start, stop) for bank, top in found]
    scales = [1 / bank.full for bank, _ in found]
    total, _ = _sweep([bank for bank, _ in found], products, scales)
    inked = np.cumsum((sheet.columns[sheet.margin + start :][: total.shape[1]] ** 2).sum(axis=1))
    ends = slice(min(GLANCE // 2, stop - start), stop - start + 1)  # a letter ends there if the face is right
    share = (total[:, ends] / inked[ends]).max(axis=1) * np.square(scales)
    order = np.argsort(-share, kind="stable")
    return [found[i] for i in order[:KEPT]]


def _best_of(sheet: _Sheet, hypotheses) -> tuple[float, _Bank, int, list[tuple[int, int]]] | None:
    """(fit, face, top, letters with their columns) of the hypothesis that explains the ink best."""
    if not hypotheses:
        return None
    start = sheet.first - 2
    banks = [bank for bank, _ in hypotheses]
    products = [sheet.products(bank, top, start, sheet.last + 2) for bank, top in hypotheses]
    scales = [1 / bank.full for bank in banks]
    best = None
    for _ in range(2):  # how strong the ink is, is guessed at first; the letters found then say
        _, chosen = _sweep(banks, products, scales)
        for i, (bank, top) in enumerate(hypotheses):
            spots = _trace(chosen[:, i], bank.widths)
            if spots:
                product = sum(float(products[i][at, letter]) for letter, at in spots)
                energy = sum(float(bank.energy[letter]) for letter, _ in spots)
                scales[i] = product / energy
                fit = product * product / (energy * sheet.energy)
                if best is None or fit > best[0]:
                    best = fit, bank, top, [(letter, at + start) for letter, at in spots]
    return best


def _sweep(banks, products, scales) -> tuple[np.ndarray, np.ndarray]:
    """The most ink that letters without overlap explain up to each column, and which letter ends there (or -1).

    Shapes: `products` [columns, 26] for each of the banks; returns [banks, ends], [ends, banks].
    """
    count, length = len(banks), len(products[0])
    widths = np.stack([bank.widths for bank in banks])  # [count, 26]
    reach = int(widths.max())
    width = length + reach
    gains = np.full((width, count, 26), -np.inf, dtype=np.float32)  # by the column where a letter ends
    starts, letters = np.arange(length)[:, None], np.arange(26)
    for i, bank in enumerate(banks):
        gains[starts + bank.widths, i, letters] = products[i] * np.float32(2 / scales[i]) - bank.energy
    total = np.zeros((count, reach + width), dtype=np.float32)  # `reach` columns stand before the first
    chosen = np.full((width, count), -1)
    each, flat = np.arange(count), total.reshape(-1)
    back = (each * (reach + width) + reach)[:, None] - widths
    for end in range(1, width):
        ways = flat[back + end] + gains[end]
        letter = ways.argmax(axis=1)
        value, before = ways[each, letter], total[:, reach + end - 1]
        taken = value > before
        total[:, reach + end] = np.where(taken, value, before)
        chosen[end] = np.where(taken, letter, -1)
    return total[:, reach:], chosen


def _trace(chosen: np.ndarray, widths: np.ndarray) -> list[tuple[int, int]]:
    """The letters of a sweep (number, column), from left to right."""
    spots, end = [], len(chosen) - 1
    while end > 0:
        letter = int(chosen[end])
        end -= 1 if letter < 0 else int(widths[letter])
        if letter >= 0:
            spots.append((letter, end))
    return spots[::-1]


def _line(bank: _Bank, top: int, spots, shape) -> np.ndarray:
    """Coverage of the picture that the reading says, [height, width]."""
    (high, wide), rows, margin = shape, bank.rows, bank.wide
    padded = np.zeros((wide + 3 * margin, high + 3 * rows), dtype=np.float32)
    for letter, left in spots:
        padded[margin + left : 2 * margin + left, rows + top : 2 * rows + top] += bank.windows[letter]
    return padded[margin : margin + wide, rows : rows + high].T


def _colours(pixels: np.ndarray, line: np.ndarray) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(ink, paper) that explain the picture best with this coverage, by least squares."""
    values, cover = pixels.reshape(-1, 3).astype(np.float64), line.reshape(-1).astype(np.float64)
    centre = cover - cover.mean()
    way = centre @ values / max(centre @ centre, 1e-9)
    paper = values.mean(axis=0) - way * cover.mean()
    ink, paper = (tuple(int(c) for c in np.clip(np.rint(colour), 0, 255)) for colour in (paper + way, paper))
    return ink, paper


def _stray(rest: np.ndarray) -> float:
    """Greatest mean over 3 x 3 pixels of what is left over [height, width, 3]."""
    return float(np.sqrt((mean3(rest) ** 2).sum(axis=2).max()))


def mean3(values: np.ndarray) -> np.ndarray:
    """Means over 3 x 3 pixels, paper around them."""
    padded = np.pad(values, [(1, 1), (1, 1), (0, 0)][: values.ndim])
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9


def _is_letter(strip: np.ndarray, bank: _Bank, letter: int) -> bool:
    """Whether the strip [columns, rows] shows this letter, and is nearer to it than to any other by the wanted lead."""
    shapes = bank.windows[:, : len(strip)]
    miss = ((strip - shapes) ** 2).sum(axis=(1, 2))
    if miss[letter] > (1 - MIN_LETTER_FIT) * bank.energy[letter]:
        return False
    apart = ((shapes - shapes[letter]) ** 2).sum(axis=(1, 2))
    others = np.arange(26) != letter
    return bool((miss - miss[letter] >= MIN_LEAD * apart)[others].all())
