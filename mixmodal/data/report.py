"""What readers leave out, counted with its reason: nothing that a file holds stops a training, or goes silently."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


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


def one_line(text: str) -> str:
    """The text with every run of white space as one space, and none at its ends."""
    return " ".join(text.split())


def is_unicode(text: str) -> bool:
    """True unless the text holds half a character (a lone surrogate), which no tokenizer takes."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


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
