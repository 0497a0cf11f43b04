"""A recipe that stands on other recipes: these are trained first, once for all that stand on them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from mixmodal import config as values
from mixmodal.config import STANDING, Recipe
from mixmodal.recipes import recipe

MARK = "recipe:"


def standing(chosen: Recipe, folder: Path, known: Mapping[str, Recipe] | None = None) -> Recipe:
    """The recipe with every model that it takes from another recipe trained, in a folder beside its own.

    `known` are recipes that go before those of the package.
    Raises:  ValueError in one of several processes of torchrun, if one of them is not trained yet.
    """

    def found(name: str) -> str:
        return str(trained(name, folder.parent / name, _inner(name, known)))

    return _with_nets(_started(chosen, found), lambda name: {"from": found(name)})


def untrained(chosen: Recipe, known: Mapping[str, Recipe] | None = None) -> Recipe:
    """The recipe with what it takes from other recipes as it is before training: what a cost is told by."""
    return _with_nets(_started(chosen, lambda _: ""), lambda name: values.to_json(_pictures(_inner(name, known))))


def starts_from(chosen: Recipe) -> str:
    """The name of the recipe whose model is trained on; "" for none."""
    return chosen.start.removeprefix(MARK) if chosen.start.startswith(MARK) else ""


def stands_on(chosen: Recipe) -> list[str]:
    """The names of the recipes that this one stands on, what it starts from among them."""
    names = [starts_from(chosen)] if starts_from(chosen) else []
    _with_nets(chosen, lambda name: names.append(name) or {})
    return list(dict.fromkeys(names))


def _inner(name: str, known: Mapping[str, Recipe] | None) -> Recipe:
    return (known or {}).get(name) or recipe(name)


def _started(chosen: Recipe, found: Callable[[str], str]) -> Recipe:
    name = starts_from(chosen)
    return replace(chosen, start=found(name)) if name else chosen


def _with_nets(chosen: Recipe, found: Callable[[str], dict]) -> Recipe:
    streams = {}
    for name, stream in chosen.model.streams.items():
        for part in STANDING:
            spec = getattr(stream, part)
            place = str((spec.get("nets") or {}).get("from", ""))
            if place.startswith(MARK):
                stream = replace(stream, **{part: {**spec, "nets": found(place.removeprefix(MARK))}})
        streams[name] = stream
    return replace(chosen, model=replace(chosen.model, streams=streams))


def _pictures(inner: Recipe) -> dict:
    """The codec of the stream that does not speak."""
    return next(s.codec for name, s in inner.model.streams.items() if name != inner.model.speaker)


def _otherwise(inner: Recipe, kept: Path) -> str:
    """A remark where a run was of other settings than those of the recipe that is wanted: it is taken as it is."""
    from mixmodal.guard import differing, settings

    if not kept.exists():
        return ""
    other = values.from_json(Recipe, json.loads(kept.read_text(encoding="utf8")), "recipe")
    here, there = settings(inner), settings(other)
    unlike = [key for key in differing(inner, other) if not str(here[key]).startswith(MARK)]
    told = ", ".join(f"{key} is {there.get(key)!r} and not {here[key]!r}" for key in unlike[:3])
    return f"; it is taken as it is, though {told}: move it away to have the recipe's own" if told else ""


def finished(folder: Path) -> bool:
    """Whether a run has come to its end: a model is there before it, too, one for each checkpoint."""
    about = folder / "model" / "config.json"
    told = json.loads(about.read_text(encoding="utf8")).get("about", {}) if about.exists() else {}
    return "steps" in told and told["steps"] == told.get("of_steps")


def trained(name: str, folder: Path, inner: Recipe | None = None) -> Path:
    """The folder of the run of a recipe, `inner` or the one of that name, trained now unless it was.

    Raises:  ValueError in one of several processes of torchrun, if it was not.
    """
    from mixmodal.parallel import joined
    from mixmodal.train import train_as

    inner, about, kept = inner or recipe(name), folder / "model" / "config.json", folder / "recipe.json"
    if about.exists():
        told = json.loads(about.read_text(encoding="utf8")).get("about", {})
        if told.get("recipe", inner.name) != inner.name:
            raise ValueError(f"{folder} holds a model of {told['recipe']}, and {name} is wanted there: move it away")
        if finished(folder):
            print(f"{name} is trained already: {folder}{_otherwise(inner, kept)}")
            return folder
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"this recipe stands on {name}, which is not trained: mixmodal train {name} --out {folder}")
    print(f"first {name}, in {folder}: what this recipe stands on")
    if kept.exists():
        inner = values.from_json(Recipe, json.loads(kept.read_text(encoding="utf8")), "recipe")
    else:
        inner = standing(inner, folder)
    with joined(False) as ranks:
        train_as(ranks, inner, folder, kept.exists())
    return folder
