"""Keys, values and places of what has been read, preallocated: one slot a sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from mixmodal.attention import FEW, MANY, Sight, visible_mask
from mixmodal.config import TrunkConfig
from mixmodal.sequence import PADDING, Batch, Place

CLEANED = 32  # positions more than needed that are cleaned at a time


class Cache:
    """Room for `slots` sequences of `capacity` positions; it grows when a sequence needs more.

    New keys and values are written behind what their slot holds, and read where they stand. Slots that follow one
    another are read without a copy.
    Shapes:  keys and values [layer, slot, G, K, E]; places [slot, K].
    Units:   memory is depth * slots * capacity * kv_heads * (head_size + value_size) numbers of `dtype`.
    """

    def __init__(
        self,
        config: TrunkConfig,
        slots: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.depth, slots, config.kv_heads, capacity)
        self.keys = torch.empty(*shape, config.head_size, dtype=dtype, device=device)
        self.values = torch.empty(*shape, config.value_size, dtype=dtype, device=device)
        self._clean = 0  # so many positions hold numbers: memory that is never asked for is never touched
        self.place = Place(
            *(torch.full((slots, capacity), PADDING, dtype=torch.int32, device=device) for _ in range(4))
        )
        self.used = [0] * slots
        self._slots: list[int] = []
        self._rows: slice | Tensor = slice(0)
        self._at: tuple[Tensor | slice, ...] = ()
        self._fresh = Place(*(torch.zeros(0) for _ in range(4)))

    def clear(self, slot: int) -> None:
        """Forget what `slot` holds."""
        self.used[slot] = 0
        self.place.doc[slot] = PADDING

    def open(self, slots: list[int], batch: Batch, cos_BLE: Tensor, sin_BLE: Tensor) -> Sight:
        """What the rows of `batch` see: row i continues the sequence in slots[i], none of them kept yet."""
        rows, length = batch.shape
        begins = [self.used[slot] for slot in slots]
        self._end = max(begins) + length
        self._grow(self._end)
        device = self.keys.device
        self._slots = slots
        follow = slots == list(range(slots[0], slots[0] + rows))
        self._rows = slice(slots[0], slots[0] + rows) if follow else torch.tensor(slots, device=device)
        if follow and len(set(begins)) == 1:
            self._at = (self._rows, slice(begins[0], self._end))
        else:
            at_BL = torch.tensor(begins, device=device)[:, None] + torch.arange(length, device=device)
            self._at = (torch.tensor(slots, device=device)[:, None], at_BL)
        block = batch.place._replace(doc=torch.where(batch.place.doc >= 0, 0, PADDING).to(torch.int32))
        self._fresh = block
        for held, new in zip(self.place, block, strict=True):
            held[self._at] = new
        mask = visible_mask(block, Place(*(f[self._rows, : self._end] for f in self.place)))
        self.place.doc[self._at] = PADDING  # scratch, unless it is kept
        by_row = device.type == "cpu" and length >= FEW and length * self._end >= MANY
        ends = [begin + length for begin in begins] if by_row else []
        alone = tuple((end, not mask[row, ..., :end].all()) for row, end in enumerate(ends))
        # Forwards alone SDPA is the fastest, most of all where everything is seen.
        return Sight(cos_BLE, sin_BLE, None if mask.all() else mask, plain=False, ends=alone)

    def extend(self, layer: int, k_BGLE: Tensor, v_BGLE: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the opened rows: what their slots hold, then the given."""
        slot, at = self._at
        for held, new in ((self.keys[layer], k_BGLE), (self.values[layer], v_BGLE)):
            if isinstance(at, slice):
                held[slot, :, at] = new
            else:
                held[slot, :, at] = new.transpose(1, 2).to(held.dtype)
        return self.keys[layer, self._rows, :, : self._end], self.values[layer, self._rows, :, : self._end]

    def keep(self) -> None:
        """Let the opened rows stay: what comes next in their slots stands behind them."""
        self.place.doc[self._at] = self._fresh.doc
        for slot in self._slots:
            self.used[slot] += self._fresh.doc.shape[1]

    def _grow(self, needed: int) -> None:
        """At least the needed capacity, and then half as much again, so that it is seldom asked for."""
        depth, slots, groups, capacity, _ = self.keys.shape
        if needed > capacity:
            room, clean = needed + needed // 2, self._clean
            wider = [old.new_empty(depth, slots, groups, room, old.shape[4]) for old in (self.keys, self.values)]
            for old, new in zip((self.keys, self.values), wider, strict=True):
                new[:, :, :, :clean] = old[:, :, :, :clean]
            self.keys, self.values = wider
            self.place = Place(
                *(torch.cat((f, f.new_full((slots, room - capacity), PADDING)), dim=1) for f in self.place)
            )
        if needed > self._clean:  # what is masked is multiplied by 0, so it must be a number
            end = min(needed + CLEANED, self.keys.shape[3])
            for held in (self.keys, self.values):
                held[:, :, :, self._clean : end] = 0
            self._clean = end
