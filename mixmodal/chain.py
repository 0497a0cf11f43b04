"""A recipe that stands on other recipes: these are trained first, once for all that stand on them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from mixmodal import config as values
from mixmodal.config import Recipe
from mixmodal.recipes import recipe

MARK = "recipe:"


def standing(chosen: Recipe, folder: Path) -> Recipe:
    """The recipe with every model that it takes from another recipe trained, in a folder beside its own.

    Raises:  ValueError in one of several processes of torchrun, if one of them is not trained yet.
    """
    return _with_nets(chosen, lambda name: {"from": str(trained(name, folder.parent / name))})


def untrained(chosen: Recipe) -> Recipe:
    """The recipe with what it takes from other recipes as it is before training: what a cost is told by."""
    return _with_nets(chosen, lambda name: values.to_json(_pictures(recipe(name))))


def _with_nets(chosen: Recipe, found) -> Recipe:
    streams = {}
    for name, stream in chosen.model.streams.items():
        place = str((stream.codec.get("nets") or {}).get("from", ""))
        if place.startswith(MARK):
            stream = replace(stream, codec={**stream.codec, "nets": found(place.removeprefix(MARK))})
        streams[name] = stream
    return replace(chosen, model=replace(chosen.model, streams=streams))


def _pictures(inner: Recipe) -> dict:
    """The codec of the stream that does not speak."""
    return next(s.codec for name, s in inner.model.streams.items() if name != inner.model.speaker)


def trained(name: str, folder: Path) -> Path:
    """The folder of the recipe's run, trained now unless it was.

    Raises:  ValueError in one of several processes of torchrun, if it was not.
    """
    from mixmodal.parallel import joined
    from mixmodal.train import train_as

    inner, about = recipe(name), folder / "model" / "config.json"
    if about.exists():
        told = json.loads(about.read_text(encoding="utf8")).get("about", {})
        if told.get("steps") == told.get("of_steps"):
            print(f"{name} is trained already: {folder}")
            return folder
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"this recipe stands on {name}, which is not trained: mixmodal train {name} --out {folder}")
    print(f"first {name}, in {folder}: what this recipe stands on")
    kept = folder / "recipe.json"
    if kept.exists():
        inner = values.from_json(Recipe, json.loads(kept.read_text(encoding="utf8")), "recipe")
    with joined(False) as ranks:
        train_as(ranks, inner, folder, kept.exists())
    return folder
