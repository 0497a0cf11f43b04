"""The comparisons of the package: functions without parameters that return one. What they found is in docs/results."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from mixmodal.compare import Comparison
from mixmodal.config import unknown
from mixmodal.recipes import recipe


def designs() -> Comparison:
    """Every design of the package that draws scenes, after equal steps."""
    labels = ("lossless", "transfusion", "showo", "chameleon", "maskgit", "mar")
    return Comparison(
        name="designs",
        question="Which road of the picture learns scenes of two objects best?",
        arms={label: recipe(f"{label}_two") for label in labels},
        budget={"steps": 500},
        options={"splits": "heldout"},
    )


def known() -> dict[str, Callable[[], Comparison]]:
    """Every comparison by name, in the order of lines."""
    aside = (known, named)
    own = (f for f in globals().values() if inspect.isfunction(f) and f.__module__ == __name__)
    return {f.__name__: f for f in own if f not in aside and not f.__name__.startswith("_")}


def named(name: str) -> Comparison:
    """The comparison called `name`.

    Raises:  ValueError with the nearest known names.
    """
    if name not in known():
        raise ValueError(unknown(f"comparison or recipe {name!r}", name, known()))
    return known()[name]()
