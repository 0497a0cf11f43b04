"""Figures of three free textbooks with what their authors say of them: `openstax-figures`, `openstax-documents`.

Astronomy 2e, Introduction to Sociology 3e and Psychology 2e of OpenStax, Rice University, under CC BY 4.0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence

from mixmodal.data.interleaved import Interleaved, Item
from mixmodal.data.named import find, plain
from mixmodal.data.pairs import checked_split
from mixmodal.data.places import Place
from mixmodal.data.recorded import WORDS, Recorded, opened_set
from mixmodal.data.report import one_line

SAYINGS = ("alt_short", "alt", "caption")
FOLDER = "openstax-figures"
ARCHIVE = "images256.tar"


class OpenstaxFigures(Recorded):
    """Photographs and diagrams with descriptions by people: 1,199 to learn from, 68 held out with their chapters.

    `kinds` picks some of "photo", "diagram", "mixed", "other"; `says` is what describes a picture: "alt_short" (its
    first sentence), "alt" (all of it) or "caption" (what stands below it, where something does).
    Shapes: uint8 [size, size, 3], or with `patch` the native aspect of about that area; they are 256 px at most.
    Limits: `kinds` were told apart by words, roughly: many of "other" are photographs.
    Source: github.com/openstax/osbooks-astronomy and two more (SOURCE.txt); CC BY 4.0 at those commits only.
    """

    folder = FOLDER
    archive = ARCHIVE

    def __init__(
        self,
        size: int = 64,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        kinds: Sequence[str] | None = None,
        says: str = "alt_short",
        **options,
    ) -> None:
        if says not in SAYINGS:
            raise ValueError(f"says is one of {', '.join(SAYINGS)}, got {says!r}")
        if kinds is not None and not {"photo", "diagram", "mixed", "other"}.issuperset(kinds):
            raise ValueError(f"kinds of {FOLDER} are photo, diagram, mixed, other; got {', '.join(kinds)}")
        self._says, self._kinds = says, kinds
        super().__init__(size, tasks, split, **options)

    def belongs(self, record: dict) -> bool:
        """True for the kinds that were asked for."""
        return self._kinds is None or record["kind"] in self._kinds

    def caption(self, record: dict) -> str:
        """The words that were asked for."""
        return one_line(plain(record[self._says]))


class OpenstaxDocuments(Interleaved):
    """The modules of those books, text and figures in order, in windows: 375 modules to learn from, 16 held out.

    The options are those of Interleaved, without its path.
    Source: as for OpenstaxFigures.
    """

    def __init__(
        self,
        size: int = 64,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        where: str | os.PathLike | None = None,
        **options,
    ) -> None:
        (path,) = find(FOLDER, ("interleaved.jsonl",), where)
        places, records = opened_set(FOLDER, ARCHIVE, "captions.jsonl", where)
        self._figures: dict[str, Place] = {str(record["i"]): places[record["file"]] for record in records}
        self._splits: dict[str, str] = {}
        super().__init__(path, size, tasks, split, name="openstax-documents", **options)

    def found(self) -> Iterator[tuple[str, list[Item]]]:
        """Every module with its title, its paragraphs, its figures and what stands below them."""
        with open(self._path, encoding="utf-8") as stream:
            for line in stream:
                entry = json.loads(line)
                self._splits[entry["id"]] = entry["split"]
                for segment in entry["segments"]:
                    segment.update({key: plain(said) for key, said in segment.items() if isinstance(said, str)})
                yield entry["id"], self.items(entry, entry["id"], self._figure)

    def _figure(self, number: str) -> Place | str:
        return self._figures.get(number, "file not found")

    def chosen(self, split: str, keys: list[str], held_out: float) -> set[str]:
        """The modules whose records name the split."""
        return {key for key in keys if self._splits[key] == WORDS[checked_split(split)]}
