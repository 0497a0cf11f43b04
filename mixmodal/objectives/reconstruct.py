"""Reconstruct: a part comes back out of its codec as it went in. Nothing is revealed in any order; the trunk rests."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixmodal.adversary import Adversary
from mixmodal.features import RandomFeatures, TrainedFeatures
from mixmodal.objectives import Ask, Block, Lay, chances
from mixmodal.sequence import Grid, Run
from mixmodal.similarity import ssim

TRAINING_SEED = 1  # of the random features that are trained by; others judge


@dataclass(frozen=True)
class Config:
    """Weights of the losses: absolute error, 1 - SSIM, distance of random features and of trained ones.

    Units:   `trained` weighs features of the encoder of `nets`, a trained autoencoder as in the codec codes; once the
             run has settled (`optim.settle`), when only the decoder learns, `adversary` weighs how well it passes for
             true, and `slope` how steep the net that judges that may be.
    """

    absolute: float = 1.0
    structure: float = 0.3
    features: float = 0.3
    trained: float = 0.0
    nets: dict[str, Any] = field(default_factory=dict)
    adversary: float = 0.0
    slope: float = 0.01


class Objective(nn.Module):
    """Losses between pictures and what a codec makes of them."""

    needs_copy = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.features = RandomFeatures(TRAINING_SEED) if config.features else None
        self.nets = TrainedFeatures(config.nets) if config.trained else None
        self.adversary = Adversary() if config.adversary else None
        self.late = config.adversary > 0  # whether it learns something only once the run has settled

    def lay(self, stream: str, codec: Any, grid: Grid, lay: Lay) -> list[Run]:
        """One run, that holds the part and is predicted from where it stands."""
        run = self.show(stream, codec, grid, lay.origin)
        count = len(grid.values)
        run.predict_at = np.arange(count)
        run.predict = (
            run.embed
            | {
                "progress": np.full(count, lay.progress, np.float32),
                "weights": np.full(count, lay.weight, np.float32),
            }
            | chances(codec, count, lay.rng)
        )
        return [run]

    def show(self, stream: str, codec: Any, grid: Grid, origin: float) -> Run:
        """The part as context, which says nothing."""
        return Run(stream, codec.fields(grid), codec.coords(grid) + np.float32(origin))

    def blank(self, codec: Any) -> dict[str, Tensor]:
        """One position that holds nothing."""
        return codec.blank()

    def blank_predict(self, codec: Any) -> dict[str, Tensor]:
        """One prediction of weight 0."""
        return codec.blank() | {
            "progress": torch.zeros(1),
            "weights": torch.zeros(1),
            "chance": torch.zeros(1, dtype=torch.int64),
        }

    def embed(self, codec: Any, fields: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """What the codec embeds.

        Shapes:  -> [N, D].
        """
        return codec.embed(fields, dtype)

    def losses(self, codec: Any, head: Any, hidden_ND: Tensor, fields: dict[str, Tensor]) -> dict:
        """Sums and counts of each loss, weighed."""
        return self._summed(codec, hidden_ND, fields, settled=False)

    def settled_losses(self, codec: Any, head: Any, hidden_ND: Tensor, fields: dict[str, Tensor]) -> dict:
        """Sums and counts of each loss where only the decoder learns, and the net that judges it."""
        return self._summed(codec, hidden_ND, fields, settled=True)

    def _summed(self, codec: Any, hidden_ND: Tensor, fields: dict[str, Tensor], settled: bool) -> dict:
        sums: dict[str, Tensor] = {}
        for pictures, at_N in codec.canvases(fields):
            weight_n = fields["weights"][at_N].view(len(pictures), -1).sum(1)
            real = weight_n > 0
            if not real.any():
                continue
            chance_n = fields["chance"][at_N].view(len(pictures), -1)[real, 0] if torch.is_grad_enabled() else None
            made, _, added = codec(
                pictures[real].to(hidden_ND.dtype), float(fields["progress"][at_N[0]]), chance_n, settled
            )
            for name, loss in (self._compared(made.float(), pictures[real], settled) | added).items():
                sums[name] = sums.get(name, 0) + (loss * weight_n[real]).sum()
        if not sums:  # the same names, so that ranks and parts of a step can be added up
            with torch.no_grad():
                true = codec.canvases(fields)[0][0]
                made, _, added = codec(true)
                sums = {name: hidden_ND.sum() * 0 for name in self._compared(made, true, settled) | added}
        return {name: (total, fields["weights"].sum()) for name, total in sums.items()}

    def _compared(self, made: Tensor, true: Tensor, settled: bool) -> dict[str, Tensor]:
        """Each loss of each picture, weighed.

        Shapes:  twice [n, C, H, W] -> [n] each.
        """
        config = self.config
        found = {"absolute": (made - true).abs().flatten(1).mean(1) * config.absolute}
        if config.structure:
            found["structure"] = (1 - ssim(made, true)) * config.structure
        if self.features is not None:
            found["features"] = self.features(made, true) * config.features
        if self.nets is not None:
            found["trained"] = self.nets(made, true) * config.trained
        if self.adversary is not None and settled:
            weights = {"fooled": config.adversary, "told": 1.0, "steep": config.slope}
            found |= {name: loss * weights[name] for name, loss in self.adversary.losses(made, true).items()}
        return found

    def rebuild(self, codec: Any, part: Any) -> Any:
        """The part as it comes back."""
        return codec.rebuilt(part)

    def sampler(self, codec: Any, head: Any, grid: Grid, ask: Ask) -> Generator[Block, list[Tensor], np.ndarray]:
        """Nothing: a tokenizer makes nothing by itself.

        Raises:  ValueError that says what to ask instead.
        """
        raise ValueError(
            "this model is a tokenizer, which draws nothing by itself: ask a design that stands on it, or judge it with"
            " --suite reconstruction"
        )
        yield  # a generator, as the loop wants it


def build(config: Config, width: int) -> Objective:
    """The objective for a trunk of `width`."""
    return Objective(config)
