"""Distances between features of a convolutional net that nobody trained: perceptual, and no download.

Source:  the form of Zhang et al. 2018 (arXiv:1801.03924); that random weights do, Ding et al. (arXiv:2103.10571).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (32, 64, 128)


class RandomFeatures(nn.Module):
    """Three layers of fixed filters, made from a seed: two seeds are two nets, one to train by and one to judge by."""

    def __init__(self, seed: int, channels: int = 3) -> None:
        super().__init__()
        self.count = len(WIDTHS)
        rng = torch.Generator().manual_seed(seed)
        before = channels
        for number, width in enumerate(WIDTHS):
            flat = torch.linalg.qr(torch.randn(max(width, before * 9), max(width, before * 9), generator=rng))[0]
            filters = flat[:width, : before * 9].reshape(width, before, 3, 3) * (max(width, before * 9) / width) ** 0.5
            self.register_buffer(f"filters{number}", filters.contiguous(), persistent=False)
            before = width

    def layers(self, pictures: Tensor) -> list[Tensor]:
        """The features of each layer, of length 1 at each place.

        Shapes:  [n, C, H, W] -> [n, width, H / 2^i, W / 2^i] for each.
        """
        out, x = [], pictures
        for number in range(self.count):
            filters = getattr(self, f"filters{number}").to(x.dtype)
            x = F.leaky_relu(F.conv2d(x, filters, stride=2 if min(x.shape[2:]) > 1 else 1, padding=1), 0.2)
            out.append(F.normalize(x, dim=1, eps=1e-4))
        return out

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        """The mean squared distance over places and layers of each picture.

        Shapes:  twice [n, C, H, W] -> [n].
        """
        pairs = zip(self.layers(made), self.layers(true), strict=True)
        return torch.stack([(a - b).square().sum(1).flatten(1).mean(1) for a, b in pairs]).mean(0)
