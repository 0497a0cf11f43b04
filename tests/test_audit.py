"""The information audit: figures that can be computed by hand, coders that decode, and the command."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import picture, small_model
from PIL import Image as Picture
from test_designs import CELLS, CODES, TRUNK, completed, made
from tiny import RECIPE, hasten, own_pictures

from mixmodal import chain, cli, recipes
from mixmodal.checkpoint import save_pretrained
from mixmodal.data import make_source
from mixmodal.data.opening import described
from mixmodal.designs import imagegpt, tokenizer
from mixmodal.judge.audit import Audit, Row, audit, coded, codes_needed, entropy, example, joined
from mixmodal.judge.suites import Exam, bits_of_words
from mixmodal.model import Model
from mixmodal.parts import Document, Image, Text
from mixmodal.recipes.values import values_squares

SMALL = {"shrink": 2, "features": 8, "blocks": 1}


def documents(count: int = 4, height: int = 8, width: int = 8) -> list[Document]:
    """Pictures of noise."""
    return [Document((Text("a"), picture(n, height, width)), key=n) for n in range(count)]


def a_tokenizer(quantizer: dict | None = None, **codec) -> Model:
    """A tokenizer that nobody trained."""
    torch.manual_seed(0)
    return Model(completed(tokenizer.model(codec={**SMALL, **codec}, quantizer=quantizer))).eval()


def test_the_figures_of_su_are_reproduced():
    assert codes_needed(64 * 64 * 3 * 3, 1024) == 36 and codes_needed(64 * 64 * 3 * 3, 256) == 144
    told = "\n".join(example())
    assert "1024 tokens want V >= 2^36, about 7e+10" in told and "256 tokens want V >= 2^144, about 2e+43" in told


def test_codes_cost_their_entropy_and_what_it_takes_to_learn_it():
    rng = np.random.default_rng(0)
    codes = np.stack((rng.integers(0, 2, 6000), np.minimum(rng.geometric(0.4, 6000), 7)), 1)
    ideal, spent = entropy(codes), coded(codes, (2, 8))
    share = np.array([0.4 * 0.6**n for n in range(6)] + [0.6**6])
    assert ideal == pytest.approx(6000 * (1 - share @ np.log2(share)), rel=0.02) and ideal < spent < 1.01 * ideal
    assert coded(np.zeros((1000, 1), np.int64), (4,)) < 40


def test_files_and_raw_bytes_hold_pictures_to_the_bit():
    flat = [Document((Image(np.full((32, 32, 3), 7, np.uint8)),))]
    found = audit("flat", flat, {})
    assert audit("mixed", [Document((Text("words alone"),)), *flat], {}).pictures == 1
    raw, png, webp = found.rows
    assert raw.capacity == 8 * 32 * 32 * 3 and found.bytes == 32 * 32 * 3
    assert 0 < webp.coded < png.coded < 0.1 * raw.capacity and found.least is webp
    noise = audit("noise", documents(2, 32, 32), {})
    assert all(row.exact and row.coded > 0.99 * raw.capacity for row in noise.rows[1:])


def test_a_tokenizer_is_told_with_its_capacity_its_rate_and_what_is_lost():
    models = {
        "bits": (a_tokenizer(quantizer=CODES["quantizer"]), {}),
        "numbers": (a_tokenizer(vector=4), {}),
        "design": (made("showo"), {}),
    }
    found = audit("noise", documents(), models)
    bits, numbers, design = found.rows[3:]
    assert (bits.tokens, bits.bits_each, bits.capacity) == (16, 4, 64) and not bits.exact
    assert bits.ideal <= bits.coded <= 64 + 8 and 0 < bits.psnr < 30
    assert numbers.capacity == 16 * 4 * 32 and numbers.coded is None
    assert design.name == "design, codes one by one"
    assert found.wants(bits) == pytest.approx(found.least.coded / 16)


def test_a_design_over_codes_is_told_by_its_own_law_too():
    rows = audit("noise", documents(), {"design": (made("llamagen"), {})}).rows[3:]
    assert [row.name for row in rows] == ["design, codes one by one", "design, by its law"]
    assert abs(4 * rows[1].coded - 4 * rows[1].ideal) <= 0.001 * 4 * rows[1].ideal + 64 and rows[0].psnr == rows[1].psnr


def test_values_are_coded_to_the_bit_in_the_squares_that_the_model_learned():
    model = (made("imagegpt"), {"sample_size": (4, 4)})
    found = audit("noise", documents(2, 6, 4), {"values": model})
    row = found.rows[-1]
    assert row.exact and row.name == "values, in squares of 4 px" and row.tokens == 72 and row.bits_each == 8
    assert abs(2 * row.coded - 2 * row.ideal) <= 0.002 * row.ideal + 64


def test_raw_patches_carry_all_bits_and_a_low_rank_does_not():
    CELLS["lossless now"] = {"patch": (1, 4, 4), "codec": {"rank": 5}}
    low = made("lossless now")
    del CELLS["lossless now"]
    whole, lossy = audit("noise", documents(), {"raw": (made("lossless"), {}), "low": (low, {})}).rows[3:]
    assert whole.exact and whole.capacity == 8 * 192 and whole.tokens == 4
    assert not lossy.exact and lossy.name == "low, rank 5 of 48"
    assert lossy.capacity == 8 * 5 * 4 and 0 < lossy.psnr < 30


def test_worlds_tell_how_many_pictures_are_still_read():
    nets = a_tokenizer(quantizer=CODES["quantizer"])
    for spec in (
        {"kind": "glyphs", "level": "grid", "tasks": {"read": 1.0}},
        {"kind": "scenes", "level": "one", "tasks": {"look": 1.0}},
    ):
        world = make_source({**spec, "split": "heldout"})
        asked = [world.document(n, np.random.default_rng(n)) for n in range(3)]
        raw, _, webp, lossy = audit("world", asked, {"untrained": (nets, {})}).rows
        assert raw.read["value"] == webp.read["value"] == 1 and lossy.read["value"] < 0.5
        assert "100%" in "\n".join(audit("world", asked, {}).lines())


def test_what_cannot_be_audited_says_so():
    with pytest.raises(ValueError, match="gave no documents"):
        audit("nothing", [], {})
    with pytest.raises(ValueError, match="take data with pictures"):
        audit("words", [Document((Text("a"),))], {})
    with pytest.raises(FileNotFoundError, match="nothing is at nowhere"):
        described("nowhere")
    found = Audit("x", 1, 10.0, [Row("raw", True, capacity=80.0), Row("a", True, coded=20.0)])
    assert found.as_json()["rows"][1]["coded_rate"] == 2 and found.bars() == {
        "raw: fixed length (exact)": 8.0,
        "a: coded (exact)": 2.0,
    }


# Through the command


def test_the_command_prints_a_table_and_writes_figures_and_a_plot(tmp_path, capsys):
    own = own_pictures(tmp_path / "own", 30)
    save_pretrained(a_tokenizer(quantizer=CODES["quantizer"]), tmp_path / "model", about={"recipe": "none"})
    plot, figures = tmp_path / "plots/a.png", tmp_path / "a.json"
    cli.main(
        [
            "audit",
            str(own),
            "--model",
            str(tmp_path / "model"),
            f"{tmp_path}/./model",
            "--set",
            "size=16",
            "--plot",
            str(plot),
            "--json",
        ]
        + [str(figures), "--n", "3"]
    )
    told = capsys.readouterr().out
    assert "model, codes one by one" in told and "2^144" in told
    found = json.loads(figures.read_text())
    assert [row["name"] for row in found["rows"]][:2] == ["raw", "PNG"] and found["example_log2_v"]["256"] == 144
    assert found["rows"][3]["capacity_rate"] == pytest.approx(64 * 4 / found["bytes"], rel=0.3)
    assert Picture.open(plot).size[0] == 860


def test_a_small_model_is_trained_on_the_spot_and_codes_to_the_bit(tmp_path, capsys, monkeypatch):
    hasten(monkeypatch)
    whole = values_squares()
    squares = {**whole.sources["squares"], "size": 4}
    small = replace(whole, model=imagegpt.model(TRUNK), sources={"squares": squares}, rows=1, sample_size=(4, 4))
    monkeypatch.setattr(recipes, "recipe", lambda name: small)
    asked = ["audit", "scenes", "--set", "size=16", "--n", "1", "--minutes", "0.001", "--out", str(tmp_path)]
    for again in (False, True):
        cli.main(asked)
        told = capsys.readouterr().out
        assert "values, in squares of 4 px" in told and ("is trained already" in told) == again
    (config,) = tmp_path.rglob("config.json")  # as if it had been stopped before its end
    about = json.loads(config.read_text("utf8"))
    config.write_text(json.dumps({**about, "about": {**about["about"], "steps": 1, "of_steps": 99}}), "utf8")
    cli.main(asked)
    assert "is trained already" not in capsys.readouterr().out


def test_a_recipe_is_trained_where_it_is_named(tmp_path, capsys, monkeypatch):
    hasten(monkeypatch)
    look = {**RECIPE.sources["scenes"], "tasks": {"look": 1.0}}
    nets = tokenizer.model(quantizer=CODES["quantizer"], codec=SMALL)
    first = replace(RECIPE, name="first", model=nets, sources={"s": look}, valid={}, length=80, steps=2)
    monkeypatch.setattr(chain, "recipe", lambda name: {"first": first}[name])
    cli.main(["audit", "scenes", "--set", "size=16", "--n", "2", "--model", "recipe:first", "--out", str(tmp_path)])
    assert "first, codes one by one" in capsys.readouterr().out


def test_a_wrong_setting_is_refused(capsys):
    for arguments, said in (
        (["audit", "scenes", "--set", "size"], "has no '='"),
        (["audit", "scenes", "--n", "0"], "take 1 or more"),
        (["audit", "scenes", "--set", "sise=3"], "did you mean size"),
    ):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert said in capsys.readouterr().err


def test_numbers_that_go_together_cost_no_bits_twice():
    numbers = np.random.default_rng(0).integers(0, 5, 400)
    twice, sizes = np.stack((numbers, numbers), 1), (5, 7)
    whole, one = joined(twice, sizes)
    assert one == (35,) and whole.tolist() == (numbers * 7 + numbers)[:, None].tolist()
    assert entropy(whole) == pytest.approx(entropy(numbers[:, None])) == pytest.approx(entropy(twice) / 2)
    assert joined(twice, (20, 21))[1] == (20, 21)  # more than 400


def test_the_bits_of_words_are_those_of_the_last_text_alone():
    model = small_model()
    last, before = Text("a red circle"), (picture(1), Text("a long text of many words that nobody asks for"))
    alone, behind = (
        bits_of_words(Exam(model, {}), [Document((*some, replace(picture(2), wanted=False), last))])
        for some in ((), before)
    )
    assert behind == pytest.approx(alone, rel=0.3)


def test_patches_that_enter_all_but_lost_are_not_called_exact():
    model = small_model()
    (before,) = [row for row in audit("noise", documents(2), {"plain": (model, {})}).rows if "rank" in row.name]
    with torch.no_grad():
        left, sizes, right = torch.linalg.svd(model.writer("image").codec.into, full_matrices=False)
        sizes[-4:] = 1e-8
        model.writer("image").codec.into.copy_(left @ sizes.diag() @ right)
    (after,) = [row for row in audit("noise", documents(2), {"plain": (model, {})}).rows if "rank" in row.name]
    assert before.exact and not after.exact
