"""A run made ready: codecs completed from the data, the model made from the seed, the cost counted."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mixmodal import config as values
from mixmodal import foreign_nets
from mixmodal.checkpoint import from_pretrained
from mixmodal.compute import Cost, cost_of, fast_dtype, keep_freed_memory, measured_peak, uncompiled
from mixmodal.config import STANDING, Recipe
from mixmodal.data import make_mixture
from mixmodal.data.loading import Loader
from mixmodal.data.mixing import Mixture
from mixmodal.foreign import adapted
from mixmodal.growing import carry_over, deepened, together
from mixmodal.kinds import kind_of
from mixmodal.memory import memory_of
from mixmodal.model import Model
from mixmodal.owned import Owned
from mixmodal.parallel import ALONE, Ranks, memory, shard
from mixmodal.parts import Document
from mixmodal.trunk import run_block

TOKENIZER_DOCUMENTS = 3000
EXAMPLES = 3  # batches by which memory is estimated: they are not equally full
ORIGIN = ("foreign", "family", "licence")  # what binds whoever trains a model on, and gives it away


@dataclass(eq=False)
class Run:
    """All that a training in progress holds."""

    recipe: Recipe
    model: Model
    loader: Loader
    cost: Cost
    dtype: torch.dtype
    peak: float
    device: str
    ranks: Ranks
    owned: Owned
    origin: dict[str, Any] = field(default_factory=dict)  # what is told about the model that it started from
    watched: dict[int, list[Document]] = field(default_factory=dict)  # documents of validation, once they were read


def prepare(recipe: Recipe, device: str | None = None, ranks: Ranks = ALONE) -> Run:
    """A run ready to start: codecs completed from the data, model made from the seed, cost counted."""
    keep_freed_memory()
    device = device or ranks.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if recipe.valid:
        make_mixture(recipe.valid, 1)  # what cannot be made is refused now, not at the first checkpoint
    recipe, model, mixture, origin = made(recipe)
    dtype = fast_dtype(device) if recipe.precision == "auto" else getattr(torch, recipe.precision)
    loader = Loader(mixture, model, recipe, ranks)
    model.trunk.recompute = recipe.recompute
    before = loader.state()
    held = memory_of(model, recipe, dtype, [loader.next(0.999) for _ in range(EXAMPLES)], device)
    cost, first = cost_of(model, recipe, held), dict(loader.skipped)
    loader.load(before)
    loader.first = first
    too_large = int(cost.bytes > 0.9 * memory(device))
    if ranks.count > 1 and any(large for (large,) in ranks.told([too_large])):  # each has counted rows of its own
        ranks = replace(ranks, shard=True)
    if recipe.optim.settle >= 1 and (late := [n for n, s in model.streams.items() if getattr(s.objective, "late", 0)]):
        raise ValueError(
            f"{late[0]} learns against a judge once the run has settled, and optim.settle is {recipe.optim.settle:g}:"
            f" set optim.settle=0.7, or model.streams.{late[0]}.objective.adversary=0"
        )
    if recipe.optim.settle < 1 and (
        tied := [n for n, s in model.streams.items() if getattr(getattr(s.head, "config", None), "tied", False)]
    ):
        raise ValueError(
            f"the head of {tied[0]} reads with the table that enters the trunk, which would not rest once the run has"
            f" settled: set optim.settle=1, or model.streams.{tied[0]}.head.tied=false"
        )
    if ranks.shard:  # a codec that stands on a trained one asks it outside of a step, and on one rank alone
        refuse_shards(recipe, model)
        nets = [s.codec.nets for s in model.streams.values() if getattr(s.codec, "nets", None) is not None]
        shard(model, model.trunk.blocks, ranks, dtype, [p for net in nets for p in net.parameters()])
    if recipe.workers and (why := _why_alone(model, mixture, ranks)):
        raise ValueError(f"workers is {recipe.workers}, but {why}: set workers=0")
    model.to(device).train()
    peak = measured_peak(dtype, device) * ranks.count
    return Run(recipe, model, loader, cost, dtype, peak, device, ranks, Owned(model, ranks), origin)


def refuse_shards(recipe: Recipe, model: Model) -> None:
    """Nothing, for a training whose model may be divided among ranks.

    Raises:  ValueError that says why not.
    """
    if recipe.optim.settle < 1:
        raise ValueError(
            f"optim.settle is {recipe.optim.settle:g}, but a model in shards cannot rest in part: set optim.settle=1,"
            " or train without --shard"
        )
    if any(hasattr(stream.objective, "rebuild") for stream in model.streams.values()):
        raise ValueError(
            "a tokenizer follows its data by averages, which no rank may hold in part: train without --shard"
        )


def _why_alone(model: Model, mixture: Mixture, ranks: Ranks) -> str:
    """Why no other process can lay out documents for this one; nothing where one can."""
    nets = [name for name, stream in model.streams.items() if getattr(stream.codec, "nets", None) is not None]
    if nets:
        return f"the stream {nets[0]} is made by a net, which is with the process that trains"
    streams = [source.name for source in mixture.sources if getattr(source, "streams", False)]
    if streams:
        return f"{streams[0]} is a stream, which only one process can read"
    return "the processes of --processes share this machine's cores already" if ranks.room else ""


def made(recipe: Recipe) -> tuple[Recipe, Model, Mixture, dict[str, Any]]:
    """The recipe with its codecs completed from the data, its model, its data, and what tells where it came from."""
    mixture = make_mixture(recipe.sources, recipe.seed)
    began, about = None, {}
    if recipe.deeper and not recipe.start:
        raise ValueError(
            f"deeper is {recipe.deeper}, and no model is trained on: name one with start=, or set model.trunk.depth"
        )
    if recipe.start:
        torch.manual_seed(recipe.seed)
        began, about = from_pretrained(recipe.start)
        began = adapted(began, recipe.model.trunk, recipe.seed)
        began = deepened(began, recipe.deeper, recipe.seed) if recipe.deeper else began
        recipe = replace(recipe, model=together(began.config, recipe.model))
    had = began.config.streams if began is not None else {}
    recipe, standing, origin = _standing(recipe, had)
    if recipe.model.streams.keys() - had.keys():
        recipe = replace(recipe, model=_complete(recipe, mixture))
    torch.manual_seed(recipe.seed)
    model = Model(recipe.model)
    if began is not None:
        carry_over(began, model, recipe.seed)
    model.load_state_dict(standing, strict=False)
    kept = {name: about[name] for name in ORIGIN if name in about}
    return recipe, model, mixture, kept | _before(about) | origin


def _before(about: dict[str, Any]) -> dict[str, Any]:
    """What the model cost that training starts from, with all before it; nothing where it does not tell.

    It names no folder: who is given the model has none of them.
    """
    if not {"steps", "seconds"} <= about.keys():
        return {}
    earlier = about.get("before", {"steps": 0, "seconds": 0.0})
    cost = {name: round(about[name] + earlier[name], 1) for name in ("steps", "seconds")}
    return {"before": {"recipe": about.get("recipe", ""), **cost}}


def _standing(recipe: Recipe, had: Container[str]) -> tuple[Recipe, dict[str, Tensor], dict[str, Any]]:
    """The recipe with `nets` that come from a trained model spelled out, their weights, and what binds their users.

    The codecs of streams that training starts with are those of the model, with all they hold.
    """
    streams, weights, origin = {}, {}, {}
    for name, stream in recipe.model.streams.items():
        for part in ("objective",) if name in had else STANDING:
            spec = getattr(stream, part)
            if place := (spec.get("nets") or {}).get("from"):
                nets, tensors, about = _nets(place, stream.medium)
                origin |= {told: about[told] for told in ORIGIN if told in about}
                stream = replace(stream, **{part: {**spec, "nets": nets | {"from": place}}})
                weights |= {f"streams.{name}.{part}.nets.{n}": tensor for n, tensor in tensors.items()}
        streams[name] = stream
    return replace(recipe, model=replace(recipe.model, streams=streams)), weights, origin


def _nets(place: str, medium: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Options and weights of the codec that a trained model, ours or another's, has for a medium; what it tells."""
    if place.startswith(foreign_nets.MARK):
        return foreign_nets.load(place)
    found, about = from_pretrained(place)
    source = found.writer(medium)
    return values.to_json(found.config.streams[source.name].codec), source.codec.state_dict(), about


def resuming(recipe: Recipe) -> Recipe:
    """The recipe of a run that goes on: what it began with is in its own checkpoint."""
    streams = {}
    for name, stream in recipe.model.streams.items():
        for part in STANDING:
            spec = dict(getattr(stream, part))
            if nets := spec.get("nets"):
                spec["nets"] = {key: value for key, value in nets.items() if key != "from"}
            stream = replace(stream, **{part: spec})
        streams[name] = stream
    return replace(recipe, start="", deeper=0, model=replace(recipe.model, streams=streams))


def recalled(recipe: Recipe, kept: Recipe) -> Recipe:
    """The recipe of a run that goes on, with the places that `resuming` leaves out: they tell what it came from."""
    streams = dict(recipe.model.streams)
    for name, stream in kept.model.streams.items():
        for part in STANDING:
            if place := (getattr(stream, part).get("nets") or {}).get("from"):
                spec = dict(getattr(streams[name], part))
                streams[name] = replace(streams[name], **{part: {**spec, "nets": {**spec["nets"], "from": place}}})
    return replace(recipe, start=kept.start, deeper=kept.deeper, model=replace(recipe.model, streams=streams))


class _Preview:
    """The texts of documents from which a codec may learn, made only if it asks for them."""

    def __init__(self, mixture) -> None:
        self.mixture = mixture

    def __iter__(self):
        return iter(self.mixture.words(TOKENIZER_DOCUMENTS))


def _complete(recipe: Recipe, mixture) -> values.ModelConfig:
    """The model's configuration with what its codecs take from the data."""
    streams, documents = {}, None
    for name, stream in recipe.model.streams.items():
        module = kind_of("codecs", stream.codec)
        if hasattr(module, "prepare"):
            documents = documents or _Preview(mixture)
            media = {s.medium for s in recipe.model.streams.values()} - {stream.medium}
            options = values.options(module.Config, stream.codec, f"streams.{name}.codec")
            made = values.to_json(module.prepare(options, documents, media, recipe))
            stream = replace(stream, codec={"kind": stream.codec["kind"], **made})
        streams[name] = stream
    return replace(recipe.model, streams=streams)


def compile_trunk(model: Model, path: str = "plain") -> str | None:
    """Compile the block, once for all layers; where that cannot be done, the reason."""
    if why := uncompiled(path, next(model.parameters()).device.type):
        return why
    model.trunk.run_block = torch.compile(run_block, dynamic=False)
    return None
