"""Ragged batches in fixed rows: the block is compiled once, whatever documents come."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import picture, small_model
from tiny import RECIPE, hasten

from mixmodal import compute
from mixmodal import train as training
from mixmodal.optim import make_optimizers
from mixmodal.parts import Document, Image, Text
from mixmodal.sequence import Batch, Sequence, collate, fitting_row
from mixmodal.trunk import run_block

ROWS, LENGTH, WARM, BATCHES = 3, 96, 20, 200


def ragged(rng: np.random.Generator, number: int) -> Document:
    """A document of random length: text alone, pictures of random size, both orders, interleaved."""

    def text() -> Text:
        return Text(" ".join(["red", "blue", "ring"][i] for i in rng.integers(0, 3, rng.integers(1, 9))))

    def drawn(wanted: bool) -> Image:
        part = picture(number, *(int(4 * side) for side in rng.integers(1, 4, 2)))
        return Image(part.pixels, wanted=wanted)

    kinds = [
        lambda: (text(),),
        lambda: (text(), drawn(True)),
        lambda: (drawn(False), text()),
        lambda: (drawn(True),),
        lambda: (text(), drawn(False), text(), drawn(True)),
        lambda: (drawn(False), drawn(False), text()),
    ]
    return Document(kinds[rng.integers(len(kinds))](), key=number)


def batches(model, count: int):
    """Batches of [ROWS, LENGTH], each packed with as many documents as fit; some hold next to nothing."""
    rng = np.random.default_rng(0)
    blank, number = model.blank(), 0
    for _ in range(count):
        room, plan, sequences = [LENGTH] * ROWS, [[] for _ in range(ROWS)], []
        most = int(rng.integers(1, 12))
        while len(sequences) < most:
            number += 1
            sequence: Sequence = model.lay_out(ragged(rng, number), np.random.default_rng(number))
            row = fitting_row(room, len(sequence))
            if row is None:
                break
            plan[row].append(len(sequences))
            room[row] -= len(sequence)
            sequences.append(sequence)
        yield collate(sequences, plan, LENGTH, blank)


@pytest.fixture(params=[{}])
def compiled(request):
    """A small model whose block is compiled as in training, but for the backend; and how often it was compiled."""
    torch._dynamo.reset()
    model, graphs = small_model(trunk=request.param), []

    def backend(graph, inputs):
        graphs.append(len(inputs))
        return graph.forward

    model.trunk.run_block = torch.compile(run_block, dynamic=False, backend=backend)
    yield model, graphs
    torch._dynamo.reset()


@pytest.mark.parametrize(("compiled", "count"), [({}, BATCHES), ({"experts": 2}, 60)], indirect=["compiled"])
def test_no_batch_of_two_hundred_makes_the_block_compile_anew_after_the_first_twenty(compiled, count):
    model, graphs = compiled
    breaks = torch._dynamo.utils.counters["graph_break"]
    breaks.clear()
    slots, filled = set(), set()
    for number, batch in enumerate(batches(model, count)):
        if number == WARM:
            after_warming = len(graphs)
        losses = model.losses(batch)
        sum(total for total, _ in losses.values()).backward()
        slots.add(tuple(len(s.embed_at) for s in batch.slots.values()))
        filled.add(int((batch.place.doc >= 0).sum()))
    assert len(filled) > count // 4, "the batches were not ragged"
    assert len(graphs) == after_warming, f"{len(graphs) - after_warming} recompilations"
    assert len(graphs) == 1, "one graph serves every layer"
    assert not breaks, dict(breaks)


def test_validation_between_steps_compiles_nothing(compiled, monkeypatch):
    """Without gradients the block would be another graph: some twenty seconds in the middle of a run."""
    model, graphs = compiled
    hasten(monkeypatch)
    run = training.prepare(RECIPE)
    run.model.trunk.run_block = block = model.trunk.run_block
    optimizers = make_optimizers(run.model.groups(), RECIPE.optim)
    for _ in range(2):
        training.train_step(run, run.loader.next(0.0), optimizers)
        assert training.validate(run, RECIPE)["losses"] and run.model.trunk.run_block is block
    assert len(graphs) == 1


@pytest.mark.parametrize("compiled", [{}, {"experts": 2}], indirect=True)
def test_the_compiled_block_says_what_the_plain_one_says(compiled):
    model, _ = compiled
    batch: Batch = next(batches(model, 1))
    with torch.no_grad():
        found = model(batch)
        model.trunk.run_block = run_block
        expected = model(batch)
    seen = batch.place.doc >= 0
    assert torch.allclose(found[seen], expected[seen], rtol=1e-4, atol=1e-5)


def test_another_shape_of_batch_would_be_noticed(compiled):
    """The count above can tell: rows of another length compile anew."""
    model, graphs = compiled
    sequence = model.lay_out(Document((Text("red"),)), np.random.default_rng(0))
    for length in (32, 48, 32):
        model(collate([sequence], [[0]], length, model.blank()))
    assert len(graphs) == 2


def test_a_gpu_that_cannot_compile_says_why(monkeypatch):
    """On machines without a compiler for it training would end at its first step."""
    assert not compute.uncompiled("plain", "cuda"), "of a GPU elsewhere the best is assumed"
    able = {"is_available": lambda: True, "get_device_capability": lambda: (6, 1), "get_device_name": lambda: "P100"}
    for name, told in able.items():
        monkeypatch.setattr(torch.cuda, name, told)
    assert "P100 is older" in compute.uncompiled("plain", "cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(compute.importlib.util, "find_spec", lambda name: None)
    assert "Triton is not installed" in compute.uncompiled("plain", "cuda")
    monkeypatch.setattr(compute.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(compute.shutil, "which", lambda name: None)
    assert "no C compiler" in compute.uncompiled("plain", "cuda")


def test_a_gpu_that_only_emulates_bf16_takes_fp32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert compute.fast_dtype("cuda") == torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert compute.fast_dtype("cuda") == torch.bfloat16
