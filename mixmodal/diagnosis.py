"""Why a batch is not finite: which loss, which documents, which layer first, and what to try."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mixmodal.data.loading import Loader
from mixmodal.model import Model
from mixmodal.sequence import Batch, collate
from mixmodal.trunk import run_block

SHOWN = 5
Losses = Callable[[Batch], dict[str, tuple[Tensor, Tensor]]]
FOUND_NOTHING = "a second pass over the same batch is finite"


def diagnose(model: Model, batch: Batch, loader: Loader, losses_of: Losses) -> list[str]:
    """What was found, the most telling line first, and what to try; the model keeps its weights.

    `losses_of` gives the losses of a batch as the step has them, which after a run has settled are others.
    """
    held = [name for name, p in model.named_parameters() if not _finite(p.detach())]
    with _plain(model), first_broken(model) as seen:
        losses = {
            name: float((total / count.clamp(min=1e-8)).detach()) for name, (total, count) in losses_of(batch).items()
        }
    broken = [name for name, value in losses.items() if not math.isfinite(value)]
    lines = []
    if held:
        lines.append(f"{_some(held)} hold weights that are not finite")
    if broken:
        lines.append(f"the loss {' and '.join(broken)} is not finite")
    if seen:
        name, inputs = seen[0]
        after = "its input is finite" if inputs else "its input is not finite either"
        lines.append(f"the first layer whose output is not finite is {name}; {after}")
    elif broken:
        lines.append("every layer's output is finite: the loss itself, or the values it compares with, are not")
    if not broken:
        lines += _gradients(model, batch, losses_of)
    documents = _documents(model, batch, loader, losses_of) if broken else []
    if broken:
        if len(documents) == len(loader.held):
            lines.append(f"each of the batch's {len(loader.held)} documents does it alone: the weights are to blame")
        elif documents:
            lines.append(
                f"{len(documents)} of the batch's {len(loader.held)} documents do it alone: {_some(documents)}"
            )
        else:
            lines.append(f"none of the batch's {len(loader.held)} documents does it alone")
    if 0 < len(documents) < len(loader.held):
        lines.append("try: look at these documents (mixmodal data check) and leave them out")
    else:
        lines.append(
            "try: train on in another folder from the last good checkpoint, with --set start=RUN and half of"
            " optim.rate and optim.matrix_rate, a longer optim.warmup, or precision=float32"
        )
    return lines


@contextmanager
def _plain(model: Model) -> Iterator[None]:
    """Within it the block is not compiled, so that hooks in it are called."""
    compiled, model.trunk.run_block = model.trunk.run_block, run_block
    try:
        yield
    finally:
        model.trunk.run_block = compiled


@contextmanager
def first_broken(model: nn.Module) -> Iterator[list[tuple[str, bool]]]:
    """A list that gets, while it is entered, the modules whose output is not finite, the first and innermost first.

    Each with whether its input was finite.
    """
    seen: list[tuple[str, bool]] = []

    def hook(name: str) -> Any:
        def look(_: nn.Module, inputs: tuple, output: Any) -> None:
            if not _finite(output):
                seen.append((name, _finite(inputs)))

        return look

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _finite(value: Any) -> bool:
    """Whether every floating number in a nest of tensors is finite."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return not isinstance(value, (list, tuple)) or all(map(_finite, value))


def _gradients(model: Model, batch: Batch, losses_of: Losses) -> list[str]:
    """Which parameters' gradients are not finite, from the loss backwards."""
    with _plain(model):
        weights, losses = model.weights(), losses_of(batch)
        sum(
            total / count.clamp(min=1e-8) * weights[name.split(".")[0]] for name, (total, count) in losses.items()
        ).backward()
    # The last that a forward pass comes to is the first that a backward pass does.
    broken = [name for name, p in model.named_parameters() if p.grad is not None and not _finite(p.grad)][::-1]
    model.zero_grad(set_to_none=True)
    if not broken:
        return [f"{FOUND_NOTHING}: the steps before moved the weights, or the machine errs"]
    return [f"the losses are finite, the gradients of {_some(broken)} are not"]


def _documents(model: Model, batch: Batch, loader: Loader, losses_of: Losses) -> list[str]:
    """The documents of the last batch whose loss is not finite when they stand alone."""
    out = []
    for draw, sequence in loader.held:
        alone = collate([sequence], [[0]], loader.recipe.length, model.blank()).to(batch.coords_BL3.device)
        with _plain(model):
            found = [float((total / count.clamp(min=1e-8)).detach()) for total, count in losses_of(alone).values()]
        if not all(map(math.isfinite, found)):
            name = loader.mixture.names[draw.source]
            out.append(f"{name} {draw.index} (visit {draw.visit}, key {draw.key})")
    return out


def _some(names: list[str]) -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
