"""Recipes: functions without parameters that return a Recipe; the docstring states expected result and cost."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mixmodal.config import Recipe, unknown


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


def own_data(chosen: Recipe, path: Path) -> Recipe:
    """The recipe with every source that reads a folder or JSON lines reading `path` instead.

    Raises:  ValueError if the recipe has no such source.
    """
    kind = "pairs" if path.suffix == ".jsonl" else "folder"
    found = False

    def pointed(specs: dict) -> dict:
        nonlocal found
        out = {}
        for name, spec in specs.items():
            own = spec.get("kind") in ("folder", "pairs")
            found |= own
            out[name] = {**spec, "kind": kind, "path": str(path)} if own else spec
        return out

    chosen = replace(chosen, sources=pointed(chosen.sources), valid=pointed(chosen.valid))
    if not found:
        raise ValueError(f"recipe {chosen.name!r} reads no folder: --data is for recipes that do (own_32, own_64)")
    return chosen
