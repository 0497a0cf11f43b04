"""Objectives: in which order the values of a part are revealed. One file a kind, found by its name.

An objective has
`lay(stream, codec, grid, lay: Lay) -> runs`       what training lays out for a wanted part (not its clean copy)
`show(stream, codec, grid, origin) -> run`         a part shown clean, as context
`embed(codec, fields, dtype) -> [N, D]`            what a position of its runs embeds
`blank(codec)`, `blank_predict(codec) -> fields`    one embedding slot of no meaning, one prediction that weighs nothing
`losses(codec, head, hidden, fields) -> {name: (sum, count)}`   the count is the sum of the field `weights`
`settled_losses(...)`                              optional: the same where only what reads learns, if that is otherwise
`sampler(codec, head, grid, ask: Ask)`             a generator: yields Blocks, is sent their hidden states
`needs_copy`                                       whether a wanted part cannot itself serve as context
`LASTING`, of its module                           optional: options that a model which is trained on keeps as they were
`levels(codec, hidden, fields) -> sums, counts`    optional: the loss by level of noise, for the plot of validation
`velocity(codec, hidden, run, noisy, clamp)`       optional: of an ODE, for a picture's way to noise and back
`rebuild(codec, part) -> part`                     optional: what there is to see where nothing is drawn (a tokenizer)
`late`                                             optional: it wants a second phase, after the run has settled
`clockless`                                        optional: the time is told to the trunk, which must be adaptive
`exact`, `bounds`                                  its losses are bits that a coder can spend; are no fewer than those
`whole`, `asks_head`                               whether a part stands as one, none of it hidden; draws from a head
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mixmodal.sampling import Settings
from mixmodal.sequence import Grid, Run


@dataclass(eq=False)
class Lay:
    """What an objective is told when it lays out a part: where it begins, its randomness, and how it is weighed.

    `group` is the first number free for a private group, `times` fixes the noise levels (None: draw them).
    Units:   `progress` is the share of the training done.
    """

    origin: float
    weight: float
    rng: np.random.Generator | None = None
    progress: float = 0.0
    group: int = 0
    times: tuple[float, ...] | None = None


@dataclass(eq=False)
class Ask:
    """What a sampler is told: the settings, its random numbers, and what makes it stop.

    `banned` values are never drawn, `stops` end the part; `guided` says that a second branch is there.
    """

    settings: Settings
    rng: torch.Generator
    banned: list[int]
    stops: list[int]
    guided: bool


@dataclass(eq=False)
class Block:
    """Positions that a sampler wants run: coordinates of `run` count from the origin of the part.

    `keep` says that they stay in the cache, else they are scratch. `branches` is how many guidance branches to run.
    """

    run: Run
    keep: bool
    branches: int


def counted(codec: Any, grid: Grid) -> dict[str, np.ndarray]:
    """Which values are to be predicted, not padding nor known; nothing for codes, which count whole.

    Shapes:  {"counted": [N, C]} or nothing.
    """
    if not codec.blank()["values"].is_floating_point():
        return {}
    counts = np.ones(grid.values.shape, np.float32) if grid.counted is None else grid.counted.astype(np.float32)
    return {"counted": counts if grid.known is None else counts * ~grid.known}


def chances(codec: Any, count: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
    """For each position a number, of which a head makes all that it draws; none for codes, whose laws need no draw.

    Shapes:  {"chance": [count] int64} or nothing; zeros without a generator.
    """
    if not codec.blank()["values"].is_floating_point():
        return {}
    drawn = np.zeros(count, np.int64) if rng is None else rng.integers(1 << 62, size=count)
    return {"chance": drawn}
