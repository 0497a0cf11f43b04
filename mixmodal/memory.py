"""What a training step keeps in memory, counted from its tensors before it runs."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mixmodal.compute import uncompiled
from mixmodal.config import Recipe, TrunkConfig
from mixmodal.model import Model
from mixmodal.sequence import Batch, split

# What comes and goes within a step leaves holes between what stays: so much more does glibc's allocator hold than the
# tensors are large, as bench/memory.py measures it. A compiled step comes with fewer and larger pieces. Giving each
# piece back at once leaves none, but a step then takes half to twice as long again, since all of it comes anew.
HOLES = {False: 1.6, True: 1.15}
AMONG = 1.5  # gradients stay where they came, among what goes: the more of them, the more holes that fit nothing
WIDE = torch.finfo(torch.float32).bits // 8


def memory_of(model: Model, recipe: Recipe, dtype: torch.dtype, batches: list[Batch], device: str = "cpu") -> float:
    """The bytes of all tensors alive at the peak of a step on the fullest of `batches`."""
    holes = HOLES[_compiled(recipe, device)] if device == "cpu" else 1.0
    return held_of(model, recipe) + holes * fleeting_of(model, recipe, dtype, batches, device)


def held_of(model: Model, recipe: Recipe) -> float:
    """The bytes of what stays from step to step: weights, their average and the optimizers' moments."""
    muon = recipe.optim.matrices == "muon"
    moments = sum(
        sum(p.numel() for _, p in named) * (1 if muon and name != "rest" else 2)
        for name, named in model.groups().items()
    )
    return WIDE * (sum(p.numel() for p in model.parameters()) * (1 + (recipe.optim.average > 0)) + moments)


def fleeting_of(model: Model, recipe: Recipe, dtype: torch.dtype, batches: list[Batch], device: str = "cpu") -> float:
    """The bytes of what comes and goes within a step on the fullest of `batches`, its gradients too.

    The trunk's activations are counted from their shapes; what the ends of the streams want
    is counted while they run, there and back, since a codec or a head may want anything.
    Limits:  of attention, only the path "plain" is counted with its scores; of blocks, only whole ones. What the
             allocator holds besides was measured on the CPU alone.
    """
    parts = [p for b in batches for p in (split(b, recipe.accumulate, model.blank()) if recipe.accumulate > 1 else [b])]
    gradients = WIDE * sum(p.numel() for named in model.groups().values() for _, p in named)
    trunk, (rows, length) = model.config.trunk, parts[0].shape
    depth, positions, size = trunk.depth, rows * length, torch.finfo(dtype).bits // 8
    compiled = _compiled(recipe, device)
    each = block_bytes(trunk, rows, length, size, compiled)
    if recipe.path != "plain":
        each -= block_bytes(trunk, rows, length, size, compiled, scores_only=True)
    kept = depth * positions * trunk.width * size + each if recipe.recompute else depth * each
    working = 2 * positions * trunk.mlp_width * size
    if recipe.path == "plain":
        working += rows * trunk.heads * length * length * (WIDE + size)
    if device == "cpu" and not compiled:
        gradients *= AMONG
        working += each * recipe.recompute  # what comes again fits in none of the holes that it left
    model.eval()  # what follows the data must not follow examples
    phases = (False, True) if recipe.optim.settle < 1 else (False,)  # before the run has settled, and then
    fullest = [max(parts, key=lambda part, n=name: len(part.slots[n].predict_at)) for name in parts[0].slots]
    ends = max(_peak_of_ends(model, part, dtype, phases) for part in {id(part): part for part in fullest}.values())
    model.train()
    if recipe.accumulate > 1:  # the gradients of one part are there while the next runs
        return gradients + kept + max(ends, working)
    return max(kept + max(ends, working), gradients + each + working)


def _compiled(recipe: Recipe, device: str) -> bool:
    """Whether the block will be, which not every run can that asks for it."""
    return recipe.compile and not uncompiled(recipe.path, device)


def block_bytes(
    trunk: TrunkConfig, rows: int, length: int, size: int, compiled: bool, *, scores_only: bool = False
) -> float:
    """What one block keeps for its gradient, `size` bytes a number.

    As counted from the tensors that autograd saves: a compiled block keeps what is cheapest, one that is not keeps what
    norms and the softmax compute in fp32 too. In fewer bits it keeps its matrices in them besides.
    """
    positions = rows * length
    scores = rows * trunk.heads * length * length * (WIDE if compiled or size == WIDE else WIDE + size)
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


def _peak_of_ends(model: Model, batch: Batch, dtype: torch.dtype, phases: tuple[bool, ...]) -> float:
    """What streams want at once outside the trunk, as they run on `batch` and back."""
    rows, length = batch.shape
    hidden_ND = torch.zeros(rows * length, model.config.trunk.width, dtype=dtype, requires_grad=True)
    learned = [p for p in model.parameters() if p.requires_grad]
    peak = 0.0
    with torch.enable_grad(), Alive() as alive:
        entering = model.embed(batch, dtype)
        for phase in phases:
            alive.peak = alive.now
            found = [model.streams[name].losses(hidden_ND, slots, phase) for name, slots in batch.slots.items()]
            total = sum(loss for losses in found for loss, _ in losses.values())
            torch.autograd.grad(total, [hidden_ND, *learned], allow_unused=True)
            peak = max(peak, alive.peak)
            del found, total
    del entering
    return peak


class Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it is on and not freed yet: `now`, and at their `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in tree_leaves((args, kwargs)):
            self._meet(given, 0)  # what was there before is none of what is counted
        made = func(*args, **(kwargs or {}))
        for new in tree_leaves(made):
            self._meet(new, 1)
        return made

    def _meet(self, one: object, counted: int) -> None:
        if not isinstance(one, Tensor) or id(storage := one.untyped_storage()) in self._known:
            return
        self._known.add(id(storage))
        size = counted * storage.nbytes()
        weakref.finalize(storage, self._forget, id(storage), size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _forget(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.now -= size
