"""Which document comes next: several sources by weight, to the draw the same after every stop and on every rank.

Draw number n depends on the seed and on n alone, never on batching or workers. A finite source is gone through in a
fresh order each time round, every document once; an endless one counts up. A document's random numbers are keyed by
(seed, source, index, visit).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from mixmodal.data.pairs import stable_number
from mixmodal.data.report import LeftOut
from mixmodal.parts import Document, Text

BLOCK = 1024
_ORDERS = 2**64 - 1  # a visit that no document has: the generator that orders a source


class Source(Protocol):
    """What a mixture draws from; `size` is None where it is endless."""

    name: str
    size: int | None

    def document(self, index: int, rng: np.random.Generator) -> Document:
        """Document number `index`; all that is random in it comes from `rng`."""


Weighted = Mapping[Source, float] | Sequence[tuple[Source, float]]


class Draw(NamedTuple):
    """Draw `number`: the position of its source, the index in it, the visit, and the document's stable key."""

    number: int
    source: int
    index: int
    visit: int
    key: int


def document_key(source: str, index: int) -> int:
    """The 63-bit number that names a document for all its random numbers, whatever run it occurs in."""
    return stable_number(f"{source}/{index}")


def document_rng(seed: int, source: str, index: int, visit: int = 0) -> np.random.Generator:
    """The generator of one visit to one document: no two of them overlap."""
    return np.random.Generator(_bits(seed, source, index, visit))


def readable(source: Source, numbers: Iterable[int], *seed: int) -> Iterator[Document]:
    """The documents of these numbers that are there and can be read; the reader counts those that cannot."""
    for number in numbers:
        if source.size is None or number < source.size:
            with suppress(LeftOut):
                yield source.document(number, np.random.default_rng([*seed, number]))


def _bits(seed: int, purpose: str, *counter: int) -> np.random.Philox:
    # A list would pass through int64 or even float64.
    key = np.array([seed & (2**64 - 1), stable_number(purpose)], np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, 0, *counter], np.uint64))


class Mixture:
    """Sources by weight, drawn without end: `next(mixture)` is a document.

    Its `key` is `document_key`; its `about` gains `source`, `index`, `visit` and `draw`. What cannot be read is passed
    over, and stands in its source's `report`.
    Units: weights count documents and need not add up to 1.
    Raises: ValueError for weights or names that cannot be used.
    """

    def __init__(self, sources: Weighted, seed: int = 0) -> None:
        pairs = list(sources.items() if isinstance(sources, Mapping) else sources)
        self.sources = [source for source, _ in pairs]
        self.names = [source.name for source in self.sources]
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"sources need different names, got {self.names}: set `name` on one of them")
        if 0 in self._sizes().values():
            raise ValueError(f"a source is empty, the sizes are {self._sizes()}: leave it out or fill it")
        self.seed, self._number = seed, 0
        self._counts = [0] * len(pairs)
        self.weigh([weight for _, weight in pairs])
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def draw(self) -> Draw:
        """The next draw, without its document: `document` may turn it into one anywhere else."""
        number, source = self._number, self._source_of(self._number)
        count = self._counts[source]
        self._number += 1
        self._counts[source] += 1
        size = self.sources[source].size
        visit, position = (0, count) if size is None else divmod(count, size)
        index = position if size is None else int(self._order(source, visit, size)[position])
        return Draw(number, source, index, visit, document_key(self.names[source], index))

    def document(self, draw: Draw) -> Document:
        """The document of a draw.

        Raises: LeftOut if it cannot be read: its source has counted it.
        """
        name = self.names[draw.source]
        rng = document_rng(self.seed, name, draw.index, draw.visit)
        document = self.sources[draw.source].document(draw.index, rng)
        about = {**document.about, "source": name, "index": draw.index, "visit": draw.visit, "draw": draw.number}
        return replace(document, key=draw.key, about=about)

    def __iter__(self) -> Iterator[Document]:
        return self

    def __next__(self) -> Document:
        while True:
            try:
                return self.document(self.draw())
            except LeftOut:
                continue

    def preview(self, count: int) -> list[Document]:
        """The next `count` documents, without moving on."""
        kept = self._number, list(self._counts)
        documents = [next(self) for _ in range(count)]
        self._number, self._counts = kept
        return documents

    def words(self, count: int) -> list[Document]:
        """The texts of the next `count` documents, without moving on, and without decoding a picture for them."""
        kept = self._number, list(self._counts)
        found = []
        for _ in range(count):
            draw = self.draw()
            source = self.sources[draw.source]
            if hasattr(source, "texts"):
                rng = document_rng(self.seed, self.names[draw.source], draw.index, draw.visit)
                with suppress(LeftOut):
                    found.append(Document(tuple(map(Text, source.texts(draw.index, rng)))))
                continue
            with suppress(LeftOut):
                parts = self.document(draw).parts
                found.append(Document(tuple(part for part in parts if part.medium == Text.medium)))
        self._number, self._counts = kept
        return found

    def weigh(self, weights: Sequence[float]) -> None:
        """From the next draw on, choose sources by these weights."""
        given = np.asarray(weights, np.float64)
        if (
            not given.size
            or given.shape != (len(self.sources),)
            or not np.isfinite(given).all()
            or given.min() < 0
            or given.sum() <= 0
        ):
            raise ValueError(f"weights are numbers >= 0, not all zero, got {list(weights)} for {self.names}")
        edges = np.cumsum(given / given.sum())
        edges[np.flatnonzero(given)[-1] :] = 1.0  # rounding must not leave a gap, nor draw a weight of 0
        self._edges, self._block = edges, (-1, [])

    def state(self) -> dict:
        """Where the mixture stands, small enough for JSON."""
        counts = dict(zip(self.names, self._counts, strict=True))
        return {"seed": self.seed, "number": self._number, "counts": counts, "sizes": self._sizes()}

    def load(self, state: Mapping) -> None:
        """Go on from `state`: with other weights, if those were changed, still without loss or doubling.

        Raises: ValueError if the seed, the names or the sizes are not those of the state.
        """
        for what, here in (("seed", self.seed), ("sizes", self._sizes())):
            if state[what] != here:
                raise ValueError(f"saved with {what} {state[what]}, but here it is {here}: start anew or restore that")
        self._number = int(state["number"])
        self._counts = [int(state["counts"][name]) for name in self.names]

    def _sizes(self) -> dict[str, int | None]:
        return {source.name: source.size for source in self.sources}

    def _source_of(self, number: int) -> int:
        block, place = divmod(number, BLOCK)
        if self._block[0] != block:
            words = _bits(self.seed, "the choice of a source", block, 0).random_raw(BLOCK)
            self._block = (block, np.searchsorted(self._edges, (words >> 11) * 2.0**-53, side="right").tolist())
        return self._block[1][place]

    def _order(self, source: int, visit: int, size: int) -> np.ndarray:
        if self._orders.get(source, (-1,))[0] != visit:
            # Sorting raw words: unlike numpy's permutation, it stays the same from version to version.
            words = _bits(self.seed, self.names[source], visit, _ORDERS).random_raw(size)
            self._orders[source] = (visit, np.argsort(words, kind="stable"))
        return self._orders[source][1]
