"""Patches that a transformer of their own mixes, each part by itself, before the trunk is shown them: an encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixmodal.codecs import learned_place, placed
from mixmodal.codecs.arrays import Patches
from mixmodal.convnets import by_size, to_canvas, together
from mixmodal.picture_nets import NetConfig, nets_of


@dataclass(frozen=True)
class Config:
    """Options of an encoder.

    Units:   `patch` is frames, rows, columns of one patch, a square; `box` > 0 fits the longer side of a part to that
             many coordinates; `width` the features of the `blocks` of the encoder, 0 for as many as the trunk has.
    """

    patch: tuple[int, int, int] = (1, 8, 8)
    channels: int = 3
    box: float = 0.0
    width: int = 0
    blocks: int = 3

    def __post_init__(self) -> None:
        if self.patch[0] != 1 or self.patch[1] != self.patch[2]:
            raise ValueError(f"codec.patch is {self.patch}: an encoder takes squares of one frame, such as 1, 8, 8")


class Codec(Patches):
    """What the encoder makes of each patch, as it enters the trunk.

    Limits:  it only reads: what a stream is to write wants another codec.
    """

    def __init__(self, config: Config, width: int) -> None:
        super().__init__(config)
        net = NetConfig("transformer", config.patch[1], config.channels, config.width or width, config.blocks)
        self.encoder, self.place = nets_of(net)[0](net, width), learned_place(width)
        # The encoder's first matrix takes it in with the pixels: its own places are rotary, so relative.
        self.place_before = learned_place(config.patch[1] ** 2 * config.channels)

    def embed(self, fields: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The encoder's vector of each patch, from all patches of its part and of no other, with its learned place.

        Shapes:  [N, C] -> [N, D].
        """
        out, values = [], placed(fields["values"], self.place_before, fields["cells"])
        for rows, columns, at in by_size(fields["size"]):
            canvas = to_canvas(values[at].to(dtype), rows, columns, self.config.patch[1:])
            out.append((at, self.encoder(canvas).movedim(1, -1).flatten(0, 2).float()))
        return placed(together(out), self.place, fields["cells"])


def build(config: Config, width: int) -> Codec:
    """The codec for a trunk of `width`."""
    return Codec(config, width)
