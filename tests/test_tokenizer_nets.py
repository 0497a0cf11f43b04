"""A tokenizer by a transformer, one trained by features of another, and one that a judge of its pictures finishes."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import picture
from safetensors.torch import load_file
from test_designs import TRUNK, completed
from test_generate import asked
from test_tokenizers import QUANTIZERS, small
from tiny import RECIPE, hasten, quiet

from mixmodal import chain
from mixmodal.adversary import Adversary
from mixmodal.api import load
from mixmodal.codecs import autoencoder
from mixmodal.codecs.autoencoder import Config
from mixmodal.designs import showo, tokenizer
from mixmodal.features import Distance, TrainedFeatures
from mixmodal.generate import generate
from mixmodal.judge.costs import step_cost
from mixmodal.model import Model
from mixmodal.optim import has_settled, make_optimizers
from mixmodal.parts import Document, Image, Text
from mixmodal.picture_nets import NetConfig, nets_of
from mixmodal.prepare import prepare
from mixmodal.sequence import collate, pack, split
from mixmodal.step import train_step
from mixmodal.train import read_metrics, train

TRANSFORMER = {"net": "transformer", "features": 16, "blocks": 1}
LATE = {"adversary": 0.1, "features": 0.0}


def changed(kind: str, codec: dict | None = None, losses: dict | None = None, **more):
    """The tiny recipe of a tokenizer, with other options."""
    chosen = small(kind)
    pictures = chosen.model.streams["pictures"]
    pictures = replace(
        pictures,
        codec={**pictures.codec, **(codec or {})},
        objective={**pictures.objective, **(losses or {})},
    )
    streams = {**chosen.model.streams, "pictures": pictures}
    return replace(chosen, model=replace(chosen.model, streams=streams), valid={}, **more)


def late(kind: str = "vq", **more):
    """One that settles after half of its steps."""
    chosen = changed(kind, losses=LATE)
    return replace(chosen, **{"optim": replace(chosen.optim, settle=0.5), "steps": 8, "every": 2, "keep": 9, **more})


@pytest.fixture(autouse=True)
def hastened(monkeypatch):
    hasten(monkeypatch)


def equal(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def cut(run, step: int) -> None:
    """Leave of a run what it had after so many steps."""
    for home in (run / "checkpoints").iterdir():
        if int(home.name.removeprefix("step_")) > step:
            shutil.rmtree(home)
    shutil.rmtree(run / "model")


# A transformer


@pytest.mark.parametrize("kind", [*QUANTIZERS, "kl"])
def test_every_vector_and_every_pixel_of_a_transformer_reaches_every_weight(kind):
    torch.manual_seed(0)
    own = {"kl": 0.1} if kind == "kl" else {"quantizer": QUANTIZERS[kind] or {}}
    codec = autoencoder.build(Config(**TRANSFORMER, **own), 8).train()
    with torch.no_grad():  # blocks begin as nothing
        for parameter in codec.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    made, _, losses = codec(torch.rand(2, 3, 8, 12), 0.5, torch.zeros(2, dtype=torch.int64))
    (made.square().sum() + sum(losses.values())).backward()
    assert made.shape == (2, 3, 8, 12)
    assert [n for n, p in codec.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())] == []


@torch.no_grad()
def test_every_place_of_a_transformer_sees_its_whole_picture_and_no_other():
    torch.manual_seed(0)
    net = NetConfig(net="transformer", shrink=3, features=64, blocks=2)
    encoder = nets_of(net)[0](net, 5)
    for parameter in encoder.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    pictures = torch.rand(2, 3, 9, 6)
    other = pictures.clone()
    other[0, :, 0, 0] += 1
    before, after = encoder(pictures), encoder(other)
    assert before.shape == (2, 5, 3, 2)
    assert ((before[0] - after[0]).abs() > 1e-7).any(0).all() and torch.equal(before[1], after[1])
    torch.testing.assert_close(encoder(pictures[:1]), before[:1])


@pytest.mark.parametrize("kind", ["none", "vq"])
def test_a_tokenizer_by_a_transformer_learns_resumes_to_the_bit_and_takes_any_size(tmp_path, kind):
    chosen = changed(kind, TRANSFORMER)
    whole = train(chosen, tmp_path / "whole", say=quiet)
    lines = read_metrics(whole)
    assert np.mean([line["pictures.absolute"] for line in lines[-2:]]) < 0.9 * lines[0]["pictures.absolute"]
    parts = shutil.copytree(whole, tmp_path / "parts")
    cut(parts, 4)
    train(chosen, parts, resume=True, say=quiet)
    assert equal(*(load_file(run / "model/model.safetensors") for run in (whole, parts)))
    codec = load(whole).model.streams["pictures"].codec
    for height, width in ((16, 16), (9, 22), (1, 1)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert codec.rebuilt(Image(pixels)).pixels.shape == pixels.shape


def test_a_design_draws_in_bf16_on_a_transformer_whose_nets_stay_in_fp32():
    nets = {"kind": "autoencoder", "shrink": 2, **TRANSFORMER, "quantizer": QUANTIZERS["lfq"]}
    torch.manual_seed(0)
    model = Model(completed(showo.model(TRUNK, nets=nets))).eval()
    for dtype in (torch.float32, torch.bfloat16):
        drawn = generate(model, [asked(Text("a"), Image(size=(8, 8)), steps=2)], dtype=dtype)
        assert drawn[0].parts[-1].pixels.shape == (8, 8, 3)


def test_nets_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"codec\.net is 'mlp': take convolutions or transformer"):
        autoencoder.build(Config(net="mlp"), 8)
    with pytest.raises(ValueError, match="shared out evenly to heads"):
        autoencoder.build(Config(net="transformer", features=67), 8)


# Features of a trained one


def test_features_are_those_of_the_encoder_it_was_trained_with_and_learn_nothing(tmp_path, monkeypatch):
    first = changed("none", {"shrink": 8}, steps=3, every=3)
    monkeypatch.setattr(chain, "recipe", lambda name: {"first": first}[name])
    chosen = changed("vq", losses={"trained": 0.5, "nets": {"from": "recipe:first"}}, steps=4, every=2)
    standing = chain.standing(chosen, tmp_path / "run")
    assert standing.model.streams["pictures"].objective["nets"] == {"from": str(tmp_path / "first")}
    run = train(standing, tmp_path / "run", say=quiet)
    assert all(line["pictures.trained"] > 0 for line in read_metrics(run))
    own, theirs = (load_file(tmp_path / name / "model/model.safetensors") for name in ("run", "first"))
    names = [name for name in own if ".objective.nets." in name]
    assert len(names) > 5 and not any(name.endswith("encoder.last") for name in names)
    for name in names:
        assert torch.equal(own[name], theirs[name.replace(".objective.nets.", ".codec.")])
    shutil.rmtree(tmp_path / "first")  # a run goes on without what it began with
    cut(run, 2)
    train(standing, run, resume=True, say=quiet)
    assert equal(load_file(run / "model/model.safetensors"), own)
    model = load(run).model
    assert not any(p.requires_grad for p in model.streams["pictures"].objective.parameters())


def test_a_distance_is_that_of_directions_taken_place_by_place():
    class Two(Distance):
        def layers(self, pictures):
            return [pictures, pictures[:, :2, ::2, ::2] * 3]

    made, true = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    for number, found in enumerate(Two()(made, true).tolist()):
        each = []
        for a, b in zip(*(Two().layers(x[number : number + 1]) for x in (made, true)), strict=True):
            places = [(a[0, :, y, x], b[0, :, y, x]) for y in range(a.shape[2]) for x in range(a.shape[3])]
            each.append(np.mean([float((p / p.norm() - q / q.norm()).square().sum()) for p, q in places]))
        assert found == pytest.approx(np.mean(each), rel=1e-4)


def test_features_of_nothing_trained_are_refused():
    with pytest.raises(ValueError, match=r"set objective\.nets\.from to the folder of a trained tokenizer"):
        TrainedFeatures({})


# A late adversary


def test_one_backward_pass_teaches_the_judge_and_the_maker_each_its_own():
    torch.manual_seed(0)
    judge, made, true = Adversary(), torch.randn(3, 3, 8, 8, requires_grad=True), torch.randn(3, 3, 8, 8)
    found = judge.losses(made, true)
    sum(loss.sum() for loss in found.values()).backward()
    # Of the maker: only how well it passes, the judge held.
    (wanted,) = torch.autograd.grad(-judge(made).mean(1).sum(), made)
    torch.testing.assert_close(made.grad, wanted)
    # Of the judge: only what it tells wrong, and its slope; what was made is given.
    given, asked = made.detach(), true.clone().requires_grad_()
    hinge = (1 - judge(true)).clamp(min=0).mean(1) + (1 + judge(given)).clamp(min=0).mean(1)
    (slope,) = torch.autograd.grad(judge(asked).sum(), asked, create_graph=True)
    steep = slope.square().flatten(1).sum(1) / judge(true).shape[1]
    torch.testing.assert_close([found["told"], found["steep"]], [hinge, steep])
    for parameter, grad in zip(
        judge.parameters(), torch.autograd.grad((hinge + steep).sum(), list(judge.parameters())), strict=True
    ):
        torch.testing.assert_close(parameter.grad, grad)


def test_what_a_judge_costs_is_counted_although_it_takes_a_gradient_within_the_pass():
    alone, judged = (late(optim=replace(small("vq").optim, settle=settle)) for settle in (0.999, 0.0))
    assert step_cost(judged).flops > 1.1 * step_cost(alone).flops


@pytest.mark.parametrize("side", [1, 2, 9])
def test_a_judge_takes_pictures_of_any_size_without_gradients_too(side):
    with torch.no_grad():
        found = Adversary().losses(torch.rand(2, 3, side, side + 1), torch.rand(2, 3, side, side + 1))
    assert all(loss.shape == (2,) and loss.isfinite().all() for loss in found.values())


@pytest.mark.parametrize("kind", ["vq", "none"])
def test_once_settled_codes_stay_and_the_decoder_learns_on_against_its_judge(tmp_path, kind):
    run = train(late(kind), tmp_path / "run", say=quiet)
    lines = {line["step"]: line for line in read_metrics(run)}
    assert all(("pictures.told" in lines[step]) == (step > 4) for step in lines)
    at = {step: load_file(run / f"checkpoints/step_{step:08}/weights.safetensors") for step in (2, 4, 6, 8)}
    stem = "streams.pictures."
    kept = [n for n in at[4] if n.startswith((stem + "codec.encoder", stem + "codec.quantizer"))]
    kept += [stem + "codec." + name for name in ("mean", "square", "steps")] if kind == "none" else []
    judging = [n for n in at[4] if n.startswith(stem + "objective.adversary")]
    assert len(kept) > 5 and len(judging) == 8
    assert not all(torch.equal(at[2][name], at[4][name]) for name in kept)
    assert all(torch.equal(at[4][name], at[8][name]) for name in kept)
    assert all(torch.equal(at[2][name], at[4][name]) and not torch.equal(at[4][name], at[6][name]) for name in judging)
    assert not torch.equal(at[4][stem + "codec.decoder.last.weight"], at[8][stem + "codec.decoder.last.weight"])


def test_a_run_with_a_judge_that_is_stopped_before_at_or_after_it_settles_resumes_to_the_bit(tmp_path):
    whole = train(late(), tmp_path / "whole", say=quiet)
    for step in (2, 4, 6):
        parts = shutil.copytree(whole, tmp_path / f"parts{step}")
        cut(parts, step)
        train(late(), parts, resume=True, say=quiet)
        for file in ("model/model.safetensors", "checkpoints/step_00000008/optimizer.safetensors"):
            assert equal(load_file(whole / file), load_file(parts / file))


def test_a_judge_may_be_put_to_a_tokenizer_that_is_trained_already_whose_codes_stay(tmp_path):
    first = train(changed("vq", steps=4, every=4), tmp_path / "first", say=quiet)
    chosen = late(start=str(first), optim=replace(small("vq").optim, settle=0.0), steps=2)
    later = train(chosen, tmp_path / "later", say=quiet)
    codecs = [load(run).model.streams["pictures"].codec for run in (first, later)]
    latents = [codec.latents(picture(0, 16, 16)) for codec in codecs]
    assert np.array_equal(*(codec.to_codes(z) for codec, z in zip(codecs, latents, strict=True)))
    assert not np.array_equal(*(codec.rebuilt(picture(0, 16, 16)).pixels for codec in codecs))


def test_rows_without_a_picture_have_the_losses_of_those_with_one():
    for kind in QUANTIZERS:
        for settled in (False, True):
            run = prepare(late(kind))
            model = run.model
            batch = run.loader.next(0.6)
            empty = collate([], [[] for _ in range(4)], run.recipe.length, model.blank())
            with_some, without = (model.losses(each, settled=settled) for each in (batch, empty))
            assert list(with_some) == list(without)
            assert all(float(total) == 0 for name, (total, _) in without.items() if name.startswith("pictures."))


def test_a_step_in_two_parts_one_of_them_without_pictures_is_that_of_one(tmp_path):
    moved = []
    for accumulate in (1, 2):
        run = prepare(late("vq", accumulate=accumulate))
        torch.manual_seed(1)
        documents = [Document((picture(n, 16, 16),), key=n) for n in range(2)]
        sequences = [run.model.lay_out(d, np.random.default_rng(0), 0.9) for d in documents]
        batch = collate(
            sequences, pack(sequences, 2, run.recipe.length) + [[], []], run.recipe.length, run.model.blank()
        )
        assert len(split(batch, 2, run.model.blank())) == 2
        optimizers = make_optimizers(run.owned.groups(), run.recipe.optim)
        losses, taken = train_step(run, batch, optimizers, has_settled(5, 8, run.recipe.optim))
        assert taken
        moved.append((losses, run.model.state_dict()))
    (one, weights), (two, others) = moved
    assert one == pytest.approx(two, rel=1e-4)
    for name in weights:
        torch.testing.assert_close(weights[name], others[name], rtol=1e-3, atol=1e-4)


def test_recipes_without_a_judge_settle_to_the_same_losses():
    model = tokenizer.model(codec={"features": 8, "blocks": 1})
    run = prepare(replace(RECIPE, model=model, valid={}))
    batch = run.loader.next(0.5)
    first, later = (run.model.losses(batch, settled=settled) for settled in (False, True))
    assert all(torch.equal(first[name][0], later[name][0]) for name in first) and list(first) == list(later)
