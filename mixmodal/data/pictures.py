"""Files to pixels: whatever a picture file holds, it becomes uint8 [height, width, 3], or one clear error.

A file from outside is not trusted: only formats named here are opened (by content, not by ending), and the size
that its header states is checked before a single pixel is decoded.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from os import PathLike
from typing import BinaryIO

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOST_PIXELS = 50_000_000  # WebP takes up to 20 bytes for each while it decodes, the others at most 9
MOST_SCANS = 100  # of a progressive JPEG: each is a walk over all pixels, and a few bytes are enough to ask for one
STRIP = 2**22
MOST_CELLS = 128  # along a side in native aspect: a header announces no more
WHITE = (255, 255, 255)
_WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")


class PictureError(ValueError):
    """A picture that cannot be read: `reason` says why in words that many files can share."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def fitted(height: int, width: int, size: int, patch: int) -> tuple[int, int]:
    """Height and width nearest to this aspect with an area near size * size and both sides multiples of `patch`.

    Limits: never under one patch a side; a very long strip is cut rather than let the area grow by over a fifth, or
    one side over what a header can announce.
    """
    if size < patch or patch < 1:
        raise ValueError(f"a picture of size {size} cannot hold patches of {patch}: use a size of at least one patch")
    scale = size / math.sqrt(height * width)
    rows = max(1, round(height * scale / patch))
    columns = max(1, round(width * scale / patch))
    most = max(1, int(1.2 * size * size / patch**2))
    longest = max(MOST_CELLS, -(-size // patch))  # a square is as large as was asked for
    rows, columns = min(rows, longest), min(columns, longest)
    if rows * columns > most:
        rows, columns = (rows, max(1, most // rows)) if rows <= columns else (max(1, most // columns), columns)
    return rows * patch, columns * patch


def opened(source: bytes | str | PathLike | BinaryIO, most_pixels: int = MOST_PIXELS) -> Pillow.Image:
    """The picture with its header read and nothing decoded.

    Raises: PictureError if it is no picture of a known format, or has more than `most_pixels` pixels.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else source
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes on its own scale; the limit below is stricter and ours.
            warnings.simplefilter("ignore")
            picture = Pillow.open(stream, formats=FORMATS)
    except Pillow.DecompressionBombError as error:
        raise PictureError("too many pixels", str(error)) from error
    except FileNotFoundError as error:
        raise PictureError("file not found", str(error)) from error
    except Exception as error:  # a broken header surfaces as almost any exception, from struct.error to KeyError
        raise PictureError("not a picture that can be read", f"{type(error).__name__}: {error}") from error
    width, height = picture.size
    if width * height > most_pixels:
        picture.close()
        raise PictureError("too many pixels", f"{width} x {height}, the limit is {most_pixels}")
    if width * height == 0:
        picture.close()
        raise PictureError("not a picture that can be read", f"it is {width} x {height}")
    return picture


def decode(
    source: bytes | str | PathLike | BinaryIO,
    size: int | None = 32,
    *,
    patch: int | None = None,
    background: tuple[int, int, int] = WHITE,
    most_pixels: int = MOST_PIXELS,
) -> np.ndarray:
    """A picture file (its bytes, its path or a stream) as pixels: upright, without alpha, in RGB, without distortion.

    Shapes: uint8 [size, size, 3], the centre square; with `patch` the native aspect: area near size * size, both
    sides multiples of `patch`; with `size=None` every pixel that the file has.
    Limits: the first frame of an animation; colour profiles are ignored; of 16 bits a channel grey is rounded to
    8, and colour keeps its upper 8.
    Raises: PictureError.
    """
    if size is not None and patch is not None:
        fitted(1, 1, size, patch)  # a wrong wish is the caller's error, not the file's
    with opened(source, most_pixels) as picture:
        try:
            if size is not None:
                # A JPEG decodes at 1/2, 1/4 or 1/8 for less work; twice the wanted size leaves resizing its quality.
                least = size if patch is None else min(fitted(picture.height, picture.width, size, patch))
                picture.draft(None, (2 * least, 2 * least))
            if "progressive" in picture.info:
                _count_scans(picture.fp)
            picture.load()
            rgb = in_colour(upright(picture), background)
        except PictureError:
            raise
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error ...
            raise PictureError("broken while decoding", f"{type(error).__name__}: {error}") from error
    if size is not None:
        height, width = (size, size) if patch is None else fitted(rgb.height, rgb.width, size, patch)
        rgb = cropped(rgb, height, width)
    return np.array(rgb, np.uint8)


def _count_scans(stream: BinaryIO) -> None:
    at = stream.tell()
    stream.seek(0)
    count = stream.read().count(b"\xff\xda")
    stream.seek(at)
    if count > MOST_SCANS:
        raise PictureError(f"over {MOST_SCANS} scans", f"it has {count}")


def upright(picture: Pillow.Image) -> Pillow.Image:
    """The same picture, turned and mirrored as its EXIF entry asks; as it lies where that entry cannot be read."""
    # Anything writes EXIF, and nothing in it is owed; the pixels themselves are good.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


def in_colour(picture: Pillow.Image, background: tuple[int, int, int] = WHITE) -> Pillow.Image:
    """The picture in mode RGB: alpha over `background`; palette, grey, CMYK, one bit and 16 bits converted."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    # Strip by strip: whole, a large picture would take several times its memory on the way.
    out = Pillow.new("RGB", picture.size)
    rows = max(1, STRIP // picture.width)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        out.paste(_in_colour(strip, background), (0, top))
    return out


def _in_colour(picture: Pillow.Image, background: tuple[int, int, int]) -> Pillow.Image:
    if picture.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255 instead of scaling it.
        values = np.asarray(picture)
        grey = np.floor(values.astype(np.float64) / 257 + 0.5)
        rgb = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        if isinstance(clear := picture.info.get("transparency"), int):
            rgb[values == clear] = background
        return Pillow.fromarray(rgb)
    if picture.mode in _WITH_ALPHA or "transparency" in picture.info:
        # La has no direct way to RGBA.
        clear = picture.convert("LA") if picture.mode == "La" else picture
        clear = clear.convert("RGBA")
        behind = Pillow.new("RGBA", clear.size, (*background, 255))
        return Pillow.alpha_composite(behind, clear).convert("RGB")
    return picture.convert("RGB")


def cropped(picture: Pillow.Image, height: int, width: int) -> Pillow.Image:
    """The largest centred window of the wanted aspect, resized to height x width; untouched if it has that size."""
    if picture.size == (width, height):
        return picture
    scale = min(picture.width / width, picture.height / height)
    # What is rounded may be a little more than there is.
    across, down = min(scale * width, picture.width), min(scale * height, picture.height)
    left, top = (picture.width - across) / 2, (picture.height - down) / 2
    box = (left, top, left + across, top + down)
    return picture.resize((width, height), Pillow.Resampling.BICUBIC, box=box)
