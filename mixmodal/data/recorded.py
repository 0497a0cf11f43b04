"""What named sets share whose pictures are files, loose or in an archive, with a record of each in JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mixmodal.data.found import Found, FoundPairs
from mixmodal.data.named import find, plain
from mixmodal.data.pairs import checked_split
from mixmodal.data.places import File, Place
from mixmodal.data.report import Report, one_line
from mixmodal.data.tars import members

WORDS = {"train": "train", "valid": "val"}  # what the records say for each split


class Recorded(FoundPairs):
    """A named set: its folder, its archive if it has one, its lines; the records themselves say the split.

    `longest` is wide, since what these sets say of a picture is known to be sound.
    """

    folder: str
    archive: str | None = None
    lines = "captions.jsonl"

    def __init__(
        self,
        size: int = 32,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        where: str | os.PathLike | None = None,
        longest: int = 1000,
        **options,
    ) -> None:
        self._place, self.records = opened_set(self.folder, self.archive, self.lines, where)
        self._of = {f"{self.folder}/{record['file']}": record for record in self.records}
        self._split = checked_split(split)
        super().__init__(self.folder, size, tasks, split, longest=longest, **options)

    def found(self) -> Iterator[Found]:
        """Every record of the set that belongs."""
        for record in self.records:
            if self.belongs(record):
                name = f"{self.folder}/{record['file']}"
                yield Found(name, self._place[record["file"]], self.caption(record), name)

    def belongs(self, record: dict) -> bool:
        """True for the records that were asked for: all, unless a subclass chooses."""
        return True

    def caption(self, record: dict) -> str:
        """What a record says of its picture."""
        return one_line(plain(record["caption"]))

    def chosen(self, split: str, keys: list[str], held_out: float) -> set[str]:
        """The pictures whose records name the split."""
        return {key for key in keys if self._of[key]["split"] == WORDS[self._split]}

    def record(self, index: int) -> dict:
        """The record of picture number `index`."""
        return self._of[self._pairs[index].key]

    def why_empty(self) -> str:
        """What was left out of the set."""
        return f"no picture of {self.folder} can be used: {'; '.join(self.report.lines()) or 'none was chosen'}"


def opened_set(
    folder: str, archive: str | None, lines: str, where: str | os.PathLike | None
) -> tuple[Mapping[str, Place], Sequence[dict]]:
    """Places of the pictures by file name, and the records, of a named set.

    Raises: FileNotFoundError where the set is not at hand.
    """
    paths = find(folder, [name for name in (archive, lines) if name], where)
    with open(paths[-1], encoding="utf-8") as stream:
        records = [json.loads(line) for line in stream if line.strip()]
    if archive is None:
        return {record["file"]: File(paths[-1].parent / Path(record["file"]).name) for record in records}, records
    places = dict(members(paths[0], Report()))
    missing = sum(record["file"] not in places for record in records)
    if missing:
        raise FileNotFoundError(f"{paths[0]} lacks {missing} of {len(records)} pictures: fetch the set again")
    return places, records
