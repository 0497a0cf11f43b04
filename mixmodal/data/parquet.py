"""Pictures with captions in parquet files: a column of encoded pictures, and one of captions.

Wants pyarrow (`pip install 'mixmodal[data]'`). A picture is bytes, or a struct with `bytes` and `path` as Hugging Face
writes it; a path leads to a file in the folder of the parquet file.
"""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mixmodal.data.found import Found, FoundPairs
from mixmodal.data.pictures import PictureError
from mixmodal.data.places import megabytes, why_not
from mixmodal.data.report import one_line

CAPTIONS = ("caption", "text")
MOST_GROUP = 2**30
KEEP_GROUPS = 512 * 2**20


def pyarrow_parquet() -> Any:
    """The module pyarrow.parquet.

    Raises: ImportError that says how to get it.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("parquet files want pyarrow, which is not installed: pip install 'mixmodal[data]'") from error
    return pyarrow.parquet


class ParquetPairs(FoundPairs):
    """Rows of a parquet file, or of all parquet files in a folder.

    Captions are checked at the start; pictures only with `check`, since reading their headers is reading all of them.
    Units: `keep_groups` in bytes of row groups that stay in memory, as they are stored.
    Limits: of several captions the first counts. A row is read with its whole row group, which has at most 1 GiB: in
    random order small groups are fast, and the tar shards that `mixmodal data pack` makes always. Rows are split by
    their number.
    Raises: ImportError without pyarrow; FileNotFoundError; ValueError if nothing can be used.
    """

    looks = False

    def __init__(
        self,
        path: str | os.PathLike,
        size: int = 32,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        image: str = "image",
        caption: str = "",
        keep_groups: int = KEEP_GROUPS,
        name: str | None = None,
        **options,
    ) -> None:
        self._path = Path(path)
        self._image, self._caption = image, caption
        self._files = [self._path]
        if self._path.is_dir():  # folders may be called so, too
            self._files = sorted(file for file in self._path.rglob("*.parquet") if not file.is_dir())
        if not any(file.is_file() for file in self._files):
            raise FileNotFoundError(f"no parquet file at {self._path}: give a file, or a folder of them")
        self._groups = _Groups(pyarrow_parquet(), image, keep_groups)
        super().__init__(name or self._path.resolve().name.removesuffix(".parquet"), size, tasks, split, **options)

    def found(self) -> Iterator[Found]:
        """Every row with a caption and a picture."""
        for path in self._files:
            yield from self._rows(path, f"{path.name}/" if len(self._files) > 1 else "")

    def why_empty(self) -> str:
        """What a file should hold."""
        left_out = "; ".join(self.report.lines()) or "no rows"
        return f"no row of {self._path} can be used ({left_out}): it wants columns of pictures and of captions"

    def _rows(self, path: Path, before: str) -> Iterator[Found]:
        if not path.is_file():  # a pipe would be waited for without end
            return self.report.add("no plain file", path.name)
        try:
            file = self._groups.opened(path, self._caption, *CAPTIONS)
        except Exception as error:  # pyarrow has a class of its own for every way in which a file can be broken
            return self.report.add(f"parquet file cannot be read ({type(error).__name__})", path.name)
        with file:
            names = file.schema_arrow.names
            caption = self._caption or next((name for name in CAPTIONS if name in names), "caption")
            if lacking := [wanted for wanted in (self._image, caption) if wanted not in names]:
                told = f"no column {lacking[0]!r} but {', '.join(names)}: name the two by image= and caption="
                return self.report.add(told, path.name)
            number = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                told = f"{before}row group {group}"
                try:
                    if file.metadata.row_group(group).total_byte_size > MOST_GROUP:
                        self.report.add(f"row group over {megabytes(MOST_GROUP)}", told)
                        continue
                    texts = file.read_row_group(group, columns=[caption]).column(0)
                    for row, text in enumerate(texts):
                        found = self._row(path, group, row, f"{before}row {number + row}", text.as_py())
                        if found is not None:
                            yield found
                except Exception as error:  # as above
                    self.report.add(f"row group cannot be read ({type(error).__name__})", told)
                finally:
                    number += rows

    def _row(self, path: Path, group: int, row: int, name: str, text: Any) -> Found | None:
        if isinstance(text, list) and text:
            text = text[0]
        if not isinstance(text, str):
            return self.report.add("no caption", name)
        return Found(name, Cell(self._groups, path, group, row), one_line(text), name)


@dataclass(frozen=True)
class Cell:
    """The picture of one row."""

    groups: _Groups
    path: Path
    group: int
    row: int

    def open(self) -> BinaryIO:
        """A stream of its bytes, from the first."""
        return stream_of(self.groups.column(self.path, self.group)[self.row].as_py(), self.path.parent)

    def bytes(self) -> int | None:
        """None: only reading would tell."""
        return None


class _Groups:
    """The picture columns of the row groups that were read last, up to a limit in bytes."""

    def __init__(self, module: Any, image: str, keep: int) -> None:
        self.module, self._image, self._keep = module, image, keep
        self._held: OrderedDict[tuple[Path, int], Any] = OrderedDict()

    def opened(self, path: Path, *texts: str) -> Any:
        """The file, in which a value that stands in many rows is held once, as it is stored: rows are no measure."""
        there = {column.path for column in self.module.read_metadata(path).schema}
        wanted = {self._image, f"{self._image}.bytes", *texts}
        return self.module.ParquetFile(path, read_dictionary=sorted(there & wanted))

    def column(self, path: Path, group: int) -> Any:
        """The pictures of a row group."""
        if (path, group) in self._held:
            self._held.move_to_end((path, group))
            return self._held[path, group]
        with self.opened(path) as file:
            column = file.read_row_group(group, columns=[self._image]).column(self._image)
        self._held[path, group] = column
        while len(self._held) > 1 and sum(c.nbytes for c in self._held.values()) > self._keep:
            self._held.popitem(last=False)
        return column


def stream_of(value: Any, root: Path) -> BinaryIO:
    """A stream of the picture in a cell: bytes, a struct of `bytes` and `path`, or a path that stays under `root`.

    Raises: PictureError.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes | bytearray):
        return io.BytesIO(value)
    if not isinstance(value, str) or not value:
        raise PictureError("no picture in the row")
    if reason := why_not(root.resolve(), value):
        raise PictureError(reason)
    return open(root / value, "rb")
