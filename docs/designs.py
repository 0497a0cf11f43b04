"""The README's table of designs, made from the files themselves: `python docs/designs.py` writes it anew.

Each line is a design: its file, its cell of the table, the recipe that trains it, and what its newest scores say.
"""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path

from mixmodal.config import Recipe
from mixmodal.recipes import recipes

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- designs: written by docs/designs.py -->", "<!-- end of designs -->"


def table() -> str:
    """The table as markdown."""
    lines = [
        "| design | codec + objective (+ head) of its pictures | recipe | steps | exact pictures | exact text |",
        "|---|---|---|---|---|---|",
    ]
    for file in sorted((ROOT / "mixmodal/designs").glob("[a-z]*.py")):
        if file.stem == "tokenizer":
            continue
        title = ast.get_docstring(ast.parse(file.read_text("utf8"))).splitlines()[0]
        for name, function in recipes().items():
            if not name.startswith(f"{file.stem}_"):
                continue
            recipe, source = function(), Path(inspect.getsourcefile(function)).relative_to(ROOT)
            steps, pictures, text = scores(name)
            lines.append(
                f"| [{title.partition(':')[0]}](mixmodal/designs/{file.name}) | {cell(recipe)} | [`{name}`]({source}) |"
                f" {steps} | {pictures} | {text} |"
            )
    return "\n".join(lines)


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
    if not file.exists():
        return "–", "–", "–"
    found = json.loads(file.read_text("utf8"))
    link = f"(docs/results/{file.name})"

    def told(key: str) -> str:
        if not (value := found.get(key)):
            return "–"
        return f"[{100 * value['value']:.0f} %]{link} ({100 * value['low']:.0f}–{100 * value['high']:.0f})"

    return f"{found.get('steps', '–')}", told("text_to_image.exact"), told("image_to_text.exact")


def written(readme: str) -> str:
    """The README with the table between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(written(page.read_text("utf8")), "utf8")
