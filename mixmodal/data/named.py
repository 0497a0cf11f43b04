"""Real data called by name, and the first two of it: pictures with names, `emoji-noto` and `tiles-crawl`.

The package ships none of them: each is a folder NAME with its licence beside it, looked for under the environment
variable MIXMODAL_DATA, and without that variable in the user's cache folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixmodal.data import source_class
from mixmodal.data.pairs import Pairs, checked_split
from mixmodal.data.pictures import WHITE
from mixmodal.data.pinned import PINNED

VARIABLE = "MIXMODAL_DATA"
# Many tiles are white or black on nothing: over light grey all of them can be seen.
GREY = (192, 192, 192)
_QUOTES = str.maketrans("’‘“”", "''\"\"")


def data_folder() -> Path:
    """Where named data is looked for: $MIXMODAL_DATA, or `mixmodal` in the user's cache folder."""
    told = os.environ.get(VARIABLE)
    if told:
        return Path(told).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "mixmodal"


def find(name: str, files: Sequence[str], where: str | os.PathLike | None = None) -> list[Path]:
    """The paths of `files` of the data called `name`, under `where` or under `data_folder()`.

    Raises: FileNotFoundError that says what was looked for, where, and how to set the place.
    """
    folder = (Path(where) if where is not None else data_folder()) / name
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        told = "is set" if os.environ.get(VARIABLE) else "is not set"
        fetched = next((known for known, of in PINNED.items() if of.folder == name), "")
        get = f"`mixmodal data get {fetched}` fetches it, or " if fetched else ""
        raise FileNotFoundError(
            f"{name} wants {' and '.join(missing)} in {folder}, which is not there: {get}put the folder {name} into a"
            f" folder of your own and set {VARIABLE} to that one ({VARIABLE} {told})"
        )
    return [folder / file for file in files]


def averaged(pixels: np.ndarray, side: int) -> np.ndarray:
    """Square pictures made smaller by averaging whole boxes of pixels.

    Shapes: uint8 [count, S, S, 3] -> uint8 [count, side, side, 3].
    Raises: ValueError if `side` does not divide S.
    """
    whole = pixels.shape[1]
    if side < 1 or whole % side:
        fits = [part for part in range(1, whole + 1) if whole % part == 0]
        raise ValueError(f"pictures of {whole} px cannot be averaged to {side} px: use one of {fits}")
    box = whole // side
    if box == 1:
        return pixels
    total = np.zeros((len(pixels), side, side, pixels.shape[3]), np.uint32)
    for row in range(box):
        for column in range(box):
            total += pixels[:, row::box, column::box]
    return ((total + box * box // 2) // (box * box)).astype(np.uint8)


class _Named(Pairs):
    """Pictures in one array and their records in JSON lines of the same order.

    Units: `bare` is the share of prompts that are a name alone.
    """

    folder: str
    array: str
    grouping = "group"

    def __init__(
        self,
        size: int = 32,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        groups: Sequence[str] | None = None,
        bare: float = 0.5,
        where: str | os.PathLike | None = None,
    ) -> None:
        super().__init__(self.folder, tasks)
        if not 0 <= bare <= 1:
            raise ValueError(f"bare is the share of prompts that are a name alone, between 0 and 1, got {bare}")
        self.bare = bare
        array, lines = find(self.folder, (self.array, "captions.jsonl"), where)
        with open(lines, encoding="utf-8") as stream:
            records = [json.loads(line) for line in stream if line.strip()]
        known = {record[self.grouping] for record in records}
        if groups is not None and not known.issuperset(groups):
            raise ValueError(f"groups of {self.folder} are {', '.join(sorted(known))}; got {', '.join(groups)}")
        wanted = {"train": "train", "valid": "val"}[checked_split(split)]
        chosen = [
            number
            for number, record in enumerate(records)
            if record["split"] == wanted
            and (groups is None or record[self.grouping] in groups)
            and self._belongs(record)
        ]
        self.records = [records[number] for number in chosen]
        with np.load(array, allow_pickle=False) as arrays:
            pixels = self._over(arrays["images"][chosen])
        self.whole = pixels.shape[1:3]  # as they lie there
        self.pixels = averaged(pixels, size)
        self.size = len(chosen)
        if not self.size:
            raise ValueError(f"{self.folder} has no picture in split {split!r} of groups {groups}")

    def _belongs(self, record: dict) -> bool:
        return True

    def _over(self, pixels: np.ndarray) -> np.ndarray:
        return pixels

    def names(self) -> list[str]:
        """The names of the split's pictures, in order of index; one name may have several pictures."""
        return [plain(record["name"]) for record in self.records]

    def pair(self, index: int) -> tuple[np.ndarray, str]:
        """Picture number `index` and its name.

        Shapes: uint8 [size, size, 3].
        """
        return self.pixels[index], plain(self.records[index]["name"])

    def words(self, index: int) -> list[str]:
        """What may be said of picture number `index` beside its name."""
        raise NotImplementedError

    def prompt(self, index: int, caption: str, rng: np.random.Generator) -> str:
        """The name alone, or "name; word, word" with some of `words` in their order."""
        words = self.words(index)
        if not words or rng.random() < self.bare:
            return caption
        count = int(rng.integers(1, min(len(words), 4) + 1))
        chosen = sorted(rng.choice(len(words), count, replace=False))
        return f"{caption}; {', '.join(words[number] for number in chosen)}"


class EmojiNoto(_Named):
    """Google's Noto emoji over white with their Unicode names and keywords: 1,842 to learn from, 99 held out.

    `groups` picks some of "food & drink", "animals & nature", "flags", ...; `skin_tones` adds 1,890 variants that
    differ in skin tone alone. The held-out ones are fixed in the data: all variants of an emoji are on one side.
    Shapes: uint8 [size, size, 3], size 64 or a divisor of it.
    Limits: some flags and families share one picture under several names.
    Source: github.com/googlefonts/noto-emoji (pictures), github.com/milesj/emojibase (names).
    """

    folder = "emoji-noto"
    array = "images64.npz"

    def __init__(
        self,
        size: int = 32,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        groups: Sequence[str] | None = None,
        skin_tones: bool = False,
        bare: float = 0.5,
        where: str | os.PathLike | None = None,
    ) -> None:
        self.skin_tones = skin_tones
        super().__init__(size, tasks, split, groups=groups, bare=bare, where=where)

    def _belongs(self, record: dict) -> bool:
        return self.skin_tones or not record["skin_tone"]

    def words(self, index: int) -> list[str]:
        """Its keywords, without those that its name already says."""
        record = self.records[index]
        said = set(_letters(record["name"]).split())
        return [plain(word) for word in record["keywords"] if not said.issuperset(_letters(word).split())]


class TilesCrawl(_Named):
    """Tiles of the game Dungeon Crawl Stone Soup with names from their file names: 3,635, and 193 held out.

    `groups` picks some of "monster", "item", "dungeon", ...; clear pixels are put over `background`.
    Shapes: uint8 [size, size, 3], size 32 or a divisor of it.
    Limits: names are often terse or odd ("urand faerie", "naga red f").
    Source: github.com/crawl/tiles.
    """

    folder = "tiles-crawl"
    array = "images32_rgba.npz"
    grouping = "category"

    def __init__(
        self,
        size: int = 32,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        groups: Sequence[str] | None = None,
        background: tuple[int, int, int] = GREY,
        bare: float = 0.5,
        where: str | os.PathLike | None = None,
    ) -> None:
        self.background = background
        super().__init__(size, tasks, split, groups=groups, bare=bare, where=where)

    def _over(self, pixels: np.ndarray) -> np.ndarray:
        return over(pixels, self.background)

    def words(self, index: int) -> list[str]:
        """Its category and the folders under it."""
        record = self.records[index]
        return [plain(word) for word in (record["category"], *record["subcategory"])]


NAMED = (
    "emoji-noto",
    "tiles-crawl",
    "openstax-figures",
    "openstax-documents",
    "kodak24",
    "photos-misc",
    "sign-digits",
    "mnist-20k",
    "tinyshakespeare",
)


def named(name: str, *positional, **options) -> Any:
    """The named data as a source; arguments are those of its class.

    Raises: ValueError for an unknown name; FileNotFoundError where the data is not at hand.
    """
    if name not in NAMED:
        raise ValueError(f"no data is called {name!r}: the names are {', '.join(NAMED)}")
    return source_class(name)(*positional, **options)


def over(pixels: np.ndarray, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Pictures with alpha laid over one colour.

    Shapes: uint8 [..., 4] -> uint8 [..., 3].
    """
    alpha = pixels[..., 3:].astype(np.uint32)
    behind = np.array(background, np.uint32)
    return ((pixels[..., :3] * alpha + behind * (255 - alpha) + 127) // 255).astype(np.uint8)


def plain(text: str) -> str:
    """The text with the quotation marks and apostrophes of a keyboard; letters keep their accents."""
    return text.translate(_QUOTES)


def _letters(text: str) -> str:
    return "".join(letter if letter.isalnum() else " " for letter in text.lower())
