"""Tar shards: samples are read where they lie; what an archive may not hold is left out with its reason."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image as Pillow

from mixmodal.data.folders import PictureShards
from mixmodal.data.places import File, Piece, inner_name, inside, start_of
from mixmodal.data.report import Report
from mixmodal.data.tars import members, samples, shards


def png(number: int = 0, side: int = 16) -> bytes:
    stream = io.BytesIO()
    Pillow.new("RGB", (side, side), (number, 0, 255 - number)).save(stream, "PNG")
    return stream.getvalue()


def archive(path, files, form: int = tarfile.PAX_FORMAT) -> None:
    """An archive of (name, content), or of ready headers."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in files:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def shard(path, count: int = 30, start: int = 0) -> None:
    pairs = [(f"{n:04}", n) for n in range(start, start + count)]
    archive(path, [f for key, n in pairs for f in ((f"{key}.png", png(n)), (f"{key}.txt", f"picture {n}\n".encode()))])


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


# Places


def test_a_piece_of_a_file_reads_like_a_file_of_its_own(tmp_path):
    (tmp_path / "whole").write_bytes(bytes(range(200)))
    piece = Piece(tmp_path / "whole", 50, 100)
    assert piece.bytes() == 100 and File(tmp_path / "whole").bytes() == 200
    with piece.open() as stream:
        assert stream.read(3) == bytes([50, 51, 52]) and stream.tell() == 3
        stream.seek(-2, 2)
        assert stream.read() == bytes([148, 149]) and stream.read() == b""
        stream.seek(500)
        assert stream.read(1) == b""
    assert start_of(piece, 1000) == bytes(range(50, 150))


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../../b", "C:/a", "..\\a", "a\0b", ".."])
def test_a_name_that_leads_out_of_its_archive_is_none(name):
    assert inner_name(name) is None


def test_a_name_inside_is_told_in_plain_form(tmp_path):
    assert inner_name("./a/b/../c.png") == "a/c.png" and inner_name("a\\b") == "a/b"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "outside")
    assert inside(tmp_path / "in" / "x", tmp_path / "in") and not inside(tmp_path / "in" / "link", tmp_path / "in")


# Shards


def test_pictures_and_captions_of_all_shards_are_read_in_order(tmp_path):
    shard(tmp_path / "a-000.tar", 3)
    shard(tmp_path / "a-001.tar", 2, start=3)
    for path in (tmp_path, tmp_path / "a-{000..001}.tar"):
        source = PictureShards(path, 16, held_out=0)
        assert source.names()[0] == "a-000.tar/0000.png" and source.size == 5 and source.report == {}
        for number in range(5):
            pixels, caption = source.pair(number)
            assert caption == f"picture {number}" and pixels[0, 0].tolist() == [number, 0, 255 - number]
    assert PictureShards(tmp_path / "a-001.tar", 16, held_out=0).name == "a-001"


def test_a_sample_keeps_its_split_whichever_shard_holds_it(tmp_path):
    shard(tmp_path / "one.tar", 60)
    (tmp_path / "two").mkdir()
    shard(tmp_path / "two" / "a.tar", 25)
    shard(tmp_path / "two" / "b.tar", 35, start=25)
    one, two = (PictureShards(path, 16, split="valid") for path in (tmp_path / "one.tar", tmp_path / "two"))
    keys = [{name.partition("/")[2] for name in source.names()} for source in (one, two)]
    assert keys[0] == keys[1] and 1 <= len(keys[0]) < 15
    assert one.size + PictureShards(tmp_path / "one.tar", 16).size == 60


def test_a_caption_comes_from_text_or_from_a_record(tmp_path):
    archive(
        tmp_path / "a.tar",
        [
            ("set.v2/1.jpg", png()),
            ("set.v2/1.txt", b" one\n line "),
            ("set.v2/2.seg.png", b"not this"),
            ("set.v2/2.PNG", png()),
            ("set.v2/2.json", json.dumps({"caption": "two"}).encode()),
            ("3.png", png()),
            ("3.json", json.dumps({"text": "three"}).encode()),
            ("._3.png", b""),
        ],
        tarfile.GNU_FORMAT,
    )
    source = PictureShards(tmp_path / "a.tar", 16, held_out=0)
    assert [source.pair(n)[1] for n in range(3)] == ["one line", "two", "three"]


def test_whatever_an_archive_holds_it_is_read_or_left_out_with_a_reason(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    broken = png(3, 64)
    archive(
        tmp_path / "a.tar",
        [
            ("good.png", png()),
            ("good.txt", b"good"),
            ("../up.png", png()),
            ("/root.png", png()),
            (link("link.png", str(tmp_path / "secret.png")), b""),
            (link("hard.png", "good.png", tarfile.LNKTYPE), b""),
            (link("pipe.png", "", tarfile.FIFOTYPE), b""),
            (link("folder", "", tarfile.DIRTYPE), b""),
            ("alone.png", png()),
            ("words.txt", b"only words"),
            ("empty.png", png()),
            ("empty.txt", b" \n"),
            ("long.png", png()),
            ("long.txt", b"x" * 401),
            ("latin.png", png()),
            ("latin.txt", "café".encode("latin-1")),
            ("half.png", png()),
            ("half.json", b'{"caption": "half \\ud800"}'),
            ("list.png", png()),
            ("list.json", b"[1]"),
            ("nest.png", png()),
            ("nest.json", b"[" * 100_000),
            ("huge.png", png()),
            ("huge.json", b" " * (2**20 + 1)),
            ("nothing.png", b""),
            ("nothing.txt", b"nothing"),
            ("large.png", png(0, 300)),
            ("large.txt", b"large"),
            ("heavy.png", png() + bytes(9000)),
            ("heavy.txt", b"heavy"),
            ("twice.png", png()),
            ("twice.png", png()),
            ("twice.txt", b"twice"),
            ("broken.png", broken[:-40]),
            ("broken.txt", b"broken"),
        ],
    )
    source = PictureShards(tmp_path / "a.tar", 16, held_out=0, most_pixels=80_000, most_bytes=8000, check=True)
    assert source.names() == ["a.tar/good.png", "a.tar/twice.png"]
    assert {reason: [name.partition("/")[2] for name in names] for reason, names in source.report.items()} == {
        "path leaves the archive": ["../up.png", "/root.png"],
        "no plain file in the archive": ["link.png", "hard.png", "pipe.png"],
        "no caption": ["alone.png", "list.png"],
        "no picture in the sample": ["words.txt"],
        "empty caption": ["empty.png"],
        "caption over 400 characters": ["long.png"],
        "caption is not UTF-8 text": ["latin.png", "half.png"],
        "record is not JSON in UTF-8": ["nest.png"],
        "record over 1048576 bytes": ["huge.png"],
        "not a picture that can be read": ["nothing.png"],
        "too many pixels": ["large.png"],
        "file over 0.007629 MB": ["heavy.png"],
        "second file of the same name in one sample": ["twice.png"],
        "broken while decoding": ["broken.png"],
    }


def test_an_archive_that_breaks_off_gives_what_it_holds_and_says_so(tmp_path):
    shard(tmp_path / "a.tar", 4)
    whole = (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        third = tar.getmember("0002.png")
    broken = bytearray(whole)
    broken[third.offset : third.offset + 100] = b"\xff" * 100
    for name, content in [
        ("header", bytes(broken)),
        ("between", whole[: third.offset]),
        ("within", whole[: third.offset_data + 20]),
        ("in_header", whole[: third.offset + 100]),
    ]:
        (tmp_path / f"{name}.tar").write_bytes(content)
        source = PictureShards(tmp_path / f"{name}.tar", 16, held_out=0)
        assert source.size == 2 and [r for r in source.report if r.startswith("archive breaks off")], name


def test_a_compressed_or_empty_archive_says_what_to_do(tmp_path):
    for mode in ("gz", "bz2", "xz"):
        with tarfile.open(tmp_path / f"{mode}.tar", f"w:{mode}") as tar:
            tar.addfile(tarfile.TarInfo("a.png"))
        with pytest.raises(ValueError, match="archive is compressed: unpack it with"):
            PictureShards(tmp_path / f"{mode}.tar")
    (tmp_path / "empty.tar").write_bytes(b"")
    with pytest.raises(ValueError, match="archive breaks off"):
        PictureShards(tmp_path / "empty.tar")
    archive(tmp_path / "none.tar", [])
    with pytest.raises(ValueError, match="the archives are empty.*put 0007.txt behind each 0007.jpg"):
        PictureShards(tmp_path / "none.tar")


def test_archives_that_are_not_there_are_named(tmp_path):
    shard(tmp_path / "a-0.tar", 1)
    with pytest.raises(FileNotFoundError, match="a-1.tar"):
        shards(tmp_path / "a-{0..1}.tar")
    with pytest.raises(ValueError, match="write the smaller number first"):
        shards(tmp_path / "a-{3..1}.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no file ends in .tar"):
        shards(tmp_path / "empty")


def test_names_that_are_no_utf8_are_kept_readable(tmp_path):
    member = tarfile.TarInfo("caf\udce9.png")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        member.size = len(png())
        tar.addfile(member, io.BytesIO(png()))
    assert [name for name, _ in members(tmp_path / "a.tar", Report())] == ["caf\ufffd.png"]


def test_an_index_of_many_samples_holds_no_file_open_and_no_header(tmp_path):
    shard(tmp_path / "a.tar", 200)
    found = list(samples(tmp_path / "a.tar", Report()))
    assert len(found) == 200 and found[7].files.keys() == {"png", "txt"}
    assert np.diff([s.files["png"].start for s in found]).min() > 0
