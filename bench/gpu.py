"""How much of a GPU a training step uses, at 0.1 to 1 billion parameters, mixed sequences in packed rows.

`python bench/gpu.py [--only 0.5B] [--paths flex plain] [--rows 8] [--length 4096] [--peak 989] [--out FILE]`

Counted are the products of positions that hold something and of pairs that see each other, forward and backward, and
no others: what is recomputed, padded or masked is no use. `--peak` is what the maker states, in TFLOP/s (an H100 or
H200: 989); without it a large product is timed. Told beside it: the step, the wait for its data, the memory.
On a machine without a GPU `--device cpu --only tiny` shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mixmodal.attention import visible
from mixmodal.compute import measured_peak
from mixmodal.config import OptimConfig, Recipe
from mixmodal.designs import lossless, relu2_trunk
from mixmodal.optim import make_optimizers
from mixmodal.prepare import Run, compile_trunk, prepare
from mixmodal.sequence import Batch, Place
from mixmodal.step import train_step

SIZES = {"tiny": (64, 2, 2), "0.1B": (768, 14, 6), "0.5B": (1536, 18, 12), "1B": (2048, 20, 16)}  # width, depth, heads
PATCH = (1, 8, 8)
SIDE = 128  # of pictures: 256 patches, four noisy copies of them and a clean one


def chosen(size: str, path: str, rows: int, length: int) -> Recipe:
    """Scenes to draw and to describe, and prose, on a trunk of this size."""
    width, depth, heads = SIZES[size]
    scenes = {"kind": "scenes", "level": "full", "size": 16 if size == "tiny" else SIDE, "share": 0.9}
    return Recipe(
        name=f"gpu_{size}",
        model=lossless.model(
            relu2_trunk(width, depth, heads=heads), patch=PATCH, flow={"copies": 4, "clamp": 0.1, "sigma_data": 1.0}
        ),
        sources={"scenes": scenes, "prose": {"kind": "prose", "share": 0.1}},
        optim=OptimConfig(matrices="adamw", matrix_rate=1e-4, rate=1e-4),
        rows=rows,
        length=length,
        path=path,
    )


def pairs_of(batch: Batch) -> tuple[int, int]:
    """Positions that hold something, and pairs of which one sees the other, in rows one at a time."""
    pairs = 0
    for row in range(len(batch.place.doc)):
        place = Place(*(field[row] for field in batch.place))
        pairs += int(visible(Place(*(f[:, None] for f in place)), Place(*(f[None, :] for f in place))).sum())
    return int((batch.place.doc >= 0).sum()), pairs


def useful(run: Run, batch: Batch) -> float:
    """FLOPs that a step of this batch cannot do without: three products for each matrix, of what is there."""
    trunk = run.model.config.trunk
    matrices = sum(p.numel() for p in run.model.trunk.parameters() if p.ndim == 2)
    positions, pairs = pairs_of(batch)
    heads = trunk.heads * (trunk.head_size + trunk.value_size)
    ends = 0
    for name, slots in batch.slots.items():
        stream = run.model.streams[name]
        asked = int((slots.predict["weights"] > 0).sum())
        ends += asked * sum(p.numel() for p in (stream.head or stream.codec).parameters() if p.ndim == 2)
    return 6.0 * positions * matrices + 6.0 * pairs * heads * trunk.depth + 6.0 * ends


def measured(size: str, path: str, given: argparse.Namespace) -> dict[str, Any]:
    """What a step takes, by the clock, once it is compiled."""
    gpu = given.device != "cpu"
    run = prepare(replace(chosen(size, path, given.rows, given.length), seed=given.seed), given.device)
    why = compile_trunk(run.model, path)
    optimizers = make_optimizers(run.owned.groups(), run.recipe.optim)
    ticks, waits, flops = [], [], []
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    for step in range(given.warm + given.steps):
        began = time.perf_counter()
        batch = run.loader.next(0.5).to(run.device)
        waited = time.perf_counter() - began
        work = useful(run, batch) if step >= given.warm else 0.0
        if gpu:
            torch.cuda.synchronize()
        began = time.perf_counter()
        train_step(run, batch, optimizers)
        if gpu:
            torch.cuda.synchronize()
        if step >= given.warm:
            ticks.append(time.perf_counter() - began)
            waits.append(waited)
            flops.append(work / ticks[-1])
    peak = given.peak * 1e12 if given.peak else measured_peak(run.dtype, given.device)
    found = {
        "size": size,
        "parameters": run.cost.parameters,
        "path": path,
        "compiled": why or "yes",
        "dtype": str(run.dtype).removeprefix("torch."),
        "seconds": statistics.median(ticks),
        "positions_a_second": run.cost.positions * run.loader.fill / statistics.median(ticks),
        "share_of_peak": statistics.median(flops) / peak,
        "peak_tflops": peak / 1e12,
        "waits_for_data": statistics.median(waits),
        "fill": run.loader.fill,
        "gib": torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0,
        "gib_foreseen": run.cost.bytes / 2**30,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
    }
    torch._dynamo.reset()
    return found


def main() -> None:
    """Print a line for each, and keep them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=["0.1B", "0.5B", "1B"], choices=SIZES)
    parser.add_argument("--paths", nargs="*", default=["flex", "plain"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    for name, value in {"rows": 8, "length": 4096, "steps": 20, "warm": 5, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--peak", type=float, default=0.0, help="TFLOP/s that the maker states")
    given = parser.parse_args()
    for size in given.only:
        for path in given.paths:
            try:
                found = measured(size, path, given)
            except (ValueError, RuntimeError) as error:  # no room for all scores, say: the others are still asked
                print(f"{size} {path}: {str(error).splitlines()[0]}", flush=True)
                continue
            print(
                f"{size} ({found['parameters'] / 1e6:.0f} M) {path}: {found['seconds']:.3f} s a step,"
                f" {found['positions_a_second']:,.0f} positions/s, {found['share_of_peak']:.1%} of"
                f" {found['peak_tflops']:.0f} TFLOP/s, waits {found['waits_for_data']:.3f} s for data,"
                f" {found['gib']:.1f} GiB (foreseen {found['gib_foreseen']:.1f})",
                flush=True,
            )
            if given.out:
                with given.out.open("a", encoding="utf8") as file:
                    file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
