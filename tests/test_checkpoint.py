"""Models and runs on disk: what is saved is what is loaded, whole files only, nothing but safetensors and JSON."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import mixed_documents, small_config, small_model
from safetensors.torch import load_file, save_file

from mixmodal.checkpoint import find_model, from_pretrained, load_run, save_pretrained, save_run, write_json
from mixmodal.config import to_json
from mixmodal.model import Model
from mixmodal.sequence import collate


def tied_model() -> Model:
    config = small_config(depth=1)
    text = replace(config.streams["text"], head={"kind": "categorical", "tied": True})
    torch.manual_seed(3)
    return Model(replace(config, streams={**config.streams, "text": text})).eval()


def losses(model: Model) -> dict[str, float]:
    sequences = [model.lay_out(d, np.random.default_rng(d.key)) for d in mixed_documents()[:3]]
    length = max(map(len, sequences))
    batch = collate(sequences, [[0], [1], [2]], length, model.blank())
    with torch.no_grad():
        return {name: float(total) for name, (total, _) in model.losses(batch).items()}


def told(model: Model) -> dict:
    """The configuration, the tokenizer as what it says, however it is set in lines."""
    config = to_json(model.config)
    codec = config["streams"]["text"]["codec"]
    codec["tokenizer"] = json.loads(codec["tokenizer"])
    return config


@pytest.mark.parametrize("make", [small_model, tied_model, lambda: small_model(codec={"ends": 4, "rank": 8})])
def test_a_saved_model_is_loaded_as_it_was(tmp_path, make):
    model = make()
    save_pretrained(model, tmp_path / "model", about={"seed": 5})
    loaded, about = from_pretrained(tmp_path / "model")
    assert about == {"seed": 5} and not loaded.training and told(loaded) == told(model)
    one, two = model.state_dict(), loaded.state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert losses(model) == losses(loaded)


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    save_pretrained(small_model(), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read .* cut short"):
        from_pretrained(tmp_path)


def test_a_model_is_a_configuration_a_tokenizer_and_tensors(tmp_path):
    model = small_model(depth=1)
    save_pretrained(model, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    config = json.loads((tmp_path / "config.json").read_text("utf8"))
    assert config["model"]["streams"]["text"]["codec"]["tokenizer"] == "@file:tokenizer.json"
    from tokenizers import Tokenizer

    saved = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert saved.get_vocab_size() == model.speaker.codec.vocabulary


def test_a_tied_table_is_stored_once_and_its_average_is_what_is_loaded(tmp_path):
    model = tied_model()
    names = {"streams.text.codec.table.weight", "streams.text.head.table"}
    save_pretrained(model, tmp_path / "plain")
    assert len(names & set(load_file(tmp_path / "plain/model.safetensors"))) == 1

    average = {name: p.detach() + 1 for name, p in model.named_parameters()}
    save_pretrained(model, tmp_path / "average", weights=average)
    assert len(names & set(load_file(tmp_path / "average/model.safetensors"))) == 1
    loaded, _ = from_pretrained(tmp_path / "average")
    table = model.speaker.codec.table.weight
    assert torch.equal(loaded.speaker.codec.table.weight, table + 1)
    assert loaded.speaker.head.table is loaded.speaker.codec.table.weight
    assert torch.equal(table, model.state_dict()["streams.text.head.table"])  # saving changes nothing


def test_half_precision_takes_half_the_room_and_loads_as_fp32(tmp_path):
    model = small_model(depth=1)
    save_pretrained(model, tmp_path / "whole")
    save_pretrained(model, tmp_path / "half", dtype=torch.bfloat16)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    loaded, _ = from_pretrained(tmp_path / "half")
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, model.state_dict()[name].bfloat16().float())


def test_a_model_is_found_in_its_folder_and_in_that_of_its_run(tmp_path):
    save_pretrained(small_model(depth=1), tmp_path / "run" / "model")
    assert find_model(tmp_path / "run") == find_model(str(tmp_path / "run" / "model")) == tmp_path / "run" / "model"
    with pytest.raises(FileNotFoundError, match="after its first checkpoint"):
        find_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="no model builtin:nothing is in the box"):
        find_model("builtin:nothing")
    with pytest.raises(FileNotFoundError):
        find_model("builtin:../../" + str(tmp_path / "run"))


# What is refused


def change(folder, **changes) -> None:
    data = json.loads((folder / "config.json").read_text("utf8"))
    (folder / "config.json").write_text(json.dumps(data | changes), "utf8")


def test_a_model_of_another_format_is_refused_clearly(tmp_path):
    save_pretrained(small_model(depth=1), tmp_path)
    change(tmp_path, format=99)
    with pytest.raises(ValueError, match="has format 99, this version reads 1"):
        from_pretrained(tmp_path)


def test_tensors_that_are_not_those_of_the_configuration_are_refused(tmp_path):
    save_pretrained(small_model(depth=1), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    lost = {name: tensor for name, tensor in tensors.items() if name != "trunk.norm.gain"}
    save_file(lost, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="missing .'trunk.norm.gain'"):
        from_pretrained(tmp_path)
    save_file(tensors | {"trunk.norm.gain": torch.ones(7)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"trunk.norm.gain has the shape \[7\], and in this version's model \[64\]"):
        from_pretrained(tmp_path)
    save_file(tensors | {"trunk.more": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="unknown .'trunk.more'"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["../secret.json", "/etc/hostname", "deeper/one.json"])
def test_an_asset_outside_the_folder_is_never_read(tmp_path, name):
    save_pretrained(small_model(depth=1), tmp_path / "model")
    (tmp_path / "secret.json").write_text("{}", "utf8")
    config = json.loads((tmp_path / "model/config.json").read_text("utf8"))
    config["model"]["streams"]["text"]["codec"]["tokenizer"] = "@file:" + name
    change(tmp_path / "model", model=config["model"])
    with pytest.raises(ValueError, match="lies outside the folder"):
        from_pretrained(tmp_path / "model")


# Runs


def saved(folder, step: int, value: float = 1.0) -> None:
    save_run(folder, step, {"weights": {"a": torch.full((2,), value)}}, {"seconds": 1.5})


def test_the_newest_whole_checkpoint_counts_and_two_are_kept(tmp_path):
    assert load_run(tmp_path) is None
    for step in (5, 10, 15):
        saved(tmp_path, step, step)
    tensors, state = load_run(tmp_path)
    assert state["step"] == 15 and state["seconds"] == 1.5 and tensors["weights"]["a"].tolist() == [15, 15]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step_00000010", "step_00000015"]
    saved(tmp_path, 15, 7)  # written again over itself
    assert load_run(tmp_path)[0]["weights"]["a"].tolist() == [7, 7]


def test_a_half_written_checkpoint_is_ignored_and_cleared_away(tmp_path):
    saved(tmp_path, 5)
    home = tmp_path / "checkpoints"
    shutil.copytree(home / "step_00000005", home / "step_00000010.part")
    (home / "step_00000010.part" / "weights.safetensors").write_bytes(b"half")
    shutil.copytree(home / "step_00000005", home / "step_00000015")
    (home / "step_00000015" / "state.json").unlink()
    assert load_run(tmp_path)[1]["step"] == 5
    saved(tmp_path, 10)
    assert load_run(tmp_path)[1]["step"] == 10 and not list(home.glob("*.part"))


def test_a_checkpoint_of_another_format_is_refused_clearly(tmp_path):
    saved(tmp_path, 5)
    state = tmp_path / "checkpoints/step_00000005/state.json"
    state.write_text(json.dumps(json.loads(state.read_text("utf8")) | {"format": 0}), "utf8")
    with pytest.raises(
        ValueError, match="has format 0, this version resumes 1 to 3: go on with the version that wrote"
    ):
        load_run(tmp_path)
    state.write_text(json.dumps(json.loads(state.read_text("utf8")) | {"format": 4}), "utf8")
    with pytest.raises(
        ValueError, match="has format 4, this version resumes 1 to 3: it was written by a later version"
    ):
        load_run(tmp_path)
    state.write_text(json.dumps({"format": 1, "step": 5}), "utf8")  # the first format did not say how long files are
    assert load_run(tmp_path)[1]["step"] == 5


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"b": object()})
    assert json.loads(path.read_text("utf8")) == {"a": 1}
    write_json(path, {"c": 2})
    assert json.loads(path.read_text("utf8")) == {"c": 2} and [p.name for p in tmp_path.iterdir()] == ["a.json"]
