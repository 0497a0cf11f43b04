"""Sources of documents: readers of one's own data, named data, prose, worlds with answers, and their mixture."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixmodal.data.mixing import Mixture

KINDS = {
    "scenes": "mixmodal.data.worlds.scenes:Scenes",
    "glyphs": "mixmodal.data.worlds.glyphs:Glyphs",
    "digits": "mixmodal.data.worlds.digits:Digits",
    "folder": "mixmodal.data.folders:PictureFolder",
    "pairs": "mixmodal.data.folders:PairLines",
    "shards": "mixmodal.data.folders:PictureShards",
    "parquet": "mixmodal.data.parquet:ParquetPairs",
    "datasets": "mixmodal.data.hub:HubPairs",
    "datasets-stream": "mixmodal.data.hub:HubStream",
    "interleaved": "mixmodal.data.interleaved:Interleaved",
    "emoji-noto": "mixmodal.data.named:EmojiNoto",
    "tiles-crawl": "mixmodal.data.named:TilesCrawl",
    "openstax-figures": "mixmodal.data.figures:OpenstaxFigures",
    "openstax-documents": "mixmodal.data.figures:OpenstaxDocuments",
    "kodak24": "mixmodal.data.photographs:Kodak24",
    "photos-misc": "mixmodal.data.photographs:PhotosMisc",
    "parted": "mixmodal.data.parted:Parted",
    "squares": "mixmodal.data.squares:Squares",
    "clip-crops": "mixmodal.data.clips:ClipCrops",
    "sign-digits": "mixmodal.data.numerals:SignDigits",
    "mnist-20k": "mixmodal.data.numerals:Mnist20k",
    "tinyshakespeare": "mixmodal.data.prose:TinyShakespeare",
    "prose": "mixmodal.data.prose:Prose",
    "file": "mixmodal.data.prose:TextFile",
    "texts": "mixmodal.data.prose:TextFolder",
}

OF_MIXTURE = ("kind", "share", "from", "until")  # what a mixture reads of a description, not the source


def make_source(spec: dict[str, Any]) -> Any:
    """The source that {"kind": name, option: value, ...} describes; what the mixture reads is left to it.

    Raises:  ValueError for an unknown kind or option, with the known ones, and for one of a wrong type.
    """
    from mixmodal.config import unknown

    kind = spec.get("kind", "")
    made = source_class(kind)
    options = {key: value for key, value in spec.items() if key not in OF_MIXTURE}
    known = options_of(made)
    for option in options:
        if known is not None and option not in known:
            raise ValueError(unknown(f"option {option!r} of source {kind!r}", option, known))
    try:
        return made(**options)
    except TypeError as error:
        told = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise ValueError(
            f"the source {kind!r} cannot take {told} ({error}): give each option as its docs say"
        ) from error


def source_class(kind: str) -> Any:
    """The class of the sources of a kind.

    Raises:  ValueError for an unknown kind, with the nearest known ones.
    """
    from mixmodal.config import unknown

    if kind not in KINDS:
        raise ValueError(unknown(f"source kind {kind!r}", kind, KINDS))
    module, _, name = KINDS[kind].partition(":")
    return getattr(importlib.import_module(module), name)


def options_of(made: Any) -> list[str] | None:
    """The names of all options of a class, those it hands on to its parents included; None where any name goes."""
    known: dict[str, None] = {}
    for step in made.__mro__ if inspect.isclass(made) else [made]:
        if inspect.isclass(step) and "__init__" not in vars(step):
            continue
        signature = list(inspect.signature(step).parameters.values())
        known |= dict.fromkeys(p.name for p in signature if p.kind is not p.VAR_KEYWORD)
        if not any(p.kind is p.VAR_KEYWORD for p in signature):
            return list(known)
    return None


def has_splits(spec: dict[str, Any]) -> bool:
    """Whether the source that `spec` describes takes the option `split`."""
    fields = options_of(source_class(spec.get("kind", "")))
    return fields is None or "split" in fields


def make_mixture(specs: dict[str, dict[str, Any]], seed: int) -> Mixture:
    """The mixture of the sources that `specs` names, each weighed by its "share" (1 unless given)."""
    from mixmodal.data.mixing import Mixture

    sources = []
    for name, spec in specs.items():
        source = make_source(spec)
        source.name = name
        sources.append((source, float(spec.get("share", 1.0))))
    return Mixture(sources, seed)
