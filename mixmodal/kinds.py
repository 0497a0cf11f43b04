"""Files found by their names: what a recipe calls a kind is a module of one of the floors."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from mixmodal.config import unknown


def kinds(floor: str) -> list[str]:
    """The names of the files in `mixmodal.<floor>`: "codecs", "quantizers", "designs", ...."""
    package = importlib.import_module(f"mixmodal.{floor}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def kind_of(floor: str, spec: dict) -> ModuleType:
    """The module that `spec["kind"]` names.

    Raises:  ValueError with the nearest known names.
    """
    name = spec.get("kind", "")
    if name not in kinds(floor):
        raise ValueError(unknown(f"{floor} kind {name!r}", name, kinds(floor)))
    return importlib.import_module(f"mixmodal.{floor}.{name}")
