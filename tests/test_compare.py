"""A comparison is done piece by piece, each once, and its page is made of files alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import hasten, unmeasured
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from mixmodal import appraise, compare, comparisons, prepare
from mixmodal.collect import collected
from mixmodal.compare import _alone, _stopping, do, pieces
from mixmodal.config import TrunkConfig, from_json, to_json
from mixmodal.data import make_mixture, make_source
from mixmodal.data.parted import Parted
from mixmodal.designs import fuyu, lossless
from mixmodal.guard import NotFinite, Stopped
from mixmodal.judge import costs, suites
from mixmodal.judge.costs import counter, fare, sampling_cost, step_cost
from mixmodal.judge.suites import Exam
from mixmodal.plan import TWIN, Comparison, begin, budget, home, paid, planned, smoke, twins_of
from mixmodal.recipes import recipe
from mixmodal.report import page
from mixmodal.similarity import frechet

TWINS = (f"{TWIN}eights", f"{TWIN}sixteens")
TRUNK = TrunkConfig(width=32, depth=1, heads=2, kv_heads=2, head_size=16, mlp_width=32)


def tiny(**more) -> Comparison:
    base = replace(recipe("lossless_two"), model=lossless.model(TRUNK), compile=False, rows=2, vocabulary=300)
    share = {**base.sources, "prose": {"kind": "prose", "share": 0.3}}
    arms = {
        "eights": replace(base, sources=share),
        "sixteens": replace(base, model=lossless.model(TRUNK, patch=(1, 16, 16))),
    }
    kept = {
        "budget": {"steps": 4},
        "seeds": (0,),
        "n": 2,
        "few": 2,
        "guidances": (1.0, 2.0),
        "evaluations": (1, 2),
        "points": 2,
        "least": 0,
        "options": {"splits": "heldout"},
    }
    return Comparison(name="tiny", question="eights or sixteens?", **{"arms": arms, **kept, **more})


def finished(comparison: Comparison, out) -> dict:
    begin(comparison, out)
    planned(comparison, out)
    for piece in pieces(comparison, out):
        assert all(need.exists() for need in piece.needs)
        if not piece.file.exists():
            do(out, piece)
    return collected(out)


def untimed(result):
    """A result without what the clock and the memory of the moment say."""
    if isinstance(result, dict):
        return {
            k: untimed(v)
            for k, v in result.items()
            if k not in ("seconds", "seconds_of_nets", "seconds_of_seeds", "memory")
        }
    return [untimed(v) for v in result] if isinstance(result, list) else result


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Fewer documents, batches and texts to count and to judge by."""
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        unmeasured(patch)
        patch.setattr(suites, "PROSE_DOCUMENTS", 4)
        patch.setattr(costs, "BATCHES", 2)
        patch.setattr(appraise, "PRICED", 1)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory, quick):
    out = tmp_path_factory.mktemp("compare") / "tiny"
    return out, finished(tiny(), out)


def test_a_comparison_tells_every_score_and_cost_of_every_arm(done):
    _, result = done
    assert set(result["arms"]) == {"eights", "sixteens", *TWINS}
    for label in ("eights", "sixteens"):
        arm = result["arms"][label]
        score = arm["scores"]["text_to_image.exact"]
        assert score["low"] <= score["value"] <= score["high"] and len(score["seeds"]) == 1
        assert [point["step"] for point in arm["curve"]] == [2, 4]
        assert arm["curve"][1]["flops"] == pytest.approx(2 * arm["curve"][0]["flops"])
        assert [entry["steps"] for entry in arm["evaluations"]] == [1, 2]
        assert arm["evaluations"][1]["flops"] > arm["evaluations"][0]["flops"] > 0
        assert arm["tuned"]["guidance"] in (1.0, 2.0) and len(arm["tuned"]["tried"]) == 2
        assert len(arm["samples"]) == 8 and arm["memory"] > 2**20
    both = [result["arms"][label]["scores"] for label in ("eights", TWIN + "eights")]
    bits = [scores["text.bits_per_byte"]["value"] for scores in both]
    assert min(bits) > 0 and both[0]["text.bits_per_byte.beside"]["value"] == pytest.approx(bits[0] - bits[1])


def test_a_twin_learns_as_much_prose_in_about_as_many_steps(tmp_path):
    whole = tiny(budget={"steps": 500}, least=50)
    begin(whole, tmp_path)
    plan = planned(whole, tmp_path)
    arm, twin = plan["arms"]["eights"], plan["twins"][TWIN + "eights"]
    prose = arm["steps"] * arm["rows"] * arm["length"] * arm["text_share"]
    assert twin["steps"] * twin["rows"] * twin["length"] == pytest.approx(prose, rel=0.02)
    assert twin["rows"] == 1 and twin["of"] == "eights"
    kept = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps(kept | {"twin": {"of": "eights"}}))
    with pytest.raises(ValueError, match="older version"):
        planned(whole, tmp_path)


def test_a_training_that_diverges_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    learn = compare.train

    def diverging(chosen, folder, resume=False):
        learn(chosen, folder, resume=resume)
        if (folder.parent.name, folder.name) in lost:
            raise NotFinite("losses are no numbers")

    monkeypatch.setattr(compare, "train", diverging)
    lost = {("seed_0", "sixteens"), ("seed_0", "eights"), ("seed_1", "eights")}
    whole = tiny(seeds=(0, 1), against={"sixteens": "eights"}, points=1, evaluations=(1,))
    told = json.loads(json.dumps(finished(whole, tmp_path)))
    gone, half = told["arms"]["eights"], told["arms"]["sixteens"]
    assert gone["scores"] == {} and gone["diverged"] == dict.fromkeys("01", "losses are no numbers")
    assert (
        half["seeds"] == [1]
        and set(half["diverged"]) == {"0"}
        and len(half["scores"]["text_to_image.exact"]["seeds"]) == 1
    )
    assert half["tuned"]["guidance"] in (1.0, 2.0)  # with the seed that is left
    assert half["to_rate_of_seeds"]["50%"][0] is None and len(half["to_rate_of_seeds"]["50%"]) == 2
    assert told["arms"][TWIN + "eights"]["diverged"]["0"] == "eights: losses are no numbers"
    text = page(told)
    assert "<b>sixteens diverged</b> with seed 0" in text and "<b>eights diverged</b> with seed 0" in text


def test_what_is_done_is_not_done_again_and_what_is_lost_comes_back_the_same(done, tmp_path):
    out, result = done
    again = tmp_path / "again"
    shutil.copytree(out, again)
    shutil.rmtree(home(again, "eights", 0))  # a run, and with it its training
    (home(again, "sixteens", 0) / "scores.json").unlink()
    kept = (home(again, "sixteens", 0) / "trained.json").stat().st_mtime_ns
    assert untimed(finished(tiny(), again)) == untimed(result)
    assert (home(again, "sixteens", 0) / "trained.json").stat().st_mtime_ns == kept


def test_an_arm_that_draws_nothing_has_a_line_on_the_page(tmp_path):
    arm = replace(recipe("fuyu_two"), model=fuyu.model(TRUNK), compile=False, rows=2, vocabulary=300)
    told = finished(tiny(arms={"reads": arm}, suite="questions", twin=False, points=1), tmp_path)
    assert told["arms"]["reads"]["tuned"] == {} and "reads</td>" in page(told)


def test_seeds_are_added_and_the_page_tells_which_are_done(done, tmp_path):
    out, result = done
    more = tmp_path / "more"
    shutil.copytree(out, more, ignore=shutil.ignore_patterns("model", "checkpoints", "*.jsonl"))
    whole = begin(tiny(seeds=(1,)), more)
    assert whole.seeds == (0, 1)
    left = [(piece.kind, piece.label, piece.seed) for piece in pieces(whole, more) if not piece.file.exists()]
    assert left == [(kind, label, 1) for kind in ("train", "judge") for label in ("eights", "sixteens", *TWINS)]
    told = collected(more)
    assert told["seeds"] == [0] and told["arms"] == result["arms"]
    assert "so far, of 0, 1" in page(told) and "so far" not in page(result)


def test_what_all_arms_start_from_is_trained_first_judged_and_paid_by_none(tmp_path):
    arm = tiny().arms["eights"]
    text = replace(arm.model, streams={"text": arm.model.streams["text"]})
    words = replace(arm, model=text, sources={"prose": {"kind": "prose"}}, valid={}, steps=2, every=2)
    whole = tiny(arms={"grown": replace(arm, start="recipe:words")}, nets={"words": words}, points=1)
    told = finished(whole, tmp_path)
    assert told["beside"] == ["words", TWIN + "grown"] and "since the start" in page(told)
    result = told["arms"]
    assert list(result) == ["grown", "words", TWIN + "grown"]
    assert result["grown"]["flops_of_nets"] == 0 and result["grown"]["stands_on"] == []
    assert all(arm["scores"]["text.bits_per_byte"]["value"] > 0 for arm in result.values())
    change = result["grown"]["scores"]["text.bits_per_byte.change"]["seeds"][0]
    bits = [result[label]["scores"]["text.bits_per_byte"]["seeds"][0] for label in ("grown", "words")]
    assert change == pytest.approx(bits[0] - bits[1])
    recipe_of_twin = json.loads((home(tmp_path, TWIN + "grown", 0) / "recipe.json").read_text())
    assert recipe_of_twin["start"] == str(home(tmp_path, "words", 0))
    two = replace(whole, arms={**whole.arms, "new": arm})
    assert paid(two, "grown") == ["words"] and paid(two, "new") == paid(whole, "grown") == []


def test_what_arms_start_from_is_words_alone_on_their_trunk(tmp_path):
    arm = tiny().arms["eights"]
    begun = {"grown": replace(arm, start="recipe:other")}
    with pytest.raises(ValueError, match="no model of words alone"):
        planned(tiny(arms=begun, nets={"other": arm}), tmp_path)
    text = {"text": arm.model.streams["text"]}
    wider = replace(arm.model, trunk=replace(TRUNK, mlp_width=64), streams=text)
    other = replace(arm, model=wider, sources={"prose": {"kind": "prose"}}, valid={})
    with pytest.raises(ValueError, match="another trunk than other"):
        planned(tiny(arms=begun, nets={"other": other}), tmp_path)


def test_pictures_of_other_data_keep_their_share_and_words_stay_words():
    whole = comparisons.from_text()
    moved = comparisons.on_data(whole, "glyphs", {})
    assert moved.nets["words"] == recipe("words")
    for label, arm in moved.arms.items():
        assert arm.sources["data"]["share"] == whole.arms[label].sources["two"]["share"] > 0


def test_the_page_needs_no_network_and_names_every_arm(done):
    _, result = done
    text = page(result)
    for label in result["arms"]:
        assert f">{label}<" in text.replace("</span>", "<").replace('"></span>', ">") or label in text
    assert "http" not in text.replace("http-equiv", "") and "<script" not in text
    assert text.count("data:image/png;base64,") == 16
    assert page(json.loads(json.dumps(result))) == text


def test_another_comparison_does_not_go_into_the_same_folder(done):
    out, _ = done
    with pytest.raises(ValueError, match="another --out"):
        begin(tiny(n=3), out)


def test_a_comparison_goes_through_json_unchanged():
    for name, function in comparisons.known().items():
        whole = function()
        assert whole.name == name
        assert to_json(from_json(Comparison, json.loads(json.dumps(to_json(whole))), "comparison")) == to_json(whole)
        assert len(smoke(whole).arms) <= 3


@pytest.mark.parametrize("budget", [{}, {"hours": 1}, {"steps": 1, "flops": 1}])
def test_a_budget_is_one_of_four_kinds(budget):
    with pytest.raises(ValueError, match="give one of steps, tokens, flops, minutes"):
        tiny(budget=budget)


def test_two_processes_do_not_compare_in_one_folder(tmp_path):
    with _alone(tmp_path):
        with pytest.raises(ValueError, match="another process compares"), _alone(tmp_path):
            pass
    with _alone(tmp_path):
        pass


def test_a_budget_is_typed_as_kind_and_amount():
    assert budget("flops=2.5e13") == {"flops": 2.5e13}
    for told in ("steps", "steps=many"):
        with pytest.raises(ValueError, match="as steps=500"):
            budget(told)
    with pytest.raises(ValueError, match="more than nothing"):
        tiny(budget={"steps": 0})


def test_designs_are_compared_by_name():
    from mixmodal.cli_compare import Compare

    chosen = Compare(("showo", "llada_two"), budget="tokens=1000", n=7)._chosen()
    assert [arm.name for arm in chosen.arms.values()] == ["showo_two", "llada_two"] and chosen.n == 7
    assert Compare(("roads",), seeds=(5,))._chosen().seeds == (5,)
    with pytest.raises(ValueError, match="did you mean scenes"):
        Compare(("showo",), suite="scene")._chosen()


def test_equal_flops_give_the_dearer_arm_fewer_steps(tmp_path):
    comparison = tiny(budget={"flops": 2e10}, twin=False)
    begin(comparison, tmp_path)
    arms = planned(comparison, tmp_path)["arms"]
    for arm in arms.values():
        assert arm["steps"] * arm["flops_a_step"] == pytest.approx(2e10, rel=0.5 / arm["steps"] + 1e-6)


def test_flops_of_a_step_are_those_of_its_products(tmp_path):
    """Two matrices of a linear layer and its gradients: 6 a weight and position, and attention besides."""
    base = replace(tiny().arms["eights"], rows=4)
    deep = replace(base, model=replace(base.model, trunk=replace(TRUNK, depth=2)))
    more = step_cost(deep).flops - step_cost(base).flops
    weights = 4 * 32 * 32 + 3 * 32 * 32
    attention = 2 * 2 * 3 * base.length * 32
    muon = base.optim.newton_schulz * 7 * 3 * 2 * 32**3  # seven matrices, three products for each of its steps
    assert more == pytest.approx(base.rows * base.length * (6 * weights + attention) + muon, rel=0.02)


def test_the_price_of_a_picture_grows_with_its_steps(done):
    from mixmodal.api import load
    from mixmodal.parts import Document, Image, Text

    loaded = load(home(done[0], "eights", 0))
    asked = [Document((Text("a red circle"), Image(size=(32, 32))))]
    prices = [
        sampling_cost(Exam(loaded.model, loaded.about, 1, 0, loaded.settings(steps=s, guidance=2.0)), asked)
        for s in (2, 4)
    ]
    assert prices[1]["passes"] - prices[0]["passes"] == 4  # two steps more, two branches each
    assert prices[1]["flops"] > prices[0]["flops"] > 0


def test_rows_are_as_long_as_what_an_arm_is_shown(monkeypatch):
    """Raw patches of 4 px by four copies fit no row of 192: they would never be drawn."""
    monkeypatch.setattr(prepare, "TOKENIZER_DOCUMENTS", 1000)  # with words as long as in earnest
    whole = comparisons.lossless_scenes()
    arm = replace(whole.arms["raw_4"], compile=False)
    length = fare(arm).length
    assert arm.length < length <= 512 and fare(whole.arms["raw_8"]).length == arm.length
    moved = comparisons.on_data(comparisons.designs(), "glyphs", {})
    assert fare(moved.arms["lossless"]).length > 192
    assert set(moved.arms["maskgit"].sources["data"]["tasks"]) == {"write"}
    assert set(moved.nets["tokenizer_scenes"].sources["data"]["tasks"]) == {"look"}
    with pytest.raises(ValueError, match="cannot go onto other data"):
        comparisons.on_data(comparisons.two_pictures(), "scenes", {})


def test_the_twin_is_of_an_arm_that_writes():
    whole = Comparison("x", "?", {n: recipe(f"{n}_two") for n in ("llada", "maskgit", "showo")}, {"steps": 1})
    assert list(twins_of(whole)) == ["showo"] and not twins_of(replace(whole, twin=False))


@pytest.mark.parametrize("data", ["glyphs", "emoji"])
def test_a_comparison_goes_onto_other_data(data, tmp_path):
    from mixmodal.data.opening import WORLDS

    if data not in WORLDS:
        for number in range(20):
            Image.new("RGB", (32, 32), (number * 10, 0, 0)).save(tmp_path / f"{number}.png")
            (tmp_path / f"{number}.txt").write_text(f"red number {number}", "utf8")
    moved = comparisons.on_data(tiny(), data if data in WORLDS else str(tmp_path), {})
    assert moved.suite == (data if data in WORLDS else "likeness")
    for arm in moved.arms.values():
        made = make_mixture(arm.sources, 0).preview(6)
        assert any(part.medium == "image" for document in made for part in document.parts)
    if data in WORLDS:
        return
    train, held = (
        make_source({k: v for k, v in s.items() if k != "share"})
        for s in (arm.sources["data"], moved.options["source"])
    )
    assert train.size + held.size == 20 and held.size > 0


def test_a_source_in_two_parts_loses_nothing_and_shares_nothing():
    whole = make_source({"kind": "prose"})
    train, held = (Parted({"kind": "prose"}, split) for split in ("train", "heldout"))
    assert sorted(train.numbers + held.numbers) == list(range(whole.size)) and len(held.numbers) == whole.size // 10
    with pytest.raises(ValueError, match="endless"):
        Parted({"kind": "scenes"})


def test_two_sets_that_are_alike_lie_nearer_than_two_that_are_not():
    one, other = torch.randn(400, 3), torch.randn(400, 3)
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)
    assert frechet(one, other) < 0.2 < frechet(one, other + 2)
    assert frechet(torch.randn(4000, 1), 3 * torch.randn(4000, 1) + 1) == pytest.approx(1 + 4, rel=0.1)


def test_an_unknown_comparison_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean designs"):
        comparisons.named("design")


def test_a_stop_asks_the_trainings_to_save_and_leaves_signals_as_they_were():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGTERM; trainings were saved") as stop, _stopping():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert stop.value.code == 143 and signal.getsignal(signal.SIGTERM) == before


def test_the_gradient_of_attention_is_counted_by_whatever_kernel_it_runs():
    def counted(*backends) -> int:
        q = torch.randn(1, 2, 16, 8, requires_grad=True)
        with sdpa_kernel(list(backends)), counter() as count:
            F.scaled_dot_product_attention(q, q, q).sum().backward()
        return count.get_total_flops()

    plain = counted(SDPBackend.MATH)
    assert plain == 3 * 2 * 2 * 2 * 16 * 16 * 8  # two products, and two gradients of each
    assert counted(SDPBackend.FLASH_ATTENTION) >= plain


@pytest.mark.long
def test_a_comparison_killed_at_random_moments_ends_as_one_left_alone(tmp_path):
    bench = Path(__file__).parent.parent / "bench" / "compare_killed.py"
    command = [sys.executable, str(bench), "--kills", "4", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
