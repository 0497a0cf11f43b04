"""Letters a to z as coverage maps, in five free fonts at any height: no file is read, nothing is installed.

The fonts are our own (`letters.py`), so a world drawn with them is the same on every machine. A letter has the
same pixels wherever it stands: positions are whole pixels, and a reader can compare it exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from string import ascii_lowercase

import numpy as np
from PIL import Image as Pillow

from mixmodal.config import unknown
from mixmodal.data.letters import DRAWINGS

FONTS = tuple(DRAWINGS)
FINE = 8  # cells of a drawing are smoothed on a grid this much finer
INKED = 0.42  # of a smoothed cell: below a half, so that strokes that touch at corners stay joined


@dataclass(frozen=True, eq=False)
class Face:
    """One font at one height.

    Shapes: `masks[letter]` is float32 coverage [height + depth, width of the letter], without blank columns.
    Units: pixels; `height` from the baseline to the top of an l, `depth` below the baseline, `gap` between letters.
    """

    font: str
    height: int
    depth: int
    gap: int
    masks: dict[str, np.ndarray]

    def places(self, word: str, pitch: int = 0) -> list[int]:
        """The left column of each letter, the first cell at 0; with `pitch`, letters stand amid cells that wide.

        Raises: ValueError for a letter wider than its cell.
        """
        lefts, at = [], 0
        for letter in word:
            width = self.masks[letter].shape[1]
            if 0 < pitch < width:
                raise ValueError(f"got cells of {pitch} px for {letter!r}, {width} px wide: take a larger pitch, or 0")
            lefts.append(at + (pitch - width) // 2 if pitch else at)
            at += pitch or width + self.gap
        return lefts

    def width(self, word: str, pitch: int = 0) -> int:
        """Columns that the word takes; with `pitch`, all of its cells."""
        if pitch:
            return pitch * len(word)
        return sum(self.masks[letter].shape[1] + self.gap for letter in word) - self.gap

    def line(self, word: str, pitch: int = 0) -> np.ndarray:
        """Coverage of the whole word, float32 [height + depth, width]."""
        line = np.zeros((self.height + self.depth, self.width(word, pitch)), dtype=np.float32)
        for letter, left in zip(word, self.places(word, pitch), strict=True):
            mask = self.masks[letter]
            line[:, left : left + mask.shape[1]] = mask
        return line


@cache
def face(font: str, height: int) -> Face:
    """The font's letters at that height, drawn once.

    Raises: ValueError for an unknown font, or a height outside 8 to 64 px.
    """
    if font not in FONTS:
        raise ValueError(unknown(f"font {font!r}", font, FONTS))
    if not 8 <= height <= 64:
        raise ValueError(f"got letters {height} px high, wanted 8 to 64")
    ascent, slant, drawing = DRAWINGS[font]
    masks = {letter: _drawn(cells, ascent, slant, height) for letter, cells in _cells(drawing).items()}
    # Letters that lean reach over each other's columns, and need a column less between them.
    gap = max(1, round(height / 9)) - (slant > 0)
    return Face(font, height, masks["a"].shape[0] - height, gap, masks)


def _cells(drawing: str) -> dict[str, np.ndarray]:
    """Each letter of a drawing, as 0 and 1 [rows, columns]."""
    letters = []
    for block in drawing.strip().split("\n\n"):
        letters += zip(*(line.split() for line in block.strip().splitlines()), strict=True)
    return {
        letter: np.array([[cell == "#" for cell in row] for row in rows], dtype=np.float32)
        for letter, rows in zip(ascii_lowercase, letters, strict=True)
    }


def _drawn(cells: np.ndarray, ascent: int, slant: float, height: int) -> np.ndarray:
    """Coverage of one letter at the height, float32 [rows, columns], cut to its columns."""
    scale = height / ascent
    if slant == 0 and height % ascent == 0:  # whole cells stay crisp
        mask = np.kron(cells, np.ones((height // ascent, height // ascent), dtype=np.float32))
    else:
        # Smooth the stairs on a fine grid, lean it, then take the share of ink in each pixel.
        lean = int(np.ceil(slant * cells.shape[0]))
        rows = int(np.ceil(cells.shape[0] * scale - 1e-6))
        columns = int(np.ceil((cells.shape[1] + 2 * lean) * scale - 1e-6))
        padded = np.pad(cells, ((1, 3), (1 + lean, 3 + lean)))
        high, wide = (n * FINE for n in padded.shape)
        fine = np.asarray(Pillow.fromarray(padded).resize((wide, high), Pillow.Resampling.BICUBIC)) > INKED
        if slant:
            shifts = np.rint(slant * (FINE * (1 + ascent) - np.arange(high))).astype(int)
            fine = np.stack([np.roll(row, shift) for row, shift in zip(fine, shifts, strict=True)])
        box = (FINE, FINE, FINE * (1 + columns / scale), FINE * (1 + rows / scale))
        inked = Pillow.fromarray(fine.astype(np.float32))
        mask = np.asarray(inked.resize((columns, rows), Pillow.Resampling.BOX, box=box)).clip(0, 1)
    inked = np.flatnonzero(mask.max(axis=0) > 0.05)
    mask = mask[:, inked[0] : inked[-1] + 1].copy()
    mask.setflags(write=False)
    return mask
