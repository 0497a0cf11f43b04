"""A training step at width 512 against its own matrix products, run alone at the faster of fp32 and bf16.

The products are those that the step really makes, forward, backward and in the optimizer, recorded while it runs.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from dataclasses import replace

import torch
from paired import arguments, paired, show
from torch.utils._python_dispatch import TorchDispatchMode

from mixmodal.config import Recipe, TrunkConfig
from mixmodal.optim import make_optimizers
from mixmodal.prepare import compile_trunk, prepare
from mixmodal.recipes import recipe
from mixmodal.step import train_step

PRODUCTS = {"mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2)}


class Products(TorchDispatchMode):
    """Counts the shapes of all matrix products that run within it, and of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in PRODUCTS:
            a, b = (args[i] for i in PRODUCTS[name])
            self.found[tuple(a.shape), tuple(b.shape), a.is_contiguous(), b.is_contiguous()] += 1
        return func(*args, **(kwargs or {}))


def alone(found: Counter, dtype: torch.dtype) -> dict[tuple, float]:
    """Seconds of one product of each shape, the median of several."""
    out = {}
    for key in found:
        a, b = (_made(shape, straight, dtype) for shape, straight in zip(key[:2], key[2:], strict=True))
        ticks = []
        for _ in range(8):
            began = time.process_time()
            a @ b
            ticks.append(time.process_time() - began)
        out[key] = statistics.median(ticks[2:])
    return out


def _made(shape: tuple[int, ...], straight: bool, dtype: torch.dtype) -> torch.Tensor:
    if straight:
        return torch.randn(shape, dtype=dtype)
    return torch.randn(*shape[:-2], shape[-1], shape[-2], dtype=dtype).transpose(-1, -2)


def wide(matrices: str) -> Recipe:
    """The recipe `scenes_two` at width 512, linear ends, rows of 256."""
    chosen = recipe("scenes_two")
    trunk = TrunkConfig(512, 8, 8, 8, 64, 2048, "relu2", norm_gain=False, qk_scale=2.0, rope_theta=100.0)
    patches = chosen.model.streams["patches"]
    patches = replace(patches, codec={k: v for k, v in patches.codec.items() if k != "ends"})
    model = replace(chosen.model, trunk=trunk, streams={**chosen.model.streams, "patches": patches})
    optim = replace(chosen.optim, matrices=matrices, matrix_rate=0.0, rate=0.0)
    return replace(chosen, model=model, optim=optim, rows=8, length=256, minutes=0.0)


def compare(matrices: str, rounds: int) -> None:
    """The step and its products."""
    run = prepare(wide(matrices), "cpu")
    optimizers = make_optimizers(run.model.groups(), run.recipe.optim)
    batch = run.loader.next(0.5)
    train_step(run, batch, optimizers)
    with Products() as products:
        train_step(run, batch, optimizers)
    best = [alone(products.found, dtype) for dtype in (torch.float32, torch.bfloat16)]
    floor = sum(count * min(seconds[key] for seconds in best) for key, count in products.found.items())
    total = sum(products.found.values())
    print(f"\nwidth 512, 8 layers, {matrices}, {run.cost.parameters / 1e6:.1f} M, {run.cost.positions:,} positions")
    print(f"  {total} products of {len(products.found)} shapes take {floor:.3f} s alone")
    compile_trunk(run.model)
    seconds = paired({"step": lambda: train_step(run, batch, optimizers)}, rounds, 3)
    seconds["its products alone"] = [floor] * rounds
    show(f"step at width 512, {matrices}, compiled", seconds, "step")
    print(f"  {statistics.median(seconds['step']) / floor:.2f} x its products")


if __name__ == "__main__":
    given = arguments(__doc__)
    for matrices in ("adamw", "muon"):
        if given.only in matrices:
            torch._dynamo.reset()
            compare(matrices, given.rounds)
