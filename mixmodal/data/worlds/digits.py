"""The world `digits`: real handwriting with its answers, scikit-learn's 1,797 digits of 8 by 8 pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from PIL import Image as Pillow

from mixmodal.data.pairs import Pairs, names_of

SIDE = 8  # of a picture as it was recorded
HELD_OUT = 0.2
NAMES = ("a zero", "a one", "a two", "a three", "a four", "a five", "a six", "a seven", "an eight", "a nine")


@lru_cache(maxsize=1)
def _recorded() -> tuple[np.ndarray, np.ndarray]:
    """(pictures uint8 [1797, 8, 8] with ink bright, digits [1797])."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "digits reads scikit-learn's recorded handwriting, and scikit-learn is not installed:"
            " pip install 'mixmodal[data]'"
        ) from error
    data = load_digits()
    return np.rint(data.images * (255 / 16)).astype(np.uint8), data.target


class Digits(Pairs):
    """Handwritten digits and their names (`a seven`), in both directions; a fifth is held out, fixed by number.

    Shapes: uint8 [size, size, 3], grey, ink bright on black; 8 px is what was recorded, larger is interpolated.
    Raises: ImportError where scikit-learn is missing.
    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI (CC BY 4.0).
    """

    def __init__(self, size: int = 16, tasks: Mapping[str, float] | None = None, split: str = "train") -> None:
        super().__init__("digits", tasks)
        if not SIDE <= size <= 256:
            raise ValueError(f"got size {size}, wanted {SIDE} to 256 px")
        pictures, digits = _recorded()
        names = [f"digits/{number}" for number in range(len(digits))]
        held = names_of(split, names, HELD_OUT)
        chosen = [number for number, name in enumerate(names) if name in held]
        self.side = int(size)
        self.split = split
        self.digits = digits[chosen]
        self.pictures = pictures[chosen]
        self.size = len(chosen)

    def pair(self, index: int) -> tuple[np.ndarray, str]:
        """Picture number `index` and its name.

        Shapes: uint8 [size, size, 3].
        """
        grey = Pillow.fromarray(self.pictures[index])
        if self.side != SIDE:
            grey = grey.resize((self.side, self.side), Pillow.Resampling.BICUBIC)
        return np.asarray(grey.convert("RGB")), NAMES[int(self.digits[index])]

    @staticmethod
    def parse(text: str) -> int | None:
        """The digit that a caption names, or None where it names none."""
        said = re.sub(r"\s+", " ", text.strip().lower())
        return NAMES.index(said) if said in NAMES else None
