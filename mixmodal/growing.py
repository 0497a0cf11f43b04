"""A model that is trained on with more streams or blocks than it had: what it knew stays, new ones begin beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mixmodal.config import ModelConfig, StreamConfig
from mixmodal.kinds import kind_of
from mixmodal.model import Model

SWITCHED = ("tasks", "joint")  # options of the speaker that new streams may want
BLOCKS = "trunk.blocks."  # how the names of their weights begin
NOISE = 0.1  # of a new row, in standard deviations of the old ones


def together(found: ModelConfig, wanted: ModelConfig) -> ModelConfig:
    """The streams of a model that is trained on, with the wanted objectives and weights, and those of media it lacks.

    Its codecs and heads stay, and of an objective of the same kind what its weights were shown. Where there are new
    streams, the speaker may have to announce tasks, or to share its vocabulary.
    Raises:  ValueError for a new stream whose time nothing would tell to the trunk, one whose expert the trunk lacks,
             and one of a medium that the model has by another name.
    """
    known = {stream.medium for stream in found.streams.values()}
    new = {name: stream for name, stream in wanted.streams.items() if stream.medium not in known}
    for name, stream in wanted.streams.items():
        if name not in found.streams and name not in new:
            there = [other for other, kept in found.streams.items() if kept.medium == stream.medium]
            raise ValueError(
                f"the stream {name} is of {stream.medium}, which the model that training starts from has as"
                f" {' and '.join(there)}: take a recipe with that stream, or a model without one of {stream.medium}"
            )
    streams = {name: _taught(stream, wanted.streams.get(name)) for name, stream in found.streams.items()}
    if new and (asked := wanted.streams.get(found.speaker)) is not None:
        old = streams[found.speaker]
        head = None if old.head is None else _switched_on(old.head, asked.head or {})
        streams[found.speaker] = replace(old, codec=_switched_on(old.codec, asked.codec), head=head)
    for name, stream in new.items():
        if stream.role != "read" and stream.objective.get("time") == "trunk" and not found.trunk.adaptive:
            raise ValueError(
                f"the stream {name} wants its time told to the trunk, and that of the model that training starts from"
                " is not adaptive: take a recipe that adds the time, or start from a model whose trunk is"
            )
        if (stream.expert or 0) >= found.trunk.experts:
            raise ValueError(
                f"the stream {name} takes expert {stream.expert}, and the model that training starts from has"
                f" {found.trunk.experts} of them: set model.streams.{name}.expert={found.trunk.experts - 1}, or start"
                " from a model with as many"
            )
    return replace(found, streams={**streams, **new})


def _taught(stream: StreamConfig, wanted: StreamConfig | None) -> StreamConfig:
    if wanted is None:
        return stream
    lasting = getattr(kind_of("objectives", stream.objective), "LASTING", ())
    objective = dict(wanted.objective)
    if objective.get("kind") == stream.objective.get("kind"):
        objective = {option: value for option, value in objective.items() if option not in lasting}
        objective |= {option: stream.objective[option] for option in lasting if option in stream.objective}
    return replace(stream, objective=objective, weight=wanted.weight)


def _switched_on(had: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    return {**had, **{option: asked[option] for option in SWITCHED if asked.get(option)}}


@torch.no_grad()
def deepened(model: Model, more: int, seed: int) -> Model:
    """The model with so many blocks more in the middle of its trunk, new from `seed`.

    They change nothing until they learn: what a new block adds goes through matrices that begin at zero.
    Source:  Chen et al. 2016 (arXiv:1511.05641), a net that begins as another and is deeper.
    Raises:  ValueError for long skips, whose matrices belong to pairs of blocks.
    """
    trunk = model.config.trunk
    if trunk.long_skips:
        raise ValueError(
            f"deeper is {more}, but long skips join the two halves of this trunk, and blocks in its middle would part"
            " them: set deeper=0"
        )
    torch.manual_seed(seed)
    grown = Model(replace(model.config, trunk=replace(trunk, depth=trunk.depth + more)))
    weights, middle = {}, trunk.depth // 2
    for name, tensor in model.state_dict().items():
        if name.startswith(BLOCKS):
            number, _, rest = name.removeprefix(BLOCKS).partition(".")
            name = f"{BLOCKS}{int(number) + more * (int(number) >= middle)}.{rest}"
        weights[name] = tensor
    grown.load_state_dict(weights, strict=False)
    return grown


@torch.no_grad()
def carry_over(old: Model, new: Model, seed: int) -> None:
    """Every weight of `old` into `new`; where a table has more rows now, the old ones stand first.

    Raises:  ValueError for a weight that has another shape otherwise.
    """
    had, own = old.state_dict(), new.state_dict()
    for name, tensor in had.items():
        place = own.get(name)
        if place is None:
            continue  # an objective may have learned what it does not now
        if tensor.shape != place.shape:
            if tensor.shape[1:] != place.shape[1:] or len(tensor) > len(place) or tensor.ndim != 2:
                raise ValueError(
                    f"{name} is {list(tensor.shape)} in the model that training starts from, and {list(place.shape)} in"
                    " the one that is wanted: leave the options of its stream as they are there"
                )
            tensor = extended(tensor, len(place), seed)
        place.copy_(tensor)


def extended(rows_VD: Tensor, vocabulary: int, seed: int, twins: Mapping[int, int] | None = None) -> Tensor:
    """The rows, and new ones behind them: the mean of the old with a little noise, or a copy of the one named for it.

    Shapes:  [V, D] -> [vocabulary, D].
    """
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(max(0, vocabulary - len(rows_VD)), rows_VD.shape[1], generator=rng)
    new = rows_VD.mean(0) + NOISE * rows_VD.std(0) * noise
    for at, row in (twins or {}).items():
        if at >= len(rows_VD) > row:
            new[at - len(rows_VD)] = rows_VD[row]
    return torch.cat((rows_VD, new))
