"""What a trained arm of a comparison is worth: guidance tuned, scores, curves, samples, the price of a picture."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image as Picture

from mixmodal.api import Loaded, load
from mixmodal.checkpoint import checkpoints, home_step
from mixmodal.judge.costs import sampling_cost
from mixmodal.judge.suites import Exam, bits_per_byte, examine, questions
from mixmodal.parts import Document, Image
from mixmodal.stored import Stored
from mixmodal.train import read_metrics

if TYPE_CHECKING:
    from mixmodal.plan import Comparison

TEST, TUNING = 0, 1_000  # seeds of the questions: those that scores are told of are never tuned on
SHOWN = 8
PRICED = 4  # pictures by which the price of one is measured


def tuned(comparison: Comparison, folder: Path) -> dict[str, Any]:
    """The guidance and the weights (the last or the averaged ones) that draw best, of all that were tried."""
    loaded, tried = load(folder), []
    if not _draws(loaded):
        return {}
    for weights in _weights(folder):
        _put(loaded, folder, _last(folder), weights)
        for guidance in comparison.guidances:
            scores = _asked(comparison, loaded, {"guidance": guidance}, TUNING, Image.medium)
            tried.append({"guidance": guidance, "weights": weights, "score": _drawn(scores)})
    best = max(tried, key=lambda entry: entry["score"])
    return {"guidance": best["guidance"], "weights": best["weights"], "tried": tried}


def judged(comparison: Comparison, folder: Path, chosen: dict[str, Any], show: bool) -> dict[str, Any]:
    """All that is told of one run; where `show`, what it draws and writes too."""
    loaded = load(folder)
    weights, settings = chosen.get("weights", "weights"), {"guidance": chosen.get("guidance")}
    _put(loaded, folder, _last(folder), weights)
    if all(stream.medium != Image.medium for stream in loaded.model.streams.values()):
        return {"tuned": {}, "scores": {"text.bits_per_byte": bits_per_byte(Exam(loaded.model, loaded.about))}}
    told: dict[str, Any] = {"tuned": chosen, "scores": _asked(comparison, loaded, settings, TEST, n=comparison.n)}
    if not _draws(loaded):
        return told
    exam, told["samples"] = _exam(comparison, loaded, settings, TEST, SHOWN), []
    documents = questions(comparison.suite, exam)
    told["sampling"] = sampling_cost(exam, documents[:PRICED])
    if show:
        told["samples"] = [
            _shown(document, made) for document, made in zip(documents, exam.answers(documents), strict=True)
        ]
    told["evaluations"] = [
        {
            "steps": steps,
            **sampling_cost(_exam(comparison, loaded, settings | {"steps": steps}, TEST, 1), documents[:1]),
        }
        | {"scores": _asked(comparison, loaded, settings | {"steps": steps}, TEST, Image.medium)}
        for steps in comparison.evaluations
    ]
    seconds = {line["step"]: line["seconds"] for line in read_metrics(folder) if "seconds" in line}
    told["curve"] = []
    for step in map(home_step, checkpoints(folder)):
        _put(loaded, folder, step, weights)
        scores = _asked(comparison, loaded, settings, TEST, Image.medium)
        told["curve"].append({"step": step, "seconds": seconds.get(step), "scores": scores})
    return told


def _exam(comparison: Comparison, loaded: Loaded, settings: dict[str, Any], seed: int, n: int, only: str = "") -> Exam:
    chosen = loaded.settings(**settings)
    return Exam(loaded.model, loaded.about, n, seed, chosen, loaded.dtype, dict(comparison.options), only=only)


def _asked(
    comparison: Comparison, loaded: Loaded, settings: dict[str, Any], seed: int, only: str = "", n: int = 0
) -> dict[str, Any]:
    """The scores of the suite, those about speed left out: they are told elsewhere."""
    scores = examine(comparison.suite, _exam(comparison, loaded, settings, seed, n or comparison.few, only))
    return {name: value for name, value in scores.items() if name not in ("seconds", "settings", "suite")}


def _draws(loaded: Loaded) -> bool:
    return Exam(loaded.model, loaded.about).makes(Image.medium)


def _drawn(scores: dict[str, Any]) -> float:
    """How well pictures are drawn, as one number: exact ones, and what is right of the others; or how near they are."""
    if "text_to_image.exact" not in scores:
        return -scores["text_to_image.frechet"]
    found = [score["value"] for name, score in scores.items() if name.startswith("text_to_image.") and "value" in score]
    exact = scores["text_to_image.exact"]["value"]
    return exact + sum(found) / len(found)


def _last(folder: Path) -> int:
    return home_step(checkpoints(folder)[-1])


def _weights(folder: Path) -> list[str]:
    names = [file.name.partition(".")[0] for file in checkpoints(folder)[-1].glob("*.safetensors")]
    return [name for name in ("weights", "average") if name in names]


def _put(loaded: Loaded, folder: Path, step: int, weights: str) -> None:
    """The weights of a checkpoint into a model."""
    stored = Stored()
    for file in sorted((folder / "checkpoints" / f"step_{step:08d}").glob(f"{weights}*.safetensors")):
        stored.add(file)
    own = loaded.model.state_dict()
    loaded.model.load_state_dict({name: stored[name] if name in stored else own[name] for name in own})


def _shown(document: Document, made: Document) -> dict[str, str]:
    held = io.BytesIO()
    Picture.fromarray(made.parts[-1].pixels).save(held, "PNG")
    return {"prompt": document.parts[0].text, "png": base64.b64encode(held.getvalue()).decode()}
