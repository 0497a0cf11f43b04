"""A training step, from documents to moved weights, against transfusion-pytorch 0.20.0.

Equal parameters, AdamW on both sides. First both as they are, in fp32; then each at its best; then batches of documents
of unlike length, which they pad and we pack. Positions are equal: of a picture that ends its document they have the
noisy patches alone, and so have we here, but in the row that says so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from paired import arguments, costs, paired, show
from rivals import Size, Sizes, both, documents, samples

from mixmodal import layout
from mixmodal.model import Model
from mixmodal.prepare import compile_trunk
from mixmodal.sequence import collate, pack


def our_step(
    model: Model, batches: list[Sizes], length: int, dtype: torch.dtype, copied: bool = False
) -> Callable[[], None]:
    """A step on the next batch, laid out and packed into rows of `length` each time; `copied`: with clean copies."""
    made = [documents(sizes) for sizes in batches]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    rng, blank, turn = np.random.default_rng(0), model.blank(), [0]

    def step() -> None:
        layout.ENDING_SHARE = 1.0 if copied else 0.0
        sequences = sorted((model.lay_out(d, rng) for d in made[turn[0] % len(made)]), key=len, reverse=True)
        rows = -(-sum(map(len, sequences)) // length)
        while (plan := _plan(sequences, rows, length)) is None:
            rows += 1
        losses = model.losses(collate(sequences, plan, length, blank), dtype=dtype)
        sum(total / count.clamp(min=1e-8) for total, count in losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        turn[0] += 1

    return step


def _plan(sequences: list, rows: int, length: int) -> list | None:
    try:
        return pack(sequences, rows, length)
    except ValueError:
        return None


def their_step(model: torch.nn.Module, batches: list[Sizes], dtype: torch.dtype) -> Callable[[], None]:
    """A step on the next batch."""
    made = [samples(sizes) for sizes in batches]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    turn = [0]

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = model([list(sample) for sample in made[turn[0] % len(made)]])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        turn[0] += 1

    return step


def ragged(count: int, seed: int) -> Sizes:
    """Texts of 16 to 192 tokens, pictures of 8 x 8 to 24 x 24 patches."""
    rng = np.random.default_rng(seed)
    return [(int(rng.integers(16, 193)), *(int(n) for n in rng.integers(8, 25, 2))) for _ in range(count)]


def compare(size: Size, batches: list[Sizes], length: int, rounds: int, title: str) -> None:
    """Print the two tables of one kind of batch."""
    model, other = both(size)
    model.train(), other.train()
    wide, narrow = torch.float32, torch.bfloat16
    copies = length + 8 + max(rows * columns for sizes in batches for _, rows, columns in sizes)
    work = {"ours": our_step(model, batches, length, wide), "theirs": their_step(other, batches, wide)}
    work |= {"ours, and clean copies": our_step(model, batches, copies, wide, True)}
    least = costs(work, len(batches))
    show(f"{title}, fp32, not compiled", paired(work, rounds, 2 * len(batches)), "ours", least)
    compile_trunk(model)
    work = {"ours, bf16, block compiled": our_step(model, batches, length, narrow)}
    work |= {"theirs, bf16": their_step(other, batches, narrow)}
    compiled = both(size)[1].train()
    compiled.load_state_dict(other.state_dict())
    compiled.transformer = torch.compile(compiled.transformer)
    work |= {"theirs, transformer compiled": their_step(compiled, batches, wide)}
    work |= {"theirs, bf16, transformer compiled": their_step(compiled, batches, narrow)}
    found = paired(work, rounds, 2 * len(batches))
    show(f"{title}, each at its best", found, "ours, bf16, block compiled", least)


if __name__ == "__main__":
    given = arguments(__doc__)
    small, large = Size(), Size(512, 8, 8)
    even: Sizes = [(80, 16, 16)] * 4
    parts = {
        "width 256, four of 80 tokens and 256 patches": lambda t: compare(small, [even], 344, given.rounds, t),
        "width 512, four of 80 tokens and 256 patches": lambda t: compare(large, [even], 344, given.rounds, t),
        "width 256, ragged": lambda t: compare(small, [ragged(8, s) for s in range(4)], 896, given.rounds, t),
    }
    for title, part in parts.items():
        if given.only in title:
            torch._dynamo.reset()
            part(title)
