"""Damaged, odd and hostile files of every kind that a reader takes, made from a seed: for test_hostile.py and bench.

Each `Case` is one path to read: a folder of pictures, lines, an archive, a table, a text. `files` is how many files of
ours it counts for, `items` how many good or left-out things a check of it must name, None where nobody can know.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostile_pictures import ENDING, Made, damaged, encoded, good, odd_pictures
from PIL import Image as Pillow

from mixmodal.data.checking import check
from mixmodal.data.mixing import Mixture
from mixmodal.data.opening import source_at
from mixmodal.data.report import LeftOut

NAMES = (
    "{}", "new\nline {}", "\x1b[31m{}", "naïve 表 🎈 {}", "-rf {}", " {}", "x" * 180 + " {}", "a.b.c.{}", "UPPER {}",
    "%s%n{}", "$(reboot) {}", "half \udcff {}",
)  # fmt: skip
CAPTIONS: tuple[bytes | None, ...] = (
    None, b"", b" \n\t ", b"x" * 401, "é".encode() * 3000, b"y" * 5_000_000, "café".encode("latin-1"),
    "wide".encode("utf-16"), b"\xef\xbb\xbf", b"\0\1\2\3", b"\x7fELF\2\1\1\0", b"\x1b]0;title\x07 hello",
    b"\xed\xa0\x80", b"\xc0\xaf", b"\xf8\x88\x80\x80\x80", bytes(range(256)),
)  # fmt: skip
STRANGE = (
    "<|begin|><|image|><|end|>", "{}", "null", "a\u202eb\u200bc", "\N{PILE OF POO}" * 99, "ﷺ" * 50, "'; DROP TABLE",
    "\\", "z" * 400, "\ufeffmark", "\u0300" * 60, "1e999",
)  # fmt: skip
BAD_PATHS = (
    "../outside.png", "/etc/passwd", "..\\outside.png", "a/../../outside.png", "C:\\windows\\x.png", "gone.png", "",
    "\0", "a\0.png", "x" * 5000, "pipe.png", "circle.png", "link.png", ".", "..", "folder", "file:///etc/passwd", "~",
    "/dev/zero", "/proc/self/environ", "\udcff.png",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One path to read."""

    path: Path
    files: int
    items: int | None
    about: str


def make(home: Path, count: int, seed: int, heavy: bool, tables: bool) -> list[Case]:
    """The cases, about `count` files of ours; `heavy` ones take a second or a hundred megabytes each."""
    rng = random.Random(seed)
    (home / "outside.png").write_bytes(encoded(good(rng), "PNG"))
    shares: list[tuple[Callable, float]] = [
        (lines, 0.1), (archives, 0.1), (documents, 0.06), (document_archives, 0.06), (texts, 0.04),
    ]  # fmt: skip
    shares += [(parquets, 0.04)] if tables else []
    cases = []
    for maker, share in shares:
        cases += [maker(home / f"{maker.__name__}-{n:03}", rng, n, heavy) for n in range(round(share * count))]
    cases += [largest(home / "largest")] if heavy else []
    left, number = count - sum(case.files for case in cases), 0
    while left > 0:
        cases.append(pictures(home / f"pictures-{number:03}", rng, min(left, 40), heavy))
        left, number = left - cases[-1].files, number + 1
    return cases


def pictures(folder: Path, rng: random.Random, count: int, heavy: bool) -> Case:
    """A folder of pictures with captions: what is wrong is the picture, its name, its caption, or the kind of file."""
    folder.mkdir()
    items = 0
    for number in range(count):
        stem = rng.choice(NAMES).format(number) if rng.random() < 0.2 else f"{number:03}"
        made = odd_pictures(rng, heavy)
        path, beside = folder / f"{stem}.{made.ending}", folder / f"{stem}.txt"
        lay(path, made, rng)
        caption = rng.choice(STRANGE).encode() if rng.random() < 0.3 else f"picture {number}".encode()
        if rng.random() < 0.15:
            caption = rng.choice(CAPTIONS)
        if caption is not None:
            beside.write_bytes(caption)
        elif rng.random() < 0.5:
            rng.choice([lambda p=beside: os.mkfifo(p), lambda p=beside: p.symlink_to("/etc/passwd"), beside.mkdir])()
        is_folder = made.what in ("folder", "link to a folder")
        plain_caption = caption is not None or beside.is_symlink() or (beside.exists() and not beside.is_dir())
        known = made.ending.lower() in ("png", "jpg", "jpeg", "webp", "gif", "bmp") and not is_folder
        items += made.what != "folder"  # an empty one holds nothing, a link to one may
        items += plain_caption and not known
    return Case(folder, count, items, "folder of pictures")


def largest(folder: Path) -> Case:
    """Pictures as large as they may be, in the forms that take the most memory to decode."""
    folder.mkdir()
    forms = {"PNG": ("RGBA", "I;16"), "JPEG": ("CMYK",), "WEBP": ("RGBA",), "GIF": ("P",), "BMP": ("RGB",)}
    for form, mode in ((form, mode) for form, modes in forms.items() for mode in modes):
        options = {"WEBP": {"quality": 1, "method": 0}, "JPEG": {"progressive": True, "quality": 1}}.get(form, {})
        name = f"{form}-{mode[0]}"
        (folder / f"{name}.{ENDING[form]}").write_bytes(encoded(Pillow.new(mode, (7071, 7071)), form, **options))
        (folder / f"{name}.txt").write_text("large")
    return Case(folder, 6, 6, "folder of pictures")


def lay(path: Path, made: Made, rng: random.Random) -> None:
    """What was made, as a file, a link, a pipe or a folder."""
    if made.what == "file":
        path.write_bytes(made.content)
        if made.length:
            os.truncate(path, made.length)  # holes, so that the disk holds nothing
    elif made.what == "pipe":
        os.mkfifo(path)
    elif made.what == "folder":
        path.mkdir()
    else:
        to = {"link out": "../outside.png", "link nowhere": "nothing", "circle": path.name, "link to a folder": ".."}
        path.symlink_to(to[made.what])


def lines(path: Path, rng: random.Random, number: int, heavy: bool) -> Case:
    """JSON lines of pictures with captions."""
    home = path.with_name(path.name + "-of")
    _furnish(home, rng)
    out, items = [], 0
    for n in range(rng.randint(5, 40)):
        line = _bad_line(rng, {"image": "good.png", "caption": f"good {n}"}, heavy and number < 3 and n == 2)
        items += bool(line.strip())
        out.append(line)
    return Case(_joined(home / "pairs.jsonl", out, rng), 1, items, "JSON lines of pairs")


def documents(path: Path, rng: random.Random, number: int, heavy: bool) -> Case:
    """JSON lines of documents."""
    home = path.with_name(path.name + "-of")
    _furnish(home, rng)
    out = [json.dumps({"parts": [{"text": "first"}, {"image": "good.png"}]}).encode()]
    for n in range(rng.randint(5, 30)):
        parts = [{"image": rng.choice((*BAD_PATHS, "good.png", "broken.png"))} for _ in range(rng.randint(0, 3))]
        odd = [{"text": rng.choice(STRANGE)}, {"text": "\ud800"}, {"sound": 1}, 7, None, {"image": True}]
        parts += odd[: rng.randint(0, 6)]
        rng.shuffle(parts)
        entry = {"id": rng.choice([n, "a", None, []]), "parts": parts}
        out.append(_bad_line(rng, entry, heavy and number < 2 and n == 2))
    return Case(_joined(home / "documents.jsonl", out, rng), 1, None, "JSON lines of documents")


def _furnish(home: Path, rng: random.Random) -> None:
    home.mkdir()
    (home / "good.png").write_bytes(encoded(good(rng), "PNG"))
    (home / "broken.png").write_bytes(damaged(rng, encoded(good(rng), "PNG")))
    (home / "folder").mkdir()
    (home / "link.png").symlink_to("../../outside.png")
    (home / "circle.png").symlink_to("circle.png")
    os.mkfifo(home / "pipe.png")


def _bad_line(rng: random.Random, entry: dict, heavy: bool) -> bytes:
    if heavy:
        return b'{"image": "good.png", "caption": "' + b"x" * 50_000_000 + b'"}'
    line = json.dumps(entry).encode()
    kind = rng.randrange(16)
    if kind < 4 and "image" in entry:
        return json.dumps({**entry, "image": rng.choice((*BAD_PATHS, "broken.png"))}).encode()
    if kind < 6 and "image" in entry:
        caption = rng.choice((*STRANGE, "", "x" * 401, "\0", "\ud800", None, 7, []))
        return json.dumps({**entry, "caption": caption}).encode()
    return {
        6: b'{"image": NaN, "caption": Infinity}',
        7: b"[" * rng.choice((10, 5000, 200_000)),
        8: line[: rng.randrange(len(line))],
        9: line.replace(b"good", b"\xff\xfe"),
        10: rng.choice([b"null", b"[]", b"7", b'"text"', b"{}", b'{"image": {}}', b"9" * 10_000]),
        11: b"   ",
        12: b'{"a":' * 3000 + b"1" + b"}" * 3000,
        13: bytes(rng.randrange(256) for _ in range(50)).replace(b"\n", b""),
    }.get(kind, line)


def _joined(path: Path, out: list[bytes], rng: random.Random) -> Path:
    mark = b"\xef\xbb\xbf" if rng.random() < 0.2 else b""
    path.write_bytes(mark + rng.choice([b"\n", b"\r\n"]).join(out) + rng.choice([b"", b"\n"]))
    return path


def archives(path: Path, rng: random.Random, number: int, heavy: bool) -> Case:
    """A tar shard of pictures with captions, sound with hostile members, or damaged as a whole."""
    stream, items = io.BytesIO(), 0
    with tarfile.open(fileobj=stream, mode="w", format=rng.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])) as archive:
        for n in range(rng.randint(2, 12)):
            name, kind = f"{n:03}", rng.randrange(8)
            if kind == 0:
                name = rng.choice(["../", "/", "a/../../", "c:/"]) + name
            if kind == 1:
                member = tarfile.TarInfo(f"{name}.png")
                member.type = rng.choice([b"1", b"2", b"3", b"4", b"6"])  # links, devices, a pipe
                member.linkname, member.devmajor, member.devminor = "/etc/passwd", 1, 5
                archive.addfile(member)
                items += 1
                continue
            content = encoded(good(rng), "PNG")
            _add(archive, f"{name}.png", damaged(rng, content) if kind == 2 else content)
            if kind != 3:
                caption = rng.choice(CAPTIONS[1:5] + CAPTIONS[6:]) if kind == 4 else rng.choice(STRANGE).encode()
                _add(archive, f"{name}.txt", caption)
            items += 2 if kind == 0 else 1  # what leaves the archive is told file by file
    content = stream.getvalue()
    if rng.random() < 0.5:
        content, items = damaged_archive(rng, content), None
    path.with_suffix(".tar").write_bytes(content)
    return Case(path.with_suffix(".tar"), 1, items, "tar shard")


def document_archives(path: Path, rng: random.Random, number: int, heavy: bool) -> Case:
    """A tar archive of documents with their pictures."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for n in range(rng.randint(2, 8)):
            image = rng.choice((f"{n}.0.png", f"{n}.0.png", *BAD_PATHS))
            entry = {"id": f"document {n}", "parts": [{"text": rng.choice(STRANGE)}, {"image": image}]}
            _add(archive, f"{n}.json", _bad_line(rng, entry, False) if n else json.dumps(entry).encode())
            content = encoded(good(rng), "PNG")
            _add(archive, f"{n}.0.png", damaged(rng, content) if rng.random() < 0.3 else content)
    content = stream.getvalue() if rng.random() < 0.5 else damaged_archive(rng, stream.getvalue())
    path.with_suffix(".tar").write_bytes(content)
    return Case(path.with_suffix(".tar"), 1, None, "tar of documents")


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def damaged_archive(rng: random.Random, content: bytes) -> bytes:
    """The archive cut, flipped or packed, or with headers in it that lie about their size or kind."""

    def header(name: str, size: bytes, kind: bytes) -> bytes:
        block = bytearray(512)
        block[: len(name)], block[124:136], block[156:157] = name.encode(), size, kind
        block[257:265], block[148:156] = b"ustar\x0000", b" " * 8
        block[148:156] = f"{sum(block):06o}\0 ".encode()
        return bytes(block)

    negative = b"\xff" * 4 + struct.pack(">q", -rng.choice([1, 512, 1024, 2**40]))
    huge = b"\x80" + b"\0" * 3 + struct.pack(">q", 2 ** rng.choice([33, 40, 62]))
    number = rng.randrange(14)
    return {
        0: lambda: content[: rng.randrange(len(content))],
        1: lambda: damaged(rng, content),
        2: lambda: b"",
        3: lambda: bytes(10240),
        4: lambda: zlib.compress(content, wbits=31),
        5: lambda: content[:1024] + header("back.png", negative, b"0") + content,
        6: lambda: content[:1024] + header("long", negative, rng.choice([b"L", b"K", b"x", b"g"])) + content,
        7: lambda: content[:1024] + header("huge", huge, rng.choice([b"0", b"L", b"K", b"x", b"g", b"S"])) + content,
        8: lambda: header("x", b"%011o\0" % 30, b"x") + b"30 size=-99999999999999999999\n".ljust(512, b"\0") + content,
        9: lambda: header("l", b"%011o\0" % 512, b"L") * 3000 + content,
        10: lambda: header("s", b"%011o\0" % 99, b"x") + b"25 GNU.sparse.major=1\n".ljust(512, b"\0") + content,
        11: lambda: content[:-1024] + content[:700],
        12: lambda: bytes(rng.randrange(256) for _ in range(5000)),
        13: lambda: content.replace(b"ustar", b"\xff\xff\xff\xff\xff"),
    }[number]()


def texts(path: Path, rng: random.Random, number: int, heavy: bool) -> Case:
    """A file of plain text."""
    sound = ("A sentence of some length, that is good to read. " * 9 + "\n\n") * 9
    content = {
        0: b"",
        1: b" \n\n",
        2: "café ".encode("latin-1") * 99,
        3: sound.encode("utf-16"),
        4: sound.encode() + b"\0\1\2",
        5: damaged(rng, sound.encode()),
        6: b"x" * (50_000_000 if heavy and number < 20 else 500_000),
        7: b"A word. " * (1_000_000 if heavy and number < 20 else 10_000),
        8: b"\xef\xbb\xbf" + sound.encode(),
        9: "\r\n\r\n".join(STRANGE).encode(),
        10: b"\n" * 1_000_000,
    }.get(number % 12, sound.encode())
    path.with_suffix(".txt").write_bytes(content)
    return Case(path.with_suffix(".txt"), 1, None, "plain text")


def parquets(path: Path, rng: random.Random, number: int, heavy: bool) -> Case:
    """A table of pictures with captions."""
    import pyarrow
    import pyarrow.parquet

    rows = []
    for n in range(rng.randint(2, 12)):
        content = encoded(good(rng), "PNG")
        value = {"bytes": damaged(rng, content) if rng.random() < 0.2 else content, "path": None}
        if rng.random() < 0.2:
            value = {"bytes": None, "path": rng.choice([p for p in BAD_PATHS if "\udcff" not in p])}
        caption = rng.choice(["", "x" * 401, "\0", None]) if rng.random() < 0.2 else f"row {n}"
        rows.append({"image": value, "caption": caption})
    items: int | None = len(rows)
    kind = number % 5
    if kind == 1:
        rows, items = [{"wrong": 1, "columns": "x"}], None
    file = path.with_suffix(".parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=4)
    content = file.read_bytes()
    if kind == 2:
        file.write_bytes(content[: rng.randrange(len(content))])
    if kind in (3, 4):
        file.write_bytes(damaged(rng, content))
    return Case(file, 1, items if kind == 0 else None, "parquet")


def looked_at(case: Case) -> tuple[int, int, str]:
    """How many things of a case are good, how many were left out, and what is wrong with how it was read.

    A set in which nothing can be used is refused with one line that says why: then what it holds is not counted.
    """
    try:
        found = check(case.path)
        told = "\n".join(found.lines())
        told.encode()
    except (ValueError, OSError) as error:
        return 0, case.files, "" if str(error).strip() else f"{type(error).__name__} says nothing"
    good, left_out = sum(found.good.values()), found.skipped.total()
    if case.items is not None and good + left_out != case.items:
        return good, left_out, f"{good} good and {left_out} left out are not {case.items}: {dict(found.skipped)}"
    if any(not c.isprintable() and c != "\n" for c in told):
        return good, left_out, "what is told holds control characters"
    source = source_at(case.path, held_out=0.0, keep=0)
    trained, broken = drawn(source)
    if len(set(trained)) != len(trained) or len(trained) + broken != source.size:
        return good, left_out, f"{len(trained)} drawn and {broken} broken are not {source.size}"
    if not hasattr(source, "documents") and len(trained) != good:
        return good, left_out, f"a check finds {good} good, a training {len(trained)}"
    return good, left_out, ""


def drawn(source: Any) -> tuple[list[int], int]:
    """The numbers of the documents that a round through a source gives, and how many it cannot give."""
    mixture, numbers, broken = Mixture([(source, 1)]), [], 0
    for _ in range(source.size):
        draw = mixture.draw()
        try:
            document = mixture.document(draw)
        except LeftOut:
            broken += 1
            continue
        assert document.parts
        numbers.append(draw.index)
    return numbers, broken
