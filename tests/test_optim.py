"""How weights move: optimizers, the rate, and the average of weights."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import small_model

from mixmodal import optim
from mixmodal.config import OptimConfig
from mixmodal.optim import (
    Muon,
    PowerAverage,
    has_settled,
    load_state,
    make_optimizers,
    power_exponent,
    rate_share,
    set_rate,
    state_of,
)


@pytest.mark.parametrize("matrices", ["muon", "adamw"])
def test_every_parameter_is_moved_by_one_optimizer(matrices):
    model = small_model(depth=1)
    made = make_optimizers(model.groups(), OptimConfig(matrices=matrices))
    assert type(made["matrices"]).__name__.lower() == matrices and type(made["rest"]).__name__ == "AdamW"
    held = [id(p) for optimizer in made.values() for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert all(p.ndim == 2 for p in made["matrices"].param_groups[0]["params"])


def test_rates_are_shares_of_their_own_peaks():
    config = OptimConfig(matrix_rate=0.4, rate=0.1, warmup=4, decay=0.5)
    made = make_optimizers(small_model(depth=1).groups(), config)
    for step, share in ((1, 0.5), (40, 1.0), (75, 0.5)):
        set_rate(made, step, 100, config)
        assert [o.param_groups[0]["lr"] for o in made.values()] == pytest.approx([0.4 * share, 0.1 * share])


def test_where_a_run_settles_all_rates_are_0_and_then_begin_again_at_their_peaks():
    config = OptimConfig(matrix_rate=0.4, rate=0.1, warmup=1, decay=0.5, settle=0.6)
    made = make_optimizers(small_model(depth=1).groups(), config)
    rates = []
    for step in (29, 45, 59, 60, 80, 99):
        set_rate(made, step, 100, config)
        rates.append([o.param_groups[0]["lr"] for o in made.values()])
    shares = [1, 1 / 2, 1 / 30, 1, 1 / 2, 1 / 40]
    assert rates == [pytest.approx([0.4 * share, 0.1 * share]) for share in shares]
    assert [has_settled(step, 100, config) for step in (0, 59, 60)] == [False, False, True]
    assert has_settled(0, 100, replace(config, settle=0.0)) and not has_settled(99, 100, OptimConfig())


def test_convolutions_have_a_rate_of_their_own_or_that_of_the_matrices():
    groups = small_model(depth=1, codec={"ends": 4}).groups()
    for matrices in ("muon", "adamw"):
        rates = OptimConfig(matrices, matrix_rate=0.4, filter_rate=0.2, rate=0.1)
        for config, expected in ((rates, [0.4, 0.2, 0.1]), (replace(rates, filter_rate=0.0), [0.4, 0.4, 0.1])):
            assert [o.param_groups[0]["lr"] for o in make_optimizers(groups, config).values()] == expected
        still = make_optimizers(groups, OptimConfig(matrices, matrix_rate=0.0, rate=0.1))
        assert [o.param_groups[0]["lr"] for o in still.values()] == [0.0, 0.0, 0.1]


def test_a_group_without_parameters_has_no_optimizer_and_unknown_matrices_are_refused():
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    assert list(make_optimizers({"matrices": [], "rest": [("a", parameter)]}, OptimConfig())) == ["rest"]
    with pytest.raises(ValueError, match="known are adamw, muon"):
        make_optimizers({}, OptimConfig(matrices="sgd"))


@pytest.mark.parametrize("matrices", ["muon", "adamw"])
def test_optimizers_go_on_from_their_saved_state_to_the_bit(matrices):
    def stepped(module, made, steps, first):
        for step in range(first, first + steps):
            generator = torch.Generator().manual_seed(step)
            for parameter in module.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            for optimizer in made.values():
                optimizer.step()

    def fresh():
        torch.manual_seed(0)
        module = torch.nn.Linear(4, 3)
        groups = {"matrices": [("weight", module.weight)], "rest": [("bias", module.bias)]}
        return module, make_optimizers(groups, OptimConfig(matrices=matrices))

    whole, made = fresh()
    stepped(whole, made, 6, 0)
    first, before = fresh()
    stepped(first, before, 3, 0)
    second, after = fresh()
    second.load_state_dict(first.state_dict())
    load_state(after, {name: tensor.clone() for name, tensor in state_of(before).items()})
    stepped(second, after, 3, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("steps", [3, 4])  # by the squares of long matrices, and without
@pytest.mark.parametrize("shape", [(12, 12), (24, 6), (6, 24)])
def test_muon_is_torchs_but_for_the_rounding_to_bf16(shape, steps):
    options = {"lr": 0.1, "weight_decay": 0.2, "momentum": 0.9, "ns_steps": steps}
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    still = torch.nn.Parameter(torch.ones(shape))
    pairs = ((ours, Muon([ours, still], **options)), (theirs, torch.optim.Muon([theirs], **options)))
    for step in range(1, 6):
        gradient = torch.randn(shape)
        for parameter, optimizer in pairs:
            parameter.grad = gradient.clone()
            optimizer.step()
        apart = float((ours - theirs).detach().norm()) / (
            0.1 * math.sqrt(min(shape)) * math.sqrt(max(1, shape[0] / shape[1]))
        )
        assert 0 < apart < 0.02 * step  # of one update, after `step` of them
    assert torch.equal(still, torch.ones(shape)) and state_keys(pairs[0][1], ours) == state_keys(pairs[1][1], theirs)


def state_keys(optimizer, parameter):
    return {name: tuple(tensor.shape) for name, tensor in optimizer.state[parameter].items()}


@pytest.mark.parametrize("shape", [(16, 16), (24, 8), (8, 24)])
def test_enough_steps_turn_an_update_into_the_nearest_orthogonal_matrix(shape):
    torch.manual_seed(0)
    update = torch.randn(shape, dtype=torch.float64)
    left, _, right = torch.linalg.svd(update, full_matrices=False)
    found = optim.orthogonal(
        update, (1.5, -0.5, 0.0), 60
    )  # the cubic, which converges where the quintic only comes near
    assert torch.allclose(found, left @ right, atol=1e-9)


@pytest.mark.parametrize("shape", [(32, 96), (96, 32)])
@pytest.mark.parametrize("smallest", [1e-1, 1e-3, 1e-6])
def test_squares_lose_no_digit_of_an_update_that_counts(shape, smallest):
    """Of a matrix with small directions, too, in the fp32 of training: ranks must come to the same weights."""
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, 32, dtype=torch.float64))[0] for n in shape)
    update = left * torch.logspace(0, math.log10(smallest), 32, dtype=torch.float64) @ right.T
    coefficients = (3.4445, -4.7750, 2.0315)
    wanted = update / update.norm()
    for _ in range(optim.SQUARES):
        gram = wanted @ wanted.T
        a, b, c = coefficients
        wanted = a * wanted + (b * gram + c * gram @ gram) @ wanted
    found = optim.orthogonal(update.float(), coefficients, optim.SQUARES)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5


@pytest.mark.parametrize(("fast", "own"), [(torch.float32, True), (torch.bfloat16, False)])
def test_updates_are_turned_in_bf16_only_where_that_is_fast(fast, own, monkeypatch):
    monkeypatch.setattr(optim, "fast_dtype", lambda device: fast)
    made = make_optimizers({"matrices": [("a", torch.nn.Parameter(torch.zeros(2, 2)))]}, OptimConfig())
    assert (type(made["matrices"]) is Muon) == own and isinstance(made["matrices"], torch.optim.Muon)


def test_the_average_does_not_care_in_which_order_a_file_gives_its_weights_back():
    """A safetensors file lists its tensors in another order than the model does."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False))
    one, two = PowerAverage(module, 0.1), PowerAverage(module, 0.1)
    two.weights = dict(sorted(two.weights.items(), reverse=True))
    for step in range(1, 4):
        with torch.no_grad():
            module[0].weight.normal_()
            module[1].weight.normal_()
        one.update(module, step)
        two.update(module, step)
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)


def test_the_power_average_is_the_explicit_weighted_sum():
    """The weight of step i in the average after step n is i^g - (i - 1)^g for g = exponent + 1, over n^g."""
    module = torch.nn.Linear(3, 2, dtype=torch.float64)
    average = PowerAverage(module, 0.1)
    seen, steps = [], 12
    for step in range(1, steps + 1):
        with torch.no_grad():
            module.weight.normal_()
        seen.append(module.weight.detach().clone())
        average.update(module, step)
    weights, left = [], 1.0
    for step in range(steps, 0, -1):
        keep = (1 - 1 / step) ** (average.exponent + 1)
        weights.append(left * (1 - keep))
        left *= keep
    assert left == 0 and sum(weights) == pytest.approx(1)
    expected = sum(w * x for w, x in zip(weights[::-1], seen, strict=True))
    assert torch.allclose(average.weights["weight"], expected)


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2, 0.28])
def test_the_exponent_gives_the_window_its_relative_width(width):
    """The window t^g on [0, 1] has the standard deviation asked for."""
    g = power_exponent(width)
    t = (np.arange(200_000) + 0.5) / 200_000
    weight = t**g / (t**g).sum()
    mean = (weight * t).sum()
    assert math.sqrt((weight * (t - mean) ** 2).sum()) == pytest.approx(width, rel=1e-3)


@pytest.mark.parametrize("width", [0.0, 0.3, -1.0])
def test_a_width_that_no_window_has_is_refused(width):
    with pytest.raises(ValueError, match="between 0 and 0.288"):
        power_exponent(width)


def test_the_rate_rises_stays_and_falls_to_nothing():
    config = OptimConfig(warmup=10, decay=0.5)
    shares = [rate_share(step, 100, config) for step in range(101)]
    assert shares[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert shares[10:51] == [1.0] * 41
    assert shares[50:] == pytest.approx([(100 - i) / 50 for i in range(50, 101)]) and shares[100] == 0
    assert min(shares) >= 0 and rate_share(0, 100, replace(config, warmup=0)) == 1


def test_a_state_of_other_optimizers_or_other_parameters_is_refused():
    def made(width: int, *names: str) -> dict[str, torch.optim.Optimizer]:
        module = torch.nn.Linear(width, 3)
        out = make_optimizers({name: [("weight", module.weight)] for name in names}, OptimConfig(matrices="adamw"))
        module.weight.grad = torch.ones_like(module.weight)
        for optimizer in out.values():
            optimizer.step()
        return out

    saved = state_of(made(4, "rest"))
    load_state(made(4, "rest"), saved)
    with pytest.raises(
        ValueError, match="saved with optimizers for .'rest'., but here they are for .'matrices', 'rest'."
    ):
        load_state(made(4, "rest", "matrices"), saved)
    with pytest.raises(ValueError, match="rest/0/exp_avg was saved for another parameter"):
        load_state(made(5, "rest"), saved)
