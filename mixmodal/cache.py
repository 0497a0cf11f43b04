"""Keys, values and places of what has been read, preallocated: one slot a sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from mixmodal.attention import Sight, visible_mask
from mixmodal.config import TrunkConfig
from mixmodal.sequence import Batch, Place


class Cache:
    """Room for `slots` sequences of `capacity` positions; it grows when a sequence needs more.

    Shapes:  keys and values [layer, slot, G, K, E]; places [slot, K].
    Units:   memory is 2 * depth * slots * capacity * kv_heads * head_size numbers of `dtype`.
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
        shape = (config.depth, slots, config.kv_heads, capacity, config.head_size)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.place = Place(*(torch.full((slots, capacity), -1, dtype=torch.int32, device=device) for _ in range(4)))
        self.used = [0] * slots
        self._rows = torch.zeros(0, dtype=torch.long)
        self._prefix = 0
        self._fresh: list[tuple[Tensor, Tensor]] = []

    def clear(self, slot: int) -> None:
        """Forget what `slot` holds."""
        self.used[slot] = 0
        self.place.doc[slot] = -1

    def open(self, slots: list[int], batch: Batch, cos_BLE: Tensor, sin_BLE: Tensor) -> Sight:
        """What the rows of `batch` see: row i continues the sequence in slots[i], none of them kept yet."""
        self._rows = torch.tensor(slots, device=self.keys.device)
        self._prefix = max(self.used[slot] for slot in slots)
        self._fresh = []
        block = batch.place._replace(doc=torch.where(batch.place.doc >= 0, 0, -1).to(torch.int32))
        held = Place(*(f[self._rows, : self._prefix] for f in self.place))
        keys = Place(*(torch.cat(pair, dim=1) for pair in zip(held, block, strict=True)))
        return Sight(cos_BLE, sin_BLE, visible_mask(block, keys))

    def extend(self, layer: int, k_BGLE: Tensor, v_BGLE: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the opened rows, held ones first, then the given."""
        self._fresh.append((k_BGLE, v_BGLE))
        if self._prefix == 0:
            return k_BGLE, v_BGLE
        held_k = self.keys[layer, self._rows, :, : self._prefix]
        held_v = self.values[layer, self._rows, :, : self._prefix]
        return torch.cat((held_k, k_BGLE), dim=2), torch.cat((held_v, v_BGLE), dim=2)

    def keep(self, batch: Batch, rows: list[int]) -> None:
        """Write what the opened `rows` of `batch` have just computed behind what their slots hold."""
        length = batch.shape[1]
        slots = self._rows[rows].tolist()
        needed = max(self.used[slot] for slot in slots) + length
        while needed > self.keys.shape[3]:
            self._grow()
        at = torch.tensor([[self.used[slot] + i for i in range(length)] for slot in slots], device=self.keys.device)
        where = torch.tensor(slots, device=self.keys.device)[:, None]
        for layer, (k, v) in enumerate(self._fresh):
            self.keys[layer, where, :, at] = k[rows].transpose(1, 2).to(self.keys.dtype)
            self.values[layer, where, :, at] = v[rows].transpose(1, 2).to(self.values.dtype)
        for held, new in zip(self.place, batch.place, strict=True):
            held[where, at] = new[rows]
        self.place.doc[where, at] = torch.where(batch.place.doc[rows] >= 0, 0, -1).to(torch.int32)
        for slot in slots:
            self.used[slot] += length

    def _grow(self) -> None:
        """Twice the capacity."""
        self.keys = torch.cat((self.keys, torch.zeros_like(self.keys)), dim=3)
        self.values = torch.cat((self.values, torch.zeros_like(self.values)), dim=3)
        self.place = Place(*(torch.cat((f, torch.full_like(f, -1)), dim=1) for f in self.place))
