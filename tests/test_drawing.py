"""Pictures that generation makes, against solvers written out by hand on full passes without a cache."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import given, picture, small_model
from oracles import noise_of, picture_by_hand

from mixmodal.generate import Request, generate
from mixmodal.parts import Document, Image, Text
from mixmodal.sampling import Settings, draw, guide

QUICK = Settings(steps=4, guidance=3.0, max_tokens=6)
PROMPT = Text("a big red circle")


def asked(*parts, key: int = 0, seed: int = 0, free: int = 0, **settings) -> Request:
    return Request(Document(parts, key=key), replace(QUICK, **settings), seed, free)


def watched(model):
    """The floats of every picture that `model` makes from now on, in order."""
    held, codec = [], model.writer("image").codec
    original = codec.decode
    codec.decode = lambda values, grid, part: held.append(np.array(values)) or original(values, grid, part)
    return held


def passes(model):
    """Rows and length of every pass through `model` from now on."""
    held = []
    model.register_forward_pre_hook(lambda _, arguments: held.append(arguments[0].shape))
    return held


def close(found: np.ndarray, expected: np.ndarray) -> None:
    apart = float(np.abs(found - expected).max())
    assert apart <= 1e-4 * max(1.0, float(np.abs(expected).max())), apart


# Against the oracle


@torch.no_grad()
@pytest.mark.parametrize(
    "settings",
    [
        {"guidance": 1.0},
        {"guidance": 3.0},
        {"solver": "heun"},
        {"solver": "heun", "steps": 1},
        {"shift": 1.0},
        {"shift": 4.0, "steps": 2},
        {"interval": (0.1, 0.4)},
        {"interval": (2.0, 3.0)},
    ],
)
def test_a_picture_is_that_of_the_solver_by_hand_with_each_branch_computed_alone(model, settings):
    held = watched(model)
    request = asked(PROMPT, Image(size=(8, 12)), key=11, seed=2, **settings)
    generate(model, [request])
    (noise,) = noise_of(2, 11, (6, 48))
    close(held[0], picture_by_hand(model, [PROMPT], (1, 2, 3), request.settings, noise))


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {"flow": {"prediction": "v"}},
        {"flow": {"prediction": "noise", "clamp": 0.2}},
        {"flow": {"prediction": "asym"}},
        {"trunk": {"block": "gau", "heads": 1, "kv_heads": 1}},
        {"trunk": {"experts": 2}},
        {"flow": {"time": "token"}},
        {"flow": {"noise_scale": 2.0}},
        {"flow": {"noise_scale": 2.0, "sigma_data": 0.5}},
        {"trunk": {"long_skips": True, "mlp": "relu2"}},
        {"codec": {"ends": 4}, "flow": {"time": "token"}},
        {"codec": {"box": 8.0, "learned": False}},
    ],
)
def test_so_it_is_with_every_prediction_clock_and_trunk(options):
    model = small_model(**options)
    held = watched(model)
    request = asked(PROMPT, Image(size=(8, 8)), steps=3)
    generate(model, [request])
    (noise,) = noise_of(0, 0, (4, 48))
    close(held[0], picture_by_hand(model, [PROMPT], (1, 2, 2), request.settings, noise))


@torch.no_grad()
def test_the_branch_without_text_keeps_the_pictures_that_were_given(model):
    held = watched(model)
    parts = [given(picture(1, 8, 4)), Text("now blue"), given(picture(2))]
    request = asked(*parts, Image(size=(8, 8)))
    generate(model, [request])
    (noise,) = noise_of(0, 0, (4, 48))
    close(held[0], picture_by_hand(model, parts, (1, 2, 2), request.settings, noise))


@torch.no_grad()
def test_a_second_picture_is_drawn_behind_the_clean_copy_of_the_first(model):
    held = watched(model)
    request = asked(PROMPT, Image(size=(8, 8)), Text("then"), Image(size=(4, 8)), key=3)
    made = generate(model, [request])[0]
    noises = noise_of(0, 3, (4, 48), (2, 48))
    close(held[0], picture_by_hand(model, [PROMPT], (1, 2, 2), request.settings, noises[0]))
    before = [PROMPT, Image(made.parts[1].pixels), Text("then")]
    close(held[1], picture_by_hand(model, before, (1, 1, 2), request.settings, noises[1]))


# Guidance costs one pass of two rows


def test_both_branches_run_as_one_batched_pass_and_only_inside_the_interval(model):
    held = passes(model)
    generate(model, [asked(PROMPT, Image(size=(12, 12)), shift=1.0, interval=(0.2, 0.6))])
    assert [rows for rows, length in held if length == 9] == [1, 2, 2, 1]  # at 0, 1/4, 1/2, 3/4

    held.clear()
    generate(model, [asked(PROMPT, Image(size=(12, 12)))])
    assert [rows for rows, length in held if length == 9] == [2] * 4


def test_guidance_of_one_has_no_second_branch(model):
    held = passes(model)
    generate(model, [asked(PROMPT, Image(size=(12, 12)), guidance=1.0)])
    assert {rows for rows, _ in held} == {1}


def test_written_text_has_no_second_branch(model):
    held = passes(model)
    generate(model, [asked(given(picture(0)), Text())])
    assert {rows for rows, _ in held} == {1}


def test_the_prefix_is_run_once_and_each_step_runs_the_picture_alone(model):
    held = passes(model)
    generate(model, [asked(PROMPT, Image(size=(16, 16)), steps=7)])
    lengths = [length for _, length in held]
    assert lengths.count(16) == 7 and len(lengths) == 7 + 2  # and one prefix for each branch


def test_requests_of_equal_size_share_their_passes(model):
    held = passes(model)
    generate(model, [asked(PROMPT, Image(size=(12, 12)), key=n) for n in range(5)], live=3)
    assert [rows for rows, length in held if length == 9] == [6] * 4 + [4] * 4


# Known pixels


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_known_pixels_are_kept_exactly_and_the_others_are_drawn(model, guidance):
    known = np.zeros((7, 9), bool)
    known[2:, 3:7] = True
    part = Image(picture(5, 7, 9).pixels, known=known)
    made = generate(model, [asked(PROMPT, part, guidance=guidance)])[0].parts[1]
    assert np.array_equal(made.pixels[known], part.pixels[known])
    assert (made.pixels[~known] != part.pixels[~known]).any(1).mean() > 0.9


def test_what_is_drawn_depends_on_the_known_pixels_and_on_the_guidance(model):
    known = np.zeros((8, 8), bool)
    known[:, :4] = True
    held = watched(model)
    for pixels in (picture(5).pixels, picture(6).pixels):
        for guidance in (1.0, 3.0):
            generate(model, [asked(PROMPT, Image(pixels, known=known), guidance=guidance)])
    a, guided, b, _ = (values[[1, 3]] for values in held)  # the patches of the right half
    assert np.abs(a - b).max() > 1e-4, "the known half was not seen"
    assert np.abs(a - guided).max() > 1e-4, "a picture with known pixels was not guided"


# Sizes


@pytest.mark.parametrize("size", [(8, 8), (5, 11), (1, 1), (4, 17)])
def test_a_picture_has_the_size_that_was_asked_for_whatever_the_patch(model, size):
    made = generate(model, [asked(PROMPT, Image(size=size), steps=1)])[0].parts[1]
    assert made.pixels.shape == (*size, 3) and made.size == size


# Free generation


def scripted(model, script: list[int]):
    """The speaker writes `script`; sizes are asked for with everything else banned."""
    words = iter(script)
    seen = []

    def written(hidden, settings, rng, banned):
        token = next(words)
        assert token not in banned, "the script asks for what is banned"
        seen.append(len(banned))
        return torch.tensor([token]), torch.zeros(1)

    model.speaker.head.draw = written
    return seen


@pytest.mark.parametrize(("guidance", "learned"), [(1.0, 0), (3.0, 0), (1.0, 5)])
def test_a_free_model_opens_a_picture_chooses_its_size_and_goes_on_writing(guidance, learned):
    model = small_model(text={"learned": learned})  # with places of a header's tokens, as training lays them
    codec = model.speaker.codec
    a, b = (int(codec.encode(Text(word)).values[0]) for word in "ab")
    opening = codec.opening("image", (1, 2, 3))
    scripted(model, [a, *opening, b, codec.end])
    held = watched(model)
    made = generate(model, [asked(Text(), free=3, guidance=guidance, key=4)])[0]
    assert [part.medium for part in made.parts] == ["text", "image", "text"]
    assert made.parts[0].text == "a" and made.parts[1].size == (8, 12) and made.parts[2].text == "b"
    with torch.no_grad():
        (noise,) = noise_of(0, 4, (6, 48))
        settings = replace(QUICK, guidance=guidance)
        close(held[0], picture_by_hand(model, [Text("a")], (1, 2, 3), settings, noise))


def test_no_more_parts_are_opened_than_are_free(model):
    codec = model.speaker.codec
    a = int(codec.encode(Text("a")).values[0])
    scripted(model, [a, *codec.opening("image", (1, 1, 1)), a, codec.end, a])
    made = generate(model, [asked(Text(), free=2)])[0]
    assert [part.medium for part in made.parts] == ["text", "image", "text"]
    scripted(model, [a, codec.opening("image", (1, 1, 1))[0]])
    with pytest.raises(AssertionError, match="banned"):  # without `free` no picture may be opened
        generate(model, [asked(Text())])


def test_behind_a_text_that_is_shown_a_free_model_goes_on_and_from_nothing_it_begins(model):
    codec = model.speaker.codec
    a, opening = int(codec.encode(Text("a")).values[0]), codec.opening("image", (1, 1, 1))
    scripted(model, [*opening, *opening])
    for parts, expected in (((Text("a red"),), ["text", "text", "image"]), ((), ["text", "image"])):
        made = generate(model, [asked(*parts, free=2)])[0]
        assert [part.medium for part in made.parts] == expected
    scripted(model, [a, codec.end])
    assert generate(model, [asked(free=1)])[0].parts[0].text == "a"


def test_a_model_opens_no_medium_that_it_can_only_read(model):
    model.writer("image").role = "read"
    codec = model.speaker.codec
    scripted(model, codec.opening("image", (1, 1, 1)))
    with pytest.raises(AssertionError, match="banned"):
        generate(model, [asked(Text(), free=2)])
    scripted(model, codec.opening("image", (1, 1, 1))[:1])  # but what stands there next it may announce
    assert generate(model, [asked(Text(), given(picture(1)))])[0].parts[0].text == ""


def test_a_foreign_end_opens_nothing(model):
    codec = model.speaker.codec
    codec.tokenizer.add_special_tokens(["<|im_end|>", "<|text|>"])
    assert codec.announced(codec.tokenizer.token_to_id("<|im_end|>")) is None
    assert codec.announced(codec.tokenizer.token_to_id("<|text|>")) is None
    assert codec.announced(codec.opening("image", (1, 1, 1))[0]) == "image"


def test_a_picture_of_unknown_size_gets_the_size_that_the_model_announces(model):
    codec = model.speaker.codec
    scripted(model, codec.opening("image", (1, 3, 1))[1:])
    assert generate(model, [asked(PROMPT, Image(), steps=1)])[0].parts[1].size == (12, 4)


# How values are drawn


def test_the_likeliest_are_drawn_and_no_others():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    rng = torch.Generator().manual_seed(0)
    assert set(draw(logits, 0.0, 1.0, rng).tolist()) == {0}
    everything = torch.bincount(draw(logits, 1.0, 1.0, rng), minlength=4) / 4000
    assert everything.tolist() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    nucleus = torch.bincount(draw(logits, 1.0, 0.7, rng), minlength=4) / 4000
    assert nucleus.tolist() == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    hot = torch.bincount(draw(logits, 2.0, 1.0, rng), minlength=4) / 4000
    expected = torch.tensor([0.5, 0.3, 0.15, 0.05]).sqrt()
    assert hot.tolist() == pytest.approx((expected / expected.sum()).tolist(), abs=0.03)
    assert set(draw(logits, 1.0, 1e-6, rng).tolist()) == {0}


def test_guidance_pushes_away_from_the_second_branch():
    one, two = torch.tensor([2.0]), torch.tensor([1.0])
    assert guide([one, two], 3.0).item() == 4 and guide([one], 3.0).item() == 2 and guide([one, two], 0.0).item() == 1


def test_half_precision_makes_nearly_the_same_picture(model):
    held = watched(model)
    request = asked(PROMPT, Image(size=(8, 8)))
    generate(model, [request])
    generate(model, [request], dtype=torch.bfloat16)
    spread = np.abs(held[0]).mean()
    assert 0 < np.abs(held[0] - held[1]).mean() < 0.1 * spread


def test_what_is_asked_for_in_vain_is_refused_in_a_sentence(model):
    pixels = np.zeros((6, 6, 3), np.uint8)
    for size in ((0, 8), (-8, 8), 8, (8.0, 8)):
        with pytest.raises(ValueError, match="whole pixels"):
            Image(size=size)
    for known in (np.ones((6, 6), np.uint8), np.ones((6, 5), bool), [[True]]):
        with pytest.raises(ValueError, match="want a boolean array"):
            Image(pixels, known=known)
    for wrong in ({"steps": 0}, {"steps": 2.5}, {"guidance": float("nan")}, {"shift": 0.0}, {"top_p": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
            Settings(**wrong)
    for wrong in ({"temperature": float("nan")}, {"max_tokens": -1}, {"interval": (0.0,)}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
            Settings(**wrong)
    with pytest.raises(ValueError, match="has no values"):
        generate(model, [asked(Image(size=(8, 8), wanted=False), Text())])


def test_a_patch_at_the_edge_is_known_where_all_of_its_picture_is(model):
    codec = model.writer("image").codec
    part = Image(np.zeros((6, 6, 3), np.uint8), known=np.ones((6, 6), bool))
    assert codec.encode(part).known.all()
    part.known[5, 5] = False
    assert codec.encode(part).known.all(1).tolist() == [True, True, True, False]


def test_many_pictures_go_through_in_pieces_that_fit(model, monkeypatch):
    some = [asked(PROMPT, Image(size=(8, 8)), key=key) for key in range(4)]
    whole, held = generate(model, some), passes(model)
    monkeypatch.setattr("mixmodal.generate.MASK_LIMIT_BYTES", 400)
    assert all(
        np.abs(a.parts[1].pixels.astype(int) - b.parts[1].pixels).max() <= 1
        for a, b in zip(whole, generate(model, some), strict=True)
    )
    assert max(rows for rows, _ in held) < 8
