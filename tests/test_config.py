"""Values without torch: configurations to and from JSON, dotted settings, refusals that help; parts, too."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from conftest import picture, small_config, small_model

from mixmodal.config import ModelConfig, OptimConfig, Recipe, StreamConfig, from_json, options, override, to_json
from mixmodal.designs import lossless
from mixmodal.kinds import kind_of, kinds
from mixmodal.model import Model
from mixmodal.objectives.flow import Config as Flow
from mixmodal.parts import Document, Image, Text

RECIPE = Recipe(
    "tiny",
    lossless.model(ModelConfig().trunk, flow={"copies": 2, "time_law": {"mean": -1, "std": 0.5}}),
    {"scenes": {"kind": "scenes", "level": "one"}},
    prompts=("a red circle",),
)


@dataclass(frozen=True)
class Inner:
    """Values of every type."""

    number: float = 1.0
    count: int = 1
    maybe: int | None = None
    either: int | str = 0
    pair: tuple[int, str] = (1, "a")
    many: list[float] = (1.0,)
    named: dict[str, int] = None


@dataclass(frozen=True)
class Outer:
    """One that must be given."""

    inner: Inner
    on: bool = False


# Round trips


@pytest.mark.parametrize("config", [RECIPE, RECIPE.model, small_config(), OptimConfig(betas=(0.8, 0.99))])
def test_a_configuration_comes_back_from_json_as_it_was(config):
    assert from_json(type(config), json.loads(json.dumps(to_json(config)))) == config


def test_values_of_every_type_come_back():
    told = Outer(Inner(2.5, 3, 4, "x", (2, "b"), [1.0, 2.0], {"a": 1}), True)
    assert from_json(Outer, to_json(told)) == told
    assert from_json(Outer, {"inner": {}}) == Outer(Inner())


def test_whole_numbers_and_fractions_turn_into_each_other_where_nothing_is_lost():
    made = from_json(Inner, {"number": 2, "count": 3.0})
    assert made.number == 2.0 and isinstance(made.number, float)
    assert made.count == 3 and isinstance(made.count, int)


# Refusals


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inner": {}, "onn": True}, r"unknown it\.onn: did you mean on"),
        ({"inner": {"numbr": 1}}, r"unknown it\.inner\.numbr: did you mean number\?"),
        ({"inner": {"zzzzzz": 1}}, r"unknown it\.inner\.zzzzzz: known are count, either,"),
        ({"on": True}, r"it lacks inner: Outer wants them"),
        ({"inner": 3}, r"it\.inner is 3, want the keys of Inner"),
        ({"inner": {}, "on": 1}, r"it\.on is 1, want bool"),
        ({"inner": {"count": 1.5}}, r"it\.inner\.count is 1\.5, want int"),
        ({"inner": {"count": True}}, r"it\.inner\.count is True, want int"),
        ({"inner": {"number": False}}, r"it\.inner\.number is False, want float"),
        ({"inner": {"number": "x"}}, r"it\.inner\.number is 'x', want float"),
        ({"inner": {"number": float("inf")}}, r"it\.inner\.number is inf, want a finite number"),
        ({"inner": {"maybe": "x"}}, r"it\.inner\.maybe is 'x', want int \| None"),
        ({"inner": {"pair": [1]}}, r"it\.inner\.pair has 1 entries, want 2"),
        ({"inner": {"pair": 1}}, r"it\.inner\.pair is 1, want a list"),
        ({"inner": {"many": [1, "x"]}}, r"it\.inner\.many is 'x', want float"),
        ({"inner": {"named": [1]}}, r"it\.inner\.named is \[1\], want a mapping"),
        ({"inner": {"named": {"a": "b"}}}, r"it\.inner\.named\.a is 'b', want int"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place_and_what_is_wanted(data, message):
    with pytest.raises(ValueError, match=message):
        from_json(Outer, data, "it")


# Settings


def test_dotted_settings_change_a_copy_at_any_depth():
    changed = override(
        RECIPE,
        [
            "optim.rate=0.001",
            "optim.matrix_rate=.006",
            "optim.decay=1.",
            "optim.weight_decay=1.E-2",
            "model.trunk.depth=8",
            "model.streams.patches.objective.prediction=v",
            "model.streams.patches.objective.time_law.std=1.5",
            "sources.scenes.size=16",
            "name=two words",
            'prompts=["x", "y"]',
            "compile=false",
            "optim.betas=[0.5, 0.6]",
        ],
    )
    rates = changed.optim
    assert (rates.rate, rates.matrix_rate, rates.decay, rates.weight_decay) == (0.001, 0.006, 1.0, 0.01)
    assert changed.model.trunk.depth == 8 and changed.optim.betas == (0.5, 0.6)
    assert changed.model.streams["patches"].objective["prediction"] == "v"
    assert changed.model.streams["patches"].objective["time_law"] == {"mean": -1, "std": 1.5}
    assert changed.sources["scenes"] == {"kind": "scenes", "level": "one", "size": 16}
    assert changed.name == "two words" and changed.prompts == ("x", "y") and changed.compile is False
    assert RECIPE.model.trunk.depth == 6 and RECIPE.sources["scenes"] == {"kind": "scenes", "level": "one"}
    assert override(RECIPE, []) == RECIPE


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.rates=1", r"unknown optim\.rates: did you mean rate"),
        ("modle.trunk.depth=1", r"unknown modle: did you mean model"),
        ("model.streams.patch.weight=1", r"unknown model\.streams\.patch: did you mean patches"),
        ("steps", r"has no '=': write key=value"),
        ("steps.more=1", r"steps is 1000: it has no 'more' inside"),
        ("steps=many", r"Recipe\.steps is 'many', want int"),
        ("model.trunk.depth=[1]", r"Recipe\.model\.trunk\.depth is \[1\], want int"),
    ],
)
def test_a_setting_that_is_not_there_is_refused_with_the_nearest_that_is(setting, message):
    with pytest.raises(ValueError, match=message):
        override(RECIPE, [setting])


def test_an_option_that_a_codec_or_objective_does_not_have_is_refused_when_the_model_is_made():
    config = small_config(flow={"predicton": "v"})
    with pytest.raises(ValueError, match=r"unknown streams\.patches\.objective\.predicton: did you mean prediction"):
        Model(config)
    assert options(Flow, {"kind": "flow", "time_law": {"mean": 1}}, "here").time_law.mean == 1.0


# The model's own refusals


def test_kinds_are_the_files_of_their_floor_and_an_unknown_one_gets_a_suggestion():
    assert {"text", "arrays"} <= set(kinds("codecs")) and {"flow", "next_token"} <= set(kinds("objectives"))
    assert "categorical" in kinds("heads") and "lossless" in kinds("designs")
    with pytest.raises(ValueError, match="did you mean arrays"):
        kind_of("codecs", {"kind": "array"})


def test_a_model_without_its_speaker_or_with_an_unknown_role_or_mlp_is_refused():
    config = small_config()
    with pytest.raises(ValueError, match="unknown speaker 'txt': did you mean text"):
        Model(replace(config, speaker="txt"))
    streams = {**config.streams, "patches": replace(config.streams["patches"], role="draw")}
    with pytest.raises(ValueError, match=r"streams\.patches\.role is 'draw': take read, write or both"):
        Model(replace(config, streams=streams))
    with pytest.raises(ValueError, match="take swiglu or relu2"):
        Model(small_config(trunk={"mlp": "gelu"}))


def test_a_model_that_only_reads_a_medium_says_so_when_asked_to_write_it():
    config = small_config()
    streams = {**config.streams, "patches": replace(config.streams["patches"], role="read")}
    model = Model(replace(config, streams=streams))
    assert model.reader("image") is model.streams["patches"]
    with pytest.raises(ValueError, match=r"cannot write 'image': it has text \(both\), image \(read\)"):
        model.writer("image")


def test_every_parameter_is_in_one_group_and_hidden_matrices_in_theirs():
    model = small_model(trunk={"long_skips": True}, codec={"ends": 4})
    groups = model.groups()
    names = [name for named in groups.values() for name, _ in named]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    matrices = {name for name, _ in groups["matrices"]}
    blocks = {f"trunk.blocks.{i}.{m}.weight" for i in range(2) for m in MATRICES}
    assert {name for name in matrices if name.startswith("trunk.")} == blocks | {"trunk.skips.0.weight"}
    assert matrices == {name for name in matrices if name.startswith("trunk.")}
    kinds = (".down.", ".beside.", ".up.")
    assert groups["filters"] and all(any(kind in name for kind in kinds) for name, _ in groups["filters"])
    assert not any("table" in name or "into" in name or name.endswith(".out") for name in matrices)
    assert model.weights() == {"text": 0.5, "patches": 1.0}


MATRICES = [f"attention.{m}" for m in "qkvo"] + [f"mlp.{m}" for m in ("gate", "up", "down")]


def test_a_trunk_without_norms_on_queries_and_keys_has_none():
    model = small_model(trunk={"qk_norm": False, "norm_gain": False})
    assert not any("norm" in name for name, _ in model.named_parameters())


# Parts


def test_a_picture_that_is_no_uint8_rgb_is_refused_with_the_way_to_convert_it():
    for wrong in (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), [[1]]):
        with pytest.raises(ValueError, match=r"uint8 pixels \[height, width, 3\].*convert\('RGB'\)"):
            Image(wrong)


def test_every_grey_level_survives_the_way_into_floats_and_back():
    levels = Image(np.arange(256 * 3, dtype=np.uint16).astype(np.uint8).reshape(16, 16, 3))
    array = levels.array()
    assert array.shape == (1, 16, 16, 3) and array.dtype == np.float32 and array.min() == -1 and array.max() == 1
    assert np.array_equal(Image().with_array(array).pixels, levels.pixels)


def test_values_outside_the_range_are_cut_and_padding_is_cut_off():
    made = Image(size=(2, 3)).with_array(np.full((1, 4, 4, 3), 7, np.float32))
    assert made.pixels.shape == (2, 3, 3) and (made.pixels == 255).all()
    assert (Image(size=(1, 1)).with_array(np.full((1, 1, 1, 3), -7, np.float32)).pixels == 0).all()


def test_known_pixels_are_kept_whatever_is_drawn():
    part = Image(picture(0).pixels, known=np.eye(8, dtype=bool))
    made = part.with_array(np.zeros((1, 8, 8, 3), np.float32))
    assert np.array_equal(made.pixels[part.known], part.pixels[part.known]) and (made.pixels[~part.known] == 128).all()


def test_a_cleared_part_keeps_what_is_asked_for_and_loses_its_values():
    part = Image(picture(0, 8, 12).pixels, weight=2.0, known=np.zeros((8, 12), bool))
    assert part.cleared().empty and part.cleared().size == (8, 12) and part.cleared().weight == 2.0
    assert part.extent == (1, 8, 12) and Image().extent is None and Image(size=(2, 2)).array().shape == (1, 2, 2, 3)
    document = Document((Text("a"), part), key=5, about={"x": 1})
    emptied = document.emptied()
    assert emptied.parts[0] is document.parts[0] and emptied.parts[1].empty and emptied.key == 5
    assert Document((Text("a"),)).emptied().parts[0].empty


def test_the_lossless_design_is_a_text_stream_that_speaks_and_a_stream_of_patches():
    made = lossless.model(ModelConfig().trunk, patch=(1, 4, 4), codec={"ends": 8}, flow={"prediction": "v"})
    assert made.speaker == "text" and set(made.streams) == {"text", "patches"}
    expected = StreamConfig(
        "image",
        {"kind": "arrays", "patch": [1, 4, 4], "channels": 3, "ends": 8},
        {"kind": "flow", "prediction": "v"},
    )
    assert made.streams["patches"] == expected


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("every=0", "every is 0: want 1 or more"),
        ("accumulate=0", "accumulate is 0"),
        ("steps=0", "at least one step or some minutes"),
        ("workers=-1", "workers -1"),
        ("drop_prompt=7", "drop_prompt is 7: want a share"),
        ("path=fast", "unknown path 'fast'"),
        ("precision=float23", "did you mean float32"),
        ("optim.settle=2", "optim.settle is 2: want a share of the run"),
        ("optim.matrices=sgd", "known are adamw, muon"),
        ("model.trunk.heads=0", "model.trunk.heads is 0: want 1 or more"),
    ],
)
def test_what_no_run_can_be_is_refused_before_it_begins(setting, said):
    from mixmodal.recipes import recipe

    with pytest.raises(ValueError, match=said):
        override(replace(recipe("scenes_two"), minutes=0.0), [setting])


def test_options_of_a_source_of_a_wrong_type_are_refused_in_a_sentence():
    from mixmodal.data import make_source

    for spec in ({"kind": "glyphs", "size": 32}, {"kind": "scenes", "size": "big"}):
        with pytest.raises(ValueError, match="cannot take"):
            make_source(spec)
    with pytest.raises(ValueError, match="within .8, 16."):
        make_source({"kind": "glyphs", "heights": [17, 20]})
