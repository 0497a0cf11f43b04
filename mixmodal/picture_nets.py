"""Whole pictures as vectors on a grid, and back: by convolutions, or by a transformer over patches.

Source:  a transformer on both sides: Yu et al. 2021 (arXiv:2110.04627), ViT-VQGAN.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mixmodal.config import relu2_trunk
from mixmodal.convnets import Conv, bent
from mixmodal.trunk import Block, RMSNorm, all_see_all, run_block

HEAD_SIZE = 32


@dataclass(frozen=True)
class NetConfig:
    """Options of the nets.

    Units:   `net` is convolutions or transformer; `shrink` how many pixels along a side one position stands for, of
             convolutions a power of 2; `features` the channels on the grid, `blocks` the blocks there.
    """

    net: str = "convolutions"
    shrink: int = 4
    channels: int = 3
    features: int = 64
    blocks: int = 2


class Residual(nn.Module):
    """A residual block: twice normed over channels, bent, and mixed with its neighbours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = Conv(width, width), Conv(width, width, scale=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        return x + self.second(bent(self.first(bent(x))))


class Encoder(nn.Module):
    """Whole pictures as vectors on a grid, by convolutions.

    Shapes:  [n, C, H, W] -> [n, vector, H / shrink, W / shrink].
    """

    def __init__(self, config: NetConfig, vector: int) -> None:
        super().__init__()
        halvings = config.shrink.bit_length() - 2
        width = config.features >> halvings
        self.first = Conv(4 * config.channels, width)
        self.halve = nn.ModuleList(Conv(width << i, width << (i + 1), stride=2) for i in range(halvings))
        self.blocks = nn.ModuleList(Residual(config.features) for _ in range(config.blocks))
        self.last = nn.Parameter(torch.randn(vector, config.features) * config.features**-0.5)

    def layers(self, pictures: Tensor) -> list[Tensor]:
        """The features of every layer.

        Shapes:  [n, C, H, W] -> [n, width, H / 2^i, W / 2^i] for each.
        """
        out = [self.first(F.pixel_unshuffle(pictures, 2))]
        for halve in self.halve:
            out.append(halve(bent(out[-1])))
        for block in self.blocks:
            out.append(block(out[-1]))
        return out

    def forward(self, pictures: Tensor) -> Tensor:
        """The vectors."""
        x = self.layers(pictures)[-1]
        return torch.einsum("nchw,dc->ndhw", bent(x), self.last.to(x.dtype))


class Decoder(nn.Module):
    """Vectors on a grid as whole pictures, by convolutions.

    Shapes:  [n, vector, h, w] -> [n, C, h * shrink, w * shrink].
    """

    def __init__(self, config: NetConfig, vector: int) -> None:
        super().__init__()
        doublings = config.shrink.bit_length() - 2
        width = config.features >> doublings
        self.first = Conv(vector, config.features)
        self.blocks = nn.ModuleList(Residual(config.features) for _ in range(config.blocks))
        self.widen = nn.ModuleList(Conv(width << (i + 1), 4 * (width << i)) for i in reversed(range(doublings)))
        self.last = Conv(width, 4 * config.channels, scale=0.3)

    def forward(self, vectors: Tensor) -> Tensor:
        """The pictures."""
        x = self.first(vectors)
        for block in self.blocks:
            x = block(x)
        for widen in self.widen:
            x = F.pixel_shuffle(widen(bent(x)), 2)
        return F.pixel_shuffle(self.last(bent(x)), 2)


class TwoWay(nn.Module):
    """The trunk's blocks over the places of a grid, each of which sees all others of its picture.

    Shapes:  [n, into, h, w] -> [n, out, h, w]: a matrix, the blocks, a norm, a matrix.
    """

    def __init__(self, config: NetConfig, into: int, out: int, scale: float = 1.0) -> None:
        super().__init__()
        width, heads = config.features, max(1, config.features // HEAD_SIZE)
        self.config = relu2_trunk(width, config.blocks, heads)
        self.first = nn.Parameter(torch.randn(width, into) * into**-0.5)
        self.blocks = nn.ModuleList(Block(self.config) for _ in range(config.blocks))
        self.norm = RMSNorm(width, self.config.norm_eps, self.config.norm_gain)
        self.last = nn.Parameter(torch.randn(out, width) * (scale * width**-0.5))

    def layers(self, x: Tensor) -> list[Tensor]:
        """What enters the blocks, and what each of them makes.

        Shapes:  [n, into, h, w] -> [n, width, h, w] for each.
        """
        rows, columns = x.shape[2:]
        seen = all_see_all(rows, columns, self.config, x.device)
        x_NLD = torch.einsum("nchw,dc->nhwd", x, self.first.to(x.dtype)).flatten(1, 2)
        out = [x_NLD]
        for block in self.blocks:
            out.append(run_block(block, out[-1], seen, None))
        return [rearrange(each, "n (h w) d -> n d h w", h=rows) for each in out]

    def forward(self, x: Tensor) -> Tensor:
        """The grid of other vectors."""
        found = self.norm(self.layers(x)[-1].movedim(1, -1))
        return torch.einsum("nhwd,cd->nchw", found, self.last.to(found.dtype))


class TransformerEncoder(TwoWay):
    """Whole pictures as vectors on a grid, by a transformer over patches.

    Shapes:  [n, C, H, W] -> [n, vector, H / shrink, W / shrink].
    """

    def __init__(self, config: NetConfig, vector: int) -> None:
        super().__init__(config, config.shrink**2 * config.channels, vector)
        self.shrink = config.shrink

    def layers(self, pictures: Tensor) -> list[Tensor]:
        """The features of every layer.

        Shapes:  [n, C, H, W] -> [n, features, H / shrink, W / shrink] for each.
        """
        return super().layers(F.pixel_unshuffle(pictures, self.shrink))


class TransformerDecoder(TwoWay):
    """Vectors on a grid as whole pictures, by a transformer that makes a patch of each.

    Shapes:  [n, vector, h, w] -> [n, C, h * shrink, w * shrink].
    """

    def __init__(self, config: NetConfig, vector: int) -> None:
        super().__init__(config, vector, config.shrink**2 * config.channels, scale=0.3)
        self.shrink = config.shrink

    def forward(self, vectors: Tensor) -> Tensor:
        """The pictures."""
        return F.pixel_shuffle(super().forward(vectors), self.shrink)


NETS = {"convolutions": (Encoder, Decoder), "transformer": (TransformerEncoder, TransformerDecoder)}


def nets_of(config: NetConfig) -> tuple[type[nn.Module], type[nn.Module]]:
    """An encoder and a decoder, to be called with these options and how many numbers a vector between them has.

    Raises:  ValueError for an unknown net, and for sizes that it cannot have.
    """
    if config.net not in NETS:
        raise ValueError(f"codec.net is {config.net!r}: take {' or '.join(NETS)}")
    shrink, features = config.shrink, config.features
    if config.net == "convolutions" and (shrink < 2 or shrink & (shrink - 1) or features % (shrink // 2)):
        raise ValueError(
            f"codec.shrink is {shrink} and codec.features {features}: take a power of 2 from 2 on, and features that"
            " half of it divides"
        )
    if config.net == "transformer" and (shrink < 1 or features % (2 * max(1, features // HEAD_SIZE))):
        raise ValueError(
            f"codec.shrink is {shrink} and codec.features {features}: a transformer takes 1 or more, and features that"
            f" can be shared out evenly to heads of about {HEAD_SIZE}, such as a multiple of {HEAD_SIZE}"
        )
    return NETS[config.net]
