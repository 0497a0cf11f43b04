"""A source in two: every tenth document is held out, and none of them is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixmodal.data import make_source
from mixmodal.data.report import LeftOut, NothingLeft
from mixmodal.parts import Document, Text

EVERY = 10
SPLITS = ("train", "heldout")


class Parted:
    """The documents of another source, `of`, but each tenth; or, of the split "heldout", these.

    Raises:  ValueError for an unknown split, for a source without end, or with fewer than ten documents.
    """

    def __init__(self, of: Mapping[str, Any], split: str = "train") -> None:
        self.source = make_source(dict(of))
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}: take {' or '.join(SPLITS)}")
        if self.source.size is None or self.source.size < EVERY:
            raise ValueError(
                f"{self.source.name} has {self.source.size or 'endless'} documents: only {EVERY} or more can be parted"
            )
        numbers = range(self.source.size)
        self.numbers = [n for n in numbers if (n % EVERY == EVERY - 1) == (split == "heldout")]
        self.name, self.size = f"{self.source.name}-{split}", len(self.numbers)
        self._broken: set[int] = set()

    @property
    def report(self) -> Any:
        """What the other source left out, and why."""
        return getattr(self.source, "report", None)

    def document(self, index: int, rng: np.random.Generator) -> Document:
        """The document of that number in this part.

        Raises:  LeftOut if it cannot be read; NothingLeft once none of this part can.
        """
        try:
            return self.source.document(self.numbers[index], rng)
        except LeftOut as error:
            self._broken.add(index)
            if len(self._broken) == self.size:
                raise NothingLeft(f"no document of {self.name} can be read, the last since {error}") from error
            raise

    def texts(self, index: int, rng: np.random.Generator) -> list[str]:
        """The texts of that document; its pictures need not be decoded for them where the source knows how."""
        if hasattr(self.source, "texts"):
            return self.source.texts(self.numbers[index], rng)
        return [part.text for part in self.document(index, rng).parts if isinstance(part, Text)]
