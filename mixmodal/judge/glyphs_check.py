"""How good the judge of `glyphs` is, as a table: `python -m mixmodal.judge.glyphs_check --n 1000`.

Every row draws its own words. Right: pictures as they are, soft, noisy, or both. Wrong: pictures that do not show
the word, of which the judge must not say it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from string import ascii_lowercase

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFilter

from mixmodal.data.fonts import face
from mixmodal.data.worlds.glyphs import LEVELS, SPLITS, Glyph, Glyphs, render
from mixmodal.judge.glyphs import read


def noisy(pixels: np.ndarray, rng: np.random.Generator, spread: float = 10) -> np.ndarray:
    """The picture with Gaussian noise of `spread` levels of 255."""
    return np.clip(np.rint(pixels + rng.normal(0, spread, pixels.shape)), 0, 255).astype(np.uint8)


def soft(pixels: np.ndarray, rng: np.random.Generator, radius: float = 0.5) -> np.ndarray:
    """The picture blurred by a Gaussian of `radius` pixels."""
    return np.asarray(Pillow.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def packed(pixels: np.ndarray, rng: np.random.Generator, quality: int = 75) -> np.ndarray:
    """The picture after JPEG."""
    file = BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Pillow.open(file).convert("RGB"))


RIGHT: dict[str, Callable] = {
    "as drawn": lambda pixels, rng: pixels,
    "noise 10": noisy,
    "noise 20": lambda pixels, rng: noisy(pixels, rng, 20),
    "blur 0.5": soft,
    "blur 0.7": lambda pixels, rng: soft(pixels, rng, 0.7),
    "blur 0.5, noise 10": lambda pixels, rng: noisy(soft(pixels, rng), rng),
    "JPEG 75": packed,
}


def _changed(glyph: Glyph, rng: np.random.Generator) -> tuple[Glyph, int]:
    """The glyph with one letter changed for another that has room, and which."""
    letters = face(glyph.font, glyph.height)
    while True:
        at = int(rng.integers(len(glyph.word)))
        letter = ascii_lowercase[(ascii_lowercase.index(glyph.word[at]) + int(rng.integers(1, 26))) % 26]
        word = glyph.word[:at] + letter + glyph.word[at + 1 :]
        if glyph.pitch and letters.masks[letter].shape[1] > glyph.pitch:
            continue
        if glyph.left + letters.width(word, glyph.pitch) <= glyph.size[1]:
            return replace(glyph, word=word), at


def _cell(glyph: Glyph, at: int) -> tuple[slice, slice]:
    """Rows and columns of a letter in the picture."""
    letters = face(glyph.font, glyph.height)
    left = glyph.left + letters.places(glyph.word, glyph.pitch)[at]
    rows = slice(glyph.top, glyph.top + letters.height + letters.depth)
    return rows, slice(left, left + letters.masks[glyph.word[at]].shape[1])


def another_letter(glyph: Glyph, rng: np.random.Generator) -> np.ndarray:
    """The word with one letter changed."""
    return render(_changed(glyph, rng)[0])


def two_letters_mixed(glyph: Glyph, rng: np.random.Generator) -> np.ndarray:
    """The word with one letter halfway to another of about its width, as an undecided model draws it."""
    for _ in range(100):
        other, at = _changed(glyph, rng)
        cell, there = _cell(glyph, at), _cell(other, at)
        if cell == there:
            break
    else:
        return another_letter(glyph, rng)
    pixels, mixed = render(glyph), render(glyph)
    mixed[cell] = np.rint((pixels[cell].astype(float) + render(other)[there]) / 2)
    return mixed


def letter_missing(glyph: Glyph, rng: np.random.Generator) -> np.ndarray:
    """The word with one letter blotted out."""
    pixels = render(glyph)
    pixels[_cell(glyph, int(rng.integers(len(glyph.word))))] = glyph.paper
    return pixels


def letter_upside_down(glyph: Glyph, rng: np.random.Generator) -> np.ndarray:
    """The word with one letter turned by half a turn, of those that look different then."""
    pixels = render(glyph)
    spots = [at for at, letter in enumerate(glyph.word) if letter not in "lnosxz"]
    if not spots:
        return letter_missing(glyph, rng)
    rows, columns = _cell(glyph, spots[int(rng.integers(len(spots)))])
    rows = slice(rows.start, rows.start + glyph.height)
    pixels[rows, columns] = pixels[rows, columns][::-1, ::-1].copy()
    return pixels


def letter_too_many(glyph: Glyph, rng: np.random.Generator) -> np.ndarray:
    """The word with a pale letter more behind it, as a model draws one that is not sure where the word ends."""
    pixels = render(glyph)
    for letter in rng.permutation(list(ascii_lowercase)):
        more = replace(glyph, word=glyph.word + str(letter))
        letters = face(glyph.font, glyph.height)
        fits = glyph.left + letters.width(more.word, glyph.pitch) <= glyph.size[1]
        if fits and not (glyph.pitch and letters.masks[str(letter)].shape[1] > glyph.pitch):
            return np.rint(pixels + 0.5 * (render(more).astype(float) - pixels)).astype(np.uint8)
    return blot(glyph, rng)


def specks(glyph: Glyph, rng: np.random.Generator) -> np.ndarray:
    """The word with twenty pixels of ink on bare places, none beside another."""
    pixels = render(glyph)
    bare = (pixels == np.array(glyph.paper, dtype=np.uint8)).all(axis=2)
    spots = rng.permutation(np.argwhere(np.lib.stride_tricks.sliding_window_view(bare, (3, 3)).all(axis=(2, 3))))
    put = 0
    for y, x in spots:
        if put < 20 and (pixels[y : y + 3, x : x + 3] == np.array(glyph.paper)).all():
            pixels[y + 1, x + 1] = glyph.ink
            put += 1
    return pixels


def struck_through(glyph: Glyph, rng: np.random.Generator) -> np.ndarray:
    """The word under a line."""
    pixels = render(glyph)
    row = glyph.top + int(rng.integers(glyph.height // 2, glyph.height))
    pixels[row : row + max(1, glyph.height // 8)] = glyph.ink
    return pixels


def blot(glyph: Glyph, rng: np.random.Generator) -> np.ndarray:
    """The word with a block of ink, 4 by 4 pixels, on a place that had none."""
    pixels = render(glyph)
    bare = (pixels == np.array(glyph.paper, dtype=np.uint8)).all(axis=2)
    spots = np.argwhere(np.lib.stride_tricks.sliding_window_view(bare, (4, 4)).all(axis=(2, 3)))
    y, x = spots[int(rng.integers(len(spots)))] if len(spots) else (0, 0)
    pixels[y : y + 4, x : x + 4] = glyph.ink
    return pixels


def pieces_shuffled(glyph: Glyph, rng: np.random.Generator) -> np.ndarray:
    """The picture with its 8 by 8 pieces in another order."""
    pixels = render(glyph)
    high, wide = (n // 8 for n in pixels.shape[:2])
    pieces = pixels.reshape(high, 8, wide, 8, 3).swapaxes(1, 2).reshape(high * wide, 8, 8, 3)
    pieces = pieces[rng.permutation(len(pieces))]
    return pieces.reshape(high, wide, 8, 8, 3).swapaxes(1, 2).reshape(pixels.shape)


def mirrored(glyph: Glyph, rng: np.random.Generator) -> np.ndarray:
    """The picture as in a mirror."""
    return np.ascontiguousarray(render(glyph)[:, ::-1])


def bare_noise(glyph: Glyph, rng: np.random.Generator) -> np.ndarray:
    """No word at all: noise between ink and paper."""
    share = rng.random((*glyph.size, 1))
    return np.rint(share * glyph.ink + (1 - share) * np.array(glyph.paper)).astype(np.uint8)


WRONG: dict[str, Callable] = {
    "another letter": another_letter,
    "two letters mixed": two_letters_mixed,
    "letter missing": letter_missing,
    "letter upside down": letter_upside_down,
    "a pale letter more": letter_too_many,
    "specks": specks,
    "struck through": struck_through,
    "a blot": blot,
    "pieces shuffled": pieces_shuffled,
    "mirrored": mirrored,
    "noise": bare_noise,
}


def measure_right(level: str, split: str, change: Callable, n: int, seed: int = 0) -> tuple[float, float, float]:
    """(share read right, share not read, milliseconds a picture) over n words."""
    world, rng = Glyphs(level, split=split), np.random.default_rng((seed, n))
    right = unread = 0
    spent = 0.0
    for _ in range(n):
        glyph = world.draw(rng)
        pixels = change(render(glyph), rng)
        start = time.process_time()
        word = read(pixels)
        spent += time.process_time() - start
        right += word == glyph.word
        unread += word is None
    return right / n, unread / n, 1000 * spent / n


def measure_wrong(level: str, split: str, change: Callable, n: int, seed: int = 0) -> tuple[float, float]:
    """(share of which the word is not said, share of which no word is said) over n pictures that do not show it."""
    world, rng = Glyphs(level, split=split), np.random.default_rng((seed, n))
    denied = unread = 0
    for _ in range(n):
        glyph = world.draw(rng)
        if change is mirrored and set(glyph.word) <= set("ovwx"):
            glyph = replace(glyph, word="f" + glyph.word[1:])
        word = read(change(glyph, rng))
        denied += word != glyph.word
        unread += word is None
    return denied / n, unread / n


def table(n: int, seed: int = 0, levels: tuple[str, ...] = tuple(LEVELS)) -> Iterator[str]:
    """The lines of the table."""
    yield f"{'level':6} {'split':8} {'picture':20} {'right':>8} {'unread':>8} {'ms':>6}"
    for level in levels:
        for split in SPLITS:
            for name, change in RIGHT.items():
                right, unread, spent = measure_right(level, split, change, n, seed)
                yield f"{level:6} {split:8} {name:20} {right:8.2%} {unread:8.2%} {spent:6.1f}"
    yield f"{'level':6} {'split':8} {'wrong picture':20} {'denied':>8} {'unread':>8}"
    for level in levels:
        for split in SPLITS[1:]:
            for name, change in WRONG.items():
                denied, unread = measure_wrong(level, split, change, n, seed)
                yield f"{level:6} {split:8} {name:20} {denied:8.2%} {unread:8.2%}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m mixmodal.judge.glyphs_check", description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="words a row (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the words (default: 0)")
    parser.add_argument("--level", choices=tuple(LEVELS), help="only this level (default: all)")
    chosen = parser.parse_args()
    for line in table(chosen.n, chosen.seed, (chosen.level,) if chosen.level else tuple(LEVELS)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
