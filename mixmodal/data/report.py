"""What readers leave out, counted with its reason: nothing that a file holds stops a training, or goes silently."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

MOST_NAMES = 100_000  # of one reason: a file may hold any number of bad lines
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")  # what is no white space and no letter: such a file is no text


class LeftOut(ValueError):
    """A document that proves broken only when it is made: its reader has counted it, whoever asked takes the next."""


class NothingLeft(ValueError):
    """All documents of a source have proved broken."""


class Report(dict):
    """What was left out: reason -> names of the files or lines, of very many the first; all of them are counted."""

    def __init__(self) -> None:
        super().__init__()
        self._unnamed: dict[str, int] = {}

    def add(self, reason: str, name: str) -> None:
        """Count `name` under `reason`."""
        names = self.setdefault(reason, [])
        if len(names) == MOST_NAMES:
            self._unnamed[reason] = self._unnamed.get(reason, 0) + 1
        else:
            names.append(name)

    def count(self, reason: str) -> int:
        """How many were left out for a reason."""
        return len(self.get(reason, ())) + self._unnamed.get(reason, 0)

    def total(self) -> int:
        """How many were left out."""
        return sum(map(self.count, self))

    def reasons(self) -> list[str]:
        """The reasons, the most frequent first."""
        return sorted(self, key=lambda reason: (-self.count(reason), reason))

    def take(self, other: Report) -> None:
        """Count what another report holds and this one does not yet."""
        for reason, names in other.items():
            known = set(self.get(reason, ()))
            for name in names:
                if name not in known:
                    self.add(reason, name)
            if more := other.count(reason) - len(names):
                self._unnamed[reason] = self._unnamed.get(reason, 0) + more

    def lines(self, examples: int = 3) -> list[str]:
        """One line a reason: how many, why, and the first few names."""
        told = []
        for reason in self.reasons():
            names = self[reason]
            more = ", ..." if self.count(reason) > examples else ""
            told.append(f"{self.count(reason)} left out, {reason}: {', '.join(map(shown, names[:examples]))}{more}")
        return told

    def show(self, examples: int = 3, file: TextIO | None = None) -> None:
        """Print `lines`; nothing where nothing was left out."""
        for line in self.lines(examples):
            print(line, file=file or sys.stderr)


def one_line(text: str) -> str:
    """The text with every run of white space as one space, and none at its ends."""
    return " ".join(text.split())


def shown(name: str) -> str:
    """A name that any terminal takes: what cannot be printed is spelled out, and a very long one is cut."""
    name = name if len(name) <= 200 else f"{name[:160]}... ({len(name)} characters)"
    return name if name.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def is_unicode(text: str) -> bool:
    """True unless the text holds half a character (a lone surrogate), which no tokenizer takes."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def why_no_text(text: str) -> str | None:
    """The reason why a text cannot be learned, None if it can."""
    if not is_unicode(text):
        return "is not UTF-8 text"
    return "holds control characters" if _CONTROL.search(text) else None


def records(path: Path, report: Report, most: int) -> Iterator[tuple[str, dict]]:
    """The number and the object of each JSON line, an empty one for JSON that is no object.

    What is no JSON, or has over `most` bytes, is reported.
    """
    with open(path, "rb") as stream:
        number = 0
        while line := stream.readline(most + 1):
            number += 1
            if len(line) > most:
                report.add(f"line over {most} bytes", f"line {number}")
                while line and not line.endswith(b"\n"):
                    line = stream.readline(most)
                continue
            if not line.strip():
                continue
            try:
                entry = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError):
                report.add("line is not JSON in UTF-8", f"line {number}")
                continue
            yield f"line {number}", entry if isinstance(entry, dict) else {}
