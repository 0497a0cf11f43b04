"""Adapters and frozen trunks: nothing of the base moves, nothing of it is stored twice, and merging changes nothing."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import mixed_documents, small_config, small_model
from safetensors.torch import load_file
from tiny import RECIPE

from mixmodal.api import Loaded
from mixmodal.checkpoint import from_pretrained, save_pretrained
from mixmodal.config import OptimConfig, Recipe, TrunkConfig
from mixmodal.foreign import adapted, merged
from mixmodal.memory import held_of
from mixmodal.model import Model
from mixmodal.optim import make_optimizers
from mixmodal.prepare import prepare
from mixmodal.sequence import collate

WANTED = TrunkConfig(adapter_rank=3, adapter_scale=1.5)


def batch_of(model: Model):
    sequences = [model.lay_out(d, np.random.default_rng(d.key)) for d in mixed_documents()[:3]]
    return collate(sequences, [[0], [1], [2]], max(map(len, sequences)), model.blank())


@torch.no_grad()
def hidden(model: Model) -> torch.Tensor:
    return model(batch_of(model))


def trained(model: Model) -> Model:
    """The model after two steps of its own optimizers, from its own gradients, as `train.py` takes them."""
    optimizers = make_optimizers(model.groups(), OptimConfig(matrix_rate=0.1, rate=0.1))
    for _ in range(2):
        parameters = [p for p in model.parameters() if p.requires_grad]
        loss = sum(total / count.clamp(min=1e-8) for total, count in model.losses(batch_of(model)).values())
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        for optimizer in optimizers.values():
            optimizer.step()
    return model


def test_new_adapters_change_nothing():
    model = small_model(trunk={"long_skips": True})
    with_them = adapted(model, WANTED)
    assert with_them.config.trunk == replace(model.config.trunk, adapter_rank=3, adapter_scale=1.5)
    assert torch.equal(hidden(model), hidden(with_them))
    assert adapted(model, TrunkConfig()) is model  # who asks for nothing gets what there is


@pytest.mark.parametrize("wanted", [WANTED, TrunkConfig(frozen=True)], ids=["adapters", "frozen"])
def test_the_base_never_moves_while_adapters_and_streams_learn(wanted):
    base = small_model()
    model = trained(adapted(copy.deepcopy(base), wanted))
    own, now = dict(base.named_parameters()), dict(model.named_parameters())
    assert all(torch.equal(own[name], now[name]) for name in own if name.startswith("trunk."))
    assert not torch.equal(own["streams.text.codec.table.weight"], now["streams.text.codec.table.weight"])
    adapters = {name: p for name, p in now.items() if name.endswith((".narrow", ".widen"))}
    assert len(adapters) == (2 * 7 * 2 if wanted.adapter_rank else 0)
    assert all(p.requires_grad and p.abs().sum() > 0 for p in adapters.values())


def test_the_groups_hold_what_learns_and_nothing_else():
    model = adapted(small_model(codec={"ends": 4}), WANTED)
    groups = model.groups()
    names = {name for named in groups.values() for name, _ in named}
    assert names == {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in names if name.startswith("trunk.")} == {
        name for name, _ in groups["rest"] if name.endswith((".narrow", ".widen"))
    }
    assert groups["filters"]  # the streams' own


def test_what_is_frozen_needs_no_room_for_gradients():
    models = [Model(small_config(trunk=trunk)) for trunk in ({}, {"frozen": True})]
    plain = Recipe("r", models[0].config, {}, optim=OptimConfig(matrices="adamw"))
    held = [held_of(model, plain) for model in models]
    assert held[0] - held[1] == 8 * sum(p.numel() for p in models[0].trunk.parameters())


def test_merged_adapters_do_what_they_did_beside():
    model = trained(adapted(small_model(trunk={"long_skips": True}), WANTED))
    whole = merged(model)
    expected, found = hidden(model), hidden(whole)
    assert float((expected - hidden(small_model(trunk={"long_skips": True}))).abs().max()) > 0.01
    assert float((expected - found).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert whole.config.trunk == replace(model.config.trunk, adapter_rank=0, frozen=False)
    assert all(p.requires_grad for p in whole.parameters())
    assert not any(name.endswith((".narrow", ".widen")) for name in whole.state_dict())


def test_adapters_of_another_rank_are_refused():
    with pytest.raises(ValueError, match="adapters of rank 3 and scale 1.5, wanted are 4 and 2: leave them, or merge"):
        adapted(adapted(small_model(), WANTED), TrunkConfig(adapter_rank=4))
    assert adapted(adapted(small_model(), WANTED), TrunkConfig()).config.trunk.adapter_rank == 3


# On disk


def test_a_model_with_adapters_is_saved_and_loaded_as_any_other(tmp_path):
    model = trained(adapted(small_model(), WANTED))
    save_pretrained(model, tmp_path)
    loaded, _ = from_pretrained(tmp_path)
    assert torch.equal(hidden(model), hidden(loaded)) and loaded.config.trunk == model.config.trunk
    assert [n for n, p in loaded.named_parameters() if p.requires_grad] == [
        n for n, p in model.named_parameters() if p.requires_grad
    ]


def test_what_was_trained_is_saved_apart_and_finds_its_base_again(tmp_path):
    base = small_model()
    save_pretrained(base, tmp_path / "base")
    model = trained(adapted(base, WANTED))
    Loaded(model, {"seed": 1}, torch.float32).save_pretrained(tmp_path / "apart", base=str(tmp_path / "base"))
    stored = set(load_file(tmp_path / "apart/model.safetensors"))
    assert stored == {name for name, p in model.named_parameters() if p.requires_grad}
    loaded, about = from_pretrained(tmp_path / "apart")
    assert torch.equal(hidden(model), hidden(loaded)) and about == {"seed": 1}
    (tmp_path / "base/model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no model in .*base"):
        from_pretrained(tmp_path / "apart")


def test_what_is_frozen_and_came_after_the_base_is_saved_beside_the_adapters(tmp_path):
    base = small_model()
    save_pretrained(base, tmp_path / "base")
    model = trained(adapted(base, WANTED))
    late = model.streams["patches"].codec.into
    late.data.add_(1)
    late.requires_grad_(False)
    save_pretrained(model, tmp_path / "apart", base=str(tmp_path / "base"))
    assert "streams.patches.codec.into" in load_file(tmp_path / "apart/model.safetensors")
    assert torch.equal(from_pretrained(tmp_path / "apart")[0].streams["patches"].codec.into, late)


def test_adapters_begin_otherwise_with_another_seed():
    first = [adapted(small_model(), WANTED, seed).trunk.blocks[0].attention.q.narrow for seed in (0, 0, 1)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])


def test_a_frozen_trunk_takes_two_thirds_of_the_work():
    chosen = replace(RECIPE, model=replace(RECIPE.model, trunk=replace(RECIPE.model.trunk, frozen=True)))
    whole, frozen = (prepare(recipe).cost.flops for recipe in (RECIPE, chosen))
    assert frozen < 0.95 * whole  # of so small a model much is attention and ends


def test_a_base_that_is_not_the_one_trained_from_is_refused_and_none_is_written_over(tmp_path):
    model = adapted(small_model(), WANTED)
    save_pretrained(small_model(seed=1), tmp_path / "other")
    with pytest.raises(ValueError, match="does not hold the frozen weight trunk.* as it is in this model"):
        save_pretrained(model, tmp_path / "apart", base=str(tmp_path / "other"))
    assert not (tmp_path / "apart/config.json").exists()
    with pytest.raises(ValueError, match="is the base itself, whose weights would be lost"):
        save_pretrained(model, tmp_path / "other", base=str(tmp_path / "other"))
