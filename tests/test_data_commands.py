"""The commands on data: check tells what is wrong, preview draws it, pack writes shards that read the same."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw
from test_interleaved import filled as documents_filled
from test_interleaved import shown, story
from test_named import made_up
from test_named_sets import books
from test_tars import png, shard

from mixmodal.cli import main
from mixmodal.data.checking import ADVICE, check
from mixmodal.data.contact import cells, contact_sheet, drawable, wrapped
from mixmodal.data.folders import PairLines, PictureFolder, PictureShards
from mixmodal.data.interleaved import Interleaved
from mixmodal.data.opening import source_at
from mixmodal.data.packing import pack
from mixmodal.parts import Document, Image, Text

ROOT = Path(__file__).resolve().parents[1]


def filled(folder: Path, count: int = 12) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number:02}.png").write_bytes(png(number, 16 + number))
        (folder / f"{number:02}.txt").write_text(f"picture {number}")
    return folder


def refused(capsys, *arguments: str) -> str:
    """What is said on the error stream when a command ends with 2."""
    with pytest.raises(SystemExit) as end:
        main(["data", *arguments])
    assert end.value.code == 2
    return capsys.readouterr().err


# Check


def test_check_tells_what_is_good_what_is_left_out_and_what_to_do(tmp_path, capsys):
    folder = filled(tmp_path / "set")
    (folder / "alone.png").write_bytes(png())
    (folder / "broken.png").write_bytes(png(1, 64)[:-40])
    (folder / "broken.txt").write_text("broken")
    (folder / "00.jpg").write_bytes((folder / "01.png").read_bytes())  # 00.txt is beside it too
    main(["data", "check", str(folder), "--json", str(tmp_path / "new" / "found.json")])
    assert capsys.readouterr().out.splitlines() == [
        "kind       folder (PictureFolder)",
        "good       13 pictures with captions",
        "pictures   13, 16x16 to 27x27, median 21x21 (height x width)",
        "formats    13 PNG",
        "texts      9 to 10 characters, median 9, 12 different ones",
        "left out   2",
        "           1  broken while decoding: broken.png",
        "              -> the file is damaged: fetch it again",
        "           1  no caption: alone.png",
        "              -> put NAME.txt beside NAME.png, or name the caption in the record",
    ]
    found = json.loads((tmp_path / "new" / "found.json").read_text())
    assert found["good"] == {"all": 13} and found["skipped"]["no caption"] == ["alone.png"]
    with pytest.raises(SystemExit) as end:
        main(["data", "check", str(folder), "--strict"])
    assert end.value.code == 1
    main(["data", "check", str(filled(tmp_path / "clean")), "--strict"])


def test_check_takes_documents_texts_and_named_sets(tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    documents_filled(tmp_path / "own", [story(n, 2) for n in range(3)])
    (tmp_path / "own" / "2.png").write_bytes(b"no")
    found = check(tmp_path / "own" / "own.jsonl")
    assert found.good == {"all": 3} and found.unit == "windows of documents" and len(found.sizes) == 6
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("One.\n\nTwo.")
    found = check(tmp_path / "texts")
    assert found.good == {"all": 2} and found.lengths == [4, 4] and found.unit == "paragraphs"
    books(tmp_path)
    monkeypatch.setenv("MIXMODAL_DATA", str(tmp_path))
    found = check("openstax-figures")
    assert (
        found.good == {"train": 5, "valid": 1}
        and found.lines()[1] == "good       6 pictures with captions (5 train, 1 valid)"
    )


def test_check_of_what_holds_nothing_says_why(tmp_path, capsys):
    assert "nothing is at" in refused(capsys, "check", str(tmp_path / "none"))
    (tmp_path / "a.png").write_bytes(png())
    assert "1 left out, no caption: a.png): put NAME.txt beside" in refused(capsys, "check", str(tmp_path))
    assert all(said and not said.endswith(".") for said in ADVICE.values())


# Preview


def test_preview_draws_the_pictures_that_a_training_would_get(tmp_path, capsys):
    folder = filled(tmp_path / "set", 40)
    main(["data", "preview", str(folder), "-o", str(tmp_path / "new" / "sheet.png"), "--n", "5", "--columns", "3"])
    said = capsys.readouterr().out
    with Pillow.open(tmp_path / "new" / "sheet.png") as sheet:
        assert f"{sheet.width} x {sheet.height} px" in said and sheet.width == 3 * 136 + 8
        colours = {sheet.getpixel((8 + 64 + 136 * column, 8 + 64)) for column in range(3)}
    assert len(colours) == 3 and all(blue == 255 - red for red, _, blue in colours)
    assert os.listdir(tmp_path / "new") == ["sheet.png"]
    assert "--n is 0" in refused(capsys, "preview", str(folder), "--n", "0")
    first = (tmp_path / "new" / "sheet.png").read_bytes()
    main(["data", "preview", str(folder), "-o", str(tmp_path / "again.png"), "--n", "5", "--columns", "3"])
    assert (tmp_path / "again.png").read_bytes() == first


def test_a_cell_holds_a_picture_and_the_words_around_it():
    picture = Image(np.zeros((4, 8, 3), np.uint8))
    document = Document((Text("before"), picture, Text("between"), picture, picture))
    assert [words for _, words in cells(document)] == ["before | between", "", ""]
    assert cells(Document((Text("only"), Text("words")))) == [(None, "only words")]
    sheet = contact_sheet([document, Document((Text("only words"),))], columns=2, side=32)
    assert sheet.size == (2 * 40 + 8, 2 * 108 + 8) and sheet.getpixel((8 + 16, 8 + 16)) == (0, 0, 0)
    with pytest.raises(ValueError, match="1 to 2000 cells"):
        contact_sheet([])


def test_letters_that_the_font_lacks_are_told_in_those_it_has():
    assert drawable("Cerro Pach\u00f3n, 54\u201361, \u8868") == "Cerro Pachon, 54-61, ?"


def test_words_are_broken_to_fit_and_end_in_dots():
    pen = ImageDraw.Draw(Pillow.new("RGB", (10, 10)))
    assert wrapped(pen, "a few words", 500, 3) == ["a few words"] and wrapped(pen, "", 50, 3) == []
    lines = wrapped(pen, "many more words than will ever fit " * 5, 60, 3)
    assert len(lines) == 3 and lines[-1].endswith("...")
    assert "".join(wrapped(pen, "x" * 100, 60, 100)) == "x" * 100
    assert all(pen.textlength(line) <= 80 for line in wrapped(pen, "éé " + "w" * 300, 60, 5))


# Pack


def test_packed_pictures_are_the_same_bytes_in_the_same_splits(tmp_path, capsys):
    folder = filled(tmp_path / "set", 40)
    (folder / "deep").mkdir()
    (folder / "deep" / "a.b.png").write_bytes(png(200))
    (folder / "deep" / "a.b.txt").write_text("dots")
    (folder / "bad.png").write_bytes(b"no")
    (folder / "bad.txt").write_text("bad")
    main(["data", "pack", str(folder), str(tmp_path / "out"), "--megabytes", "0.02"])
    told = capsys.readouterr()
    assert "41 samples in " in told.out and "1 left out, not a picture" in told.err
    index = json.loads((tmp_path / "out" / "index.json").read_text())["shards"]
    assert len(index) > 3 and sum(entry["samples"] for entry in index) == 41
    for entry in index:
        content = (tmp_path / "out" / entry["name"]).read_bytes()
        assert len(content) == entry["bytes"] and hashlib.sha256(content).hexdigest() == entry["sha256"]
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        assert tar.extractfile("00.png").read() == (folder / "00.png").read_bytes()
        assert tar.extractfile("00.txt").read() == b"picture 0"
    for split in ("train", "valid"):
        before, after = PictureFolder(folder, 16, split=split), PictureShards(tmp_path / "out", 16, split=split)
        pairs = [
            {source.pair(n)[1]: source.pair(n)[0].tobytes() for n in range(source.size)} for source in (before, after)
        ]
        assert {**pairs[0], "dots": 0} == {**pairs[1], "dots": 0}
    assert PictureShards(tmp_path / "out", 16, held_out=0).report == {}


def test_pictures_with_several_captions_stay_in_their_split_when_packed(tmp_path):
    folder = filled(tmp_path / "set", 12)
    names = [f"{n:02}.png" for n in range(12)]
    lines = [{"image": name, "caption": f"{name} {n}"} for n in range(3) for name in names]
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pack(PairLines(folder / "own.jsonl", 16, held_out=0), tmp_path / "out")
    for split in ("train", "valid"):
        before = PairLines(folder / "own.jsonl", 16, split=split, held_out=0.3)
        after = PictureShards(tmp_path / "out", 16, split=split, held_out=0.3)
        told = [{source.pair(n)[1] for n in range(source.size)} for source in (before, after)]
        assert told[0] == told[1] and len(told[0]) % 3 == 0


def test_a_picture_of_several_is_packed_as_the_jpeg_that_it_is(tmp_path):
    home = tmp_path / "set"
    home.mkdir()
    first, second = (Pillow.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    first.save(home / "a.jpg", "MPO", save_all=True, append_images=[second])
    (home / "a.txt").write_text("two in one")
    pack(PictureFolder(home, 16, held_out=0), tmp_path / "out")
    pixels, caption = PictureShards(tmp_path / "out", 16, held_out=0).pair(0)
    assert caption == "two in one" and pixels[0, 0, 0] > 200


def test_packing_twice_makes_the_same_bytes(tmp_path):
    source = PictureFolder(filled(tmp_path / "set"), 16, held_out=0)
    assert pack(source, tmp_path / "one") == pack(source, tmp_path / "two")
    assert (tmp_path / "one" / "shard-000000.tar").read_bytes() == (tmp_path / "two" / "shard-000000.tar").read_bytes()


def test_no_shard_is_larger_than_its_limit_unless_a_sample_is(tmp_path):
    source = PictureFolder(filled(tmp_path / "set"), 16, held_out=0)
    limit = 3 * 2048 + 1024
    index = pack(source, tmp_path / "out", shard_bytes=limit)
    assert [entry["samples"] for entry in index] == [3, 3, 3, 3]
    # An archive is filled up to a record of 20 blocks.
    assert all(entry["bytes"] <= -(-limit // 10240) * 10240 for entry in index)
    assert [entry["samples"] for entry in pack(source, tmp_path / "small", shard_bytes=1)] == [1] * 12
    with pytest.raises(ValueError, match="1 or more bytes"):
        pack(source, tmp_path / "none", shard_bytes=0)


def test_packed_documents_read_as_before(tmp_path, capsys):
    (tmp_path / "own").mkdir()
    documents_filled(tmp_path / "own", [story(n, 3) for n in range(8)])
    main(["data", "pack", str(tmp_path / "own" / "own.jsonl"), str(tmp_path / "out")])
    options = {"size": 16, "pictures": 2, "held_out": 0}
    before = Interleaved(tmp_path / "own" / "own.jsonl", **options)
    after = Interleaved(tmp_path / "out", **options)
    rng = np.random.default_rng(0)
    assert before.names() == after.names() and before.size == after.size
    for index in range(before.size):
        assert shown(before.document(index, rng)) == shown(after.document(index, rng))


def test_pictures_are_resized_on_request_and_arrays_are_written_as_png(tmp_path, monkeypatch, capsys):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "wide.png").write_bytes(_wide())
    (tmp_path / "set" / "wide.txt").write_text("wide")
    for option, shape in (
        ([], (40, 80, 3)),
        (["--size", "20"], (14, 28, 3)),
        (["--size", "20", "--square"], (20, 20, 3)),
    ):
        out = tmp_path / f"out{len(option)}"
        main(["data", "pack", str(tmp_path / "set"), str(out), *option])
        entry = PictureShards(out, 16, held_out=0).entries()[0]
        with entry.place.open() as stream, Pillow.open(stream) as picture:
            assert np.asarray(picture).shape == shape
    made_up(tmp_path)
    monkeypatch.setenv("MIXMODAL_DATA", str(tmp_path))
    main(["data", "pack", "emoji-noto", str(tmp_path / "emoji"), "--split", "valid"])
    packed = PictureShards(tmp_path / "emoji", 32, held_out=0)
    assert packed.size == 1 and packed.pair(0)[1] == "face's 5" and (packed.pair(0)[0] == 5).all()


def _wide() -> bytes:
    stream = io.BytesIO()
    Pillow.new("RGB", (80, 40), (9, 8, 7)).save(stream, "PNG")
    return stream.getvalue()


def test_shards_appear_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    folder = filled(tmp_path / "set")
    source = PictureFolder(folder, 16, held_out=0)
    (folder / "07.png").unlink()
    with pytest.raises(ValueError, match="file not found.*07.png"):
        pack(source, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["set"]
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "left over").write_text("by a stopped call")
    pack(source_at(folder, held_out=0.0), tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["index.json", "shard-000000.tar"]
    assert "is there already: take another folder" in refused(capsys, "pack", str(folder), str(tmp_path / "out"))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("Only words.")
    assert "has no pictures" in refused(capsys, "pack", str(tmp_path / "texts"), str(tmp_path / "none"))
    assert "--split is for named data" in refused(capsys, "pack", str(folder), str(tmp_path / "n"), "--split", "valid")
    assert not (tmp_path / "none").exists()


# All of them


def test_the_help_of_every_command_comes_at_once_and_without_numpy(tmp_path):
    code = (
        "import sys\nfrom mixmodal.cli import main\n"
        "for words in ([], ['data'], ['data', 'check'], ['data', 'preview'], ['data', 'pack'], ['data', 'get']):\n"
        "    try:\n        main([*words, '--help'])\n    except SystemExit as end:\n        assert not end.code\n"
        "assert not {'numpy', 'torch', 'PIL'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("check", "preview", "pack", "get", "--megabytes", "--strict"))


def test_a_shard_pattern_can_be_checked(tmp_path, capsys):
    shard(tmp_path / "a-0.tar", 2)
    shard(tmp_path / "a-1.tar", 2, start=2)
    main(["data", "check", str(tmp_path / "a-{0..1}.tar")])
    assert "good       4 pictures with captions" in capsys.readouterr().out


def test_checking_is_quick(tmp_path):
    folder = filled(tmp_path / "set", 100)
    start = time.perf_counter()
    check(folder)
    assert time.perf_counter() - start < 5  # 0.2 s on a quiet machine
