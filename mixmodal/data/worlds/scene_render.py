"""How a scene looks: the palette, the six shapes as exact-area coverages, and the picture.

Every length here is for a picture 32 px wide; `unit_of` scales it to other widths.
"""

from __future__ import annotations

import functools

import numpy as np

PALETTE = {
    "red": (225, 25, 30),
    "green": (20, 165, 60),
    "blue": (35, 75, 235),
    "yellow": (255, 240, 20),
    "purple": (150, 20, 185),
    "orange": (255, 125, 0),
    "cyan": (20, 215, 240),
    "pink": (255, 130, 215),
}
GROUND = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128), "brown": (100, 60, 20)}

MARGIN = 1.0  # px between an object and the edge of a picture 32 px wide
GAP = 1.5  # px between two objects

# Width and height of a shape in px. Pointed shapes are wider, so that all small ones look small and all big ones big.
EXTENT = {
    ("circle", "small"): (8.0, 8.0),
    ("circle", "big"): (13.0, 13.0),
    ("square", "small"): (7.2, 7.2),
    ("square", "big"): (11.8, 11.8),
    ("triangle", "small"): (8.8, 8.2),
    ("triangle", "big"): (14.0, 12.8),
    ("plus", "small"): (8.4, 8.4),
    ("plus", "big"): (13.2, 13.2),
    ("ring", "small"): (8.6, 8.6),
    ("ring", "big"): (13.4, 13.4),
    ("diamond", "small"): (8.8, 8.8),
    ("diamond", "big"): (14.0, 14.0),
}
_ARM = 0.34  # thickness of a plus, as a share of its width
_HOLE = 0.54  # diameter of the hole of a ring, as a share of its width


def unit_of(side: int) -> float:
    """How much larger than at 32 px everything is. Below 24 px objects shrink no further: fewer of them fit."""
    return max(side / 32.0, 0.75)


@functools.lru_cache(maxsize=4096)
def extent(shape: str, size: str, side: int) -> tuple[float, float]:
    """Width and height in px of an object in a picture `side` px wide."""
    unit = unit_of(side)
    width, height = EXTENT[shape, size]
    return width * unit, height * unit


def _slab(offset: np.ndarray, half: float) -> np.ndarray:
    return np.clip(half + 0.5 - np.abs(offset), 0.0, 1.0)


def coverage(shape: str, width: float, height: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much of each pixel the shape covers, 0 to 1.

    Shapes: x [1, w] and y [h, 1], offsets in px of pixel centres from the shape's centre; the result is [h, w].
    """
    half = width / 2
    if shape == "square":
        return _slab(x, half) * _slab(y, height / 2)
    if shape == "plus":
        arm = half * _ARM
        long_x, long_y, thin_x, thin_y = _slab(x, half), _slab(y, half), _slab(x, arm), _slab(y, arm)
        both = thin_x * thin_y
        return long_x * thin_y + thin_x * long_y - both
    if shape == "circle":
        return np.clip(half + 0.5 - np.sqrt(x * x + y * y), 0.0, 1.0)
    if shape == "ring":
        radius = np.sqrt(x * x + y * y)
        return np.clip(half + 0.5 - radius, 0.0, 1.0) - np.clip(half * _HOLE + 0.5 - radius, 0.0, 1.0)
    if shape == "diamond":
        return np.clip((half - np.abs(x) - np.abs(y)) * 0.70710678 + 0.5, 0.0, 1.0)
    if shape == "triangle":
        # Apex up; y grows downward, so the base is at +height / 2.
        norm = (half * half + height * height) ** 0.5
        sides = (half * (y + height / 2) - height * np.abs(x)) / norm
        return np.clip(sides + 0.5, 0.0, 1.0) * np.clip(height / 2 - y + 0.5, 0.0, 1.0)
    raise ValueError(f"got shape {shape!r}, wanted one of {sorted({name for name, _ in EXTENT})}")


@functools.lru_cache(maxsize=64)
def _axis(side: int) -> np.ndarray:
    return np.arange(side) + 0.5


def paint(canvas: np.ndarray, shape: str, size: str, colour: str, centre: tuple[float, float]) -> None:
    """Blends one object into `canvas`, float [side, side, 3]."""
    side = canvas.shape[0]
    width, height = extent(shape, size, side)
    cx, cy = centre
    left, right = max(int(cx - width / 2 - 1), 0), min(int(cx + width / 2 + 2), side)
    top, bottom = max(int(cy - height / 2 - 1), 0), min(int(cy + height / 2 + 2), side)
    axis = _axis(side)
    alpha = coverage(shape, width, height, axis[None, left:right] - cx, axis[top:bottom, None] - cy)
    patch = canvas[top:bottom, left:right]
    patch += alpha[:, :, None] * (np.asarray(PALETTE[colour], dtype=np.float64) - patch)


def render(scene) -> np.ndarray:
    """The picture of a scene, uint8 [side, side, 3]: anti-aliased, the same on every machine."""
    canvas = np.empty((scene.side, scene.side, 3))
    canvas[:] = GROUND[scene.meaning.background]
    for group, centres in zip(scene.meaning.groups, scene.centres, strict=True):
        for centre in centres:
            paint(canvas, group.shape, group.size, group.colour, centre)
    return (canvas + 0.5).astype(np.uint8)
