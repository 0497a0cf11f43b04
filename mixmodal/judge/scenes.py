"""Reading pictures of the world `scenes` back into what they show, and scoring them against a caption.

An object counts where a person would name it without doubt: a little soft, noisy, off in tone or size is fine;
half drawn, between two shapes or of two colours is not, and reads as unknown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from mixmodal.data.worlds.scene_grammar import COLOURS, OPPOSITE, Group, Meaning, parse
from mixmodal.data.worlds.scene_layout import Scene
from mixmodal.data.worlds.scene_render import GROUND, PALETTE, unit_of
from mixmodal.data.worlds.scenes import Level, level_of
from mixmodal.judge.glyphs import mean3
from mixmodal.judge.scene_shapes import blobs, match

GROUND_WITHIN = 55.0  # the ground's colour is at most this far (in RGB) from one of the palette; they are 118 apart
COLOUR_WITHIN = 75.0  # the same for an object's colour,
COLOUR_RATIO = 0.65  # which is also that much nearer than every other
VISIBLE = 36.0  # a pixel this far from the ground is not ground
SPECK = 3.0  # a blob of less than this many px (at 32 px) of fair contrast is dirt, not an object,
DIRT_MAX = 6.0  # but more dirt than this, all blobs of a px or more taken together, is something unknown
ERROR_MAX = 0.12  # share of the best template's energy that may stay unexplained
MARGIN_MIN = 0.25  # 1: the object is its template; 0: half way to another shape or size
SPREAD_MAX = 30.0  # an object's tone may stray this far (root mean square, in RGB) from one place to another,
SPOT_MAX = 45.0  # and this far over 3 x 3 px anywhere in it, what its outline surrounds included
CLEARLY = 3.0  # times the noise of the ground, from which a pixel is no noise
NOISE_MAX = 3 * 14.0**2  # of the noise seen in the ground at most so much is forgiven in an object
_MEDIAN = 0.789  # the median of the squared length of a normal 3-vector, over its mean
ASIDE = 1.0  # px at 32 px by which the groups of a relation must be apart, centre from centre

_NAMES = COLOURS
_COLOURS = np.array([PALETTE[name] for name in _NAMES], dtype=np.float32)
_GROUND_NAMES = tuple(GROUND)
_GROUNDS = np.array([GROUND[name] for name in _GROUND_NAMES], dtype=np.float32)


@dataclass(frozen=True)
class Seen:
    """One object as read. Units: centre (x, y) in px of the picture; `error` is 0 for a perfect fit."""

    shape: str
    colour: str
    size: str
    centre: tuple[float, float]
    error: float

    @property
    def look(self) -> tuple[str, str, str]:
        """Size, colour and shape, as `Group.look`."""
        return self.size, self.colour, self.shape


@dataclass(frozen=True)
class Reading:
    """A picture read: the ground, the objects, how many things are no object of this world, and the residual."""

    background: str
    objects: tuple[Seen, ...]
    unknown: int
    residual: float
    side: int

    def relation(self, first: tuple[Seen, ...], second: tuple[Seen, ...]) -> str | None:
        """How `first` lies to `second`, or None where no relation is beyond doubt."""
        if not first or not second:
            return None
        one, two = (np.array([seen.centre for seen in group]) for group in (first, second))
        offset = two.mean(0) - one.mean(0)
        axis = int(abs(offset[1]) > abs(offset[0]))
        name, ahead, behind = ("left of", "above")[axis], one, two
        if offset[axis] < 0:
            name, ahead, behind = OPPOSITE[name], two, one
        clear = ahead[:, axis].max() + ASIDE * unit_of(self.side) <= behind[:, axis].min()
        return name if clear else None

    @property
    def meaning(self) -> Meaning | None:
        """What a caption of this picture says, in canonical form, or None where no caption fits."""
        looks = Counter(seen.look for seen in self.objects)
        if self.unknown or not 1 <= len(looks) <= 2 or max(looks.values()) > 4:
            return None
        groups = tuple(Group(count, *look) for look, count in looks.items())
        if len(groups) == 1:
            return Meaning(self.background, groups)
        members = [tuple(seen for seen in self.objects if seen.look == look) for look in looks]
        relation = self.relation(*members)
        return None if relation is None else Meaning(self.background, groups, relation).canonical()


@dataclass(frozen=True)
class Verdict:
    """Whether a picture shows exactly what a caption says, and which parts of it are right.

    `parts` has the keys background, count, shapes, colours, sizes, objects (each with its own attributes) and,
    where the caption has one, relation.
    """

    exact: bool
    parts: dict[str, bool]
    reading: Reading | None = None

    @property
    def fraction(self) -> float:
        """The share of the parts that is right."""
        return sum(self.parts.values()) / len(self.parts)


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """The picture as float, averaged over whole blocks down to 32 px or a little more."""
    side = pixels.shape[0]
    block = max((n for n in range(1, side // 32 + 1) if side % n == 0), default=1)
    picture = pixels.astype(np.float32)
    if block == 1:
        return picture
    return picture.reshape(side // block, block, side // block, block, 3).mean(axis=(1, 3))


def _grown(array: np.ndarray, reach: int) -> np.ndarray:
    """The largest value within `reach` px, in the square sense."""
    for _ in range(reach):
        for axis in (0, 1):
            grown = array.copy()
            ahead, behind = (
                (slice(1, None), slice(None, -1))
                if axis == 0
                else ((slice(None), slice(1, None)), (slice(None), slice(None, -1)))
            )
            np.maximum(grown[ahead], array[behind], out=grown[ahead])
            np.maximum(grown[behind], array[ahead], out=grown[behind])
            array = grown
    return array


def _ground(picture: np.ndarray) -> tuple[str, np.ndarray] | None:
    """Name and measured colour of the ground: the median of the border, which objects leave free."""
    rim = np.concatenate([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])
    colour = np.median(rim, axis=0)
    away = np.sqrt(((_GROUNDS - colour) ** 2).sum(1))
    name = int(away.argmin())
    if away[name] > GROUND_WITHIN:
        return None
    return _GROUND_NAMES[name], colour


def read(pixels: np.ndarray, level: str | Level = "full") -> Reading | None:
    """What a picture shows, or None where its ground is no ground of this world.

    Shapes: pixels uint8 [side, side, 3], side at least 16.
    Limits: what the level does not know counts as unknown, as does everything half drawn.
    """
    if pixels.ndim != 3 or pixels.shape[0] != pixels.shape[1] or pixels.shape[2] != 3 or pixels.shape[0] < 16:
        raise ValueError(f"got a picture of shape {pixels.shape}, wanted [side, side, 3] with side >= 16")
    level = level_of(level)
    picture = _shrunk(pixels)
    side, zoom = picture.shape[0], pixels.shape[0] / picture.shape[0]
    ground = _ground(picture)
    if ground is None or ground[0] not in level.backgrounds:
        return None
    name, colour = ground
    offset = picture - colour
    away = np.sqrt((offset * offset).sum(2))
    reach = max(round(side / 32), 1)
    mask = (away > VISIBLE) & (away > 0.5 * _grown(away, reach))
    labels, count = blobs(mask)
    quiet = away[~_grown(mask, reach)]
    noise = min(float(np.median(quiet * quiet)) / _MEDIAN, NOISE_MAX) if quiet.size else 0.0
    canvas = _Canvas(offset, away, colour, noise, side, reach)
    objects, unknown, dirt = [], 0, 0.0
    for label in range(1, count + 1):
        own = labels == label
        ink = canvas.ink(own)
        if ink < SPECK:
            dirt += ink if ink > SPECK / 3 or away[own].max() > CLEARLY * noise**0.5 else 0.0
            continue
        found = canvas.objects(own, mask)
        if not all(seen is not None and level.knows(seen.size, seen.colour, seen.shape) for seen in found):
            unknown += 1
            continue
        objects += [
            Seen(seen.shape, seen.colour, seen.size, (seen.centre[0] * zoom, seen.centre[1] * zoom), seen.error)
            for seen in found
        ]
    unknown += int(dirt > DIRT_MAX)
    residual = max((seen.error for seen in objects), default=0.0)
    return Reading(name, tuple(objects), unknown, residual, pixels.shape[0])


@dataclass(frozen=True)
class _Canvas:
    """A picture less its ground: the offsets and their lengths, and what is needed to name what stands in it."""

    offset: np.ndarray
    away: np.ndarray
    ground: np.ndarray
    noise: float  # squared, of a pixel
    side: int
    reach: int

    def ink(self, own: np.ndarray) -> float:
        """How many px of fair contrast a blob makes up, at 32 px."""
        return float(self.away[own].sum()) / 150.0 / unit_of(self.side) ** 2

    def objects(self, own: np.ndarray, mask: np.ndarray) -> list[Seen | None]:
        """The objects of one blob: one, several that touch softly, or a None for what cannot be named."""
        seen = self.object(own, mask)
        if seen is not None:
            return [seen]
        strong = own & (self.away > 0.72 * _grown(self.away * own, self.reach))
        labels, count = blobs(strong)
        pieces = [labels == label for label in range(1, count + 1)]
        pieces = [piece for piece in pieces if self.ink(piece) >= SPECK]
        if len(pieces) < 2:
            return [None]
        found = []
        for piece in pieces:
            others = _grown(strong & ~piece, self.reach)
            found.append(self.object(_grown(piece, 2 * self.reach) & own & ~others, mask))
        return found

    def object(self, own: np.ndarray, mask: np.ndarray) -> Seen | None:
        """The object that one blob is, or None where it is not one without doubt."""
        strength = self.away[own]
        if not len(strength):
            return None
        most = -min(max(len(strength) // 4, 3), len(strength))
        tone = np.median(self.offset[own][strength >= np.partition(strength, most)[most]], axis=0)
        # How much of the object's colour a pixel holds, and what is left of it.
        contrast = float(tone @ tone)
        if contrast < VISIBLE**2:
            return None
        alpha = self.offset @ tone / contrast
        stray = np.maximum(self.away * self.away / contrast - alpha * alpha, 0.0)
        rim = _grown(own, self.reach)
        weight = (own | ~_grown(mask & ~own, self.reach)).astype(np.float32)
        found = match(alpha, weight, (rim * weight).astype(np.float32), stray, self.noise / contrast, self.side)
        if found is None or found.error > ERROR_MAX or found.margin < MARGIN_MIN:
            return None
        # A soft object's strongest pixels are paler than the object; the fitted strength makes up for it.
        apart = np.sqrt(((_COLOURS - self.ground - found.strength * tone) ** 2).sum(1))
        nearest, second = np.argsort(apart)[:2]
        if apart[nearest] > COLOUR_WITHIN or apart[nearest] > COLOUR_RATIO * apart[second]:
            return None
        # Two colours in one object: what is left once the covering is taken out differs from place to place.
        inner = own & (alpha > 0.4)
        rest = self.offset[inner] - alpha[inner][:, None] * tone
        if float(rest.var(axis=0).sum()) - self.noise * 2 / 3 > SPREAD_MAX**2:
            return None
        # A paler spot is not in the blob, but in what it surrounds.
        filled = ~_grown(~_grown(own, 2 * self.reach), 2 * self.reach)
        aside = (self.offset - alpha[..., None] * tone) * filled[..., None]
        if float((mean3(aside) ** 2).sum(axis=2).max()) > SPOT_MAX**2:
            return None
        return Seen(found.shape, _NAMES[nearest], found.size, found.centre, found.error)


def judge(pixels: np.ndarray, wanted, level: str | Level = "full") -> Verdict:
    """Whether a picture shows what is wanted: a caption, a `Meaning`, or a `Scene` (its places do not count).

    Raises: ValueError where a caption is not one of this world.
    """
    meaning = parse(wanted) if isinstance(wanted, str) else getattr(wanted, "meaning", wanted)
    if meaning is None:
        raise ValueError(f"got {wanted!r}, wanted a caption such as 'a big red circle on a white background'")
    reading = read(pixels, level)
    looks = Counter({group.look: group.count for group in meaning.groups})
    names = ["background", "count", "shapes", "colours", "sizes", "objects"]
    if len(meaning.groups) == 2:
        names.append("relation")
    if reading is None:
        return Verdict(False, dict.fromkeys(names, False))
    seen = Counter(one.look for one in reading.objects)
    whole = reading.unknown == 0

    def same(part: int) -> bool:
        return whole and _by(seen, part) == _by(looks, part)

    parts = {
        "background": reading.background == meaning.background,
        "count": seen.total() + reading.unknown == looks.total(),
        "shapes": same(2),
        "colours": same(1),
        "sizes": same(0),
        "objects": whole and seen == looks,
    }
    if len(meaning.groups) == 2:
        parts["relation"] = reading.relation(*_members(reading, meaning)) == meaning.relation
    return Verdict(all(parts.values()), parts, reading)


def kept(reading: Reading | None, scene: Scene, within: float = 2.0) -> bool:
    """Whether every object of a scene was read where the scene has it: for edits, whose other objects stay.

    Units: `within` in px at 32 px.
    """
    if reading is None:
        return False
    reach = within * unit_of(reading.side)
    zoom = reading.side / scene.side
    free = list(reading.objects)
    for group, centres in zip(scene.meaning.groups, scene.centres, strict=True):
        for x, y in centres:
            near = [
                seen
                for seen in free
                if seen.look == group.look and np.hypot(seen.centre[0] - x * zoom, seen.centre[1] - y * zoom) <= reach
            ]
            if not near:
                return False
            free.remove(near[0])
    return True


def _by(looks: Counter, part: int) -> Counter:
    found: Counter = Counter()
    for look, count in looks.items():
        found[look[part]] += count
    return found


def _members(reading: Reading, meaning: Meaning) -> tuple[tuple[Seen, ...], tuple[Seen, ...]]:
    """The objects that stand for each group: by the whole look, else by the first attribute that tells them apart."""
    one, two = (group.look for group in meaning.groups)
    sides = tuple(tuple(seen for seen in reading.objects if seen.look == look) for look in (one, two))
    if all(sides):
        return sides
    for part in (1, 2, 0):
        if one[part] != two[part]:
            sides = tuple(
                tuple(seen for seen in reading.objects if seen.look[part] == look[part]) for look in (one, two)
            )
            if all(sides):
                return sides
    return (), ()
