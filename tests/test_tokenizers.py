"""Tokenizers of pictures: trained, stopped, resumed, saved and judged like anything else; and what judges them."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_designs import made
from tiny import RECIPE, hasten, own_pictures, quiet, unmeasured

from mixmodal.api import load
from mixmodal.data import make_source
from mixmodal.designs import tokenizer
from mixmodal.features import RandomFeatures
from mixmodal.judge.suites import Exam, examine
from mixmodal.parts import Image
from mixmodal.prepare import prepare
from mixmodal.recipes import recipe
from mixmodal.similarity import edge_energy, ms_ssim, psnr, ssim
from mixmodal.train import read_metrics, train

QUANTIZERS = {
    "none": None,
    "vq": {"kind": "vq", "size": 32, "width": 4, "revive": 2},
    "fsq": {"kind": "fsq", "levels": [5, 5]},
    "lfq": {"kind": "lfq", "bits": 4, "groups": 2},
}
NETS = {"features": 8, "blocks": 1}


def small(kind: str):
    """The tiny recipe with a tokenizer."""
    optim = replace(RECIPE.optim, matrices="adamw", rate=0.01, matrix_rate=0.01, filter_rate=0.01)
    model = tokenizer.model(quantizer=QUANTIZERS[kind], codec=NETS)
    return replace(RECIPE, name="tokenizer", model=model, optim=optim, steps=8, every=4)


@pytest.fixture(autouse=True)
def hastened(monkeypatch):
    hasten(monkeypatch)


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_a_tokenizer_learns_and_stopped_and_resumed_is_never_stopped_to_the_bit(tmp_path, kind, monkeypatch):
    chosen = small(kind)
    whole = train(chosen, tmp_path / "whole", say=quiet)
    lines = [line for line in read_metrics(whole) if "valid" not in line]
    assert np.mean([line["pictures.absolute"] for line in lines[-2:]]) < 0.9 * lines[0]["pictures.absolute"]
    parts = shutil.copytree(whole, tmp_path / "parts")  # as a kill after step 4 would leave it
    for later in (parts / "checkpoints/step_00000008", parts / "model"):
        shutil.rmtree(later)
    unmeasured(monkeypatch)
    resumed = train(chosen, tmp_path / "parts", resume=True, say=quiet)
    for file in ("model/model.safetensors", "checkpoints/step_00000008/weights.safetensors"):
        one, two = load_file(whole / file), load_file(resumed / file)
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert not kind.startswith("vq") or any(name.endswith("quantizer.book") for name in one)
    assert (whole / "samples/step_00000008.png").exists()


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_a_saved_tokenizer_gives_back_parts_of_any_size_and_is_judged(tmp_path, kind):
    loaded = load(train(replace(small(kind), steps=2, valid={}), tmp_path / "run", say=quiet))
    codec = loaded.model.streams["pictures"].codec
    for height, width in ((16, 16), (9, 22), (1, 1)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        with torch.no_grad():
            assert codec.rebuilt(Image(pixels)).pixels.shape == pixels.shape
    scores = examine("reconstruction", Exam(loaded.model, loaded.about, 6))
    assert {"psnr", "ssim", "edges", "random_features", "bits_per_pixel"} <= scores.keys() and scores["psnr"] > 3
    if kind == "none":
        assert scores["bits_per_pixel"] == 32 * 10 / 16
    else:
        assert scores["bits_per_pixel"] == pytest.approx(codec.quantizer.bits / 16)
        assert 0 <= scores["bits_per_pixel_ideal"] <= scores["bits_per_pixel"] + 1e-9
        assert scores["bits_per_pixel_ideal"] <= scores["bits_per_pixel_coded"]
        assert 1 <= scores["codes_used"] <= scores["codes"] and scores["perplexity"] <= scores["codes_used"] + 1e-6


def test_a_model_without_a_tokenizer_is_not_judged_as_one(model):
    with pytest.raises(ValueError, match="this model has no tokenizer"):
        examine("reconstruction", Exam(model, {}, 2))


def test_a_design_is_judged_by_its_tokenizer_on_as_many_pictures_as_there_are(tmp_path):
    own_pictures(tmp_path / "mine")
    model = made("showo")
    spec = {"kind": "folder", "path": str(tmp_path / "mine"), "size": 16}
    scores = examine("reconstruction", Exam(model, {"sources": {"mine": spec}}, 50))
    assert scores["asked"] == 1 and scores["psnr"] > 3  # one of six is held out
    with pytest.raises(ValueError, match="does not say what it learned from"):
        examine("reconstruction", Exam(model, {}, 2))


def test_a_judge_that_would_never_be_asked_is_refused():
    losses = {"adversary": 0.1}
    late = replace(small("none"), model=tokenizer.model(codec=NETS, losses=losses))
    with pytest.raises(ValueError, match=r"once the run has settled.*set optim.settle=0.7"):
        prepare(late)


def test_sizes_that_cannot_be_halved_are_refused():
    from mixmodal.codecs import autoencoder

    with pytest.raises(ValueError, match=r"codec.shrink is 3"):
        autoencoder.build(autoencoder.Config(shrink=3), 8)
    with pytest.raises(ValueError, match="quantizers kind 'vp'.*vq"):
        autoencoder.build(autoencoder.Config(quantizer={"kind": "vp"}), 8)


def test_the_recipes_of_tokenizers_are_there_and_differ_in_the_quantizer_alone():
    made = [recipe(f"tokenizer_{name}").model.streams["pictures"] for name in ("plain", "vq", "fsq", "lfq", "bsq")]
    assert all(replace(one, codec={**one.codec, "quantizer": {}}) == made[0] for one in made)


def test_recipes_beside_that_of_vq_differ_from_it_in_what_their_names_say():
    vq = recipe("tokenizer_vq").model.streams["pictures"]
    one, two, three = (recipe(f"tokenizer_{name}") for name in ("transformer", "learned", "late"))
    for chosen, part in ((one, "codec"), (two, "objective"), (three, "objective")):
        pictures = chosen.model.streams["pictures"]
        assert pictures != vq and replace(pictures, **{part: getattr(vq, part)}) == vq
    assert three.optim.settle < 1 == two.optim.settle


# What judges


def pair(height: int = 16, width: int = 14) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures, and the same with noise."""
    rng = np.random.default_rng(0)
    true = rng.uniform(-1, 1, (2, 3, height, width)).astype(np.float32)
    made = np.clip(true + rng.normal(0, 0.2, true.shape), -1, 1).astype(np.float32)
    return torch.from_numpy(made), torch.from_numpy(true)


def test_psnr_is_what_it_says_of_pixels():
    made, true = pair()
    for one, other, found in zip(made.numpy(), true.numpy(), psnr(made, true).tolist(), strict=True):
        error = np.mean(((one - other) * 127.5) ** 2)
        assert found == pytest.approx(10 * math.log10(255**2 / error), rel=1e-5)
    assert psnr(true, true).tolist() == pytest.approx([100, 100])


def test_ssim_is_that_of_windows_taken_one_by_one():
    made, true = pair()
    at = np.arange(11) - 5
    bell = np.exp(-(at**2) / (2 * 1.5**2))
    window = np.outer(bell, bell) / bell.sum() ** 2
    for number in range(2):
        found = []
        for channel in range(3):
            a, b = (x[number, channel].numpy().astype(np.float64) for x in (made, true))
            for row in range(16 - 10):
                for column in range(14 - 10):
                    x, y = (z[row : row + 11, column : column + 11] for z in (a, b))
                    mx, my = (window * x).sum(), (window * y).sum()
                    vx, vy = (window * x * x).sum() - mx**2, (window * y * y).sum() - my**2
                    both = (window * x * y).sum() - mx * my
                    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
                    found.append((2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
        assert float(ssim(made, true)[number]) == pytest.approx(np.mean(found), rel=1e-4)
    assert ssim(true, true).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_five_scales_want_large_pictures():
    with pytest.raises(ValueError, match="more than 160 px"):
        ms_ssim(*pair())
    made, true = pair(176, 180)
    assert ms_ssim(true, true).tolist() == pytest.approx([1, 1], abs=1e-4)
    assert (ms_ssim(made, true) < 0.999).all()


def test_edges_are_differences_of_neighbours():
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    assert edge_energy(ramp).tolist() == [1.0] and edge_energy(torch.ones(1, 3, 5, 5)).tolist() == [0.0]


def test_random_features_are_those_of_their_seed():
    made, true = pair()
    assert torch.equal(RandomFeatures(3)(made, true), RandomFeatures(3)(made, true))
    assert not torch.equal(RandomFeatures(3)(made, true), RandomFeatures(4)(made, true))
    assert RandomFeatures(3)(true, true).tolist() == [0, 0] and (RandomFeatures(3)(made, true) > 0).all()
    assert not RandomFeatures(3).state_dict()


def test_crops_of_clips_hold_one_film_out(tmp_path):
    folder = tmp_path / "video"
    folder.mkdir()
    clips = np.zeros((3, 2, 64, 64, 3), np.uint8)
    clips[2] = 9
    np.savez(folder / "clips64.npz", clips=clips)
    films = ["a.mp4", "b.mp4", "nasa_13013.mp4"]
    (folder / "captions.jsonl").write_text("".join(f'{{"source": "{film}"}}\n' for film in films), "utf8")
    for split, value in (("train", 0), ("valid", 9)):
        source = make_source({"kind": "clip-crops", "size": 24, "split": split, "where": str(tmp_path)})
        (part,) = source.document(0, np.random.default_rng(0)).parts
        assert part.pixels.shape == (24, 24, 3) and (part.pixels == value).all()
    with pytest.raises(ValueError, match="2 to 64 px"):
        make_source({"kind": "clip-crops", "size": 65, "where": str(tmp_path)})
