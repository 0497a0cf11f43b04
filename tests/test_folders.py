"""One's own pictures and captions: whatever the files hold, they are read or left out with a reason."""

import io
import json
import os
import zlib
from itertools import islice

import numpy as np
import pytest
from PIL import Image as Pillow

from mixmodal.codecs.text import LARGEST_SIZE
from mixmodal.data.folders import PairLines, PictureFolder
from mixmodal.data.mixing import Mixture
from mixmodal.data.pairs import names_of, share_of_draw
from mixmodal.data.pictures import MOST_CELLS, PictureError, decode, fitted, in_colour
from mixmodal.data.report import LeftOut

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(picture: Pillow.Image, form: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def halves(width: int = 40, height: int = 40, left=RED, right=BLUE) -> Pillow.Image:
    picture = Pillow.new("RGB", (width, height), left)
    picture.paste(right, (width // 2, 0, width, height))
    return picture


def filled(path, count: int = 30) -> None:
    for number in range(count):
        (path / f"{number:03}.png").write_bytes(encoded(Pillow.new("RGB", (16, 16), (number, 0, 255 - number))))
        (path / f"{number:03}.txt").write_text(f"picture {number}\n")


def documents(source, count: int = 40):
    return [source.document(number % source.size, np.random.default_rng(number)) for number in range(count)]


def near(pixel, colour, off: int = 4) -> bool:
    return bool(np.abs(np.asarray(pixel, int) - colour).max() <= off)


# Decoding


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_every_known_format_is_decoded_to_the_wanted_square(form):
    pixels = decode(encoded(halves(64, 48), form), 32)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    assert near(pixels[16, 4], RED, 12) and near(pixels[16, 27], BLUE, 12)


def test_a_picture_of_the_wanted_size_is_returned_to_the_bit():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(decode(encoded(Pillow.fromarray(pixels)), 32), pixels)
    assert np.array_equal(decode(encoded(Pillow.fromarray(pixels)), None), pixels)


def test_the_centre_square_is_taken_without_distortion():
    wide = Pillow.new("RGB", (120, 40), GREEN)
    wide.paste(RED, (40, 0, 80, 40))
    assert near(decode(encoded(wide), 20)[:, 1:-1], RED)
    circle = np.hypot(*(np.mgrid[:90, :160] - np.array([44.5, 79.5])[:, None, None])) < 30
    seen = decode(encoded(Pillow.fromarray((circle * 255).astype(np.uint8))), 45)[..., 0] > 127
    assert abs(int(seen.any(0).sum()) - int(seen.any(1).sum())) <= 1


@pytest.mark.parametrize("orientation, corner", [(1, (0, 0)), (2, (0, -1)), (3, (-1, -1)), (4, (-1, 0)), (6, (0, -1))])
def test_the_exif_entry_turns_the_picture_upright(orientation, corner):
    picture = Pillow.new("RGB", (32, 32), BLUE)
    picture.paste(RED, (0, 0, 16, 16))
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    pixels = decode(encoded(picture, "JPEG", exif=exif.tobytes(), quality=95), 32)
    assert near(pixels[corner], RED, 12)
    assert sum(near(pixels[y, x], RED, 12) for y in (0, -1) for x in (0, -1)) == 1


def test_a_turned_picture_keeps_its_aspect():
    exif = Pillow.Exif()
    exif[0x0112] = 6
    pixels = decode(encoded(halves(64, 32), "JPEG", exif=exif.tobytes()), 32, patch=8)
    assert pixels.shape[0] > pixels.shape[1]


def test_an_exif_entry_that_cannot_be_read_is_passed_over():
    assert decode(encoded(halves(), "JPEG", exif=b"Exif\0\0nonsense"), 32).shape == (32, 32, 3)


def test_alpha_is_laid_over_white_or_over_what_is_asked():
    clear = Pillow.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.paste((0, 0, 0, 128), (0, 0, 8, 4))
    over_white, over_green = decode(encoded(clear), 8), decode(encoded(clear), 8, background=GREEN)
    assert near(over_white[7, 0], WHITE, 0) and near(over_white[0, 0], (127, 127, 127), 1)
    assert near(over_green[7, 0], GREEN, 0) and near(over_green[0, 0], (0, 127, 0), 1)
    grey = Pillow.new("LA", (8, 8), (0, 0))
    assert near(decode(encoded(grey), 8)[0, 0], WHITE, 0)
    assert in_colour(grey.convert("La")).getpixel((0, 0)) == WHITE
    palette = Pillow.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    assert near(decode(encoded(palette), 8)[0, 0], RED, 0)
    assert near(decode(encoded(palette, transparency=1), 8)[0, 0], WHITE, 0)
    key = Pillow.new("RGB", (8, 8), RED)
    assert near(decode(encoded(key, transparency=RED), 8)[0, 0], WHITE, 0)


def test_grey_one_bit_cmyk_and_sixteen_bits_become_rgb():
    assert near(decode(encoded(Pillow.new("L", (8, 8), 90)), 8)[0, 0], (90, 90, 90), 0)
    assert near(decode(encoded(Pillow.new("1", (8, 8), 1)), 8)[0, 0], WHITE, 0)
    assert near(decode(encoded(Pillow.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), 8)[0, 0], RED, 12)
    deep = Pillow.fromarray(np.array([[0, 257 * 40, 65535] * 4] * 12, np.uint16))
    assert decode(encoded(deep), None)[0, :3, 0].tolist() == [0, 40, 255]


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded():
    with pytest.raises(PictureError, match="too many pixels: 300 x 200, the limit is 50000"):
        decode(encoded(Pillow.new("L", (300, 200))), 32, most_pixels=50_000)
    # A header alone that claims ten thousand million pixels: nothing behind it is ever touched.
    header = bytearray(encoded(Pillow.new("L", (1, 1))))
    header[16:24] = (100_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    with pytest.raises(PictureError, match="too many pixels"):
        decode(bytes(header), 32)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_picture_is_one_clear_error(content):
    with pytest.raises(PictureError, match="not a picture"):
        decode(content)


def test_a_few_bytes_cannot_ask_for_hours_of_scans():
    content = encoded(Pillow.new("RGB", (64, 64)), "JPEG", progressive=True)
    scans = content.rindex(b"\xff\xda")
    assert decode(content, 16).shape == (16, 16, 3)
    with pytest.raises(PictureError, match="over 100 scans"):
        decode(content[:scans] + content[scans:-2] * 100 + content[-2:], 16)


def test_colours_are_the_same_in_strips_as_in_one_piece(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 30, 4), dtype=np.uint8)
    grey = Pillow.fromarray(np.arange(1500, dtype=np.uint16).reshape(50, 30) * 40)
    pictures = [Pillow.fromarray(pixels), Pillow.fromarray(pixels).convert("P"), grey]
    whole = [np.array(in_colour(picture)) for picture in pictures]
    monkeypatch.setattr("mixmodal.data.pictures.STRIP", 100)
    for picture, expected in zip(pictures, whole, strict=True):
        assert np.array_equal(np.array(in_colour(picture)), expected)


def test_a_path_is_decoded_like_its_bytes_and_a_missing_one_says_so(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(halves()))
    assert np.array_equal(decode(tmp_path / "a.png"), decode(encoded(halves())))
    with pytest.raises(PictureError, match="file not found"):
        decode(str(tmp_path / "b.png"))


def test_a_truncated_picture_is_one_clear_error():
    noise = Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for form in ("PNG", "JPEG", "WEBP", "BMP"):
        with pytest.raises(PictureError):
            decode(encoded(noise, form)[:-600], 32)


@pytest.mark.parametrize(
    "height, width, shape",
    [(100, 100, (64, 64)), (100, 200, (48, 88)), (200, 100, (88, 48)), (10, 4000, (8, 608)), (4000, 10, (608, 8))],
)
def test_the_native_aspect_has_about_the_wanted_area_and_whole_patches(height, width, shape):
    assert fitted(height, width, 64, 8) == shape
    assert decode(encoded(Pillow.new("L", (width, height))), 64, patch=8).shape == (*shape, 3)


def test_no_side_has_more_cells_than_a_header_announces_unless_a_square_does():
    assert fitted(100, 10_000, 256, 8) == (24, 1024) and fitted(10_000, 100, 256, 8) == (1024, 24)
    assert fitted(100, 100, 2048, 8) == (2048, 2048)
    assert MOST_CELLS == LARGEST_SIZE  # spelled twice, since readers do without torch


def test_the_fitted_area_is_always_near_the_wanted_one():
    rng = np.random.default_rng(0)
    for height, width in rng.integers(1, 3000, (300, 2)):
        rows, columns = fitted(height, width, 64, 16)
        assert rows % 16 == columns % 16 == 0 and 0.5 <= rows * columns / 64**2 <= 1.25
    with pytest.raises(ValueError, match="at least one patch"):
        fitted(10, 10, 8, 16)


# Folders


def test_a_folder_gives_both_directions_of_each_pair(tmp_path):
    filled(tmp_path)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "cat.jpg").write_bytes(encoded(halves(), "JPEG"))
    (tmp_path / "deeper" / "cat.caption").write_text("a  cat\n")
    source = PictureFolder(tmp_path, size=16)
    assert source.name == tmp_path.name and source.report == {}
    for document in documents(source):
        first, last = document.parts
        if document.about["task"] == "draw":
            assert (first.medium, last.medium, first.weight, last.wanted) == ("text", "image", 0.04, True)
            picture, caption = last, first
        else:
            assert (first.medium, first.wanted, last.medium, last.weight) == ("image", False, "text", 1.0)
            picture, caption = first, last
        if caption.text != "a cat":
            assert near(picture.pixels[3, 3], (int(caption.text.split()[1]), 0, 255 - int(caption.text.split()[1])), 0)
    both = {document.about["task"] for document in documents(source)}
    assert both == {"draw", "describe"}
    assert {document.about["task"] for document in documents(PictureFolder(tmp_path, 16, {"draw": 1}))} == {"draw"}
    everything = source.names() + PictureFolder(tmp_path, 16, split="valid").names()
    assert sorted(everything) == sorted([f"{number:03}.png" for number in range(30)] + ["deeper/cat.jpg"])


def test_a_folder_that_an_archiver_left_is_told(tmp_path):
    filled(tmp_path)
    (tmp_path / "__MACOSX").mkdir()
    assert PictureFolder(tmp_path, 16, held_out=0).report == {"folder named __*": ["__MACOSX"]}


def test_what_cannot_be_used_is_left_out_and_counted_with_its_reason(tmp_path, capsys):
    outside = tmp_path / "outside.png"
    outside.write_bytes(encoded(halves()))
    folder = tmp_path / "pictures"
    folder.mkdir()
    filled(folder, 5)
    (folder / "no_caption.png").write_bytes(encoded(halves()))
    for name, caption in [("empty", " \n"), ("long", "x" * 401), ("good", "y" * 400)]:
        (folder / f"{name}.png").write_bytes(encoded(halves()))
        (folder / f"{name}.txt").write_text(caption)
    (folder / "very_long.png").write_bytes(encoded(halves()))
    (folder / "very_long.txt").write_text("é" * 100_000, "utf-8")
    (folder / "latin.png").write_bytes(encoded(halves()))
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    for name in ("broken", "link", "large"):
        (folder / f"{name}.txt").write_text(name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no")
    (folder / "large.png").write_bytes(encoded(Pillow.new("1", (500, 500))))
    (folder / "link.png").symlink_to(outside)
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "scan.tiff").write_bytes(encoded(halves(), "TIFF"))
    (folder / "alone.txt").write_text("nothing to see")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "circle.txt").symlink_to("circle.txt")
    (folder / "elsewhere").symlink_to(tmp_path)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "piped.txt")
    (folder / "piped.png").write_bytes(encoded(halves()))
    (folder / "binary.png").write_bytes(encoded(halves()))
    (folder / "binary.txt").write_bytes(b"GIF\0\1\2")
    source = PictureFolder(folder, size=16, most_pixels=10_000)
    assert source.report == {
        "no caption": ["no_caption.png"],
        "empty caption": ["empty.png"],
        "caption over 400 characters": ["long.png", "very_long.png"],
        "caption is not UTF-8 text": ["latin.png"],
        "not a picture that can be read": ["broken.jpg"],
        "too many pixels": ["large.png"],
        "path leaves the folder": ["link.png"],
        "ending of no picture": ["scan.tiff"],
        "caption without a picture": ["alone.txt"],
        "file not found": ["circle.png"],
        "folder is a link": ["elsewhere"],
        "no plain file": ["pipe.png"],
        "caption: no plain file": ["piped.png"],
        "caption holds control characters": ["binary.png"],
    }
    source.report.show()
    assert "2 left out, caption over 400 characters: long.png, very_long.png\n" in capsys.readouterr().err
    assert source.size + PictureFolder(folder, 16, split="valid", most_pixels=10_000).size == 6


def test_a_picture_that_breaks_while_decoding_is_left_out_and_doubles_no_other(tmp_path):
    filled(tmp_path, 6)
    good = encoded(Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    (tmp_path / "002.png").write_bytes(good[:2000])
    source = PictureFolder(tmp_path, size=16, held_out=0)
    for _ in range(2):
        with pytest.raises(LeftOut, match="002.png"):
            source.pair(2)
    assert source.size == 6 and [source.pair(n)[1] for n in (1, 3)] == ["picture 1", "picture 3"]
    assert source.report == {"broken while decoding": ["002.png"]}
    drawn = [document.about["index"] for document in islice(Mixture([(source, 1)]), 15)]
    assert sorted(drawn) == sorted([0, 1, 3, 4, 5] * 3)
    checked = PictureFolder(tmp_path, size=16, held_out=0, check=True)
    assert checked.size == 5 and "002.png" not in checked.names()
    for path in tmp_path.glob("*.png"):
        path.write_bytes(good[:2000])
    with pytest.raises(ValueError, match="no picture .* can be decoded: 6 left out, broken while decoding"):
        list(islice(Mixture([(PictureFolder(tmp_path, size=16, held_out=0), 1)]), 1))


def test_decoded_pictures_stay_in_memory_up_to_a_limit(tmp_path):
    filled(tmp_path, 4)
    kept, fresh = (PictureFolder(tmp_path, 16, held_out=0, keep=keep) for keep in (2 * 16 * 16 * 3, 0))
    assert kept.pair(0)[0] is kept.pair(0)[0] and kept.pair(1)[0] is kept.pair(1)[0]
    assert kept.pair(2)[0] is not kept.pair(2)[0]
    assert np.array_equal(kept.pair(0)[0], fresh.pair(0)[0])


def test_a_file_added_moves_no_other_to_another_split(tmp_path):
    filled(tmp_path, 100)
    before = set(PictureFolder(tmp_path, 16, split="valid").names())
    filled(tmp_path, 140)
    after = set(PictureFolder(tmp_path, 16, split="heldout").names())
    assert 1 <= len(before) <= 15 and {name for name in after if int(name[:3]) < 100} == before
    assert after.isdisjoint(PictureFolder(tmp_path, 16).names())


def test_two_pictures_give_one_to_each_split(tmp_path):
    filled(tmp_path, 2)
    assert PictureFolder(tmp_path, 16).size == PictureFolder(tmp_path, 16, split="valid").size == 1
    (tmp_path / "001.png").unlink()
    assert PictureFolder(tmp_path, 16).size == 1
    with pytest.raises(ValueError, match="no pair for split 'valid' among 1"):
        PictureFolder(tmp_path, 16, split="valid")


def test_a_folder_without_anything_to_use_says_why(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder at"):
        PictureFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no file ends in .png"):
        PictureFolder(tmp_path)
    (tmp_path / "a.png").write_bytes(encoded(halves()))
    with pytest.raises(ValueError, match=r"1 left out, no caption: a.png.*put NAME.txt beside"):
        PictureFolder(tmp_path)


def test_native_aspect_pictures_differ_in_shape(tmp_path):
    for name, shape in [("wide", (60, 20)), ("tall", (20, 60))]:
        (tmp_path / f"{name}.png").write_bytes(encoded(halves(*shape)))
        (tmp_path / f"{name}.txt").write_text(name)
    source = PictureFolder(tmp_path, 32, patch=8, held_out=0)
    shapes = {caption: pixels.shape for pixels, caption in map(source.pair, range(2))}
    assert shapes == {"wide": (16, 56, 3), "tall": (56, 16, 3)}


# JSON lines


def test_json_lines_are_read_with_caption_or_text_and_the_rest_is_reported(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "outside.png").write_bytes(encoded(halves()))
    filled(tmp_path / "set", 4)
    lines = [
        json.dumps({"image": "000.png", "caption": "zero", "text": "not this"}),
        json.dumps({"image": "./001.png", "text": " one\nline "}),
        "",
        json.dumps({"image": "000.png", "caption": "zero again"}),
        "{broken",
        "[1, 2]",
        json.dumps({"caption": "no picture"}),
        json.dumps({"image": "002.png"}),
        json.dumps({"image": "002.png", "caption": 7}),
        json.dumps({"image": "gone.png", "caption": "gone"}),
        json.dumps({"image": "../outside.png", "caption": "outside"}),
        json.dumps({"image": str(tmp_path / "outside.png"), "caption": "outside"}),
        json.dumps({"image": "a\0b.png", "caption": "zero byte"}),
        json.dumps({"image": "x" * 5000, "caption": "long name"}),
    ]
    path = tmp_path / "set" / "own.jsonl"
    path.write_text("\n".join(lines))
    source = PairLines(path, 16, held_out=0)
    assert source.name == "own"
    assert [source.pair(number)[1] for number in range(source.size)] == ["zero", "one line", "zero again"]
    assert {reason: len(names) for reason, names in source.report.items()} == {
        "line is not JSON in UTF-8": 1,
        'no "image" path': 2,
        "no caption": 2,
        "file not found": 3,
        "path leaves the folder": 2,
    }
    assert source.report["line is not JSON in UTF-8"] == ["line 5"]


def test_a_picture_with_two_captions_is_in_one_split_and_a_bad_file_says_so(tmp_path):
    filled(tmp_path, 40)
    path = tmp_path / "own.jsonl"
    lines = [{"image": f"{number:03}.png", "caption": f"{way} {number}"} for number in range(40) for way in "ab"]
    path.write_text("\n".join(map(json.dumps, lines)))
    train, valid = PairLines(path, 16), PairLines(path, 16, split="valid")
    assert train.size + valid.size == 80 and set(train.names()).isdisjoint(valid.names())
    with pytest.raises(FileNotFoundError, match="give a file of JSON lines"):
        PairLines(tmp_path)
    path.write_text("")
    with pytest.raises(ValueError, match="the file is empty.*a line is"):
        PairLines(path)


# What they share


def test_wrong_tasks_and_splits_are_refused_with_what_is_possible():
    assert share_of_draw(None) == 0.5 and share_of_draw({"draw": 3, "describe": 1}) == 0.75
    for tasks in ({}, {"paint": 1}, {"draw": 0}, {"draw": -1, "describe": 2}):
        with pytest.raises(ValueError, match="draw and describe"):
            share_of_draw(tasks)
    with pytest.raises(ValueError, match="split is one of train, valid, heldout, got 'test'"):
        names_of("test", ["a"])
    with pytest.raises(ValueError, match="between 0 and 1"):
        names_of("train", ["a"], 5)
