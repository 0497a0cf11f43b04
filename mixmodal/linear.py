"""Matrices that multiply hidden values, and how they do so while a model generates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixmodal.config import TrunkConfig

FEW = 32  # rows up to which a product waits for the numbers of the matrix, and not for the multiplications
LARGE = 1 << 18  # numbers from which a copy laid out for few rows repays what asking for it takes, some 40 us in fp32


class Lent:
    """Matrices of one input as generation multiplies them: as one, in another dtype, on a CPU laid out for few rows.

    A single row in fp32 reads the numbers fastest along the longer side; several rows of a large matrix read them out
    of a second copy, in the order of their use. In bf16 that copy is the fastest for any number of rows, and the only
    one.
    Limits:  what generates in fp32 on a CPU holds its matrices up to three times: as learned, as one, and laid out.
    """

    def __init__(self, linears: tuple[Linear, ...], dtype: torch.dtype) -> None:
        self.linears, self.dtype = linears, dtype
        self.sizes = [len(linear.weight) for linear in linears]
        here = linears[0].weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
        self.narrow = dtype == torch.bfloat16 and here and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        self.plain = here and dtype == torch.float32
        large = self.plain and sum(linear.weight.numel() for linear in linears) >= LARGE
        self.packs = range(2, FEW + 1) if large else range(0)

    @cached_property
    def matrix(self) -> Tensor:
        """All of them, one below the other."""
        return self._joined()

    def _joined(self) -> Tensor:
        merged = [linear.merged() for linear in self.linears]
        matrix = (torch.cat(merged) if len(merged) > 1 else merged[0]).to(self.dtype)
        tall = len(matrix) > matrix.shape[1]
        return matrix.t().contiguous().t() if tall and self.plain else matrix

    @cached_property
    def packed(self) -> Tensor:
        """The second copy."""
        matrix = self._joined() if self.narrow else self.matrix
        return torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), 16)

    def __call__(self, x: Tensor) -> Tensor:
        """The products, side by side."""
        if not self.narrow and x.numel() // x.shape[-1] not in self.packs:
            return F.linear(x, self.matrix)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "")


class Linear(nn.Module):
    """A matrix kept in fp32 and multiplied in the dtype of its input: bf16 work on fp32 masters, without autocast.

    With `config.adapter_rank`, a product of two narrow matrices is added to it: nothing at first, since one is zero.
    Shapes:  [..., fan_in] -> [..., fan_out].
    Source:  Hu et al. 2021 (arXiv:2106.09685), LoRA.
    """

    group = "matrices"

    def __init__(self, config: TrunkConfig, fan_in: int, fan_out: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in) * (scale * fan_in**-0.5))
        self.lent: Lent | None = None  # while the model generates
        self.narrow = self.widen = None
        if config.adapter_rank:
            self.share = config.adapter_scale
            self.narrow = nn.Parameter(torch.randn(config.adapter_rank, fan_in) * fan_in**-0.5)
            self.widen = nn.Parameter(torch.zeros(fan_out, config.adapter_rank))

    def forward(self, x: Tensor) -> Tensor:
        """The product."""
        if self.lent is not None and self.lent.dtype == x.dtype:  # a codec's own nets stay in fp32
            return self.lent(x)
        out = F.linear(x, self.weight.to(x.dtype))
        if self.narrow is None:
            return out
        return out + self.share * F.linear(F.linear(x, self.narrow.to(x.dtype)), self.widen.to(x.dtype))

    def merged(self) -> Tensor:
        """The one matrix that does what this one and its adapter do.

        Shapes:  -> [fan_out, fan_in].
        """
        weight = self.weight.detach()
        return weight if self.narrow is None else weight + self.share * (self.widen.detach() @ self.narrow.detach())


class Beside(nn.Module):
    """Matrices of other modules that multiply the same input; while the model generates they are one.

    Shapes:  [..., fan_in] -> [..., fan_out] of each.
    """

    def __init__(self, *linears: Linear) -> None:
        super().__init__()
        self.linears = linears  # a tuple: they stay parts of who made them, under their names there
        self.lent: Lent | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The products."""
        if self.lent is None or self.lent.dtype != x.dtype:
            return tuple(linear(x) for linear in self.linears)
        return self.lent(x).split(self.lent.sizes, -1)


@contextmanager
def narrowed(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within it every matrix is there in `dtype` too: to convert them in each pass takes as long as a short pass."""
    lent = {m: (m,) for m in model.modules() if isinstance(m, Linear)}
    lent |= {m: m.linears for m in model.modules() if isinstance(m, Beside)}
    try:
        for module, linears in lent.items():
            if not hasattr(linears[0].weight, "full_tensor"):  # not shards
                module.lent = Lent(linears, dtype)
        yield
    finally:
        for module in lent:
            module.lent = None
