"""Recipes on real pictures: named sets, and your own folder."""

from __future__ import annotations

from typing import Any

from mixmodal.config import OptimConfig, Recipe
from mixmodal.designs import lossless, small_trunk


def _recipe(
    name: str, source: dict[str, Any], *, steps: int, rows: int = 12, length: int = 192, side: int = 32, patch: int = 8
) -> Recipe:
    """Pictures and their words, both ways."""
    flow = {"copies": 4, "clamp": 0.1, "time_law": {"mean": 0.0, "std": 1.2}}
    return Recipe(
        name=name,
        model=lossless.model(
            small_trunk(6), patch=(1, patch, patch), flow=flow, codec={"ends": 16}, picture_weight=3.0
        ),
        sources={"pictures": source, "prose": {"kind": "prose", "share": 0.02}},
        valid={"pictures": {**source, "split": "valid"}},
        optim=OptimConfig(matrix_rate=0.02, newton_schulz=3, weight_decay=0.01, average=0.1),
        vocabulary=1024,
        steps=steps,
        rows=rows,
        length=length,
        every=500,
        guidance=3.0,
        sample_size=(side, side),
    )


def emoji_32() -> Recipe:
    """Noto emoji at 32 px: name and keywords to picture, picture to name.

    Result:  950 steps, 10 minutes of one core (17 without bf16), seed 0: faces become yellow discs with features, flags
             rectangles of stripes, little else; names of pictures never seen are sometimes of the right kind, none is
             exact (n = 99, docs/gallery.md).
    """
    return _recipe("emoji_32", {"kind": "emoji-noto", "size": 32}, steps=950)


def emoji_64() -> Recipe:
    """Noto emoji at 64 px: four times the patches of `emoji_32`.

    Result:  950 steps, 36 minutes of one core with AVX2 alone beside other work, seed 0: colours and places of blobs,
             no picture that can be told; of 99 names none exact, letters and Japanese signs named as such
             (docs/gallery.md).
    """
    return _recipe("emoji_64", {"kind": "emoji-noto", "size": 64}, steps=950, rows=5, length=448, side=64)


def figures_32() -> Recipe:
    """Three free textbooks, text and figures in order, in windows of some sentences and one figure at 32 px.

    Result:  950 steps, 17 minutes of one core without bf16, seed 0: 2.90 bits a byte of held-out captions. It recites
             captions that it learned, often of the right book, and no figure that it draws can be told
             (docs/gallery.md).
    """
    window = {"longest": 240, "pictures": 1, "pictured": True}
    return _recipe("figures_32", {"kind": "openstax-documents", "size": 32, **window}, steps=950, rows=8, length=288)


def mnist_28() -> Recipe:
    """MNIST's digits and their words, both ways, in patches of 4 px.

    Result:  600 steps, 11 minutes of one core without bf16, seed 0: 96.2 % (90.5 to 98.5) of the digits of the official
             test that were asked are read; most of those it draws can be told (docs/gallery.md).
    """
    return _recipe("mnist_28", {"kind": "mnist-20k"}, steps=600, rows=8, length=320, side=28, patch=4)


def tiles_32() -> Recipe:
    """Tiles of a dungeon game at 32 px: name and category to picture, picture to name.

    Result:  with steps=950, 33 minutes of one core with AVX2 alone beside other work, seed 0: floors become textures,
             spells framed squares, monsters speckled shapes in the middle; of 103 names none exact, some of the right
             kind (docs/gallery.md). Its 4,000 steps were not run.
    """
    return _recipe("tiles_32", {"kind": "tiles-crawl", "size": 32}, steps=4000)


def own_32() -> Recipe:
    """Your own pictures with captions, or documents, at 32 px: `mixmodal train own_32 --data PATH`.

    Result:  as your pictures are; 950 steps on 1,842 emoji are the recipe `emoji_32`.
    """
    return _recipe("own_32", {"kind": "folder", "path": "", "size": 32}, steps=3000)


def digits_16() -> Recipe:
    """Real handwritten digits at 16 px (scikit-learn's, extra `data`) and their words, both ways.

    Result:  600 steps, 16 minutes of one core with AVX2 alone, seed 0: 92 of 92 held-out digits that were asked are
             read (96.0 to 100 %); nearly all that it draws can be told (docs/gallery.md).
    """
    return _recipe("digits_16", {"kind": "digits"}, steps=600, length=160, side=16)
