"""Documents as positions: where each stands (Place), what it holds (Run), and many of them packed (Batch).

Legend of shape suffixes, for the whole package:
B batch (rows), L positions, D width, H heads, E head size, V vocabulary, C values of a position,
N slots of a stream (positions gathered over the batch), K keys, S size of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PADDING = -1


class Place(NamedTuple):
    """Who may see whom, four integers a position: sequence, two-way span (-1: none), order, private group (-1)."""

    doc: Tensor
    span: Tensor
    index: Tensor
    private: Tensor


@dataclass(frozen=True, eq=False)
class Grid:
    """An encoded part: values of each position, and where it stands inside the part.

    Shapes:  `values` [n, ...], `cells` [n, 3] (frame, row, column; more columns where a cell has several positions),
             `counted` [n, C] or None: which values count.
    Units:   `size` is the number of cells along frame, row, column; `known` marks values that stay as they are.
    """

    values: np.ndarray
    cells: np.ndarray
    size: tuple[int, int, int]
    counted: np.ndarray | None = None
    known: np.ndarray | None = None


def raster(size: tuple[int, int, int]) -> np.ndarray:
    """Frame, row and column of every cell, row after row.

    Shapes:  -> [frames * rows * columns, 3].
    """
    return np.indices(size).reshape(3, -1).T.astype(np.float32)


@dataclass(eq=False)
class Run:
    """Consecutive positions of one stream, with what they embed and what is predicted from them.

    Shapes:  every array of `embed` [n, ...], `coords` [n, 3], `time` [n]; of `predict` [m, ...].
    Units:   `predict_at` counts from the first position of the run; -1 is the position before it.
    """

    stream: str
    embed: dict[str, np.ndarray]
    coords: np.ndarray
    time: np.ndarray | None = None
    two_way: bool = False
    private: int = PADDING
    predict_at: np.ndarray | None = None
    predict: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.coords)


@dataclass(eq=False)
class Sequence:
    """One laid-out document: runs in order. Its length is what packing counts."""

    runs: list[Run]

    def __len__(self) -> int:
        return sum(len(run) for run in self.runs)


@dataclass(eq=False)
class Slots:
    """What one stream embeds and predicts in a batch; positions are flat, row * length + position.

    Limits:  a stream without any has one of each: embedded one past the last position, predicted with weight 0.
    """

    embed_at: Tensor
    embed: dict[str, Tensor]
    predict_at: Tensor
    predict: dict[str, Tensor]


@dataclass(eq=False)
class Batch:
    """Fixed [rows, length] of packed positions.

    Shapes:  every field of `place` [B, L] int32; `coords_BL3`; `time_BL` (1 where nothing is noisy).
    """

    place: Place
    coords_BL3: Tensor
    time_BL: Tensor
    slots: dict[str, Slots]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and length."""
        return tuple(self.place.doc.shape)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        move = lambda fields: {name: value.to(device) for name, value in fields.items()}  # noqa: E731
        slots = {
            name: Slots(s.embed_at.to(device), move(s.embed), s.predict_at.to(device), move(s.predict))
            for name, s in self.slots.items()
        }
        return Batch(
            Place(*(f.to(device) for f in self.place)), self.coords_BL3.to(device), self.time_BL.to(device), slots
        )


def pack(sequences: list[Sequence], rows: int, length: int) -> list[list[int]]:
    """For each row the numbers of the sequences it holds: the fullest row with room takes the next one.

    Raises:  ValueError if a sequence is longer than a row, or the rows cannot hold them all.
    """
    plan: list[list[int]] = [[] for _ in range(rows)]
    room = [length] * rows
    for number, sequence in enumerate(sequences):
        row = fitting_row(room, len(sequence))
        if row is None:
            raise ValueError(
                f"sequence {number} of {len(sequence)} positions fits in none of {rows} rows of {length}:"
                f" the roomiest has {max(room)} left; take longer rows or fewer sequences"
            )
        plan[row].append(number)
        room[row] -= len(sequence)
    return plan


def fitting_row(room: list[int], length: int) -> int | None:
    """The fullest row that still has room for `length` positions, None if there is none."""
    fits = [(left, row) for row, left in enumerate(room) if left >= length]
    return min(fits)[1] if fits else None


def collate(
    sequences: list[Sequence],
    plan: list[list[int]],
    length: int,
    blank: dict[str, Slots],
    start: np.ndarray | None = None,
) -> Batch:
    """The batch that holds `sequences` as `plan` says.

    `blank` gives for each stream one empty slot of each kind, so that a stream that no sequence uses still runs.
    `start` gives for each sequence the index of its first position: in a cache, something stands before it.
    """
    rows = len(plan)
    flat = {name: np.full(rows * length, PADDING, np.int32) for name in Place._fields}
    flat["index"] = np.tile(np.arange(length, dtype=np.int32), rows)
    coords = np.zeros((rows * length, 3), np.float32)
    time = np.ones(rows * length, np.float32)
    held: dict[str, list[tuple[int, Run]]] = {name: [] for name in blank}
    for row, numbers in enumerate(plan):
        at = row * length
        for number in numbers:
            begin = at
            offset = 0 if start is None else int(start[number])
            for run in sequences[number].runs:
                end = at + len(run)
                flat["doc"][at:end] = number
                flat["index"][at:end] = np.arange(at - begin + offset, end - begin + offset)
                if run.two_way:  # the index of its first position names a span, also behind a cache
                    flat["span"][at:end] = at - begin + offset
                flat["private"][at:end] = run.private
                coords[at:end] = run.coords
                if run.time is not None:
                    time[at:end] = run.time
                held[run.stream].append((at, run))
                at = end
    shaped = {name: torch.from_numpy(values.reshape(rows, length)) for name, values in flat.items()}
    slots = {name: _slots(runs, blank[name], rows * length) for name, runs in held.items()}
    return Batch(
        Place(**shaped),
        torch.from_numpy(coords.reshape(rows, length, 3)),
        torch.from_numpy(time.reshape(rows, length)),
        slots,
    )


def split(batch: Batch, parts: int, blank: dict[str, Slots]) -> list[Batch]:
    """The rows of a batch in so many batches of equally many rows.

    Raises:  ValueError where the rows cannot be shared out evenly.
    """
    rows, length = batch.shape
    if parts < 1 or rows % parts:
        raise ValueError(f"{rows} rows cannot be shared out to {parts} parts: take a divisor of the rows")
    each, out = rows // parts, []
    for first in range(0, rows, each):
        at = slice(first, first + each)
        begin, end = first * length, (first + each) * length
        slots = {}
        for name, held in batch.slots.items():
            embeds = (held.embed_at >= begin) & (held.embed_at < end)
            predicts = (held.predict_at >= begin) & (held.predict_at < end)
            slots[name] = Slots(
                _refilled(held.embed_at[embeds] - begin, torch.tensor([each * length])),
                {key: _refilled(value[embeds], blank[name].embed[key]) for key, value in held.embed.items()},
                _refilled(held.predict_at[predicts] - begin, torch.tensor([0])),
                {key: _refilled(value[predicts], blank[name].predict[key]) for key, value in held.predict.items()},
            )
        out.append(Batch(Place(*(f[at] for f in batch.place)), batch.coords_BL3[at], batch.time_BL[at], slots))
    return out


def _refilled(values: Tensor, blank: Tensor) -> Tensor:
    """The values; one `blank` where there are none."""
    return values if len(values) else blank.to(values)


def _slots(held: list[tuple[int, Run]], blank: Slots, positions: int) -> Slots:
    embed_at = [np.arange(at, at + len(run)) for at, run in held]
    predicting = [(at, run) for at, run in held if run.predict_at is not None and len(run.predict_at)]
    predict_at = [at + run.predict_at for at, run in predicting]
    return Slots(
        _joined(embed_at, torch.tensor([positions])),
        {key: _joined([run.embed[key] for _, run in held], empty) for key, empty in blank.embed.items()},
        _joined(predict_at, torch.tensor([0])),
        {key: _joined([run.predict[key] for _, run in predicting], empty) for key, empty in blank.predict.items()},
    )


def _joined(pieces: list[np.ndarray], blank: Tensor) -> Tensor:
    """The pieces end to end; one `blank` where there are none."""
    if not any(len(piece) for piece in pieces):
        return blank.clone()
    return torch.from_numpy(np.concatenate(pieces, dtype=blank.numpy().dtype, casting="unsafe"))
