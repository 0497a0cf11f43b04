"""What a training step keeps in memory, counted from its tensors before it runs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mixmodal.config import Recipe, TrunkConfig
from mixmodal.model import Model
from mixmodal.sequence import Batch, split

# What comes and goes within a step leaves holes between what stays: so much more does glibc's allocator hold than the
# tensors are large, as bench/memory.py measures it. A compiled step comes with fewer and larger pieces.
HOLES = {False: 1.6, True: 1.3}
WIDE = torch.finfo(torch.float32).bits // 8


def memory_of(model: Model, recipe: Recipe, dtype: torch.dtype, batches: list[Batch], device: str = "cpu") -> float:
    """The bytes of all tensors alive at the peak of a step on the fullest of `batches`."""
    holes = HOLES[recipe.compile] if device == "cpu" else 1.0
    return held_of(model, recipe) + holes * fleeting_of(model, recipe, dtype, batches)


def held_of(model: Model, recipe: Recipe) -> float:
    """The bytes of what stays from step to step: weights, their average and the optimizers' moments."""
    muon = recipe.optim.matrices == "muon"
    moments = sum(
        sum(p.numel() for _, p in named) * (1 if muon and name != "rest" else 2)
        for name, named in model.groups().items()
    )
    return WIDE * (sum(p.numel() for p in model.parameters()) * (1 + (recipe.optim.average > 0)) + moments)


def fleeting_of(model: Model, recipe: Recipe, dtype: torch.dtype, batches: list[Batch]) -> float:
    """The bytes of what comes and goes within a step on the fullest of `batches`, its gradients too.

    The trunk's activations are counted from their shapes; what the ends of the streams keep is
    counted while they run, since a codec or a head may keep anything.
    Limits:  of attention, only the path "plain" is counted with its scores; of blocks, only whole ones. What the
             allocator holds besides was measured on the CPU alone.
    """
    parts = [p for b in batches for p in (split(b, recipe.accumulate, model.blank()) if recipe.accumulate > 1 else [b])]
    gradients = WIDE * sum(p.numel() for named in model.groups().values() for _, p in named)
    trunk, (rows, length) = model.config.trunk, parts[0].shape
    depth, positions, size = trunk.depth, rows * length, torch.finfo(dtype).bits // 8
    each = block_bytes(trunk, rows, length, size, recipe.compile)
    if recipe.path != "plain":
        each -= block_bytes(trunk, rows, length, size, recipe.compile, scores_only=True)
    kept = depth * positions * trunk.width * size + each if recipe.recompute else depth * each
    working = 2 * positions * trunk.mlp_width * size
    if recipe.path == "plain":
        working += rows * trunk.heads * length * length * (WIDE + size)
    model.eval()  # what follows the data must not follow examples
    phases = (False, True) if recipe.optim.settle < 1 else (False,)  # before the run has settled, and then
    ends = max(_kept_by_ends(model, part, dtype, phases) for part in parts)
    model.train()
    if recipe.accumulate > 1:  # the gradients of one part are there while the next runs
        return gradients + kept + max(ends, working)
    return max(kept + max(ends, working), gradients + each + working)


def block_bytes(
    trunk: TrunkConfig, rows: int, length: int, size: int, compiled: bool, *, scores_only: bool = False
) -> float:
    """What one block keeps for its gradient, `size` bytes a number.

    As counted from the tensors that autograd saves: a compiled block keeps what is cheapest, one that is not keeps what
    norms and the softmax compute in fp32 too. In fewer bits it keeps its matrices in them besides.
    """
    positions = rows * length
    scores = rows * trunk.heads * length * length * (2 * size if compiled else WIDE + (size if size < WIDE else 0))
    if scores_only:
        return scores
    asked, shown = trunk.heads * trunk.head_size, trunk.kv_heads * trunk.head_size
    if trunk.block == "gau":
        matrices = trunk.width * (trunk.head_size + 3 * trunk.mlp_width)
        numbers = size * (2 * trunk.width + 5 * trunk.mlp_width + 5 * asked)
        if not compiled:
            numbers = size * (trunk.width + 6 * trunk.mlp_width + 4 * asked)
            numbers += WIDE * ((1 + trunk.norm_gain) * trunk.width + 3 * asked)
    else:
        inner = 3 if trunk.mlp == "swiglu" else 2
        matrices = trunk.width * (2 * asked + 2 * shown + inner * trunk.mlp_width)
        numbers = size * (3 * trunk.width + 3 * asked + 4 * shown + inner * trunk.mlp_width)
        if not compiled:
            numbers = size * (2 * trunk.width + 2 * asked + 2 * shown + (inner + inner % 2) * trunk.mlp_width)
            numbers += WIDE * (1 + trunk.norm_gain) * (2 * trunk.width + asked + shown)
        if trunk.adapter_rank:  # which want the inputs that the frozen matrices beside them do not
            fans = 4 * trunk.width + 2 * asked + 2 * shown + inner * (trunk.width + trunk.mlp_width)
            numbers += size * (4 + inner) * trunk.adapter_rank
            matrices += trunk.adapter_rank * fans
        elif trunk.frozen:
            numbers -= size * (2 * trunk.width + asked + trunk.mlp_width)
        if (trunk.frozen or trunk.adapter_rank) and not compiled:
            numbers -= WIDE * trunk.norm_gain * (2 * trunk.width + asked + shown)
    if trunk.adaptive:  # scales, shifts and gates, what they are applied to, and what they are made of
        parted, kept = (3, 5) if trunk.block == "gau" else (6, 9)
        matrices += parted * trunk.width**2
        numbers += size * kept * trunk.width
    if trunk.experts > 1:  # what is parted and joined again
        numbers += 2 * size * (trunk.width + asked)
        matrices *= trunk.experts
    return positions * numbers + scores + (matrices * size if size < WIDE else 0)


def _kept_by_ends(model: Model, batch: Batch, dtype: torch.dtype, phases: tuple[bool, ...]) -> float:
    """What streams keep outside the trunk, as they run on `batch` once."""
    rows, length = batch.shape
    entering = saved_bytes(model, lambda: model.embed(batch, dtype))
    hidden_ND = torch.zeros(rows * length, model.config.trunk.width, dtype=dtype, requires_grad=True)
    leaving = 0.0
    for name, slots in batch.slots.items():
        stream = model.streams[name]
        leaving += max(
            saved_bytes(model, lambda s=stream, at=slots, p=phase: s.losses(hidden_ND, at, p)) for phase in phases
        )
    return entering + leaving


def saved_bytes(model: torch.nn.Module, run: Callable[[], object]) -> float:
    """The bytes that autograd keeps of `run`, parameters left out."""
    seen: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def count(kept: Tensor) -> Tensor:
        storage = kept.untyped_storage()
        if storage.data_ptr() not in parameters:
            seen[storage.data_ptr()] = storage.nbytes()
        return kept

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda kept: kept):
        kept = run()
    del kept
    return float(sum(seen.values()))
