"""Lookup-free quantization: the sign of each number is a bit; an entropy keeps bits sure and codes many.

Source:  Yu et al. 2023 (arXiv:2310.05737), MAGVIT-v2; on the sphere Zhao et al. 2024 (arXiv:2406.07548), BSQ.
Differs: the entropy of the batch is that of groups of bits, an upper bound of the whole: over 2^18 codes the whole is
         constant, since no two positions share one, and has no gradient. `commitment` pulls a vector to its code on
         the sphere too, which BSQ leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mixmodal.quantizers import Quantized, Quantizer, straight_through


@dataclass(frozen=True)
class Config:
    """Options of the bits.

    Units:   `groups` share the `bits` evenly, each is one number of a code; `sharpness` is the inverse temperature of
             soft bits; the entropy weighs `entropy`, `anneal` times as much at the start, moving there linearly until
             the share `until` of training. `normed` sets mean and deviation of each vector before, so that of all codes
             the two whose bits are all alike never occur; `sphere` sets its length.
    """

    bits: int = 10
    groups: int = 1
    sharpness: float = 100.0
    commitment: float = 0.25
    entropy: float = 0.1
    anneal: float = 3.0
    until: float = 0.33
    normed: bool = True
    sphere: bool = False

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        return self.bits


class LFQ(Quantizer):
    """Bits by sign."""

    binary = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.bits < 1 or config.groups < 1 or config.bits % config.groups or config.bits // config.groups > 16:
            raise ValueError(
                f"{config.bits} bits in {config.groups} groups: take a divisor that leaves 1 to 16 bits in each"
            )
        if config.normed and config.bits < 3:
            raise ValueError(
                f"{config.bits} bits normed have their signs nearly settled: take 3 or more, or normed=false"
            )
        self.config, self.each = config, config.bits // config.groups
        self.sizes = (1 << self.each,) * config.groups
        self.size = config.bits**-0.5 if config.sphere else 1.0  # of a number of a code
        self.register_buffer("powers", 1 << torch.arange(self.each), persistent=False)

    def forward(self, z_ND: Tensor, progress: float = 0.0) -> Quantized:
        """Signs, and the penalty for unsure bits and for codes that are few."""
        config, z_ND = self.config, z_ND.float()
        if config.normed:
            z_ND = F.layer_norm(z_ND, z_ND.shape[1:])
        if config.sphere:
            z_ND = F.normalize(z_ND)
        bits_ND = z_ND > 0
        values_ND = torch.where(bits_ND, self.size, -self.size)
        codes_NG = (bits_ND.view(len(z_ND), config.groups, self.each) * self.powers).sum(2)
        losses = {}
        if self.training:
            left = max(0.0, 1 - progress / config.until) if config.until > 0 else 0.0
            weight = config.entropy * (1 + (config.anneal - 1) * left)
            sure, many = self.entropies(z_ND)
            losses["entropy"] = weight * (sure - many)
            losses["commitment"] = config.commitment * F.mse_loss(z_ND, values_ND)
        return Quantized(straight_through(z_ND, values_ND), codes_NG, losses)

    def lookup(self, codes_NG: Tensor) -> Tensor:
        """Plus and minus, by the bits of these codes.

        Shapes:  [N, G] -> [N, D].
        """
        bits_NGB = codes_NG[:, :, None].bitwise_and(self.powers) > 0
        return torch.where(bits_NGB, self.size, -self.size).flatten(1)

    def entropies(self, z_ND: Tensor) -> tuple[Tensor, Tensor]:
        """The mean entropy of a soft code, and the entropy of the mean soft code, summed over groups of bits.

        Units:   nats.
        """
        logits_ND = 4 * self.config.sharpness * self.size * z_ND
        on_ND, off_ND = F.logsigmoid(logits_ND), F.logsigmoid(-logits_ND)
        sure = -(on_ND.exp() * on_ND + off_ND.exp() * off_ND).sum(1).mean()
        shape = (len(z_ND), self.config.groups, self.each)
        many = z_ND.new_zeros(())
        for on_NB, off_NB in zip(on_ND.view(shape).unbind(1), off_ND.view(shape).unbind(1), strict=True):
            many = many + self._of_mean(on_NB, off_NB)
        return sure, many

    def _of_mean(self, on_NB: Tensor, off_NB: Tensor) -> Tensor:
        """The entropy of the mean over positions of a group's soft code: outer products of halves, not of all bits."""
        half = self.each // 2
        low_NK, high_NK = (_joint(on_NB[:, at], off_NB[:, at]) for at in (slice(0, half), slice(half, None)))
        mean_KK = high_NK.T @ low_NK / len(on_NB)
        return -torch.special.xlogy(mean_KK, mean_KK.clamp(min=torch.finfo(torch.float32).tiny)).sum()


def _joint(on_NB: Tensor, off_NB: Tensor) -> Tensor:
    """The probability of each pattern of these bits, the first one the lowest.

    Shapes:  [N, B], [N, B] -> [N, 2^B].
    """
    log_NK = on_NB.new_zeros(len(on_NB), 1)
    for bit in range(on_NB.shape[1]):
        log_NK = torch.cat((log_NK + off_NB[:, bit, None], log_NK + on_NB[:, bit, None]), 1)
    return log_NK.exp()


def build(config: Config) -> LFQ:
    """The quantizer."""
    return LFQ(config)
