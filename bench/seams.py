"""How steep a picture is at the edge of what was filled in, next to the true one: real pictures, held out.

`python bench/seams.py RUN [--n 48] [--seed 0]`, where RUN draws pictures and was validated on some. Of each a box is
hidden, three to seven tenths of its sides long, and filled without words and with those that the picture came with.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from mixmodal import load
from mixmodal.data import make_mixture
from mixmodal.filling import hidden
from mixmodal.judge.suite_inpainting import seam
from mixmodal.parts import Document, Image, Text


def boxed(pixels: np.ndarray, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a box anywhere in a picture."""
    out = []
    for side in pixels.shape[:2]:
        length = int(rng.uniform(0.3, 0.7) * side)
        first = int(rng.integers(0, side - length + 1))
        out.append(slice(first, first + length))
    return out[0], out[1]


def main() -> None:
    """Print one line for each way of asking."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--n", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model, rng = load(given.run), np.random.default_rng(given.seed)
    valid = json.loads((given.run / "recipe.json").read_text("utf8"))["valid"]
    shown, said = [], []
    for document in make_mixture(valid, 2).preview(4 * given.n):
        picture = next((part.pixels for part in document.parts if isinstance(part, Image)), None)
        if picture is not None and len(shown) < given.n:
            shown.append(picture)
            said.append(next((part.text for part in document.parts if isinstance(part, Text)), ""))
    boxes = [boxed(picture, rng) for picture in shown]
    steep = np.array([seam(picture, box) for picture, box in zip(shown, boxes, strict=True)])
    for told in (False, True):
        asked = []
        for number, (picture, words, (rows, columns)) in enumerate(zip(shown, said, boxes, strict=True)):
            part = hidden(picture, (rows.start, columns.start, rows.stop, columns.stop))
            asked.append(Document((Text(words), part) if told and words else (part,), key=number))
        filled = [document.parts[-1].pixels for document in model.generate(asked, model.settings(), given.seed)]
        made = np.array([seam(picture, box) for picture, box in zip(filled, boxes, strict=True)])
        pairs = np.stack([made, steep], 1)
        chance = np.random.default_rng(0).integers(0, len(pairs), (1000, len(pairs)))
        low, high = np.percentile(pairs[chance].mean(1)[:, 0] / pairs[chance].mean(1)[:, 1], (2.5, 97.5))
        print(
            f"{'with' if told else 'without'} words: {made.mean():.1f} grey levels at the edge, true"
            f" {steep.mean():.1f}: {made.mean() / steep.mean():.2f} times ({low:.2f} to {high:.2f}), n = {len(shown)}"
        )


if __name__ == "__main__":
    main()
