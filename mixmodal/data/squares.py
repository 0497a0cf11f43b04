"""Squares cut from the pictures of another source: what a model of few values learns from pictures of any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixmodal.data import has_splits, make_source
from mixmodal.parts import Document, Image


class Squares:
    """One square of a picture a document, none of them across an edge of the mosaic that begins at the upper left.

    `of` is the other source, {"kind": name, option: value}; of its documents the first picture is taken.

    Shapes:  uint8 [size, size, 3].
    Raises:  ValueError for a document without a picture of so many pixels.
    """

    def __init__(self, of: Mapping[str, Any], size: int = 8, split: str = "train") -> None:
        self.source = make_source({**of, "split": split} if has_splits(of) else dict(of))
        self.name, self.side, self.size = f"squares-{size}-{self.source.name}", size, None  # endless

    @property
    def report(self) -> Any:
        """What the other source left out, and why."""
        return getattr(self.source, "report", None)

    def document(self, index: int, rng: np.random.Generator) -> Document:
        """A square alone, of a picture that `rng` chooses."""
        number = index if self.source.size is None else int(rng.integers(self.source.size))
        pixels = picture_of(self.source.document(number, rng)).pixels
        rows, columns = (side // self.side for side in pixels.shape[:2])
        if not rows * columns:
            raise ValueError(
                f"a picture of {pixels.shape[0]} x {pixels.shape[1]} px has no square of {self.side} px: take a smaller"
                " `size`, or larger pictures"
            )
        return Document((Image(squares(pixels, self.side)[int(rng.integers(rows * columns))]),))


def squares(pixels: np.ndarray, side: int) -> list[np.ndarray]:
    """The pieces of a picture's mosaic, row after row; what is left over at the edges is in pieces of its own, behind.

    Shapes:  [H, W, C] -> [side, side, C] each, then smaller ones.
    """
    cut = [pixels[r : r + side, c : c + side] for r, c in corners(pixels.shape[:2], side)]
    return [np.ascontiguousarray(piece) for piece in cut]


def corners(size: tuple[int, int], side: int) -> list[tuple[int, int]]:
    """The upper left pixels of the pieces of `squares`."""
    every = [(r, c) for r in range(0, size[0], side) for c in range(0, size[1], side)]
    return sorted(every, key=lambda at: at[0] + side > size[0] or at[1] + side > size[1])


def picture_of(document: Document) -> Image:
    """The first picture of a document.

    Raises:  ValueError where there is none.
    """
    for part in document.parts:
        if isinstance(part, Image):
            return part
    raise ValueError(f"document {document.key} has no picture: take data with pictures")
