"""What a scene says: groups of objects, a relation between two, a background, and the sentences for them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

SHAPES = ("circle", "square", "triangle", "plus", "ring", "diamond")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink")
SIZES = ("small", "big")
RELATIONS = ("left of", "right of", "above", "below")
BACKGROUNDS = ("white", "black", "grey", "brown")
COUNT_WORDS = ("a", "two", "three", "four")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

# A fixed tenth of the table: the shape with index i and the colour with index (3 i + 6) mod 8, without diamonds.
# 5 of all 48 pairs, 2 of the 24 of the first four shapes and six colours; no shape or colour twice.
UNSEEN_PAIRS = frozenset((SHAPES[i], COLOURS[(3 * i + 6) % len(COLOURS)]) for i in range(5))

_PLURALS = {shape: shape + ("es" if shape == "plus" else "s") for shape in SHAPES}
_SINGULARS = {plural: shape for shape, plural in _PLURALS.items()}
_COUNTS = {word: index + 1 for index, word in enumerate(COUNT_WORDS)} | {"an": 1, "one": 1}


def _one_of(words) -> str:
    return "(" + "|".join(words) + ")"


_GROUP = re.compile(
    " ".join(_one_of(words) for words in (_COUNTS, SIZES, COLOURS, (*_PLURALS.values(), *SHAPES))),
)
_SPLIT = re.compile(" " + _one_of(RELATIONS) + " ")
_TAIL = re.compile("(.*) on an? " + _one_of(BACKGROUNDS) + " background")


@dataclass(frozen=True)
class Group:
    """`count` objects that look the same."""

    count: int
    size: str
    colour: str
    shape: str

    @property
    def look(self) -> tuple[str, str, str]:
        """Size, colour and shape: what two groups of a scene must not share."""
        return self.size, self.colour, self.shape

    def words(self) -> str:
        """The group as words: "a big red circle", "three small green rings"."""
        noun = self.shape if self.count == 1 else plural_of(self.shape)
        return f"{COUNT_WORDS[self.count - 1]} {self.size} {self.colour} {noun}"


@dataclass(frozen=True)
class Meaning:
    """All that a caption says. With two groups, `groups[0]` is `relation` `groups[1]`."""

    background: str
    groups: tuple[Group, ...]
    relation: str | None = None

    def flipped(self) -> Meaning:
        """The same meaning told from the other group; itself where there is one group."""
        if self.relation is None:
            return self
        return Meaning(self.background, self.groups[::-1], OPPOSITE[self.relation])

    def canonical(self) -> Meaning:
        """The form that both orders share: its relation is "left of" or "above"."""
        return self.flipped() if self.relation in ("right of", "below") else self

    def words(self) -> str:
        """The caption, in the order of the groups."""
        said = f" {self.relation} ".join(group.words() for group in self.groups)
        return f"{said} on a {self.background} background"

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The (shape, colour) pairs in it."""
        return tuple((group.shape, group.colour) for group in self.groups)

    @property
    def split(self) -> str:
        """ "unseen" with a pair that never occurs in training, "heldout" for a tenth of the rest, else "train"."""
        if not UNSEEN_PAIRS.isdisjoint(self.pairs):
            return "unseen"
        digest = hashlib.blake2b(self.canonical().words().encode(), digest_size=4).digest()
        return "heldout" if int.from_bytes(digest, "big") % 10 == 0 else "train"

    def with_group(self, index: int, **changes) -> Meaning:
        """The same with some fields of one group changed."""
        groups = list(self.groups)
        groups[index] = replace(groups[index], **changes)
        return replace(self, groups=tuple(groups))


def plural_of(noun: str) -> str:
    """The plural of a shape, or of "object"."""
    return _PLURALS.get(noun, noun + "s")


def singular_of(noun: str) -> str:
    """The shape whose plural this is; any other word as it is."""
    return _SINGULARS.get(noun, noun)


def parse_group(text: str) -> Group | None:
    """The group that a phrase names ("two big blue squares"), or None."""
    match = _GROUP.fullmatch(text)
    if match is None:
        return None
    count, size, colour, noun = match.groups()
    shape = _SINGULARS.get(noun, noun)
    if (_COUNTS[count] == 1) != (noun in SHAPES):
        return None
    return Group(_COUNTS[count], size, colour, shape)


def parse(caption: str) -> Meaning | None:
    """What a caption says, in its own order, or None where it is not a caption of this world.

    Limits: case, runs of blanks and a final full stop do not matter; every other word does.
    """
    match = _TAIL.fullmatch(" ".join(caption.lower().split()).removesuffix(".").rstrip())
    if match is None:
        return None
    said, background = match.groups()
    pieces = _SPLIT.split(said)
    groups = tuple(parse_group(piece) for piece in pieces[::2])
    if None in groups or len(groups) > 2:
        return None
    if len(groups) == 1:
        return Meaning(background, groups)
    if groups[0].look == groups[1].look:
        return None
    return Meaning(background, groups, pieces[1])


def same_meaning(first: str | Meaning, second: str | Meaning) -> bool:
    """Whether two captions say the same, in whatever order; False where one of them cannot be read."""
    one = parse(first) if isinstance(first, str) else first
    other = parse(second) if isinstance(second, str) else second
    return one is not None and other is not None and one.canonical() == other.canonical()
