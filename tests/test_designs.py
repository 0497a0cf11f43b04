"""Every design that there is, by its file name, under the same laws and through the same commands."""

from __future__ import annotations

import importlib.util
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WORDS, given, mixed_documents, picture
from safetensors.torch import load_file
from test_generate import asked, identical, same
from test_laws import close, gradients, laid
from tiny import RECIPE, hasten, quiet, unmeasured

from mixmodal import chain, designs
from mixmodal.api import load
from mixmodal.codecs.text import train_tokenizer, with_specials
from mixmodal.config import ModelConfig, OptimConfig, Recipe, TrunkConfig, to_json
from mixmodal.designs import showo, tokenizer
from mixmodal.generate import generate
from mixmodal.kinds import kind_of, kinds
from mixmodal.model import Model
from mixmodal.objectives import Ask
from mixmodal.objectives.masked import SCHEDULES
from mixmodal.parts import Document, Image, Text
from mixmodal.sampling import Settings
from mixmodal.scans import SCANS, scan
from mixmodal.sequence import collate, pack
from mixmodal.train import train

TRUNK = TrunkConfig(width=64, depth=2, heads=4, kv_heads=2, head_size=16, mlp_width=96)
NETS = {"kind": "autoencoder", "shrink": 2, "features": 8, "blocks": 1}
CODES = {**NETS, "quantizer": {"kind": "lfq", "bits": 4}}
LATENTS = {**NETS, "vector": 4}
# A cell of the table: the design's file, and options of its function.
CELLS = {
    "chameleon": {"nets": CODES},
    "chameleon spiral": {"nets": CODES, "scan": "spiral", "flat": False, "joint": False},
    "showo": {"nets": CODES},
    "showo random": {"nets": CODES, "masked": {"order": "random", "schedule": "linear", "copies": 2}},
    "llamagen": {"nets": CODES, "scan": "columns"},
    "imagegpt": {"order": "planes", "scan": "spiral"},
    "janus": {"nets": CODES, "patch": 4, "blocks": 1},
    "janusflow": {"nets": LATENTS, "patch": 4, "blocks": 1},
    "bagel": {"nets": LATENTS, "patch": 4, "blocks": 1},
    "maskgit": {"nets": CODES},
    "maskgit factors": {"nets": {**NETS, "quantizer": {"kind": "lfq", "bits": 4, "groups": 2}}},
    "transfusion": {"nets": LATENTS},
    "transfusion ends": {"nets": LATENTS, "ends": 4},
    "mar": {"nets": LATENTS, "head": {"steps": 5}},
    "mar pixels": {"patch": 4, "head": {"steps": 5}},
    "fuyu": {"patch": 4},
    "llava": {"patch": 4, "blocks": 1},
    "llada": {"patch": 4, "fill": 16},
    "llada blocks": {"patch": 4, "fill": 4, "block": 4, "masked": {"copies": 2}},
    "lossless": {"patch": (1, 4, 4)},
    "unet": {"patch": (1, 4, 4), "width": 8},
    "dit": {"patch": (1, 4, 4), "width": 32, "depth": 1, "heads": 2},
}


def completed(config: ModelConfig) -> ModelConfig:
    """The configuration with a tokenizer of a few words in its speaker."""
    speaker = config.streams[config.speaker]
    media = {stream.medium for stream in config.streams.values()} - {speaker.medium}
    tokens = to_json(with_specials(train_tokenizer(WORDS * 5, 300), media, speaker.codec.get("tasks", False)))
    streams = {
        name: replace(s, codec={**tokens, **s.codec}) if s.medium == speaker.medium else s
        for name, s in config.streams.items()
    }
    return replace(config, streams=streams)


def configured(cell: str) -> ModelConfig:
    module = importlib.import_module(f"mixmodal.designs.{cell.split()[0]}")
    return module.model(TRUNK, **CELLS[cell])


def made(cell: str, seed: int = 0) -> Model:
    """A small model of a design, no matrix of it zero."""
    torch.manual_seed(seed)
    model = Model(completed(configured(cell)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(("square", "steps")):
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def draws(model: Model) -> bool:
    """Whether it makes pictures."""
    return any(s.medium == "image" and s.role != "read" for s in model.streams.values())


def documents(model: Model) -> list[Document]:
    if draws(model):
        return mixed_documents()
    return [d for d in mixed_documents() if not any(p.medium == "image" and p.wanted for p in d.parts)]


@pytest.fixture(params=CELLS)
def cell(request) -> str:
    return request.param


def test_every_design_has_a_cell_here():
    assert {cell.split()[0] for cell in CELLS} == set(kinds("designs")) - {"tokenizer"}


def test_a_design_is_one_short_file_whose_name_stands_nowhere_else():
    home = Path(designs.__file__).parent
    named = {"recipes", "comparisons.py"}  # what is made of designs
    core = [p for p in home.parent.rglob("*.py") if p.parent != home and not named & set(p.parts)]
    for file in home.glob("[a-z]*.py"):
        assert len(file.read_text("utf8").splitlines()) <= 120, file
        word = re.compile(rf"(?<![a-z]){file.stem}(?![a-z])")
        lines = [f"{p.name}: {line}" for p in core for line in p.read_text("utf8").splitlines() if word.search(line)]
        if file.stem not in ("tokenizer", "lossless", "mar"):  # words of the language, too
            assert not lines, (file.stem, lines)


def test_packed_equals_alone_in_losses_and_gradients(cell):
    model = made(cell)
    sequences = laid(model, documents(model))
    length = max(map(len, sequences)) + 5
    together, grads = gradients(model, collate(sequences, pack(sequences, 4, length), length, model.blank()))
    totals, summed = {}, {}
    for sequence in sequences:
        losses, own = gradients(model, collate([sequence], [[0]], len(sequence), model.blank()))
        for name, (total, count) in losses.items():
            before = totals.get(name, (0, 0))
            totals[name] = (before[0] + total.detach(), before[1] + count)
        for name, grad in own.items():
            summed[name] = summed.get(name, 0) + grad
    assert set(together) == set(totals)
    for name, (total, count) in together.items():
        close(total.detach(), totals[name][0])
        close(count, totals[name][1])
    for name, grad in grads.items():
        close(grad, summed[name], scale=max(1e-2, float(summed[name].abs().max())))


def side(model: Model) -> int:
    """Of pictures asked for: few pixels where each is positions of its own."""
    return 4 if model.writer("image").codec.extent((1, 1, 1)) == (1, 1, 1) else 8


def requests(model: Model) -> list:
    reading = [
        asked(given(picture(1)), Text(), key=2),
        asked(given(picture(4)), given(picture(5, 4, 8)), Text(), key=7),
        asked(Text("a", wanted=False), Text(), key=4, max_tokens=3),
    ]
    if not draws(model):
        return reading
    n = side(model)
    known = np.zeros((n, n), bool)
    known[:, : n // 2] = True
    return [
        asked(Text("a red circle"), Image(size=(n, n)), key=1),
        *reading,
        asked(Text("two green rings"), Image(size=(n + n // 4, n - 1)), key=3, guidance=1.0),
        asked(Image(size=(n, n)), Text("then", wanted=False), Image(size=(n // 2, n + n // 2)), Text(), key=5),
        asked(Text("fill in"), Image(picture(3, n, n).pixels, known=known), key=6),
    ]


def test_the_same_seed_gives_the_same_sample_alone_or_together(cell):
    model = made(cell)
    together = generate(model, requests(model))
    again = generate(model, requests(model), live=3)
    assert all(same(a, b) for a, b in zip(together, again, strict=True))
    for request, document in zip(requests(model), together, strict=True):
        assert same(generate(model, [request])[0], document), request.document.key
    other = generate(model, [replace(request, seed=1) for request in requests(model)])
    if draws(model):
        assert not identical(together[0], other[0])


def test_known_pixels_stay_as_they_are(cell):
    model = made(cell)
    if not draws(model):
        pytest.skip("it draws nothing")
    filled = generate(model, requests(model))[-1].parts[-1].pixels
    n = side(model)
    true = picture(3, n, n).pixels
    half = n // 2
    assert np.array_equal(filled[:, :half], true[:, :half]) and not np.array_equal(filled[:, half:], true[:, half:])


def test_what_is_learned_where_pixels_are_not_known_is_what_is_there(cell):
    """And what is known says nothing of it."""
    model = made(cell)
    if not draws(model):
        pytest.skip("it draws nothing")
    n, codec = side(model), model.writer("image").codec
    pixels = picture(3, n, n).pixels
    known = np.zeros((n, n), bool)
    known[:, : n // 2] = True
    part, other = Image(pixels, known=known), Image(np.where(known[..., None], pixels, 255 - pixels), known=known)
    grid, else_, whole = codec.encode(part), codec.encode(other), codec.encode(Image(pixels))
    assert grid.known.any() and not grid.known.all()
    assert np.array_equal(grid.values[~grid.known], whole.values[~grid.known])
    assert np.array_equal(grid.values[grid.known], else_.values[grid.known])


def test_a_filled_picture_is_finished_and_is_not_made_again(cell):
    model = made(cell)
    if not draws(model):
        pytest.skip("it draws nothing")
    filled = generate(model, requests(model))[-1].parts[-1]
    assert filled.known is None
    again = generate(model, [replace(asked(Text("a"), filled, key=4), seed=9)])[0].parts[-1]
    assert np.array_equal(again.pixels, filled.pixels)


@torch.no_grad()
@pytest.mark.parametrize("kind", SCANS)
def test_codes_drawn_one_by_one_are_the_likeliest_of_the_whole_picture(kind, monkeypatch):
    """Cached equals uncached: every code is the argmax of the logits that training gives its position."""
    CELLS["chameleon now"] = {"nets": CODES, "scan": kind, "flat": kind == "diagonal"}
    model = made("chameleon now")
    del CELLS["chameleon now"]
    stream = model.writer("image")
    held, decode = [], stream.codec.decode
    monkeypatch.setattr(stream.codec, "decode", lambda v, g, p: held.append((np.array(v), g)) or decode(v, g, p))
    request = asked(Text("a red circle"), Image(size=(8, 6)), key=1, guidance=1.0, temperature=0.0)
    generate(model, [request])
    (values, grid) = held[0]
    monkeypatch.setattr(stream.codec, "encode", lambda part: replace_values(grid, values))
    sequence = model.lay_out(Document((Text("a red circle"), picture(0, 8, 6)), key=1), np.random.default_rng(0))
    batch = collate([sequence], [[0]], len(sequence), model.blank())
    hidden = model(batch).flatten(0, 1)[batch.slots["codes"].predict_at]
    likeliest = stream.head.logits(hidden).argmax(1)
    assert len(np.unique(values)) > 1 and np.array_equal(likeliest.numpy(), values[scan(kind, grid.size), 0])


def replace_values(grid, values):
    return replace(grid, values=values)


@torch.no_grad()
def test_one_step_of_masked_draws_the_likeliest_of_all(monkeypatch):
    model = made("showo")
    stream = model.writer("image")
    held, decode = [], stream.codec.decode
    monkeypatch.setattr(stream.codec, "decode", lambda v, g, p: held.append(np.array(v)) or decode(v, g, p))
    generate(model, [asked(Text("a"), Image(size=(8, 8)), key=1, guidance=1.0, temperature=0.0, steps=1)])
    sequence = model.lay_out(Document((Text("a"), picture(0)), key=1), np.random.default_rng(0), times=(0.0,))
    batch = collate([sequence], [[0]], len(sequence), model.blank())
    hidden = model(batch).flatten(0, 1)[batch.slots["codes"].predict_at]
    assert np.array_equal(stream.head.logits(hidden).argmax(1).numpy(), held[0][:, 0])


def test_masked_wants_a_step_and_draws_nothing_where_all_is_known():
    model = made("showo")
    part = Image(picture(3).pixels, known=np.ones((8, 8), bool))
    assert np.array_equal(generate(model, [asked(Text("a"), part)])[0].parts[-1].pixels, part.pixels)
    with pytest.raises(ValueError, match="steps is 0: want"):
        generate(model, [asked(Text("a"), Image(size=(8, 8)), steps=0)])
    model = made("llada")
    model.streams["words"].codec.fill = 0
    with pytest.raises(ValueError, match=r"set objective\.block, or codec\.fill"):
        generate(model, [asked(Text())])


@torch.no_grad()
def test_a_later_block_never_changes_what_is_predicted_of_an_earlier_one():
    model = made("llada blocks")
    hidden = []
    for words in ("a big red circle left of", "a big red circle left on"):
        sequence = model.lay_out(Document((Text(words),), key=1), np.random.default_rng(0))
        batch = collate([sequence], [[0]], len(sequence), model.blank())
        slots = batch.slots["words"]
        hidden.append((slots.predict["targets"], model(batch).flatten(0, 1)[slots.predict_at]))
    (targets, one), (others, two) = hidden
    same = (targets != others).float().cumsum(0) == 0  # up to the block in which the texts differ
    first = int(same.sum()) // 4 * 4 - 4
    assert first > 2 and len(one) == len(two)
    close(one[:first], two[:first])
    assert not torch.equal(one, two)


@torch.no_grad()
def test_the_block_in_which_a_text_ends_is_seen_by_what_follows(monkeypatch):
    model = made("llada blocks")
    stream, end = model.writer("text"), model.speaker.codec.end
    tokens = torch.tensor([7, end, 8, 8])
    monkeypatch.setattr(stream.head, "draw", lambda hidden, *_: (tokens, torch.ones(4)))
    ask = Ask(Settings(steps=1), torch.Generator(), [], [end], False)
    sampler, kept = stream.objective.sampler(stream.codec, stream.head, stream.codec.grid([]), ask), []
    block = next(sampler)
    with pytest.raises(StopIteration) as ended:
        while True:
            kept += [block.run.embed["values"].tolist()] if block.keep else []
            block = sampler.send([torch.zeros(len(block.run), TRUNK.width)])
    assert kept == [tokens.tolist()] and np.array_equal(ended.value.value, tokens.numpy())


@torch.no_grad()
@pytest.mark.parametrize("control", ["unet", "dit"])
def test_the_trunk_of_a_control_never_sees_the_noisy_values_which_its_net_does(control):
    model = made(control)
    sequence = model.lay_out(Document((Text("a"), picture(0, 8, 12)), key=1), np.random.default_rng(0))
    batch = collate([sequence], [[0]], len(sequence), model.blank())
    stream, slots, hidden = model.writer("image"), batch.slots["drawn"], model(batch)
    slots.embed["values"] = slots.embed["values"] + 1
    assert torch.equal(model(batch), hidden)
    told = {name: slots.predict[name] for name in (*stream.codec.blank(), "time")}
    given = hidden.flatten(0, 1)[slots.predict_at]
    found = stream.codec.read(given, told)
    for other in (
        stream.codec.read(given, {**told, "values": told["values"] + 1}),
        stream.codec.read(given, {**told, "time": told["time"] / 2}),
        stream.codec.read(given.roll(1, 0), told),
    ):
        assert not torch.allclose(other, found, atol=1e-3)
    assert torch.equal(stream.codec.read(given[:6], {name: f[:6] for name, f in told.items()}), found[:6])


def test_a_control_says_which_nets_there_are_and_takes_one_frame():
    control = kind_of("codecs", {"kind": "control"})
    with pytest.raises(ValueError, match="did you mean tower"):
        control.Config(net="towers")
    with pytest.raises(ValueError, match="one frame at a time"):
        control.Config(patch=(2, 4, 4))


def test_a_filled_text_ends_at_its_first_end_token_and_hides_the_rest():
    codec = made("llada").streams["words"].codec
    grid = codec.encode(Text("a big red circle"))
    assert len(grid.values) % 16 == 0 and grid.values[-1] == codec.end
    assert codec.decode(grid.values, grid, Text()).text == "a big red circle"
    assert len(codec.encode(Text("")).values) == 16


def test_a_joint_softmax_is_one_over_words_and_codes():
    model = made("chameleon")
    heads = [stream.head for stream in model.streams.values()]
    hidden = torch.randn(5, 64)
    logits = torch.cat([head.logits(hidden) for head in heads], 1)
    targets = torch.tensor([1, 0, 3, 2, 2])
    first = len(heads[0].table)
    close(
        heads[1].loss(hidden, targets[:, None]),
        torch.nn.functional.cross_entropy(logits, targets + first, reduction="none"),
    )
    close(heads[0].loss(hidden, targets), torch.nn.functional.cross_entropy(logits, targets, reduction="none"))


def test_a_code_of_several_numbers_has_an_independent_law_for_each():
    model = made("maskgit factors")
    head = model.streams["codes"].head
    hidden, targets = torch.randn(5, 64), torch.randint(0, 4, (5, 2))
    assert head.sizes == (4, 4)
    logits = head.logits(hidden)
    slow = sum(
        torch.nn.functional.cross_entropy(logits[:, 4 * g : 4 * g + 4], targets[:, g], reduction="none") for g in (0, 1)
    )
    close(head.loss(hidden, targets), slow)


@pytest.mark.parametrize("kind", SCANS)
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 4, 4), (1, 3, 5), (2, 2, 3)])
def test_a_scan_goes_through_every_cell_once_and_frame_by_frame(kind, size):
    order = scan(kind, size)
    assert sorted(order) == list(range(int(np.prod(size))))
    assert (np.diff(order // (size[1] * size[2])) >= 0).all()


def test_a_scan_is_what_its_name_says():
    assert scan("columns", (1, 2, 3)).tolist() == [0, 3, 1, 4, 2, 5]
    assert scan("diagonal", (1, 2, 2)).tolist() == [0, 2, 1, 3]
    assert scan("corner", (1, 2, 2)).tolist() == [0, 1, 2, 3]
    assert set(scan("spiral", (1, 4, 4))[:4].tolist()) == {5, 6, 9, 10}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_hides_all_at_first_and_nothing_at_last(kind):
    hidden = [SCHEDULES[kind](r) for r in np.linspace(0, 1, 11)]
    assert hidden[0] == pytest.approx(1) and hidden[-1] == pytest.approx(0, abs=1e-9)
    assert all(a > b for a, b in zip(hidden[:-1], hidden[1:], strict=True))


# Through the commands


def recipe_of(cell: str) -> Recipe:
    if cell.startswith("imagegpt"):  # a position for each value: pictures are small
        squares = {"kind": "squares", "of": RECIPE.sources["scenes"], "size": 4}
        return replace(
            RECIPE, model=configured(cell), sources={"squares": squares}, valid={}, sample_size=(4, 4), steps=4, every=2
        )
    tasks = {} if draws(made(cell)) else {"tasks": {"describe": 1.0}}
    world = {**RECIPE.sources["scenes"], **tasks}
    return replace(
        RECIPE,
        model=configured(cell),
        sources={"scenes": world},
        valid={"scenes": {**world, "split": "heldout"}},
        optim=OptimConfig(matrix_rate=0.01, rate=0.005, warmup=1, decay=0.2),
        rows=2,
        length=192,
        steps=4,
        every=2,
    )


def test_a_design_trains_and_stopped_and_resumed_is_never_stopped_to_the_bit(cell, tmp_path, monkeypatch):
    hasten(monkeypatch)
    whole = train(recipe_of(cell), tmp_path / "whole", say=quiet)
    parts = shutil.copytree(whole, tmp_path / "parts")  # as a kill after step 2 would leave it
    for later in (parts / "checkpoints/step_00000004", parts / "model"):
        shutil.rmtree(later)
    unmeasured(monkeypatch)
    train(recipe_of(cell), parts, resume=True, say=quiet)
    one, two = (load_file(run / "model/model.safetensors") for run in (whole, parts))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert (whole / "samples/step_00000004.png").exists() or not recipe_of(cell).valid
    loaded = load(whole)
    assert loaded.caption(picture(0, 16, 16).pixels, max_tokens=3)[0] is not None
    if draws(loaded.model):
        assert loaded.sample("a red circle", steps=2)[0].size == loaded.size
    frozen = {n: p for n, p in loaded.model.named_parameters() if ".nets." in n}
    assert not any(p.requires_grad for p in frozen.values()) and bool(frozen) == ("nets" in CELLS[cell])


def test_a_design_takes_its_tokenizer_from_a_trained_one_and_keeps_it_as_it_is(tmp_path, monkeypatch):
    hasten(monkeypatch)
    look = {**RECIPE.sources["scenes"], "tasks": {"look": 1.0}}
    nets = tokenizer.model(quantizer=CODES["quantizer"], codec={k: v for k, v in NETS.items() if k != "kind"})
    first = replace(RECIPE, name="first", model=nets, sources={"scenes": look}, valid={}, length=80, steps=3, every=3)
    monkeypatch.setattr(chain, "recipe", lambda name: {"first": first}[name])
    chosen = replace(recipe_of("showo"), model=showo.model(TRUNK, nets={"from": "recipe:first"}), valid={})
    spelled = chain.untrained(chosen).model.streams["codes"].codec["nets"]
    assert spelled["quantizer"] == CODES["quantizer"] and "from" not in spelled
    standing = chain.standing(chosen, tmp_path / "run")
    assert standing.model.streams["codes"].codec["nets"] == {"from": str(tmp_path / "first")}
    before = (tmp_path / "first/model/model.safetensors").stat().st_mtime_ns
    assert chain.standing(chosen, tmp_path / "other") == standing  # trained once for all that stand on it
    assert (tmp_path / "first/model/model.safetensors").stat().st_mtime_ns == before
    run = train(standing, tmp_path / "run", say=quiet)
    own, theirs = load_file(run / "model/model.safetensors"), load_file(tmp_path / "first/model/model.safetensors")
    names = [n for n in own if ".codec.nets." in n]
    assert len(names) > 10
    for name in names:
        assert torch.equal(own[name], theirs[name.replace("streams.codes.codec.nets.", "streams.pictures.codec.")])
    shutil.rmtree(tmp_path / "first")  # a run goes on without what it began with
    shutil.rmtree(run / "checkpoints/step_00000004")
    train(standing, run, resume=True, say=quiet)
    assert torch.equal(load_file(run / "model/model.safetensors")[names[0]], own[names[0]])


def test_a_codec_without_its_tokenizer_says_how_to_get_one():
    for codec, found in (("codes", LATENTS), ("latents", CODES)):
        with pytest.raises(ValueError, match=r"set codec\.nets\.from to the folder of a trained"):
            kind_of("codecs", {"kind": codec}).build(kind_of("codecs", {"kind": codec}).Config(found), 64)


def test_the_table_of_the_readme_is_what_the_files_say():
    root = Path(designs.__file__).parents[2]
    spec = importlib.util.spec_from_file_location("table_of_designs", root / "docs/designs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (root / "README.md").read_text("utf8")
    assert module.written(page) == page, "run: python docs/designs.py"
    assert all(f"designs/{name}.py" in module.table() for name in set(kinds("designs")) - {"tokenizer"})


def test_hidden_text_bounds_its_likelihood_only_where_every_number_is_as_likely():
    from mixmodal.objectives.masked import Config, Objective

    for config, bounds in (
        (Config(fair=True, schedule="linear"), True),
        (Config(fair=True, schedule="root"), False),
        (Config(fair=True, schedule="linear", least=0.1), False),
        (Config(schedule="linear"), False),
    ):
        assert Objective(config, 8).bounds == bounds
