"""How far the judge of scenes can be trusted, measured: `python -m mixmodal.judge.scenes_check --n 20000`.

Right pictures must be accepted: as rendered, slightly blurred, noisy, and as JPEG. Wrong ones must be refused:
one word of the caption changed, an object too many, half an object, an object of two colours.

"JPEG 85" keeps colour at full resolution. With 4:2:0 the colour of a 32 px picture has 16 by 16 values: where an
object is about as light as the ground its shape is then lost, to a person as well, and the row says how often.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from mixmodal.data.worlds.scene_grammar import BACKGROUNDS, COLOURS, RELATIONS, SHAPES, SIZES, Meaning
from mixmodal.data.worlds.scene_layout import Scene
from mixmodal.data.worlds.scene_render import GAP, GROUND, MARGIN, PALETTE, extent, paint, unit_of
from mixmodal.data.worlds.scenes import SPLITS, Scenes
from mixmodal.judge.scenes import judge

Pixels = np.ndarray


def blurred(pixels: Pixels, sigma: float) -> Pixels:
    """The picture under a Gaussian, edges repeated. Units: sigma in px of a picture 32 px wide."""
    sigma *= pixels.shape[0] / 32
    reach = int(np.ceil(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    soft = np.pad(pixels.astype(float), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    side = pixels.shape[0]
    soft = sum(weight * soft[shift : shift + side] for shift, weight in enumerate(kernel))
    soft = sum(weight * soft[:, shift : shift + side] for shift, weight in enumerate(kernel))
    return np.clip(soft + 0.5, 0, 255).astype(np.uint8)


def noisy(pixels: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """The picture with independent normal noise in every value. Units: sigma in grey levels of 256."""
    return np.clip(pixels + rng.normal(0, sigma, pixels.shape) + 0.5, 0, 255).astype(np.uint8)


def jpeg(pixels: Pixels, quality: int = 85, halved: bool = False) -> Pixels:
    """The picture after JPEG; with `halved`, its colour at half the resolution (4:2:0)."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2 if halved else 0)
    return np.asarray(Image.open(file).convert("RGB"))


def _other(options, word, rng):
    rest = [option for option in options if option != word]
    return rest[int(rng.integers(len(rest)))]


def changed(meaning: Meaning, part: str, rng: np.random.Generator) -> Meaning | None:
    """The meaning with one thing changed, or None where it has no such thing."""
    index = int(rng.integers(len(meaning.groups)))
    group = meaning.groups[index]
    if part == "background":
        return Meaning(_other(BACKGROUNDS, meaning.background, rng), meaning.groups, meaning.relation)
    if part == "relation":
        if meaning.relation is None:
            return None
        return Meaning(meaning.background, meaning.groups, _other(RELATIONS, meaning.relation, rng))
    options = {"shape": SHAPES, "colour": COLOURS, "size": SIZES, "count": (1, 2, 3, 4)}[part]
    result = meaning.with_group(index, **{part: _other(options, getattr(group, part), rng)})
    looks = {one.look for one in result.groups}
    return result if len(looks) == len(result.groups) else None


def with_extra(scene: Scene, pixels: Pixels, rng: np.random.Generator) -> Pixels | None:
    """The picture with one more object in a free place, or None where none was found."""
    canvas, unit = pixels.astype(float), unit_of(scene.side)
    shape, colour = _other(SHAPES, "", rng), _other(COLOURS, "", rng)
    size = _other(SIZES, "", rng) if len(scene.centres) < 2 else "small"
    width, height = extent(shape, size, scene.side)
    ink = np.abs(canvas - GROUND[scene.meaning.background]).max(2) > 8
    edge, gap = MARGIN * unit, GAP * unit
    for _ in range(60):
        x = rng.uniform(edge + width / 2, scene.side - edge - width / 2)
        y = rng.uniform(edge + height / 2, scene.side - edge - height / 2)
        top, left = max(int(y - height / 2 - gap), 0), max(int(x - width / 2 - gap), 0)
        if not ink[top : int(y + height / 2 + gap) + 1, left : int(x + width / 2 + gap) + 1].any():
            paint(canvas, shape, size, colour, (x, y))
            return (canvas + 0.5).astype(np.uint8)
    return None


def spoilt(scene: Scene, pixels: Pixels, rng: np.random.Generator, recolour: bool) -> Pixels:
    """The picture with one object's left, right, upper or lower half gone or, with `recolour`, in another colour."""
    index = int(rng.integers(len(scene.meaning.groups)))
    group = scene.meaning.groups[index]
    x, y = scene.centres[index][int(rng.integers(group.count))]
    width, height = extent(group.shape, group.size, scene.side)
    canvas = pixels.astype(float)
    rows = slice(max(int(y - height / 2) - 1, 0), int(y + height / 2) + 2)
    columns = slice(max(int(x - width / 2) - 1, 0), int(x + width / 2) + 2)
    half = (slice(rows.start, round(y)), slice(round(y), rows.stop), rows, rows)[(way := int(rng.integers(4)))]
    across = (columns, columns, slice(columns.start, round(x)), slice(round(x), columns.stop))[way]
    ground = np.array(GROUND[scene.meaning.background], float)
    if not recolour:
        canvas[half, across] = ground
        return canvas.astype(np.uint8)
    tone = np.array(PALETTE[group.colour], float) - ground
    alpha = np.clip((canvas[half, across] - ground) @ tone / (tone @ tone), 0, 1)[:, :, None]
    canvas[half, across] = ground + alpha * (np.array(PALETTE[_other(COLOURS, group.colour, rng)]) - ground)
    return (canvas + 0.5).astype(np.uint8)


def with_disc(scene: Scene, pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """The picture with a disc of another colour, 0.4 of its width, in the middle of one object."""
    index = int(rng.integers(len(scene.meaning.groups)))
    group = scene.meaning.groups[index]
    x, y = scene.centres[index][int(rng.integers(group.count))]
    reach = 0.2 * max(extent(group.shape, group.size, scene.side)[0], 8 * unit_of(scene.side))
    down, across = np.mgrid[: scene.side, : scene.side] + 0.5
    alpha = np.clip(reach + 0.5 - np.hypot(down - y, across - x), 0, 1)[..., None]
    tone = np.array(PALETTE[_other(COLOURS, group.colour, rng)], float)
    return (pixels + alpha * (tone - pixels) + 0.5).astype(np.uint8)


def speckled(scene: Scene, pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """The picture with twelve px, none beside another, of some object's colour on bare ground."""
    ground, canvas = np.array(GROUND[scene.meaning.background], float), pixels.copy()
    bare = np.abs(pixels - ground).max(2) < 60
    block = max(scene.side // 32, 1)
    for y, x in rng.permutation(
        np.argwhere(np.lib.stride_tricks.sliding_window_view(bare, (3 * block,) * 2).all((2, 3)))
    ):
        spot = (slice(y + block, y + 2 * block), slice(x + block, x + 2 * block))
        if y % block or x % block:  # a whole px of 32 by 32
            continue
        around = canvas[y : y + 3 * block, x : x + 3 * block]
        if np.abs(around - ground).max() < 60:
            canvas[spot] = PALETTE[scene.meaning.groups[0].colour]
            if (np.abs(canvas - pixels.astype(float)).max(2) > 30).sum() >= 12 * block**2:
                break
    return canvas


ACCEPT: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "as rendered": lambda pixels, rng: pixels,
    "blur 0.5 px": lambda pixels, rng: blurred(pixels, 0.5),
    "noise 8": lambda pixels, rng: noisy(pixels, 8, rng),
    "JPEG 85": lambda pixels, rng: jpeg(pixels),
    "JPEG 85, 4:2:0": lambda pixels, rng: jpeg(pixels, halved=True),
    "blur 0.8 px": lambda pixels, rng: blurred(pixels, 0.8),
    "blur 0.6, noise 12": lambda pixels, rng: noisy(blurred(pixels, 0.6), 12, rng),
}
WRONG = ("shape", "colour", "size", "count", "relation", "background")
DRAWN_WRONG = ("extra object", "half an object", "two colours", "a disc within", "specks")


def measure(level: str, side: int, n: int, seed: int = 0) -> dict[str, tuple[float, int]]:
    """Per row the share of right verdicts and the number of pictures; "ms" has the judge's time a picture.

    Wrong pictures are judged slightly soft and noisy every second time. Splits take turns.
    """
    worlds = [Scenes(level, side, split=split) for split in SPLITS]
    rights: dict[str, list[bool]] = {row: [] for row in (*ACCEPT, *WRONG, *DRAWN_WRONG)}
    seconds = 0.0
    for index in range(n):
        rng = np.random.default_rng((seed, side, index))
        world = worlds[index % len(worlds)]
        scene = world.draw(rng)
        pixels = world.render(scene)
        for row, spoil in ACCEPT.items():
            shown = spoil(pixels, rng)
            start = time.perf_counter()
            verdict = judge(shown, scene)
            seconds += time.perf_counter() - start
            rights[row].append(verdict.exact)
        soft = noisy(blurred(pixels, 0.5), 8, rng) if index % 2 else pixels
        for row in WRONG:
            wrong = changed(scene.meaning, row, rng)
            if wrong is not None:
                rights[row].append(not judge(soft, wrong).exact)
        extra = with_extra(scene, soft, rng)
        if extra is not None:
            rights["extra object"].append(not judge(extra, scene).exact)
        rights["half an object"].append(not judge(spoilt(scene, soft, rng, False), scene).exact)
        rights["two colours"].append(not judge(spoilt(scene, soft, rng, True), scene).exact)
        rights["a disc within"].append(not judge(with_disc(scene, soft, rng), scene).exact)
        rights["specks"].append(not judge(speckled(scene, soft, rng), scene).exact)
    table = {row: (float(np.mean(found)) if found else float("nan"), len(found)) for row, found in rights.items()}
    return table | {"ms": (1000 * seconds / (n * len(ACCEPT)), n)}


def main() -> None:
    """Prints one table for each level and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="pictures for each level and size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=["full:32", "two:32", "one:16", "full:64", "full:128"])
    given = parser.parse_args()
    for name in given.only:
        level, side = name.split(":")
        print(f"\n{level} at {side} px, {given.n} pictures, seed {given.seed}")
        for row, (share, count) in measure(level, int(side), given.n, given.seed).items():
            if count:
                print(f"  {row:20} {share:8.3f} ms" if row == "ms" else f"  {row:20} {share:8.3%} of {count}")


if __name__ == "__main__":
    main()
