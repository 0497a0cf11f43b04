"""Digits in the world: written by hand (`mnist-20k`) and shown with fingers (`sign-digits`), with their words."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from PIL import Image as Pillow

from mixmodal.data.named import find
from mixmodal.data.pairs import Pairs, checked_split
from mixmodal.data.recorded import Recorded

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class SignDigits(Recorded):
    """Photographs of hands that show a digit in sign language, and its word: 1,854 to learn from, 208 held out.

    Shapes: uint8 [size, size, 3]; they are 100 px.
    Source: github.com/ardamavi/Sign-Language-Digits-Dataset (Apache-2.0).
    """

    folder = "sign-digits"
    archive = "images100.tar"
    lines = "labels.jsonl"

    def caption(self, record: dict) -> str:
        """The word."""
        return record["word"]


class Mnist20k(Pairs):
    """Handwritten digits of MNIST and their words: 10,000 to learn from, and the 10,000 of the official test.

    Shapes: uint8 [size, size, 3], grey, ink bright on black; 28 px is what was recorded, other sizes are interpolated.
    Raises: FileNotFoundError where the set is not at hand.
    Source: github.com/rasbt/mnist-pngs; Y. LeCun and C. Cortes, MNIST.
    """

    def __init__(
        self,
        size: int = 28,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        where: str | os.PathLike | None = None,
    ) -> None:
        super().__init__("mnist-20k", tasks)
        if not 1 <= size <= 256:
            raise ValueError(f"got size {size}, wanted 1 to 256 px")
        (path,) = find("mnist-20k", ("mnist20k.npz",), where)
        part = {"train": "train", "valid": "test"}[checked_split(split)]
        with np.load(path, allow_pickle=False) as arrays:
            self.pictures, self.digits = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        self.side, self.size = int(size), len(self.digits)

    def pair(self, index: int) -> tuple[np.ndarray, str]:
        """Picture number `index` and its word.

        Shapes: uint8 [size, size, 3].
        """
        grey = Pillow.fromarray(self.pictures[index])
        if grey.width != self.side:
            grey = grey.resize((self.side, self.side), Pillow.Resampling.BICUBIC)
        return np.array(grey.convert("RGB")), WORDS[int(self.digits[index])]
