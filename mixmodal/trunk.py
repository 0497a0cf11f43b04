"""The transformer that every stream shares. It knows no medium; what differs arrives per position."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mixmodal.attention import Sight, attend
from mixmodal.cache import Cache
from mixmodal.config import TrunkConfig
from mixmodal.interpolant import waves
from mixmodal.rotary import rotate

WAVES = 32  # sines and as many cosines tell the time
FEW = 32  # rows up to which a product waits for the numbers of the matrix, and not for the multiplications


class Lent:
    """Matrices of one input as generation multiplies them: as one, in another dtype, on a CPU laid out for few rows.

    A single row in fp32 reads the numbers fastest along the longer side; several rows, and all in bf16, read them out
    of a second copy, in the order of their use.
    """

    def __init__(self, linears: tuple[Linear, ...], dtype: torch.dtype) -> None:
        self.linears, self.dtype = linears, dtype
        self.sizes = [len(linear.weight) for linear in linears]
        here = linears[0].weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
        narrow = dtype == torch.bfloat16 and here and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        self.packs = range(1 if narrow else 2, FEW + 1) if here and dtype == torch.float32 or narrow else range(0)

    @cached_property
    def matrix(self) -> Tensor:
        """All of them, one below the other."""
        merged = [linear.merged() for linear in self.linears]
        matrix = (torch.cat(merged) if len(merged) > 1 else merged[0]).to(self.dtype)
        tall = len(matrix) > matrix.shape[1]
        return matrix.t().contiguous().t() if tall and self.packs and 1 not in self.packs else matrix

    @cached_property
    def packed(self) -> Tensor:
        """The second copy."""
        return torch.ops.mkldnn._reorder_linear_weight(self.matrix.contiguous(), 16)

    def __call__(self, x: Tensor) -> Tensor:
        """The products, side by side."""
        if x.numel() // x.shape[-1] not in self.packs:
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
        if self.lent is not None:
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
        if self.lent is None:
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


class RMSNorm(nn.Module):
    """Division by the root mean square over the last axis, with a learned gain or none.

    Source:  Zhang & Sennrich 2019 (arXiv:1910.07467).
    """

    def __init__(self, width: int, eps: float, gain: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(width)) if gain else None

    def forward(self, x: Tensor) -> Tensor:
        """The normed values in the dtype of `x`, computed in fp32."""
        return F.rms_norm(x.float(), x.shape[-1:], self.gain, self.eps).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention with norms on queries and keys, as in Qwen3."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_size = config.heads, config.kv_heads, config.head_size
        self.scale = config.qk_scale
        self.q = Linear(config, config.width, config.heads * config.head_size)
        self.k = Linear(config, config.width, config.kv_heads * config.head_size)
        self.v = Linear(config, config.width, config.kv_heads * config.head_size)
        self.o = Linear(config, config.heads * config.head_size, config.width, scale=0.0)
        self.qkv = Beside(self.q, self.k, self.v)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_size, config.norm_eps, config.norm_gain)
            self.k_norm = RMSNorm(config.head_size, config.norm_eps, config.norm_gain)
        else:
            self.q_norm = self.k_norm = nn.Identity()

    def forward(self, x_BLD: Tensor, seen: Sight, cache: Cache | None, layer: int) -> Tensor:
        """What each position gathers from those it sees."""
        rows, length, _ = x_BLD.shape
        q, k, v = (of.view(rows, length, -1, self.head_size) for of in self.qkv(x_BLD))
        q, k = self.q_norm(q), self.k_norm(k)
        q = rotate(q if self.scale == 1 else q * self.scale, seen.cos_BLE, seen.sin_BLE).transpose(1, 2)
        k = rotate(k, seen.cos_BLE, seen.sin_BLE).transpose(1, 2)
        v = v.transpose(1, 2)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        out = attend(q.to(k.dtype), k, v, seen).to(q.dtype)
        return self.o(out.transpose(1, 2).reshape(rows, length, -1))


class MLP(nn.Module):
    """SwiGLU (Qwen3's), or squared ReLU with one matrix less.

    Source:  Shazeer 2020 (arXiv:2002.05202); So et al. 2021 (arXiv:2109.08668).
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        if config.mlp not in ("swiglu", "relu2"):
            raise ValueError(f"mlp is {config.mlp!r}: take swiglu or relu2")
        self.gate = Linear(config, config.width, config.mlp_width) if config.mlp == "swiglu" else None
        self.up = Linear(config, config.width, config.mlp_width)
        self.down = Linear(config, config.mlp_width, config.width, scale=0.0)
        self.both = Beside(self.gate, self.up) if self.gate is not None else None

    def forward(self, x_BLD: Tensor) -> Tensor:
        """The update of each position from itself."""
        if self.gate is None:
            inner = self.up(x_BLD).relu()
            return self.down(inner * inner)  # the gradient of a square takes half as long again
        gate, up = self.both(x_BLD)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """Attention, then MLP, each on a normed copy and added back.

    An adaptive one is scaled, shifted and gated by `modulation_BLD`, a condition of each position; 0 changes nothing.
    Source:  Peebles & Xie 2022 (arXiv:2212.09748), adaLN-zero, with gates that begin at 1.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps, config.norm_gain)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.width, config.norm_eps, config.norm_gain)
        self.mlp = MLP(config)
        self.modulate = Linear(config, config.width, 6 * config.width, scale=0.0) if config.adaptive else None

    def forward(
        self, x_BLD: Tensor, seen: Sight, modulation_BLD: Tensor | None, cache: Cache | None, layer: int
    ) -> Tensor:
        """The residual stream after this block."""
        if self.modulate is None:
            x_BLD = x_BLD + self.attention(self.attention_norm(x_BLD), seen, cache, layer)
            return x_BLD + self.mlp(self.mlp_norm(x_BLD))
        scale, shift, gate, scale_mlp, shift_mlp, gate_mlp = self.modulate(modulation_BLD).chunk(6, -1)
        attended = self.attention_norm(x_BLD) * (1 + scale) + shift
        x_BLD = x_BLD + (1 + gate) * self.attention(attended, seen, cache, layer)
        return x_BLD + (1 + gate_mlp) * self.mlp(self.mlp_norm(x_BLD) * (1 + scale_mlp) + shift_mlp)


def run_block(block: Block, x_BLD: Tensor, seen: Sight, modulation_BLD: Tensor | None) -> Tensor:
    """The block without a cache: what is compiled, once for all layers."""
    return block(x_BLD, seen, modulation_BLD, None, 0)


class Clock(nn.Module):
    """The time of a position as a vector; 0 where nothing is noisy."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into = nn.Parameter(torch.randn(width, 2 * WAVES) * (2 * WAVES) ** -0.5)

    def forward(self, time_BL: Tensor) -> Tensor:
        """Sines and cosines of the time through a matrix, bent.

        Shapes:  [B, L] -> [B, L, D].
        """
        return F.silu(F.linear(waves(time_BL, WAVES), self.into)) * (time_BL < 1)[..., None]


class Trunk(nn.Module):
    """Blocks and a last norm; with `long_skips`, block i from the end also reads what block i was given.

    Source:  Yang et al. 2025 (arXiv:2505.09388), the Qwen3 block; Bao et al. 2022 (arXiv:2209.12152), long skips.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        self.run_block = run_block  # the trainer puts a compiled one here
        self.recompute = False  # in the backward pass: a third more work, for the memory of one block at a time
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width, config.norm_eps, config.norm_gain)
        skips = config.depth // 2 if config.long_skips else 0
        self.clock = Clock(config.width) if config.adaptive else None
        self.skips = nn.ModuleList(Linear(config, config.width, config.width, scale=0.0) for _ in range(skips))
        if config.frozen or config.adapter_rank:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(name.endswith((".narrow", ".widen")))

    def forward(
        self, x_BLD: Tensor, seen: Sight, modulation_BLD: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Hidden states, normed.

        Shapes:  [B, L, D] -> [B, L, D].
        """
        kept = []
        for layer, block in enumerate(self.blocks):
            if layer < len(self.skips):
                kept.append(x_BLD)
            elif layer >= len(self.blocks) - len(self.skips):
                early = kept.pop()
                x_BLD = x_BLD + self.skips[len(kept)](early)
            if cache is not None:
                x_BLD = block(x_BLD, seen, modulation_BLD, cache, layer)
            elif self.recompute and torch.is_grad_enabled():
                x_BLD = checkpoint(self.run_block, block, x_BLD, seen, modulation_BLD, use_reentrant=False)
            else:
                x_BLD = self.run_block(block, x_BLD, seen, modulation_BLD)
        return self.norm(x_BLD)
