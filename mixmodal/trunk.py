"""The transformer that every stream shares. It knows no medium; what differs arrives per position."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mixmodal.attention import Sight, attend
from mixmodal.cache import Cache
from mixmodal.config import TrunkConfig, unknown
from mixmodal.interpolant import waves
from mixmodal.linear import Beside, Linear
from mixmodal.rotary import rotary_tables, rotate

WAVES = 32  # sines and as many cosines tell the time


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


Asked = tuple[Tensor, Tensor, Tensor]  # queries, keys and values, each [B, L, H, E]


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

    def forward(self, x_BLD: Tensor, cos_BLE: Tensor, sin_BLE: Tensor) -> Asked:
        """What each position asks, and what it shows to others; `gather` gives what `o` then takes."""
        rows, length, _ = x_BLD.shape
        q, k, v = (of.view(rows, length, -1, self.head_size) for of in self.qkv(x_BLD))
        q, k = self.q_norm(q), self.k_norm(k)
        q = rotate(q if self.scale == 1 else q * self.scale, cos_BLE, sin_BLE)
        return q, rotate(k, cos_BLE, sin_BLE), v


def gather(asked: Asked, seen: Sight, cache: Cache | None, layer: int) -> Tensor:
    """What each position gathers from those it sees.

    Shapes:  -> [B, L, H * E].
    """
    q, k, v = (x_BLHE.transpose(1, 2) for x_BLHE in asked)
    if cache is not None:
        k, v = cache.extend(layer, k, v)
    return attend(q, k, v, seen).transpose(1, 2).flatten(2)


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
        asked, told = self.ask(x_BLD, seen.cos_BLE, seen.sin_BLE, modulation_BLD)
        return self.answer(x_BLD, gather(asked, seen, cache, layer), told)

    def ask(
        self, x_BLD: Tensor, cos_BLE: Tensor, sin_BLE: Tensor, modulation_BLD: Tensor | None
    ) -> tuple[Asked, list[Tensor]]:
        """What each position asks and shows, from itself alone; and what `answer` wants besides."""
        normed = self.attention_norm(x_BLD)
        if self.modulate is None:
            return self.attention(normed, cos_BLE, sin_BLE), []
        scale, shift, *told = self.modulate(modulation_BLD).chunk(6, -1)
        return self.attention(normed * (1 + scale) + shift, cos_BLE, sin_BLE), told

    def answer(self, x_BLD: Tensor, gathered_BLD: Tensor, told: list[Tensor]) -> Tensor:
        """The residual stream after this block, each position from itself and what it gathered."""
        if not told:
            x_BLD = x_BLD + self.attention.o(gathered_BLD)
            return x_BLD + self.mlp(self.mlp_norm(x_BLD))
        gate, scale, shift, gate_mlp = told
        x_BLD = x_BLD + (1 + gate) * self.attention.o(gathered_BLD)
        return x_BLD + (1 + gate_mlp) * self.mlp(self.mlp_norm(x_BLD) * (1 + scale) + shift)


class GatedBlock(nn.Module):
    """Attention and MLP in one: what one head gathers, as wide as an MLP, passes the gate of the position that asked.

    Queries and keys are one narrow vector, scaled and shifted in two ways.
    Source:  Hua et al. 2022 (arXiv:2202.10447), the gated attention unit, its quadratic form.
    Differs: softmax, as Su has it, where the paper squares; that vector is normed where `qk_norm` says so.
    Raises:  ValueError for more heads than one.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        if (config.heads, config.kv_heads) != (1, 1):
            raise ValueError(f"a gau block has one head, got {config.heads} and {config.kv_heads}: set both to 1")
        self.norm = RMSNorm(config.width, config.norm_eps, config.norm_gain)
        self.shared = Linear(config, config.width, config.head_size)
        self.gate = Linear(config, config.width, config.mlp_width)
        self.v = Linear(config, config.width, config.mlp_width)
        self.into = Beside(self.shared, self.gate, self.v)
        self.o = Linear(config, config.mlp_width, config.width, scale=0.0)
        self.shared_norm = RMSNorm(config.head_size, config.norm_eps, False) if config.qk_norm else nn.Identity()
        self.scale, self.qk_scale = nn.Parameter(torch.randn(2, config.head_size)), config.qk_scale
        self.shift = nn.Parameter(torch.zeros(2, config.head_size))
        self.modulate = Linear(config, config.width, 3 * config.width, scale=0.0) if config.adaptive else None

    forward = Block.forward

    def ask(
        self, x_BLD: Tensor, cos_BLE: Tensor, sin_BLE: Tensor, modulation_BLD: Tensor | None
    ) -> tuple[Asked, list[Tensor]]:
        """What each position asks and shows, from itself alone; and what `answer` wants besides."""
        normed, told = self.norm(x_BLD), []
        if self.modulate is not None:
            scale, shift, *told = self.modulate(modulation_BLD).chunk(3, -1)
            normed = normed * (1 + scale) + shift
        shared, gate, v = map(F.silu, self.into(normed))
        shared, v = self.shared_norm(shared)[..., None, :], v[..., None, :]
        q, k = (shared * s + b for s, b in zip(self.scale.to(shared.dtype), self.shift.to(shared.dtype), strict=True))
        asked = rotate(q * self.qk_scale, cos_BLE, sin_BLE), rotate(k, cos_BLE, sin_BLE), v
        return asked, [gate, *told]

    def answer(self, x_BLD: Tensor, gathered_BLD: Tensor, told: list[Tensor]) -> Tensor:
        """The residual stream after this block, each position from itself and what it gathered."""
        passed, *gate = told
        update = self.o(passed * gathered_BLD)
        return x_BLD + (update if not gate else (1 + gate[0]) * update)


BLOCKS = {"qwen3": Block, "gau": GatedBlock}


class Experts(nn.Module):
    """Blocks side by side, each with the positions of its own route; all positions attend to each other.

    Source:  Liang et al. 2024 (arXiv:2411.04996), mixture of transformers.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.experts = nn.ModuleList(BLOCKS[config.block](config) for _ in range(config.experts))

    def forward(
        self, x_BLD: Tensor, seen: Sight, modulation_BLD: Tensor | None, cache: Cache | None, layer: int
    ) -> Tensor:
        """The residual stream after this layer; 0 where no route leads."""
        rows, length, _ = x_BLD.shape
        there = [(expert, at_N) for expert, at_N in zip(self.experts, seen.routes, strict=True) if len(at_N)]
        to_N = torch.cat([at_N for _, at_N in there])

        def split(x: Tensor | None) -> list[Tensor | None]:
            if x is None:
                return [None] * len(there)
            return [x.flatten(0, 1)[at_N.clamp(max=rows * length - 1)][None] for _, at_N in there]

        def join(parts: tuple[Tensor, ...]) -> Tensor:
            held = parts[0].new_zeros(rows * length + 1, *parts[0].shape[2:])
            return held.index_copy(0, to_N, torch.cat(parts, 1)[0])[:-1].unflatten(0, (rows, length))

        own = split(x_BLD)
        given = zip(own, *map(split, (seen.cos_BLE, seen.sin_BLE, modulation_BLD)), strict=True)
        asked, told = zip(*(expert.ask(*some) for (expert, _), some in zip(there, given, strict=True)), strict=True)
        gathered = split(gather(tuple(map(join, zip(*asked, strict=True))), seen, cache, layer))
        found = zip(there, own, gathered, told, strict=True)
        return join(tuple(expert.answer(*some) for (expert, _), *some in found))


def all_see_all(rows: int, columns: int, config: TrunkConfig, device: torch.device) -> Sight:
    """What blocks need of pictures, each place of which sees its whole picture: rows and columns are coordinates."""
    along = [torch.arange(side, device=device) for side in (1, rows, columns)]
    cos, sin = rotary_tables(torch.cartesian_prod(*along)[None], config.head_size, config.rope_theta)
    return Sight(cos, sin, plain=device.type == "cpu")


def run_block(block: nn.Module, x_BLD: Tensor, seen: Sight, modulation_BLD: Tensor | None) -> Tensor:
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
    Differs: a skip adds what its block was given, by a matrix that begins at zero; the paper joins and projects.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        self.run_block = run_block  # the trainer puts a compiled one here
        self.recompute = False  # in the backward pass: a third more work, for the memory of one block at a time
        if config.block not in BLOCKS:
            raise ValueError(unknown(f"block {config.block!r}", config.block, BLOCKS))
        layer = Experts if config.experts > 1 else BLOCKS[config.block]
        self.blocks = nn.ModuleList(layer(config) for _ in range(config.depth))
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
