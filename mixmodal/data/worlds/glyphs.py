"""The world `glyphs`: words drawn as pictures, to be written, read and copied; words and a font are held out.

A caption spells the word (`write h e l l o`), so that a byte-level BPE hands the model letters. Heights are those
of an l above the baseline; positions are whole pixels; ink is blended into paper in proportion to its coverage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from string import ascii_lowercase

import numpy as np

from mixmodal.config import unknown
from mixmodal.data.fonts import FONTS, face
from mixmodal.data.pairs import PROMPT_WEIGHT, stable_number
from mixmodal.parts import Document, Image, Text

SPLITS = ("train", "heldout", "font")
TASKS = ("write", "read", "copy", "look")
LENGTHS = (3, 10)
HELD_FONT = "slab"
HELD_EVERY = 10  # one word in so many is held out, by its hash
CONTRAST = 90  # least difference in brightness (0 to 255) between ink and paper

COLOURS = {
    "black": (20, 20, 20),
    "grey": (128, 128, 128),
    "white": (240, 240, 240),
    "red": (215, 35, 35),
    "orange": (235, 135, 25),
    "yellow": (235, 220, 45),
    "green": (40, 150, 55),
    "cyan": (60, 200, 210),
    "blue": (40, 65, 215),
    "purple": (130, 45, 165),
    "pink": (235, 150, 195),
    "brown": (120, 75, 35),
}

_CAPTION = re.compile(
    r"(?:write )?(?P<word>[a-z](?: [a-z])*)"
    rf"(?: in (?P<ink>{'|'.join(COLOURS)}) (?P<font>{'|'.join(FONTS)}) on (?P<paper>{'|'.join(COLOURS)}))?"
)


HEIGHTS = (8, 16)  # least and greatest height of letters, in pixels


@dataclass(frozen=True)
class Level:
    """What a level draws.

    Units: pixels. `size` is (height, width) of the picture; `heights` the least and the greatest; `pitch` the width
    of a letter's cell (0: letters follow each other by their own widths); `wander` the rows and columns by which a
    word may leave its fixed place (None: it stands anywhere); `jitter` by how much a colour leaves its name's.
    """

    name: str
    size: tuple[int, int]
    fonts: tuple[str, ...]
    heights: tuple[int, int]
    pitch: int = 0
    wander: tuple[int, int] | None = None
    inks: tuple[str, ...] = tuple(COLOURS)
    papers: tuple[str, ...] = tuple(COLOURS)
    jitter: int = 16


_FONTS = tuple(font for font in FONTS if font != HELD_FONT)
_FEW = ("white", "yellow")
LEVELS = {
    level.name: level
    for level in (
        Level("grid", (16, 80), ("plain",), (8, 8), 8, (0, 0), ("black",), ("white",), 0),
        Level("line", (16, 88), ("plain", "narrow"), (8, 10), 8, (1, 6), ("black", "red", "blue"), _FEW, 0),
        Level("small", (16, 96), _FONTS, (8, 10)),
        Level("full", (24, 128), _FONTS, (8, 16)),
    )
}


@dataclass(frozen=True)
class Glyph:
    """A word and how it looks: its top left cell's place, its colours (red, green, blue) and its picture's size."""

    word: str
    font: str
    height: int
    top: int
    left: int
    ink: tuple[int, int, int]
    paper: tuple[int, int, int]
    size: tuple[int, int]
    pitch: int = 0


def split_of(word: str) -> str:
    """`train` or `heldout`: one word in ten, the same on every machine and in every version of Python."""
    return "heldout" if stable_number(word) % HELD_EVERY == 0 else "train"


def colour_name(colour: tuple[int, int, int]) -> str:
    """The name in `COLOURS` that is nearest."""
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], colour, strict=True)))


def brightness(colour: tuple[int, int, int]) -> float:
    """Luma, 0 to 255. Source: Rec. 601."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def spell(word: str) -> str:
    """The word's letters with spaces between: what is answered when a picture is read."""
    return " ".join(word)


def parse(text: str) -> str | None:
    """The word that a caption or an answer spells, or None where it spells none."""
    found = _CAPTION.fullmatch(text.strip())
    return found["word"].replace(" ", "") if found else None


def parse_look(text: str) -> tuple[str, str, str] | None:
    """(ink, font, paper) that a caption names, or None where it names none."""
    found = _CAPTION.fullmatch(text.strip())
    return (found["ink"], found["font"], found["paper"]) if found and found["ink"] else None


def render(glyph: Glyph) -> np.ndarray:
    """The picture, uint8 [height, width, 3].

    Raises: ValueError where the word leaves the picture.
    """
    line = face(glyph.font, glyph.height).line(glyph.word, glyph.pitch)
    ink, paper = (np.array(colour, dtype=np.float32) for colour in (glyph.ink, glyph.paper))
    high, wide = glyph.size
    if min(glyph.top, glyph.left) < 0 or glyph.top + line.shape[0] > high or glyph.left + line.shape[1] > wide:
        raise ValueError(
            f"got {glyph.word!r} of {line.shape} px at {(glyph.top, glyph.left)} in a picture of {glyph.size},"
            f" wanted it inside: draw it smaller, or take a larger size"
        )
    pixels = np.broadcast_to(paper, (high, wide, 3)).copy()
    rows, columns = (slice(at, at + n) for at, n in zip((glyph.top, glyph.left), line.shape, strict=True))
    pixels[rows, columns] += line[..., None] * (ink - paper)
    return np.rint(pixels).astype(np.uint8)


def draw_word(rng: np.random.Generator, split: str = "train", lengths: tuple[int, int] = LENGTHS) -> str:
    """A word of the split: half are any letters, so that no letter is guessed from its neighbours, half can be said.

    Limits: `split` is `train` or `heldout`.
    """
    while True:
        length = int(rng.integers(lengths[0], lengths[1] + 1))
        if rng.random() < 0.5:
            word = "".join(ascii_lowercase[i] for i in rng.integers(0, 26, length))
        else:
            consonants, vowels = "bcdfghjklmnpqrstvwxz", "aeiouy"
            letters, vowel = [], bool(rng.random() < 0.4)
            for _ in range(length):
                letters.append(_one_of(rng, vowels if vowel else consonants))
                vowel = not vowel if rng.random() < 0.85 else vowel
            word = "".join(letters)
        if split_of(word) == split:
            return word


def _one_of(rng: np.random.Generator, options):
    return options[int(rng.integers(len(options)))]


class Glyphs:
    """A source and a world of words as pictures: documents drawn without end from one split of a level.

    `tasks` are weights over `TASKS`; `size` (height, width), `fonts` and `heights` replace the level's own; with
    `styled`, captions also name ink, font and paper (`write h e l l o in red bold on white`).
    """

    def __init__(
        self,
        level: str | Level = "full",
        size: tuple[int, int] | None = None,
        tasks: Mapping[str, float] | None = None,
        seed: int = 0,
        split: str = "train",
        lengths: tuple[int, int] = LENGTHS,
        styled: bool = False,
        fonts: tuple[str, ...] | None = None,
        heights: tuple[int, int] | None = None,
    ) -> None:
        tasks = {"write": 1.0, "read": 1.0} if tasks is None else dict(tasks)
        if isinstance(level, str) and level not in LEVELS:
            raise ValueError(unknown(f"level {level!r} of glyphs", level, LEVELS))
        if split not in SPLITS:
            raise ValueError(unknown(f"split {split!r} of glyphs", split, SPLITS))
        if not set(tasks) <= set(TASKS) or min(tasks.values(), default=0) < 0 or not sum(tasks.values()) > 0:
            raise ValueError(f"got tasks {tasks}, wanted weights, at least one above 0, for some of {', '.join(TASKS)}")
        if not 1 <= lengths[0] <= lengths[1]:
            raise ValueError(f"got lengths {lengths}, wanted (least, greatest), at least 1")
        level = LEVELS[level] if isinstance(level, str) else level
        self.level = replace(level, fonts=tuple(fonts or level.fonts), heights=tuple(heights or level.heights))
        least, most = self.level.heights
        if not HEIGHTS[0] <= least <= most <= HEIGHTS[1]:
            raise ValueError(
                f"got heights {self.level.heights}, wanted (least, greatest) within {HEIGHTS}: others are not read back"
            )
        if HELD_FONT in self.level.fonts:
            raise ValueError(
                f"got fonts {self.level.fonts}, but {HELD_FONT!r} is held out: leave it to the split 'font'"
            )
        self.picture = tuple(size or self.level.size)
        self.seed = seed
        self.split = split
        self.lengths = tuple(lengths)
        self.styled = styled
        self.name = f"glyphs-{self.level.name}-{self.picture[0]}x{self.picture[1]}"
        self.size = None  # endless
        self._tasks = tuple(tasks)
        self._shares = np.array([tasks[task] for task in self._tasks]) / sum(tasks.values())

    def draw(self, rng: np.random.Generator, split: str | None = None, word: str | None = None) -> Glyph:
        """A glyph of the split (None: the source's own), of `word` where one is given.

        Raises: ValueError where such words do not fit into the picture.
        """
        split = split or self.split
        fonts = (HELD_FONT,) if split == "font" else self.level.fonts
        for _ in range(1000):
            chosen = word or draw_word(rng, "train" if split == "train" else "heldout", self.lengths)
            font = _one_of(rng, fonts)
            place = self._place(rng, chosen, font)
            if place is not None:
                height, top, left, pitch = place
                ink, paper = self._draw_colours(rng)
                return Glyph(chosen, font, height, top, left, ink, paper, self.picture, pitch)
        raise ValueError(
            f"got {word or f'words of {self.lengths} letters'} in {font} for a picture of {self.picture} px,"
            f" wanted room for them at {self.level.heights[0]} px: take a larger size"
        )

    def _place(self, rng: np.random.Generator, word: str, font: str) -> tuple[int, int, int, int] | None:
        """(height, top, left, pitch), or None where the word has no room; a column and a row stay free around it."""
        level, (high, wide) = self.level, self.picture
        height = int(rng.integers(level.heights[0], level.heights[1] + 1))
        # A long word takes a smaller height rather than none, so that lengths stay even.
        while True:
            letters = face(font, height)
            # Letters wider than a cell (those of the held-out font) follow each other by their own widths.
            pitch = level.pitch if max(letters.masks[letter].shape[1] for letter in word) < level.pitch else 0
            rows, columns = letters.height + letters.depth, letters.width(word, pitch)
            if rows + 2 <= high and columns + (0 if pitch else 2) <= wide:
                break
            height -= 1
            if height < level.heights[0]:
                return None
        if level.wander is None:
            top, left = int(rng.integers(1, high - rows)), int(rng.integers(1, wide - columns))
            return height, top, left, pitch
        # The fixed place: the baseline of the tallest letters that are centred, and the left edge.
        tallest = level.heights[1]
        baseline = (high + tallest - tallest // 4) // 2
        top = baseline - height + int(rng.integers(-level.wander[0], level.wander[0] + 1))
        left = (0 if pitch else 1) + int(rng.integers(level.wander[1] + 1))
        return height, min(max(top, 1), high - rows - 1), min(left, wide - columns - (not pitch)), pitch

    def _draw_colours(self, rng: np.random.Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        level = self.level
        while True:
            pair = []
            for names in (level.inks, level.papers):
                shift = rng.integers(-level.jitter, level.jitter + 1, 3)
                pair.append(tuple(int(c) for c in np.clip(COLOURS[_one_of(rng, names)] + shift, 0, 255)))
            if abs(brightness(pair[0]) - brightness(pair[1])) >= CONTRAST:
                return pair[0], pair[1]

    def render(self, glyph: Glyph) -> np.ndarray:
        """The picture, uint8 [height, width, 3]."""
        return render(glyph)

    def look(self, glyph: Glyph) -> str:
        """`in red bold on white`: how a styled caption names ink, font and paper."""
        return f"in {colour_name(glyph.ink)} {glyph.font} on {colour_name(glyph.paper)}"

    def caption(self, glyph: Glyph, rng: np.random.Generator | None = None) -> str:
        """The sentence that asks for a glyph; there is one, so `rng` changes nothing."""
        return f"write {spell(glyph.word)}" + (f" {self.look(glyph)}" if self.styled else "")

    def parse(self, text: str) -> str | None:
        """The word that a caption or an answer spells, or None where it spells none."""
        return parse(text)

    def copying(self, glyph: Glyph) -> str:
        """What asks for a copy that looks like this glyph."""
        return "copy it" + (f" {self.look(glyph)}" if self.styled else "")

    def document(self, index: int, rng: np.random.Generator | None = None) -> Document:
        """One document of one of the tasks; `about` holds the task and its glyphs, the wanted one last."""
        if rng is None:
            rng = np.random.default_rng((self.seed, index))
        task = self._tasks[int(rng.choice(len(self._tasks), p=self._shares))]
        glyph = self.draw(rng)
        glyphs, picture = (glyph,), render(glyph)
        if task == "write":
            parts = (Text(self.caption(glyph), weight=PROMPT_WEIGHT), Image(picture))
        elif task == "look":
            parts = (Image(picture),)
        elif task == "read":
            parts = (Image(picture, wanted=False), Text(spell(glyph.word)))
        else:
            other = self.draw(rng, word=glyph.word)
            ask = self.copying(other)
            # Never wanted: else a model that reads would have to guess whether a copy is asked for.
            parts = (Image(picture, wanted=False), Text(ask, wanted=False), Image(render(other)))
            glyphs = (glyph, other)
        return Document(parts, key=index, about={"task": task, "glyphs": glyphs})
