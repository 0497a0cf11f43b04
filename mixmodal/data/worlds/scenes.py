"""The world `scenes`: simple objects on a plain ground, with everything that is said about them decidable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mixmodal.data.worlds.scene_edits import edit
from mixmodal.data.worlds.scene_grammar import (
    BACKGROUNDS,
    COLOURS,
    RELATIONS,
    SHAPES,
    SIZES,
    UNSEEN_PAIRS,
    Group,
    Meaning,
)
from mixmodal.data.worlds.scene_grammar import parse as parse_caption
from mixmodal.data.worlds.scene_layout import Scene, fits, place
from mixmodal.data.worlds.scene_questions import ask, ask_two
from mixmodal.data.worlds.scene_render import render
from mixmodal.parts import Document, Image, Text

PROMPT_WEIGHT = 0.04  # loss weight of a text that mostly serves as a prompt
KINDS = ("single", "group", "pair", "groups", "crowd")
COUNTS = {"group": (1, 2, 3, 4), "groups": (1, 2, 3, 4), "crowd": (2, 3, 4)}  # of a group; 1 in the other kinds
SPLITS = ("train", "heldout", "unseen")
TASKS = ("draw", "describe", "ask", "compare", "edit", "story", "look")


@dataclass(frozen=True)
class Level:
    """What a level may draw. `kinds` are weights: a single object, one group of one to four, a pair of single
    objects with a relation, two groups with a relation, two groups of two to four each with a relation.

    Units: `freedom` is the share of its room in which an object is placed, 1: anywhere.
    """

    name: str
    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = COLOURS
    backgrounds: tuple[str, ...] = BACKGROUNDS
    kinds: Mapping[str, float] = field(default_factory=lambda: {"single": 1.0})
    freedom: float = 1.0
    sizes: tuple[str, ...] = SIZES

    def knows(self, size: str, colour: str, shape: str) -> bool:
        """Whether such an object is of this level."""
        return size in self.sizes and colour in self.colours and shape in self.shapes

    @property
    def unseen_pairs(self) -> tuple[tuple[str, str], ...]:
        """Its (shape, colour) pairs that never occur in training."""
        return tuple(pair for pair in sorted(UNSEEN_PAIRS) if pair[0] in self.shapes and pair[1] in self.colours)


LEVELS = {
    level.name: level
    for level in (
        Level("one"),
        Level("few", SHAPES[:3], COLOURS[:6], BACKGROUNDS[:3], {"pair": 1.0}, freedom=0.1, sizes=SIZES[1:]),
        Level("two", SHAPES[:4], COLOURS[:6], BACKGROUNDS[:3], {"pair": 1.0}, freedom=0.1),
        Level("counts", kinds={"group": 1.0}),
        Level("full", kinds={"group": 0.3, "pair": 0.3, "groups": 0.4}),
    )
}


def level_of(level: str | Level) -> Level:
    """The level of that name; a `Level` is returned as it is."""
    if isinstance(level, Level):
        return level
    if level not in LEVELS:
        raise ValueError(f"got level {level!r}, wanted one of {', '.join(LEVELS)}: or pass a Level of your own")
    return LEVELS[level]


def _weights(given: Mapping[str, float], known: tuple[str, ...], what: str) -> tuple[tuple[str, ...], np.ndarray]:
    strange = [name for name in given if name not in known]
    if strange or not any(weight > 0 for weight in given.values()):
        raise ValueError(f"got {what} {dict(given)}, wanted weights, at least one above 0, for some of {known}")
    names = tuple(name for name in given if given[name] > 0)
    weights = np.array([given[name] for name in names], dtype=float)
    return names, np.cumsum(weights / weights.sum())


class Scenes:
    """A source and a world of scenes: documents drawn without end from one split of a level.

    `tasks` are weights over `TASKS`, `kinds` over `KINDS`, `freedom` how freely objects lie (None: the level's own).
    """

    def __init__(
        self,
        level: str | Level = "full",
        size: int = 32,
        tasks: Mapping[str, float] | None = None,
        seed: int = 0,
        split: str = "train",
        kinds: Mapping[str, float] | None = None,
        freedom: float | None = None,
    ) -> None:
        if freedom is not None and not 0 <= freedom <= 1:
            raise ValueError(f"got freedom {freedom}, wanted 0, the middle of its room, to 1, anywhere in it")
        if split not in SPLITS:
            raise ValueError(f"got split {split!r}, wanted one of {SPLITS}")
        if not 16 <= size <= 512:
            raise ValueError(f"got size {size}, wanted 16 to 512 px")
        level = level_of(level)
        self.level = level if freedom is None else replace(level, freedom=freedom)
        self.side = int(size)
        self.seed = seed
        self.split = split
        self.name = f"scenes-{self.level.name}-{self.side}"
        self.size = None  # endless
        self._tasks = _weights(tasks or {"draw": 1.0, "describe": 1.0}, TASKS, "tasks")
        self._kinds = _weights(kinds or self.level.kinds, KINDS, "kinds")
        self._unseen = self.level.unseen_pairs

    def draw_meaning(self, rng: np.random.Generator, split: str = "train") -> Meaning:
        """What a scene of this split says; it fits into the picture."""
        level, (names, steps) = self.level, self._kinds
        for _ in range(10_000):
            kind = names[min(int(np.searchsorted(steps, rng.random(), side="right")), len(names) - 1)]
            picks = rng.random(16).tolist()

            def pick(options, picks=picks):
                return options[int(picks.pop() * len(options))]

            counts = COUNTS.get(kind)
            groups = tuple(
                Group(pick(counts) if counts else 1, pick(level.sizes), pick(level.colours), pick(level.shapes))
                for _ in range(1 if kind in ("single", "group") else 2)
            )
            relation = pick(RELATIONS) if len(groups) == 2 else None
            meaning = Meaning(pick(level.backgrounds), groups, relation)
            if split == "unseen":
                shape, colour = pick(self._unseen)
                meaning = meaning.with_group(pick(range(len(groups))), shape=shape, colour=colour)
            groups = meaning.groups
            if len(groups) == 2 and groups[0].look == groups[1].look:
                continue
            if meaning.split == split and fits(meaning, self.side):
                return meaning
        raise RuntimeError(
            f"no {split} scene of level {self.level.name!r} fits {self.side} px: take a larger size or other kinds"
        )

    def draw(self, rng: np.random.Generator, split: str | None = None) -> Scene:
        """A scene of the split (None: the source's own)."""
        for _ in range(1000):
            scene = place(self.draw_meaning(rng, split or self.split), self.side, rng, self.level.freedom)
            if scene is not None:
                return scene
        raise RuntimeError(f"no scene of level {self.level.name!r} has room in {self.side} px: take a larger size")

    def place(self, meaning: Meaning | str, rng: np.random.Generator) -> Scene | None:
        """A scene that says this, or None where it has no room (or is no caption)."""
        if isinstance(meaning, str):
            meaning = parse_caption(meaning)
        return None if meaning is None else place(meaning, self.side, rng, self.level.freedom)

    def render(self, scene: Scene) -> np.ndarray:
        """The picture, uint8 [side, side, 3]."""
        return render(scene)

    def caption(self, scene: Scene, rng: np.random.Generator | None = None) -> str:
        """The sentence for a scene; with `rng`, told from either group."""
        meaning = scene.meaning
        if rng is not None and meaning.relation is not None and rng.random() < 0.5:
            meaning = meaning.flipped()
        return meaning.words()

    def parse(self, caption: str) -> Meaning | None:
        """What a caption says, or None where it is not one."""
        return parse_caption(caption)

    def document(self, index: int, rng: np.random.Generator | None = None) -> Document:
        """One document of one of the tasks; `about` holds the task and its scenes."""
        if rng is None:
            rng = np.random.default_rng((self.seed, index))
        names, steps = self._tasks
        task = names[min(int(np.searchsorted(steps, rng.random(), side="right")), len(names) - 1)]
        parts, about = getattr(self, f"_{task}")(rng)
        return Document(parts, key=index, about=about)

    def _draw(self, rng) -> tuple[tuple, dict]:
        scene = self.draw(rng)
        parts = (Text(self.caption(scene), weight=PROMPT_WEIGHT), Image(self.render(scene)))
        return parts, _about("draw", scene)

    def _look(self, rng) -> tuple[tuple, dict]:
        scene = self.draw(rng)
        return (Image(self.render(scene)),), _about("look", scene)

    def _describe(self, rng) -> tuple[tuple, dict]:
        """In reading order, what is on the left or on top first: told in either order, half of what a caption has to
        learn would be which of the two it chose."""
        scene = self.draw(rng)
        return (self._shown(scene), Text(scene.meaning.canonical().words())), _about("describe", scene)

    def _ask(self, rng) -> tuple[tuple, dict]:
        scene = self.draw(rng)
        question, answer = ask(scene.meaning, rng, self.split == "unseen")
        parts = (self._shown(scene), Text(question, weight=PROMPT_WEIGHT), Text(answer))
        return parts, _about("ask", scene, question=question, answer=answer)

    def _compare(self, rng) -> tuple[tuple, dict]:
        first = self.draw(rng)
        changed = self._edit_of(first, rng, ("train", self.split)) if rng.random() < 0.75 else None
        second = changed[1] if changed else self.draw(rng)
        if rng.random() < 0.1:
            second = self.place(first.meaning, rng) or first
        question, answer = ask_two(first.meaning, second.meaning, rng, self.split == "unseen")
        parts = (self._shown(first), self._shown(second), Text(question, weight=PROMPT_WEIGHT), Text(answer))
        return parts, _about("compare", first, second, question=question, answer=answer)

    def _edit(self, rng) -> tuple[tuple, dict]:
        (first, second), (instruction,) = self._chain(1, rng)
        parts = (self._shown(first), Text(instruction, weight=PROMPT_WEIGHT), Image(self.render(second)))
        return parts, _about("edit", first, second, instruction=instruction)

    def _story(self, rng) -> tuple[tuple, dict]:
        scenes, instructions = self._chain(int(rng.integers(1, 3)), rng)
        sentences = (self.caption(scenes[0]), *(f"then {instruction}" for instruction in instructions))
        parts = []
        for sentence, scene in zip(sentences, scenes, strict=True):
            parts += [Text(sentence, weight=PROMPT_WEIGHT), Image(self.render(scene))]
        return tuple(parts), _about("story", *scenes, sentences=sentences)

    def _shown(self, scene: Scene) -> Image:
        return Image(self.render(scene), wanted=False)

    def _edit_of(self, scene: Scene, rng, splits: tuple[str, ...]) -> tuple[str, Scene] | None:
        level = self.level

        def accepted(after: Meaning) -> bool:
            return after.split in splits and all(level.knows(*group.look) for group in after.groups)

        return edit(scene, rng, accepted, level.colours, level.shapes, level.backgrounds)

    def _chain(self, steps: int, rng) -> tuple[list[Scene], list[str]]:
        """Scenes, each an edit of the one before, and the instructions. All but the last are of the split "train",
        so that only what is asked for is new."""
        for _ in range(500):
            scenes, instructions = [self.draw(rng, "train")], []
            for step in range(steps):
                found = self._edit_of(scenes[-1], rng, (self.split,) if step == steps - 1 else ("train",))
                if found is None:
                    break
                instructions.append(found[0])
                scenes.append(found[1])
            if len(scenes) == steps + 1:
                return scenes, instructions
        raise RuntimeError(f"no edit in level {self.level.name!r} leads to a {self.split} scene: take a larger level")


def _about(task: str, *scenes: Scene, **more) -> dict:
    return {"task": task, "scenes": scenes, **more}
