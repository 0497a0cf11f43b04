"""What a run will cost, counted before it starts: parameters, FLOPs, memory; and what this machine can do."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from mixmodal.config import Recipe
from mixmodal.model import Model

TRITON_FROM = (7, 0)  # compute capability of the first GPU that Triton compiles for


@dataclass(frozen=True)
class Cost:
    """What one training step takes.

    Units:   `flops` of forward and backward pass, `settled` likewise once only what reads the hidden states learns,
             `bytes` of everything alive at the peak.
    """

    parameters: int
    positions: int
    flops: float
    bytes: float
    settled: float

    def lines(self, peak: float, steps: int, minutes: float = 0.0, settle: float = 1.0) -> list[str]:
        """What a person wants to know before starting; `minutes` > 0 if they decide how many steps there will be.

        Units:   `settle` is the share of the steps after which only what reads the hidden states learns.
        """
        settle = min(settle, 1.0)
        seconds = (settle * self.flops + (1 - settle) * self.settled) / (0.3 * peak)
        steps = int(minutes * 60 / seconds) if minutes else steps
        return [
            f"parameters      {self.parameters / 1e6:.2f} M",
            f"positions/step  {self.positions:,}",
            f"FLOPs/step      {self.flops / 1e9:.1f} G   (this machine multiplies at {peak / 1e9:.0f} GFLOP/s)",
            f"memory          about {self.bytes / 2**30 + 0.5:.1f} GiB",
            f"time            about {duration(seconds * steps)} for {steps:,} steps at 30 % of that speed",
        ]


def cost_of(model: Model, recipe: Recipe, memory: float = 0.0) -> Cost:
    """The cost of a training step of a recipe that takes so many bytes of memory, attention computed in full.

    Source:  Kaplan et al. 2020 (arXiv:2001.08361): 6 FLOPs per weight and position, forward and backward.
    """
    trunk = model.config.trunk
    named = dict(model.named_parameters())
    parameters = sum(p.numel() for p in named.values())
    matrices = sum(  # each position goes by one expert; what is frozen has no gradient of its own
        p.numel() / (trunk.experts if name.startswith("trunk.blocks.") else 1) * (1 if p.requires_grad else 2 / 3)
        for name, p in named.items()
        if p.ndim == 2 and name.startswith("trunk.")
    )
    positions, length = recipe.rows * recipe.length, recipe.length
    seen = length * trunk.heads * (trunk.head_size + trunk.value_size) * trunk.depth
    within = 6 * positions * (seen + matrices)
    ends = 3 * positions * 0.6 * _at_the_ends(model)
    flops = ends + within * (4 / 3 if recipe.recompute else 1)
    return Cost(parameters, positions, flops, memory, ends + within / 3)


@torch.no_grad()
def _at_the_ends(model: Model) -> float:
    """FLOPs of all streams outside the trunk, forward, for one position each, as they run on one."""
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter:
        for stream in model.streams.values():
            blank = stream.blank()
            for fields in (blank.embed, blank.predict):
                fields |= {name: field.to(device) for name, field in fields.items()}
            stream.objective.embed(stream.codec, blank.embed, torch.float32)
            if stream.role != "read":
                hidden_ND = torch.zeros(1, model.config.trunk.width, device=device)
                stream.objective.losses(stream.codec, stream.head, hidden_ND, blank.predict)
    return counter.get_total_flops()


def keep_freed_memory() -> bool:
    """True where this process now keeps what it frees: a step asks for the same large pieces as the step before it.

    Left alone, glibc gives each back and takes it anew, empty: a tenth of a step at width 256 went into page faults.
    """
    if sys.platform != "linux":
        return False
    trim, mapped = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(mapped, 0) and libc.mallopt(trim, 2**31 - 1))
    except (OSError, AttributeError):
        return False


def uncompiled(path: str, device: str) -> str:
    """Why the block cannot be compiled on this attention path and device; nothing where it can."""
    if path == "segments":
        return "every batch has segments of its own, and would be compiled anew"
    kind = device.partition(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        return ""  # one of elsewhere, whose costs are told
    why = lacks_compiler(kind)
    return f"{why}; training is slower without" if why else ""


def lacks_compiler(device: str = "cpu") -> str:
    """What is missing on this machine to compile for its processor, or for its GPU; nothing where it can."""
    if device == "cuda":
        if not torch.version.hip and torch.cuda.get_device_capability() < TRITON_FROM:
            return f"{torch.cuda.get_device_name()} is older than Triton compiles for"
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed (pip install triton)"
    wanted = ("cl",) if os.name == "nt" else ("gcc", "clang", "cc") if device == "cuda" else ("g++", "clang++")
    if not any(map(shutil.which, wanted)):
        return f"no {'C' if device == 'cuda' else 'C++'} compiler is on this machine ({' or '.join(wanted)})"
    if os.name != "nt" and not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's own headers are not on this machine (Debian's package python3-dev)"
    return ""


def measured_peak(dtype: torch.dtype, device: str = "cpu") -> float:
    """FLOPs a second of a large matrix product on this machine, the best of several."""
    size = 1024 if device == "cpu" else 8192  # a GPU would be done with a small one before it has begun
    a = torch.randn(size, size, device=device).to(dtype)
    best = 0.0
    for _ in range(6):
        begin = time.perf_counter()
        a @ a
        if device != "cpu":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - begin))
    return best


def fast_dtype(device: str = "cpu") -> torch.dtype:
    """bfloat16 where the machine multiplies it faster than fp32, else fp32."""
    if device != "cpu":
        emulated = device.startswith("cuda") and not torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.float32 if emulated else torch.bfloat16
    able = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if able and _has_bf16_unit() else torch.float32


def _has_bf16_unit() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf8") as file:
            told = file.read()
        return "avx512_bf16" in told or "amx_bf16" in told
    except OSError:
        return False


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
