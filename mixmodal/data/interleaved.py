"""Documents of text and pictures in reading order, from JSON lines or from tar, cut into windows that fit a row.

A document is `{"parts": [{"text": "..."}, {"image": "path.jpg"}, ...]}`, or two lists of equal length, `texts` and
`images`, in which one of each pair is null. Both may have an `id`, which decides the split.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path, PurePosixPath

import numpy as np

from mixmodal.data.found import KEEP, decode_at, look
from mixmodal.data.pairs import HELD_OUT, names_of, share_of_draw
from mixmodal.data.pictures import MOST_PIXELS, WHITE, PictureError, fitted
from mixmodal.data.places import MOST_BYTES, File, Place, inner_name, start_of, why_not
from mixmodal.data.prose import pieces
from mixmodal.data.report import LeftOut, NothingLeft, Report, is_unicode, one_line, records, why_no_text
from mixmodal.data.tars import members, shards
from mixmodal.parts import Document, Image, Text

LONGEST = 1200
MOST_PICTURES = 4
MOST_RECORD = 8 * 2**20  # bytes: once parsed, JSON may take thirty times as many
Item = str | tuple[str, Place]  # a text, or the name of a picture and where it lies


class Interleaved:
    """Windows of documents: some text and the pictures in it, in reading order. Each is one document of the source.

    `path` is a file of JSON lines whose paths stay in its folder, or archives (as for `shards`) that hold a record
    NAME.json for each document and its pictures under the names that the record says. A picture that is drawn is also
    read by what follows; `tasks` gives the shares of pictures that are to be drawn and of those that are only read.
    A picture that cannot be read is left out of its document, and counted; `check` decodes each once at the start.
    Shapes: uint8 [size, size, 3], or with `patch` the native aspect of about that area.
    With `pictured`, windows that hold no picture are left out.
    Units: `longest` in characters of a window; `pictures` is the most of them in a window.
    Limits: the texts stay in memory; windows of one document do not overlap.
    Raises: FileNotFoundError without the file; ValueError if nothing in it can be used.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        size: int = 32,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        longest: int = LONGEST,
        pictures: int = MOST_PICTURES,
        pictured: bool = False,
        patch: int | None = None,
        background: tuple[int, int, int] = WHITE,
        most_pixels: int = MOST_PIXELS,
        most_bytes: int = MOST_BYTES,
        held_out: float = HELD_OUT,
        keep: int = KEEP,
        check: bool = False,
        name: str | None = None,
    ) -> None:
        if longest < 1 or pictures < 0:
            raise ValueError(f"a window wants a text of 1 or more and 0 or more pictures, got {longest} and {pictures}")
        fitted(1, 1, size, patch or 1)
        self._path = Path(path)
        self.name = name or self._path.resolve().name.removesuffix(".jsonl").removesuffix(".tar")
        self.draws = share_of_draw(tasks)
        self.report = Report()
        self.most_pixels, self.most_bytes, self._room = most_pixels, most_bytes, keep
        self._decoding = {"size": size, "patch": patch, "background": background, "most_pixels": most_pixels}
        self._check = check
        self._kept: dict[str, np.ndarray] = {}
        self._broken: set[str] = set()
        self._empty: set[int] = set()
        documents = [(key, items) for key, items in self.found() if items]
        if not documents:
            left_out = "; ".join(self.report.lines()) or "it is empty"
            raise ValueError(
                f"no document of {self._path} can be used ({left_out}): one is"
                ' {"parts": [{"text": "a cat"}, {"image": "cat.png"}]}'
            )
        names = self.chosen(split, [key for key, _ in documents], held_out)
        self.documents = sum(key in names for key, _ in documents)
        self._windows = [
            (key, window)
            for key, items in documents
            if key in names
            for window in windows(items, longest, pictures)
            if not pictured or not all(isinstance(item, str) for item in window)
        ]
        self.size = len(self._windows)
        if not self.size:
            raise ValueError(f"{self.name} has no document for split {split!r} among {len(documents)}: add some")

    def found(self) -> Iterator[tuple[str, list[Item]]]:
        """Every document: what decides its split, and its parts."""
        if self._path.suffix == ".jsonl":
            if not self._path.is_file():
                raise FileNotFoundError(f"no file at {self._path}: give JSON lines or tar archives of documents")
            return self._in_lines()
        return self._in_archives()

    def chosen(self, split: str, keys: list[str], held_out: float) -> set[str]:
        """The documents of a split."""
        return names_of(split, keys, held_out)

    def document(self, index: int, rng: np.random.Generator) -> Document:
        """Window number `index`; `rng` chooses which of its pictures are to be drawn.

        Raises: LeftOut if it was pictures alone, and none of them can be read; NothingLeft once all windows were that.
        """
        key, window = self._windows[index]
        parts = []
        for item in window:
            if isinstance(item, str):
                parts.append(Text(item))
                continue
            wanted = bool(rng.random() < self.draws)  # drawn before decoding: a broken one shifts no other
            try:
                if item[0] not in self._broken:
                    parts.append(Image(self._pixels(*item), wanted=wanted))
            except PictureError as error:
                self._broken.add(item[0])
                self.report.add(error.reason, item[0])
        if not parts:
            self._empty.add(index)
            if len(self._empty) == self.size:
                raise NothingLeft(f"no picture of {self.name} can be decoded: {'; '.join(self.report.lines())}")
            raise LeftOut(f"no part of window {index} of {self.name} can be read")
        return Document(tuple(parts), about={"document": key})

    def texts(self, index: int, rng: np.random.Generator) -> list[str]:
        """The texts of window number `index`."""
        return [item for item in self._windows[index][1] if isinstance(item, str)]

    def names(self) -> list[str]:
        """The names of the split's documents, one for each window, in order of index."""
        return [key for key, _ in self._windows]

    def entries(self) -> list[tuple[str, list[Item]]]:
        """The split's windows as they lie in their files, in order of index."""
        return list(self._windows)

    def __len__(self) -> int:
        return self.size

    def items(self, entry: dict, name: str, place: Callable[[str], Place | str]) -> list[Item]:
        """The parts of a record, checked; `place` gives where a picture lies, or the reason why it cannot be used."""
        found: list[Item] = []
        for kind, value in parts_of(entry):
            if kind == "neither":
                self.report.add("part that is neither text nor picture", f"{name} {value}")
                continue
            if kind == "text":
                text = one_line(value)
                if reason := why_no_text(text):
                    self.report.add(f"text {reason}", name)
                elif text:
                    found.append(text)
                continue
            there = place(value)
            told = f"{name} {value}"
            if isinstance(there, str):
                self.report.add(there, told)
                continue
            try:
                if self._check:
                    decode_at(there, self.most_bytes, **self._decoding)
                look(there, self.most_pixels, self.most_bytes)
                found.append((told, there))
            except PictureError as error:
                self.report.add(error.reason, told)
        if not found:
            self.report.add("document without parts", name)
        return found

    def _in_lines(self) -> Iterator[tuple[str, list[Item]]]:
        root = self._path.parent.resolve()
        for line_name, entry in records(self._path, self.report, MOST_RECORD):
            items = self.items(entry, line_name, lambda name: why_not(root, name) or File(root / name, root))
            yield _key(entry, line_name), items

    def _in_archives(self) -> Iterator[tuple[str, list[Item]]]:
        for shard in shards(self._path):
            places: dict[str, Place] = {}
            for name, piece in members(shard, self.report):
                if name in places:
                    self.report.add("second file of the same name", f"{shard.name}/{name}")
                else:
                    places[name] = piece
            for name, piece in places.items():
                if not name.endswith(".json") or PurePosixPath(name).name.startswith("."):
                    continue
                told = f"{shard.name}/{name}"
                entry = self._record(piece, told)
                if entry is not None:
                    folder = PurePosixPath(name).parent
                    yield _key(entry, name.removesuffix(".json")), self.items(entry, told, _within(places, folder))

    def _record(self, piece: Place, told: str) -> dict | None:
        if piece.bytes() > MOST_RECORD:
            return self.report.add(f"record over {MOST_RECORD} bytes", told)
        try:
            entry = json.loads(start_of(piece, MOST_RECORD).decode("utf-8-sig"))
        except (OSError, ValueError, RecursionError):
            return self.report.add("record is not JSON in UTF-8", told)
        return entry if isinstance(entry, dict) else {}

    def _pixels(self, name: str, place: Place) -> np.ndarray:
        pixels = self._kept.get(name)
        if pixels is None:
            pixels = decode_at(place, self.most_bytes, **self._decoding)
            if pixels.nbytes <= self._room:
                self._room -= pixels.nbytes
                self._kept[name] = pixels
        return pixels


def parts_of(entry: dict) -> Iterator[tuple[str, str]]:
    """Kind ("text", "image" or "neither") and value of each part of a record, in order; of neither, which it is."""
    listed = entry.get("parts", entry.get("segments"))
    if isinstance(listed, list):
        for number, part in enumerate(listed):
            known = part if isinstance(part, dict) else {}
            for key, kind in (("text", "text"), ("caption", "text"), ("image", "image")):
                if isinstance(known.get(key), str | int) and not isinstance(known.get(key), bool):
                    yield kind, str(known[key])
                    break
            else:
                yield "neither", f"part {number}"
    elif isinstance(entry.get("texts"), list) and isinstance(entry.get("images"), list):
        for number, (text, image) in enumerate(zip_longest(entry["texts"], entry["images"])):
            if isinstance(image, str):
                yield "image", image
            if isinstance(text, str):
                yield "text", text
            if not isinstance(image, str) and not isinstance(text, str):
                yield "neither", f"part {number}"


def windows(items: Iterable[Item], longest: int, pictures: int) -> Iterator[list[Item]]:
    """The parts in runs of at most `longest` characters and `pictures` pictures; long texts are cut at sentences.

    A picture is not parted from the text behind it: it moves on with it. Texts in a row become one, line by line.
    """
    held: list[Item] = []
    letters = count = 0
    for item in _short(items, longest):
        is_text = isinstance(item, str)
        if not is_text and not pictures:
            continue
        if (is_text and letters + len(item) > longest) or (not is_text and count == pictures):
            behind: list[Item] = []
            while is_text and not isinstance(held[-1], str):
                behind.insert(0, held.pop())
            yield _joined(held)
            held, letters, count = behind, 0, len(behind)
        held.append(item)
        letters += len(item) + 1 if is_text else 0  # and a line feed
        count += not is_text
    if held:
        yield _joined(held)


def _short(items: Iterable[Item], longest: int) -> Iterator[Item]:
    for item in items:
        if isinstance(item, str):
            yield from pieces(item, longest)
        else:
            yield item


def _joined(held: list[Item]) -> list[Item]:
    joined: list[Item] = []
    for item in held:
        if isinstance(item, str) and joined and isinstance(joined[-1], str):
            joined[-1] += "\n" + item
        else:
            joined.append(item)
    return joined


def _within(places: dict[str, Place], folder: PurePosixPath) -> Callable[[str], Place | str]:
    def place(name: str) -> Place | str:
        plain = inner_name(name)
        if plain is None:
            return "path leaves the archive"
        return places.get(inner_name((folder / plain).as_posix()), "file not found")

    return place


def _key(entry: dict, otherwise: str) -> str:
    key = entry.get("id")
    return str(key) if isinstance(key, str | int) and is_unicode(str(key)) else otherwise
