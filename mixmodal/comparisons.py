"""The comparisons of the package: functions without parameters that return one. What they found is in docs/results."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixmodal.chain import stands_on
from mixmodal.config import ModelConfig, Recipe, unknown
from mixmodal.data import has_splits, options_of, source_class
from mixmodal.data.opening import WORLDS, described
from mixmodal.designs import fuyu, llava, lossless, showo, small_trunk, transfusion
from mixmodal.judge.suites import suites
from mixmodal.plan import Comparison, draws, net_of, starts_of, tells
from mixmodal.recipes import recipe
from mixmodal.recipes.designs import RAW

BUDGET = {"flops": 2.5e13}  # about 500 steps of the lossless design, some six minutes of one core
PROSE = {"kind": "prose", "share": 0.1}
HELDOUT = {"splits": "heldout"}
LOOK = {"scenes": "look", "glyphs": "look"}  # the task of a world that is a picture alone; of others it is draw
RATES = {"fsq_7": (5, 5, 5), "fsq_10": (8, 5, 5, 5), "fsq_14": (8, 8, 8, 6, 5)}  # by bits a code


def designs() -> Comparison:
    """Six roads of the picture, raw patches, latents and codes, masked or not, after equal steps."""
    labels = ("lossless", "transfusion", "showo", "chameleon", "maskgit", "mar")
    return Comparison(
        name="designs",
        question="Which road of the picture learns scenes of two objects best?",
        arms={label: recipe(f"{label}_two") for label in labels},
        budget={"steps": 500},
        options=HELDOUT,
    )


def options() -> Comparison:
    """What the options of the trunk and of its prediction bring to raw patches, and two controls, after equal FLOPs."""
    labels = ("lossless", "asym", "gau", "experts", "adaptive", "skips", "dit", "unet")
    return Comparison(
        name="options",
        question="Which option of the trunk learns raw patches best at equal FLOPs, and what do a DiT and a U-Net?",
        arms={label: recipe(f"{label}_two") for label in labels},
        budget=BUDGET,
        options=HELDOUT,
        n=100,
        few=40,
        points=3,
        evaluations=(4, 16),
        twin=False,
    )


def roads() -> Comparison:
    """Transfusion, Show-o, Chameleon or raw patches: text and pictures after equal FLOPs, tokenizers counted."""
    labels = ("lossless", "transfusion", "showo", "chameleon")
    return Comparison(
        name="roads",
        question="Raw patches, Transfusion, Show-o or Chameleon: which draws, reads and writes best at equal FLOPs?",
        arms={label: _with_prose(recipe(f"{label}_two")) for label in labels},
        budget=BUDGET,
        options=HELDOUT,
        n=100,
        few=40,
    )


def from_text() -> Comparison:
    """The roads again at equal FLOPs, all begun from the same model of words: what do pictures cost its text?

    Of each road's documents as great a share is prose; beside each stands prose alone, as much of it in as many steps.
    """
    whole = roads()
    two = {**whole.arms["lossless"].sources["two"], "share": 0.75}
    sources = {"two": two, "prose": {"kind": "prose", "share": 0.25}}
    return replace(
        whole,
        name="from_text",
        question="Which road of the picture costs a model of words the least of its words?",
        arms={n: replace(a, start="recipe:words", sources=sources) for n, a in whole.arms.items()},
        points=2,
        evaluations=(25,),
    )


def lossless_scenes() -> Comparison:
    """Lossless or not, on scenes: raw patches, latents, and codes at several rates, after equal FLOPs."""
    arms, nets = _pictures({"kind": "scenes", "level": "two", "tasks": {"look": 1.0}}, 72)
    return Comparison(
        name="lossless_scenes",
        question="Raw patches, latents or codes: which learns scenes best at equal FLOPs?",
        arms={label: replace(recipe("lossless_two"), name=label, model=arm) for label, arm in arms.items()},
        nets=nets,
        budget=BUDGET,
        options=HELDOUT,
        n=100,
        few=40,
    )


def lossless_glyphs() -> Comparison:
    """Lossless or not, on words: what is read, copied and written through each, after equal FLOPs.

    Read are words of two fonts, six colourings and open places; written and copied those of the level `grid`, where a
    word is one picture. Short words come first, as in the recipes that learned this from raw patches.
    """
    wide = {"size": [16, 88]}
    arms, nets = _pictures({"kind": "glyphs", "level": "line", "tasks": {"look": 1.0}, **wide}, 96, (16, 88), 1_000)
    every = {"kind": "glyphs", "level": "grid", "tasks": {"read": 1.0, "write": 1.0, "copy": 1.0}}
    short, after = {**every, "lengths": [1, 3], "size": [16, 24]}, {"from": 0.35}
    sources = {
        "short": {**short, "share": 0.97, "until": 0.35},
        "line": {**every, "level": "line", "tasks": {"read": 1.0}, **wide, "share": 0.45, **after},
        "grid": {**every, "tasks": {"read": 0.5, "write": 1.0, "copy": 1.0}, **wide, "share": 0.4, **after},
        "still": {**short, "share": 0.12, **after},
        "prose": {"kind": "prose", "share": 0.003},
    }
    base = recipe("glyphs_grid")
    optim = replace(base.optim, settle=1.0)
    base = replace(base, sources=sources, valid={}, optim=optim, sample_size=(16, 88))
    return Comparison(
        name="lossless_glyphs",
        question="Raw patches, latents or codes: through which can words be read, copied and written?",
        arms={label: replace(base, name=label, model=_placed(arm)) for label, arm in arms.items()},
        nets=nets,
        budget={"flops": 3e13},
        suite="glyphs",
        options={**HELDOUT, "level": "line", "writes": "grid", **wide},
        n=100,
        few=30,
        points=3,
        evaluations=(4, 16),
        twin=False,
    )


def tenfold() -> Comparison:
    """A U-Net or patches in a transformer: FLOPs and time to exact pictures, by what is predicted.

    Scenes of one object at 16 px: with two, or at 32 px, a U-Net comes to no rate at all within such a budget.
    Rates never fall, and the averaged weights may be taken, so that each point of a curve is a model to be had there.
    Batches are half those of the recipes, and Muon slower, as what learns fastest has them (docs/experiments.md).
    Nothing is compiled: a trunk could be, and a U-Net not, and their times would be of unlike things.
    The error of noise is that of Ho et al. 2020 (arXiv:2006.11239), not the velocity's. Where x is predicted, noise
    enters a transformer quietly (`sigma_data`), as only x allows; a U-Net reads the noisy values themselves.
    """
    plain, gau = recipe("lossless_two"), recipe("gau_two")
    fine = replace(plain, rows=8, length=384, model=_raw(4))
    units = replace(fine, model=lossless.model(gau.model.trunk, patch=(1, 4, 4), flow=RAW, picture_weight=3.0))
    arms: dict[str, Recipe] = {}
    for what in ("x", "v", "noise"):
        arms[f"unet_{what}"] = _predicting(recipe("unet_two"), what)
        arms[f"patch8_{what}"] = _predicting(plain, what)
        arms[f"patch4_{what}"] = _predicting(fine, what)
    arms |= {f"gau4_{what}": _predicting(units, what) for what in ("x", "noise")}
    steady = {"decay": 0.0, "average": 0.1, "matrix_rate": 0.008}
    sources = {**plain.sources, "two": {**plain.sources["two"], "level": "one", "size": 16}}
    kept = {"sources": sources, "valid": {}, "compile": False, "sample_size": (16, 16)}
    arms = {n: replace(a, name=n, rows=a.rows // 2, optim=replace(a.optim, **steady), **kept) for n, a in arms.items()}
    return Comparison(
        name="tenfold",
        question="Does a patch transformer take ten times as long as a U-Net?",
        arms=arms,
        budget={"flops": 2e13},
        options=HELDOUT,
        n=100,
        few=40,
        points=8,
        evaluations=(25,),
        twin=False,
        against={n: f"unet_{n.partition('_')[2]}" for n in arms if not n.startswith("unet")},
    )


def tenfold_longer() -> Comparison:
    """The patches that come nearest, by x, for ten times what its U-Net took there to a quarter of exact pictures."""
    whole = tenfold()
    return replace(
        whole,
        name="tenfold_longer",
        question="Do patches of 8 px, which predict x, come in ten times a U-Net's FLOPs to where it came?",
        arms={"patch8_x": whole.arms["patch8_x"]},
        budget={"flops": 1.45e14},
        n=400,
        few=400,  # by 40 questions a point a single seed would pass each rate too soon
        points=16,
        against={},
    )


def two_pictures() -> Comparison:
    """Questions about two pictures: both raw in one sequence, or each through an encoder of its own first.

    Describing comes first: what a picture shows is learned there, and what two have in common after it. `apart` has
    the blocks of `together`, half of them in the encoder, so its words pass through fewer; `apart_deep` has as many for
    its words, and those of the encoder besides.
    """
    scenes = {"kind": "scenes", "level": "two"}
    told, asked = {"tasks": {"describe": 1.0}}, {"tasks": {"compare": 0.8, "ask": 0.2}}
    sources = {
        "told": {**scenes, **told, "share": 1.0, "until": 0.4},
        "asked": {**scenes, **asked, "share": 0.85, "from": 0.4},
        "still": {**scenes, **told, "share": 0.15, "from": 0.4},
    }
    base = replace(recipe("fuyu_two"), sources=sources, valid={})
    return Comparison(
        name="two_pictures",
        question="Two pictures in one sequence, or each encoded by itself: which answers questions about both?",
        arms={
            "together": replace(base, name="together", model=fuyu.model(small_trunk(6), two_way=True)),
            "apart": replace(base, name="apart", model=llava.model(small_trunk(3), blocks=3)),
            "apart_deep": replace(base, name="apart_deep", model=llava.model(small_trunk(6), blocks=3)),
        },
        budget={"flops": 5e13},
        suite="questions",
        n=300,
        twin=False,
    )


def known() -> dict[str, Callable[[], Comparison]]:
    """Every comparison by name, in the order of lines."""
    aside = (known, named, on_data)
    own = (f for f in globals().values() if inspect.isfunction(f) and f.__module__ == __name__)
    return {f.__name__: f for f in own if f not in aside and not f.__name__.startswith("_")}


def named(name: str) -> Comparison:
    """The comparison called `name`.

    Raises:  ValueError with the nearest known names.
    """
    if name not in known():
        raise ValueError(unknown(f"comparison or recipe {name!r}", name, known()))
    return known()[name]()


def on_data(whole: Comparison, data: str, options: Mapping[str, Any]) -> Comparison:
    """The same arms on other pictures: a world, named data, or what lies at a path; a part of it is held out.

    Raises:  ValueError or FileNotFoundError where no reader takes it.
    """
    spec = described(data, **options)
    fields = options_of(source_class(spec["kind"]))
    if data not in WORLDS and "size" in (fields or ()):
        spec = {"size": 32, **spec}
    if has_splits(spec):
        shown, held = spec, {**spec, "split": "heldout" if data in WORLDS else "valid"}
    else:
        shown = {"kind": "parted", "of": spec}
        held = {**shown, "split": "heldout"}
    if whole.suite == "questions":
        raise ValueError(f"{whole.name} asks questions about scenes: it cannot go onto other data")
    tasks, exact = "tasks" in (fields or ()), data in suites()
    looked = {"tasks": {LOOK.get(data, "draw"): 1.0}} if tasks else {}
    nets = {name for arm in whole.arms.values() for name in stands_on(arm)} - {*starts_of(whole)}
    return replace(
        whole,
        name=f"{whole.name}_on_{Path(data).stem}",
        arms={n: _shown(arm, {**shown, **(_asks(arm, data) if tasks else {})}) for n, arm in whole.arms.items()},
        nets={
            **{name: net_of(whole, name) for name in starts_of(whole)},
            **{name: _shown(net_of(whole, name), {**shown, **looked}) for name in sorted(nets)},
        },
        suite=data if exact else "likeness",
        options=dict(HELDOUT) if exact else {"source": held},
    )


def _asks(arm: Recipe, data: str) -> dict[str, dict[str, float]]:
    """The tasks of an arm: to draw where it draws, to describe where it writes."""
    draw, describe = ("write", "read") if data == "glyphs" else ("draw", "describe")
    return {"tasks": {task: 1.0 for task, does in ((draw, draws(arm)), (describe, tells(arm))) if does}}


def _shown(arm: Recipe, spec: Mapping[str, Any]) -> Recipe:
    """A recipe whose pictures are of another source; its prose stays."""
    prose = {name: kept for name, kept in arm.sources.items() if kept.get("kind") == "prose"}
    shares = {name: kept.get("share", 1.0) for name, kept in arm.sources.items() if "until" not in kept}
    share = sum(shares.values()) - sum(shares[name] for name in prose if name in shares)
    return replace(arm, sources={"data": {**spec, "share": share}, **prose}, valid={}, prompts=())


def _with_prose(arm: Recipe) -> Recipe:
    return replace(arm, sources={**arm.sources, "prose": PROSE})


def _placed(model: ModelConfig) -> ModelConfig:
    """With learned places of the first tokens of a text: which letter of a word stands where is not relative."""
    text = model.streams["text"]
    return replace(model, streams={**model.streams, "text": replace(text, codec={**text.codec, "learned": 24})})


def _raw(side: int) -> ModelConfig:
    return lossless.model(small_trunk(5), patch=(1, side, side), flow=RAW, picture_weight=3.0)


def _predicting(arm: Recipe, what: str) -> Recipe:
    loss = "prediction" if what == "noise" else "velocity"
    asked = {"prediction": what, "loss": loss, **({} if what == "x" else {"sigma_data": 0.0})}
    streams = {
        name: replace(stream, objective={**stream.objective, **asked})
        if stream.objective["kind"] == "flow" and stream.role != "read"
        else stream
        for name, stream in arm.model.streams.items()
    }
    return replace(arm, model=replace(arm.model, streams=streams))


def _pictures(
    look: dict[str, Any], length: int, size: tuple[int, int] = (32, 32), steps: int = 1_500
) -> tuple[dict[str, ModelConfig], dict[str, Recipe]]:
    """A model for every way of taking pictures in, and the tokenizers that they stand on, trained on `look`.

    Codes are hidden once a picture and step: four times, as patches have four levels of noise, they learn less.
    """
    quantizers = {
        **{name: {"kind": "fsq", "levels": list(levels), "joint": True} for name, levels in RATES.items()},
        "vq_10": {"kind": "vq", "size": 1024, "width": 8},
        "lfq_10": {"kind": "lfq", "bits": 10, "entropy": 0.02},
    }
    plain, latent = recipe("tokenizer_scenes"), recipe("tokenizer_scenes_kl")
    here = {"sources": {"pictures": look}, "valid": {}, "length": length, "sample_size": size}
    here |= {"steps": steps, "every": steps}
    nets, arms = {"of_kl": replace(latent, name="of_kl", **here)}, {"raw_8": _raw(8), "raw_4": _raw(4)}
    flow = {**RAW, "prediction": "x"}  # as raw patches; by velocities one seed drew no more
    arms["kl"] = transfusion.model(small_trunk(5), nets={"from": "recipe:of_kl"}, flow=flow, picture_weight=3.0)
    for name, quantizer in quantizers.items():
        pictures = plain.model.streams["pictures"]
        codec = {**pictures.codec, "quantizer": quantizer}
        streams = {**plain.model.streams, "pictures": replace(pictures, codec=codec)}
        nets[f"of_{name}"] = replace(plain, name=f"of_{name}", model=replace(plain.model, streams=streams), **here)
        arms[name] = showo.model(small_trunk(5), nets={"from": f"recipe:of_{name}"}, picture_weight=3.0)
    return arms, nets
