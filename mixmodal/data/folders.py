"""One's own pictures and captions: a folder with sidecar text files, or a file of JSON lines.

What cannot be used is left out and counted with its reason in `report`; nothing a file holds stops a training.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TextIO

import numpy as np

from mixmodal.data.pairs import HELD_OUT, Pairs, names_of
from mixmodal.data.pictures import ENDINGS, MOST_PIXELS, WHITE, PictureError, decode, fitted, opened

CAPTIONS = (".txt", ".caption")
LONGEST = 400
KEEP = 256 * 2**20


class Report(dict):
    """What was left out: reason -> names of the files or lines."""

    def add(self, reason: str, name: str) -> None:
        """Count `name` under `reason`, once."""
        names = self.setdefault(reason, [])
        if name not in names[-1:]:
            names.append(name)

    def lines(self, examples: int = 3) -> list[str]:
        """One line a reason: how many, why, and the first few names."""
        told = []
        for reason, names in sorted(self.items(), key=lambda entry: (-len(entry[1]), entry[0])):
            more = ", ..." if len(names) > examples else ""
            told.append(f"{len(names)} left out, {reason}: {', '.join(names[:examples])}{more}")
        return told

    def show(self, examples: int = 3, file: TextIO | None = None) -> None:
        """Print `lines`; nothing where nothing was left out."""
        for line in self.lines(examples):
            print(line, file=file or sys.stderr)


@dataclass(frozen=True)
class _Found:
    name: str  # relative to the folder, with forward slashes on every system
    path: Path
    caption: str


class _Files(Pairs):
    """Pairs whose pictures are files: finding them is the subclass's, checking, splitting and decoding is here.

    Units: `longest` in characters; `keep` in bytes of decoded pictures that stay in memory.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        size: int = 32,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        patch: int | None = None,
        background: tuple[int, int, int] = WHITE,
        most_pixels: int = MOST_PIXELS,
        longest: int = LONGEST,
        held_out: float = HELD_OUT,
        keep: int = KEEP,
        check: bool = False,
        name: str | None = None,
    ) -> None:
        path = Path(path)
        super().__init__(name or path.resolve().name.removesuffix(".jsonl"), tasks)
        fitted(1, 1, size, patch or 1)
        self.report = Report()
        self.longest, self.most_pixels = longest, most_pixels
        self._decoding = {"size": size, "patch": patch, "background": background, "most_pixels": most_pixels}
        self._kept: dict[int, np.ndarray] = {}
        self._room = keep
        self._broken: set[int] = set()
        self._root = self._folder(path).resolve()
        if not self._root.is_dir():
            raise FileNotFoundError(f"no folder at {self._root}: give the folder that holds the pictures")
        found = [pair for pair in self._found(path) if self._usable(pair)]
        if not found:
            raise ValueError(self._why_empty(path))
        names = names_of(split, (_stem(pair.name) for pair in found), held_out)
        self._pairs = [pair for pair in found if _stem(pair.name) in names]
        if check:
            self._decode_all()
        self.size = len(self._pairs)
        if not self.size:
            raise ValueError(f"{path} has no pair for split {split!r} among {len(found)}: add pictures or use another")

    def pair(self, index: int) -> tuple[np.ndarray, str]:
        """Picture and caption number `index`; if that file proves broken, the next one that is not.

        Shapes: uint8 [height, width, 3].
        Raises: ValueError if no picture of the split can be decoded.
        """
        for step in range(self.size):
            at = (index + step) % self.size
            if at in self._broken:
                continue
            try:
                return self._pixels(at), self._pairs[at].caption
            except PictureError as error:
                self._broken.add(at)
                self.report.add(error.reason, self._pairs[at].name)
        raise ValueError(f"no picture of {self.name} can be decoded: {'; '.join(self.report.lines())}")

    def names(self) -> list[str]:
        """The names of the split's pictures, relative to the folder, in order of index."""
        return [pair.name for pair in self._pairs]

    def _folder(self, path: Path) -> Path:
        raise NotImplementedError

    def _found(self, path: Path) -> Iterator[_Found]:
        raise NotImplementedError

    def _why_empty(self, path: Path) -> str:
        left_out = "; ".join(self.report.lines()) or f"no file ends in {' '.join(ENDINGS)}"
        return f"no picture with a caption in {path} ({left_out}): put NAME.txt beside each NAME.png"

    def _usable(self, pair: _Found) -> bool:
        if not pair.caption:
            self.report.add("empty caption", pair.name)
        elif len(pair.caption) > self.longest:
            self.report.add(f"caption over {self.longest} characters", pair.name)
        else:
            try:
                opened(pair.path, self.most_pixels).close()
                return True
            except PictureError as error:
                self.report.add(error.reason, pair.name)
        return False

    def _inside(self, path: Path) -> bool:
        # A link may lead anywhere, so the real place counts.
        return path.resolve().is_relative_to(self._root)

    def _pixels(self, index: int) -> np.ndarray:
        pixels = self._kept.get(index)
        if pixels is None:
            pixels = decode(self._pairs[index].path, **self._decoding)
            if pixels.nbytes <= self._room:
                self._room -= pixels.nbytes
                self._kept[index] = pixels
        return pixels

    def _decode_all(self) -> None:
        good = []
        for pair in self._pairs:
            try:
                decode(pair.path, **self._decoding)
                good.append(pair)
            except PictureError as error:
                self.report.add(error.reason, pair.name)
        self._pairs = good


class PictureFolder(_Files):
    """A folder of pictures, with all folders in it, each with a caption beside it: `cat.png` and `cat.txt`.

    Every document is one pair in one of the directions of `tasks`. `check` decodes each picture once before it
    starts, so that broken ones are not even counted.
    Shapes: uint8 [size, size, 3], or with `patch` the native aspect of about that area.
    Limits: a caption is the whole text file, on one line; hidden files and what links lead to outside are left out.
    Raises: FileNotFoundError without the folder; ValueError if nothing in it can be used.
    """

    def _folder(self, path: Path) -> Path:
        return path

    def _found(self, path: Path) -> Iterator[_Found]:
        for place, folders, files in os.walk(self._root):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
            for file in sorted(files):
                if file.startswith(".") or not file.lower().endswith(ENDINGS):
                    continue
                picture = Path(place, file)
                name = picture.relative_to(self._root).as_posix()
                if not self._inside(picture):
                    self.report.add("path leaves the folder", name)
                    continue
                caption = self._beside(picture, name)
                if caption is not None:
                    yield _Found(name, picture, caption)

    def _beside(self, picture: Path, name: str) -> str | None:
        for ending in CAPTIONS:
            beside = picture.with_suffix(ending)
            if beside.is_file():
                if not self._inside(beside):
                    self.report.add("path leaves the folder", name)
                    return None
                try:
                    # A character has four bytes at most: a file far too long is not read to its end.
                    most = 4 * (self.longest + 4096)
                    with open(beside, "rb") as stream:
                        raw = stream.read(most)
                    return one_line(raw.decode("utf-8-sig", "strict" if len(raw) < most else "ignore"))
                except (OSError, UnicodeDecodeError):
                    self.report.add("caption is not UTF-8 text", name)
                    return None
        self.report.add("no caption", name)
        return None


class PairLines(_Files):
    """A file of JSON lines, each `{"image": path, "caption": text}`; `text` is taken where `caption` is not there.

    Paths are relative to the folder of the file and stay in it. Everything else is as in PictureFolder.
    Raises: FileNotFoundError without the file; ValueError if nothing in it can be used.
    """

    def _folder(self, path: Path) -> Path:
        if not path.is_file():
            raise FileNotFoundError(f"no file at {path}: give a file of JSON lines")
        return path.parent

    def _found(self, path: Path) -> Iterator[_Found]:
        with open(path, "rb") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                pair = self._read(f"line {number}", line)
                if pair is not None:
                    yield pair

    def _read(self, line_name: str, line: bytes) -> _Found | None:
        try:
            entry = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return self.report.add("line is not JSON in UTF-8", line_name)
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not entry["image"]:
            return self.report.add('no "image" path', line_name)
        caption = entry.get("caption", entry.get("text"))
        if not isinstance(caption, str):
            return self.report.add("no caption", line_name)
        try:
            picture = self._root / entry["image"]
            inside, there = self._inside(picture), picture.is_file()
        except (OSError, ValueError):  # a name too long for the system, or with a zero byte
            return self.report.add("file not found", line_name)
        if not inside:
            return self.report.add("path leaves the folder", line_name)
        if not there:
            return self.report.add("file not found", line_name)
        return _Found(PurePosixPath(os.path.normpath(entry["image"])).as_posix(), picture, one_line(caption))

    def _why_empty(self, path: Path) -> str:
        left_out = "; ".join(self.report.lines()) or "the file is empty"
        return f'no usable pair in {path} ({left_out}): a line is {{"image": "cat.png", "caption": "a cat"}}'


def one_line(text: str) -> str:
    """The text with every run of white space as one space, and none at its ends."""
    return " ".join(text.split())


def _stem(name: str) -> str:
    # Without its ending: a picture saved anew in another format keeps its split.
    return PurePosixPath(name).with_suffix("").as_posix()
