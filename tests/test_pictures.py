"""Files to pixels: animations, deep colour, every EXIF turn, and what claims more than it holds."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import PngImagePlugin
from test_folders import BLUE, GREEN, RED, encoded, halves, near

from mixmodal.data.found import decode_at, look
from mixmodal.data.pictures import PictureError, decode, opened
from mixmodal.data.places import File


def png_of(channels: np.ndarray, colour: int, depth: int = 16) -> bytes:
    """A PNG written by hand, since Pillow writes no deep colour; `channels` is [height, width, count]."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = channels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in channels)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form, options", [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_an_animation_is_its_first_frame(form, options):
    frames = [Pillow.new("RGB", (24, 24), colour) for colour in (RED, GREEN, BLUE)]
    moving = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    with opened(moving) as picture:
        assert picture.n_frames == 3
    pixels = decode(moving, 24)
    assert all(near(pixel, RED, 2) for pixel in pixels.reshape(-1, 3))


def test_sixteen_bits_a_channel_keep_their_upper_eight():
    levels = np.array([0, 257 * 40, 257 * 130, 65535], np.uint16)[None, :, None]
    clear = np.full_like(levels, 65535)
    for colour, channels in [
        (0, levels),
        (2, np.concatenate([levels] * 3, 2)),
        (4, np.concatenate([levels, clear], 2)),
        (6, np.concatenate([levels] * 3 + [clear], 2)),
    ]:
        assert decode(png_of(channels, colour), None)[0].tolist() == [[n] * 3 for n in (0, 40, 130, 255)]
    nothing = np.concatenate([levels] * 3 + [np.zeros_like(levels)], 2)
    assert (decode(png_of(nothing, 6), None, background=GREEN) == GREEN).all()


def test_the_transparent_level_of_sixteen_bits_shows_the_background():
    raw = png_of(np.array([[[257 * 40], [65535]]], np.uint16), 0)
    clear = b"tRNS" + (65535).to_bytes(2, "big")
    chunk = (2).to_bytes(4, "big") + clear + zlib.crc32(clear).to_bytes(4, "big")
    at = raw.index(b"IDAT") - 4
    assert decode(raw[:at] + chunk + raw[at:], None, background=GREEN)[0].tolist() == [[40] * 3, list(GREEN)]


@pytest.mark.parametrize("orientation, corner", [(5, (0, 0)), (7, (-1, -1)), (8, (-1, 0))])
@pytest.mark.parametrize("form", ["JPEG", "WEBP", "PNG"])
def test_the_other_turns_of_exif_and_other_formats_are_upright_too(orientation, corner, form):
    picture = Pillow.new("RGB", (32, 48), BLUE)
    picture.paste(RED, (0, 0, 16, 24))
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    pixels = decode(encoded(picture, form, exif=exif.tobytes()), 32, patch=1)
    assert pixels.shape[1] > pixels.shape[0]
    assert near(pixels[corner], RED, 30)
    assert sum(near(pixels[y, x], RED, 30) for y in (0, -1) for x in (0, -1)) == 1


def test_a_text_inside_a_picture_that_unpacks_to_far_more_is_refused():
    bomb = PngImagePlugin.PngInfo()
    bomb.add_text("comment", "x" * 90_000_000, zip=True)
    small = encoded(Pillow.new("L", (4, 4)), pnginfo=bomb)
    assert len(small) < 200_000
    with pytest.raises(PictureError, match="not a picture that can be read"):
        decode(small, 4)


def test_pixels_are_counted_in_whole_whatever_the_sides():
    with pytest.raises(PictureError, match="too many pixels: 1 x 5000"):
        opened(encoded(Pillow.new("1", (1, 5000))), most_pixels=4999)
    assert opened(encoded(Pillow.new("1", (1, 5000))), most_pixels=5000).size == (1, 5000)


def test_a_place_is_looked_at_and_decoded_like_a_path_within_a_limit_of_bytes(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(halves(40, 30)))
    place = File(tmp_path / "a.png")
    assert look(place) == (30, 40, "PNG")
    assert np.array_equal(decode_at(place, size=16), decode(tmp_path / "a.png", 16))
    with pytest.raises(PictureError, match=r"file over 9.537e-06 MB: it has"):
        look(place, most_bytes=10)
    (tmp_path / "folder").mkdir()
    for name, reason in [("gone.png", "file not found"), ("folder", "file cannot be read")]:
        with pytest.raises(PictureError, match=reason):
            decode_at(File(tmp_path / name))


def test_a_shrunk_picture_keeps_its_shapes():
    circle = np.hypot(*(np.mgrid[:300, :200] - np.array([149.5, 99.5])[:, None, None])) < 80
    seen = decode(encoded(Pillow.fromarray((circle * 255).astype(np.uint8)), "JPEG", quality=95), 64, patch=8)[..., 0]
    assert seen.shape == (80, 56)
    ink = seen > 127
    assert abs(int(ink.any(0).sum()) - int(ink.any(1).sum())) <= 2
