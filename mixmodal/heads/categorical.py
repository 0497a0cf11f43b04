"""A categorical law over a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixmodal.sampling import Settings, draw


@dataclass(frozen=True)
class Config:
    """Options of the categorical head. `tied` reads with the codec's own table."""

    tied: bool = False


class Head(nn.Module):
    """Logits by one matrix."""

    def __init__(self, config: Config, width: int, vocabulary: int, table: nn.Parameter | None) -> None:
        super().__init__()
        tied = config.tied and table is not None
        self.table = table if tied else nn.Parameter(torch.randn(vocabulary, width) * (0.02 * width**-0.5))

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Scores of every token, in fp32.

        Shapes:  [N, D] -> [N, V].
        """
        return F.linear(hidden_ND, self.table.to(hidden_ND.dtype)).float()

    def loss(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        """Cross-entropy of each position.

        Shapes:  [N, D], [N] -> [N].
        Units:   nats.
        """
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
    return Head(config, width, codec.vocabulary, codec.table.weight if config.tied else None)
