"""Vector quantization: the nearest of K vectors, which are averages of what fell to them.

Source:  van den Oord et al. 2017 (arXiv:1711.00937), appendix A.1; revival: Dhariwal et al. 2020 (arXiv:2005.00341).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixmodal.quantizers import Quantized, Quantizer, straight_through


@dataclass(frozen=True)
class Config:
    """Options of the codebook.

    Units:   `decay` is the memory of the averages per step; `unit` compares directions alone; every `revive` steps,
             codes that took less than `rare` of their fair share begin again at one of the last vectors (0: never).
    """

    width: int = 8
    size: int = 1024
    commitment: float = 0.25
    decay: float = 0.99
    unit: bool = False
    revive: int = 10
    rare: float = 0.03


class VQ(Quantizer):
    """A codebook that follows the data by moving averages."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.sizes = config, (config.size,)
        book = torch.randn(config.size, config.width)
        # Parameters, though no gradient moves them: what is saved, resumed and shared among ranks are parameters.
        self.book = _kept(F.normalize(book) if config.unit else book)
        self.count = _kept(torch.ones(config.size))
        self.total = _kept(self.book.clone())
        self.steps = _kept(torch.zeros(1))
        self._seen: list[tuple[Tensor, Tensor]] = []  # of this step: vectors and their codes

    def forward(self, z_ND: Tensor, progress: float = 0.0) -> Quantized:
        """The nearest vectors of the codebook."""
        z_ND = z_ND.float()
        if self.config.unit:
            z_ND = F.normalize(z_ND)
        codes_N = self.nearest(z_ND.detach())
        values_ND = self.book[codes_N]
        if self.training and torch.is_grad_enabled():
            self._seen.append((z_ND.detach(), codes_N))
        losses = {"commitment": self.config.commitment * F.mse_loss(z_ND, values_ND)}
        return Quantized(straight_through(z_ND, values_ND), codes_N[:, None], losses)

    def nearest(self, z_ND: Tensor) -> Tensor:
        """The code of each vector.

        Shapes:  [N, D] -> [N].
        """
        distance_NK = self.book.square().sum(1) - 2 * z_ND @ self.book.T
        return distance_NK.argmin(1)

    def lookup(self, codes_NG: Tensor) -> Tensor:
        """The vectors of the codebook with these numbers.

        Shapes:  [N, 1] -> [N, D].
        """
        return self.book[codes_NG[:, 0]]

    @torch.no_grad()
    def moved(self, ranks: Any, taken: bool) -> None:
        """Move the averages by what the last step saw on all ranks; now and then revive codes that nothing falls to."""
        config, device = self.config, self.book.device
        seen, self._seen = self._seen, []
        if not taken:
            return
        z_ND, codes_N = torch.empty(0, config.width), torch.empty(0, dtype=torch.int64)
        if seen:
            z_ND, codes_N = (torch.cat(pieces) for pieces in zip(*seen, strict=True))
        found = ranks.total(torch.bincount(codes_N, minlength=config.size).float().to(device))
        if not found.any():
            return
        if not self.steps:  # begins among the data, not around it
            self.book.copy_(self._some(z_ND, config.size, ranks))
            self.count.fill_(float(found.sum()) / config.size)
            self.total.copy_(self.book * self.count[:, None])
            self.steps += 1
            return
        sums = torch.zeros_like(self.total).index_add_(0, codes_N.to(device), z_ND.to(device))
        self.count.lerp_(found, 1 - config.decay)
        self.total.lerp_(ranks.total(sums), 1 - config.decay)
        self.steps += 1
        if config.revive and int(self.steps) % config.revive == 0:
            fair = float(self.count.sum()) / config.size
            rare = self.count < config.rare * fair
            if number := int(rare.sum()):
                self.total[rare] = self._some(z_ND, number, ranks) * fair
                self.count[rare] = fair
        book = self.total / self.count.clamp(min=1e-5)[:, None]
        self.book.copy_(F.normalize(book) if config.unit else book)

    def _some(self, z_ND: Tensor, number: int, ranks: Any) -> Tensor:
        """So many of the vectors that all ranks saw in the last step; the same ones whenever this step is done."""
        counts = [count for (count,) in ranks.told([len(z_ND)])]
        rng = torch.Generator().manual_seed(int(self.steps))
        at = torch.randint(sum(counts), (number,), generator=rng) - sum(counts[: ranks.rank])
        noise = torch.randn(number, self.config.width, generator=rng)
        here, z_ND = (at >= 0) & (at < len(z_ND)), z_ND.cpu()
        out = torch.zeros(number, self.config.width)
        out[here] = z_ND[at[here]]
        moments = torch.stack([z_ND.double().sum(), z_ND.double().square().sum()]).float()
        mean, square = ranks.total(moments.to(self.book.device)) / (sum(counts) * self.config.width)
        spread = (square - mean.square()).clamp(min=0).sqrt()
        return ranks.total(out.to(self.book.device)) + 1e-3 * spread * noise.to(self.book.device)


def _kept(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


def build(config: Config) -> VQ:
    """The quantizer."""
    return VQ(config)
