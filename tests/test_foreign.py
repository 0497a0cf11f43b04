"""Weights of others keep their meaning: the logits of transformers on the old vocabulary, and new rows and streams."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import WORDS, mixed_documents, small_config
from safetensors.torch import load_file, save_file
from tiny import RECIPE, hasten
from tokenizers import Tokenizer

from mixmodal import train as training
from mixmodal.api import load as load_own
from mixmodal.checkpoint import from_pretrained, save_pretrained
from mixmodal.cli import main
from mixmodal.codecs.text import LARGEST_SIZE, train_tokenizer
from mixmodal.config import ModelConfig, OptimConfig, RotaryScaling, TrunkConfig, from_json, override, to_json
from mixmodal.designs import showo
from mixmodal.foreign import load, merged, trunk_of
from mixmodal.generate import Request, generate
from mixmodal.judge import suites
from mixmodal.optim import make_optimizers
from mixmodal.parts import Document, Image, Text
from mixmodal.sampling import Settings
from mixmodal.sequence import Run, Sequence, collate

transformers = pytest.importorskip("transformers", reason="the checkpoints are written by transformers (extra `test`)")

TOKENIZER = train_tokenizer(WORDS * 5, 300)
TOKENS = Tokenizer.from_str(TOKENIZER).get_vocab_size()
SHAPE = {
    "vocab_size": TOKENS,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "bos_token_id": 3,
    "eos_token_id": [5, 6],
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES = {
    "qwen3": ("Qwen3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0}}),
    "qwen3 tied and padded": ("Qwen3", {"tie_word_embeddings": True, "vocab_size": TOKENS + 7}),
    "llama of three": ("Llama", {"rope_parameters": LLAMA3, "rms_norm_eps": 1e-5}),
    "llama tied, each head its own key": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 6}),
    "llama stretched": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
}


def written(folder, family: str, chosen: dict, **saved):
    """A random checkpoint of transformers in `folder`, large enough in its logits to tell something, and the model."""
    config = getattr(transformers, f"{family}Config")(**{**SHAPE, **chosen}, attn_implementation="eager")
    torch.manual_seed(1)
    theirs = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs.save_pretrained(folder, **saved)
    (folder / "tokenizer.json").write_text(TOKENIZER, encoding="utf8")
    return theirs


def changed(folder, **changes) -> None:
    """The checkpoint's config.json with some keys changed, or without those that are None."""
    told = json.loads((folder / "config.json").read_text("utf8")) | changes
    told = {key: value for key, value in told.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(told), encoding="utf8")


@torch.no_grad()
def logits(model, tokens: list[int]) -> torch.Tensor:
    """What our model says after each of `tokens`, with nothing before them."""
    coords = np.repeat(np.arange(len(tokens), dtype=np.float32)[:, None], 3, axis=1)
    run = Run("text", {"values": np.asarray(tokens, np.int64)}, coords)
    batch = collate([Sequence([run])], [[0]], len(run), model.blank())
    return model.speaker.head.logits(model(batch)[0])


@torch.no_grad()
def agree(model, theirs, count: int = 90) -> None:
    tokens = np.random.default_rng(0).integers(0, TOKENS, count).tolist()
    expected = theirs(torch.tensor([tokens]), use_cache=False).logits[0].float()
    found = logits(model, tokens)[:, : expected.shape[1]]
    apart, largest = float((found - expected).abs().max()), float(expected.abs().max())
    assert largest > 0.5, "the logits are too small to tell anything"
    assert apart <= 1e-5 * largest, (apart, largest)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """The folder of a checkpoint, never changed."""
    folder = tmp_path_factory.mktemp("qwen")
    written(folder, *CASES["qwen3"])
    return folder


# The weights keep their meaning


@pytest.mark.parametrize("case", CASES)
def test_the_old_vocabulary_has_the_logits_of_transformers(case, tmp_path):
    theirs = written(tmp_path, *CASES[case])
    model, about = load(tmp_path)
    agree(model, theirs)
    assert about["family"] == CASES[case][0].lower() and not model.training
    save_pretrained(model, tmp_path / "ours", about=about)
    again, told = from_pretrained(tmp_path / "ours")
    agree(again, theirs)
    assert told == about and again.config.trunk == model.config.trunk


def test_a_checkpoint_in_many_files_is_one(tmp_path):
    theirs = written(tmp_path, *CASES["qwen3 tied and padded"], max_shard_size="30KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2 and not (tmp_path / "model.safetensors").exists()
    agree(load(tmp_path)[0], theirs)


@pytest.mark.parametrize("case", ["llama of three", "llama stretched"])
def test_a_configuration_in_the_older_words_is_read_too(case, tmp_path):
    theirs = written(tmp_path, *CASES[case])
    rope = dict(CASES[case][1]["rope_parameters"])
    theta, kind = rope.pop("rope_theta"), rope.pop("rope_type")
    changed(tmp_path, rope_parameters=None, rope_theta=theta, rope_scaling={**rope, "type": kind})
    agree(load(tmp_path)[0], theirs)


def test_a_size_of_heads_that_is_not_told_is_the_width_shared_among_them(tmp_path):
    theirs = written(tmp_path, "Llama", {"head_dim": 8})
    changed(tmp_path, head_dim=None)
    model, _ = load(tmp_path)
    assert model.config.trunk.head_size == 8
    agree(model, theirs)


def test_weights_saved_without_their_head_or_in_half_precision_are_read(tmp_path):
    theirs = written(tmp_path, *CASES["qwen3 tied and padded"])
    bare = {name.removeprefix("model."): t.bfloat16() for name, t in load_file(tmp_path / "model.safetensors").items()}
    save_file(bare, tmp_path / "model.safetensors")
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.bfloat16())
    agree(load(tmp_path)[0], theirs)


def test_the_scaling_of_rotary_frequencies_matters_and_survives_a_file(tmp_path):
    theirs = written(tmp_path, *CASES["llama of three"])
    trunk = trunk_of(json.loads((tmp_path / "config.json").read_text("utf8")))
    assert trunk.rope_scaling == RotaryScaling("llama3", 8.0, 1.0, 4.0, 64.0)
    assert from_json(TrunkConfig, json.loads(json.dumps(to_json(trunk)))) == trunk
    assert override(trunk, ["rope_scaling.factor=4"]).rope_scaling.factor == 4
    assert override(trunk, ["rope_scaling=null"]).rope_scaling is None
    changed(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 500_000.0})
    with pytest.raises(AssertionError):
        agree(load(tmp_path)[0], theirs)


# What is new


def test_new_tokens_are_rows_behind_the_old_near_their_mean(tmp_path):
    written(tmp_path, *CASES["qwen3 tied and padded"])
    model, _ = load(tmp_path, small_config())
    codec, rows = model.speaker.codec, TOKENS + 7
    table = codec.table.weight.detach()
    assert model.speaker.head.table is codec.table.weight
    assert len(table) == codec.vocabulary == rows + 2 + 2 + LARGEST_SIZE
    marks = [codec.begin, codec.end, *codec.opening("image", (1, 2, 3)), *codec.closing("image"), *codec.size_tokens()]
    assert len(set(marks)) == 2 + 2 + LARGEST_SIZE and min(marks) == rows
    old, new = table[:rows], table[[mark for mark in marks if mark not in (codec.begin, codec.end)]]
    assert ((new - old.mean(0)).abs() < 0.6 * old.std(0)).all() and (new.std(0) > 0).all()
    assert torch.equal(table[codec.begin], table[3]) and torch.equal(table[codec.end], table[5])  # their own


def test_tokens_that_they_added_themselves_keep_their_rows_and_announce_nothing(tmp_path):
    theirs = written(tmp_path, "Qwen3", {"vocab_size": TOKENS + 9})
    added = Tokenizer.from_str(TOKENIZER)
    added.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|image|>"])
    added.enable_truncation(4)
    (tmp_path / "tokenizer.json").write_text(added.to_str(), "utf8")
    model, _ = load(tmp_path, small_config())
    agree(model, theirs)
    codec = model.speaker.codec
    assert codec.tokenizer.token_to_id("<|im_start|>") == TOKENS + 1
    assert codec.opening("image", (1, 2, 2))[0] == TOKENS + 2 and codec.announced(TOKENS + 2) == "image"
    assert codec.begin == TOKENS + 9 and codec.vocabulary == TOKENS + 9 + 2 + 1 + LARGEST_SIZE
    ids = codec.encode(Text("a <|im_start|> is only spelled here")).values.tolist()
    assert TOKENS + 1 not in ids and len(ids) > 4 and codec.tokenizer.decode(ids).startswith("a <|im_start|>")


def test_text_is_cut_into_the_same_tokens_as_before(qwen):
    model, _ = load(qwen, small_config())
    for text in (*WORDS, "é ☂ 漢字\n", "<|begin|> is text"):
        ids = model.speaker.codec.encode(Text(text)).values.tolist()
        assert ids == Tokenizer.from_str(TOKENIZER).encode(text).ids
        assert model.speaker.codec.tokenizer.decode(ids) == text


def test_the_same_seed_makes_the_same_new_parts_and_leaves_the_global_generator_alone(qwen):
    state = torch.get_rng_state()
    one, two, other = (load(qwen, small_config(), seed)[0].state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(state, torch.get_rng_state())
    differing = {name for name in one if not torch.equal(one[name], other[name])}
    assert "streams.text.codec.table.weight" in differing and any(n.startswith("streams.patches") for n in differing)
    assert not any(name.startswith("trunk.") for name in differing)


def test_a_recipe_lends_its_other_streams_and_training_goes_on_from_the_folder(qwen, tmp_path, monkeypatch):
    model, about = load(qwen, RECIPE.model)
    assert set(model.streams) == {"text", "patches"} and model.weights() == {"text": 0.5, "patches": 1.0}
    save_pretrained(model, tmp_path / "start", about=about)
    hasten(monkeypatch)
    run = training.prepare(replace(RECIPE, start=str(tmp_path / "start")))
    assert run.model.config.trunk == model.config.trunk and run.model.config.trunk.width == 48
    own, started = model.state_dict(), run.model.state_dict()
    assert own.keys() == started.keys() and all(torch.equal(own[name], started[name]) for name in own)
    assert all(torch.isfinite(total) for total, _ in losses(run.model).values())
    made = load_own(tmp_path / "start", dtype=torch.float32).generate([Document((Text("a ring"), Image(size=(8, 8))))])
    assert made[0].parts[1].pixels.shape == (8, 8, 3)


def losses(model) -> dict:
    sequences = [model.lay_out(d, np.random.default_rng(d.key)) for d in mixed_documents()[:3]]
    return model.losses(collate(sequences, [[0], [1], [2]], max(map(len, sequences)), model.blank()))


def test_a_recipe_may_freeze_the_foreign_trunk_or_put_adapters_beside_it(qwen):
    for setting in ("trunk.frozen=true", "trunk.adapter_rank=4"):
        model, _ = load(qwen, override(RECIPE.model, [setting]))
        assert not model.trunk.blocks[0].attention.q.weight.requires_grad
        groups = model.groups()
        assert not any(name.startswith("trunk.") and name.endswith("weight") for name, _ in groups["matrices"])
        assert any(name.startswith("streams.patches") for name, _ in groups["rest"])


# Text ability, from the command line


@pytest.mark.parametrize("case", ["qwen3", "qwen3 tied and padded"])
def test_with_adapters_the_words_that_came_are_kept_and_only_new_ones_learn(case, tmp_path):
    folder = tmp_path / "theirs"
    theirs = written(folder, *CASES[case])
    model, about = load(folder, override(RECIPE.model, ["trunk.adapter_rank=4"]))
    agree(model, theirs)
    started = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizers = make_optimizers(model.groups(), OptimConfig(matrix_rate=0.01, rate=0.01, weight_decay=0.1))
    for _ in range(2):
        sum(total / count for total, count in losses(model).values()).backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
    now = model.state_dict()
    moved = {name for name in now if not torch.equal(now[name], started[name])}
    tables = {"streams.text.codec.table_added", "streams.text.head.table_added"}
    assert tables <= moved and not {name for name in moved if name.endswith((".table", ".table.weight"))}
    save_pretrained(model, tmp_path / "trained", about=about)
    again, _ = from_pretrained(tmp_path / "trained")
    whole = merged(again)
    for other in (again, whole):
        found = {name: float(total.detach()) for name, (total, _) in losses(other).items()}
        assert found == pytest.approx({n: float(total.detach()) for n, (total, _) in losses(model).items()}, rel=1e-4)
    assert not any("table_added" in name for name in whole.state_dict())
    free, _ = load(folder, override(RECIPE.model, ["trunk.adapter_rank=4", "streams.text.codec.kept=0"]))
    assert free.speaker.codec.table.weight.requires_grad


def test_the_command_imports_and_text_ability_is_told(qwen, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(suites, "PROSE_DOCUMENTS", 2)
    out = str(tmp_path / "start")
    settings = ["--set", "model.trunk.adapter_rank=2"]
    main(["import", str(qwen), out, "--recipe", "scenes_two", "--prose", *settings])
    said = capsys.readouterr().out
    assert "bits per byte of held-out text, before any training" in said and f"--set start={out}" in said
    loaded = load_own(out)
    assert loaded.about["recipe"] == "scenes_two" and loaded.size == (32, 32) and loaded.about["foreign"] == qwen.name
    assert loaded.bits_per_byte() == pytest.approx(loaded.about["bits_per_byte"])
    assert "| bits_per_byte |" in (tmp_path / "start/README.md").read_text("utf8")
    main(["info", out, "--prose"])
    assert f"prose       {loaded.bits_per_byte():.3f} bits per byte" in capsys.readouterr().out
    main(["merge", out, str(tmp_path / "merged")])
    assert load_own(tmp_path / "merged").model.config.trunk.adapter_rank == 0


def test_bits_per_byte_are_those_of_the_models_own_logits(qwen, tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "PROSE_DOCUMENTS", 1)
    text = "A path may be given."
    monkeypatch.setattr(suites, "make_source", lambda spec: Told(text))
    model, about = load(qwen)
    save_pretrained(model, tmp_path, about=about)
    codec = model.speaker.codec
    tokens = [codec.begin, *codec.encode(Text(text)).values.tolist(), codec.end]
    law = logits(model, tokens).log_softmax(1)
    nats = -sum(float(law[at, token]) for at, token in enumerate(tokens[1:]))
    assert load_own(tmp_path).bits_per_byte() == pytest.approx(nats / np.log(2) / len(text), rel=1e-5)


class Told:
    """A source of one text."""

    size = 1

    def __init__(self, text: str) -> None:
        self.text = text

    def document(self, index: int, rng: np.random.Generator) -> Document:
        return Document((Text(self.text),))


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2': take a checkpoint of qwen3 or llama"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu': the trunk computes 'silu' only"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is 'sliding_attention'"),
        ({"use_sliding_window": True, "layer_types": None, "max_window_layers": 1}, "layer_types is"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_type is 'yarn': the trunk scales as linear"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "differ from layer to layer"),
        ({"hidden_size": None}, "config.json lacks hidden_size"),
        ({"intermediate_size": 81}, r"is \[48, 80\], and its config.json makes it \[48, 81\]"),
        ({"num_hidden_layers": 3, "layer_types": None}, "lacks 11 tensors, among them model.layers.2"),
        ({"model_type": "llama"}, "has a tensor model.layers.0.self_attn.k_norm.weight that the trunk has no place"),
    ],
)
def test_what_the_trunk_does_not_compute_is_refused_by_name(changes, message, qwen, tmp_path):
    for file in qwen.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    changed(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_files_that_are_not_there_are_named_with_what_to_do(qwen, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere has no config.json: give the folder of a checkpoint"):
        load("nowhere")
    with pytest.raises(FileNotFoundError, match="a model of the hub is called hub:someone/thing"):
        load("someone/thing")
    (tmp_path / "config.json").write_bytes((qwen / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(FileNotFoundError, match="pickles, which are never read"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((qwen / "model.safetensors").read_bytes())
    with pytest.raises(FileNotFoundError, match="no tokenizer.json: save it with AutoTokenizer"):
        load(tmp_path)


def test_an_index_that_points_out_of_its_folder_is_refused(qwen, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((qwen / name).read_bytes())
    index = {"weight_map": {"model.embed_tokens.weight": "../model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), "utf8")
    with pytest.raises(ValueError, match="lies outside the folder"):
        load(tmp_path)


def test_a_speaker_of_another_kind_is_refused(qwen):
    streams = {**small_config().streams}
    streams["text"] = replace(streams["text"], objective={"kind": "flow"})
    with pytest.raises(ValueError, match="these weights speak by text"):
        load(qwen, ModelConfig(TrunkConfig(), streams))


def test_what_is_no_model_of_ours_says_how_it_becomes_one(qwen, tmp_path, capsys):
    with pytest.raises(ValueError, match="is a qwen3 of transformers: bring it in with `mixmodal import"):
        from_pretrained(qwen)
    for arguments, message in (
        (["import", str(qwen), str(qwen)], "is there and holds something"),
        (["import", str(qwen), str(tmp_path / "x"), "--set", "steps=1"], "add --recipe NAME"),
        (["import", str(qwen), str(tmp_path / "x"), "--recipe", "scenes_too"], "did you mean scenes_two"),
    ):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


# Their ends, and what stands in the way


def test_a_text_ends_where_theirs_does_and_at_every_token_that_ends_one(tmp_path):
    written(tmp_path, *CASES["qwen3"])
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 8]}), encoding="utf8")
    model, _ = load(tmp_path)
    codec, head = model.speaker.codec, model.speaker.head
    assert codec.ends == (5, 6, 8)
    for end in (*codec.ends, codec.end):
        said = iter([9, 9, end, 9, 9, 9])
        head.draw = lambda *_, said=said: (torch.tensor([next(said)]), torch.ones(1))
        request = Request(Document((Text("a", wanted=False), Text())), Settings(max_tokens=6))
        text = generate(model, [request])[0].parts[-1].text
        assert text == codec.tokenizer.decode([9, 9])


def test_a_recipe_that_a_foreign_trunk_cannot_carry_is_refused_with_what_to_do(qwen):
    nets = {"kind": "autoencoder", "quantizer": {"kind": "lfq", "bits": 4}, "from": "recipe:tokenizer_scenes"}
    with pytest.raises(ValueError, match=r"stands on a trained net .* train the recipe .*start=OUT"):
        load(qwen, showo.model(RECIPE.model.trunk, nets=nets))
    with pytest.raises(ValueError, match="take a recipe that adds the time"):
        load(qwen, replace(small_config(), trunk=replace(small_config().trunk, adaptive=True)))
    like = small_config()
    streams = {name: replace(stream, expert=1) for name, stream in like.streams.items() if name != like.speaker}
    with pytest.raises(ValueError, match="takes expert 1, and these weights have one"):
        load(qwen, replace(like, streams={**like.streams, **streams}))


def test_what_the_speaker_of_a_recipe_says_of_its_text_is_kept(qwen):
    like = small_config()
    text = like.streams["text"]
    text = replace(text, codec={**text.codec, "tasks": True, "learned": 4})
    codec = load(qwen, replace(like, streams={**like.streams, "text": text}))[0].speaker.codec
    assert codec.tasks and codec.place.shape[0] == 4 and codec.begins((Text("a"),)) != [codec.begin]


def test_damaged_files_and_vocabularies_with_holes_are_refused(tmp_path):
    written(tmp_path, *CASES["qwen3"])
    (tmp_path / "tokenizer.json").write_text(TOKENIZER[:-100], encoding="utf8")
    with pytest.raises(ValueError, match="tokenizer.json cannot be read"):
        load(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf8"))
    scaled = {**config, "rope_scaling": {"rope_type": "linear"}, "rope_parameters": {"rope_type": "linear"}}
    (tmp_path / "config.json").write_text(json.dumps(scaled), encoding="utf8")
    with pytest.raises(ValueError, match="tells no factor"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config)[:-9], encoding="utf8")
    with pytest.raises(ValueError, match="config.json is no whole JSON"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf8")
    told = json.loads(TOKENIZER)
    last = max(told["model"]["vocab"], key=told["model"]["vocab"].get)
    told["model"]["vocab"][last] += 5
    told["model"]["merges"] = [m for m in told["model"]["merges"] if "".join(m) != last]
    (tmp_path / "tokenizer.json").write_text(json.dumps(told), encoding="utf8")
    with pytest.raises(ValueError, match="fill its holes with spare tokens first"):
        load(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read .* cut short"):
        load(tmp_path)
