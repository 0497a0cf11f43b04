"""Small convolutional ends around patches: what neighbours share is learned once, for every place."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


class Conv(nn.Module):
    """A convolution kept in fp32 and computed in the dtype of its input, its size unchanged.

    Shapes:  [n, fan_in, H, W] -> [n, fan_out, H, W].
    """

    def __init__(self, fan_in: int, fan_out: int, kernel: int = 3, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(fan_out, fan_in, kernel, kernel) * (scale * (fan_in * kernel * kernel) ** -0.5)
        )
        self.bias = nn.Parameter(torch.zeros(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """The filtered picture."""
        return F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), padding=self.weight.shape[-1] // 2)


class Stem(nn.Module):
    """Two convolutions over the whole part, read back patch by patch.

    Shapes:  [n, C, H, W] -> [n * patches, p * q * width].
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first, self.second = Conv(channels, width), Conv(width, width)

    def forward(self, canvas: Tensor) -> Tensor:
        """Features at every pixel."""
        return self.second(F.gelu(self.first(canvas), approximate="tanh"))


class Refiner(nn.Module):
    """A correction of the predicted part, from what the trunk says at every pixel and from the noisy pixels.

    Shapes:  features [n, width, H, W], noisy [n, C, H, W] -> [n, C, H, W].
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.look, self.middle, self.out = Conv(channels, width), Conv(width, width), Conv(width, channels, scale=0.0)

    def forward(self, features: Tensor, noisy: Tensor) -> Tensor:
        """What is added to the linear prediction."""
        x = F.gelu(features + self.look(noisy), approximate="tanh")
        return self.out(F.gelu(x + self.middle(x), approximate="tanh"))


def to_canvas(values: Tensor, rows: int, columns: int, patch: tuple[int, int]) -> Tensor:
    """Patches in raster order as whole pictures.

    Shapes:  [n * rows * columns, p * q * C] -> [n, C, rows * p, columns * q].
    """
    return rearrange(values, "(n h w) (p q c) -> n c (h p) (w q)", h=rows, w=columns, p=patch[0], q=patch[1])


def to_patches(canvas: Tensor, patch: tuple[int, int]) -> Tensor:
    """Whole pictures as patches in raster order: undoes `to_canvas`."""
    return rearrange(canvas, "n c (h p) (w q) -> (n h w) (p q c)", p=patch[0], q=patch[1])
