"""A categorical law over a vocabulary, or over each of the several numbers of a code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mixmodal.sampling import Settings, draw, guide

WHOLE = 1 << 25  # scores [N, V] that may exist at a time; more are made in pieces, and once more for the gradient


@dataclass(frozen=True)
class Config:
    """Options of the categorical head.

    Units:   `tied` reads with the codec's own table; `joint` heads of a model share one softmax, as if their
             vocabularies were one; `temperature` is that of sampling where nobody asks for another.
    """

    tied: bool = False
    joint: bool = False
    temperature: float = 0.0


class Head(nn.Module):
    """Logits by one matrix. The numbers of a code are independent of each other, given the hidden state."""

    def __init__(self, config: Config, width: int, codec: Any) -> None:
        super().__init__()
        if not hasattr(codec, "sizes") and not hasattr(codec, "vocabulary"):
            raise ValueError("the head categorical draws numbers, and this codec has continuous values: take denoiser")
        if config.tied and not hasattr(codec.table, "weight"):
            raise ValueError("head.tied shares the table of words, and this codec's is none of them: set it to false")
        self.config, self.joint = config, config.joint
        self.single = not hasattr(codec, "sizes")
        self.sizes = (codec.vocabulary,) if self.single else tuple(codec.sizes)
        if config.joint and len(self.sizes) > 1:
            raise ValueError(f"a code of {len(self.sizes)} numbers stands in no one vocabulary: set head.joint=false")
        self.beside: list[Head] = []  # the other joint heads of the model: no parts of this one
        self.kept = getattr(codec, "kept", 0)  # rows that the codec says are not to be learned
        if config.tied:
            self.table, self.table_added = codec.table.weight, getattr(codec, "table_added", None)
            return
        self.table = nn.Parameter(torch.randn(sum(self.sizes), width) * (0.02 * width**-0.5))
        self.table.requires_grad_(not self.kept)
        self.table_added = nn.Parameter(torch.zeros(sum(self.sizes) - self.kept, width)) if self.kept else None

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Scores of every value of each number, one after the other, in fp32.

        Shapes:  [N, D] -> [N, V].
        """
        logits_NV = F.linear(hidden_ND, self.table.to(hidden_ND.dtype)).float()
        if self.table_added is not None:
            logits_NV[:, self.kept :] += F.linear(hidden_ND, self.table_added.to(hidden_ND.dtype)).float()
        return logits_NV

    def loss(self, hidden_ND: Tensor, targets: Tensor, chance_N: Tensor | None = None) -> Tensor:
        """Cross-entropy of each position, summed over the numbers of its code.

        Shapes:  [N, D], [N] or [N, G] -> [N].
        Units:   nats.
        """
        rows = max(1, WHOLE // sum(len(head.table) for head in (self, *self.beside)))
        if len(hidden_ND) <= rows:
            return self._loss(hidden_ND, targets)
        pieces = zip(hidden_ND.split(rows), targets.split(rows), strict=True)
        return torch.cat([checkpoint(self._loss, *piece, use_reentrant=False) for piece in pieces])

    def _loss(self, hidden_ND: Tensor, targets: Tensor) -> Tensor:
        if self.beside:
            logits_NV = torch.cat([head.logits(hidden_ND) for head in (self, *self.beside)], 1)
            return F.cross_entropy(logits_NV, targets.view(len(targets)), reduction="none")
        pieces = self.logits(hidden_ND).split(self.sizes, 1)
        targets_NG = targets.view(len(targets), len(self.sizes))
        losses = [F.cross_entropy(p, t, reduction="none") for p, t in zip(pieces, targets_NG.unbind(1), strict=True)]
        return sum(losses[1:], losses[0])

    def draw(
        self, branches: list[Tensor], settings: Settings, rng: torch.Generator, banned: list[int]
    ) -> tuple[Tensor, Tensor]:
        """A value for each position, those in `banned` never, and how likely it was without temperature.

        Shapes:  twice [N, D] at most -> [N] or [N, G], and [N].
        """
        logits_NV = guide([self.logits(hidden_ND) for hidden_ND in branches], settings.guidance)
        logits_NV[:, banned] = -torch.inf
        temperature = self.config.temperature if settings.temperature is None else settings.temperature
        values, sure_N = [], torch.zeros(len(logits_NV), device=logits_NV.device)
        for piece_NV in logits_NV.split(self.sizes, 1):
            value_N = draw(piece_NV, temperature, settings.top_p, rng).to(piece_NV.device)
            values.append(value_N)
            sure_N = sure_N + piece_NV.log_softmax(1).gather(1, value_N[:, None])[:, 0]
        return values[0] if self.single else torch.stack(values, 1), sure_N


def build(config: Config, width: int, codec: Any) -> Head:
    """The head for a trunk of `width`, over the vocabulary of `codec`, or the `sizes` of the numbers of its codes."""
    return Head(config, width, codec)
