"""Pictures with captions through Hugging Face `datasets`: loaded as a table, or streamed.

Wants datasets (`pip install 'mixmodal[data]'`). `path` is what `datasets.load_dataset` takes (the name of a set, a
folder, or a format such as "parquet" with `files`), or a folder written by `save_to_disk`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mixmodal.data.found import LONGEST, Found, FoundPairs, decode_at
from mixmodal.data.pairs import Pairs, checked_split, stable_number
from mixmodal.data.parquet import CAPTIONS, stream_of
from mixmodal.data.pictures import MOST_PIXELS, WHITE, PictureError
from mixmodal.data.places import MOST_BYTES
from mixmodal.data.report import NothingLeft, Report, one_line, why_no_text

NEAR = 64  # documents of a stream that stay at hand: a batch may ask again for those that fitted no row


def load(path: str | os.PathLike, part: str, config: str | None, files: Any, streaming: bool) -> Any:
    """One part of a data set, a `Dataset` or an `IterableDataset`.

    Raises: ImportError without datasets; ValueError for a part that is not there.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError("this source wants datasets, which is not installed: pip install 'mixmodal[data]'") from error
    folder = Path(path)
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        loaded = datasets.load_from_disk(str(folder))
        if isinstance(loaded, datasets.DatasetDict):
            if part not in loaded:
                raise ValueError(f"{path} has no part {part!r}: its parts are {', '.join(loaded)}")
            loaded = loaded[part]
        return loaded.to_iterable_dataset() if streaming else loaded
    return datasets.load_dataset(str(path), config, data_files=files, split=part, streaming=streaming)


class _Table:
    """What both readers know of their columns, and of the folders in which pictures named by a path may lie."""

    def __init__(self, dataset: Any, path: str | os.PathLike, image: str, caption: str) -> None:
        import datasets

        if dataset.features is None:  # of a stream of JSON or CSV, before its first rows are looked at
            dataset = dataset._resolve_features()
        names = list(dataset.column_names or [])
        self.caption = caption or next((name for name in CAPTIONS if name in names), "caption")
        self.image = image
        for wanted in (image, self.caption):
            if wanted not in names:
                raise ValueError(
                    f"{path} has no column {wanted!r}, only {', '.join(names)}: name them by image= and caption="
                )
        kept = dataset.select_columns([image, self.caption])
        if isinstance(dataset.features[image], datasets.Image):
            # Undecoded: bytes are checked here before anything decodes them.
            kept = kept.cast_column(image, datasets.Image(decode=False))
        self.rows = kept
        self.root = Path(path) if Path(path).is_dir() else Path.cwd()

    def text(self, row: dict) -> str | None:
        """The caption of a row on one line, None where it has none."""
        text = row[self.caption]
        if isinstance(text, list) and text:
            text = text[0]
        return one_line(text) if isinstance(text, str) else None


class HubPairs(FoundPairs):
    """Rows of a data set in memory-mapped tables, in any order.

    `part` is the set's own split ("train", "validation"); of it, `split` and `held_out` take theirs by number of row.
    Limits: captions are checked at the start, pictures only with `check`; a path leads to a file in the folder `path`.
    Raises: ImportError without datasets; ValueError for a missing column or if nothing can be used.
    """

    looks = False

    def __init__(
        self,
        path: str | os.PathLike,
        size: int = 32,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        part: str = "train",
        config: str | None = None,
        files: str | Sequence[str] | Mapping[str, Any] | None = None,
        image: str = "image",
        caption: str = "",
        name: str | None = None,
        **options,
    ) -> None:
        self._path = path
        self._table = _Table(load(path, part, config, files, False), path, image, caption)
        super().__init__(name or Path(path).name, size, tasks, split, **options)

    def found(self) -> Iterator[Found]:
        """Every row with a caption."""
        for number, row in enumerate(self._table.rows.select_columns([self._table.caption])):
            text = self._table.text(row)
            if text is None:
                self.report.add("no caption", f"row {number}")
            else:
                yield Found(f"row {number}", _Row(self._table, number), text, f"row {number}")

    def why_empty(self) -> str:
        """What a data set should hold."""
        left_out = "; ".join(self.report.lines()) or "no rows"
        return f"no row of {self._path} can be used ({left_out}): it wants columns of pictures and of captions"


@dataclass(frozen=True, eq=False)
class _Row:
    table: _Table
    number: int

    def open(self) -> BinaryIO:
        return stream_of(self.table.rows[self.number][self.table.image], self.table.root)

    def bytes(self) -> int | None:
        return None


@dataclass(frozen=True, eq=False)
class _Value:
    value: Any
    root: Path

    def open(self) -> BinaryIO:
        return stream_of(self.value, self.root)

    def bytes(self) -> int | None:
        return None


class HubStream(Pairs):
    """Rows of a data set as they stream in: document n is the n-th row that can be used, over and over.

    `shuffle` mixes within a buffer of that many rows, each time round anew. Each time round starts the stream again.
    Limits: going back (a resumed run) starts the stream again and runs through it, and every rank runs through all of
    it, since a row is counted only once it is known to be good. A hash of the caption decides the split.
    Units: `held_out` is the share of the rows that is held out.
    Raises: ImportError without datasets; ValueError for a missing column or if no row can be used.
    """

    size: int | None
    streams = True  # where it stands is in one process alone

    def __init__(
        self,
        path: str | os.PathLike,
        size: int = 32,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        part: str = "train",
        config: str | None = None,
        files: str | Sequence[str] | Mapping[str, Any] | None = None,
        image: str = "image",
        caption: str = "",
        shuffle: int = 0,
        held_out: float = 0.0,
        patch: int | None = None,
        background: tuple[int, int, int] = WHITE,
        most_pixels: int = MOST_PIXELS,
        most_bytes: int = MOST_BYTES,
        longest: int = LONGEST,
        name: str | None = None,
    ) -> None:
        super().__init__(name or Path(path).name, tasks)
        if not 0 <= held_out < 1:
            raise ValueError(f"the held-out share of a stream is 0 or more and below 1, got {held_out}")
        self.size = None
        self.report = Report()
        self.longest, self.most_bytes = longest, most_bytes
        self._decoding = {"size": size, "patch": patch, "background": background, "most_pixels": most_pixels}
        self._table = _Table(load(path, part, config, files, True), path, image, caption)
        self._held_out, self._valid = held_out, checked_split(split) == "valid"
        self._shuffle, self._told = shuffle, 0
        self._near: dict[int, tuple[np.ndarray, str]] = {}
        self._restart()

    def pair(self, index: int) -> tuple[np.ndarray, str]:
        """Picture and caption number `index` of those that can be used.

        Shapes: uint8 [height, width, 3].
        Raises: ValueError if no row can be used.
        """
        if index not in self._near and index < self._next:
            self._restart()
        while index not in self._near:
            self._near[self._next] = next(self._good)
            self._near.pop(self._next - NEAR, None)
            self._next += 1
        return self._near[index]

    def _restart(self) -> None:
        self._near.clear()
        self._next, self._good = 0, self._rounds()

    def _rounds(self) -> Iterator[tuple[np.ndarray, str]]:
        round_ = 0
        while True:
            some = False
            for found in self._round(round_):
                some = True
                yield found
            if not some:
                left_out = "; ".join(self.report.lines()) or "no rows in this split"
                raise NothingLeft(f"no row of {self.name} can be used ({left_out}): look at the data set")
            round_ += 1

    def _round(self, number: int) -> Iterator[tuple[np.ndarray, str]]:
        rows = enumerate(self._table.rows)
        if self._shuffle:
            rows = enumerate(self._table.rows.shuffle(seed=number, buffer_size=self._shuffle))
        for at, row in self._whole(rows, number):
            text = self._table.text(row)
            # The place of a row changes with the shuffling: what decides its split is what it says.
            if (stable_number(text or "") < self._held_out * 2**63) != self._valid:
                continue
            reason = self._why_not(text)
            if reason is None:
                try:
                    value = _Value(row[self._table.image], self._table.root)
                    yield decode_at(value, self.most_bytes, **self._decoding), text
                    continue
                except PictureError as error:
                    reason = error.reason
            if number == 0 and at >= self._told:
                self._told = at + 1  # a stream that starts again tells nothing twice
                self.report.add(reason, f"row {at}{' of the shuffled stream' if self._shuffle else ''}")

    def _whole(self, rows: Iterator[tuple[int, dict]], number: int) -> Iterator[tuple[int, dict]]:
        """The rows until one cannot be read: behind it nothing can, and the round ends.

        Raises: OSError where it is no fault of the data, so that the run can go on from there another time.
        """
        last = -1
        try:
            for last, row in rows:
                yield last, row
        except OSError as error:
            raise OSError(
                f"{self.name} cannot be read behind row {last} ({error}): go on with --resume once it can"
            ) from error
        except Exception as error:  # whatever datasets and what it reads with make of broken files
            if number == 0:
                told = f"row {last + 1}" if not self._shuffle else f"row {last + 1} of the shuffled stream"
                self.report.add(f"the rows behind cannot be read ({type(error).__name__})", told)

    def _why_not(self, text: str | None) -> str | None:
        if not text:
            return "no caption" if text is None else "empty caption"
        if len(text) > self.longest:
            return f"caption over {self.longest} characters"
        reason = why_no_text(text)
        return f"caption {reason}" if reason else None
