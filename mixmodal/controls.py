"""Nets that predict a noisy picture by themselves, on what a text encoder says of it: controls for the trunk.

Each is called with the noisy patches of whole pictures, in raster order, the hidden state and the time of each patch,
and the rows and columns of patches that a picture has; it gives the prediction of each patch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixmodal.config import TrunkConfig, relu2_trunk
from mixmodal.convnets import Conv, to_canvas, to_patches
from mixmodal.linear import Linear
from mixmodal.trunk import Attention, Clock, Trunk, all_see_all, gather

GROUP = 8  # channels that are normed together


class Tower(nn.Module):
    """Blocks over all patches of a picture, each scaled, shifted and gated by its time and its hidden state.

    Shapes:  [n * h * w, C], [n * h * w, D], [n * h * w], (h, w) -> [n * h * w, C].
    Source:  Peebles & Xie 2022 (arXiv:2212.09748), the diffusion transformer.
    Differs: the condition is one of each patch, and of time and text only the time passes a SiLU before it scales;
             places are rotary; gates begin at 1, before matrices that are zero; the last norm is not modulated.
    """

    def __init__(self, patch: tuple[int, int, int], channels: int, given: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        size = patch[1] * patch[2] * channels
        self.trunk = Trunk(relu2_trunk(*shape, adaptive=True))
        self.into = nn.Parameter(torch.randn(shape[0], size) * size**-0.5)
        self.told = Linear(self.trunk.config, given, shape[0])
        self.out = nn.Parameter(torch.zeros(size, shape[0]))

    def forward(self, values_NC: Tensor, hidden_ND: Tensor, time_N: Tensor, size: tuple[int, int]) -> Tensor:
        """The prediction."""
        dtype, shape = hidden_ND.dtype, (-1, size[0] * size[1])
        told = self.trunk.clock(time_N).to(dtype) + self.told(hidden_ND)
        x = F.linear(values_NC.to(dtype), self.into.to(dtype)).unflatten(0, shape)
        seen = all_see_all(*size, self.trunk.config, x.device)
        return F.linear(self.trunk(x, seen, told.unflatten(0, shape)), self.out.to(dtype)).flatten(0, 1)


def grouped(x: Tensor) -> Tensor:
    """Features normed over a group of channels and over all places, so that what differs from place to place stays.

    Source:  Wu & He 2018 (arXiv:1803.08494).
    """
    return F.group_norm(x, math.gcd(max(1, x.shape[1] // GROUP), x.shape[1]))


class Residual(nn.Module):
    """Two convolutions, what lies between them scaled and shifted by a condition of the picture; added to the input.

    Shapes:  [n, fan_in, H, W], [n, given] -> [n, fan_out, H, W].
    Source:  Dhariwal & Nichol 2021 (arXiv:2105.05233), section 3.1.
    """

    def __init__(self, config: TrunkConfig, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.first, self.second = Conv(fan_in, fan_out), Conv(fan_out, fan_out, scale=0.0)
        self.past = Linear(config, fan_in, fan_out) if fan_in != fan_out else nn.Identity()
        self.told = Linear(config, config.width, 2 * fan_out, scale=0.0)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Features of the same places."""
        scale, shift = self.told(told)[:, :, None, None].chunk(2, 1)
        inner = F.silu(grouped(self.first(F.silu(grouped(x)))) * (1 + scale) + shift)
        return self.past(x.movedim(1, -1)).movedim(-1, 1) + self.second(inner)


class Pyramid(nn.Module):
    """A U-Net over pixels: residual blocks down to the coarsest level and up again, past it what each level held.

    Shapes:  [n * h * w, C], [n * h * w, D], [n * h * w], (h, w) -> [n * h * w, C].
    Source:  Ho et al. 2020 (arXiv:2006.11239), with the blocks of Dhariwal & Nichol 2021 (arXiv:2105.05233).
    Differs: the condition is added where the picture is coarsest, place by place, and its mean goes with the time;
             norms of groups have no gains; each level has one residual block a way and the coarsest alone attends, in
             Ho et al. two, and attention at 16 x 16 too.
    """

    def __init__(self, patch: tuple[int, int, int], channels: int, given: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        width, depth, heads = shape
        levels = min(depth, *((side & -side).bit_length() - 1 for side in patch[1:]))
        self.patch, self.coarse = patch[1:], tuple(side >> levels for side in patch[1:])
        widths = [width << level for level in range(levels + 1)]
        config = relu2_trunk(widths[-1], 1, heads, adaptive=True)
        self.clock = Clock(config.width)
        self.told = Linear(config, given, config.width)
        self.layout = Linear(config, given, self.coarse[0] * self.coarse[1] * config.width)
        self.first = Conv(channels, width)
        self.down = nn.ModuleList(Residual(config, w, w) for w in widths)
        self.halve = nn.ModuleList(Conv(w, 2 * w, stride=2) for w in widths[:-1])
        self.attention = Attention(config)
        self.up = nn.ModuleList(
            [*(Residual(config, 2 * w, w) for w in widths[:-1]), Residual(config, *widths[-1:] * 2)]
        )
        self.widen = nn.ModuleList(Conv(2 * w, w) for w in widths[:-1])
        self.last = Conv(width, channels, scale=0.0)
        self.config = config

    def forward(self, values_NC: Tensor, hidden_ND: Tensor, time_N: Tensor, size: tuple[int, int]) -> Tensor:
        """The prediction."""
        dtype, each = hidden_ND.dtype, size[0] * size[1]
        told = self.clock(time_N[::each]).to(dtype) + self.told(hidden_ND.unflatten(0, (-1, each)).mean(1))
        x, held = self.first(to_canvas(values_NC.to(dtype), *size, self.patch)), []
        for block, halve in zip(self.down, self.halve, strict=False):
            held.append(block(x, told))
            x = halve(F.silu(held[-1]))
        x = self.down[-1](x + to_canvas(self.layout(hidden_ND), *size, self.coarse), told)
        x = self.up[-1](self._attended(x), told)
        for block, widen, past in reversed(list(zip(self.up, self.widen, held, strict=False))):
            x = block(torch.cat((widen(F.interpolate(F.silu(x), scale_factor=2)), past), 1), told)
        return to_patches(self.last(F.silu(grouped(x))), self.patch)

    def _attended(self, x: Tensor) -> Tensor:
        """The coarsest features, each with what it gathers from all of them."""
        rows, columns = x.shape[2:]
        seen = all_see_all(rows, columns, self.config, x.device)
        asked = self.attention(grouped(x).flatten(2).transpose(1, 2), seen.cos_BLE, seen.sin_BLE)
        return x + self.attention.o(gather(asked, seen, None, 0)).transpose(1, 2).unflatten(2, (rows, columns))


NETS = {"tower": Tower, "pyramid": Pyramid}
