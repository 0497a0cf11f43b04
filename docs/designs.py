"""The README's table of designs, made from the files themselves: `python docs/designs.py` writes it anew.

Each line is a design: its file, its cell of the table, the recipe that trains it, and what its newest scores say.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixmodal.config import Recipe
from mixmodal.recipes import recipes

ROOT = Path(__file__).resolve().parents[1]
OPTIONS_OF, OPTIONS = "lossless", "mixmodal.recipes.designs"  # whose options are recipes of their own, and where
COMPARED = "options"  # the comparison whose arms stand for recipes that have no result of their own
BEGIN, END = "<!-- designs: written by docs/designs.py -->", "<!-- end of designs -->"


def table() -> str:
    """The table as markdown."""
    lines = [
        "| design | codec + objective (+ head) of its pictures | recipe | steps | exact pictures | exact text |",
        "|---|---|---|---|---|---|",
    ]
    files = [f for f in sorted((ROOT / "mixmodal/designs").glob("[a-z]*.py")) if f.stem != "tokenizer"]
    for file in files:
        title = ast.get_docstring(ast.parse(file.read_text("utf8"))).splitlines()[0].partition(":")[0]
        own = {name: function for name, function in recipes().items() if name.startswith(f"{file.stem}_")}
        lines += [line(title, file, name, function) for name, function in own.items()]
        if file.stem == OPTIONS_OF:  # the same design on another trunk, or with another prediction
            named = tuple(f"{other.stem}_" for other in files)
            for name, function in recipes().items():
                if name.endswith("_two") and function.__module__ == OPTIONS and not name.startswith((*named, "token")):
                    lines.append(line(f"{title}, {name.removesuffix('_two')}", file, name, function))
    return "\n".join(lines)


def line(title: str, file: Path, name: str, function: Callable[[], Recipe]) -> str:
    """One recipe of a design."""
    recipe, source = function(), Path(inspect.getsourcefile(function)).relative_to(ROOT)
    steps, pictures, text = scores(name)
    return (
        f"| [{title}](mixmodal/designs/{file.name}) | {cell(recipe)} | [`{name}`]({source}) |"
        f" {steps} | {pictures} | {text} |"
    )


def cell(recipe: Recipe) -> str:
    """The kinds of the stream that does not speak."""
    stream = next(s for name, s in recipe.model.streams.items() if name != recipe.model.speaker)
    kinds = [spec["kind"] for spec in (stream.codec, stream.objective, stream.head) if spec]
    return " + ".join(f"`{kind}`" for kind in (kinds[:1] if stream.role == "read" else kinds)) + (
        ", read only" if stream.role == "read" else ""
    )


def scores(name: str) -> tuple[str, str, str]:
    """Steps, exact pictures and exact text of a recipe's newest result, each a dash where nothing was measured."""
    file = ROOT / "docs/results" / f"{name}.json"
    if file.exists():
        found, link = json.loads(file.read_text("utf8")), f"(docs/results/{file.name})"
    elif (arm := compared(name)) is not None:
        found, link = {"steps": arm["steps"][0], **arm["scores"]}, f"(docs/results/{COMPARED}.html)"
    else:
        return "–", "–", "–"

    def told(key: str) -> str:
        if not (value := found.get(key)):
            return "–"
        return f"[{100 * value['value']:.0f} %]{link} ({100 * value['low']:.0f}–{100 * value['high']:.0f})"

    return f"{found.get('steps', '–')}", told("text_to_image.exact"), told("image_to_text.exact")


def compared(name: str) -> dict[str, Any] | None:
    """The arm of the comparison of options that is of this recipe; None where there is none."""
    file = ROOT / "docs/results" / f"{COMPARED}.json"
    arms = json.loads(file.read_text("utf8"))["arms"].values() if file.exists() else ()
    return next((arm for arm in arms if arm["recipe"] == name), None)


def written(readme: str) -> str:
    """The README with the table between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(written(page.read_text("utf8")), "utf8")
