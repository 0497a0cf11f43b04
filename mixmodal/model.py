"""The model: one trunk, and for each stream a codec, an objective and perhaps a head. It knows none of them by name."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mixmodal import config as values
from mixmodal.attention import sight
from mixmodal.cache import Cache
from mixmodal.config import ModelConfig, StreamConfig
from mixmodal.kinds import kind_of
from mixmodal.layout import lay_out
from mixmodal.parts import Document
from mixmodal.rotary import rotary_tables
from mixmodal.sequence import Batch, Sequence, Slots
from mixmodal.trunk import Trunk


class Stream(nn.Module):
    """One cell of the table of designs: a codec, an objective, and a head where values are drawn one by one."""

    def __init__(self, name: str, config: StreamConfig, width: int) -> None:
        super().__init__()
        self.name, self.medium, self.role, self.weight = name, config.medium, config.role, config.weight
        if config.role not in ("read", "write", "both"):
            raise ValueError(f"streams.{name}.role is {config.role!r}: take read, write or both")
        codec, objective = kind_of("codecs", config.codec), kind_of("objectives", config.objective)
        where = f"streams.{name}"
        self.codec = codec.build(values.options(codec.Config, config.codec, f"{where}.codec"), width)
        self.objective = objective.build(
            values.options(objective.Config, config.objective, f"{where}.objective"), width
        )
        apart = config.role != "read" and not getattr(self.objective, "whole", False)
        if apart and getattr(self.codec, "mixes", False):
            raise ValueError(
                f"{where}: what enters at a position tells of its neighbours ({where}.codec.ends), which"
                f" {config.objective['kind']} is to predict: set ends=0"
            )
        self.head = None
        if config.head is None and getattr(self.objective, "asks_head", False) and config.role != "read":
            raise ValueError(f"{where}.head is missing: {config.objective['kind']} draws position by position from one")
        if config.head is not None:
            head = kind_of("heads", config.head)
            self.head = head.build(values.options(head.Config, config.head, f"{where}.head"), width, self.codec)

    def losses(self, hidden_ND: Tensor, slots: Slots, settled: bool = False) -> dict[str, tuple[Tensor, Tensor]]:
        """Sum and count of each loss, from the hidden states of all positions; none of a stream that only reads."""
        if self.role == "read":
            return {}
        losses = getattr(self.objective, "settled_losses", None) if settled else None
        losses = losses or self.objective.losses
        return losses(self.codec, self.head, hidden_ND[slots.predict_at], slots.predict)

    def blank(self) -> Slots:
        """One empty slot of each kind, so that the stream runs in batches that do not use it."""
        return Slots(
            torch.zeros(0), self.objective.blank(self.codec), torch.zeros(0), self.objective.blank_predict(self.codec)
        )


class Model(nn.Module):
    """Documents in, losses or hidden states out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.speaker not in config.streams:
            raise ValueError(values.unknown(f"speaker {config.speaker!r}", config.speaker, config.streams))
        self.config = config
        self.trunk = Trunk(config.trunk)
        self.streams = nn.ModuleDict(
            {name: Stream(name, stream, config.trunk.width) for name, stream in config.streams.items()}
        )
        for name, stream in config.streams.items():
            if not 0 <= (stream.expert or 0) < config.trunk.experts:
                told = f"streams.{name}.expert is {stream.expert}: want 0 to {config.trunk.experts - 1}"
                raise ValueError(told + f", or set trunk.experts={stream.expert + 1}" * (stream.expert > 0))
        for name, stream in self.streams.items():
            if stream.role != "read" and getattr(stream.objective, "clockless", False) and not config.trunk.adaptive:
                raise ValueError(
                    f"{name} is told the time by the trunk, which is not adaptive: set trunk.adaptive=true, or its"
                    " objective.time=add"
                )
        joint = [s.head for s in self.streams.values() if getattr(s.head, "joint", False)]
        for head in joint:  # one softmax over what all of them may say
            head.beside = [other for other in joint if other is not head]

    @property
    def speaker(self) -> Stream:
        """The stream whose tokens announce the parts of the others."""
        return self.streams[self.config.speaker]

    def reader(self, medium: str) -> Stream:
        """The stream that embeds given parts of `medium`."""
        return self._stream(medium, "read")

    def writer(self, medium: str) -> Stream:
        """The stream that makes wanted parts of `medium`."""
        return self._stream(medium, "write")

    def _stream(self, medium: str, role: str) -> Stream:
        for stream in self.streams.values():
            if stream.medium == medium and stream.role in (role, "both"):
                return stream
        have = ", ".join(f"{s.medium} ({s.role})" for s in self.streams.values())
        raise ValueError(f"this model cannot {role} {medium!r}: it has {have}")

    def lay_out(
        self,
        document: Document,
        rng: np.random.Generator,
        progress: float = 0.0,
        times: tuple[float, ...] | None = None,
    ) -> Sequence:
        """The positions of a document in training."""
        return lay_out(self, document, rng, progress, times)

    def blank(self) -> dict[str, Slots]:
        """One empty slot for every stream."""
        return {name: stream.blank() for name, stream in self.streams.items()}

    def embed(self, batch: Batch, dtype: torch.dtype = torch.float32) -> Tensor:
        """What enters the trunk, in fp32; convolutions of a codec run in `dtype`.

        Shapes:  -> [B, L, D].
        """
        rows, length = batch.shape
        width = self.config.trunk.width
        x_ND = torch.zeros(rows * length + 1, width, device=batch.coords_BL3.device)
        for name, slots in batch.slots.items():
            stream = self.streams[name]
            x_ND = x_ND.index_copy(0, slots.embed_at, stream.objective.embed(stream.codec, slots.embed, dtype))
        return x_ND[:-1].view(rows, length, width)

    def forward(
        self,
        batch: Batch,
        path: str = "plain",
        dtype: torch.dtype = torch.float32,
        cache: Cache | None = None,
        slots: list[int] | None = None,
    ) -> Tensor:
        """Hidden states of a batch; with a cache, row i continues the sequence in slots[i].

        Shapes:  -> [B, L, D].
        """
        trunk = self.config.trunk
        cos, sin = rotary_tables(batch.coords_BL3, trunk.head_size, trunk.rope_theta, trunk.rope_scaling)
        seen = sight(batch.place, cos, sin, path) if cache is None else cache.open(slots, batch, cos, sin)
        if trunk.experts > 1:
            seen = seen._replace(routes=self._routes(batch, cache is None))
        clock = self.trunk.clock
        modulation_BLD = None if clock is None else clock(batch.time_BL).to(dtype)
        return self.trunk(self.embed(batch, dtype).to(dtype), seen, modulation_BLD, cache)

    def _routes(self, batch: Batch, whole: bool) -> tuple[Tensor, ...]:
        """For each expert the positions of its streams; in a `whole` batch two that lead nowhere besides.

        So each has a gradient in every step, and a compiled block, which takes 0 and 1 for constants, serves all.
        """
        rows, length = batch.shape
        count, nowhere = self.config.trunk.experts, torch.full((2 * whole,), rows * length)
        own = [[nowhere.to(batch.coords_BL3.device)] for _ in range(count)]
        for number, (name, stream) in enumerate(self.config.streams.items()):
            if name in batch.slots:
                chosen = min(number, count - 1) if stream.expert is None else stream.expert
                own[chosen].append(batch.slots[name].embed_at)
        routes = tuple(map(torch.cat, own))
        for at_N in routes if whole else ():
            torch._dynamo.mark_dynamic(at_N, 0)
        return routes

    def losses(
        self, batch: Batch, path: str = "plain", dtype: torch.dtype = torch.float32, settled: bool = False
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Sum and count of every loss of every stream: divide after adding up all rows, ranks and steps.

        `settled`: only what reads the hidden states learns; the trunk and what enters it stay as they are.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not settled):
            hidden_ND = self(batch, path, dtype).flatten(0, 1)
        out = {}
        for name, slots in batch.slots.items():
            found = self.streams[name].losses(hidden_ND, slots, settled)
            out |= {f"{name}.{loss}": pair for loss, pair in found.items()}
        return out

    def weights(self) -> dict[str, float]:
        """How much each stream's losses weigh in the sum that is minimised."""
        return {name: stream.weight for name, stream in self.streams.items()}

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Parameters that learn, by how they are to be optimized.

        "matrices" stand between hidden values, "filters" are convolutions as matrices; then there is the "rest".
        """
        group_of = {f"{name}.weight": m.group for name, m in self.named_modules() if hasattr(m, "group")}
        out: dict[str, list[tuple[str, nn.Parameter]]] = {"matrices": [], "filters": [], "rest": []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                out[group_of.get(name, "rest")].append((name, parameter))
        return out
