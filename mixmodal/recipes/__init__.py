"""Recipes: functions without parameters that return a Recipe; the docstring states expected result and cost."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mixmodal.config import Recipe, unknown
from mixmodal.data import OF_MIXTURE

WINDOW = {"longest": 240, "pictures": 1}  # of a document, so that it fits into a row of the small recipes


def recipes() -> dict[str, Callable[[], Recipe]]:
    """Every recipe by name, in the order of files and lines."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        for name, function in vars(loaded).items():
            if inspect.isfunction(function) and function.__module__ == loaded.__name__ and not name.startswith("_"):
                found[name] = function
    return found


def recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:  ValueError with the nearest known names.
    """
    known = recipes()
    if name not in known:
        raise ValueError(unknown(f"recipe {name!r}", name, known))
    return known[name]()


def own_data(chosen: Recipe, path: str | Path) -> Recipe:
    """The recipe with every source that reads a folder reading what lies at `path`, or named data, instead.

    Raises:  ValueError if the recipe has no such source, or no reader takes what lies there; FileNotFoundError if
             nothing does.
    """
    from mixmodal.data import options_of, source_class
    from mixmodal.data.named import NAMED
    from mixmodal.data.opening import kind_of

    if not any(spec.get("kind") == "folder" for spec in chosen.sources.values()):
        raise ValueError(f"recipe {chosen.name!r} reads no folder: --data is for recipes that do (own_32)")
    kind = kind_of(path)
    known = options_of(source_class(kind)) or []
    told = {"kind": kind} if kind in NAMED else {"kind": kind, "path": str(path)}
    told |= WINDOW if "pictures" in known else {}

    def pointed(specs: dict) -> dict:
        out = {}
        for name, spec in specs.items():
            kept = {key: value for key, value in spec.items() if key in (*OF_MIXTURE, *known) and key != "path"}
            out[name] = {**kept, **told} if spec.get("kind") == "folder" else spec
        return out

    return replace(chosen, sources=pointed(chosen.sources), valid=pointed(chosen.valid))
