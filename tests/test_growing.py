"""A model of words alone is trained on with pictures: what it knew stays, and what is new stands behind it."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import mixed_documents, small_model
from safetensors.torch import load_file
from tiny import RECIPE, TRUNK, hasten, unmeasured

from mixmodal import chain
from mixmodal import train as training
from mixmodal.chain import stands_on, starts_from, untrained
from mixmodal.checkpoint import save_pretrained
from mixmodal.config import Recipe
from mixmodal.designs import lossless
from mixmodal.growing import carry_over, deepened, together
from mixmodal.parts import Document, Text
from mixmodal.prepare import prepare
from mixmodal.sequence import collate

NETS = {"kind": "autoencoder", "shrink": 4, "features": 8, "blocks": 1}
CODES = {**NETS, "quantizer": {"kind": "vq", "size": 16, "width": 4}}
GROWN = {
    "lossless": {"patch": (1, 8, 8)},
    "showo": {"nets": CODES},
    "chameleon": {"nets": CODES},
    "transfusion": {"nets": {**NETS, "vector": 4}},
}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The folder of a model of words alone, no weight of which is zero."""
    folder = tmp_path_factory.mktemp("words") / "model"
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        text = {"text": RECIPE.model.streams["text"]}
        alone = replace(RECIPE.model, streams=text)
        prose = {"prose": {"kind": "prose"}}
        model = prepare(replace(RECIPE, model=alone, sources=prose, valid={}, length=384)).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    save_pretrained(model, folder)
    return folder, model.eval()


def recipe_of(design: str, start: str) -> Recipe:
    module = importlib.import_module(f"mixmodal.designs.{design}")
    return replace(RECIPE, model=module.model(TRUNK, **GROWN[design]), start=start, valid={})


def logits(model, document: Document) -> torch.Tensor:
    sequence = model.lay_out(document, np.random.default_rng(0))
    speaker = model.speaker.name
    batch = collate([sequence], [[0]], len(sequence), model.blank())
    with torch.inference_mode():
        return model.streams[speaker].head.logits(model(batch).flatten(0, 1))


@pytest.mark.parametrize("design", GROWN)
def test_what_it_said_of_words_it_says_still_and_pictures_are_learned(design, words, monkeypatch):
    folder, old = words
    hasten(monkeypatch)
    run = prepare(recipe_of(design, str(folder)))
    model = run.model.eval()
    assert {"text", "image"} == {stream.medium for stream in model.streams.values()}
    had, has = (m.speaker.codec.tokenizer.get_vocab() for m in (old, model))
    assert had.items() <= has.items() and {"<|image|>", "<|/image|>"} <= has.keys() - had.keys()
    before, after = (logits(m, Document((Text("a red ring"),))) for m in (old, model))
    if design != "showo":  # whose documents open with the token of a task, which it has just met
        torch.testing.assert_close(after[:, : before.shape[1]], before, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(after).all()
    model.train()
    losses = model.losses(run.loader.next(0.5))
    assert len({name.split(".")[0] for name in losses}) == 2
    assert all(torch.isfinite(total) for total, _ in losses.values())


def test_a_model_that_has_all_media_keeps_its_codecs_and_takes_objectives():
    found = RECIPE.model
    wanted = lossless.model(TRUNK, patch=(1, 16, 16), flow={"copies": 7}, picture_weight=9.0)
    streams = together(found, wanted).streams
    assert streams["patches"].codec == found.streams["patches"].codec and streams["patches"].weight == 9.0
    assert streams["patches"].objective["copies"] == 7 and streams["text"].codec == found.streams["text"].codec


def test_what_weights_were_shown_stays_when_they_are_trained_on():
    """Noise that entered quietly goes on to, and loud noise stays loud; of another objective nothing is kept."""

    def flow_of(had: dict, asked: dict) -> dict:
        found, wanted = (lossless.model(TRUNK, flow=options) for options in (had, asked))
        return together(found, wanted).streams["patches"].objective

    assert flow_of({}, {"sigma_data": 1.0, "noise_scale": 2.0, "clamp": 0.3}) == {"kind": "flow", "clamp": 0.3}
    kept = flow_of({"sigma_data": 0.5}, {"copies": 2})
    assert kept["sigma_data"] == 0.5 and kept["copies"] == 2
    found = lossless.model(TRUNK, flow={"sigma_data": 0.5})
    wanted = lossless.model(TRUNK)
    other = replace(wanted.streams["patches"], objective={"kind": "masked"})
    wanted = replace(wanted, streams={**wanted.streams, "patches": other})
    assert together(found, wanted).streams["patches"].objective == {"kind": "masked"}


def test_another_stream_of_a_medium_that_is_there_is_refused():
    latents = importlib.import_module("mixmodal.designs.transfusion").model(TRUNK, **GROWN["transfusion"])
    with pytest.raises(ValueError, match="the stream latents is of image, which .* has as patches"):
        together(lossless.model(TRUNK), latents)


def test_of_the_speaker_only_what_new_streams_want_is_switched_on():
    text = lossless.model(TRUNK, places=24).streams["text"]
    asked = replace(text, head={"kind": "categorical", "tied": True, "joint": True})
    wanted = lossless.model(TRUNK)
    wanted = replace(wanted, streams={**wanted.streams, "text": asked})
    found = replace(RECIPE.model, streams={"text": RECIPE.model.streams["text"]})
    speaker = together(found, wanted).streams["text"]
    assert "learned" not in speaker.codec and speaker.head == {"kind": "categorical", "joint": True}


def test_a_stream_whose_time_nothing_would_tell_is_refused():
    found = replace(RECIPE.model, streams={"text": RECIPE.model.streams["text"]})
    with pytest.raises(ValueError, match="not adaptive"):
        together(found, lossless.model(TRUNK, flow={"time": "trunk"}))
    told = replace(found, trunk=replace(TRUNK, adaptive=True))
    assert "patches" in together(told, lossless.model(TRUNK, flow={"time": "trunk"})).streams


def test_a_stream_whose_expert_the_trunk_lacks_is_refused():
    found = replace(RECIPE.model, streams={"text": RECIPE.model.streams["text"]})
    wanted = lossless.model(TRUNK)
    wanted = replace(wanted, streams={n: replace(s, expert=1) for n, s in wanted.streams.items()})
    with pytest.raises(
        ValueError, match=r"patches takes expert 1, .* has 1 of them: set model.streams.patches.expert=0"
    ):
        together(found, wanted)
    assert together(replace(found, trunk=replace(TRUNK, experts=2)), wanted).streams["patches"].expert == 1


def test_a_weight_of_another_shape_is_refused_by_its_name(words, monkeypatch):
    _, old = words
    hasten(monkeypatch)
    wider = replace(RECIPE, model=lossless.model(replace(TRUNK, mlp_width=32)))
    with pytest.raises(ValueError, match=r"mlp\.\w+\.weight is \[.*leave the options"):
        carry_over(old, prepare(wider).model, 0)


@pytest.mark.parametrize(
    "trunk", [{}, {"depth": 3, "adaptive": True}, {"experts": 2, "block": "gau", "heads": 1, "kv_heads": 1}]
)
def test_blocks_more_in_the_middle_change_nothing_until_they_learn(trunk):
    old = small_model(trunk=trunk)
    new = deepened(old, 2, seed=1).eval()
    depth = old.config.trunk.depth
    assert new.config.trunk.depth == depth + 2 == len(new.trunk.blocks)
    sequence = old.lay_out(mixed_documents()[4], np.random.default_rng(0))
    batch = collate([sequence], [[0]], len(sequence), old.blank())
    with torch.no_grad():
        torch.testing.assert_close(new(batch), old(batch), rtol=1e-5, atol=1e-5)
    losses = new.losses(batch)
    sum(total for total, _ in losses.values()).backward()
    inner = [
        p.grad.abs().sum()
        for block in new.trunk.blocks[depth // 2 : depth // 2 + 2]
        for p in block.parameters()
        if p.grad is not None
    ]
    assert sum(inner) > 0


def test_a_run_goes_deeper_and_when_resumed_no_deeper(words, tmp_path, monkeypatch):
    folder, _ = words
    hasten(monkeypatch)
    unmeasured(monkeypatch)
    recipe = replace(recipe_of("lossless", str(folder)), deeper=1, steps=4, every=2)
    whole = training.train(recipe, tmp_path / "whole", say=lambda _: None)
    parts = shutil.copytree(whole, tmp_path / "parts")
    shutil.rmtree(parts / "checkpoints/step_00000004")
    training.train(recipe, parts, resume=True, say=lambda _: None)
    one, two = (load_file(run / "model/model.safetensors") for run in (whole, parts))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert max(int(name.split(".")[2]) for name in one if name.startswith("trunk.blocks.")) == TRUNK.depth


def test_what_cannot_go_deeper_is_refused():
    with pytest.raises(ValueError, match="long skips join the two halves"):
        deepened(small_model(trunk={"long_skips": True}), 1, 0)
    with pytest.raises(ValueError, match="deeper is 2, and no model is trained on"):
        prepare(replace(RECIPE, deeper=2))
    with pytest.raises(ValueError, match="deeper is -1"):
        replace(RECIPE, deeper=-1)


def test_a_recipe_may_start_from_another_recipe():
    chosen = replace(RECIPE, start="recipe:lossless_two")
    assert starts_from(chosen) == "lossless_two" and stands_on(chosen) == ["lossless_two"]
    assert untrained(chosen).start == "" and starts_from(RECIPE) == starts_from(replace(RECIPE, start="runs/a")) == ""


def test_what_an_inner_recipe_stands_on_is_trained_before_it(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr("mixmodal.train.train_as", lambda ranks, chosen, folder, resume: order.append((folder, chosen)))
    inner = replace(RECIPE, start="recipe:words")
    chain.trained("inner", tmp_path / "inner", inner)
    (first, _), (second, begun) = order
    assert (first, second) == (tmp_path / "words", tmp_path / "inner") and begun.start == str(first)
