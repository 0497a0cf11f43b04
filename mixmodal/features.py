"""Distances between features of a net, of one that nobody trained or of one trained here: perceptual, and no download.

Source:  the form of Zhang et al. 2018 (arXiv:1801.03924); that random weights do, Ding et al. (arXiv:2103.10571).
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixmodal.config import options
from mixmodal.picture_nets import NetConfig, nets_of

WIDTHS = (32, 64, 128)


class Distance(nn.Module):
    """What two pictures differ in as `layers` sees them, which whoever is one has."""

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        """The mean squared distance over places and layers of each picture, features of length 1 at each place.

        Shapes:  twice [n, C, H, W] -> [n].
        """
        pairs = zip(self.layers(made), self.layers(true), strict=True)
        apart = [F.normalize(a, dim=1, eps=1e-4) - F.normalize(b, dim=1, eps=1e-4) for a, b in pairs]
        return torch.stack([each.square().sum(1).flatten(1).mean(1) for each in apart]).mean(0)


class RandomFeatures(Distance):
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
        """The features of each layer.

        Shapes:  [n, C, H, W] -> [n, width, H / 2^i, W / 2^i] for each.
        """
        out, x = [], pictures
        for number in range(self.count):
            filters = getattr(self, f"filters{number}").to(x.dtype)
            out.append(F.leaky_relu(F.conv2d(x, filters, stride=2 if min(x.shape[2:]) > 1 else 1, padding=1), 0.2))
            x = out[-1]
        return out


class TrainedFeatures(Distance):
    """The layers of the encoder of a trained autoencoder, whose options are `nets`. They learn nothing here."""

    def __init__(self, nets: dict[str, Any]) -> None:
        super().__init__()
        if "kind" not in nets:
            raise ValueError(
                f"objective.nets is {nets!r}: set objective.nets.from to the folder of a trained tokenizer, such as"
                " `mixmodal train tokenizer_plain` leaves, or to recipe:NAME for one to be trained first"
            )
        if nets["kind"] != "autoencoder":
            raise ValueError(
                f"objective.nets has features of {nets['kind']!r}: take those of an autoencoder trained here"
            )
        own = {field.name: nets[field.name] for field in fields(NetConfig) if field.name in nets}
        net = options(NetConfig, own, "objective.nets")
        self.shrink, self.encoder = net.shrink, nets_of(net)[0](net, 1)
        self.encoder.last = None  # what quantizers take is no feature
        self.requires_grad_(False)

    def layers(self, pictures: Tensor) -> list[Tensor]:
        """The features of each layer; a picture whose sides the net does not divide goes on as it ends.

        Shapes:  [n, C, H, W] -> [n, width, h, w] for each.
        """
        below, beside = (-side % self.shrink for side in pictures.shape[2:])
        return self.encoder.layers(F.pad(pictures, (0, beside, 0, below), "replicate"))
