"""The command that audits data and what holds it. It imports what it needs when it runs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tyro.conf import Positional


@dataclass
class Audit:
    """Tell what pictures hold in bits, what tokenizers and designs carry of them, and what remains."""

    data: Positional[str]
    """What `mixmodal data check` takes, or a world: scenes, glyphs, digits."""
    model: tuple[str, ...] = ()
    """Tokenizers and designs: a run's folder, a model's folder, builtin:NAME, hub:OWNER/NAME, or recipe:NAME."""
    n: int = 100
    """How many held-out pictures."""
    minutes: float = 0.0
    """Train a small model over the values of the training pictures for so long first, and code with it."""
    out: Path = Path("runs")
    """Folder for what is trained here: --minutes, recipe:NAME."""
    set: tuple[str, ...] = ()
    """Options of the data as key=value, for example size=32 level=two."""
    seed: int = 0
    """Which pictures are drawn."""
    json: Path | None = None
    """File for all figures."""
    plot: Path | None = None
    """File for a picture of the rates."""

    def run(self) -> None:
        """Print the table."""
        if self.n < 1:
            raise ValueError(f"--n is {self.n}: take 1 or more")
        if self.minutes < 0:
            raise ValueError(f"--minutes is {self.minutes:g}: take 0 or more")
        for file in filter(None, (self.json, self.plot)):
            writable(file)
        from mixmodal.api import load
        from mixmodal.chain import MARK, trained
        from mixmodal.data import has_splits, make_source
        from mixmodal.data.mixing import Mixture
        from mixmodal.data.opening import described
        from mixmodal.judge.audit import audit

        spec = described(self.data, **options(self.set))
        source = make_source({"split": "heldout", **spec} if has_splits(spec) else spec)
        drawn = Mixture([(source, 1)], self.seed).preview(self.n if source.size is None else min(self.n, source.size))
        models = {}
        for where in self.model:
            name = where.removeprefix(MARK)
            place = trained(name, self.out / name) if where.startswith(MARK) else where
            loaded = load(place)
            short = Path(where).name if name == where else name
            models[where if short in models else short] = (loaded.model, loaded.about)
        if self.minutes:
            loaded = load(self._trained(spec))
            models["values"] = (loaded.model, loaded.about)
        found = audit(self.data, drawn, models)
        print("\n".join(found.lines()))
        if self.json:
            from mixmodal.checkpoint import write_json

            self.json.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.json, {**found.as_json(), "seed": self.seed, "set": list(self.set)})
        if self.plot:
            from mixmodal.track import bars

            self.plot.parent.mkdir(parents=True, exist_ok=True)
            bars(found.bars(), "bits a byte").save(self.plot)

    def _trained(self, spec: dict[str, Any]) -> Path:
        """The run of a small model over values, trained on the pictures that are not held out."""
        from dataclasses import replace

        from mixmodal.chain import finished
        from mixmodal.recipes import recipe
        from mixmodal.train import train

        chosen = recipe("values_squares")
        squares = {**chosen.sources["squares"], "of": spec}
        chosen = replace(chosen, sources={"squares": squares}, valid={}, minutes=self.minutes)
        made_of = sha256(json.dumps([squares, self.minutes], sort_keys=True).encode()).hexdigest()[:8]
        folder = self.out / f"audit_{Path(self.data).stem}_{made_of}"
        if finished(folder):
            print(f"a model of these values is trained already: {folder}")
            return folder
        return train(chosen, folder, resume=(folder / "recipe.json").exists())


def writable(file: Path) -> None:
    """Refuse a place for a file before the work that it is to hold.

    Raises:  OSError or ValueError that says why.
    """
    if file.is_dir():
        raise ValueError(f"{file} is a folder: name a file in it")
    file.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise PermissionError(f"{file} cannot be written: name another place")


def options(settings: tuple[str, ...]) -> dict[str, Any]:
    """Settings of data, key=value, as a mapping; values are read as JSON or as .5, else as text."""
    from mixmodal.config import value_of

    out: dict[str, Any] = {}
    for setting in settings:
        key, equals, raw = setting.partition("=")
        if not equals:
            raise ValueError(f"setting {setting!r} has no '=': write key=value, for example size=32")
        out[key] = value_of(raw)
    return out
