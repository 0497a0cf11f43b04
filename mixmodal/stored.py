"""Tensors that lie in several files, as one mapping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor


class Stored(Mapping):
    """Tensors in files, by name, each read when it is asked for: a rank reads its own and no others."""

    def __init__(self) -> None:
        self._files: dict[str, Any] = {}

    def add(self, file: Path) -> None:
        """Open one more file.

        Raises:  SafetensorError if it is none.
        """
        opened = safe_open(file, "pt")
        self._files |= dict.fromkeys(opened.keys(), opened)

    def __getitem__(self, name: str) -> Tensor:
        return self._files[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
