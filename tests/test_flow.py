"""The flow's parts: clock, predictions, solvers, time laws, and the objective's loss."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import mixed_documents, picture, small_model

from mixmodal.generate import Request, generate
from mixmodal.interpolant import PREDICTIONS, TimeLaw, draw_times, expected, mix, sampling_times, to_velocity
from mixmodal.objectives import Ask, Lay
from mixmodal.objectives.flow import CLEAN, CLOCK, LEVELS, NOISY, Config
from mixmodal.parts import Document, Image, Text
from mixmodal.sampling import Settings
from mixmodal.sequence import collate
from mixmodal.solvers import SOLVERS, adams, euler, heun

EVEN = (np.arange(20_000) + 0.5) / 20_000


def drive(solver, velocity):
    """The end of a solver's path, and the times at which it asked."""
    asked = []
    x, t = next(solver)
    while True:
        asked.append(t)
        try:
            x, t = solver.send(velocity(x, t))
        except StopIteration as end:
            return end.value, asked


# The clock and the predictions


def test_the_path_begins_at_the_noise_and_ends_at_the_data():
    clean, noise = torch.randn(2, 5, 7)
    assert torch.equal(mix(clean, noise, torch.tensor(0.0)), noise)
    assert torch.allclose(mix(clean, noise, torch.tensor(1.0)), clean, atol=1e-6)


def test_every_prediction_implies_the_same_velocity_where_it_is_exact():
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 40, 6, dtype=torch.float64)
    t = torch.linspace(0.06, 0.94, 40, dtype=torch.float64)[:, None]
    noisy = mix(clean, noise, t)
    basis = torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64))[0]
    exact = {"x": clean, "v": clean - noise, "noise": noise, "asym": clean - noise @ basis @ basis.T}
    assert set(exact) == set(PREDICTIONS)
    for prediction, values in exact.items():
        found = to_velocity(values, noisy, t, prediction, clamp=0.05, basis=basis)
        assert torch.allclose(found, clean - noise), prediction


def test_asym_is_x_where_its_basis_is_empty_and_v_where_it_spans_all():
    torch.manual_seed(0)
    predicted, noisy = torch.randn(2, 5, 6, dtype=torch.float64)
    t, whole = torch.full((5, 1), 0.97, dtype=torch.float64), torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    for rank, twin in ((0, "x"), (6, "v")):
        found = to_velocity(predicted, noisy, t, "asym", clamp=0.1, basis=whole[:, :rank])
        assert torch.allclose(found, to_velocity(predicted, noisy, t, twin, clamp=0.1))


def test_the_smoothest_directions_of_a_patch_are_its_means_and_then_its_slopes():
    codec = small_model(patch=(1, 4, 8)).writer("image").codec
    whole = codec.smoothest(codec.size)
    assert torch.allclose(whole.T @ whole, torch.eye(codec.size), atol=1e-5)
    planes = codec.smoothest(6).reshape(4, 8, 3, 6)
    for channel in range(3):
        others = [c for c in range(3) if c != channel]
        mean, slope = planes[..., channel], planes[..., channel + 3]
        assert torch.allclose(mean[:, :, channel], torch.full((4, 8), 32**-0.5), atol=1e-6)
        assert (slope[:, :, channel].diff(dim=1) < 0).all() and slope[:, :, channel].diff(dim=0).abs().max() < 1e-6
        assert not mean[:, :, others].any() and not slope[:, :, others].any()
    with pytest.raises(ValueError, match="rank is 97: a patch has 96 values"):
        codec.smoothest(97)


def test_near_its_end_of_the_clock_a_prediction_is_divided_by_no_less_than_the_clamp():
    noisy, found = torch.zeros(1, 3), torch.ones(1, 3)
    assert to_velocity(found, noisy, torch.tensor([[0.999]]), "x", clamp=0.1).tolist() == [[10.0] * 3]
    assert to_velocity(found, noisy, torch.tensor([[0.001]]), "noise", clamp=0.1).tolist() == [[-10.0] * 3]


def test_an_unknown_prediction_is_refused_with_the_known_ones():
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match="x, v, noise, asym"):
        to_velocity(one, one, one, "score", clamp=0.1)
    with pytest.raises(ValueError, match="x, v, noise, asym"):
        Config(prediction="score")
    with pytest.raises(ValueError, match="add, token, or trunk"):
        Config(time="none")


# Solvers


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_a_straight_path_lands_on_the_data_in_one_step(name):
    torch.manual_seed(0)
    noise, data = torch.randn(2, 4, 3)
    found, asked = drive(SOLVERS[name](noise, sampling_times(1)), lambda x, t: data - noise)
    assert torch.allclose(found, data, atol=1e-6) and asked == [0.0]


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (heun, 2), (adams, 2)])
def test_the_error_of_a_solver_falls_with_its_order(solver, order):
    """x' = cos(3 t) x has the solution x(0) exp(sin(3 t) / 3)."""
    exact = math.exp(math.sin(3) / 3)
    errors = []
    for steps in (80, 160, 320):
        start = torch.ones(1, dtype=torch.float64)
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        errors.append(abs(float(drive(solver(start, times), lambda x, t: math.cos(3 * t) * x)[0]) - exact))
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.12)


def test_heun_asks_twice_a_step_and_once_in_the_last():
    _, asked = drive(heun(torch.zeros(1), sampling_times(3)), lambda x, t: x)
    assert asked == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])


def test_sampling_times_run_from_noise_to_data_and_a_shift_spends_more_of_them_near_noise():
    assert sampling_times(4).tolist() == [0, 0.25, 0.5, 0.75, 1]
    shifted = sampling_times(4, 3.0)
    assert shifted[0] == 0 and shifted[-1] == 1 and (shifted.diff() > 0).all()
    assert shifted[2] == pytest.approx(0.5 / 2) and (shifted[1:-1] < sampling_times(4)[1:-1]).all()
    with pytest.raises(ValueError, match="at least 1"):
        sampling_times(0)


# Time laws


def test_logit_normal_times_have_the_mean_and_spread_of_their_law():
    times = draw_times(EVEN, TimeLaw(mean=-0.8, std=1.2)).astype(np.float64)
    logit = np.log(times / (1 - times))
    assert logit.mean() == pytest.approx(-0.8, abs=1e-3) and logit.std() == pytest.approx(1.2, abs=5e-3)
    assert (times < 1 / (1 + math.exp(-(-0.8 + 1.2)))).mean() == pytest.approx(0.84134, abs=1e-3)  # below one deviation
    assert (np.diff(times) >= 0).all()


def test_uniform_times_are_the_numbers_themselves():
    assert np.allclose(draw_times(EVEN, TimeLaw("uniform")), EVEN, atol=1e-6)


def test_a_law_of_two_phases_changes_after_its_share_of_the_training():
    law = TimeLaw(mean=-1.0, std=1.0, switch=0.5, later_mean=1.0, later_std=0.5)
    middle = np.array([0.5])
    assert draw_times(middle, law, 0.49)[0] == pytest.approx(1 / (1 + math.e))
    assert draw_times(middle, law, 0.5)[0] == pytest.approx(1 / (1 + 1 / math.e))
    flat = replace(law, later_std=0.0)
    assert np.allclose(draw_times(EVEN, flat, 0.9), EVEN, atol=1e-6)
    assert np.array_equal(draw_times(EVEN, flat, 0.1), draw_times(EVEN, law, 0.1))


def test_larger_pictures_are_trained_nearer_to_noise():
    """t' = t / (t + a (1 - t)) with a = side / base: the shift that sampling_times makes."""
    law = TimeLaw("uniform", base_side=32)
    same, large = draw_times(EVEN, law, side=32), draw_times(EVEN, law, side=96)
    assert np.allclose(same, EVEN, atol=1e-6)
    assert np.allclose(large, EVEN / (EVEN + 3 * (1 - EVEN)), atol=1e-6)
    assert np.allclose(draw_times(EVEN, replace(law, base_side=0), side=96), EVEN, atol=1e-6)


def test_an_unknown_law_is_refused():
    with pytest.raises(ValueError, match="logit_normal or uniform"):
        TimeLaw("cosine")


# The objective


def laid(model, part, copies=1, times=None, weight=1.0, progress=0.0, seed=0):
    stream = model.writer("image")
    object.__setattr__(stream.objective.config, "copies", copies)
    grid = stream.codec.encode(part)
    lay = Lay(5.0, weight, np.random.default_rng(seed), progress, 3, times)
    return stream, grid, stream.objective.lay(stream.name, stream.codec, grid, lay)


def test_the_copies_of_a_part_take_their_times_from_different_strata():
    model = small_model(flow={"time_law": {"kind": "uniform"}})
    for seed in range(5):
        _, _, runs = laid(model, picture(0), copies=8, seed=seed)
        assert sorted(int(run.time[0] * 8) for run in runs) == list(range(8))
        assert [run.private for run in runs] == list(range(3, 11)) and all(run.two_way for run in runs)


def test_a_noisy_copy_is_the_mixture_of_its_data_and_its_noise():
    model = small_model(flow={"noise_scale": 2.0})
    _, grid, runs = laid(model, picture(0, 64, 64), times=(0.0, 0.5, 1.0))
    assert runs[0].embed["values"].std() == pytest.approx(2.0, rel=0.02)
    assert np.allclose(runs[2].embed["values"], grid.values, atol=1e-6)
    assert [float(run.time[0]) for run in runs] == [0.0, 0.5, 1.0]
    noise = 2 * runs[1].embed["values"] - grid.values  # at 0.5 half of each
    assert noise.std() == pytest.approx(2.0, rel=0.02)
    assert abs(np.corrcoef(noise.ravel(), grid.values.ravel())[0, 1]) < 0.05


@torch.no_grad()
@pytest.mark.parametrize("prediction", ["x", "v", "noise"])
@pytest.mark.parametrize("steps", [2, 25, 60])
def test_who_predicts_rightly_lands_on_the_data_whatever_is_predicted(prediction, steps, monkeypatch):
    model = small_model(flow={"prediction": prediction, "clamp": 0.1})
    stream, grid, _ = laid(model, picture(0))
    data = torch.from_numpy(grid.values)

    def right(hidden, fields):
        t, x = fields["time"][:, None], fields["values"]
        return {"x": data, "v": (data - x) / (1 - t), "noise": (x - t * data) / (1 - t)}[prediction]

    monkeypatch.setattr(stream.codec, "read", right)
    ask = Ask(Settings(steps=steps, guidance=1.0), torch.Generator().manual_seed(0), [], [], False)
    drawing = stream.objective.sampler(stream.codec, None, grid, ask)
    block = next(drawing)
    with pytest.raises(StopIteration) as end:
        while True:
            block = drawing.send([torch.zeros(len(block.run), 64)])
    assert np.abs(end.value.value - grid.values).max() < 1e-3


def test_an_unknown_solver_is_refused_with_the_nearest():
    model = small_model()
    stream, grid, _ = laid(model, picture(0))
    ask = Ask(Settings(solver="hune"), torch.Generator(), [], [], False)
    with pytest.raises(ValueError, match="solver 'hune'.*heun"):
        next(stream.objective.sampler(stream.codec, None, grid, ask))


def test_the_phases_of_the_time_law_reach_the_objective():
    law = {"mean": -30.0, "std": 0.1, "switch": 0.5, "later_mean": 30.0, "later_std": 0.1}
    model = small_model(flow={"time_law": law})
    assert laid(model, picture(0), progress=0.4)[2][0].time.max() < 1e-6
    assert laid(model, picture(0), progress=0.6)[2][0].time.min() > 1 - 1e-6


FLOWS = [{"prediction": prediction} for prediction in PREDICTIONS]
FLOWS += [{"prediction": prediction, "loss": "prediction"} for prediction in ("x", "v", "noise")]


def slow_loss(stream, hidden, grid, run, known=None):
    """The mean squared error of the velocity, spelled out value by value for the real pixels of each patch."""
    config = stream.objective.config
    predicted = stream.codec.read(hidden, {"values": run.predict["values"], "size": run.predict["size"]}).numpy()
    noisy, t = run.predict["values"], float(run.predict["time"][0])
    rows, basis = [], stream.codec.smoothest(config.rank).numpy()
    for n in range(len(grid.values)):
        errors = []
        apart = predicted[n] - (grid.values[n] - basis @ basis.T @ (noisy[n] - t * grid.values[n]) / (1 - t))
        apart += (1 / max(1 - t, config.clamp) - 1) * (apart - basis @ basis.T @ apart)
        for c in range(grid.values.shape[1]):
            if grid.counted is not None and grid.counted[n, c] == 0:
                continue
            if grid.known is not None and grid.known[n, c]:
                continue
            data, point, guess = (float(a[n, c]) for a in (grid.values, noisy, predicted))
            noise = (point - t * data) / (1 - t)
            if config.loss == "prediction":
                error = guess - {"x": data, "v": data - noise, "noise": noise}[config.prediction]
            elif config.prediction == "x":
                error = (guess - data) / max(1 - t, config.clamp)
            elif config.prediction == "v":
                error = guess - (data - noise)
            elif config.prediction == "asym":
                error = apart[c]
            else:
                error = (noise - guess) / max(t, config.clamp)
            errors.append(error**2)
        rows.append(sum(errors) / len(errors) if errors else 0.0)
    return rows


@torch.no_grad()
@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("t", [0.02, 0.4, 0.97])
def test_the_loss_is_the_slow_obvious_formula_with_padding_and_known_pixels(flow, t):
    model = small_model(flow=flow, codec={"learned": False})
    known = np.zeros((7, 10), bool)
    known[:4, :5] = True
    part = Image(picture(3, 7, 10).pixels, known=known)  # patches of 4: one row and two columns of padding
    stream, grid, runs = laid(model, part, times=(t,), weight=0.25)
    assert grid.size == (1, 2, 3) and grid.known[0].all() and not grid.counted.all()
    hidden = torch.randn(6, 64, generator=torch.Generator().manual_seed(1))
    fields = {name: torch.from_numpy(np.asarray(values)) for name, values in runs[0].predict.items()}
    wanted = slow_loss(stream, hidden, grid, runs[0])
    assert stream.objective.errors(stream.codec, hidden, fields).tolist() == pytest.approx(wanted, rel=2e-3, abs=1e-6)
    total, count = stream.objective.losses(stream.codec, None, hidden, fields)["mse"]
    # the first patch is known whole: it neither weighs nor counts
    assert wanted[0] == 0 and float(count) == pytest.approx(5 * 0.25)
    assert float(total) == pytest.approx(0.25 * sum(wanted), rel=2e-3)


@torch.no_grad()
@pytest.mark.parametrize("t", [0.01, 0.5])
def test_the_noise_that_was_added_has_no_error_at_any_time(t, monkeypatch):
    model = small_model(flow={"prediction": "noise"})
    stream, grid, runs = laid(model, Image(picture(0).pixels), times=(t,))
    fields = {name: torch.from_numpy(np.asarray(values)) for name, values in runs[0].predict.items()}
    noise = (fields["values"] - t * fields["targets"]) / (1 - t)
    monkeypatch.setattr(stream.codec, "read", lambda hidden, fields: noise)
    assert stream.objective.errors(stream.codec, torch.zeros(len(noise), 64), fields).max() < 1e-6


def test_a_clock_in_a_trunk_that_has_none_is_refused():
    with pytest.raises(ValueError, match=r"patches is told the time by the trunk, .* trunk.adaptive=true"):
        small_model(flow={"time": "trunk"})


@torch.no_grad()
def test_what_is_known_is_kept_where_it_is_shown_clean_and_costs_one_pass_a_step(monkeypatch):
    model = small_model(flow={"known": "clean"})
    known = np.zeros((8, 8), bool)
    known[:, :4] = True
    part, shown, noisy = Image(picture(0).pixels, known=known), [], model.streams["patches"].objective.noisy
    monkeypatch.setattr(model.streams["patches"].objective, "noisy", lambda *a: shown.append(noisy(*a)) or shown[-1])
    made = generate(model, [Request(Document((part,)), Settings(steps=3, guidance=1.0))])[0].parts[-1]
    grid = model.streams["patches"].codec.encode(part)
    assert len(shown) == 3 and np.array_equal(made.pixels[:, :4], part.pixels[:, :4])
    assert all(np.array_equal(run.embed["values"][grid.known], grid.values[grid.known]) for run in shown)
    with pytest.raises(ValueError, match="steps are Euler's"):
        settings = Settings(steps=2, solver="heun")
        generate(small_model(), [Request(Document((part,)), settings)])


@pytest.mark.parametrize("kind", ["noisy", "clean"])
def test_known_values_are_shown_as_the_option_says_and_are_no_part_of_the_loss(kind):
    model = small_model(flow={"known": kind})
    known = np.zeros((8, 8), bool)
    known[2:5] = True
    part = Image(picture(0).pixels, known=known)
    _, grid, runs = laid(model, part, times=(0.1,))
    shown, mask = runs[0].embed["values"], grid.known
    assert np.array_equal(shown[mask], grid.values[mask]) == (kind == "clean")
    assert not np.isclose(shown[~mask], grid.values[~mask]).all()
    assert np.array_equal(runs[0].predict["counted"] == 0, mask)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"time": "token"}])
@pytest.mark.parametrize("codec", [{}, {"ends": 4}, {"ends": 4, "quick": True}])
def test_the_errors_by_noise_level_sum_to_the_loss(options, codec):
    model = small_model(flow=options, codec=codec)
    sequences = [model.lay_out(d, np.random.default_rng(d.key)) for d in mixed_documents()]
    length = max(map(len, sequences))
    batch = collate(sequences, [[n] for n in range(len(sequences))], length, model.blank())
    stream, slots = model.writer("image"), batch.slots["patches"]
    hidden = model(batch).flatten(0, 1)[slots.predict_at]
    total, count = stream.objective.losses(stream.codec, None, hidden, slots.predict)["mse"]
    sums, counts = stream.objective.levels(stream.codec, hidden, slots.predict)
    assert sums.shape == (LEVELS,) and float(sums.sum()) == pytest.approx(float(total), rel=1e-4)
    assert float(counts.sum()) == float(count) > 0
    times = slots.predict["time"][slots.predict["weights"] > 0]
    wanted = torch.bincount((times * LEVELS).long().clamp(max=LEVELS - 1), minlength=LEVELS)
    assert torch.equal(counts, wanted.float())


def test_a_time_token_stands_before_the_values_and_alone_carries_the_time():
    model = small_model(flow={"time": "token"})
    stream, grid, runs = laid(model, picture(0), times=(0.3,))
    run = runs[0]
    assert len(run) == len(grid.values) + 1 and run.predict_at.tolist() == [1, 2, 3, 4]
    assert run.embed["kind"].tolist() == [CLOCK] + [NOISY] * 4
    assert np.array_equal(run.coords[0], run.coords[1])
    fields = {name: torch.from_numpy(values) for name, values in run.embed.items()}
    with torch.no_grad():
        before = stream.objective.embed(stream.codec, fields, torch.float32)
        after = stream.objective.embed(stream.codec, {**fields, "time": fields["time"] + 0.2}, torch.float32)
    assert not torch.equal(before[0], after[0]) and torch.equal(before[1:], after[1:])


def test_an_added_time_reaches_every_noisy_value_and_no_clean_one():
    model = small_model()
    stream, grid, runs = laid(model, picture(0), times=(0.3,))
    clean = stream.objective.show(stream.name, stream.codec, grid, 0.0)
    assert set(clean.embed["kind"].tolist()) == {CLEAN}
    for run, moves in ((runs[0], True), (clean, False)):
        fields = {name: torch.from_numpy(values) for name, values in run.embed.items()}
        with torch.no_grad():
            before = stream.objective.embed(stream.codec, fields, torch.float32)
            after = stream.objective.embed(stream.codec, {**fields, "time": fields["time"] - 0.2}, torch.float32)
        assert ((before != after).any(1) == moves).all()


def test_what_is_shown_clean_may_not_fade_with_the_noise():
    with pytest.raises(ValueError, match="would fade with the noise: take noisy, or sigma_data=0"):
        Config(known="clean", sigma_data=1.0)


def test_what_is_expected_of_noisy_values_is_nearer_to_the_clean_ones_than_any_other_multiple():
    rng = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 200_000, generator=rng, dtype=torch.float64)
    for t in (0.05, 0.4, 0.9):
        noisy = mix(0.3 * clean, 1.5 * noise, torch.tensor(t))
        best = float((0.3 * clean * noisy).sum() / noisy.square().sum())
        found = float(expected(torch.ones(1), torch.tensor(t), 0.3, 1.5))
        assert found == pytest.approx(best, abs=0.01)
    ends = expected(torch.tensor([0.7, 0.7]), torch.tensor([0.0, 1.0]), 0.3)
    assert ends.tolist() == [0, torch.tensor(0.7).item()]  # exactly: what is clean loses nothing


@pytest.mark.parametrize("clock", ["add", "token"])
def test_noisy_values_enter_as_what_is_expected_of_them_and_clean_ones_as_they_are(clock):
    plain, quiet = (small_model(flow={"time": clock, **more}) for more in ({}, {"sigma_data": 0.3, "noise_scale": 2.0}))
    for t in (0.0, 0.3, 1.0):
        stream, grid, runs = laid(plain, picture(0), times=(t,))
        clean = stream.objective.show(stream.name, stream.codec, grid, 0.0)
        for run in (runs[0], clean):
            fields = {name: torch.from_numpy(values) for name, values in run.embed.items()}
            guess = fields | {"values": expected(fields["values"], fields["time"][:, None], 0.3, 2.0)}
            with torch.no_grad():
                entered = quiet.writer("image").objective.embed(quiet.writer("image").codec, fields, torch.float32)
                wanted = stream.objective.embed(stream.codec, guess, torch.float32)
                same = torch.equal(entered, stream.objective.embed(stream.codec, fields, torch.float32))
            assert torch.equal(entered, wanted) and same == (run is clean or t == 1)


@pytest.mark.parametrize(
    "flow", [{"sigma_data": -1.0}, *({"sigma_data": 0.5, "prediction": p} for p in PREDICTIONS[1:])]
)
def test_who_predicts_anything_of_the_noise_has_to_be_shown_it(flow):
    with pytest.raises(ValueError, match="sigma_data is .*: want 0, or more for x alone"):
        Config(**flow)


def test_a_part_that_is_all_known_weighs_nothing_but_breaks_nothing():
    model = small_model()
    part = Image(picture(0).pixels, known=np.ones((8, 8), bool))
    sequence = model.lay_out(Document((Text("all of it"), part)), np.random.default_rng(0))
    total, count = model.losses(collate([sequence], [[0]], len(sequence), model.blank()))["patches.mse"]
    assert float(total.detach()) == 0 == float(count)


def test_an_empty_grid_of_a_size_has_zeros_and_every_cell():
    codec = small_model().writer("image").codec
    grid = codec.empty((1, 2, 3))
    assert grid.values.shape == (6, 48) and not grid.values.any()
    assert grid.cells.tolist() == [[0, r, c] for r in range(2) for c in range(3)]


@torch.no_grad()
@pytest.mark.parametrize("quick", [False, True])
def test_the_ends_are_told_the_time_on_the_way_in_and_out_and_take_what_has_none_for_clean(quick):
    model = small_model(codec={"ends": 4, "quick": quick})
    codec = model.writer("image").codec
    grid = codec.encode(picture(1))
    fields = {name: torch.from_numpy(value) for name, value in codec.fields(grid).items()}
    hidden = torch.randn(len(grid.values), model.config.trunk.width)

    def both(time: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        told = fields if time is None else fields | {"time": torch.full((len(hidden),), time)}
        return codec.embed(told, torch.float32), codec.read(hidden, told)

    untold, clean, noisy = both(None), both(1.0), both(0.2)
    for without, end, start in zip(untold, clean, noisy, strict=True):
        assert torch.equal(without, end) and not torch.allclose(end, start)


def test_quick_ends_mix_once_on_the_way_in_and_at_every_level_on_the_way_out():
    whole, quick = (small_model(codec={"ends": 4, "quick": q}).writer("image").codec for q in (False, True))
    canvas = torch.randn(2, 4, 8, 8)
    assert [f.shape for f in quick.down(canvas)] == [f.shape for f in whole.down(canvas)][-1:]
    assert len(quick.down.mix) == 1 < len(whole.down.mix) == len(quick.beside.mix)
