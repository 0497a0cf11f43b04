"""A document laid out as positions: headers, what is wanted in private groups, clean public copies, ends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mixmodal.objectives import Lay
from mixmodal.parts import Document
from mixmodal.sequence import Grid, Run, Sequence

if TYPE_CHECKING:
    from mixmodal.model import Model

HEADER_WEIGHT = 0.1  # announcing a part is easy; it must not drown the text
ENDING_SHARE = 0.1  # of the parts that end a document, how many get a copy and an end, so that ending is learned


def without_prompt(document: Document, medium: str) -> Document:
    """The document without its parts of `medium`, if its last part is of another: training's side of guidance."""
    if document.parts[-1].medium == medium:
        return document
    return replace(document, parts=tuple(part for part in document.parts if part.medium != medium))


def lay_out(
    model: Model,
    document: Document,
    rng: np.random.Generator,
    progress: float = 0.0,
    times: tuple[float, ...] | None = None,
) -> Sequence:
    """The positions of a document in training; `times` fixes the noise levels, for validation.

    Raises:  ValueError if a part has no values or the document no parts.
    """
    if not document.parts:
        raise ValueError(f"document {document.key} has no parts: give it at least one")
    speaker = model.speaker
    runs = [tokens(speaker, speaker.codec.begins(document.parts), 0.0)]
    origin, group = after(runs[0]), 0
    ending = rng.random() < ENDING_SHARE
    for number, part in enumerate(document.parts):
        if part.empty:
            raise ValueError(
                f"part {number} of document {document.key} is an empty {part.medium}: leave it out, or give it a value"
            )
        last = number == len(document.parts) - 1
        speaks = part.medium == speaker.medium
        stream = model.writer(part.medium) if part.wanted else model.reader(part.medium)
        grid = stream.codec.encode(part)
        if not speaks:
            header = speaker.codec.opening(part.medium, grid.size)
            runs.append(tokens(speaker, header, origin, HEADER_WEIGHT * part.weight if part.wanted else 0.0))
            origin += len(header)
        shown = public = not part.wanted
        if part.wanted:
            laid = stream.objective.lay(
                stream.name, stream.codec, grid, Lay(origin, part.weight, rng, progress, group, times)
            )
            group += sum(run.private >= 0 for run in laid)
            runs += laid
            shown = stream.objective.needs_copy and (not last or ending)
            public = shown or not stream.objective.needs_copy
        if shown:
            reader = model.reader(part.medium)
            whole = part if part.known is None else replace(part, known=None)
            copy = grid if reader is stream and whole is part else reader.codec.encode(whole)
            runs.append(reader.objective.show(reader.name, reader.codec, copy, origin))
        if len(runs[-1]):  # a tokenizer may make nothing of a text
            origin = after(runs[-1])
        if public and not speaks:
            runs.append(tokens(speaker, speaker.codec.closing(part.medium), origin))
            origin += 1
        if last and part.wanted and public:
            weight = part.weight * (1.0 if speaks else HEADER_WEIGHT)
            runs.append(tokens(speaker, [speaker.codec.end], origin, weight))
    return Sequence(runs)


def tokens(speaker, values: list[int], origin: float, weight: float = 0.0, first: int = 0) -> Run:
    """A run of the speaker's own tokens, predicted where `weight` says so; `first` is its first one's number in a part.

    Units:   `origin` is where the part begins.
    """
    grid: Grid = speaker.codec.grid(values, first)
    if weight > 0:
        (run,) = speaker.objective.lay(speaker.name, speaker.codec, grid, Lay(origin, weight))
        return run
    return speaker.objective.show(speaker.name, speaker.codec, grid, origin)


def after(run: Run) -> float:
    """Where the next part begins: the largest coordinate, and one more, as a whole number."""
    return float(np.floor(run.coords.max())) + 1
