"""What a trained arm of a comparison is worth: guidance tuned, scores, curves, samples, the price of a picture."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image as Picture

from mixmodal.api import Loaded, load
from mixmodal.checkpoint import checkpoints, home_step
from mixmodal.data import OF_MIXTURE, has_splits, make_source
from mixmodal.data.mixing import readable
from mixmodal.data.opening import WORLDS
from mixmodal.judge.audit import remains
from mixmodal.judge.costs import sampling_cost
from mixmodal.judge.suites import Exam, bits_per_byte, examine, questions, tuning
from mixmodal.parts import Document, Image, Text
from mixmodal.plan import TEST, TUNING
from mixmodal.stored import Stored
from mixmodal.train import read_metrics

if TYPE_CHECKING:
    from mixmodal.plan import Comparison

STRONGEST = 16.0  # guidance that is tried where the best was the strongest so far
SHOWN = 8
PRICED = 4  # pictures by which the price of one is measured


def tuned(comparison: Comparison, folder: Path) -> dict[str, Any]:
    """The guidance and the weights (the last or the averaged ones) that draw best, of all that were tried."""
    loaded, tried = load(folder), []
    if not _draws(loaded):
        return {}
    comparison = replace(comparison, options={**comparison.options, **tuning(comparison.suite)})
    temperatures = comparison.temperatures if _cooled(loaded, None) else (None,)

    def tell(guidance: float, temperature: float | None, weights: str) -> None:
        _put(loaded, folder, _last(folder), weights)
        _cooled(loaded, temperature)
        scores = _asked(comparison, loaded, {"guidance": guidance}, TUNING, Image.medium)
        tried.append({"guidance": guidance, "temperature": temperature, "weights": weights, "score": _drawn(scores)})

    for weights, guidance, temperature in product(_weights(folder), comparison.guidances, temperatures):
        tell(guidance, temperature, weights)
    best = _foremost(tried)
    while best["guidance"] == max(entry["guidance"] for entry in tried) < STRONGEST:  # it may be better beyond
        tell(2 * best["guidance"], best["temperature"], best["weights"])
        best = _foremost(tried)
    return {**{name: value for name, value in best.items() if name != "score"}, "tried": tried}


def _foremost(tried: list[dict[str, Any]]) -> dict[str, Any]:
    return max(tried, key=lambda entry: entry["score"])


def judged(comparison: Comparison, folder: Path, chosen: dict[str, Any], show: bool) -> dict[str, Any]:
    """All that is told of one run; where `show`, what it draws too."""
    loaded, medium = load(folder), Image.medium
    if codec := next((s.codec for s in loaded.model.streams.values() if hasattr(s.codec, "rebuilt")), None):
        scores, writes = remains(codec, _held_out(comparison, loaded)), comparison.options.get("writes")
        if writes:  # what is to be written is of another level than what is read
            scores["written"] = remains(codec, _held_out(comparison, loaded, level=writes))["read"]
        return {"scores": scores}
    weights, settings = chosen.get("weights", _weights(folder)[-1]), {"guidance": chosen.get("guidance")}
    _put(loaded, folder, _last(folder), weights)
    _cooled(loaded, chosen.get("temperature"))
    if all(stream.medium != medium for stream in loaded.model.streams.values()):
        return {"tuned": {}, "scores": {"text.bits_per_byte": bits_per_byte(Exam(loaded.model, loaded.about))}}
    told: dict[str, Any] = {"tuned": chosen, "scores": _asked(comparison, loaded, settings, TEST, n=comparison.n)}
    if _draws(loaded):
        exam = _exam(comparison, loaded, settings, TEST, SHOWN)
        documents = questions(comparison.suite, exam)
        told["sampling"] = sampling_cost(exam, documents[:PRICED])
        made = exam.answers(documents) if show else []
        told["samples"] = [_shown(*pair) for pair in zip(documents, made, strict=False)]
        told["evaluations"] = []
        for steps in comparison.evaluations:
            some = settings | {"steps": steps}
            price = sampling_cost(_exam(comparison, loaded, some, TEST, 1), documents[:1])
            if told["evaluations"] and told["evaluations"][-1]["passes"] == price["passes"]:
                break  # one value after the other: steps change nothing
            scores = _asked(comparison, loaded, some, TEST, medium)
            told["evaluations"].append({"steps": steps, **price, "scores": scores})
    seconds = {line["step"]: line["seconds"] for line in read_metrics(folder) if "seconds" in line}
    told["curve"] = []
    for step in _planned(folder):
        _put(loaded, folder, step, weights)
        scores = _asked(comparison, loaded, settings, TEST, medium if _draws(loaded) else "")
        told["curve"].append({"step": step, "seconds": seconds[step], "scores": scores})
    return told


def _exam(comparison: Comparison, loaded: Loaded, settings: dict[str, Any], seed: int, n: int, only: str = "") -> Exam:
    chosen, about = loaded.settings(**settings), {"sources": next(iter(comparison.arms.values())).sources}
    shared = {}  # all are asked what the first arm has learned
    if comparison.suite in WORLDS:
        shared = {key: v for key, v in Exam(loaded.model, about).source(comparison.suite).items() if key != "kind"}
    options = {**shared, **comparison.options}
    return Exam(loaded.model, loaded.about, n, seed, chosen, loaded.dtype, options, only=only)


def _asked(
    comparison: Comparison, loaded: Loaded, settings: dict[str, Any], seed: int, only: str = "", n: int = 0
) -> dict[str, Any]:
    """The scores of the suite, those about speed left out: they are told elsewhere."""
    scores = examine(comparison.suite, _exam(comparison, loaded, settings, seed, n or comparison.few, only))
    return {name: value for name, value in scores.items() if name not in ("seconds", "settings", "suite")}


def _held_out(comparison: Comparison, loaded: Loaded, **more: Any) -> list[Document]:
    """Pictures that are asked for, which a tokenizer never saw; `more` changes options of their source."""
    learned = {k: v for k, v in next(iter(loaded.about["sources"].values())).items() if k not in OF_MIXTURE[1:]}
    spec = comparison.options.get("source") or learned
    if comparison.suite in WORLDS and spec["kind"] != comparison.suite:  # a tokenizer of another world
        asked = Exam(loaded.model, {"sources": next(iter(comparison.arms.values())).sources}).source(comparison.suite)
        spec = {**asked, "tasks": {"look": 1.0}}
    if has_splits(spec):
        spec = {"split": "heldout", **spec}
    source = make_source({**spec, **more})
    return list(readable(source, range(comparison.n), TEST))


def _cooled(loaded: Loaded, temperature: float | None) -> bool:
    """Whether what draws pictures does so at a temperature; if so, from now on at this one."""
    head = loaded.model.writer(Image.medium).head if _draws(loaded) else None
    able = getattr(getattr(head, "config", None), "temperature", 0) > 0
    if able and temperature is not None:
        head.config = replace(head.config, temperature=temperature)
    return able


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


def _planned(folder: Path) -> list[int]:
    """The steps of the checkpoints that were planned: not of those where a run was stopped."""
    every = json.loads((folder / "recipe.json").read_text(encoding="utf8"))["every"]
    found = [home_step(home) for home in checkpoints(folder)]
    return [step for step in found if step % every == 0 or step == found[-1]]


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
    prompt = next((part.text for part in document.parts if isinstance(part, Text)), "")
    return {"prompt": prompt, "png": base64.b64encode(held.getvalue()).decode()}
