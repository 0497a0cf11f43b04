"""The suite `glyphs`: words never seen, read from their picture, written as one, and copied from one."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixmodal.data import make_source
from mixmodal.judge.glyphs import likeness, read
from mixmodal.judge.intervals import mean_share, rate
from mixmodal.judge.suites import Exam
from mixmodal.parts import Document, Image, Text


def examine(exam: Exam) -> dict[str, Any]:
    """Rates of words read and written rightly: held-out words, and held-out words in the held-out font.

    What is written and copied may be of another level than what is read, the option `writes`.
    """
    spec, wanted = _asked(exam)
    world, easier = _worlds(spec)
    scores: dict[str, Any] = {"level": world.level.name, "size": list(world.picture)}
    for split, prefix in (("heldout", ""), ("font", "heldout_font.")):
        if split not in wanted:
            continue
        rng = np.random.default_rng([exam.seed, 11 if split == "heldout" else 12])
        glyphs = [world.draw(rng, split) for _ in range(exam.n)]
        words, pictures = [glyph.word for glyph in glyphs], [world.render(glyph) for glyph in glyphs]
        if exam.makes(Text.medium):
            shown = [
                Document((Image(picture, wanted=False), Text(world.caption(glyph))))
                for picture, glyph in zip(pictures, glyphs, strict=True)
            ]
            said = [made.parts[-1].text.replace(" ", "") for made in exam.answers(shown)]
            scores[f"{prefix}image_to_text.exact"] = rate(a == b for a, b in zip(said, words, strict=True))
            scores[f"{prefix}image_to_text.letters"] = mean_share(
                likeness(a, b) for a, b in zip(said, words, strict=True)
            )
        if split == "font" or not exam.makes(Image.medium):
            continue  # a prompt does not name the font, so writing is asked once
        if easier is not world:
            scores["writes"] = easier.level.name
            glyphs = [easier.draw(rng, split) for _ in range(exam.n)]
            words, pictures = [glyph.word for glyph in glyphs], [easier.render(glyph) for glyph in glyphs]
        asked = [
            Document((Text(easier.caption(glyph)), Image(picture)))
            for picture, glyph in zip(pictures, glyphs, strict=True)
        ]
        scores |= _written(exam, asked, words, "text_to_image")
        if _copies(exam):
            asked = [
                Document((Image(picture, wanted=False), Text(easier.copying(glyph), wanted=False), Image(picture)))
                for picture, glyph in zip(pictures, glyphs, strict=True)
            ]
            scores |= _written(exam, asked, words, "image_to_image")
    return scores


def questions(exam: Exam) -> list[Document]:
    """Documents that end in a word to write."""
    world, rng = _worlds(_asked(exam)[0])[1], np.random.default_rng([exam.seed, 5])
    drawn = [world.draw(rng, "heldout") for _ in range(exam.n)]
    return [Document((Text(world.caption(thing)), Image(world.render(thing)))) for thing in drawn]


def _asked(exam: Exam) -> tuple[dict[str, Any], list[str]]:
    """What is asked about, and the splits."""
    spec = {**exam.source("glyphs"), **exam.options}
    return spec, spec.pop("splits", "heldout font").split()


def _worlds(spec: dict[str, Any]) -> tuple[Any, Any]:
    """The world that is read and the one that is written."""
    writes = spec.pop("writes", None)
    world = make_source({**spec, "split": "heldout"})
    return world, world if writes is None else make_source({**spec, "level": writes, "split": "heldout"})


def _written(exam: Exam, asked: list[Document], words: list[str], name: str) -> dict[str, Any]:
    """How the words in the pictures that the model makes are read."""
    drawn = [read(made.parts[-1].pixels) for made in exam.answers(asked)]
    return {
        f"{name}.exact": rate(a == b for a, b in zip(drawn, words, strict=True)),
        f"{name}.letters": mean_share(likeness(a or "", b) for a, b in zip(drawn, words, strict=True)),
    }


def _copies(exam: Exam) -> bool:
    """Whether the model has been shown how a word is copied."""
    return any((spec.get("tasks") or {}).get("copy") for spec in exam.about.get("sources", {}).values())
