"""The world `scenes`: what it draws, what it says, and what it keeps out of training."""

import time

import numpy as np
import pytest

from mixmodal.data.worlds.scene_edits import apply, edited, is_sound
from mixmodal.data.worlds.scene_grammar import COLOURS, SHAPES, UNSEEN_PAIRS, Meaning, parse, same_meaning
from mixmodal.data.worlds.scene_questions import answer, answer_two, difference
from mixmodal.data.worlds.scene_render import EXTENT, GROUND, PALETTE
from mixmodal.data.worlds.scenes import LEVELS, SPLITS, TASKS, Scenes
from mixmodal.parts import Image, Text

CASES = [("one", 16), ("two", 32), ("counts", 32), ("full", 32), ("full", 50), ("full", 128)]


@pytest.mark.parametrize(("level", "side"), CASES)
def test_every_scene_keeps_margin_gap_and_relation(level, side):
    world, rng = Scenes(level, side), np.random.default_rng(0)
    for index in range(60):
        scene = world.draw(rng, SPLITS[index % 3])
        assert is_sound(scene)
        assert scene.meaning.split == SPLITS[index % 3]
        pixels = world.render(scene)
        assert pixels.shape == (side, side, 3) and pixels.dtype == np.uint8


@pytest.mark.parametrize("level", sorted(LEVELS))
def test_captions_parse_back_in_either_order(level):
    world, rng = Scenes(level, 32), np.random.default_rng(1)
    for _ in range(100):
        scene = world.draw(rng)
        assert world.parse(world.caption(scene)) == scene.meaning
        assert same_meaning(world.caption(scene, rng), scene.meaning.flipped().words())


def test_captions_read_as_a_person_would_write_them():
    first = "a big red circle left of a small blue square on a white background"
    assert parse(first).words() == first
    assert same_meaning(first, "A small blue square right of a big red circle on a white background.")
    assert not same_meaning(first, "a small blue square left of a big red circle on a white background")
    several = "three small green rings above a big red plus on a grey background"
    assert [group.count for group in parse(several).groups] == [3, 1]
    assert parse("four small pink pluses on a black background").groups[0].shape == "plus"


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a big red circle",
        "a big red circles on a white background",
        "two big red circle on a white background",
        "a red circle on a white background",
        "a big red circle near a small blue square on a white background",
        "a big red circle left of a big red circle on a white background",
        "a big red circle left of a small blue square left of a small red ring on a white background",
        "a big red circle on a pink background",
    ],
)
def test_what_is_no_caption_is_not_parsed(caption):
    assert parse(caption) is None


def test_colours_are_far_apart():
    tones = {**PALETTE, **GROUND}
    apart = {
        (one, two): np.linalg.norm(np.subtract(tones[one], tones[two])) for one in tones for two in tones if one < two
    }
    assert min(apart.values()) > 105, min(apart.items(), key=lambda item: item[1])


def test_big_is_never_mistaken_for_small():
    for shape in SHAPES:
        assert EXTENT[shape, "big"][0] > 1.5 * EXTENT[shape, "small"][0]
    assert min(EXTENT[shape, "big"][0] for shape in SHAPES) > 1.3 * max(EXTENT[shape, "small"][0] for shape in SHAPES)


def test_a_tenth_of_the_pairs_never_occurs_in_training():
    assert len(UNSEEN_PAIRS) == 5 and len(SHAPES) * len(COLOURS) == 48
    assert len({shape for shape, _ in UNSEEN_PAIRS}) == len({colour for _, colour in UNSEEN_PAIRS}) == 5
    assert len(LEVELS["two"].unseen_pairs) == 2
    held = sum(meaning.split == "heldout" for meaning in _all_single())
    assert 0.05 < held / 344 < 0.15


def _all_single() -> list[Meaning]:
    meanings = (
        parse(f"a {size} {colour} {shape} on a {ground} background")
        for size in ("small", "big")
        for colour in COLOURS
        for shape in SHAPES
        for ground in GROUND
    )
    return [meaning for meaning in meanings if meaning.split != "unseen"]


def test_what_is_changed_stays_within_its_level():
    world, rng = Scenes("few", tasks={"edit": 1.0, "story": 1.0, "compare": 1.0}), np.random.default_rng(0)
    level = LEVELS["few"]
    for index in range(60):
        for scene in world.document(index, rng).about["scenes"]:
            assert all(level.knows(*group.look) for group in scene.meaning.groups)
    assert not level.knows("small", "red", "circle") and not level.knows("big", "red", "ring")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_documents_of_every_task_stay_in_their_split(task, split):
    world = Scenes("full", 32, {task: 1.0}, split=split)
    for index in range(15):
        document = world.document(index, np.random.default_rng(index))
        splits = [scene.meaning.split for scene in document.about["scenes"]]
        assert split in splits and set(splits) <= {"train", split}
        words = " ".join(part.text for part in document.parts if isinstance(part, Text))
        assert (words.isascii() and words == words.lower()) or (task == "look" and not words)
        wanted = [part for part in document.parts if part.wanted and isinstance(part, Image)]
        assert len(wanted) == {"draw": 1, "edit": 1, "look": 1, "story": len(splits)}.get(task, 0)


def test_pictures_are_described_in_reading_order_and_asked_for_in_any():
    said = {}
    for task in ("describe", "draw"):
        world = Scenes("two", 32, {task: 1.0})
        documents = [world.document(index, np.random.default_rng(index)) for index in range(60)]
        texts = [part.text for document in documents for part in document.parts if isinstance(part, Text)]
        said[task] = {parse(text).relation for text in texts}
    assert said == {"describe": {"left of", "above"}, "draw": {"left of", "right of", "above", "below"}}


def test_the_same_index_gives_the_same_document():
    world = Scenes("full", 32, dict.fromkeys(TASKS, 1.0))
    for index in range(12):
        one, two = (world.document(index, np.random.default_rng(index)) for _ in range(2))
        assert [part.medium for part in one.parts] == [part.medium for part in two.parts]
        for first, second in zip(one.parts, two.parts, strict=True):
            same = first.text == second.text if isinstance(first, Text) else (first.pixels == second.pixels).all()
            assert same


def test_answers_are_right():
    scene = parse("three small green rings above a big red plus on a grey background")
    for question, wanted in {
        "what colour are the rings": "green",
        "what shape is the red object": "plus",
        "what size is the plus": "big",
        "how many small rings are there": "three",
        "how many objects are there": "four",
        "how many circles are there": "zero",
        "is there a red ring": "no",
        "what is below the rings": "a big red plus",
        "is the plus below the rings": "yes",
        "what colour is the background": "grey",
        "what is above the rings": None,
        "what colour is the object": None,
        "why": None,
    }.items():
        assert answer(question, scene) == wanted, question
    other = parse("two small green rings above a big red plus on a grey background")
    assert answer_two("what changed", scene, other) == "a small green ring was removed"
    assert answer_two("which picture has more rings", scene, other) == "the first"
    assert difference(scene, scene.flipped()) == "nothing"


def test_instructions_do_what_they_say():
    scene = parse("two small green rings above a big red plus on a grey background")
    for instruction, wanted in {
        "make the plus blue": "two small green rings above a big blue plus on a grey background",
        "then turn the rings into circles": "two small green circles above a big red plus on a grey background",
        "remove one of the rings": "a small green ring above a big red plus on a grey background",
        "remove the plus": "two small green rings on a grey background",
        "make the background white": "two small green rings above a big red plus on a white background",
    }.items():
        assert apply(instruction, scene).words() == wanted
    one = parse("a big red plus on a grey background")
    assert same_meaning(
        apply("add a small blue ring left of the plus", one),
        "a small blue ring left of a big red plus on a grey background",
    )
    assert apply("make the circle blue", scene) is None
    assert apply("remove one of the pluses", scene) is None


def test_what_an_edit_does_not_name_stays_where_it_is():
    world, rng = Scenes("full", 32, {"edit": 1.0}), np.random.default_rng(3)
    for _ in range(30):
        about = world.document(0, rng).about
        before, after = about["scenes"]
        assert is_sound(after) and apply(about["instruction"], before.meaning) == after.meaning
        old = {place for group in before.centres for place in group}
        if not about["instruction"].startswith("add"):
            assert {place for group in after.centres for place in group} <= old
        assert edited(before, "make the nothing blue", rng) is None


def test_a_scene_without_room_is_refused():
    world = Scenes("full", 16)
    assert world.place("four big red squares on a white background", np.random.default_rng(0)) is None
    with pytest.raises(ValueError, match="wanted one of"):
        Scenes("fulll")
    with pytest.raises(ValueError, match="weights"):
        Scenes("full", tasks={"paint": 1.0})


def test_objects_lie_as_freely_as_they_are_told():
    """Of one sentence; the level's own freedom unless another is asked for."""

    def spread(world: Scenes) -> float:
        rng, said = np.random.default_rng(5), "a big red circle left of a small blue square on a white background"
        centres = [world.place(said, rng).centres[0][0] for _ in range(40)]
        return float(np.std(centres, 0).max())

    fixed, own, free = (spread(Scenes("two", 32, freedom=f)) for f in (0.0, None, 1.0))
    assert fixed < 1e-9 < own < free / 4
    assert spread(Scenes("two", 32, freedom=0.1)) == own and Scenes("two", 32, freedom=1).level.name == "two"
    with pytest.raises(ValueError, match="got freedom 1.5"):
        Scenes("two", freedom=1.5)


def test_drawing_is_fast():
    world, rng = Scenes("full", 32), np.random.default_rng(4)
    scenes = [world.draw(rng) for _ in range(200)]
    start = time.process_time()
    for scene in scenes:
        world.render(scene)
    assert (time.process_time() - start) / 200 < 1e-3  # measured 0.07 ms; room for a slow machine
