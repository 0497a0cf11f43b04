"""Laws of every design that its own generation cannot tell: what predicts a value does not see it; guidance compares
what is asked with what was left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import given, picture, small_config
from test_designs import made, side

from mixmodal.config import TrunkConfig
from mixmodal.generate import Request, generate
from mixmodal.heads import categorical, denoiser
from mixmodal.model import Model
from mixmodal.objectives import flow, masked
from mixmodal.parts import Document, Image, Text
from mixmodal.sampling import Settings
from mixmodal.sequence import collate

DRAWN = ["chameleon", "chameleon spiral", "showo", "showo random", "llamagen", "imagegpt", "maskgit", "maskgit factors"]
DRAWN += ["mar", "mar pixels"]
WRITTEN = ["llada", "llada blocks"]


def predicted(model: Model, stream, document: Document, seed: int, cell: int | None = None):
    """Hidden states of what predicts the second part, and its targets; the value of `cell` changed."""
    codec = stream.codec
    grid = codec.encode(document.parts[1])
    if cell is not None:
        values = grid.values.copy()
        values[cell] = (values[cell] + 1) % 4 if values.dtype.kind == "i" else values[cell] + 1
        grid = replace(grid, values=values)
    whole = codec.encode
    codec.encode = lambda part: grid if part is document.parts[1] else whole(part)
    try:
        sequence = model.lay_out(document, np.random.default_rng(seed), 0.0)
    finally:
        del codec.encode
    batch = collate([sequence], [[0]], len(sequence), model.blank())
    with torch.no_grad():
        hidden_ND = model(batch).flatten(0, 1)
    slots = batch.slots[stream.name]
    return hidden_ND[slots.predict_at], slots.predict["targets"]


@pytest.mark.parametrize("name", DRAWN + WRITTEN)
def test_what_predicts_a_value_does_not_see_it(name):
    model = made(name)
    stream = model.writer("text" if name in WRITTEN else "image")
    drawn = picture(0, side(model), side(model)) if name in DRAWN else Text("a big red circle")
    document = Document((given(picture(1)) if name in WRITTEN else Text("a"), drawn, Text("b", wanted=False)), key=1)
    seen = 0
    for seed in range(1, 4):
        before, targets = predicted(model, stream, document, seed)
        for cell in range(len(stream.codec.encode(drawn).values)):
            after, others = predicted(model, stream, document, seed, cell)
            own = (targets != others).reshape(len(targets), -1).any(1)
            torch.testing.assert_close(before[own], after[own], rtol=0, atol=1e-6)
            seen += int(own.sum())
    assert seen > 10


@pytest.mark.parametrize("name", DRAWN)
def test_guidance_is_asked_with_the_words_and_without_them(name, monkeypatch):
    model = made(name)
    head, told = model.writer("image").head, []
    draw = head.draw

    def asked(branches, settings, rng, banned):
        told[-1].append([branch.clone() for branch in branches])
        values, sure = draw(branches, settings, rng, banned)
        return torch.zeros_like(values) + len(told[-1]) % 3, sure * 0  # the same values, whoever asks

    monkeypatch.setattr(head, "draw", asked)
    empty = Image(size=(side(model), side(model)))
    worded = (Text("a red circle"), empty)
    for parts, guidance in ((worded, 3.0), (worded, 1.0), ((empty,), 1.0)):
        told.append([])
        generate(model, [Request(Document(parts, key=1), Settings(steps=3, guidance=guidance))])
    both, with_words, without = told
    assert len(both) == len(with_words) == len(without) > 0
    for pair, one, other in zip(both, with_words, without, strict=True):
        assert len(pair) == 2 and not torch.allclose(*pair, atol=1e-4)
        torch.testing.assert_close(pair[0], one[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(pair[1], other[0], rtol=0, atol=1e-4)


def test_a_stronger_guidance_moves_a_draw_towards_the_words():
    """The first branch is that of the words: of numbers its likeliest wins, of continuous values its side."""
    codec = type("Numbers", (), {"sizes": (4,)})()
    head = categorical.Head(categorical.Config(), 4, codec)
    with torch.no_grad():
        head.table.copy_(torch.eye(4))
    one, other = torch.tensor([[2.0, 1.9, 0.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0, 0.0]])
    found = head.draw([one, other], Settings(guidance=3.0, temperature=0.0), torch.Generator(), [])[0]
    assert int(found.reshape(-1)[0]) == 1  # what the words add to counts three times
    values = type("Values", (), {"size": 1})()
    small = denoiser.Head(denoiser.Config(width=8, depth=1, temperature=0.0), 2, values)
    small.velocity = lambda hidden_ND, noisy_NC, time_N: hidden_ND[:, :1].float()
    ones, none = torch.ones(1, 2), torch.zeros(1, 2)
    drawn = small.draw([ones, none], Settings(guidance=3.0), torch.Generator(), [])[0]
    assert float(drawn) == pytest.approx(3.0, abs=0.05)


def test_the_density_of_the_denoiser_is_the_one_it_was_shown():
    """Numbers about 2 with deviation 0.5, learned and drawn: the velocity's sign, the clock, the temperature."""
    torch.manual_seed(0)
    head = denoiser.Head(denoiser.Config(width=32, depth=2, copies=8), 4, type("Values", (), {"size": 1})())
    optimizer = torch.optim.AdamW(head.parameters(), 0.01)
    hidden, rng = torch.ones(256, 4), np.random.default_rng(0)
    for _ in range(150):
        values = 2 + 0.5 * torch.randn(256, 1)
        chance = torch.from_numpy(rng.integers(0, 2**62, 256))
        optimizer.zero_grad()
        head.loss(hidden, values, chance, torch.ones_like(values)).mean().backward()
        optimizer.step()
    head.requires_grad_(False)
    drawn = head.draw([hidden], Settings(guidance=1.0), torch.Generator().manual_seed(0), [])[0]
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.12) and drawn.std().item() == pytest.approx(0.5, abs=0.15)
    cold = head.draw([hidden], Settings(guidance=1.0, temperature=0.1), torch.Generator().manual_seed(0), [])[0]
    assert cold.std().item() < 0.5 * drawn.std().item()


def test_hidden_shares_and_weights_are_those_of_the_settings():
    def hidings(count: int = 16, **options):
        model = made("mar pixels")
        stream = model.writer("image")
        stream.objective.config = masked.Config(order="random", **options)
        document = Document((picture(0, 16, 16),), key=1)
        out = []
        for seed in range(count):
            sequence = model.lay_out(document, np.random.default_rng(seed), 0.0)
            runs = [run for run in sequence.runs if run.stream == stream.name and run.predict]
            out += [(len(run.predict_at), run.predict["weights"]) for run in runs]
        return out

    shares = np.array([number for number, _ in hidings(200, schedule="linear")]) / 16
    assert shares.min() < 0.15 and shares.max() > 0.9 and shares.mean() == pytest.approx(0.53, abs=0.06)
    shares = np.array([number for number, _ in hidings(200, least=0.7)]) / 16
    assert shares.min() >= 0.7 and shares.mean() == pytest.approx(0.89, abs=0.03)
    for number, weights in hidings(schedule="linear", fair=True):
        np.testing.assert_allclose(weights, 16 / number, rtol=1e-6)
    numbers = [number for number, _ in hidings(30, schedule="linear", copies=4)]
    for four in np.array(numbers).reshape(-1, 4):  # one of each quarter
        assert sorted(np.ceil(four / 4)) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: TrunkConfig(heads=6, kv_heads=4), "multiple of kv_heads"),
        (lambda: TrunkConfig(head_size=15), "want it even"),
        (lambda: flow.Config(copies=0), "take 1 or more"),
        (lambda: flow.Config(rounds=0), "take 1 or more"),
        (lambda: masked.Config(copies=0), "take 1 or more"),
        (lambda: masked.Config(block=-4), "0 or more"),
        (lambda: masked.Config(least=1.0), "a share below 1"),
        (lambda: denoiser.Config(steps=0), "take 1 or more"),
        (lambda: Model(small_config(codec={"ends": 4, "patch": [2, 4, 4]})), "nets over one frame"),
    ],
)
def test_settings_that_train_or_draw_nothing_are_refused(build, match):
    with pytest.raises(ValueError, match=match):
        build()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"objective": {"kind": "next_token"}, "head": {"kind": "denoiser"}, "codec": {"ends": 4}}, "its neighbours"),
        ({"objective": {"kind": "masked"}}, "head is missing"),
        ({"objective": {"kind": "masked"}, "head": {"kind": "categorical"}}, "take denoiser"),
    ],
)
def test_cells_that_do_not_fit_are_refused_in_a_sentence(change, match):
    config = small_config()
    patches = config.streams["patches"]
    stream = replace(patches, **{**change, "codec": {**patches.codec, **change.get("codec", {})}})
    with pytest.raises(ValueError, match=match):
        Model(replace(config, streams={**config.streams, "patches": stream}))


def test_the_branch_without_words_begins_as_a_document_without_them_was_trained(monkeypatch):
    model, begun = made("showo"), []
    codec = model.speaker.codec
    begins = codec.begins

    def asked(parts):
        begun.append(([part.medium for part in parts], begins(parts)))
        return begun[-1][1]

    monkeypatch.setattr(codec, "begins", asked)
    empty = Image(size=(side(model), side(model)))
    document = Document((Text("a"), empty, Text("b"), empty), key=1)
    generate(model, [Request(document, Settings(steps=1, guidance=3.0))])
    (seen, whole), (left, alone) = begun
    assert seen == ["text", "image", "text", "image"] and left == ["image", "image"] and whole != alone
    trained = replace(document, parts=tuple(replace(part, pixels=picture(0, 8, 8).pixels) for part in (empty, empty)))
    assert alone == codec.begins(trained.parts)


@pytest.mark.parametrize("name", ["mar pixels", "lossless"])
def test_padding_and_known_values_are_free_of_loss(name):
    model = made(name)
    stream = model.writer("image")
    known = np.zeros((10, 10), bool)
    known[:3, :5] = True  # the corner of a patch beside a whole one
    document = Document((replace(picture(0, 10, 10), known=known),), key=1)
    sequence = model.lay_out(document, np.random.default_rng(0), 0.0)
    batch = collate([sequence], [[0]], len(sequence), model.blank())
    targets = batch.slots[stream.name].predict["targets"]
    at = batch.slots[stream.name].predict_at
    hidden_ND = torch.randn(len(sequence), model.config.trunk.width)
    if stream.head is not None:  # which is shown all values, noisy
        stream.head.velocity = lambda hidden_ND, noisy_NC, time_N: torch.zeros_like(noisy_NC)

    def loss() -> float:
        ((total, _),) = stream.losses(hidden_ND, batch.slots[stream.name]).values()
        return float(total.detach())

    grid = stream.codec.encode(document.parts[0])
    free = ~(grid.counted.astype(bool) & ~grid.known)
    assert 0 < free.sum() < free.size and len(at) == len(targets)
    before, moved = loss(), 0
    whole = [int(np.flatnonzero((grid.values == target.numpy()).all(1))[0]) for target in targets]
    for number, cell in enumerate(whole):
        for value in np.flatnonzero(free[cell])[:3]:
            targets[number, value] += 1
            moved += loss() != before
            targets[number, value] -= 1
        for value in np.flatnonzero(~free[cell])[:1]:
            targets[number, value] += 1
            assert loss() != before
            targets[number, value] -= 1
    assert not moved
