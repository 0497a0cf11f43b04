"""The demonstration: a model from the box, then one trained from nothing, judged, and a page of what it made."""

from __future__ import annotations

import base64
import html
import io
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture

from mixmodal.api import Loaded, load
from mixmodal.checkpoint import write_json
from mixmodal.clock import warmed
from mixmodal.compute import duration
from mixmodal.data import make_source
from mixmodal.judge.intervals import told
from mixmodal.judge.suites import Exam, examine
from mixmodal.parallel import together
from mixmodal.recipes import recipe
from mixmodal.train import read_metrics, train_as

SHOWN = 24
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1080px;padding:24px;color:#1e1e22;background:#fff}
h1{font-size:26px;margin:0 0 4px} h2{font-size:19px;margin:36px 0 8px} p{margin:6px 0;max-width:70ch}
table{border-collapse:collapse;margin:12px 0} td,th{padding:5px 14px 5px 0;text-align:left;vertical-align:top}
th{font-weight:600;border-bottom:1px solid #ccc} td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:18px}
.card img{width:100%;image-rendering:pixelated;border:1px solid #ddd;border-radius:4px;display:block}
.sheet{width:100%;border-bottom:1px solid #ddd}
.card p{font-size:13.5px;line-height:1.35;margin:6px 0 0} .right{color:#1a7f45}.wrong{color:#b3402a} .dim{color:#6d6d75}
"""


def demo(out: Path, *, minutes: float = 0.0, seed: int = 0, n: int = 500) -> Path:
    """The page, `out`/index.html, after a training from scratch and its examination."""
    if minutes < 0 or n < 1:
        raise ValueError(f"--minutes is {minutes:g} and --n {n}: want 0 or more, and 1 or more")
    began = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    boxed = _from_the_box(out, seed)
    chosen = recipe("scenes_two")
    chosen = replace(chosen, seed=seed, minutes=minutes or chosen.minutes)
    if seconds := warmed(chosen, _processes()):
        print(f"\nA step is compiled for this machine, which took {seconds:.0f} s.")
    print(f"\nNow the same from nothing: {chosen.minutes:g} minutes of training on this machine.")
    run = out / f"run_{time.strftime('%Y%m%d_%H%M%S')}"
    started = time.perf_counter()
    together(_processes(), train_as, chosen, run, False)
    training = time.perf_counter() - started
    loaded = load(run)
    print(f"Judging {n} held-out sentences and {n} held-out pictures, one sample each ...")
    exam = Exam(loaded.model, loaded.about, n, 0, loaded.settings(), loaded.dtype, {"splits": "heldout"})
    scores = examine("scenes", exam)
    trained = {key: loaded.about[key] for key in ("recipe", "steps", "seconds")} | {"seed": seed}
    write_json(out / "scores.json", {**scores, "trained": trained})
    print(f"exact pictures from sentences  {told(scores['text_to_image.exact'])}")
    print(f"exact sentences about pictures {told(scores['image_to_text.exact'])}")
    page = out / "index.html"
    page.write_text(_page(loaded, scores, run, boxed), encoding="utf8")
    print(f"\nThe page: {page}   ({duration(training)} to train, {duration(time.perf_counter() - began)} in all)")
    called = sys.argv[0] if Path(sys.argv[0]).name == "mixmodal" else "mixmodal"  # by make it is .venv/bin/mixmodal
    print(
        "Your own pictures, with a caption beside each (cat.png, cat.txt):\n"
        f'  {called} train own_32 --data FOLDER --out runs/mine && {called} sample runs/mine "your words"'
    )
    return page


def _processes() -> int:
    """How many train: on a CPU a process for each core is faster than a thread for each."""
    return 1 if torch.cuda.is_available() else min(4, torch.get_num_threads())


def _world(loaded: Loaded) -> Any:
    return make_source({**Exam(loaded.model, loaded.about).source("scenes"), "split": "heldout"})


def _from_the_box(out: Path, seed: int) -> list[tuple[str, Picture.Image]]:
    """A few pictures by the model in the box, at once; none where there is no such model."""
    try:
        loaded = load("builtin:scenes")
    except FileNotFoundError:
        return []
    began = time.perf_counter()
    rng = np.random.default_rng([seed, 3])
    world = _world(loaded)
    prompts = [world.caption(world.draw(rng, "heldout")) for _ in range(8)]
    made = list(zip(prompts, loaded.sample(prompts), strict=True))
    strip = Picture.new("RGB", (8 * 132, 128), "white")
    for number, (_, picture) in enumerate(made):
        strip.paste(picture.resize((128, 128), 0), (number * 132, 0))
    strip.save(out / "first.png")
    print(
        f"The model in the box drew eight sentences it never saw in {time.perf_counter() - began:.1f} s:"
        f" {out / 'first.png'}"
    )
    for prompt in prompts:
        print(f"  {prompt}")
    return made


def _uri(picture: Any) -> str:
    if isinstance(picture, np.ndarray):
        picture = Picture.fromarray(picture)
    held = io.BytesIO()
    picture.save(held, "PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def _card(picture: Any, lines: list[tuple[str, str]]) -> str:
    text = "".join(f'<p class="{kind}">{html.escape(line)}</p>' for kind, line in lines)
    return f'<div class="card"><img src="{_uri(picture)}" alt="{html.escape(lines[0][1])}">{text}</div>'


def _page(loaded: Loaded, scores: dict, run: Path, boxed: list) -> str:
    """The page as one file without links to anything outside it."""
    from mixmodal.data.worlds.scene_grammar import same_meaning
    from mixmodal.judge.scenes import judge

    world = _world(loaded)
    level = world.level
    rng = np.random.default_rng(1)
    scenes = [world.draw(rng, "heldout") for _ in range(SHOWN)]
    prompts, pictures = [world.caption(s) for s in scenes], [world.render(s) for s in scenes]
    drawn = loaded.sample(prompts)
    cards = []
    for prompt, picture in zip(prompts, drawn, strict=True):
        exact = judge(np.asarray(picture), prompt, level).exact
        cards.append(_card(picture, [("", prompt), ("right", "exact") if exact else ("wrong", "not exact")]))
    told_cards = []
    for said, prompt, picture in zip(loaded.caption(pictures), prompts, pictures, strict=True):
        same = same_meaning(said, prompt)
        told_cards.append(
            _card(picture, [("right" if same else "wrong", said)] + ([] if same else [("dim", "true: " + prompt)]))
        )
    last = [m for m in read_metrics(run) if "seconds" in m][-1]
    rows = "".join(
        f'<tr><td>{html.escape(name)}</td><td class="n">{told(scores[key])}</td></tr>'
        for name, key in (
            ("pictures from held-out sentences, exact", "text_to_image.exact"),
            ("sentences about held-out pictures, exact", "image_to_text.exact"),
            ("parts of the pictures that are right", "text_to_image.parts"),
            ("parts that the picture of the nearest training sentence has right", "nearest_training.parts"),
        )
        if key in scores
    )
    way = ""
    for sheet in sorted((run / "samples").glob("step_*.png")):
        way += f"<p>After {int(sheet.stem.removeprefix('step_')):,} steps</p>"
        way += f'<img class="sheet" src="{_uri(Picture.open(sheet))}" alt="">'
    box = "".join(_card(p, [("", prompt)]) for prompt, p in boxed)
    box = f"<h2>The model in the box</h2><div class=grid>{box}</div>" if box else ""
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>mixmodal demo</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>
<h1>One transformer, text and pictures, from nothing</h1>
<p>{sum(p.numel() for p in loaded.model.parameters()) / 1e6:.2f} million parameters, {last["step"]:,} steps,
{duration(last["seconds"])} on this machine. Raw pixels in, raw pixels out, no tokenizer of
pictures, no downloaded weights. Every sentence below is of a combination that never occurred in training.</p>
<table><tr><th>what</th><th>share [95 % interval], n = {scores["n"]}, one sample each</th></tr>{rows}</table>
<h2>Drawn from sentences</h2><div class="grid">{"".join(cards)}</div>
<h2>Written about pictures</h2><div class="grid">{"".join(told_cards)}</div>
<h2>On the way</h2><p>Sixteen documents that training never shows, always the same: a true picture, and beside it
what was drawn for its sentence, or below it what was written.</p>{way}{box}
</body></html>"""
