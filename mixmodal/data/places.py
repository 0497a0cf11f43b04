"""Where the bytes of a picture or a text lie: in a file of its own, or as a piece of a larger one.

A place is a value: it holds no open file, so that millions of them are cheap and any thread may read from any of them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from mixmodal.data.pictures import PictureError
from mixmodal.data.report import Report

MOST_BYTES = 128 * 2**20  # of one file before it is decoded


class Place(Protocol):
    """What a reader keeps of a file until it is wanted."""

    def open(self) -> BinaryIO:
        """A stream of its bytes, from the first."""

    def bytes(self) -> int | None:
        """How many bytes it has; None where only reading would tell."""


@dataclass(frozen=True)
class File:
    """A file of its own, which may not lie outside `root`: a link may be laid after it was found."""

    path: Path
    root: Path | None = None

    def open(self) -> BinaryIO:
        """A stream of its bytes, from the first.

        Raises: PictureError if it leads out by now.
        """
        if self.root is not None and not inside(self.path, self.root):
            raise PictureError("path leaves the folder")
        return open(self.path, "rb")

    def bytes(self) -> int | None:
        """How many bytes it has."""
        return self.path.stat().st_size


@dataclass(frozen=True)
class Piece:
    """The bytes of a file from `start` on, `length` of them."""

    path: Path
    start: int
    length: int

    def open(self) -> BinaryIO:
        """A stream of its bytes, from the first."""
        return io.BufferedReader(_Window(self.path, self.start, self.length))

    def bytes(self) -> int | None:
        """How many bytes it has."""
        return self.length


class _Window(io.RawIOBase):
    def __init__(self, path: Path, start: int, length: int) -> None:
        self._file = open(path, "rb", buffering=0)
        self._start, self._length, self._at = start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence])
        return self._at

    def readinto(self, buffer) -> int:
        wanted = max(0, min(len(buffer), self._length - self._at))
        self._file.seek(self._start + self._at)
        count = self._file.readinto(memoryview(buffer)[:wanted])
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def start_of(place: Place, most: int) -> bytes:
    """The first `most` bytes of a place, or all it has."""
    with place.open() as stream:
        return stream.read(most)


def inner_name(name: str) -> str | None:
    """A name inside an archive or a list, in plain form; None where it leads out: absolute, or up by dots."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or "\0" in name or (path.parts and path.parts[0].endswith(":")):
        return None
    plain = os.path.normpath(path.as_posix()).replace(os.sep, "/")
    return None if plain == ".." or plain.startswith("../") else plain


def inside(path: Path, root: Path) -> bool:
    """True if the file lies under `root`; a link may lead anywhere, so its real place counts."""
    return path.resolve().is_relative_to(root)


def why_not(root: Path, name: str) -> str | None:
    """The reason why a file of this name cannot be used: it leaves the folder, is not there, or is no plain file."""
    try:
        path = root / name
        within, there, plain = inside(path, root), path.exists(), path.is_file()
    except (OSError, ValueError, RuntimeError):  # a name too long for the system, a zero byte in it, links in a circle
        return "file not found"
    if not within:
        return "path leaves the folder"
    # A pipe would be waited for without end.
    return None if plain else "no plain file" if there else "file not found"


def walked(root: Path, report: Report) -> Iterator[str]:
    """The names of all files in a folder and in those in it, in order; hidden ones are not told.

    A folder that is a link, that cannot be read, or that is named __* (what archivers leave) is reported.
    """

    def unread(error: OSError) -> None:
        report.add("folder cannot be read", Path(error.filename).relative_to(root).as_posix())

    for place, folders, files in os.walk(root, onerror=unread):
        for name in sorted(name for name in folders if name.startswith("__")):
            report.add("folder named __*", Path(place, name).relative_to(root).as_posix())
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in folders:
            if os.path.islink(os.path.join(place, name)):
                report.add("folder is a link", Path(place, name).relative_to(root).as_posix())
        yield from (Path(place, n).relative_to(root).as_posix() for n in sorted(files) if not n.startswith("."))


def megabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 2**20:.4g} MB"
