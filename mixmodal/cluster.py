"""What a run would take on a number of GPUs: memory of each, seconds a step, and how much goes between them.

Units:   bytes, seconds, FLOPs; one step of training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mixmodal.compute import cost_of, duration
from mixmodal.config import Recipe, unknown
from mixmodal.memory import fleeting_of
from mixmodal.model import Model
from mixmodal.sequence import Batch

FP32 = 4
TO_SPARE = 1.5 * 2**30  # what CUDA, its libraries and fragments take of a GPU
ROOMY = 0.9  # more of the memory than this is not planned to be filled


@dataclass(frozen=True)
class Machine:
    """One device: dense bf16 `peak`, `memory`, bytes a second to another in its node, and to other nodes.

    `share` of the peak is what a step reaches: an assumption, until it is measured.
    """

    peak: float
    memory: float
    inside: float
    outside: float = 50e9  # a 400 Gb/s card for each
    share: float = 0.3
    in_node: int = 8


# Source:  the makers' data sheets: dense bf16 with fp32 sums, one direction of NVLink, or PCIe 4.0 at what it reaches.
MACHINES = {
    "b200": Machine(2.25e15, 180e9, 900e9),
    "h200": Machine(989e12, 141e9, 450e9),
    "h100": Machine(989e12, 80e9, 450e9),
    "a100": Machine(312e12, 80e9, 300e9, 25e9),
    "l40s": Machine(362e12, 48e9, 24e9, 12e9),
    "4090": Machine(165e12, 24e9, 20e9, 3e9),
}


@dataclass(frozen=True)
class Job:
    """What a step has to do, whatever does it.

    `blocks` are the parameters that are gathered block by block where the model is sharded, `size` the bytes of each
    of their values on the way; `turning` are the FLOPs of Muon; `moving` the bytes that scale with rows.
    """

    parameters: int
    learning: int
    blocks: int
    depth: int
    size: int
    states: int
    average: bool
    flops: float
    turning: float
    moving: float
    rows: int
    positions: int


@dataclass(frozen=True)
class Estimate:
    """What a step takes on each of `count` devices."""

    count: int
    shard: bool
    memory: float
    sent: float
    computing: float
    sending: float
    moving: float

    @property
    def seconds(self) -> float:
        """The whole step; of a sharded model, blocks travel while others compute."""
        together = max(self.computing, self.sending) if self.shard else self.computing + self.sending
        return together + self.moving


def job_of(model: Model, recipe: Recipe, batches: list[Batch], dtype: torch.dtype = torch.bfloat16) -> Job:
    """What a step of a run on batches like these has to do, its matrix products in `dtype`."""
    cost = cost_of(model, recipe)
    size = torch.finfo(dtype).bits // 8
    parameters = list(model.parameters())
    groups, muon = model.groups(), recipe.optim.matrices == "muon"
    turned = [p for name in ("matrices", "filters") for _, p in groups[name]] if muon else []
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    whole = sum(p.numel() for p in parameters)
    average = recipe.optim.average > 0
    settle = min(1.0, recipe.optim.settle)
    return Job(
        parameters=whole,
        learning=learning,
        blocks=sum(p.numel() for p in model.trunk.blocks.parameters()),
        depth=len(model.trunk.blocks),
        size=size,
        states=2 * learning - sum(p.numel() for p in turned),
        average=average,
        flops=settle * cost.flops + (1 - settle) * cost.settled,
        turning=sum(_turning(*p.shape) for p in turned) * recipe.optim.newton_schulz,
        moving=max(0.0, fleeting_of(model, recipe, dtype, batches, "cuda") - FP32 * learning),
        rows=recipe.rows,
        positions=cost.positions,
    )


def _turning(rows: int, columns: int) -> float:
    """FLOPs of one step of Newton and Schulz: X X', its square, and that times X."""
    short, long = sorted((rows, columns))
    return 4 * short**2 * long + 2 * short**3


def estimate(job: Job, machine: Machine, count: int, shard: bool) -> Estimate:
    """What a step takes on `count` of a machine, each with its share of the rows.

    Limits:  even shares; nothing else sends; data is ready in time.
    """
    others = (count - 1) / count
    kept = FP32 * (job.states + job.parameters * job.average) / count  # by the owners
    rows = math.ceil(job.rows / count) / job.rows
    if shard:
        ends = job.parameters - job.blocks
        # Parts of weights and gradients, the owners' own; whole are the ends, and two blocks.
        held = FP32 * 2 * (job.parameters + job.learning) / count
        held += FP32 * 2 * ends + 2 * job.size * job.blocks / max(1, job.depth)
        gathered = others * (2 * job.size * job.blocks + FP32 * ends)
        overlapped = gathered + others * FP32 * job.learning
        sent = overlapped + others * FP32 * 2 * job.learning / count
    else:
        held = FP32 * (job.parameters + job.learning)
        held += FP32 * 3 * job.learning if count > 1 else 0  # what is packed to be sent
        overlapped = sent = others * FP32 * 2 * job.learning  # gradients, and the weights that they moved
    speed = machine.inside if count <= machine.in_node else machine.outside
    moving = job.turning / count / (machine.share * machine.peak) + (sent - overlapped) / speed
    return Estimate(
        count,
        shard,
        held + kept + job.moving * rows,
        sent,
        job.flops * rows / (machine.share * machine.peak),
        overlapped / speed,
        moving,
    )


def lines(job: Job, name: str, count: int, steps: int, shard: bool | None = None, minutes: float = 0.0) -> list[str]:
    """What a person wants to know before renting `count` GPUs.

    `shard` is chosen by the memory unless given; False where the model cannot be divided.
    Units:  `minutes` > 0 if they decide how many steps there will be.
    Raises:  ValueError for an unknown GPU, or fewer rows than GPUs.
    """
    if name not in MACHINES:
        raise ValueError(unknown(f"GPU {name!r}", name, MACHINES))
    if job.rows < count:
        raise ValueError(f"{job.rows} rows are fewer than {count} GPUs: --set rows={count} or a multiple of it")
    machine = MACHINES[name]
    room = ROOMY * machine.memory - TO_SPARE
    plain = estimate(job, machine, count, False)
    divided = estimate(job, machine, count, True)
    refused = shard is False
    if shard is None:
        shard = count > 1 and plain.memory > room
    chosen, one = divided if shard else plain, estimate(job, machine, 1, False)
    steps = int(minutes * 60 / chosen.seconds) if minutes else steps
    way = "sharded (--shard)" if shard else "a whole model on each"
    out = [
        f"on {count} x {name:14} {way}; assumed: {machine.share:.0%} of {machine.peak / 1e12:,.0f} TFLOP/s, "
        f"{(machine.inside if count <= machine.in_node else machine.outside) / 1e9:.0f} GB/s to each other",
        f"memory of each      {(chosen.memory + TO_SPARE) / 2**30:.1f} of {machine.memory / 2**30:.0f} GiB",
        f"a step              {_short(chosen.seconds)}: computing {_short(chosen.computing)}, sending"
        f" {chosen.sent / 1e9:.2f} GB from each in {_short(chosen.sending)}, moving weights {_short(chosen.moving)}",
        f"throughput          {job.positions / chosen.seconds:,.0f} tokens/s,"
        f" {one.seconds / chosen.seconds / count:.0%} of {count} times one",
        f"time                about {duration(chosen.seconds * steps)} for {steps:,} steps",
    ]
    if chosen.memory > room:
        shards = "" if shard or refused else ", --shard"
        out.append(f"it does not fit: take more GPUs{shards}, or a smaller rows x length")
    elif not shard and not refused and divided.memory < room and divided.seconds < 0.8 * plain.seconds:
        out.append(f"--shard sends while it computes: {_short(divided.seconds)} a step")
    if chosen.seconds < 0.02:
        out.append("so short a step is spent on launching kernels and loading data, which is not counted here")
    if job.rows % count:
        out.append(f"{job.rows} rows are no multiple of {count}: some GPUs wait for others; --set rows=...")
    return out


def _short(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
