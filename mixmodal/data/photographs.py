"""Two small sets of photographs with captions written by hand: `kodak24` and `photos-misc`."""

from __future__ import annotations

from mixmodal.data.pairs import SPLITS
from mixmodal.data.recorded import Recorded


class Kodak24(Recorded):
    """The 24 photographs by Kodak on which picture codecs are compared, 768 by 512 px, for tests only.

    Shapes: uint8 [size, size, 3], or with `patch` the native aspect of about that area.
    Raises: ValueError for the split "train": nothing is trained on them.
    Source: r0k.us/graphics/kodak; captions of our own.
    """

    folder = "kodak24"

    def __init__(self, size: int = 32, tasks=None, split: str = "valid", **options) -> None:
        if SPLITS.get(split) == "train":
            raise ValueError("kodak24 is for tests only: use split='valid'")
        super().__init__(size, tasks, split, **options)

    def chosen(self, split: str, keys: list[str], held_out: float) -> set[str]:
        """All of them."""
        return set(keys)


class PhotosMisc(Recorded):
    """Three photographs that are surely free: a cat, a cup of coffee, an astronaut. They are the same in every split.

    Shapes: uint8 [size, size, 3], or with `patch` the native aspect of about that area.
    Limits: three pictures are for trying things, not for measuring.
    Source: github.com/imageio/imageio-binaries.
    """

    folder = "photos-misc"

    def chosen(self, split: str, keys: list[str], held_out: float) -> set[str]:
        """All of them."""
        return set(keys)
