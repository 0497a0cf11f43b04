"""Patches that a net of their own predicts: of a noisy part the trunk is shown the places and the time alone.

So the trunk is a text encoder whose queries are patches. What it says of each goes to the net, with the noisy values
and their time; the flow, its data and its sampler stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixmodal.codecs import learned_place, placed
from mixmodal.codecs.arrays import Patches
from mixmodal.config import unknown
from mixmodal.controls import NETS
from mixmodal.convnets import by_size, together


@dataclass(frozen=True)
class Config:
    """Options of a control.

    Units:   `patch` is frames, rows, columns of one patch; `box` > 0 fits the longer side of a part to that many
             coordinates; `net` is "tower", `depth` blocks of `width`, or "pyramid", `width` features for each pixel
             and twice as many after each of `depth` halvings (as many as a patch has); both attend with `heads`.
    """

    patch: tuple[int, int, int] = (1, 8, 8)
    channels: int = 3
    box: float = 0.0
    net: str = "tower"
    width: int = 128
    depth: int = 4
    heads: int = 4

    def __post_init__(self) -> None:
        if self.net not in NETS:
            raise ValueError(unknown(f"codec.net {self.net!r}", self.net, NETS))
        if self.patch[0] != 1:
            raise ValueError(f"codec.patch is {self.patch}: a control takes one frame at a time, so begin it with 1")


class Codec(Patches):
    """Places in, predictions of a net of its own out.

    Limits:  it only writes: what is shown clean wants a stream that reads it.
    """

    def __init__(self, config: Config, width: int) -> None:
        super().__init__(config)
        self.place = learned_place(width)
        self.net = NETS[config.net](config.patch, config.channels, width, (config.width, config.depth, config.heads))

    def embed(self, fields: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The learned place of each patch, whatever its values.

        Shapes:  -> [N, D].
        """
        return placed(0.0, self.place, fields["cells"])

    def read(self, hidden_ND: Tensor, fields: dict[str, Tensor]) -> Tensor:
        """Predicted patches in fp32; `fields` are the noisy values that stand there, and their time.

        Shapes:  [N, D] -> [N, C].
        """
        out = []
        for rows, columns, at in by_size(fields["size"]):
            made = self.net(fields["values"][at], hidden_ND[at], fields["time"][at], (rows, columns))
            out.append((at, made.float()))
        return together(out)


def build(config: Config, width: int) -> Codec:
    """The codec for a trunk of `width`."""
    return Codec(config, width)
