"""What a result is reckoned from: intervals over seeds, costs to a rate, who is ahead, charts."""

from __future__ import annotations

import json
import math

import pytest

from mixmodal import appraise
from mixmodal.checkpoint import write_json
from mixmodal.collect import _apart, _reached_by, _spread, against, reached
from mixmodal.judge.intervals import over_seeds, rate
from mixmodal.plan import Comparison
from mixmodal.recipes import recipe
from mixmodal.report import chart, verdicts


def test_the_interval_over_seeds_is_never_narrower_than_that_of_the_answers():
    alike = [rate([True] * 50 + [False] * 50)] * 3
    assert over_seeds(alike)["low"] == pytest.approx(alike[0]["low"])
    apart = [rate([True] * k + [False] * (100 - k)) for k in (20, 50, 80)]
    wide = over_seeds(apart)
    assert wide["value"] == pytest.approx(0.5) and wide["low"] == 0.0 and wide["high"] == 1.0


def test_the_cost_of_a_rate_lies_between_the_points_around_it():
    points = [(1.0, 0.0), (2.0, 0.2), (3.0, 0.6), (4.0, 0.4)]
    curve = [{"flops": x, "seconds": 10 * x, "scores": {"text_to_image.exact": {"value": y}}} for x, y in points]
    begun = {"flops": 0.5, "seconds": 5.0}
    assert reached(curve, 0.1, begun) == {"flops": pytest.approx(1.5), "seconds": pytest.approx(15.0)}
    assert reached(curve, 0.4, begun) == {"flops": pytest.approx(2.5), "seconds": pytest.approx(25.0)}
    assert reached(curve, 0.7, begun) is None


def test_a_chart_draws_each_seed_and_the_mean():
    score = {"value": 0.5, "low": 0.4, "high": 0.6, "seeds": [0.4, 0.6]}
    drawn = chart({"a": [(1.0, score), (2.0, score)]}, {"a": "#000"}, ("cost", "score"), log=True)
    assert drawn.count("<circle") == 4 and drawn.count("<polyline") == 1


def test_who_is_ahead_is_told_seed_by_seed():
    def arm(*seeds):
        score = over_seeds([rate([True] * k + [False] * (100 - k)) for k in seeds])
        scores = {"text_to_image.exact": score | {"seeds": [k / 100 for k in seeds]}}
        return {"scores": scores, "text_share": 0.0, "seeds": list(range(len(seeds))), "diverged": {}}

    result = {"arms": {"a": arm(50, 60, 70), "b": arm(40, 48, 62)}, "beside": []}
    (line,) = verdicts(result)
    assert "the intervals of b reach into its own" in line and "ahead of b by 10.0 ± 5.0 points, seed by seed" in line
    result["arms"] = {label: arm(k) for label, k in (("a", 60), ("b", 50))}
    assert "seed by seed" not in verdicts(result)[0] and "One seed does not tell" in verdicts(result)[0]


def test_how_many_times_as_much_is_a_geometric_mean_and_a_bound_where_not_all_seeds_come_to_the_rate():
    def arm(*costs, lost=()):
        told, alive = [c and {"flops": c, "seconds": 2 * c} for c in costs], len(costs) - len(lost)
        spent = {"flops": [90.0] * alive, "seconds": [360.0] * alive} if alive else {"flops": [0.0], "seconds": [0.0]}
        return {"to_rate_of_seeds": {"25%": told}, **spent, "diverged": {str(s): "text.nll" for s in lost}}

    pairs = {"a": "b", "c": "b", "d": "c", "e": "b", "f": "b"}
    arms = {"a": arm(20.0, 80.0), "b": arm(10.0, 10.0), "c": arm(40.0, None), "d": arm(10.0, 10.0)}
    arms |= {"e": arm(40.0, None, lost=[1]), "f": arm(None, None, lost=[0, 1])}
    one, other, unknown, *lost = against(pairs, arms)
    assert [told["flops"] for told in lost] == [None, None] and lost[0]["reached"] == [1, 2]
    assert one["flops"]["times"] == pytest.approx(4) and one["flops"]["low"] < 4 < one["flops"]["high"]
    assert one["reached"] == [2, 2] and other["reached"] == [1, 2]
    assert other["flops"] == {"more_than": pytest.approx(6)}  # the root of 4 x 9: all 90 were spent in vain
    assert other["seconds"] == {"more_than": pytest.approx((4 * 18) ** 0.5)}
    assert unknown["flops"] is None and unknown["reached"] == [2, 1]
    with pytest.raises(ValueError, match="name these alone"):
        Comparison("x", "?", {"lossless": recipe("lossless_two")}, {"steps": 1}, against={"nobody": "lossless"})


def test_the_time_to_a_rate_is_that_of_its_own_seed():
    rates = {"value": 0.5, "low": 0.4, "high": 0.6, "seeds": [0.5, 0.5]}
    point = {"flops": 8.0, "seconds": 30.0, "seconds_of_seeds": [20.0, 40.0], "scores": {"text_to_image.exact": rates}}
    arm = {"curve": [point], "flops_of_nets": 0.0, "seconds_of_nets": [0.0, 10.0]}
    assert [_reached_by(arm, at, 0.25)["seconds"] for at in (0, 1)] == [10.0, 25.0]


def test_what_is_told_beside_a_twin_is_paired_by_the_seeds_that_both_have():
    def arm(seeds, lost=()):
        kept = [seed for seed in range(3) if seed not in lost]
        numbers = [seeds[seed] for seed in kept]
        scores = {"text.bits_per_byte": {"value": sum(numbers) / len(numbers), "half": 0.1, "seeds": numbers}}
        return {"scores": scores, "text_share": 1.0, "seeds": kept, "diverged": {}}

    arms = {"a": arm([2.0, 2.1, 2.3]), "b": arm([2.2, 2.2, 2.4])}
    for label, lost in (("a", (1,)), ("b", (2,))):
        arms[label]["scores"] |= _apart(arms[label], arm([1.9, 1.8, 2.0], lost), "beside")
    assert [arms[n]["scores"]["text.bits_per_byte.beside"]["of"] for n in "ab"] == [[0, 2], [0, 1]]
    (line,) = [line for line in verdicts({"arms": arms, "beside": []}) if "twin" in line]
    assert "seed by seed" not in line


def test_numbers_of_one_seed_are_told_without_an_interval_in_json_that_any_reader_takes(tmp_path):
    assert _spread([2.5]) == {"value": 2.5, "half": None, "seeds": [2.5]}
    write_json(tmp_path / "a.json", {"a": [math.inf, 1.0, {"b": -math.inf, "c": math.nan, "d": "x"}]})
    assert (tmp_path / "a.json").read_text("utf8").split() == json.dumps(
        {"a": [None, 1.0, {"b": None, "c": None, "d": "x"}]}, indent=1
    ).split()


def test_stronger_guidance_is_tried_while_the_strongest_is_the_best(monkeypatch):
    worth, asked = {1.0: 0.1, 2.0: 0.2, 4.0: 0.3, 8.0: 0.5, 16.0: 0.4}, []

    def told(comparison, loaded, settings, seed, only):
        asked.append((settings["guidance"], comparison.options["splits"]))
        return {"text_to_image.exact": {"value": worth[settings["guidance"]]}}

    for name, made in (
        ("load", lambda folder: None),
        ("_draws", lambda loaded: True),
        ("_cooled", lambda loaded, temperature: False),
        ("_weights", lambda folder: ["weights"]),
        ("_put", lambda *_: None),
        ("_last", lambda folder: 0),
        ("_asked", told),
        ("_drawn", lambda scores: scores["text_to_image.exact"]["value"]),
    ):
        monkeypatch.setattr(appraise, name, made)
    comparison = Comparison("x", "?", {"lossless": recipe("lossless_two")}, {"steps": 1}, options={"splits": "heldout"})
    found = appraise.tuned(comparison, None)
    assert found["guidance"] == 8.0 and [guidance for guidance, _ in asked] == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert {splits for _, splits in asked} == {"train"}  # what is tuned on is none of the test
