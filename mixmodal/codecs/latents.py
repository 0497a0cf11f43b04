"""Latents of an array: the vectors that a frozen autoencoder makes of a part, as patches of an array of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from mixmodal.codecs import frozen
from mixmodal.config import options
from mixmodal.healing import healed
from mixmodal.kinds import kind_of
from mixmodal.sequence import Grid


@dataclass(frozen=True)
class Config:
    """Options of latents.

    `nets` are the options of the autoencoder, {"kind": file name, option: value}; a recipe gives {"from": PLACE}
    instead, the folder of a trained one, recipe:NAME for one to be trained first, or diffusers:FOLDER for an
    AutoencoderKL. `inner` is the codec that takes the array of vectors, with its options.
    """

    nets: dict[str, Any] = field(default_factory=dict)
    inner: dict[str, Any] = field(default_factory=lambda: {"kind": "arrays", "patch": [1, 1, 1]})


class Codec(nn.Module):
    """The inner codec of arrays, around it the autoencoder, which learns nothing here.

    Limits:  lossy; how many numbers a pixel has left is `nets`' own.
    """

    lossy = True

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        if not config.nets or config.nets.get("quantizer"):
            raise ValueError(
                "the codec latents wants an autoencoder without a quantizer: set codec.nets.from to the folder of a"
                " trained one, such as `mixmodal train tokenizer_scenes_kl` leaves"
            )
        self.config, self.nets = config, frozen(config.nets)
        module = kind_of("codecs", config.inner)
        inner = {**config.inner, "channels": self.nets.vector}
        self.inner = module.build(options(module.Config, inner, "codec.inner"), width)
        self.mixes = getattr(self.inner, "mixes", False)
        self.size, self.embed, self.read = self.inner.size, self.inner.embed, self.inner.read
        self.coords, self.fields, self.blank, self.empty, self.smoothest = (
            self.inner.coords,
            self.inner.fields,
            self.inner.blank,
            self.inner.empty,
            self.inner.smoothest,
        )

    def encode(self, part: Any) -> Grid:
        """Patches of vectors; known are those all of whose pixels are."""
        return self.inner.encode(Vectors(self.nets.latents(part), self.nets.known(part)))

    def decode(self, values: np.ndarray, grid: Grid, part: Any) -> Any:
        """The part with the array that the autoencoder makes of these vectors, cut to the part's own size."""
        made = self.nets.pictures(self.inner.decode(values, grid, Vectors()).values)
        return part.with_array(healed(made, part))

    def cells(self, extent: tuple[int, int, int]) -> tuple[int, int, int]:
        """How many positions cover frames, rows and columns of `extent`."""
        return self.inner.cells(self.nets.cells(extent))

    def extent(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Frames, height and width that `size` positions cover."""
        return self.nets.extent(self.inner.extent(size))


@dataclass(eq=False)
class Vectors:
    """An array of vectors that stands where a part is asked for its array."""

    values: np.ndarray | None = None
    mask: np.ndarray | None = None

    @property
    def known(self) -> np.ndarray | None:
        """Which of its places are known."""
        return None if self.mask is None else self.mask[0]

    def array(self) -> np.ndarray:
        """The vectors."""
        return self.values

    def with_array(self, array: np.ndarray) -> Vectors:
        """Others."""
        return Vectors(array)


def build(config: Config, width: int) -> Codec:
    """The codec for a trunk of `width`."""
    return Codec(config, width)
