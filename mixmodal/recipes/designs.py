"""One recipe for every design, all on the world that `scenes_two` learns: same trunk, data, optimizer and steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mixmodal.config import ModelConfig, OptimConfig, Recipe
from mixmodal.designs import (
    bagel,
    chameleon,
    dit,
    fuyu,
    janus,
    janusflow,
    llada,
    llamagen,
    llava,
    lossless,
    mar,
    maskgit,
    showo,
    small_trunk,
    tokenizer,
    transfusion,
    unet,
)

CODES, LATENTS = {"from": "recipe:tokenizer_scenes"}, {"from": "recipe:tokenizer_scenes_kl"}
TWO = {"kind": "scenes", "level": "two"}
FLOW = {"copies": 4, "clamp": 0.1, "time_law": {"mean": -0.8, "std": 1.2}}
RAW = {**FLOW, "sigma_data": 1.0}  # without it words steer patches late: docs/experiments.md
CONTROLLED = {"flow": FLOW, "picture_weight": 3.0}


def _tokenizer(name: str, **nets: Any) -> Recipe:
    look = {**TWO, "tasks": {"look": 1.0}}
    return Recipe(
        name=name,
        model=tokenizer.model(**nets),
        sources={"scenes": look},
        valid={"scenes": {**look, "split": "heldout"}},
        optim=OptimConfig(filter_rate=0.03, rate=0.002, newton_schulz=3, warmup=10, decay=0.9),
        rows=32,
        length=72,
        steps=1_500,
        every=1_500,
        compile=False,
    )


def tokenizer_scenes() -> Recipe:
    """Scenes of two objects as 8 x 8 codes out of 1,024.

    Result:  under 3 minutes of a core, seed 0: 30.9 dB, 94.8 % of 500 held-out scenes read right afterwards.
    """
    return _tokenizer("tokenizer_scenes", quantizer={"kind": "vq", "size": 1024, "width": 8})


def tokenizer_scenes_kl() -> Recipe:
    """Scenes of two objects as 8 x 8 vectors of four numbers, held near a normal law.

    Result:  likewise: 32.1 dB, 96.8 %.
    """
    return _tokenizer("tokenizer_scenes_kl", codec={"vector": 4, "kl": 1e-4})


def tokenizer_scenes_18() -> Recipe:
    """Scenes of two objects as 8 x 8 codes of 18 bits, in two numbers of nine.

    Result:  6.1 minutes of one core beside other work, seed 0, n = 100: 29.1 dB.
    """
    quantizer = {"kind": "lfq", "bits": 18, "groups": 2, "entropy": 0.02}
    return _tokenizer("tokenizer_scenes_18", quantizer=quantizer)


def _recipe(name: str, model: ModelConfig, tasks: dict[str, float] | None = None, **more: Any) -> Recipe:
    asked = {"tasks": tasks} if tasks else {}
    kept = {
        "sources": {"two": {**TWO, **asked, "share": 0.98}, "prose": {"kind": "prose", "share": 0.02}},
        "valid": {"two": {**TWO, **asked, "split": "heldout"}},
        "optim": OptimConfig(matrix_rate=0.012, newton_schulz=3),
        "steps": 1_000,
        "rows": 16,
        "length": 192,
        "every": 500,
        "guidance": 2.0,
    }
    return Recipe(name=name, model=model, **{**kept, **more})


def chameleon_two() -> Recipe:
    """Chameleon: one vocabulary of words and codes, next token.

    Result:  half of its steps, seed 0, n = 100, 377 s of one core: 5 % of pictures and 64 % of captions exact.
    """
    return _recipe("chameleon_two", chameleon.model(small_trunk(5), nets=CODES))


def showo_two() -> Recipe:
    """Show-o: words by next token, codes masked.

    Result:  half of its steps, seed 0, n = 100, 443 s: 56 and 1 %; all 1,000 steps: 75 and 25 %.
    """
    return _recipe("showo_two", showo.model(small_trunk(5), nets=CODES))


def maskgit_two() -> Recipe:
    """MaskGIT: masked codes on a caption.

    Result:  half of its steps, seed 0, n = 100, 463 s: 77 % of pictures.
    """
    return _recipe("maskgit_two", maskgit.model(small_trunk(5), nets=CODES), {"draw": 1.0})


def transfusion_two() -> Recipe:
    """Transfusion: words by next token, latents by flow.

    Result:  half of its steps, seed 0, n = 100, about 7 minutes: 74 and 100 %; before latents entered as loud as
             patches 79 and 100 %, seed 1: 78 and 100 %.
    """
    return _recipe("transfusion_two", transfusion.model(small_trunk(5), nets=LATENTS))


def mar_two() -> Recipe:
    """MAR on latents: masked, each drawn by a small flow.

    Result:  half of its steps, seed 0, n = 100, 658 s: 58 and 49 %.
    """
    return _recipe("mar_two", mar.model(small_trunk(5), nets=LATENTS))


def mar_pixels_two() -> Recipe:
    """MAR on raw patches of 4 x 4 pixels.

    Result:  half of its steps, seed 0, n = 100, about 8 minutes: 13 and 49 %.
    """
    return _recipe("mar_pixels_two", mar.model(small_trunk(5), patch=4))


def lossless_two() -> Recipe:
    """Lossless: words by next token, raw patches by flow; what the others are compared with.

    Result:  half of its steps, seed 0, n = 100, 5.6 minutes without bf16: 72 and 100 %.
    """
    return _lossless("lossless_two")


def _lossless(name: str, depth: int = 5, flow: dict[str, Any] | None = None, **trunk: Any) -> Recipe:
    chosen = replace(small_trunk(depth), **trunk)
    return _recipe(name, lossless.model(chosen, flow={**RAW, **(flow or {})}, picture_weight=3.0))


def asym_two() -> Recipe:
    """Lossless with AsymFlow's prediction: the velocity of each patch's means and first slopes, the rest as pixels.

    Its noise enters as loud as it is, since who predicts a velocity has to be shown it.
    Result:  449 steps (25 TFLOPs, `options`), seed 0, n = 100: 37 and 93 %; `lossless_two` with noise as
             loud: 37 and 93 %.
    """
    return _lossless("asym_two", flow={"prediction": "asym", "sigma_data": 0.0})


def unet_two() -> Recipe:
    """A control: a U-Net draws, on what a trunk of three blocks says of the text.

    Result:  267 steps (25 TFLOPs, `options`), seed 0, n = 100: 2 and 12 %, with filters at the rate of the matrices.
    """
    optim = OptimConfig(matrix_rate=0.012, filter_rate=0.02, newton_schulz=3)
    return _recipe("unet_two", unet.model(small_trunk(3), width=24, **CONTROLLED), optim=optim)


def dit_two() -> Recipe:
    """A control: a diffusion transformer draws, on what a trunk of three blocks says of the text.

    Result:  575 steps (25 TFLOPs, `options`), seed 0, n = 100: 74 and 79 %.
    """
    return _recipe("dit_two", dit.model(small_trunk(3), depth=3, **CONTROLLED))


def gau_two() -> Recipe:
    """Lossless on gated attention units, twice as many blocks of half the size.

    Result:  half of its steps, seed 0, n = 100, 11.6 minutes beside other work: 11 and 85 %.
    """
    return _lossless("gau_two", 10, block="gau", heads=1, kv_heads=1, head_size=64, mlp_width=384)


def experts_two() -> Recipe:
    """Lossless on two experts, one for words and one for patches: twice the weights, as much work.

    Result:  half of its steps, seed 0, n = 100, 7.5 minutes beside other work: 66 and 99 %.
    """
    return _lossless("experts_two", experts=2)


def rank_two() -> Recipe:
    """Lossless no more: patches enter through a matrix of rank 48, a quarter of their values.

    Result:  half of its steps, seed 0, n = 100, 13.1 minutes beside other work: 55 and 97 %.
    """
    model = lossless.model(small_trunk(5), flow=RAW, codec={"rank": 48}, picture_weight=3.0)
    return _recipe("rank_two", model)


def adaptive_two() -> Recipe:
    """Lossless with the time by adaLN: half as many weights again.

    Result:  half of its steps, seed 0, n = 100, 12.7 minutes beside other work: 61 and 98 %.
    """
    return _lossless("adaptive_two", flow={"time": "trunk"}, adaptive=True)


def skips_two() -> Recipe:
    """Lossless with long skips.

    Result:  half of its steps, seed 0, n = 100, 8.7 minutes beside other work: 55 and 93 %.
    """
    return _lossless("skips_two", long_skips=True)


def fuyu_two() -> Recipe:
    """Fuyu: raw patches in, words out.

    Result:  half of its steps, seed 0, n = 100, 287 s: 99 % of captions.
    """
    return _recipe("fuyu_two", fuyu.model(small_trunk(5)), {"describe": 1.0})


def llava_two() -> Recipe:
    """LLaVA: pictures through an encoder of two blocks each, words out of a trunk of three.

    Result:  half of its steps, seed 0, n = 100, 5.9 minutes beside other work: 87 % of captions.
    """
    return _recipe("llava_two", llava.model(small_trunk(3), blocks=2), {"describe": 1.0})


def llada_two() -> Recipe:
    """LLaDA: raw patches in, words by masked diffusion.

    Result:  half of its steps, seed 0, n = 100, 258 s: 43 % of captions.
    """
    return _recipe("llada_two", llada.model(small_trunk(5)), {"describe": 1.0})


def llada_blocks_two() -> Recipe:
    """LLaDA in blocks of eight words.

    Result:  half of its steps, seed 0, n = 100, 245 s: 72 % of captions.
    """
    return _recipe("llada_blocks_two", llada.model(small_trunk(5), fill=8, block=8), {"describe": 1.0})


def llamagen_two() -> Recipe:
    """LlamaGen: codes by next token on a caption.

    Result:  half of its steps, seed 0, n = 100, 9.4 minutes beside other work and 4.2 for its tokenizer: 45 % of
             pictures.
    """
    return _recipe("llamagen_two", llamagen.model(small_trunk(5), nets=CODES), {"draw": 1.0})


def janus_two() -> Recipe:
    """Janus: pictures read through an encoder of two blocks, and written as codes by next token.

    Result:  half of its steps, seed 0, n = 100, 15.7 minutes beside other work: 11 and 46 %.
    """
    return _recipe("janus_two", janus.model(small_trunk(5), nets=CODES))


def janusflow_two() -> Recipe:
    """JanusFlow: pictures read through an encoder of two blocks, and written as latents by flow.

    Result:  half of its steps, seed 0, n = 100, 14.7 minutes beside other work: 75 and 59 %.
    """
    return _recipe("janusflow_two", janusflow.model(small_trunk(5), nets=LATENTS))


def bagel_two() -> Recipe:
    """BAGEL: pictures read through an encoder of two blocks, and written as latents by flow on an expert of its own.

    Result:  500 steps, seed 0, n = 100, 4.0 minutes of one core with bf16: 77 % of pictures, 26 % of captions; 90 %
             filled.
    """
    return _recipe("bagel_two", bagel.model(small_trunk(5), nets=LATENTS))


def maskgit_18_two() -> Recipe:
    """MAGVIT-v2's way: masked codes of 18 bits, in two numbers of nine that are drawn apart, on a caption.

    Result:  half of its steps, seed 0, n = 100, 12 minutes beside other work and 6.1 for its tokenizer: 54 % of
             pictures.
    """
    nets = {"from": "recipe:tokenizer_scenes_18"}
    return _recipe("maskgit_18_two", maskgit.model(small_trunk(5), nets=nets, masked={"noise": 4.0}), {"draw": 1.0})
