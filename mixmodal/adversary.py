"""A net that tells true pictures from made ones, square by square, and what it makes a decoder learn.

Source:  Esser et al. 2021 (arXiv:2012.09841), VQGAN: squares, hinge; Mescheder et al. 2018 (arXiv:1801.04406): R1.
Differs: the weight is fixed, where VQGAN balances gradients at the decoder's last layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from mixmodal.convnets import Conv

LEAK = 0.2


class Adversary(nn.Module):
    """How true a picture looks around each place, above 0 for yes: squares of 23 px, 4 px apart; no norms.

    Shapes:  [n, C, H, W] -> [n, H / 4 * W / 4].
    """

    def __init__(self, channels: int = 3, width: int = 32) -> None:
        super().__init__()
        self.halve = nn.ModuleList((Conv(channels, width, stride=2), Conv(width, 2 * width, stride=2)))
        self.mix, self.last = Conv(2 * width, 2 * width), Conv(2 * width, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """One number a place."""
        x = pictures
        for layer in (*self.halve, self.mix):
            x = F.leaky_relu(layer(x), LEAK)
        return self.last(x).flatten(1)

    def losses(self, made: Tensor, true: Tensor) -> dict[str, Tensor]:
        """For each picture: what the maker of `made` wants low, what this net wants low, and how steep it is on `true`.

        Maker and judge learn from one backward pass: no gradient of "fooled" reaches this net, since it is asked with
        its weights held; none of the others reaches `made`, which they see detached.
        Shapes:  twice [n, C, H, W] -> [n] each.
        """
        held = {name: parameter.detach() for name, parameter in self.named_parameters()}
        fooled = -functional_call(self, held, (made,))
        learning = torch.is_grad_enabled()
        with torch.enable_grad():
            true = true.detach().requires_grad_()
            on_true = self(true)
            # The sum over squares, whose number divides: each square's own slope, as if they lay apart.
            (slope,) = torch.autograd.grad(on_true.sum(), true, create_graph=learning)
        hinge = F.relu(1 - on_true) + F.relu(1 + self(made.detach()))
        steep_n = slope.square().flatten(1).sum(1) / on_true.shape[1]
        return {"fooled": fooled.mean(1), "told": hinge.mean(1), "steep": steep_n}
