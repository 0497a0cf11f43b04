"""What a run is made of, as frozen values: to and from JSON, changed by dotted keys, refused with a suggestion."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Any

FRACTION = re.compile(r"[-+]?(\d+\.\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)  # as JSON does not take it, too: .5, 1.
PATHS = ("plain", "dense", "segments", "flex")
PRECISIONS = ("auto", "float32", "bfloat16", "float16", "float64")
MATRICES = ("muon", "adamw")


@dataclass(frozen=True)
class RotaryScaling:
    """How rotary frequencies are slowed, so that a text may be longer than those first learned.

    "linear" divides each by `factor`; "llama3" only those that turn less than `low` times in `length` positions, leaves
    those that turn more than `high` times, and goes over from one to the other between.
    """

    kind: str = "llama3"
    factor: float = 8.0
    low: float = 1.0
    high: float = 4.0
    length: float = 8192.0


@dataclass(frozen=True)
class TrunkConfig:
    """The transformer that every stream shares. The defaults of `mlp`, `norm_gain`, `qk_norm`, `qk_scale` are Qwen3's.

    `qk_scale` multiplies the attention logits: normed queries and keys bound them by the root of the head size, which
    small heads without gains cannot sharpen otherwise. `adaptive` has the time of noisy positions scale, shift and gate
    what blocks do there (adaLN). A `block` of kind "gau" is attention and MLP in one: one head of `head_size`, its
    values `mlp_width` wide. `experts` > 1 has so many blocks side by side in each layer: positions of a stream take its
    `expert`, else the one of its number, the last if there is none, and all attend to each other. `frozen` keeps the
    trunk as it is while the streams learn; `adapter_rank` > 0 keeps it too, but for a product of two matrices of that
    rank (LoRA), times `adapter_scale`, that is learned beside each of its own.
    """

    width: int = 192
    depth: int = 6
    heads: int = 6
    kv_heads: int = 6
    head_size: int = 32
    mlp_width: int = 512
    mlp: str = "swiglu"
    norm_gain: bool = True
    norm_eps: float = 1e-6
    qk_norm: bool = True
    qk_scale: float = 1.0
    rope_theta: float = 10_000.0
    rope_scaling: RotaryScaling | None = None
    long_skips: bool = False
    adaptive: bool = False
    block: str = "qwen3"
    experts: int = 1
    frozen: bool = False
    adapter_rank: int = 0
    adapter_scale: float = 2.0

    def __post_init__(self) -> None:
        for name in ("width", "heads", "kv_heads", "head_size", "mlp_width", "experts", "depth"):
            least = 0 if name == "depth" else 1  # tokenizers have no trunk
            if getattr(self, name) < least:
                raise ValueError(f"model.trunk.{name} is {getattr(self, name)}: want {least} or more")
        if self.heads % self.kv_heads:
            raise ValueError(f"model.trunk.heads is {self.heads}: want a multiple of kv_heads, {self.kv_heads}")
        if self.head_size % 2:
            raise ValueError(f"model.trunk.head_size is {self.head_size}: places turn pairs of numbers, want it even")

    @property
    def value_size(self) -> int:
        """How wide the values of a head are."""
        return self.mlp_width if self.block == "gau" else self.head_size


def relu2_trunk(width: int, depth: int, heads: int, **more: Any) -> TrunkConfig:
    """A trunk that learns fast on a CPU: squared ReLU, no gains, attention sharper and nearer by."""
    shape = {"width": width, "depth": depth, "heads": heads, "kv_heads": heads, "head_size": width // heads}
    habits = {"mlp_width": 4 * width, "mlp": "relu2", "norm_gain": False, "qk_scale": 2.0, "rope_theta": 100.0}
    return TrunkConfig(**{**shape, **habits, **more})


@dataclass(frozen=True)
class StreamConfig:
    """One cell of the table of designs. `codec`, `objective` and `head` are {"kind": file name, option: value}.

    `role` says what the stream does for its medium: "read" embeds given parts, "write" makes wanted ones. `expert` is
    the one of the trunk's that its positions take, the first being 0; where none is told, that of the stream's number.
    """

    medium: str
    codec: dict[str, Any]
    objective: dict[str, Any]
    head: dict[str, Any] | None = None
    weight: float = 1.0
    role: str = "both"
    expert: int | None = None


STANDING = ("codec", "objective")  # what of a stream may have `nets`: a trained one that it stands on


@dataclass(frozen=True)
class ModelConfig:
    """A trunk and its streams. The `speaker` is the stream whose tokens announce the parts of the others."""

    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    streams: dict[str, StreamConfig] = field(default_factory=dict)
    speaker: str = "text"


@dataclass(frozen=True)
class OptimConfig:
    """How weights move.

    Units:   `matrix_rate` is the rate of the trunk's matrices (Muon's, or AdamW's where `matrices` is "adamw"),
             `filter_rate` that of convolutions, 0 for the same, `rate` that of the rest; `warmup` in steps; `decay` is
             the last share of the run in which the rate falls linearly to 0; `average` is the relative width of the
             power-law average of weights, 0 for none. At the share `settle` of the run all rates are 0, as if it ended
             there; then only what reads the hidden states learns (of a tokenizer, its decoder), at half the price, its
             rates once more from their peaks to 0. A step whose loss or gradient is not finite is skipped; `bad_steps`
             in a row end the run.
    """

    matrices: str = "muon"
    matrix_rate: float = 0.006
    filter_rate: float = 0.0
    rate: float = 0.003
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    momentum: float = 0.95
    newton_schulz: int = 5
    warmup: int = 30
    decay: float = 0.6
    clip: float = 1.0
    average: float = 0.0
    settle: float = 1.0
    bad_steps: int = 8

    def __post_init__(self) -> None:
        if self.matrices not in MATRICES:
            raise ValueError(unknown(f"optim.matrices {self.matrices!r}", self.matrices, MATRICES))
        for name in ("settle", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"optim.{name} is {getattr(self, name):g}: want a share of the run, 0 to 1")


@dataclass(frozen=True)
class Recipe:
    """A whole run as values: what is trained, on what, how long, and how it is watched.

    `sources` are {"kind": name of a source, "share": weight in the mixture, "from" and "until": shares of the training
    between which it is drawn, option: value}; `valid` likewise, for validation. `vocabulary` is the size of the
    tokenizer that is trained on the sources, or `tokenizer` the path of a tokenizer.json. `start` is a model that is
    trained on: a folder, a name, or recipe:NAME; `deeper` > 0 puts so many blocks more into the
    middle of its trunk. `minutes` > 0 sets `steps` by the speed measured at the start. A step takes `rows` x `length`
    positions.
    `recompute` keeps of each block only what entered it, and runs it again for the gradient; `accumulate` > 1 takes the
    rows of a step in so many parts, one after the other: both cost time, save memory, and leave the step as it is,
    but for the entropies of LFQ and BSQ codes, which are then of each part (and of each rank).
    `workers` > 0 lay out the documents of the next step while this one runs, each a process of its own.
    `prompts` are drawn, and documents of `valid` made, at every sample; without `valid` there is none. Every `every`
    steps there is a checkpoint: the last `keep` stay, and the one that did best on `valid`.
    """

    name: str
    model: ModelConfig
    sources: dict[str, dict[str, Any]]
    valid: dict[str, dict[str, Any]] = field(default_factory=dict)
    optim: OptimConfig = field(default_factory=OptimConfig)
    vocabulary: int = 512
    tokenizer: str = ""
    rows: int = 24
    length: int = 128
    steps: int = 1000
    minutes: float = 0.0
    drop_prompt: float = 0.1
    seed: int = 0
    precision: str = "auto"
    path: str = "plain"
    compile: bool = True
    recompute: bool = False
    accumulate: int = 1
    workers: int = 0
    every: int = 500
    keep: int = 2
    start: str = ""
    deeper: int = 0
    prompts: tuple[str, ...] = ()
    sample_size: tuple[int, int] = (32, 32)
    guidance: float = 2.0
    steps_sampled: int = 25

    def __post_init__(self) -> None:
        for name in ("rows", "length", "accumulate", "every", "keep", "steps_sampled"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: want 1 or more")
        if self.deeper < 0:
            raise ValueError(f"deeper is {self.deeper}: want the number of blocks more, 0 for none")
        if self.workers < 0 or self.minutes < 0 or self.steps < 1 and not self.minutes:
            told = f"steps is {self.steps}, minutes {self.minutes:g}, workers {self.workers}"
            raise ValueError(f"{told}: want at least one step or some minutes, and no fewer workers than 0")
        if not 0 <= self.drop_prompt <= 1:
            raise ValueError(f"drop_prompt is {self.drop_prompt:g}: want a share, 0 to 1")
        for name, known in (("path", PATHS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(unknown(f"{name} {getattr(self, name)!r}", getattr(self, name), known))


def to_json(value: Any) -> Any:
    """Plain dicts, lists and scalars for any nest of dataclasses."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(wanted: Any, data: Any, where: str = "config") -> Any:
    """`data` as the type `wanted`, dataclasses nested to any depth.

    Raises:  ValueError that names the place, what was got and the nearest known key.
    """
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        for option in (a for a in arguments if a is not type(None)):
            try:
                return from_json(option, data, where)
            except ValueError:
                continue
        raise ValueError(f"{where} is {data!r}, want {wanted}")
    if dataclasses.is_dataclass(wanted):
        if not isinstance(data, dict):
            raise ValueError(f"{where} is {data!r}, want the keys of {wanted.__name__}")
        hints = typing.get_type_hints(wanted)
        known = {f.name for f in dataclasses.fields(wanted) if f.init}
        for key in data:
            if key not in known:
                raise ValueError(unknown(f"{where}.{key}", key, known))
        required = {
            f.name
            for f in dataclasses.fields(wanted)
            if f.init and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        }
        if missing := sorted(required - set(data)):
            raise ValueError(f"{where} lacks {', '.join(missing)}: {wanted.__name__} wants them")
        return wanted(**{key: from_json(hints[key], item, f"{where}.{key}") for key, item in data.items()})
    if origin is dict:
        if not isinstance(data, dict):
            raise ValueError(f"{where} is {data!r}, want a mapping")
        return {key: from_json(arguments[1], item, f"{where}.{key}") for key, item in data.items()}
    if origin in (tuple, list):
        if not isinstance(data, (list, tuple)):
            raise ValueError(f"{where} is {data!r}, want a list")
        if origin is tuple and arguments[-1] is not Ellipsis and len(arguments) != len(data):
            raise ValueError(f"{where} has {len(data)} entries, want {len(arguments)}")
        each = arguments if origin is tuple and arguments[-1] is not Ellipsis else [arguments[0]] * len(data)
        return origin(from_json(t, item, where) for t, item in zip(each, data, strict=True))
    if wanted is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if isinstance(data, float) and not math.isfinite(data):  # JSON could not tell it again
        raise ValueError(f"{where} is {data}, want a finite number")
    if wanted is int and isinstance(data, float) and data.is_integer():
        return int(data)
    if isinstance(wanted, type) and (not isinstance(data, wanted) or (wanted is int and isinstance(data, bool))):
        raise ValueError(f"{where} is {data!r}, want {wanted.__name__}")
    return data


def unknown(where: str, got: str, known: typing.Iterable[str]) -> str:
    """The sentence that refuses an unknown name and suggests the nearest known ones."""
    known = sorted(known)
    near = difflib.get_close_matches(got, known, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    return f"unknown {where}: {hint}"


def value_of(raw: str) -> Any:
    """What the text of a setting says: JSON, or a number as people write it (.006, 1.), else the text itself."""
    try:
        return json.loads(raw)
    except json.JSONDecodeError:
        return float(raw) if FRACTION.fullmatch(raw) else raw


def override(config: Any, settings: typing.Iterable[str]) -> Any:
    """A copy of `config` with `dotted.key=value` settings applied; values are read as JSON or as .006, else as text.

    Raises:  ValueError for a key that is not there, with the nearest that is.
    """
    tree = to_json(config)
    for setting in settings:
        key, equals, raw = setting.partition("=")
        if not equals:
            raise ValueError(f"setting {setting!r} has no '=': write key=value, for example model.trunk.depth=8")
        value = value_of(raw)
        node, path, open_ended = tree, key.strip().split("."), False
        for depth, name in enumerate(path):
            if not isinstance(node, dict):
                raise ValueError(f"{'.'.join(path[:depth])} is {node!r}: it has no {name!r} inside")
            last = depth == len(path) - 1
            # A part named by kind may take options, of any depth, that its JSON does not spell out yet: they are
            # checked when it is built.
            open_ended |= "kind" in node
            if name not in node and not open_ended:
                told = unknown(".".join(path[: depth + 1]), name, node)
                if depth == 0 and name in ("codec", "objective", "head"):
                    told += f"; of a stream it is model.streams.NAME.{'.'.join(path)}"
                raise ValueError(told)
            if last:
                node[name] = value
            else:
                node = node.setdefault(name, {})
    return from_json(type(config), tree, type(config).__name__)


def options(kind_of: type, spec: dict[str, Any], where: str) -> Any:
    """The options in `spec` (without its "kind") as the dataclass `kind_of`."""
    return from_json(kind_of, {key: value for key, value in spec.items() if key != "kind"}, where)
