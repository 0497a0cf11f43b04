"""One transformer that reads and writes text and pictures, every published way of doing it on the same trunk.

import mixmodal
model = mixmodal.load("builtin:scenes")
model.sample("a big red circle left of a small blue square on a white background")[0].save("circle.png")
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "load": "mixmodal.api",
    "from_pretrained": "mixmodal.api",
    "Loaded": "mixmodal.api",
    "Settings": "mixmodal.sampling",
    "Text": "mixmodal.parts",
    "Image": "mixmodal.parts",
    "Document": "mixmodal.parts",
    "recipe": "mixmodal.recipes",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are asked for: importing the package stays free of torch."""
    if name not in _HOMES:
        raise AttributeError(f"mixmodal has no {name!r}: it has {', '.join(sorted(_HOMES))}")
    module = importlib.import_module(_HOMES[name])
    return getattr(module, name)
