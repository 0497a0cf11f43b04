"""Weights of others: the trunk and the text of a Qwen3 or a Llama as transformers saves them; and adapters beside them.

Text positions keep the meaning they had: the logits of the old vocabulary are those of transformers. What our documents
need besides (begin, end, sizes, other media) are rows behind the old ones, and other streams start from nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor

from mixmodal.checkpoint import inside, read_json
from mixmodal.codecs.text import BEGIN, END, with_specials
from mixmodal.config import ModelConfig, RotaryScaling, StreamConfig, TrunkConfig
from mixmodal.growing import extended
from mixmodal.hub import HUB, fetched, hint_of_hub
from mixmodal.linear import Linear
from mixmodal.model import Model

NORMED = {"qwen3": True, "llama": False}  # whether a family norms queries and keys
SHAPE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
OF_BLOCK = {
    "input_layernorm": "attention_norm.gain",
    "post_attention_layernorm": "mlp_norm.gain",
    "self_attn.q_proj": "attention.q.weight",
    "self_attn.k_proj": "attention.k.weight",
    "self_attn.v_proj": "attention.v.weight",
    "self_attn.o_proj": "attention.o.weight",
    "self_attn.q_norm": "attention.q_norm.gain",
    "self_attn.k_norm": "attention.k_norm.gain",
    "mlp.gate_proj": "mlp.gate.weight",
    "mlp.up_proj": "mlp.up.weight",
    "mlp.down_proj": "mlp.down.weight",
}
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def load(where: str | Path, like: ModelConfig | None = None, seed: int = 0) -> tuple[Model, dict[str, Any]]:
    """A model that starts as the Qwen3 or Llama in the folder `where`, or of hub:OWNER/NAME, and what is told about it.

    Of `like`, a recipe's model, it takes the streams beside the speaker, new from `seed`, and how the speaker's loss
    weighs; the trunk keeps the shape of the weights, with the adapters of `like`, or frozen, where `like` says so. Then
    the rows of their words are kept too, unless the speaker's codec in `like` says `kept` = 0.
    Raises:  FileNotFoundError for files that are not there, ValueError for what the trunk cannot compute as they do.
    """
    text = str(where)
    folder = fetched(text) if text.startswith(HUB) else Path(text)
    told = read_json(_file(folder, "config.json", text))
    trunk = trunk_of(told)
    if like is not None:
        _refuse(like)
        trunk = _as_wanted(trunk, like.trunk)
    tensors = _Tensors(folder, text)
    tied = bool(told.get("tie_word_embeddings", False))
    if not tied and HEAD not in tensors:
        raise ValueError(f"{text} has no {HEAD}, and its config.json does not say that it is tied: a part is missing")
    rows = tensors.rows(TABLE)
    tokenizer = _with_all_rows(_file(folder, "tokenizer.json", text).read_text(encoding="utf8"), rows)
    config = _composed(trunk, like, {"tokenizer": tokenizer, "ends": _ends(folder, told)}, tied, rows)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(config)
    _fill(model, tensors, tied, _twins(Tokenizer.from_str(tokenizer), model, told), seed)
    about = {"foreign": text if text.startswith(HUB) else folder.resolve().name, "family": told["model_type"]}
    licence = licence_of(folder)
    return model.eval(), {**about, **({"licence": licence} if licence else {}), "seed": seed, "steps": 0}


def _refuse(like: ModelConfig) -> None:
    """Nothing, for a recipe's model whose other streams can stand on a foreign trunk as they are.

    Raises:  ValueError that says what to do instead.
    """
    for name, stream in like.streams.items():
        if stream.expert:
            raise ValueError(f"the stream {name} takes expert {stream.expert}, and these weights have one: name none")
        for spec in (stream.codec, stream.objective):
            if isinstance(nets := spec.get("nets"), dict) and "from" in nets:
                told = "import without --recipe, then train the recipe on what came of it, `--set start=OUT`"
                raise ValueError(f"the stream {name} stands on a trained net ({nets['from']}): {told}")
    if like.trunk.adaptive:
        raise ValueError("the recipe's trunk is adaptive, these weights' is not: take a recipe that adds the time")


def trunk_of(told: dict[str, Any]) -> TrunkConfig:
    """The trunk that computes what the model of a config.json of transformers does.

    Raises:  ValueError that names the first thing in it that ours does not compute.
    """
    family = told.get("model_type")
    if family not in NORMED:
        raise ValueError(f"model_type is {family!r}: take a checkpoint of {' or '.join(NORMED)}")
    if absent := [name for name in SHAPE if name not in told]:
        raise ValueError(f"config.json lacks {', '.join(absent)}: it is not that of a {family}, or a part is missing")
    depth, heads = told["num_hidden_layers"], told["num_attention_heads"]
    rope = told.get("rope_parameters") or told.get("rope_scaling") or {}
    windowed = told.get("use_sliding_window") and told.get("max_window_layers", 0) < depth
    kinds = told.get("layer_types") or (["sliding_attention"] if windowed else [])
    wanted = {
        "hidden_act": (told.get("hidden_act", "silu"), "silu"),
        "attention_bias": (told.get("attention_bias") or False, False),
        "mlp_bias": (told.get("mlp_bias") or False, False),
        "layer_types": (next((kind for kind in kinds if kind != "full_attention"), None), None),
        "quantization_config": (told.get("quantization_config"), None),
        "partial_rotary_factor": (rope.get("partial_rotary_factor", told.get("partial_rotary_factor", 1.0)), 1.0),
    }
    for name, (got, can) in wanted.items():
        if got != can:
            raise ValueError(f"{name} is {got!r}: the trunk computes {can!r} only; take another checkpoint")
    if any(isinstance(value, dict) for value in rope.values()):
        raise ValueError(f"the rotary frequencies differ from layer to layer ({', '.join(rope)}): the trunk's do not")
    return TrunkConfig(
        width=told["hidden_size"],
        depth=depth,
        heads=heads,
        kv_heads=told.get("num_key_value_heads") or heads,
        head_size=told.get("head_dim") or told["hidden_size"] // heads,
        mlp_width=told["intermediate_size"],
        norm_eps=told.get("rms_norm_eps", 1e-6),
        qk_norm=NORMED[family],
        rope_theta=float(rope.get("rope_theta") or told.get("rope_theta") or 10_000.0),
        rope_scaling=_scaling(rope, told),
    )


def _scaling(rope: dict[str, Any], told: dict[str, Any]) -> RotaryScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind == "linear":
        return RotaryScaling("linear", float(_told(rope, "factor")))
    if kind == "llama3":
        length = rope.get("original_max_position_embeddings") or told["max_position_embeddings"]
        numbers = (*(_told(rope, name) for name in ("factor", "low_freq_factor", "high_freq_factor")), length)
        return RotaryScaling("llama3", *map(float, numbers))
    raise ValueError(f"rope_type is {kind!r}: the trunk scales as linear or llama3, or not at all (default)")


def _told(rope: dict[str, Any], name: str) -> Any:
    if name not in rope:
        raise ValueError(f"config.json scales its rotary places and tells no {name}: {rope}")
    return rope[name]


def _as_wanted(trunk: TrunkConfig, wanted: TrunkConfig) -> TrunkConfig:
    """The trunk with what a recipe may say about one whose shape is given: its adapters, and whether it learns."""
    return replace(
        trunk,
        frozen=trunk.frozen or wanted.frozen,
        adapter_rank=wanted.adapter_rank or trunk.adapter_rank,
        adapter_scale=wanted.adapter_scale if wanted.adapter_rank else trunk.adapter_scale,
    )


def _composed(
    trunk: TrunkConfig, like: ModelConfig | None, words: dict[str, Any], tied: bool, rows: int
) -> ModelConfig:
    """The configuration: their trunk, the speaker with `words` of theirs, the other streams of `like`."""
    text = StreamConfig("text", {"kind": "text"}, {"kind": "next_token"}, {"kind": "categorical"})
    like = like or ModelConfig(trunk, {"text": text}, "text")
    speaker = like.streams[like.speaker]
    kinds = tuple((spec or {}).get("kind") for spec in (speaker.codec, speaker.objective, speaker.head))
    if kinds != ("text", "next_token", "categorical"):
        raise ValueError(f"the speaker is {kinds}: these weights speak by text + next_token + categorical only")
    media = {stream.medium for stream in like.streams.values()} - {speaker.medium}
    made = with_specials(words["tokenizer"], media, speaker.codec.get("tasks", False))
    kept = speaker.codec.get("kept", rows if trunk.frozen or trunk.adapter_rank else 0)
    own = {name: speaker.codec[name] for name in ("learned", "tasks", "fill") if name in speaker.codec}
    speaker = replace(
        speaker,
        codec={
            **{"kind": "text", **words, "tokenizer": made.tokenizer, "vocabulary": made.vocabulary, "kept": kept},
            **own,
        },
        head={**speaker.head, "tied": tied},
    )
    return replace(like, trunk=trunk, streams={**like.streams, like.speaker: speaker})


def _with_all_rows(tokenizer: str, rows: int) -> str:
    """The tokenizer with a name for every row of the table: tables are padded, and new tokens stand behind that."""
    try:
        loaded = Tokenizer.from_str(tokenizer)
    except Exception as error:  # tokenizers raises nothing more special
        raise ValueError(f"its tokenizer.json cannot be read ({error}): fetch it again") from error
    loaded.no_truncation()
    loaded.no_padding()
    numbers = loaded.get_vocab().values()
    if max(numbers) + 1 != len(numbers):
        raise ValueError(
            f"tokenizer.json has {len(numbers)} tokens, and the highest number is {max(numbers)}: new tokens would take"
            " numbers that are taken; fill its holes with spare tokens first"
        )
    spare = rows - loaded.get_vocab_size()
    loaded.add_special_tokens([f"<|spare row {n}|>" for n in range(1, spare + 1)])
    return loaded.to_str()


def _twins(tokenizer: Tokenizer, model: Model, told: dict[str, Any]) -> dict[int, int]:
    """New rows that start as an old one: our begin and end as theirs, on which they lean where nothing else is said."""
    codec = model.speaker.codec
    out = {}
    for mark, new, name in ((BEGIN, codec.begin, "bos_token_id"), (END, codec.end, "eos_token_id")):
        old = told.get(name)
        old = old[0] if isinstance(old, list) and old else old
        if isinstance(old, int) and tokenizer.token_to_id(mark) is None:
            out[new] = old
    return out


def _ends(folder: Path, told: dict[str, Any]) -> list[int]:
    """The tokens at which they end a text: those of config.json, and of generation_config.json where it is there."""
    file, found = folder / "generation_config.json", [told.get("eos_token_id")]
    if file.exists():
        found.append(json.loads(file.read_text(encoding="utf8")).get("eos_token_id"))
    listed = [one for each in found for one in (each if isinstance(each, list) else [each])]
    return sorted({one for one in listed if isinstance(one, int)})


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The tensors of a file.

    Raises:  ValueError for a file that is damaged.
    """
    try:
        with safe_open(path, "pt") as held:
            yield held
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}): it is damaged or cut short, fetch it again") from error


class _Tensors:
    """The tensors of a checkpoint by their names in transformers, however many files hold them."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder, self.text = folder, text
        index = folder / "model.safetensors.index.json"
        if index.exists():
            named = json.loads(index.read_text(encoding="utf8"))["weight_map"]
            self.file_of = {name: inside(folder, file) for name, file in named.items()}
        else:
            file = _file(folder, "model.safetensors", text)
            with _opened(file) as held:
                self.file_of = dict.fromkeys(held.keys(), file.name)
        self.bare = TABLE not in self.file_of  # saved without its head, the names lack their first word

    def __contains__(self, name: str) -> bool:
        return self._name(name) in self.file_of

    def _name(self, name: str) -> str:
        return name.removeprefix("model.") if self.bare else name

    def rows(self, name: str) -> int:
        """How many rows a matrix has."""
        if name not in self:
            raise ValueError(f"{self.text} has no tensor {name}: it is no language model, or a part of it is missing")
        file = _file(self.folder, self.file_of[self._name(name)], self.text)
        with _opened(file) as held:
            return held.get_slice(self._name(name)).get_shape()[0]

    def each(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor in fp32, one after another, so that no more than one of them is held."""
        for file in sorted(set(self.file_of.values())):
            with _opened(_file(self.folder, file, self.text)) as held:
                for name in held.keys():  # noqa: SIM118 - it is no mapping
                    full = f"model.{name}" if self.bare and name != HEAD else name
                    yield full, held.get_tensor(name).float()


def _ours(depth: int, normed: bool) -> dict[str, str]:
    """Their name of every tensor of the trunk -> ours."""
    names = {"model.norm.weight": "trunk.norm.gain"}
    for layer in range(depth):
        for theirs, ours in OF_BLOCK.items():
            if normed or not theirs.endswith(("q_norm", "k_norm")):
                names[f"model.layers.{layer}.{theirs}.weight"] = f"trunk.blocks.{layer}.{ours}"
    return names


@torch.no_grad()
def _fill(model: Model, tensors: _Tensors, tied: bool, twins: dict[int, int], seed: int) -> None:
    """Every tensor copied to where it belongs; the tables with new rows behind the old.

    Raises:  ValueError for a tensor that is missing, unknown, or of another shape.
    """
    codec, trunk = model.speaker.codec, model.config.trunk
    own = dict(model.named_parameters())
    places = {theirs: own[ours] for theirs, ours in _ours(trunk.depth, trunk.qk_norm).items()}
    tables = {TABLE: codec.table.weight} | ({} if tied else {HEAD: model.speaker.head.table})
    missing = {*places, *tables}
    for name, tensor in tensors.each():
        if name.endswith("rotary_emb.inv_freq") or (tied and name == HEAD):
            continue  # it follows from the configuration; it is the table once more
        place = places.get(name, tables.get(name))
        if place is None:
            raise ValueError(
                f"{tensors.text} has a tensor {name} that the trunk has no place for: it computes otherwise"
            )
        if name in tables and tensor.shape[1:] == place.shape[1:]:
            tensor = extended(tensor, len(place), seed, twins)
        if tensor.shape != place.shape:
            raise ValueError(
                f"{name} in {tensors.text} is {list(tensor.shape)}, and its config.json makes it {list(place.shape)}:"
                " the two come from different models"
            )
        place.copy_(tensor)
        missing.discard(name)
    if missing:
        raise ValueError(f"{tensors.text} lacks {len(missing)} tensors, among them {min(missing)}: a part is missing")


def _file(folder: Path, name: str, text: str) -> Path:
    """The file `name` in a folder.

    Raises:  FileNotFoundError that says what to do.
    """
    path = folder / name
    if path.exists():
        return path
    if name.endswith(".safetensors") and list(folder.glob("*.bin")):
        hint = "its weights are pickles, which are never read: load it in transformers and save it again"
    elif name == "tokenizer.json" and folder.is_dir():
        hint = "save it with AutoTokenizer.from_pretrained(...).save_pretrained(...) of transformers"
    else:
        hint = "give the folder of a checkpoint in the format of transformers" + hint_of_hub(text)
    raise FileNotFoundError(f"{text} has no {name}: {hint}")


def licence_of(folder: Path) -> str:
    """The licence that the card of a checkpoint names, if it has one."""
    card = folder / "README.md"
    lines = card.read_text(encoding="utf8", errors="replace").splitlines() if card.exists() else []
    if not lines or lines[0].strip() != "---":
        return ""
    head = lines[1 : lines.index("---", 1)] if "---" in lines[1:] else []
    found = [line.partition(":")[2].strip().strip("\"'") for line in head if line.startswith("license:")]
    return found[0] if found else ""


# Adapters


def adapted(model: Model, wanted: TrunkConfig, seed: int = 0) -> Model:
    """The model with the adapters of `wanted` beside its trunk's matrices, new from `seed`, or frozen, as it says.

    What the model has already stays where `wanted` asks for nothing.
    Raises:  ValueError if it has adapters of another rank.
    """
    trunk = _as_wanted(model.config.trunk, wanted)
    had = model.config.trunk.adapter_rank
    if had and (trunk.adapter_rank, trunk.adapter_scale) != (had, model.config.trunk.adapter_scale):
        raise ValueError(
            f"the model has adapters of rank {had} and scale {model.config.trunk.adapter_scale:g}, wanted are"
            f" {trunk.adapter_rank} and {trunk.adapter_scale:g}: leave them, or merge the old ones first"
        )
    if trunk == model.config.trunk:
        return model
    return _remade(model, replace(model.config, trunk=trunk), model.state_dict(), seed)


def merged(model: Model) -> Model:
    """The same model without adapters: each is added to the matrix beside it, and everything learns again.

    So is what was learned beside the tables.
    """
    weights = model.state_dict()
    for name, module in model.trunk.named_modules():
        if isinstance(module, Linear):
            weights[f"trunk.{name}.weight"] = module.merged()
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith((".narrow", ".widen"))}
    for name in [name for name in weights if name.endswith(".table_added")]:
        added, beside = weights.pop(name), name.removesuffix("_added")
        table = beside if beside in weights else f"{beside}.weight"
        kept = len(weights[table]) - len(added)
        weights[table] = torch.cat((weights[table][:kept], weights[table][kept:] + added))
    streams = {
        name: replace(stream, codec={option: value for option, value in stream.codec.items() if option != "kept"})
        for name, stream in model.config.streams.items()
    }
    trunk = replace(model.config.trunk, adapter_rank=0, frozen=False)
    return _remade(model, replace(model.config, trunk=trunk, streams=streams), weights)


def _remade(model: Model, config: ModelConfig, weights: dict[str, Tensor], seed: int = 0) -> Model:
    """A new model of another configuration, with these weights wherever it has a place for them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the adapters' first matrices; the second are zero
        made = Model(config)
    made.load_state_dict(weights, strict=False)
    return made.to(next(model.parameters()).device).train(model.training)
