"""What a user has: documents made of parts. Values only; nothing here needs torch or numpy at import.

Every part is context for what follows; a *wanted* one the model learns too, or makes, where it is empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Text:
    """A run of text. Wanted and empty, it is written by the model until it ends it.

    Units: `weight` scales the loss of this part against other text.
    """

    text: str = ""
    wanted: bool = True
    weight: float = 1.0
    medium: ClassVar[str] = "text"
    known: ClassVar[None] = None

    @property
    def empty(self) -> bool:
        """True where there is nothing to read yet."""
        return not self.text

    def cleared(self) -> Text:
        """The same part with its text still to be written."""
        return replace(self, text="")


@dataclass(frozen=True, eq=False)
class Image:
    """A picture: uint8 `pixels` [height, width, 3], or only the `size` (height, width) of one to be drawn.

    `known` is a boolean mask [height, width] over the values of a wanted picture: where it is true the
    values of `pixels` are kept exactly, and free of loss; a finished picture has none.
    """

    pixels: np.ndarray | None = None
    size: tuple[int, int] | None = None
    wanted: bool = True
    weight: float = 1.0
    known: np.ndarray | None = None
    medium: ClassVar[str] = "image"

    def __post_init__(self) -> None:
        if self.pixels is None and self.size is not None:
            sides = self.size if isinstance(self.size, (tuple, list)) else ()
            if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
                raise ValueError(f"size is {self.size!r}: want (height, width) in whole pixels, 1 or more")
            object.__setattr__(self, "size", tuple(sides))
        if self.pixels is not None:
            shape = getattr(self.pixels, "shape", None)
            if shape is None or len(shape) != 3 or shape[2] != 3 or str(self.pixels.dtype) != "uint8":
                raise ValueError(
                    "Image wants uint8 pixels [height, width, 3], got"
                    f" {getattr(self.pixels, 'dtype', type(self.pixels))} {shape}: convert"
                    " with PIL's Image.convert('RGB') first"
                )
            object.__setattr__(self, "size", (int(shape[0]), int(shape[1])))
        if self.known is not None:
            form = str(getattr(self.known, "dtype", type(self.known))), getattr(self.known, "shape", None)
            if self.pixels is None or form != ("bool", self.size):
                raise ValueError(
                    f"known is {form[0]} {form[1]} of pixels {self.size if self.pixels is not None else None}: want a"
                    " boolean array [height, width], true where the pixels beside it are known"
                )

    @property
    def extent(self) -> tuple[int, int, int] | None:
        """Frames, height and width; None while the model is to choose."""
        return None if self.size is None else (1, *self.size)

    @property
    def empty(self) -> bool:
        """True where there is nothing to read yet."""
        return self.pixels is None

    def cleared(self) -> Image:
        """The same part, of the same size, still to be drawn."""
        return replace(self, pixels=None, known=None)

    def array(self) -> np.ndarray:
        """The values as float32 [1, height, width, 3] in [-1, 1]; zeros where there are none yet."""
        import numpy as np

        if self.pixels is None:
            return np.zeros((1, *self.size, 3), np.float32)
        return self.pixels[None].astype(np.float32) / np.float32(127.5) - np.float32(1)

    def with_array(self, array: np.ndarray) -> Image:
        """The picture whose pixels are the first frame of `array`, cut to this picture's size if it has one."""
        import numpy as np

        frame = array[0] if self.size is None else array[0, : self.size[0], : self.size[1]]
        pixels = np.clip(np.rint((frame.astype(np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)
        if self.known is not None and self.pixels is not None:
            pixels = np.where(self.known[..., None], self.pixels, pixels)
        return replace(self, pixels=pixels, size=None)


Part = Text | Image
MEDIA = {kind.medium: kind for kind in (Text, Image)}


@dataclass(frozen=True, eq=False)
class Document:
    """Parts in reading order. `key` names the document for its random numbers: same key, same draws."""

    parts: tuple[Part, ...]
    key: int = 0
    about: dict = field(default_factory=dict)

    def emptied(self) -> Document:
        """The same document with its last part still to be made: what a model is asked in a test."""
        return replace(self, parts=(*self.parts[:-1], self.parts[-1].cleared()))
