"""What is in a set of data, and what is wrong with it: counts, sizes, lengths, and every reason with what to do."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from mixmodal.data import KINDS
from mixmodal.data.found import look
from mixmodal.data.named import NAMED
from mixmodal.data.opening import kind_of, source_at
from mixmodal.data.report import Report

# The beginning of a reason, and what its owner may do.
ADVICE = {
    "no caption": "put NAME.txt beside NAME.png, or name the caption in the record",
    "empty caption": "write one, or take the picture out",
    "caption over": "shorten it, or read with a larger `longest`",
    "caption is not UTF-8": "save it as UTF-8",
    "caption holds control": "it is no text: look at its bytes, and write it anew",
    "text holds control": "it is no text: look at its bytes, and write it anew",
    "caption without": "its picture is missing, or of a format that is not taken",
    "ending of no": "pictures end in .png .jpg .jpeg .webp .gif .bmp, texts in .txt .md: convert it, or take it out",
    "folder is a link": "what is read lies in one folder: copy the folder there",
    "no plain file": "pipes, devices and folders are not read: take it out",
    "over 100 scans": "it would take very long to decode: save it anew",
    "file is not UTF-8": "save it as UTF-8",
    "not a picture": "it takes png, jpg, webp, gif and bmp: convert it, or fetch it again",
    "broken while decoding": "the file is damaged: fetch it again",
    "too many pixels": "make it smaller, or read with a larger `most_pixels`",
    "file over": "make it smaller, or read with a larger `most_bytes`",
    "path leaves": "what is read lies in one folder: copy the file there",
    "file not found": "the path is relative to the file that names it",
    "no picture": "a sample wants a picture with its caption",
    "line is not JSON": "one object a line, in UTF-8",
    'no "image"': 'a line is {"image": "cat.png", "caption": "a cat"}',
    "archive is compressed": "samples are read where they lie, which a compressed archive does not allow",
    "archive breaks off": "fetch it again, or make it anew",
    "archive goes on": "archives were put behind each other: join them by `tar --concatenate`, or keep them apart",
    "picture beside": "the archives alone are read: give their folder a place of its own, or pack the pictures",
    "document without parts": 'a document is {"parts": [{"text": "a cat"}, {"image": "cat.png"}]}',
}


@dataclass
class Findings:
    """What a check found.

    Units: `sizes` are (height, width) in pixels, `lengths` in characters of captions or texts.
    """

    path: str
    kind: str
    unit: str
    good: dict[str, int] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    formats: dict[str, int] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    distinct: set[str] = field(default_factory=set)
    skipped: Report = field(default_factory=Report)

    def lines(self, examples: int = 3) -> list[str]:
        """What was found, for people."""
        whole = sum(self.good.values())
        out = [f"kind       {self.kind}", f"good       {whole} {self.unit}"]
        if self.good.keys() != {"all"}:
            out[-1] += f" ({', '.join(f'{count} {split}' for split, count in self.good.items())})"
        if self.sizes:
            (low, high), middle = (min(self.sizes, key=_area), max(self.sizes, key=_area)), _middle(self.sizes)
            out.append(
                f"pictures   {len(self.sizes)}, {_by(low)} to {_by(high)}, median {_by(middle)} (height x width)"
            )
        if self.formats:
            out.append(f"formats    {', '.join(f'{count} {name}' for name, count in sorted(self.formats.items()))}")
        if self.lengths:
            shortest, longest, middle = (
                min(self.lengths),
                max(self.lengths),
                sorted(self.lengths)[len(self.lengths) // 2],
            )
            out.append(
                f"texts      {shortest} to {longest} characters, median {middle}, {len(self.distinct)} different ones"
            )
        out.append(f"left out   {self.skipped.total()}")
        for line, reason in zip(self.skipped.lines(examples), self.skipped.reasons(), strict=True):
            out.append("           " + line.replace(" left out, ", "  ", 1))
            advice = next((said for start, said in ADVICE.items() if reason.startswith(start)), "")
            if advice:
                out.append(f"              -> {advice}")
        return out

    def as_json(self) -> dict:
        """The same for programs; of what was left out all names, up to very many for one reason."""
        sizes = [list(size) for size in self.sizes]
        return {**vars(self), "skipped": dict(self.skipped), "sizes": sizes, "distinct": len(self.distinct)}


def check(path: str | os.PathLike, **options: Any) -> Findings:
    """What a set of data holds, every picture of it decoded once; options are those of its reader.

    Raises: FileNotFoundError and ValueError where nothing in it can be used, with every reason.
    """
    kind = kind_of(path)
    if kind not in NAMED:
        # Nothing is held out, so that one reader sees all of it.
        source = source_at(path, check=True, keep=0, held_out=0.0, **options)
        found = Findings(str(path), f"{kind} ({KINDS[kind].rpartition(':')[2]})", _unit(source))
        _add(found, "all", source)
        return found
    found, names = Findings(str(path), "named data", ""), None
    for split in ("train", "valid"):
        try:
            source = source_at(path, split=split, check=True, keep=0, **options)
        except ValueError:
            if split == "valid":
                raise
            continue  # a set for tests alone
        found.unit = _unit(source)
        if hasattr(source, "names") and source.names() == names:
            found.good = {"the same in train and valid": source.size}
        else:
            _add(found, split, source)
            names = source.names() if hasattr(source, "names") else None
    return found


def _unit(source: Any) -> str:
    if hasattr(source, "paragraphs"):
        return "paragraphs"
    return "windows of documents" if hasattr(source, "documents") else "pictures with captions"


def _add(found: Findings, split: str, source: Any) -> None:
    found.good[split] = source.size
    texts: list[str] = []
    if hasattr(source, "paragraphs"):
        texts = list(source.paragraphs)
    elif hasattr(source, "documents"):
        for _, window in source.entries():
            for item in window:
                if isinstance(item, str):
                    texts.append(item)
                else:
                    _measure(found, item[1], source)
    elif hasattr(source, "entries"):
        for entry in source.entries():
            texts.append(entry.caption)
            _measure(found, entry.place, source)
    else:
        for index in range(source.size):
            pixels, caption = source.pair(index)
            texts.append(caption)
            found.sizes.append(getattr(source, "whole", pixels.shape[:2]))
    found.lengths += map(len, texts)
    found.distinct.update(texts)
    found.skipped.take(getattr(source, "report", Report()))


def _measure(found: Findings, place: Any, source: Any) -> None:
    height, width, form = look(place, source.most_pixels, source.most_bytes)
    found.sizes.append((height, width))
    found.formats[form] = found.formats.get(form, 0) + 1


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _middle(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    return sorted(sizes, key=_area)[len(sizes) // 2]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
