"""What runs on real data draw and say of what they never saw: `python docs/gallery.py RUN ...` adds each.

A run leaves docs/results/gallery_RECIPE.json and, where it knows pictures, docs/pictures/gallery_RECIPE.png; the page
is made of all that lie there.
"""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixmodal import load
from mixmodal.data import make_mixture
from mixmodal.judge.intervals import rate
from mixmodal.judge.intervals import told as share
from mixmodal.judge.suites import Exam, bits_of_words, examine
from mixmodal.parts import Document, Image, Text
from mixmodal.recipes import recipes
from mixmodal.track import sheet

HERE = Path(__file__).parent
SHOWN, ASKED = 16, 200
WARM = 0.8  # the temperature of texts that nothing is asked of: the likeliest one would be told again and again
HEAD = """# Gallery

Real data, held out, drawn by a seed and not picked, one sample each. On the left of a pair the true picture,
on the right what was drawn from the words below it; or below one picture what is true and what was written. Distances
are Frechet's between features of random convolutions (`mixmodal eval RUN --suite likeness`), of as many pictures as
were `asked`, beside that between two halves of the true ones (`floor`, of half as many, and so higher). Captions are
exact where not a letter differs. One seed each; written by `docs/gallery.py`.
"""


def shown(run: str) -> dict[str, Any]:
    """What is told of a run; its pictures are written."""
    folder, model = Path(run), load(run)
    kept = json.loads((folder / "recipe.json").read_text("utf8"))
    mixture = make_mixture(kept["valid"], 2)
    documents = mixture.preview(ASKED)
    pictured = any(isinstance(part, Image) for document in documents for part in document.parts)
    chosen = [cut(document) if number % 2 else document for number, document in enumerate(documents[:SHOWN])]
    settings = model.settings(temperature=None if pictured else WARM)
    pairs = list(zip(chosen, model.generate([document.emptied() for document in chosen], settings), strict=True))
    spec = next(iter(kept["valid"].values()))
    exam = Exam(model.model, model.about, ASKED, settings=model.settings(), dtype=model.dtype, options={"source": spec})
    scores: dict[str, Any] = {}
    if pictured:
        sheet(pairs).save(HERE / "pictures" / f"gallery_{kept['name']}.png")
        scores = {k: v for k, v in examine("likeness", exam).items() if k not in ("settings", "suite", "seconds")}
        told = [d for d in documents if isinstance(d.parts[0], Image) and isinstance(d.parts[-1], Text)]
        written = [made.parts[-1].text for made in model.generate([document.emptied() for document in told])]
        scores["image_to_text.asked"] = len(told)
        scores["image_to_text.exact"] = rate(text == d.parts[-1].text for text, d in zip(written, told, strict=True))
    else:
        scores["text.bits_per_byte"] = bits_of_words(exam, documents)
    about = {key: model.about[key] for key in ("steps", "seconds")}
    return {"recipe": kept["name"], **about, "seed": kept["seed"], "scores": scores, "said": said(pairs)}


def cut(document: Document) -> Document:
    """The document up to its last picture, where words come before that."""
    at = max((n for n, part in enumerate(document.parts) if isinstance(part, Image)), default=0)
    last = replace(document.parts[at], wanted=True) if at else None
    return replace(document, parts=(*document.parts[:at], last)) if at else document


def said(pairs: list[tuple[Document, Document]]) -> list[str]:
    """What was written where no picture was."""
    alone = [made for true, made in pairs if not any(isinstance(part, Image) for part in true.parts)]
    return [made.parts[-1].text for made in alone if isinstance(made.parts[-1], Text)][:6]


def page() -> str:
    """The gallery, from what lies in docs/results."""
    out = [HEAD]
    for file in sorted((HERE / "results").glob("gallery_*.json")):
        run = json.loads(file.read_text("utf8"))
        name, minutes = run["recipe"], run["seconds"] / 60
        first = inspect.getdoc(recipes()[name]).splitlines()[0]
        out += [f"## {name}", "", first, "", f"{run['steps']:,} steps, {minutes:.0f} minutes, seed {run['seed']}:"]
        for score, value in run["scores"].items():
            if isinstance(value, (int, float, dict)):
                out.append(f"- `{score}` {share(value) if isinstance(value, dict) else f'{value:.4g}'}")
        if (HERE / "pictures" / f"gallery_{name}.png").exists():
            out += ["", f"![What {name} draws and writes](pictures/gallery_{name}.png)"]
        out += [*(f"\n> {text}" for text in run["said"]), ""]
    return "\n".join(out)


if __name__ == "__main__":
    for run in sys.argv[1:]:
        found = shown(run)
        (HERE / "results" / f"gallery_{found['recipe']}.json").write_text(json.dumps(found, indent=1) + "\n", "utf8")
    (HERE / "gallery.md").write_text(page(), "utf8")
