"""Tar archives as they lie on disk: what is in them, where, and in which samples; nothing is ever unpacked.

A sample is a run of files that differ only in their endings, the way WebDataset writes them: `0007.jpg`, `0007.txt`.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mixmodal.data.places import Piece, inner_name
from mixmodal.data.report import Report

BLOCK = 512
MOST_HEADER = 2**20
MOST_PADDING = 2**20  # behind the end, in which another archive is looked for
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"\x28\xb5": "unzstd"}
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST_SHARDS = 1_000_000


class Sample(NamedTuple):
    """One sample: its shard, the part of the names that its files share, and their places by ending."""

    shard: str
    key: str
    files: dict[str, Piece]

    def name(self, ending: str) -> str:
        """The name of one of its files, with the shard that holds it."""
        return f"{self.shard}/{self.key}.{ending}"


def shards(path: str | os.PathLike) -> list[Path]:
    """The archives that a path means: itself, all of a folder, or all of a pattern such as `train-{0000..0031}.tar`.

    Raises: FileNotFoundError for those that are not there.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*.tar") if not p.name.startswith("."))
        if not found:
            raise FileNotFoundError(f"no file ends in .tar in {path}: give the folder that holds the shards")
        return found
    found = [path]
    if braces := _BRACES.search(str(path)):
        first, last = int(braces[1]), int(braces[2])
        if not first <= last < first + MOST_SHARDS:
            raise ValueError(f"{path} counts from {first} to {last}: write the smaller number first")
        width, (head, tail) = len(braces[1]), (str(path)[: braces.start()], str(path)[braces.end() :])
        found = [Path(f"{head}{number:0{width}}{tail}") for number in range(first, last + 1)]
    missing = [p for p in found if not p.is_file()]
    if missing:
        raise FileNotFoundError(
            f"no file at {missing[0]}: give a .tar file, a folder of them, or name-{{000..031}}.tar"
        )
    return found


def members(path: Path, report: Report) -> Iterator[tuple[str, Piece]]:
    """Name and place of every plain file in an archive, in order; what is no plain file is reported.

    Limits: the archive is not compressed, since a sample is read where it lies.
    """
    if not path.is_file():  # a pipe would be waited for without end
        return report.add("no plain file" if os.path.exists(path) else "file not found", path.name)
    with open(path, "rb") as stream:
        start = stream.read(2)
        if start in _COMPRESSED:
            return report.add(f"archive is compressed: unpack it with {_COMPRESSED[start]}", path.name)
        stream.seek(0)
        last = 0
        try:
            with tarfile.open(fileobj=_Headers(stream), mode="r:", errors="replace") as archive:
                for member in archive:
                    if member.size < 0 or archive.offset <= last:
                        raise tarfile.ReadError("a header leads back")
                    archive.members = []  # it would keep every header that it has seen
                    told = f"{path.name}/{member.name}"
                    name = inner_name(member.name)
                    if member.isdir():
                        pass
                    elif name is None:
                        report.add("path leaves the archive", told)
                    elif not member.isreg() or member.issparse():
                        report.add("no plain file in the archive", told)
                    else:
                        yield name, Piece(path, member.offset_data, member.size)
                    last = archive.offset
        except Exception as error:  # a broken header surfaces as almost any exception, from OverflowError to KeyError
            return report.add(f"archive breaks off: {error or type(error).__name__}", path.name)
        # tarfile takes a broken header for the end; a true end is a block of zeros.
        stream.seek(last)
        if stream.read(BLOCK) != bytes(BLOCK):
            report.add("archive breaks off: what lies behind is lost", path.name)
        elif stream.read(MOST_PADDING).strip(b"\0"):
            report.add("archive goes on behind its end", path.name)


class _Headers:
    """A stream of headers alone: tarfile would read one of any length into memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.seek, self.tell = stream, stream.seek, stream.tell

    def read(self, count: int) -> bytes:
        if not 0 <= count <= MOST_HEADER:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self._stream.read(count)


def samples(path: Path, report: Report) -> Iterator[Sample]:
    """The samples of an archive, in order; hidden files are passed over."""
    key, files = None, {}
    for name, piece in members(path, report):
        folder, slash, file = name.rpartition("/")
        stem, _, ending = file.partition(".")
        if not stem:
            continue
        if folder + slash + stem != key:
            if files:
                yield Sample(path.name, key, files)
            key, files = folder + slash + stem, {}
        if ending.lower() in files:
            report.add("second file of the same name in one sample", f"{path.name}/{name}")
        else:
            files[ending.lower()] = piece
    if files:
        yield Sample(path.name, key, files)
