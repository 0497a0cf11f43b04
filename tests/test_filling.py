"""Inpainting, extrapolation and variation: masks of what is known, and one command for all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import picture, small_model
from PIL import Image as Picture

from mixmodal import api, cli
from mixmodal.api import Loaded
from mixmodal.data.worlds.scenes import Scenes
from mixmodal.filling import grown, hidden, masked, varied
from mixmodal.healing import healed
from mixmodal.judge.suite_inpainting import box_of, seam
from mixmodal.objectives import Ask
from mixmodal.parts import Image
from mixmodal.sampling import Settings


def test_a_hidden_box_shows_nothing_of_what_it_hides():
    pixels = picture(0).pixels
    part = hidden(pixels, (2, 3, 6, 20))
    assert not part.known[2:6, 3:].any() and part.known.sum() == 64 - 4 * 5
    assert (part.pixels[~part.known] == 128).all() and (part.pixels[part.known] == pixels[part.known]).all()


@pytest.mark.parametrize("box", [(0, 0, 8, 8), (3, 3, 3, 7), (9, 9, 12, 12)])
def test_a_box_that_hides_all_or_nothing_is_refused(box):
    with pytest.raises(ValueError, match=r"hides (all|nothing) of a picture of 8 x 8: give top,left,bottom,right"):
        hidden(picture(0).pixels, box)


def test_a_grown_picture_keeps_the_old_one_in_its_middle():
    pixels = picture(0).pixels
    part = grown(pixels, (8, 16))
    assert part.known[:, 4:12].all() and part.known.sum() == 64 and (part.pixels[:, 4:12] == pixels).all()
    assert grown(pixels, (12, 8), (0, 0)).known[:8].all()
    for size, at in (((8, 8), None), ((4, 16), None), ((9, 9), (2, 0))):
        with pytest.raises(ValueError, match="take a larger size"):
            grown(pixels, size, at)


def test_a_variation_hides_so_great_a_share_of_squares():
    pixels = picture(0, 32, 24).pixels
    part = varied(pixels, 0.5)
    assert 1 - part.known.mean() == pytest.approx(0.5)
    assert not np.array_equal(part.known, varied(pixels, 0.5, seed=1).known)
    assert np.array_equal(part.known, varied(pixels, 0.5).known)
    assert varied(picture(0, 9, 7).pixels, 0.1).known.shape == (9, 7)
    with pytest.raises(ValueError, match="take more than 0"):
        varied(pixels, 0.0)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="equally large"):
        masked(picture(0).pixels, np.ones((4, 4), bool))


def test_filling_keeps_what_is_known_to_the_bit_and_follows_the_seed():
    loaded = Loaded(small_model(), {"steps_sampled": 2}, torch.float32)
    part = grown(picture(0).pixels, (8, 12))
    first, again, other = (
        [np.asarray(p) for p in loaded.fill(part, "a red circle", n=2, seed=seed)] for seed in (0, 0, 1)
    )
    assert all(np.array_equal(p[:, 2:10], picture(0).pixels) for p in (*first, *other))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[0], other[0])
    with pytest.raises(ValueError, match="nothing of the picture is said to be known"):
        loaded.fill(picture(0))


def test_with_the_true_values_predicted_each_round_ends_at_the_true_picture():
    """A codec that reads the truth: going back and forth between two times leads where going once leads."""
    model = small_model()
    stream = model.streams["patches"]
    part = hidden(picture(3).pixels, (0, 0, 4, 4))
    grid = stream.codec.encode(part)
    true = torch.from_numpy(stream.codec.encode(picture(3)).values)
    stream.codec.read = lambda hidden_ND, fields: true
    seen = []
    sampler = stream.objective.sampler(
        stream.codec, None, grid, Ask(Settings(steps=3, guidance=1.0), torch.Generator().manual_seed(0), [], [], False)
    )
    block = next(sampler)
    try:
        while True:
            seen.append(float(block.run.time[0]))
            block = sampler.send([torch.zeros(len(block.run), 64)])
    except StopIteration as end:
        assert np.allclose(end.value, true.numpy(), atol=1e-5)
    rounds = stream.objective.config.rounds
    assert len(seen) == 3 * rounds and len(set(seen)) == 3


def test_the_box_of_an_object_holds_all_of_it():
    world = Scenes("two", 32, kinds={"pair": 1.0})
    rng = np.random.default_rng(0)
    for _ in range(30):
        scene = world.draw(rng)
        box = box_of(scene, rng)
        pixels = world.render(scene)
        assert 0.0 <= seam(pixels, box) < 40
        inside = pixels[box].reshape(-1, 3)
        assert len(np.unique(inside, axis=0)) > 1  # an object, and what is around it


def test_a_seam_is_the_mean_step_across_the_edge_of_the_box():
    pixels = np.zeros((6, 6, 3), np.uint8)
    pixels[2:4, 2:4] = 10
    assert seam(pixels, (slice(2, 4), slice(2, 4))) == 10
    assert seam(pixels, (slice(0, 4), slice(0, 3))) == pytest.approx(10 / 7)  # the picture's own edge is no seam


def test_the_command_fills_and_says_what_it_wants(tmp_path, monkeypatch, capsys):
    Picture.fromarray(picture(0).pixels).save(tmp_path / "p.png")
    Picture.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / "all.png")
    loaded = Loaded(small_model(), {"steps_sampled": 2}, torch.float32)
    monkeypatch.setattr(api, "load", lambda *_: loaded)
    asked = ["fill", "x", str(tmp_path / "p.png"), "a red circle", "-o", str(tmp_path / "out/f.png")]
    cli.main([*asked, "--hide", "0,0,4,8", "--n", "2"])
    assert np.array_equal(np.asarray(Picture.open(tmp_path / "out/f_1.png"))[4:], picture(0).pixels[4:])
    cli.main([*asked, "--grow", "8x12"])
    assert Picture.open(tmp_path / "out/f.png").size == (12, 8)
    cli.main([*asked, "--vary", "1"])
    for wrong, said in (
        ([], "exactly one of --hide, --mask, --grow, --vary"),
        (["--hide", "1,2"], "write TOP,LEFT,BOTTOM,RIGHT"),
        (["--grow", "axb"], "write HEIGHTxWIDTH"),
    ):
        with pytest.raises(SystemExit):
            cli.main([*asked, *wrong])
        assert said in capsys.readouterr().err


def test_what_is_decoded_with_a_loss_goes_over_into_what_is_known_without_a_step():
    known = np.ones((24, 20), bool)
    known[6:18, 5:20] = False  # up to the edge of the picture
    true = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    part = masked(true, known)
    lossy = np.zeros((1, 32, 32, 3), np.float32)  # padded, and off by another amount at every pixel
    lossy[:, :24, :20] = Image(true).array() + np.linspace(0.1, 0.5, 24, dtype=np.float32)[:, None, None]
    made = healed(lossy, part)
    wrong, before = (np.abs(array[0, :24, :20] - Image(true).array()[0]) for array in (made, lossy))
    assert made.shape == (1, 24, 20, 3) and wrong[known].max() < 1e-6
    assert wrong[6:18, 5].max() < 0.1 * before[6:18, 5].max()  # next to what is known
    assert wrong[~known].mean() < 0.5 * before[~known].mean()  # the error was smooth: there is less of it inside, too
    assert np.array_equal(healed(lossy, Image(true)), lossy)
    assert np.array_equal(part.with_array(made).pixels[known], true[known])
