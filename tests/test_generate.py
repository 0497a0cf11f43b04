"""The one generation loop: seeds, batches, order; and its text against decoding without a cache."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import given, picture, small_model
from oracles import greedy

from mixmodal.generate import Request, generate
from mixmodal.layout import lay_out
from mixmodal.objectives import Ask
from mixmodal.parts import Document, Image, Text
from mixmodal.sampling import Settings
from mixmodal.sequence import Grid

QUICK = Settings(steps=3, guidance=2.0, max_tokens=6)


def asked(*parts, key: int = 0, **settings) -> Request:
    return Request(Document(parts, key=key), replace(QUICK, **settings))


def requests() -> list[Request]:
    """Of every kind: pictures of three sizes, captions, text alone, guided and not, greedy and drawn."""
    known = np.zeros((8, 8), bool)
    known[:, :3] = True
    return [
        asked(Text("a red circle"), Image(size=(8, 8)), key=1),
        asked(given(picture(1)), Text(), key=2, temperature=1.0),
        asked(Text("two green rings"), Image(size=(10, 7)), key=3, guidance=1.0, solver="heun"),
        asked(Text("a", wanted=False), Text(), key=4, max_tokens=3),
        asked(Image(size=(8, 8)), Text("then", wanted=False), Image(size=(4, 12)), Text(), key=5, temperature=0.7),
        asked(Text("fill in"), Image(picture(3).pixels, known=known), key=6, interval=(0.2, 0.9)),
        asked(given(picture(4)), given(picture(5, 4, 8)), Text(), key=7),
    ]


def same(one: Document, two: Document) -> bool:
    """The same texts, and pictures that differ by one grey level at most."""
    for a, b in zip(one.parts, two.parts, strict=True):
        if a.medium != b.medium:
            return False
        if a.medium == "text" and a.text != b.text:
            return False
        if a.medium == "image" and (a.size != b.size or np.abs(a.pixels.astype(int) - b.pixels.astype(int)).max() > 1):
            return False
    return True


def identical(one: Document, two: Document) -> bool:
    return same(one, two) and all(
        np.array_equal(a.pixels, b.pixels) for a, b in zip(one.parts, two.parts, strict=True) if a.medium == "image"
    )


def watched(model, monkeypatch) -> list[np.ndarray]:
    """The floats of every picture that is made from now on, in order."""
    held, codec = [], model.writer("image").codec
    original = codec.decode
    monkeypatch.setattr(
        codec, "decode", lambda values, grid, part: held.append(np.array(values)) or original(values, grid, part)
    )
    return held


# Seeds and batches


def test_the_same_seed_gives_the_same_sample_and_another_seed_another(model):
    twice = [generate(model, requests()) for _ in range(2)]
    assert all(identical(a, b) for a, b in zip(*twice, strict=True))
    other = generate(model, [replace(request, seed=1) for request in requests()])
    for number, (a, b) in enumerate(zip(twice[0], other, strict=True)):
        if any(part.medium == "image" and part.wanted for part in a.parts):
            assert not identical(a, b), number


def test_the_key_of_a_document_names_its_random_numbers_and_its_place_in_the_list_does_not(model):
    one = generate(model, requests())
    reversed_ = generate(model, requests()[::-1])[::-1]
    assert all(same(a, b) for a, b in zip(one, reversed_, strict=True))
    rekeyed = requests()[0]
    rekeyed.document = replace(rekeyed.document, key=99)
    assert not same(generate(model, [rekeyed])[0], one[0])


@pytest.mark.parametrize("options", [{}, {"codec": {"ends": 4}, "flow": {"time": "token", "prediction": "v"}}])
def test_batched_equals_single_for_requests_of_every_kind_on_the_same_trajectory(monkeypatch, options):
    model = small_model(**options)
    made_values = watched(model, monkeypatch)
    together = generate(model, requests(), live=4)
    batched = list(made_values)
    made_values.clear()
    alone = [generate(model, [request], live=1)[0] for request in requests()]
    assert all(same(a, b) for a, b in zip(together, alone, strict=True))
    assert sorted(v.shape for v in batched) == sorted(v.shape for v in made_values)
    for values in batched:
        twins = [v for v in made_values if v.shape == values.shape]
        assert min(float(np.abs(values - twin).max()) for twin in twins) <= 2e-5


def test_requests_of_every_length_run_in_bf16(model):
    for document in generate(model, requests(), dtype=torch.bfloat16):
        assert all(not part.empty for part in document.parts if part.medium == "image")


def test_more_requests_than_live_ones_are_all_made_and_told_as_they_finish(model):
    told = {}
    many = [replace(request, seed=seed) for seed in range(2) for request in requests()]
    made = generate(model, many, live=2, watch=lambda number, document: told.update({number: document}))
    assert sorted(told) == list(range(len(many))) and all(told[n] is made[n] for n in told)
    assert list(told) != sorted(told)  # short ones overtake long ones
    wide = generate(model, many, live=64)
    assert all(same(a, b) for a, b in zip(made, wide, strict=True))


def test_what_is_asked_is_not_changed_and_what_was_given_comes_back(model):
    request = requests()[4]
    made = generate(model, [request])[0]
    assert request.document.parts[0].empty and made.parts[1] is request.document.parts[1]
    assert [part.medium for part in made.parts] == ["image", "text", "image", "text"]
    assert not any(part.empty for part in made.parts if part.medium == "image") and made.key == 5
    assert generate(model, []) == []


@pytest.mark.filterwarnings("error")
def test_sampling_warns_of_nothing(model):
    generate(model, requests()[:2])


# Text against an oracle


@torch.no_grad()
@pytest.mark.parametrize(
    "parts",
    [
        (Text("a red", wanted=False),),
        (given(picture(1)),),
        (given(picture(2, 6, 9)), Text("which", wanted=False), given(picture(3))),
    ],
)
@pytest.mark.parametrize("learned", [0, 5])  # learned places end in the middle of what is written
def test_written_text_is_that_of_greedy_decoding_without_a_cache(parts, learned):
    model = small_model(text={"learned": learned})
    runs = lay_out(model, Document(parts), np.random.default_rng(0)).runs
    expected = greedy(model, runs, 8)
    found = generate(model, [asked(*parts, Text(), max_tokens=8)])[0].parts[-1].text
    assert len(expected) > 1 and found == model.speaker.codec.decode(expected, None, Text()).text


def test_a_text_ends_at_its_end_token_or_at_its_bound(model, monkeypatch):
    codec, head = model.speaker.codec, model.speaker.head
    word = int(codec.encode(Text("a")).values[0])
    script = iter([word, word, codec.end, *[word] * 50])
    monkeypatch.setattr(head, "draw", lambda *_: (torch.tensor([next(script)]), torch.zeros(1)))
    made = generate(model, [asked(Text(), Text("b", wanted=False), Text(), max_tokens=5)])[0]
    assert [part.text for part in made.parts] == ["aa", "b", "aaaaa"]
    assert generate(model, [asked(Text(), max_tokens=0)])[0].parts[0].text == ""


def test_tokens_that_would_break_the_layout_are_never_written(model):
    """Whatever the model prefers: begin, sizes, closing marks, and pictures where none may be opened."""
    codec = model.speaker.codec
    marks = [codec.begin, *codec.size_tokens(), *codec.closing("image"), codec.opening("image", (1, 1, 1))[0]]
    seen = []
    original = model.speaker.head.draw
    model.speaker.head.draw = lambda h, s, r, banned: seen.append(set(banned)) or original(h, s, r, banned)
    generate(model, [asked(given(picture(0)), Text(), temperature=2.0)])
    assert seen and all(set(marks) <= banned and codec.end not in banned for banned in seen)


def test_a_part_of_known_size_has_as_many_values_as_cells_and_keeps_the_known_ones(model):
    """Next token on a grid, as discrete pictures take it: no end, no bound, known values as they are."""
    cells = np.indices((1, 2, 3)).reshape(3, -1).T.astype(np.float32)
    known = np.array([False, True, False, False, True, False])
    grid = Grid(np.arange(6) * 10, cells, (1, 2, 3), known=known)
    drawn = iter(range(1, 7))
    head = SimpleNamespace(draw=lambda *_: (torch.tensor([next(drawn)]), torch.zeros(1)))
    ask = Ask(replace(QUICK, max_tokens=2), torch.Generator(), [], [], False)
    sampler = model.speaker.objective.sampler(model.speaker.codec, head, grid, ask)
    assert next(sampler) is None
    blocks = []
    with pytest.raises(StopIteration) as end:
        while True:
            blocks.append(sampler.send([torch.zeros(1, 64)]))
    assert end.value.value.tolist() == [1, 10, 3, 4, 40, 6]
    assert all(block.keep and len(block.run) == 1 for block in blocks)
    assert [block.run.coords[0].tolist() for block in blocks] == cells.tolist()


def test_a_document_in_which_nothing_is_to_be_made_comes_back_as_it_is(model):
    whole = Document((Text("words"), picture(0)))
    empty = Document((Text("a"), Image(size=(8, 8))))
    made = generate(model, [Request(whole), Request(empty, Settings(steps=1)), Request(whole)])
    assert made[0] is whole and made[2] is whole and made[1].parts[-1].pixels is not None
    assert generate(model, [Request(whole)]) == [whole]
