"""Batches from a mixture: what a document draws is its own, stops change nothing, prompts are dropped as told."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np
import pytest
import torch
from conftest import WORDS, picture, small_model
from tiny import RECIPE, own_pictures

from mixmodal.data import loading
from mixmodal.data.ahead import Ahead
from mixmodal.data.folders import PictureFolder
from mixmodal.data.loading import Loader, shares_at
from mixmodal.data.mixing import Draw, Mixture
from mixmodal.parts import Document, Image, Text
from mixmodal.sequence import collate


class Pairs:
    """Pictures with captions, or the other way round; `long` ones fit into no row."""

    def __init__(self, name: str = "pairs", size: int | None = 40, long: bool = False) -> None:
        self.name, self.size, self.long = name, size, long

    def document(self, index: int, rng: np.random.Generator) -> Document:
        part = picture(index, 8, 4 + 4 * (index % 3))
        text = Text(WORDS[index % 2][: 5 + index % 30] * (30 if self.long else 1))
        return Document((text, part) if rng.random() < 0.5 else (Image(part.pixels, wanted=False), text))


@pytest.fixture(scope="module")
def model():
    return small_model(depth=1)


def loader(model, *sources: Pairs, specs: dict | None = None, **changes) -> Loader:
    """A loader of these sources; `specs` says for each how it is mixed."""
    sources = sources or (Pairs(),)
    specs = specs or {source.name: {} for source in sources}
    mixture = Mixture([(source, specs[source.name].get("share", 1.0)) for source in sources], 3)
    return Loader(mixture, model, replace(RECIPE, **{"drop_prompt": 0.0, "sources": specs, **changes}))


def equal(one, two) -> bool:
    same = torch.equal(one.coords_BL3, two.coords_BL3)
    for name, slots in one.slots.items():
        other = two.slots[name]
        same &= torch.equal(slots.embed_at, other.embed_at) and torch.equal(slots.predict_at, other.predict_at)
        same &= all(torch.equal(value, other.embed[key]) for key, value in slots.embed.items())
        same &= all(torch.equal(value, other.predict[key]) for key, value in slots.predict.items())
    return bool(same)


def drawn(batch) -> set:
    """The noise that the batch drew, as something that can be compared."""
    slots = batch.slots["patches"]
    return {tuple(v.tolist()) for v, w in zip(slots.predict["values"], slots.predict["weights"], strict=True) if w > 0}


def test_a_loader_goes_on_from_its_state_with_the_same_batches(model):
    whole, before, after = (loader(model) for _ in range(3))
    expected = [whole.next(0.0) for _ in range(9)]
    found = [before.next(0.0) for _ in range(4)]
    after.load(json.loads(json.dumps(before.state())))
    found += [after.next(0.0) for _ in range(5)]
    assert all(equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("rows", [2, 5])
def test_no_document_is_lost_or_doubled_between_batches(model, monkeypatch, rows):
    """Forty documents, each once in every round, however they are packed and whichever had to wait."""
    laid, packed = [], []

    class Spy:
        speaker, blank = model.speaker, model.blank

        def lay_out(self, document, *rest):
            sequence = model.lay_out(document, *rest)
            laid.append((sequence, document.key))
            return sequence

    def spying(sequences, *rest):
        packed.extend(next(key for held, key in laid if held is sequence) for sequence in sequences)
        return collate(sequences, *rest)

    monkeypatch.setattr(loading, "collate", spying)
    seen = loader(Spy(), rows=rows, length=64)
    while len(packed) < 100:
        seen.next(0.0)
    waiting = [Draw(*draw) for *draw, _ in seen.state()["waiting"]]
    times = Counter(packed + [draw.key for draw in waiting])
    drawn = seen.state()["mixture"]["number"]
    assert sum(times.values()) == drawn and len(times) == 40
    assert set(times.values()) <= {drawn // 40, drawn // 40 + 1}
    assert len(laid) == drawn  # what waited was laid out once


def test_what_a_document_draws_does_not_depend_on_the_rows_it_is_packed_into(model):
    narrow, wide = loader(model, rows=2), loader(model, rows=6)
    few = set().union(*(drawn(narrow.next(0.0)) for _ in range(3)))
    many = set().union(*(drawn(wide.next(0.0)) for _ in range(2)))
    assert len(few) > 20 and len(few & many) > 0.6 * len(few)


def test_rows_are_filled_well(model):
    filling = loader(model, length=96, rows=4)
    shares = []
    for _ in range(6):
        batch = filling.next(0.0)
        shares.append(float((batch.place.doc >= 0).float().mean()))
        assert filling.fill == pytest.approx(shares[-1])
    assert np.mean(shares) > 0.85


def test_prompts_are_dropped_as_often_as_told_and_captions_never(model):
    words = {int(t) for text in WORDS for t in model.speaker.codec.encode(Text(text)).values}

    def share(drop: float) -> tuple[int, int]:
        """How many words stand as prompts (weight of a picture's document), and how many captions there are."""
        batch = loader(model, drop_prompt=drop, rows=24).next(0.0)
        text = batch.slots["text"]
        real = text.embed_at < batch.place.doc.numel()
        docs = batch.place.doc.flatten()[text.embed_at[real]]
        values = text.embed["values"][real]
        pictures = batch.slots["patches"].predict_at[batch.slots["patches"].predict["weights"] > 0]
        drawing = set(batch.place.doc.flatten()[pictures].tolist())
        said = [int(d) for d, v in zip(docs, values, strict=True) if int(v) in words]
        return len({d for d in said if d in drawing}), len({d for d in said if d not in drawing})

    none, all_, half = share(0.0), share(1.0), share(0.5)
    assert none[0] > 10 and none[1] > 10 and all_[0] == 0 and all_[1] > 10
    assert 0 < half[0] and half[1] > 10


def test_documents_that_no_row_can_hold_are_counted_and_left_out(model):
    mixed = loader(model, Pairs("short"), Pairs("long", long=True), specs={"short": {}, "long": {"share": 0.3}})
    for _ in range(4):
        mixed.next(0.0)
    assert set(mixed.skipped) == {"long"} and mixed.skipped["long"] >= 1


def test_a_source_of_which_nothing_fits_is_refused_with_what_to_set(model):
    with pytest.raises(ValueError, match="no document of 'pairs' fits: the last has .* set a larger `length`"):
        loader(model, length=4).next(0.0)


def test_a_source_is_drawn_between_its_from_and_its_until(model):
    specs = {"first": {"until": 0.5}, "second": {"from": 0.25, "share": 3}}
    assert [shares_at(specs, progress) for progress in (0.0, 0.25, 0.5, 1.0)] == [[1, 0], [1, 3], [0, 3], [0, 3]]
    phased = loader(model, Pairs("first", None), Pairs("second", None), specs=specs)

    def counts(progress: float) -> list[int]:
        before = phased.state()["mixture"]["counts"]
        for _ in range(4):
            phased.next(progress)
        after = phased.state()["mixture"]["counts"]
        return [after[name] - before[name] for name in specs]

    early, both, late = counts(0.1), counts(0.3), counts(0.9)
    assert early[0] > 10 and early[1] == 0
    assert both[1] > both[0] > 0
    assert late[0] == 0 and late[1] > 10


def test_a_share_of_the_training_in_which_no_source_is_drawn_is_refused():
    with pytest.raises(ValueError, match="no source is drawn at 75% of the training: look at their from, until"):
        shares_at({"only": {"until": 0.5}}, 0.75)


def test_workers_change_nothing_whatever_their_number_and_stops_lose_nothing(model):
    """With two of them, with none, and stopped in between and gone on with the other."""
    mixed = {"pairs": {"share": 0.7}, "later": {"share": 0.3, "from": 0.5}}
    sources = (Pairs(), Pairs("later"))
    alone, helped = (loader(model, *sources, specs=mixed, workers=n) for n in (0, 2))
    try:
        for step in range(12):
            batches = [each.next(step / 12, (step + 1) / 12) for each in (alone, helped)]
            assert equal(*batches) and alone.state() == helped.state()
            if step == 5:
                helped.load(json.loads(json.dumps(alone.state())))
    finally:
        helped.close()


def test_what_workers_cannot_read_is_left_out_and_told(model, tmp_path):
    home = own_pictures(tmp_path / "own", 8)
    names = PictureFolder(home, 16, held_out=0).names()
    for name in names[:3]:
        (home / name).write_bytes((home / name).read_bytes()[:-40])
    source = PictureFolder(home, 16, held_out=0, name="own")
    helped = loader(model, source, specs={"own": {}}, workers=1)
    try:
        for step in range(4):
            helped.next(step / 4, (step + 1) / 4)
    finally:
        helped.close()
    assert helped.broken["own"] >= 3
    assert {name for reason, named in source.report.items() for name in named} == set(names[:3])


def test_a_worker_that_ends_stops_nothing_and_is_told(model):
    alone, helped = (loader(model, workers=n) for n in (0, 1))
    try:
        for step in range(6):
            assert equal(alone.next(step / 6, (step + 1) / 6), helped.next(step / 6, (step + 1) / 6))
            if step == 2:
                for process in helped._ahead.processes:
                    process.kill()
    finally:
        helped.close()
    assert helped._ahead.ended and any("laid out documents ended" in line for line in helped.left_out())


def test_a_worker_that_ends_amid_what_it_sends_is_seen_to_end_and_the_others_are_let_go(monkeypatch):
    """As one does that the system ends for want of memory: the rest of its message never comes."""
    whole, here = Connection._send_bytes, os.getpid()

    def half(self, message):
        if os.getpid() == here or b"short" not in bytes(message):
            return whole(self, message)
        os.write(self.fileno(), (1_000_000).to_bytes(4, "big") + b"the beginning")
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(Connection, "_send_bytes", half)
    ahead = Ahead(lambda draw, progress: "short" if draw.number == 3 else "whole", [], 2)
    try:
        draws = [Draw(number, 0, 0, 0, 0) for number in range(12)]
        for draw in draws:
            ahead.order(draw, 0.0)
        taken = [ahead.take(draw, 0.0) for draw in draws]
        assert taken[3] is None and ahead.ended and set(taken) <= {"whole", None}
    finally:
        ahead.close()
    assert all(process.exitcode is not None for process in ahead.processes)


def test_a_worker_that_never_comes_back_is_ended_with_the_others(monkeypatch):
    monkeypatch.setattr("mixmodal.data.ahead.PATIENCE", 0.3)
    ahead = Ahead(lambda draw, progress: time.sleep(100), [], 1)
    ahead.order(Draw(0, 0, 0, 0, 0), 0.0)
    while not ahead._ordered[0, 0.0].running():
        time.sleep(0.01)
    ahead.close()
    assert ahead.processes[0].exitcode == -signal.SIGKILL


def test_what_goes_wrong_in_a_worker_goes_wrong_here():
    def raising(draw, progress):
        raise ValueError(f"draw {draw.number}") if draw.number else Odd("this", "that")

    ahead = Ahead(raising, [], 1)
    try:
        for number, expected in ((1, ValueError), (0, TypeError), (2, ValueError)):
            ahead.order(Draw(number, 0, 0, 0, 0), 0.0)
            with pytest.raises(expected):
                ahead.take(Draw(number, 0, 0, 0, 0), 0.0)
        assert not ahead.ended
    finally:
        ahead.close()


class Odd(Exception):
    """One that cannot be made again from what it says."""

    def __init__(self, one, other):
        super().__init__(one)


def test_the_last_step_asks_for_none_that_comes_after(model):
    parted = {"pairs": {"until": 0.5}, "later": {"from": 0.5, "until": 1.0}}
    helped = loader(model, Pairs(), Pairs("later"), specs=parted, workers=1)
    try:
        for step in range(4):
            helped.next(step / 4, (step + 1) / 4)
    finally:
        helped.close()
