"""Instructions that change a scene, what they lead to, and stories made of them.

Objects that an instruction does not name keep their places.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from mixmodal.data.worlds.scene_grammar import (
    BACKGROUNDS,
    COLOURS,
    OPPOSITE,
    RELATIONS,
    SHAPES,
    SIZES,
    Group,
    Meaning,
    parse_group,
    plural_of,
    singular_of,
)
from mixmodal.data.worlds.scene_layout import CLEAR, Scene
from mixmodal.data.worlds.scene_questions import chosen, phrase
from mixmodal.data.worlds.scene_render import GAP, MARGIN, extent, unit_of

_BACKGROUND = re.compile("make the background (.+)")
_MAKE = re.compile("make the (.+) (.+)")
_TURN = re.compile("turn the (.+) into (?:a )?(.+)")
_REMOVE = re.compile("remove (one of )?the (.+)")
_ADD = re.compile("add (.+?) (" + "|".join(RELATIONS) + ") the (.+)")


def apply(instruction: str, meaning: Meaning) -> Meaning | None:
    """What a scene says after an instruction, or None where that is not one or cannot be done here.

    Limits: a leading "then" does not matter.
    """
    instruction = instruction.removeprefix("then ")
    if match := _BACKGROUND.fullmatch(instruction):
        return Meaning(match[1], meaning.groups, meaning.relation) if match[1] in BACKGROUNDS else None
    if match := _ADD.fullmatch(instruction):
        added, found = parse_group(match[1]), chosen(match[3], meaning)
        if added is None or len(meaning.groups) != 1 or not found or added.look == meaning.groups[0].look:
            return None
        return Meaning(meaning.background, (meaning.groups[0], added), OPPOSITE[match[2]])
    if match := _REMOVE.fullmatch(instruction):
        found = chosen(match[2], meaning)
        if len(found) != 1:
            return None
        if match[1]:
            left = meaning.groups[found[0]].count - 1
            return meaning.with_group(found[0], count=left) if left else None
        return Meaning(meaning.background, (meaning.groups[1 - found[0]],)) if len(meaning.groups) == 2 else None
    for pattern in (_TURN, _MAKE):
        if match := pattern.fullmatch(instruction):
            found = chosen(match[1], meaning)
            word = match[2] if pattern is _MAKE else singular_of(match[2])
            known = {"colour": COLOURS, "size": SIZES} if pattern is _MAKE else {"shape": SHAPES}
            field = next((name for name, words in known.items() if word in words), None)
            if len(found) != 1 or field is None:
                return None
            after = meaning.with_group(found[0], **{field: word})
            looks = [group.look for group in after.groups]
            return None if after == meaning or len(set(looks)) < len(looks) else after
    return None


def _instruction(meaning: Meaning, rng: np.random.Generator, colours, shapes, backgrounds) -> str:
    def pick(options):
        return options[int(rng.integers(len(options)))]

    group = pick(meaning.groups)
    what = phrase(group, meaning, rng)
    kind = pick(("colour", "colour", "shape", "shape", "size", "background", "remove", "add"))
    if kind == "colour":
        return f"make the {what} {pick([word for word in colours if word != group.colour])}"
    if kind == "shape":
        shape = pick([word for word in shapes if word != group.shape])
        return f"turn the {what} into " + (f"a {shape}" if group.count == 1 else plural_of(shape))
    if kind == "size":
        return f"make the {what} {SIZES[1 - SIZES.index(group.size)]}"
    if kind == "background":
        return f"make the background {pick([word for word in backgrounds if word != meaning.background])}"
    if kind == "remove" or len(meaning.groups) == 2:
        if len(meaning.groups) == 2 and (group.count == 1 or rng.random() < 0.5):
            return f"remove the {what}"
        return f"remove one of the {phrase(group, meaning, rng, count=2)}"
    added = Group(1 if rng.random() < 0.7 else 2, pick(SIZES), pick(colours), pick(shapes))
    return f"add {added.words()} {pick(RELATIONS)} the {what}"


def _boxes(scene: Scene) -> list[tuple[float, float, float, float]]:
    found = []
    for group, centres in zip(scene.meaning.groups, scene.centres, strict=True):
        width, height = extent(group.shape, group.size, scene.side)
        found += [(x - width / 2, y - height / 2, x + width / 2, y + height / 2) for x, y in centres]
    return found


def is_sound(scene: Scene) -> bool:
    """Whether all objects keep the margin and the gap, and the groups their relation."""
    unit, boxes = unit_of(scene.side), _boxes(scene)
    low, high, gap = MARGIN * unit - 1e-6, scene.side - MARGIN * unit + 1e-6, GAP * unit - 1e-6
    if any(min(box[:2]) < low or max(box[2:]) > high for box in boxes):
        return False
    for index, one in enumerate(boxes):
        for two in boxes[:index]:
            if max(one[0] - two[2], two[0] - one[2], one[1] - two[3], two[1] - one[3]) < gap:
                return False
    if scene.meaning.relation is None:
        return True
    first, second = (np.array(centres) for centres in scene.centres)
    if scene.meaning.relation in ("right of", "below"):
        first, second = second, first
    axis = int(scene.meaning.relation in ("above", "below"))
    offset = second.mean(0) - first.mean(0)
    members = [first[:, axis].max(), second[:, axis].min()]
    return bool(members[1] - members[0] > 4.0 * unit and offset[axis] > CLEAR * abs(offset[1 - axis]))


def edited(scene: Scene, instruction: str, rng: np.random.Generator) -> Scene | None:
    """The scene after an instruction, or None where that means nothing here or has no room.

    `rng` chooses the place of what is added and, of several, the one that is removed.
    """
    before, after = scene.meaning, apply(instruction, scene.meaning)
    if after is None:
        return None
    centres = list(scene.centres)
    if len(after.groups) < len(before.groups):
        centres = [centres[before.groups.index(after.groups[0])]]
    elif len(after.groups) > len(before.groups):
        return _with_added(scene, after, rng)
    for index, group in enumerate(after.groups):
        if group.count < len(centres[index]):
            gone = int(rng.integers(len(centres[index])))
            centres[index] = centres[index][:gone] + centres[index][gone + 1 :]
    result = Scene(after, tuple(centres), scene.side)
    return result if is_sound(result) else None


def _with_added(scene: Scene, after: Meaning, rng: np.random.Generator) -> Scene | None:
    added = after.groups[1]
    width, height = extent(added.shape, added.size, scene.side)
    edge = MARGIN * unit_of(scene.side)
    low = np.array([edge + width / 2, edge + height / 2])
    room = scene.side - 2 * low
    if room.min() < 0:
        return None
    for draws in rng.random((24, added.count, 2)):
        places = tuple((float(x), float(y)) for x, y in low + draws * room)
        result = Scene(after, (scene.centres[0], places), scene.side)
        if is_sound(result):
            return result
    return None


def edit(
    scene: Scene,
    rng: np.random.Generator,
    accepts: Callable[[Meaning], bool] = lambda meaning: True,
    colours: tuple[str, ...] = COLOURS,
    shapes: tuple[str, ...] = SHAPES,
    backgrounds: tuple[str, ...] = BACKGROUNDS,
) -> tuple[str, Scene] | None:
    """An instruction for a scene and the scene it leads to; None where 60 tries found none that `accepts` takes."""
    for _ in range(60):
        instruction = _instruction(scene.meaning, rng, colours, shapes, backgrounds)
        after = apply(instruction, scene.meaning)
        if after is not None and accepts(after):
            result = edited(scene, instruction, rng)
            if result is not None:
                return instruction, result
    return None
