"""What all readers of pictures with captions share: the two directions of a pair, and stable splits by name.

A split is decided by a hash of a name, never by an order or a random draw: a file that is added or taken away
moves no other file, and the same name is in the same split on every machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

import numpy as np

from mixmodal.parts import Document, Image, Text

TASKS = ("draw", "describe")
PROMPT_WEIGHT = 0.04  # a caption that serves as prompt is learned a little: it is seldom worth much model
HELD_OUT = 0.05
# "valid" is what readers of files say, "heldout" what the worlds say: for a reader they are one thing.
_COPY = re.compile(r"~copy\d+$")
SPLITS = {"train": "train", "valid": "valid", "heldout": "valid"}


def stable_number(text: str) -> int:
    """A 63-bit number that is the same for the same text in every process, version and machine."""
    # File names may hold bytes that are no UTF-8, which Python keeps as halves of characters.
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


def checked_split(split: str) -> str:
    """`train` or `valid`.

    Raises: ValueError for any other word; `heldout` is taken as `valid`.
    """
    if split not in SPLITS:
        raise ValueError(f"split is one of {', '.join(SPLITS)}, got {split!r}")
    return SPLITS[split]


def names_of(split: str, names: Iterable[str], share: float = HELD_OUT) -> set[str]:
    """The names that belong to `split`: of two or more, each split gets at least one; a lone one is trained on.

    Units: `share` is the expected part of the names that is held out.
    """
    split = checked_split(split)
    if not 0 <= share <= 1:
        raise ValueError(f"the held-out share is between 0 and 1, got {share}")
    by_hash = sorted(set(names), key=lambda name: (stable_number(name), name))
    cut = sum(stable_number(name) < share * 2**63 for name in by_hash)
    if 0 < share < 1:
        cut = min(max(cut, 1), len(by_hash) - 1)
    return set(by_hash[:cut] if split == "valid" else by_hash[cut:])


def numbered(key: str, number: int) -> str:
    """The name of copy `number` of what is called `key`, from 1: both are in the same split."""
    return key if number == 1 else f"{key}~copy{number}"


def unnumbered(key: str) -> str:
    """What decides the split of a name that `numbered` may have made."""
    return _COPY.sub("", key)


def share_of_draw(tasks: Mapping[str, float] | None) -> float:
    """The probability that a document is to be drawn rather than described: equal shares unless told."""
    weights = dict.fromkeys(TASKS, 1.0) if tasks is None else dict(tasks)
    wrong = set(weights) - set(TASKS)
    if wrong or not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise ValueError(
            f"tasks wants weights >= 0, not all zero, for {' and '.join(TASKS)}, got {tasks!r}:"
            ' for example {"draw": 1, "describe": 1}'
        )
    return weights.get("draw", 0.0) / sum(weights.values())


class Pairs:
    """A source of pictures with captions. Subclasses set `name` and `size` and give `pair`."""

    name: str
    size: int

    def __init__(self, name: str, tasks: Mapping[str, float] | None = None) -> None:
        self.name = name
        self.draws = share_of_draw(tasks)

    def pair(self, index: int) -> tuple[np.ndarray, str]:
        """Picture and caption number `index`.

        Shapes: uint8 [height, width, 3].
        """
        raise NotImplementedError

    def words_of(self, index: int) -> str:
        """The caption of pair number `index`; a subclass whose pictures lie in files need not decode one for it."""
        return self.pair(index)[1]

    def prompt(self, index: int, caption: str, rng: np.random.Generator) -> str:
        """What to ask for when picture number `index` is to be drawn: its caption, unless a subclass varies it."""
        return caption

    def document(self, index: int, rng: np.random.Generator) -> Document:
        """Pair number `index` in one of its two directions, chosen by `rng`."""
        draw = rng.random() < self.draws
        pixels, caption = self.pair(index)
        if draw:
            prompt = Text(self.prompt(index, caption, rng), weight=PROMPT_WEIGHT)
            return Document((prompt, Image(pixels)), about={"task": "draw"})
        return Document((Image(pixels, wanted=False), Text(caption)), about={"task": "describe"})

    def texts(self, index: int, rng: np.random.Generator) -> list[str]:
        """The texts of `document`, from the same random numbers."""
        draw, caption = rng.random() < self.draws, self.words_of(index)
        return [self.prompt(index, caption, rng) if draw else caption]

    def __len__(self) -> int:
        return self.size
