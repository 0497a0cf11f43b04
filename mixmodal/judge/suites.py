"""Suites: what a model is asked, and the exact scores of what it answers. Found by file name, `suite_*.py`."""

from __future__ import annotations

import importlib
import pkgutil
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from mixmodal import judge
from mixmodal.config import unknown
from mixmodal.data import OF_MIXTURE, make_source
from mixmodal.generate import Request, generate
from mixmodal.judge.intervals import told
from mixmodal.model import Model
from mixmodal.parts import Document
from mixmodal.sampling import Settings
from mixmodal.sequence import collate

FEWEST = 4  # questions by which anything is told
PROSE_DOCUMENTS = 200


@dataclass(eq=False)
class Exam:
    """A model to be asked, and how: `options` are the suite's own (level, size, split, ...).

    `only` asks for parts of one medium alone.
    """

    model: Model
    about: dict
    n: int = 500
    seed: int = 0
    settings: Settings = field(default_factory=Settings)
    dtype: torch.dtype = torch.float32
    options: dict[str, Any] = field(default_factory=dict)
    watch: Any = None
    only: str = ""

    def answers(self, documents: list[Document]) -> list[Document]:
        """Each document with its last part made by the model, one sample each."""
        requests = [
            Request(replace(document.emptied(), key=number), self.settings, self.seed)
            for number, document in enumerate(documents)
        ]
        return generate(self.model, requests, live=128, dtype=self.dtype, watch=self.watch)

    def makes(self, medium: str) -> bool:
        """Whether the model has learned to make parts of this medium, and is to."""
        if self.only not in ("", medium):
            return False
        streams = self.model.streams.values()
        return any(s.medium == medium and s.role != "read" and s.weight > 0 for s in streams)

    def source(self, kind: str) -> dict[str, Any]:
        """The options of the source of this kind that the model's training drew most from at its end."""
        specs = [s for s in self.about.get("sources", {}).values() if s.get("kind") == kind and "until" not in s]
        if not specs:
            return {"kind": kind}
        most = max(specs, key=lambda spec: spec.get("share", 1.0))
        return {key: value for key, value in most.items() if key not in (*OF_MIXTURE[1:], "tasks", "kinds")}


SPLITS = {"heldout", "unseen", "font"}  # what worlds keep out of training


def suites() -> list[str]:
    """The names of the suites."""
    found = (module.name for module in pkgutil.iter_modules(judge.__path__))
    return sorted(name.removeprefix("suite_") for name in found if name.startswith("suite_"))


def examine(suite: str, exam: Exam) -> dict[str, Any]:
    """The scores of a suite, flat by name, with `n`, `seed`, `seconds` and the settings they were made with.

    Raises:  ValueError for an unknown suite.
    """
    if suite not in suites():
        raise ValueError(unknown(f"suite {suite!r}", suite, suites()))
    began = time.perf_counter()
    splits = SPLITS | {tuning(suite).get("splits", "heldout")}
    if "splits" in exam.options and not set(str(exam.options["splits"]).split()) <= splits:
        raise ValueError(
            f"splits is {exam.options['splits']!r}: name some of {', '.join(sorted(splits))}, blanks between"
        )
    scores = _module(suite).examine(exam)
    if not exam.only:
        scores["text.bits_per_byte"] = bits_per_byte(exam)
    return {
        "suite": suite,
        **scores,
        "n": exam.n,
        "seed": exam.seed,
        "seconds": round(time.perf_counter() - began, 1),
        "settings": {key: getattr(exam.settings, key) for key in exam.settings.__dataclass_fields__},
    }


def tuning(suite: str) -> dict[str, Any]:
    """The options with which a suite asks what is none of its test, for who tunes."""
    return dict(getattr(_module(suite), "TUNED", {}))


def questions(suite: str, exam: Exam) -> list[Document]:
    """`exam.n` held-out documents of a suite that end in a picture to be drawn: the same for every model."""
    return _module(suite).questions(exam)


def asks_for_pictures(suite: str) -> bool:
    """Whether a suite has pictures drawn, and can tell what it asks."""
    return hasattr(_module(suite), "questions")


def _module(suite: str) -> Any:
    return importlib.import_module(f"mixmodal.judge.suite_{suite}")


@torch.inference_mode()
def bits_per_byte(exam: Exam) -> float | None:
    """Bits that the model spends on a byte of held-out prose; None where it learned none or its loss bounds nothing."""
    learned = any(spec.get("kind") in ("prose", "file") for spec in exam.about.get("sources", {}).values())
    writer = exam.model.writer(exam.model.speaker.medium)
    if not learned or not writer.weight or not getattr(writer.objective, "bounds", True):
        return None
    prose = make_source({"kind": "prose", "split": "heldout"})
    numbers = range(min(prose.size, PROSE_DOCUMENTS))
    return bits_of_words(exam, [prose.document(number, np.random.default_rng(number)) for number in numbers])


@torch.inference_mode()
def bits_of_words(exam: Exam, documents: list[Document]) -> float:
    """Bits that the model spends on a byte of the last parts, which are words; of masked words a bound from above.

    What stands before them is shown, and not counted.
    """
    device, name = next(exam.model.parameters()).device, exam.model.writer(exam.model.speaker.medium).name
    nats = spelled = 0.0
    for number, document in enumerate(documents):
        rng = np.random.default_rng(number)
        *before, last = document.parts
        document = replace(document, parts=(*(replace(part, wanted=False) for part in before), last))
        sequence = exam.model.lay_out(document, rng, times=(float(rng.random()),))  # once, whatever copies it trains on
        batch = collate([sequence], [[0]], len(sequence), exam.model.blank()).to(device)
        total, _ = exam.model.losses(batch)[f"{name}.nll"]
        nats += float(total)
        spelled += len(document.parts[-1].text.encode())
    return nats / spelled / float(np.log(2))


def lines(scores: dict[str, Any]) -> list[str]:
    """The scores as people read them."""
    out = []
    for name, value in scores.items():
        if isinstance(value, dict) and "value" in value:
            out.append(f"{name:38} {told(value)}")
        elif isinstance(value, float):
            out.append(f"{name:38} {value:6.3f}")
        elif name in ("level", "size", "split") or (isinstance(value, int) and not isinstance(value, bool)):
            out.append(f"{name:38} {value}")
    return out
