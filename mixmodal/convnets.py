"""Convolutional ends around patches: what neighbours share is learned once, for every place."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


class Conv(nn.Module):
    """A convolution kept as a matrix in fp32 and computed in the dtype of its input; `stride` 2 halves the sides.

    Shapes:  [n, fan_in, H, W] -> [n, fan_out, H / stride, W / stride].
    """

    group = "filters"

    def __init__(self, fan_in: int, fan_out: int, stride: int = 1, scale: float = 1.0) -> None:
        super().__init__()
        self.stride, self.shape = stride, (fan_out, fan_in, 3, 3)
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in * 9) * (scale * (9 * fan_in) ** -0.5))
        self.bias = nn.Parameter(torch.zeros(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """The filtered picture."""
        weight = self.weight.view(self.shape).to(x.dtype).contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight, self.bias.to(x.dtype), stride=self.stride, padding=1)


class Down(nn.Module):
    """A pyramid of features of a picture, finest first: each level half the sides and twice the width.

    One that is asked for its top alone mixes there alone: little more than half of the multiplications.
    Shapes:  [n, C, H, W] -> [n, width * 2^i, H / 2^i, W / 2^i] for every level i, or for the last.
    """

    def __init__(self, channels: int, width: int, levels: int, top_alone: bool = False) -> None:
        super().__init__()
        self.top_alone = top_alone
        self.first = Conv(channels, width)
        self.halve = nn.ModuleList(Conv(width << i, width << (i + 1), stride=2) for i in range(levels))
        mixing = range(levels if top_alone else 0, levels + 1)
        self.mix = nn.ModuleList(Conv(width << i, width << i) for i in mixing)

    def forward(self, canvas: Tensor) -> list[Tensor]:
        """Every level, or the last."""
        x = self.first(canvas)
        if self.top_alone:
            for halve in self.halve:
                x = halve(_silu(x))
            return [x + self.mix[0](_silu(x))]
        out = [x + self.mix[0](_silu(x))]
        for halve, mix in zip(self.halve, self.mix[1:], strict=True):
            x = halve(_silu(out[-1]))
            out.append(x + mix(_silu(x)))
        return out


class Up(nn.Module):
    """A correction of the predicted picture, from the trunk's features and the pyramid of the noisy picture.

    Shapes:  [n, width * 2^levels, ...] and the pyramid -> [n, C, H, W].
    """

    def __init__(self, channels: int, width: int, levels: int) -> None:
        super().__init__()
        self.mix = nn.ModuleList(Conv(width << i, width << i) for i in range(levels + 1))
        self.widen = nn.ModuleList(Conv(width << (i + 1), width << i) for i in range(levels))
        self.last = Conv(width, channels, scale=0.0)

    def forward(self, features: Tensor, pyramid: list[Tensor]) -> Tensor:
        """What is added to the linear prediction."""
        x = features + pyramid[-1]
        x = x + self.mix[-1](_silu(x))
        for level in range(len(pyramid) - 2, -1, -1):
            x = self.widen[level](F.interpolate(_silu(x), scale_factor=2)) + pyramid[level]
            x = x + self.mix[level](_silu(x))
        return self.last(x)  # no nonlinearity: the noisy pixels have a straight way out


def _silu(x: Tensor) -> Tensor:
    return F.silu(x)


def bent(x: Tensor) -> Tensor:
    """Features normed over their channels at each place, and through a nonlinearity."""
    return F.silu(F.rms_norm(x.movedim(1, -1), (x.shape[1],)).movedim(-1, 1))


def to_canvas(values: Tensor, rows: int, columns: int, patch: tuple[int, int]) -> Tensor:
    """Patches in raster order as whole pictures.

    Shapes:  [n * rows * columns, p * q * C] -> [n, C, rows * p, columns * q].
    """
    canvas = rearrange(values, "(n h w) (p q c) -> n c (h p) (w q)", h=rows, w=columns, p=patch[0], q=patch[1])
    return canvas.contiguous(memory_format=torch.channels_last)  # a quarter faster to convolve on the CPU


def to_patches(canvas: Tensor, patch: tuple[int, int]) -> Tensor:
    """Whole pictures as patches in raster order: undoes `to_canvas`."""
    return rearrange(canvas, "n c (h p) (w q) -> (n h w) (p q c)", p=patch[0], q=patch[1])


def by_size(size_N2: Tensor) -> list[tuple[int, int, Tensor]]:
    """Rows, columns and the slots of all parts of that size: parts stand whole and in raster order."""
    code_N = size_N2[:, 0] * (1 << 20) + size_N2[:, 1]  # one number a size: unique over rows is slow
    return [
        (code >> 20, code & ((1 << 20) - 1), (code_N == code).nonzero()[:, 0]) for code in torch.unique(code_N).tolist()
    ]


def together(pieces: list[tuple[Tensor, Tensor]]) -> Tensor:
    """What was made of the slots of each size, in the order of all slots."""
    if len(pieces) == 1:
        return pieces[0][1]
    order = torch.cat([at for at, _ in pieces])
    return torch.cat([piece for _, piece in pieces])[torch.argsort(order)]
