"""Where a picture decoded with a loss meets pixels that stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np

ROUNDS = 4  # times the longer side of what is unknown: a step at its edge is gone then, and fades towards the middle


def healed(array: np.ndarray, part: Any) -> np.ndarray:
    """The array of a part, moved where it is not known so that it goes over into what is without a step.

    How far the array is from what is known spreads from there into the rest, as heat would: each value is the mean of
    its four neighbours.

    Shapes:  [F, H, W, C], cut to the part's own size.
    Limits:  Jacobi's rounds: the work grows with the cube of the side of what is unknown.
    Source:  Pérez et al. 2003, Poisson image editing, their membrane.
    """
    if part.known is None or part.empty or not part.known.any():
        return array
    frames, height, width = part.extent
    array, unknown = array[:frames, :height, :width], ~part.known
    apart = np.pad(np.where(part.known[..., None], part.array() - array, 0), ((0, 0), (1, 1), (1, 1), (0, 0)))
    inner = apart[:, 1:-1, 1:-1]
    for _ in range(ROUNDS * max(unknown.any(0).sum(), unknown.any(1).sum())):
        apart[:, 0], apart[:, -1] = apart[:, 1], apart[:, -2]  # nothing flows over the edge of the picture
        apart[:, :, 0], apart[:, :, -1] = apart[:, :, 1], apart[:, :, -2]
        around = apart[:, :-2, 1:-1] + apart[:, 2:, 1:-1] + apart[:, 1:-1, :-2] + apart[:, 1:-1, 2:]
        inner[:, unknown] = around[:, unknown] / 4
    return array + inner
