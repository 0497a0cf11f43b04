"""What the ranks of one machine share: memory that all of them see, and bells by which they wait for each other.

What goes between them is written and read there, not sent: a word takes 0.1 to 0.3 ms instead of one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

WORD = 1 << 16  # bytes of the longest message that needs no board of its own
PATIENCE = 1800.0  # seconds that a rank waits for another: one of them samples and saves meanwhile
LOST = "another rank ended, or was not heard of for too long: look at what it said, then go on with --resume"


class Room:
    """Where `count` ranks meet. `bells[i][j]` is a semaphore that rank j rings for rank i.

    `home` is a folder in memory; `alone` says whether another rank is known to have ended.
    """

    def __init__(
        self, home: str, rank: int, bells: Sequence[Sequence[Any]], alone: Callable[[], bool] = lambda: False
    ) -> None:
        self.home, self.rank, self.count, self.bells, self.alone = home, rank, len(bells), bells, alone
        self._words: Board | None = None

    def open(self, agree: Callable[[bool], bool], names: Callable[[str], list[str]]) -> Room | None:
        """The room with a board for words, None where a rank has no memory for it.

        Limits:  `agree` tells whether it is so on all ranks, `names` what each of them says, by other means.
        """
        self._words = self.board(WORD, agree, names)
        return self if self._words else None

    def meet(self) -> None:
        """Nothing, once every rank has come here.

        Raises:  ConnectionError where one does not.
        """
        others = [rank for rank in range(self.count) if rank != self.rank]
        for other in others:
            self.bells[other][self.rank].release()
        for other in others:
            waited = 0.0
            while not self.bells[self.rank][other].acquire(timeout=1.0):
                waited += 1.0
                if waited >= PATIENCE or (self.alone() and not self.bells[self.rank][other].acquire(timeout=1.0)):
                    raise ConnectionError(LOST)

    def heard(self, words: Tensor) -> list[Tensor]:
        """What each rank says, a tensor of the same kind from each, of `WORD` bytes at most."""
        said = words.contiguous().view(-1).view(torch.uint8)
        return [other.clone().view(words.dtype).view(words.shape) for other in self._words.shown([said], said.numel())]

    def board(self, size: int, agree: Callable[[bool], bool], names: Callable[[str], list[str]]) -> Board | None:
        """A board of `size` bytes for each rank, None where a rank has no memory for it; `open` tells the rest."""
        file = ""
        try:
            handle, file = tempfile.mkstemp(dir=self.home)
            try:
                _reserve(handle, 2 * size)
            finally:
                os.close(handle)
            room = True
        except OSError:
            room = False
        try:
            # Nobody maps what one has no memory for: to write there would end the process.
            made = Board(self, size, names(file)) if agree(room) else None
            agree(True)
        finally:
            if file:
                os.unlink(file)  # whoever ends, and however, leaves nothing behind
        return made


class Board:
    """An area of `size` bytes for each rank, in `files` that all of them have open.

    Each has two sheets, used in turn: nothing is written over what another rank may still be reading.
    """

    def __init__(self, room: Room, size: int, files: list[str]) -> None:
        self.room, self._turn = room, 0
        self._areas = [torch.from_file(f, shared=True, size=2 * size, dtype=torch.uint8).view(2, size) for f in files]

    def exchanged(self, to: list[list[Tensor]], sizes: list[int]) -> list[Tensor]:
        """The `sizes` numbers that each rank wrote for this one; `to` is what goes to each, in fp32.

        Limits:  all ranks have the same layout; it is there until the next exchange but one.
        """
        here, areas, begin, mine = self.room.rank, self._sheets(torch.float32), 0, 0
        for rank, pieces in enumerate(to):
            size = sum(piece.numel() for piece in pieces)
            if rank == here:
                mine = begin
            elif size:
                torch.cat(pieces, out=areas[here][begin : begin + size])
            begin += size
        self.room.meet()
        kept = torch.cat(to[here]) if to[here] else areas[here][:0]
        return [
            kept if rank == here else area[mine : mine + size]
            for rank, (area, size) in enumerate(zip(areas, sizes, strict=True))
        ]

    def shown(self, pieces: list[Tensor], *sizes: int) -> list[Tensor]:
        """The `sizes` numbers that each rank shows to all, or as many from each; `pieces` is what this one shows.

        Limits:  it is there until the next exchange but one.
        """
        areas = self._sheets(pieces[0].dtype if pieces else torch.float32)
        if pieces:
            torch.cat(pieces, out=areas[self.room.rank][: sum(piece.numel() for piece in pieces)])
        self.room.meet()
        if len(sizes) == 1:
            sizes *= len(areas)
        return [area[:size] for area, size in zip(areas, sizes, strict=True)]

    def _sheets(self, dtype: torch.dtype) -> list[Tensor]:
        self._turn = 1 - self._turn
        return [area[self._turn].view(dtype) for area in self._areas]


def _reserve(handle: int, size: int) -> None:
    """Give the file this size. Raises OSError where there is no memory for it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.truncate(handle, size)
