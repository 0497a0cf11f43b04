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
    "emoji-noto": "mixmodal.data.named:EmojiNoto",
    "tiles-crawl": "mixmodal.data.named:TilesCrawl",
    "prose": "mixmodal.data.prose:Prose",
    "file": "mixmodal.data.prose:TextFile",
}


OF_MIXTURE = ("kind", "share", "from", "until")  # what a mixture reads of a description, not the source


def make_source(spec: dict[str, Any]) -> Any:
    """The source that {"kind": name, option: value, ...} describes; what the mixture reads is left to it.

    Raises:  ValueError for an unknown kind or option, with the known ones.
    """
    from mixmodal.config import unknown

    kind = spec.get("kind", "")
    if kind not in KINDS:
        raise ValueError(unknown(f"source kind {kind!r}", kind, KINDS))
    module, _, name = KINDS[kind].partition(":")
    made = getattr(importlib.import_module(module), name)
    options = {key: value for key, value in spec.items() if key not in OF_MIXTURE}
    signature = inspect.signature(made).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in signature.values()):
        for option in options:
            if option not in signature:
                raise ValueError(unknown(f"option {option!r} of source {kind!r}", option, signature))
    return made(**options)


def make_mixture(specs: dict[str, dict[str, Any]], seed: int, rank: int = 0, ranks: int = 1) -> Mixture:
    """The mixture of the sources that `specs` names, each weighed by its "share" (1 unless given)."""
    from mixmodal.data.mixing import Mixture

    sources = []
    for name, spec in specs.items():
        source = make_source(spec)
        source.name = name
        sources.append((source, float(spec.get("share", 1.0))))
    return Mixture(sources, seed, rank, ranks)
