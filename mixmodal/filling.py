"""Pictures of which some is to be made anew: inpainting, extrapolation, variation. All are a mask of what is known."""

from __future__ import annotations

import numpy as np

from mixmodal.parts import Image

GREY = 128


def hidden(pixels: np.ndarray, box: tuple[int, int, int, int]) -> Image:
    """The picture with a box, (top, left, bottom, right) in pixels, still to be drawn.

    Raises:  ValueError if the box holds nothing, or the whole picture.
    """
    height, width = pixels.shape[:2]
    top, left, bottom, right = box
    known = np.ones((height, width), bool)
    known[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = False
    if known.all() or not known.any():
        raise ValueError(
            f"the box {top},{left},{bottom},{right} hides {'nothing' if known.all() else 'all'} of a picture of"
            f" {height} x {width}: give top,left,bottom,right in pixels"
        )
    return masked(pixels, known)


def grown(pixels: np.ndarray, size: tuple[int, int], at: tuple[int, int] | None = None) -> Image:
    """A picture of `size` (height, width) in which this one stands, in the middle unless `at` (top, left) is given.

    Raises:  ValueError if it does not fit, or nothing is left to draw.
    """
    height, width = pixels.shape[:2]
    top, left = at or ((size[0] - height) // 2, (size[1] - width) // 2)
    if top < 0 or left < 0 or top + height > size[0] or left + width > size[1] or size == (height, width):
        raise ValueError(
            f"a picture of {height} x {width} at row {top}, column {left} leaves nothing to draw in {size[0]} x"
            f" {size[1]}, or does not fit: take a larger size"
        )
    canvas, known = np.full((*size, 3), GREY, np.uint8), np.zeros(size, bool)
    canvas[top : top + height, left : left + width] = pixels
    known[top : top + height, left : left + width] = True
    return Image(canvas, known=known)


def varied(pixels: np.ndarray, share: float, side: int = 8, seed: int = 0) -> Image:
    """The picture with so great a share of its squares, `side` pixels wide, to be drawn anew.

    Raises:  ValueError if the share is not between 0 and 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share to vary is {share:g}: take more than 0 and at most 1")
    height, width = pixels.shape[:2]
    squares = -(-height // side), -(-width // side)
    count = squares[0] * squares[1]
    keep = np.ones(count, bool)
    keep[np.random.default_rng(seed).permutation(count)[: max(1, round(share * count))]] = False
    known = np.kron(keep.reshape(squares), np.ones((side, side), bool))[:height, :width]
    return masked(pixels, known.astype(bool))


def masked(pixels: np.ndarray, known: np.ndarray) -> Image:
    """The picture, grey where it is not known: nothing of what is hidden shows through."""
    if known.shape != pixels.shape[:2]:
        raise ValueError(f"the mask is {known.shape}, the picture {pixels.shape[:2]}: they must be equally large")
    if known.all():
        raise ValueError("the mask hides nothing of the picture: make what is to be drawn anew black")
    return Image(np.where(known[..., None], pixels, np.uint8(GREY)), known=known)
