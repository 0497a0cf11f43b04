"""One damaged, odd or hostile picture file at a time, made from a seed."""

from __future__ import annotations

import io
import random
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("P", "L", "1"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("RGB", "CMYK", "I;16", "F"),
    "AVIF": ("RGB", "RGBA"),
}
ENDING = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "AVIF": "avif"}


@dataclass(frozen=True)
class Made:
    """A file to be: its ending and what it holds; or no file at all but what `what` says."""

    ending: str
    content: bytes = b""
    what: str = "file"
    length: int = 0


def good(rng: random.Random, mode: str = "RGB") -> Pillow.Image:
    """A picture of noise and flat parts."""
    side = rng.choice([(1, 1), (7, 3), (16, 16), (40, 30), (64, 64), (3, 200)])
    noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (side[1], side[0], 4), dtype=np.uint8)
    picture = Pillow.fromarray(noise)
    if mode in ("I;16", "F"):
        grey = noise[..., 0].astype(np.uint16) * 257
        return Pillow.fromarray(grey) if mode == "I;16" else Pillow.fromarray(grey.astype(np.float32))
    return picture.convert("RGB").convert(mode) if mode in ("P", "CMYK", "YCbCr") else picture.convert(mode)


def encoded(picture: Pillow.Image, form: str, **options) -> bytes:
    """The bytes of a file."""
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def damaged(rng: random.Random, content: bytes) -> bytes:
    """The bytes cut, flipped, overwritten, doubled, or with others put in."""
    data, at = bytearray(content), rng.randrange(max(1, len(content)))
    kind = rng.randrange(7)
    if kind == 0:
        return content[:at]
    if kind == 1 and data:
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    if kind == 2:
        data[at : at + 64] = bytes(min(64, len(data) - at))
    if kind == 3:
        data[at:at] = rng.randbytes(rng.choice([1, 100, 5000]))
    if kind == 4:
        data[:8] = rng.randbytes(8)
    if kind == 5:
        data = data[:at] + data
    if kind == 6:
        del data[at : at + rng.choice([1, 20])]
    return bytes(data)


def odd_pictures(rng: random.Random, heavy: bool) -> Made:
    """Something that a folder of pictures may hold: good in an odd form, damaged, a bomb, or no picture."""
    form = rng.choice(list(MODES))
    kind = rng.randrange(20)
    if kind < 5:
        return Made(ENDING[form], _odd(rng, form))
    if kind < 12:
        return Made(ENDING[form], damaged(rng, _odd(rng, form)))
    if kind < 15:
        return _bomb(rng, heavy)
    if kind == 15:
        return Made(rng.choice(["png", "PNG", "jpeg", "gif"]), _odd(rng, form))  # the ending lies
    if kind == 16:
        nothing = rng.choice([b"", b"\0", b"<svg/>", rng.randbytes(999)])
        return Made(rng.choice(["png", "jpg", "webp", "gif", "bmp"]), nothing)
    if kind == 17:
        kinds = ["link out", "link nowhere", "circle", "link to a folder", "pipe", "folder"]
        return Made("png", what=rng.choice(kinds))
    if kind == 18:
        return Made(rng.choice(["svg", "heic", "mp4", "psd", "dat", "exe"]), rng.randbytes(50))
    return Made("png", encoded(good(rng), "PNG"))


def _odd(rng: random.Random, form: str) -> bytes:
    mode, options = rng.choice(MODES[form]), {}
    picture = good(rng, mode)
    if form in ("JPEG", "PNG", "WEBP") and rng.random() < 0.5:
        exif = Pillow.Exif()
        exif[0x0112] = rng.randint(0, 9)
        options["exif"] = exif.tobytes() if rng.random() < 0.8 else b"Exif\0\0" + rng.randbytes(40)
    if form in ("GIF", "WEBP", "PNG") and rng.random() < 0.4:
        options |= {"save_all": True, "append_images": [good(rng, mode).resize(picture.size) for _ in range(3)]}
    if form == "JPEG":
        options |= {"progressive": rng.random() < 0.5}
    if mode == "P" and form in ("PNG", "GIF") and rng.random() < 0.5:
        options |= {"transparency": rng.randrange(256)}
    try:
        return encoded(picture, form, **options)
    except (ValueError, OSError):
        return encoded(picture, form)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_claiming(width: int, height: int, colour: int = 2, body: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG whose header says so much."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def _bomb(rng: random.Random, heavy: bool) -> Made:
    kind = rng.randrange(10)
    large = rng.choice([(30_000, 30_000), (65_000, 65_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (8000, 7000)])
    if kind == 0:
        return Made("png", png_claiming(*large))
    if kind == 1:
        text = b"k\0\0" + zlib.compress(bytes(50_000_000 if heavy else 2_000_000))
        return Made("png", png_claiming(1, 1, body=b"\0" * 4, extra=chunk(b"zTXt", text)))
    if kind == 2:
        profile = b"p\0\0" + zlib.compress(bytes(50_000_000 if heavy else 2_000_000))
        return Made("png", png_claiming(1, 1, body=b"\0" * 4, extra=chunk(b"iCCP", profile)))
    if kind == 3:
        screen, frame = (1, 1), rng.choice([(20_000, 20_000), (8000, 8000)])
        start = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes(6)
        return Made("gif", start + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\2\2\x4c\1\0;")
    if kind == 4:
        size = rng.choice([(60_000, 60_000), (-5, 9), (2**31 - 1, 1)])
        info = struct.pack("<IiiHHIIiiII", 40, *size, 1, 24, 0, 0, 0, 0, 0, 0)
        return Made("bmp", b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info)
    if kind == 5:
        content = bytearray(encoded(good(rng), "JPEG"))
        at = content.index(b"\xff\xc0")
        content[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
        return Made("jpg", bytes(content))
    if kind == 6:
        content = encoded(Pillow.new("RGB", (64, 64)), "JPEG", progressive=True)
        last = content.rindex(b"\xff\xda")
        return Made("jpg", content[:last] + content[last:-2] * rng.choice([200, 20_000]) + b"\xff\xd9")
    if kind == 7:
        return Made(rng.choice(["png", "jpg", "bmp"]), b"", length=2**28 if heavy else 2**27 + 1)
    if kind == 8:
        content = bytearray(encoded(good(rng), "WEBP", lossless=True))
        content[21:25] = b"\xff\xff\xff\x0f"
        return Made("webp", bytes(content))
    content = encoded(Pillow.new("1", (9000, 9000)), "PNG")
    return Made("png", content)
