"""Many processes as one: which of them this is, what they tell each other, how they are started.

A step on any number of ranks is the step of one process over all rows: the loader plans one batch for all, losses are
added up over the ranks before they are divided, and `owned.py` tells which rank moves which parameter.
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from mixmodal.board import LOST, PATIENCE, WORD, Board, Room
from mixmodal.trunk import Trunk, run_block

GONE = ("closed by peer", "reset by peer", "Timed out", "Broken pipe")  # what gloo says of a rank that is gone
MEMORY = "/dev/shm"  # a folder in memory, on Linux


@dataclass(frozen=True)
class Ranks:
    """The processes that train together, as one of them sees them; alone, nothing is sent.

    `shard` says that no rank holds the whole model, but its part of every parameter; `room` is where ranks of one
    machine meet, where they do.
    """

    rank: int = 0
    count: int = 1
    device: str = ""
    shard: bool = False
    room: Room | None = None

    @property
    def first(self) -> bool:
        """Whether this rank writes what a run leaves."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over all ranks, the same bits on each."""
        if self.room and values.nbytes <= WORD:
            first, *others = self.room.heard(values)
            values.copy_(sum(others, first))
        elif self.count > 1:
            dist.all_reduce(values)
        return values

    def told(self, numbers: list[int]) -> list[list[int]]:
        """What each rank tells, as many numbers from each."""
        if self.count == 1:
            return [numbers]
        if self.room and 8 * len(numbers) <= WORD:
            return [each.tolist() for each in self.room.heard(torch.tensor(numbers, dtype=torch.int64))]
        out = [torch.empty(len(numbers), dtype=torch.int64) for _ in range(self.count)]
        dist.all_gather(out, torch.tensor(numbers, dtype=torch.int64))
        return [each.tolist() for each in out]

    def texts(self, text: str) -> list[str]:
        """What each rank says."""
        said = text.encode()
        sizes = [size for (size,) in self.told([len(said)])]
        padded = self.told(list(said.ljust(max(sizes))))
        return [bytes(each[:size]).decode() for each, size in zip(padded, sizes, strict=True)]

    def all(self, here: bool) -> bool:
        """Whether it is so on every rank; none goes on before each has told."""
        return all(there for (there,) in self.told([int(here)]))

    def same(self, text: str) -> None:
        """Nothing, if every rank says the same.

        Raises:  ValueError if not.
        """
        if len(set(self.texts(hashlib.sha256(text.encode()).hexdigest()))) > 1:
            raise ValueError(
                "the ranks are about to train different runs: give every machine the same version, the same data and"
                " the same folder for the run"
            )

    def board(self, size: int) -> Board | None:
        """Memory of `size` bytes of each rank that all of them see, None where there is none."""
        return self.room.board(size, self.all, self.texts) if self.room else None

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """Within it, an OSError on one rank is one on all: none waits for one that has given up."""
        error = None
        try:
            yield
        except OSError as found:
            error = found
        codes = [code for (code,) in self.told([(error.errno or errno.EIO) if error else 0]) if code]
        if error:
            raise error
        if codes:
            raise OSError(codes[0], f"{os.strerror(codes[0])} (on another rank)")

    def rows(self, rows: int) -> range:
        """Which of the rows of a batch are this rank's.

        Raises:  ValueError where there are fewer rows than ranks.
        """
        if rows < self.count:
            raise ValueError(f"{rows} rows are fewer than {self.count} ranks: set rows to a multiple of {self.count}")
        return range(rows * self.rank // self.count, rows * (self.rank + 1) // self.count)


ALONE = Ranks()


def shard(
    model: nn.Module, blocks: nn.ModuleList, ranks: Ranks, dtype: torch.dtype, kept: Iterable[nn.Parameter] = ()
) -> None:
    """Divide every parameter of the model among the ranks; of the blocks, one at a time is whole.

    In bf16 the matrices of the blocks travel in it; gradients are added up in fp32. What is `kept` stays whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(ranks.device.partition(":")[0], (ranks.count,))
    halved = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    divided = [fully_shard(block, mesh=mesh, mp_policy=halved) for block in blocks]
    divided.append(fully_shard(model, mesh=mesh, ignored_params=set(kept)))
    for module in divided:  # losses are divided by counts over all ranks: gradients are added up, not averaged
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


def memory(device: str) -> float:
    """The bytes of a GPU, no end of them elsewhere."""
    return torch.cuda.get_device_properties(device).total_memory if device.startswith("cuda") else float("inf")


def compile_blocks(trunk: Trunk) -> None:
    """Compile what each block of a sharded model does, and leave out how it comes by its weights."""
    trunk.run_block = run_block
    for block in trunk.blocks:
        block.forward = _in_training(torch.compile(block.forward, dynamic=False), block.forward)


def _in_training(compiled: Callable[..., Tensor], plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(x_BLD: Tensor, seen: Any, modulation_BLD: Tensor | None, cache: Any, layer: int) -> Tensor:
        run = compiled if torch.is_grad_enabled() and cache is None else plain
        return run(x_BLD, seen, modulation_BLD, cache, layer)

    return forward


@contextmanager
def joined(sharded: bool = False, room: Room | None = None) -> Iterator[Ranks]:
    """The ranks of which torchrun made this process one, alone where it did not.

    `room` stands for torchrun's environment: all ranks are on this machine.
    Raises:  ValueError where there are more ranks than devices on a machine, ConnectionError if another rank is lost.
    """
    count = room.count if room else int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        if sharded:
            raise ValueError("--shard divides a model among processes, and this is one: add --processes N, or torchrun")
        yield ALONE
        return
    device, backend = "cpu", "gloo"
    if torch.cuda.is_available():
        local = room.rank if room else int(os.environ["LOCAL_RANK"])
        if local >= (there := torch.cuda.device_count()):
            raise ValueError(f"rank {local} of this machine has no GPU, there are {there}: start {there} processes")
        torch.cuda.set_device(local)
        device, backend = f"cuda:{local}", "cpu:gloo,cuda:nccl"
    where = {}
    if room:
        where = {"init_method": Path(room.home, "meeting").as_uri(), "rank": room.rank, "world_size": count}
    dist.init_process_group(backend, timeout=datetime.timedelta(seconds=PATIENCE), **where)
    try:
        ranks = Ranks(dist.get_rank(), count, device, sharded)
        if room and device == "cpu":
            ranks = replace(ranks, room=room.open(ranks.all, ranks.texts))
        yield ranks
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in GONE):
            raise
        raise ConnectionError(LOST) from error
    finally:
        dist.destroy_process_group()


def together(count: int, work: Callable[..., Any], *given: Any, sharded: bool = False) -> Any:
    """What `work(ranks, *given)` gives here, while count - 1 other processes of this machine do it too as other ranks.

    Limits:  `work` and what it is given can be pickled; the cores are shared out.
    """
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo") if sys.platform == "linux" else None
    context, before = multiprocessing.get_context("spawn"), torch.get_num_threads()
    threads = max(1, before // count)
    bells = [[context.Semaphore(0) for _ in range(count)] for _ in range(count)]
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as home:
        others = [
            context.Process(target=_other, args=(home, rank, bells, threads, sharded, work, given), daemon=True)
            for rank in range(1, count)
        ]
        for other in others:
            other.start()
        torch.set_num_threads(threads)
        try:
            with joined(sharded, Room(home, 0, bells, lambda: not all(o.is_alive() for o in others))) as ranks:
                return work(ranks, *given)
        finally:
            torch.set_num_threads(before)
            for other in others:
                other.join(10)  # they end with this one, unless something broke
                other.kill()


def _other(
    home: str, rank: int, bells: list[list[Any]], threads: int, sharded: bool, work: Callable[..., Any], given: tuple
) -> None:
    """One of the other processes: what it says is said by the first one, but for its errors.

    What is not expected ends it with its traceback and a status of 1, as multiprocessing does.
    """
    torch.set_num_threads(threads)
    try:
        with joined(sharded, Room(home, rank, bells, lambda: not multiprocessing.parent_process().is_alive())) as ranks:
            work(ranks, *given)
    except KeyboardInterrupt:
        pass
    except (ValueError, OSError) as error:
        print(f"rank {rank}: {error}", file=sys.stderr)
        sys.exit(1)
