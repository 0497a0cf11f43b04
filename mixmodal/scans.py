"""Scans: the order in which next token goes through the cells of a part."""

from __future__ import annotations

import numpy as np


def scan(kind: str, size: tuple[int, int, int]) -> np.ndarray:
    """The raster numbers of cells in the order of the scan, frame after frame.

    "columns" goes down each column in turn, "diagonal" along lines from lower left to upper right, "corner" by the
    distance from the first cell, "spiral" outwards from the middle.

    Shapes:  -> [frames * rows * columns].
    Raises:  ValueError for an unknown kind.
    """
    return ordered(kind, np.indices(size).reshape(3, -1).T, size)


def ordered(kind: str, cells: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """The numbers of positions in the order of the scan of their cells; those of one cell stay as they are.

    Shapes:  [n, 3] or more (frame, row, column, and what tells positions of one cell apart) -> [n].
    Raises:  ValueError for an unknown kind.
    """
    if kind not in SCANS:
        raise ValueError(f"scan is {kind!r}: take one of {', '.join(SCANS)}")
    frame, row, column = cells.T[:3].astype(np.int64)
    return np.lexsort((*SCANS[kind](row, column, *size[1:])[::-1], frame))


def _spiral(row: np.ndarray, column: np.ndarray, rows: int, columns: int) -> tuple[np.ndarray, ...]:
    """Ring by ring around the middle; within a ring by angle."""
    down, right = row - (rows - 1) / 2, column - (columns - 1) / 2
    ring = np.maximum(np.abs(down), np.abs(right))
    return ring, np.arctan2(down, right)


# What cells are sorted by, the first key first.
SCANS = {
    "raster": lambda row, column, rows, columns: (row, column),
    "columns": lambda row, column, rows, columns: (column, row),
    "diagonal": lambda row, column, rows, columns: (row + column, -row),
    "corner": lambda row, column, rows, columns: (row**2 + column**2, row),
    "spiral": _spiral,
}
