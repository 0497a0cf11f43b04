"""Estimated memory against what a process really uses, each run in a process of its own."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from mixmodal.config import Recipe, override
from mixmodal.recipes import recipe

WIDE = [f"model.trunk.{name}" for name in ("width=512", "depth=8", "heads=8", "kv_heads=8", "head_size=64")]
WIDE += ["model.trunk.mlp_width=2048", "length=256", "rows=8"]
RUNS = {
    "scenes_two": [],
    "scenes_two, compiled": ["compile=true"],
    "scenes_two, fp32, average": ["precision=float32", "optim.average=0.1"],
    "width 512, Muon": WIDE,
    "width 512, AdamW": [*WIDE, "optim.matrices=adamw"],
    "width 512, compiled": [*WIDE, "compile=true"],
    "width 512, recompute": [*WIDE, "recompute=true"],
    "width 512, accumulate 4": [*WIDE, "accumulate=4"],
    "long rows": ["rows=2", "length=1024"],
    "large vocabulary": ["model.streams.text.codec.vocabulary=50000"],
    "recompute and accumulate": ["accumulate=2", "recompute=true"],
    "convolutional ends": ["model.streams.patches.codec.ends=16"],
}


def chosen(settings: list[str]) -> Recipe:
    """The recipe `scenes_two` with these settings, not compiled unless they say so."""
    return override(replace(recipe("scenes_two"), compile=False, minutes=0.0), settings)


def measure(settings: list[str]) -> None:
    """Print the estimate and the growth of this process, in bytes."""
    import torch

    from mixmodal import prepare
    from mixmodal.compute import keep_freed_memory
    from mixmodal.optim import PowerAverage, make_optimizers
    from mixmodal.step import train_step

    torch.set_num_threads(1)
    keep_freed_memory()
    prepare.measured_peak = lambda *_: 1e11
    prepare.TOKENIZER_DOCUMENTS = 100
    run = prepare.prepare(chosen(settings), "cpu")
    optimizers = make_optimizers(run.model.groups(), run.recipe.optim)
    average = PowerAverage(run.model, 0.1) if run.recipe.optim.average else None
    if run.recipe.compile:
        prepare.compile_trunk(run.model)
    for step in range(5):
        if step == 2:  # what compiling took is over
            _trim()
            Path("/proc/self/clear_refs").write_text("5")
        train_step(run, run.loader.next(0.5), optimizers)
    peak, estimate, model = _status("VmHWM"), run.cost.bytes, run.model
    run.model = run.owned = run.loader = None
    torch._dynamo.reset()
    del run, optimizers, average, model
    _trim()
    print(json.dumps({"estimate": estimate, "used": peak - _status("VmRSS")}))


def _trim() -> None:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status(key: str) -> int:
    """Bytes that the kernel tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def measured(settings: list[str]) -> dict[str, float]:
    """Estimate and growth, measured in a fresh process."""
    done = subprocess.run([sys.executable, __file__, "--measure", *settings], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", nargs="*", help="print the numbers of this process for these settings")
    parser.add_argument("--only", default="", help="only the runs whose name contains this")
    given = parser.parse_args()
    if given.measure is not None:
        measure(given.measure)
    else:
        print(f"{'':32} {'estimate':>10} {'used':>10}")
        for name, settings in RUNS.items():
            if given.only in name:
                found = measured(settings)
                share = found["estimate"] / found["used"]
                print(
                    f"{name:32} {found['estimate'] / 2**20:6.0f} MiB {found['used'] / 2**20:6.0f} MiB  {share:.2f}",
                    flush=True,
                )
