"""How a run does on documents that it is not trained on: losses by level of noise, and what it makes of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mixmodal.config import Recipe
from mixmodal.data import make_mixture
from mixmodal.generate import Request, generate
from mixmodal.model import Model, Stream
from mixmodal.parts import Document, Image, Text
from mixmodal.sampling import Settings
from mixmodal.sequence import collate, fitting_row
from mixmodal.trunk import run_block

if TYPE_CHECKING:
    from mixmodal.prepare import Run

GRID = tuple((i + 0.5) / 10 for i in range(10))  # fixed noise levels of validation
VALID_DOCUMENTS = 24
SAMPLED = 16
TOKENS = 60  # of each text, at most


@torch.no_grad()
def validate(run: Run, recipe: Recipe) -> dict[str, float | dict[str, float] | dict[str, list[float]]]:
    """Losses on fixed documents at fixed noise levels, comparable between time laws; by level of noise; their score.

    The score is their sum, weighed as in training; there is none where no document fits a row.
    """
    documents = _documents(run, recipe, 1, VALID_DOCUMENTS)
    path = "segments" if recipe.path == "flex" else recipe.path  # not compiled, flex would hold every score
    totals: dict[str, list[float]] = {}
    levels: dict[str, list[Tensor]] = {}
    sequences = []
    for number, document in enumerate(documents):
        for level, t in enumerate(GRID):
            rng = np.random.default_rng([recipe.seed, number, level])
            sequence = run.model.lay_out(document, rng, 1.0, (t,))
            if len(sequence) <= recipe.length:
                sequences.append(sequence)
    run.model.eval()
    trunk, compiled = run.model.trunk, run.model.trunk.run_block
    trunk.run_block = run_block  # without gradients a compiled one would be compiled anew
    while sequences:
        plan, room, chosen = [[] for _ in range(recipe.rows)], [recipe.length] * recipe.rows, []
        while sequences and (row := fitting_row(room, len(sequences[-1]))) is not None:
            plan[row].append(len(chosen))
            room[row] -= len(sequences[-1])
            chosen.append(sequences.pop())
        batch = collate(chosen, plan, recipe.length, run.model.blank()).to(run.device)
        hidden = run.model(batch, path, run.dtype).flatten(0, 1)
        for name, slots in batch.slots.items():
            stream = run.model.streams[name]
            for loss, pair in stream.losses(hidden, slots).items():
                total = totals.setdefault(f"{name}.{loss}", [0.0, 0.0])
                total[0] += float(pair[0])
                total[1] += float(pair[1])
            if stream.role != "read" and hasattr(stream.objective, "levels"):
                at = hidden[slots.predict_at]
                found = torch.stack(stream.objective.levels(stream.codec, at, slots.predict))
                levels[name] = [found + levels[name][0]] if name in levels else [found]
    run.model.train()
    trunk.run_block = compiled
    means = {name: total / max(count, 1e-8) for name, (total, count) in totals.items()}
    weights = run.model.weights()
    score = sum(mean * weights[name.split(".")[0]] for name, mean in means.items())
    return {
        "losses": means,
        "score": score if means else math.nan,
        "levels": {n: (f[0][0] / f[0][1].clamp(min=1)).tolist() for n, f in levels.items()},
    }


def sample(run: Run, recipe: Recipe) -> list[tuple[Document, Document]]:
    """Some validation documents, and the recipe's prompts, each with what the model makes of its last part."""
    documents = _documents(run, recipe, 2, SAMPLED)
    if any(s.medium == Image.medium and s.role != "read" and not _rebuilds(s) for s in run.model.streams.values()):
        documents += [Document((Text(prompt), Image(size=recipe.sample_size))) for prompt in recipe.prompts]
    requests = [
        Request(
            replace(d.emptied(), key=number),
            Settings(steps=recipe.steps_sampled, guidance=recipe.guidance, max_tokens=TOKENS),
            seed=0,
        )
        for number, d in enumerate(documents)
    ]
    run.model.eval()
    asked = [number for number, d in enumerate(documents) if not _rebuilds(run.model.writer(d.parts[-1].medium))]
    made = dict(zip(asked, generate(run.model, [requests[number] for number in asked], dtype=run.dtype), strict=True))
    made |= {number: _rebuilt(run.model, d) for number, d in enumerate(documents) if number not in made}
    run.model.train()
    return [(document, made[number]) for number, document in enumerate(documents)]


def _documents(run: Run, recipe: Recipe, seed: int, count: int) -> list[Document]:
    """The first documents of `valid` by this seed, read once a run: finding them may take a walk over all files."""
    if seed not in run.watched:
        run.watched[seed] = make_mixture(recipe.valid, seed).preview(count)
    return list(run.watched[seed])


def _rebuilds(stream: Stream) -> bool:
    """Whether a stream makes nothing by itself, but shows what it makes of what is there."""
    return hasattr(stream.objective, "rebuild")


@torch.inference_mode()
def _rebuilt(model: Model, document: Document) -> Document:
    """The document with its last part as it comes back out."""
    part = document.parts[-1]
    stream = model.writer(part.medium)
    return replace(document, parts=(*document.parts[:-1], stream.objective.rebuild(stream.codec, part)))
