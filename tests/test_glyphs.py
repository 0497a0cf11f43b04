"""The world `glyphs` and its judge: what is drawn is read, what is held out stays out, wrong pictures are refused."""

from itertools import combinations
from string import ascii_lowercase

import numpy as np
import pytest

from mixmodal.data.fonts import FONTS, face
from mixmodal.data.worlds.glyphs import (
    CONTRAST,
    HELD_FONT,
    LEVELS,
    SPLITS,
    Glyphs,
    Level,
    brightness,
    colour_name,
    draw_word,
    parse,
    parse_look,
    render,
    spell,
    split_of,
)
from mixmodal.judge.glyphs import inspect, likeness, read
from mixmodal.judge.glyphs_check import RIGHT, WRONG, measure_right, measure_wrong

TASKS = {"write": 1, "read": 1, "copy": 1}


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The least difference of two letters, however they are set beside each other."""
    best = np.inf
    for shift in range(-2, 3):
        wide = max(one.shape[1], other.shape[1]) + 4
        sheets = np.zeros((2, one.shape[0], wide))
        sheets[0, :, 2 : 2 + one.shape[1]] = one
        sheets[1, :, 2 + shift : 2 + shift + other.shape[1]] = other[:, : wide - 2 - shift]
        best = min(best, ((sheets[0] - sheets[1]) ** 2).sum())
    return best


@pytest.mark.parametrize("font", FONTS)
def test_no_two_letters_of_a_font_look_alike(font):
    for height in (8, 9, 16):
        masks = face(font, height).masks
        assert set(masks) == set(ascii_lowercase)
        least = min((distance(masks[a], masks[b]), a + b) for a, b in combinations(ascii_lowercase, 2))
        assert least[0] > 1.5, least


@pytest.mark.parametrize("font", FONTS)
def test_letters_are_as_high_as_they_are_said_to_be(font):
    for height in range(8, 17):
        rows = np.flatnonzero(face(font, height).masks["l"].max(axis=1) > 0.35)
        assert (rows[0], rows[-1]) == (0, height - 1)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", SPLITS)
def test_the_judge_reads_back_every_rendered_word(level, split):
    world, rng = Glyphs(level, split=split), np.random.default_rng(1)
    for _ in range(20):
        glyph = world.draw(rng)
        pixels = world.render(glyph)
        assert pixels.shape == (*world.picture, 3) and pixels.dtype == np.uint8
        seen = inspect(pixels)
        assert (seen.word, seen.font, seen.height, seen.top) == (glyph.word, glyph.font, glyph.height, glyph.top)
        assert read(pixels) == glyph.word
        assert (colour_name(seen.ink), colour_name(seen.paper)) == (colour_name(glyph.ink), colour_name(glyph.paper))


@pytest.mark.parametrize("change", ["noise 10", "blur 0.5", "blur 0.5, noise 10", "JPEG 75"])
def test_the_judge_bears_soft_and_noisy_pictures(change):
    right, _, _ = measure_right("full", "heldout", RIGHT[change], 25, seed=2)
    assert right >= 0.96


@pytest.mark.parametrize("change", WRONG)
def test_the_judge_does_not_say_the_word_of_a_wrong_picture(change):
    denied, _ = measure_wrong("full", "heldout", WRONG[change], 15, seed=3)
    assert denied >= 0.93


@pytest.mark.parametrize("change", ["two letters mixed", "a blot", "pieces shuffled", "noise"])
def test_the_judge_reads_no_word_at_all_from_garbage(change):
    _, unread = measure_wrong("full", "heldout", WRONG[change], 15, seed=4)
    assert unread >= 0.9


def test_the_judge_reads_nothing_from_a_blank_picture_and_refuses_other_arrays():
    assert read(np.full((24, 128, 3), 77, dtype=np.uint8)) is None
    assert inspect(np.zeros((24, 128, 3), dtype=np.uint8)) is None
    with pytest.raises(ValueError, match="wanted uint8 pixels"):
        read(np.zeros((24, 128), dtype=np.uint8))


def test_likeness_counts_letters():
    assert likeness("hello", "hello") == 1
    assert likeness("help", "hello") == pytest.approx(0.6)
    assert likeness(None, "hello") == 0


def test_no_word_of_the_test_is_in_training_and_the_held_out_font_neither():
    rng = np.random.default_rng(0)
    train = {draw_word(rng, "train") for _ in range(2000)}
    held = {draw_word(rng, "heldout") for _ in range(300)}
    assert not train & held
    assert all(3 <= len(word) <= 10 for word in train | held)
    assert set("".join(held)) == set(ascii_lowercase)
    for split in SPLITS:
        glyphs = [Glyphs(split=split).draw(rng) for _ in range(60)]
        assert {split_of(glyph.word) for glyph in glyphs} == {"train" if split == "train" else "heldout"}
        assert (HELD_FONT in {glyph.font for glyph in glyphs}) == (split == "font")
    assert len({glyph.font for glyph in (Glyphs().draw(rng) for _ in range(100))}) >= 3


def test_a_words_split_is_the_same_on_every_machine():
    words = "abc hello world sun zebra mixmodal pixel flow".split()
    assert [word for word in words if split_of(word) == "heldout"] == ["abc", "hello", "zebra"]
    share = np.mean([split_of(a + b + c) == "heldout" for a in "aeiou" for b in ascii_lowercase for c in "nrst"])
    assert 0.06 < share < 0.14


def test_the_full_level_is_free_in_place_colour_and_height():
    rng = np.random.default_rng(3)
    glyphs = [Glyphs().draw(rng) for _ in range(400)]
    assert {glyph.height for glyph in glyphs} == set(range(8, 17))
    assert {len(glyph.word) for glyph in glyphs} == set(range(3, 11))
    assert len({(glyph.top, glyph.left) for glyph in glyphs}) > 200
    assert len({glyph.ink for glyph in glyphs}) > 300
    assert all(abs(brightness(glyph.ink) - brightness(glyph.paper)) >= CONTRAST for glyph in glyphs)


def test_what_a_caption_says_is_read_off_it():
    assert parse("write h e l l o") == parse("h e l l o") == "hello"
    assert parse(" write a b c in red bold on white\n") == "abc"
    assert parse_look("write a b c in red bold on white") == ("red", "bold", "white")
    assert parse_look("write a b c") is None
    for wrong in ("", "hello", "write", "write H i", "h e  l l o", "write a b c in red bold", "a b c on white"):
        assert parse(wrong) is None


def test_documents_hold_their_answers():
    world, seen = Glyphs("line", tasks=TASKS, styled=True), set()
    for index in range(40):
        document = world.document(index, np.random.default_rng(index))
        task, glyphs = document.about["task"], document.about["glyphs"]
        seen.add(task)
        word, last = glyphs[-1].word, document.parts[-1]
        if task == "write":
            prompt, picture = document.parts
            assert world.parse(prompt.text) == word and prompt.weight < 0.1 and picture.wanted
            assert parse_look(prompt.text)[1] == glyphs[0].font
        elif task == "read":
            picture, answer = document.parts
            assert not picture.wanted and answer.text == spell(word) and answer.wanted
            assert read(picture.pixels) == word
        else:
            picture, ask, copy = document.parts
            assert not picture.wanted and not ask.wanted and copy.wanted and ask.text.startswith("copy it in ")
            assert read(picture.pixels) == read(copy.pixels) == word
        if last.medium == "image":
            assert (last.pixels == render(glyphs[-1])).all()
    assert seen == set(TASKS)


def test_the_same_document_is_drawn_twice():
    world = Glyphs(tasks=TASKS, seed=5)
    one, two = (world.document(9) for _ in range(2))
    assert one.about == two.about
    for a, b in zip(one.parts, two.parts, strict=True):
        assert (a.pixels == b.pixels).all() if a.medium == "image" else a.text == b.text


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="unknown level"):
        Glyphs("ful")
    with pytest.raises(ValueError, match="unknown split"):
        Glyphs(split="test")
    with pytest.raises(ValueError, match="wanted weights"):
        Glyphs(tasks={"sing": 1})
    with pytest.raises(ValueError, match="held out"):
        Glyphs(Level("mine", (24, 128), (HELD_FONT,), (8, 16)))
    with pytest.raises(ValueError, match="take a larger size"):
        Glyphs(size=(24, 20)).draw(np.random.default_rng(0), word="letters")
