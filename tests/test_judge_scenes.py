"""The judge of scenes: right pictures are read back, wrong ones are refused."""

import numpy as np
import pytest

from mixmodal.data.worlds.scene_render import paint
from mixmodal.data.worlds.scenes import Scenes
from mixmodal.judge.scene_shapes import blobs
from mixmodal.judge.scenes import judge, kept, read
from mixmodal.judge.scenes_check import ACCEPT, DRAWN_WRONG, WRONG, blurred, measure


@pytest.mark.parametrize(
    ("level", "side", "n"), [("full", 32, 60), ("one", 16, 45), ("full", 64, 30), ("full", 128, 12)]
)
def test_the_judge_reads_back_right_pictures_and_refuses_wrong_ones(level, side, n):
    table = measure(level, side, n, seed=7)
    for row in ("as rendered", "blur 0.5 px", "noise 8"):
        assert table[row][0] == 1.0, (row, table[row])
    assert table["JPEG 85"][0] >= 0.97  # 99.3 % of a thousand at 16 px, more elsewhere
    for row in (*WRONG, *DRAWN_WRONG):
        assert table[row][1] == 0 or table[row][0] == 1.0, (row, table[row])
    assert set(table) == {*ACCEPT, *WRONG, *DRAWN_WRONG, "ms"}


def test_a_reading_has_every_object_at_its_place():
    world, rng = Scenes("full", 32), np.random.default_rng(0)
    for _ in range(40):
        scene = world.draw(rng)
        reading = read(world.render(scene))
        assert reading.meaning == scene.meaning.canonical()
        assert kept(reading, scene, within=0.3) and reading.unknown == 0
        moved = world.place(scene.meaning, rng)
        assert read(world.render(moved)).meaning == reading.meaning


def test_the_other_order_is_right_and_the_parts_tell_what_is_wrong():
    world = Scenes("full", 32)
    scene = world.place("a big red circle left of a small blue square on a white background", np.random.default_rng(0))
    pixels = world.render(scene)
    assert judge(pixels, "a small blue square right of a big red circle on a white background").exact
    verdict = judge(pixels, "a big red circle right of a small blue square on a black background")
    assert not verdict.exact
    assert [part for part, right in verdict.parts.items() if not right] == ["background", "relation"]
    assert verdict.fraction == pytest.approx(5 / 7)
    swapped = judge(pixels, "a big blue circle left of a small red square on a white background")
    assert swapped.parts["colours"] and swapped.parts["shapes"] and not swapped.parts["objects"]


def test_what_no_person_would_name_reads_as_unknown():
    rng = np.random.default_rng(1)
    world = Scenes("full", 32)
    assert read(np.full((32, 32, 3), (230, 90, 200), np.uint8)) is None
    empty = read(np.full((32, 32, 3), 255, np.uint8))
    assert empty.objects == () and empty.meaning is None
    one = world.place("a big red circle on a white background", rng)
    two = world.place("a big green square on a white background", rng)
    ghost = (world.render(one) * 0.5 + world.render(two) * 0.5).astype(np.uint8)
    assert read(ghost).meaning is None
    between = np.full((32, 32, 3), 255.0)
    paint(between, "circle", "big", "red", (12, 12))
    paint(between, "square", "big", "red", (15, 15))
    assert read(between.astype(np.uint8)).unknown == 1


def test_anything_at_all_can_be_judged():
    for index in range(60):
        rng = np.random.default_rng(index)
        side = int(rng.choice([16, 25, 32, 48]))
        pixels = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
        if index % 2:
            pixels = blurred(pixels, rng.uniform(0.5, 4))
        verdict = judge(pixels, "a big red circle on a white background")
        assert not verdict.exact and 0 <= verdict.fraction <= 1


def test_wrong_questions_to_the_judge_say_what_was_wanted():
    white = np.full((32, 32, 3), 255, np.uint8)
    with pytest.raises(ValueError, match="wanted a caption"):
        judge(white, "a cat")
    with pytest.raises(ValueError, match="side, side"):
        read(white[:20])


def test_words_that_a_level_lacks_read_as_unknown():
    world = Scenes("full", 32)
    scene = world.place("a big cyan ring on a white background", np.random.default_rng(2))
    assert read(world.render(scene), "full").unknown == 0
    assert read(world.render(scene), "two").unknown == 1


def test_blobs_are_the_connected_regions():
    rng = np.random.default_rng(3)
    for density in (0.1, 0.4, 0.6):
        mask = rng.random((20, 24)) < density
        labels, count = blobs(mask)
        assert ((labels > 0) == mask).all() and set(np.unique(labels)) == set(range(count + 1))
        for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
            moved = np.roll(labels, shift, (0, 1))
            touching = (labels > 0) & (moved > 0)
            touching[: shift[0]] = False
            touching[:, {1: slice(0, 1), -1: slice(-1, None), 0: slice(0, 0)}[shift[1]]] = False
            assert (labels[touching] == moved[touching]).all()
        seen = _flood(mask)
        assert seen == count


def _flood(mask: np.ndarray) -> int:
    left, count = {tuple(place) for place in np.argwhere(mask).tolist()}, 0
    while left:
        count += 1
        edge = [left.pop()]
        while edge:
            row, column = edge.pop()
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            edge += near
    return count
