"""A categorical law over a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mixmodal.sampling import Settings, draw

WHOLE = 1 << 25  # scores [N, V] that may exist at a time; more are made in pieces, and once more for the gradient


@dataclass(frozen=True)
class Config:
    """Options of the categorical head. `tied` reads with the codec's own table."""

    tied: bool = False


class Head(nn.Module):
    """Logits by one matrix."""

    def __init__(self, config: Config, width: int, codec: Any) -> None:
        super().__init__()
        self.kept = getattr(codec, "kept", 0)  # rows that the codec says are not to be learned
        if config.tied:
            self.table, self.table_added = codec.table.weight, getattr(codec, "table_added", None)
            return
        self.table = nn.Parameter(torch.randn(codec.vocabulary, width) * (0.02 * width**-0.5))
        self.table.requires_grad_(not self.kept)
        self.table_added = nn.Parameter(torch.zeros(codec.vocabulary - self.kept, width)) if self.kept else None

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Scores of every token, in fp32.

        Shapes:  [N, D] -> [N, V].
        """
        logits_NV = F.linear(hidden_ND, self.table.to(hidden_ND.dtype)).float()
        if self.table_added is not None:
            logits_NV[:, self.kept :] += F.linear(hidden_ND, self.table_added.to(hidden_ND.dtype)).float()
        return logits_NV

    def loss(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        """Cross-entropy of each position.

        Shapes:  [N, D], [N] -> [N].
        Units:   nats.
        """
        rows = max(1, WHOLE // len(self.table))
        if len(hidden_ND) <= rows:
            return self._loss(hidden_ND, targets_N)
        pieces = zip(hidden_ND.split(rows), targets_N.split(rows), strict=True)
        return torch.cat([checkpoint(self._loss, *piece, use_reentrant=False) for piece in pieces])

    def _loss(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(hidden_ND), targets_N, reduction="none")

    def draw(self, hidden_ND: Tensor, settings: Settings, rng: torch.Generator, banned: list[int]) -> Tensor:
        """A token for each position; those in `banned` never.

        Shapes:  [N, D] -> [N].
        """
        logits_NV = self.logits(hidden_ND)
        logits_NV[:, banned] = -torch.inf
        return draw(logits_NV, settings.temperature, settings.top_p, rng)


def build(config: Config, width: int, codec: Any) -> Head:
    """The head for a trunk of `width`, over the vocabulary of `codec`."""
    return Head(config, width, codec)
