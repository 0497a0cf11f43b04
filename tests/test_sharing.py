"""Models by name: fetched from the hub and pushed to it with a card. The hub here is a stub: nothing is sent."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from conftest import small_model
from test_designs import made
from tiny import RECIPE, hasten, quiet

import mixmodal
from mixmodal import hub as hub_names
from mixmodal import sharing
from mixmodal import train as training
from mixmodal.api import Loaded, load
from mixmodal.checkpoint import from_pretrained, save_pretrained, write_json
from mixmodal.cli import main
from mixmodal.config import TrunkConfig
from mixmodal.foreign import adapted
from mixmodal.sharing import card, push_to_hub, write_card

ABOUT = {
    "recipe": "tiny",
    "seed": 7,
    "steps": 12,
    "seconds": 3.5,
    "licence": "cc-by-4.0",
    "sources": {
        "mine": {"kind": "folder", "path": "pictures/of/somebody", "size": 32},
        "squares": {"kind": "squares", "of": {"kind": "emoji-noto", "where": "disk/of/somebody"}},
    },
}
SCORES = {
    "suite": "scenes",
    "n": 500,
    "seed": 0,
    "text_to_image.exact": {"value": 0.126, "low": 0.1, "high": 0.158},
    "text.bits_per_byte": 2.5,
}


@dataclass(eq=False)
class Hub:
    """What huggingface_hub is asked, remembered instead of sent."""

    folder: object = None
    asked: tuple = ()
    created: tuple = ()
    sent: dict = None
    message: str = ""

    def snapshot_download(self, name, *, revision, allow_patterns):
        self.asked = (name, revision, tuple(allow_patterns))
        if self.folder is None:
            raise ConnectionError("no network\nand much more")
        return str(self.folder)

    def create_repo(self, name, *, private, exist_ok):
        self.created = (name, private, exist_ok)
        return f"hub/{name}"

    def create_commit(self, name, operations, *, commit_message):
        assert name == self.created[0]
        self.message = commit_message
        self.sent = {
            path: content if isinstance(content, bytes) else open(content, "rb").read() for path, content in operations
        }


@pytest.fixture
def hub(monkeypatch):
    """A hub in memory in the place of the package huggingface_hub."""
    stub = Hub()
    package = SimpleNamespace(
        snapshot_download=stub.snapshot_download,
        HfApi=lambda: stub,
        CommitOperationAdd=lambda path_in_repo, path_or_fileobj: (path_in_repo, path_or_fileobj),
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    return stub


@pytest.fixture
def run(tmp_path):
    """The folder of a run with a model, scores, and what is nobody's business."""
    save_pretrained(small_model(depth=1), tmp_path / "run/model", about=ABOUT)
    write_json(tmp_path / "run/scores.json", SCORES)
    (tmp_path / "run/notes.json").write_text("{not json", "utf8")
    (tmp_path / "run/model/secret.txt").write_text("secret", "utf8")
    return tmp_path / "run"


# From the hub


def test_a_model_of_the_hub_is_loaded_by_its_name(hub, run):
    hub.folder = run
    own, about = from_pretrained(run)
    model = mixmodal.from_pretrained("hub:someone/thing@v2")
    assert hub.asked == ("someone/thing", "v2", ("*.json", "*.safetensors", "README.md")) and model.about == about
    assert all(torch.equal(t, model.model.state_dict()[name]) for name, t in own.state_dict().items())
    load("hub:someone/thing")
    assert hub.asked[:2] == ("someone/thing", None)


def test_a_hub_that_gives_nothing_says_what_to_check(hub):
    with pytest.raises(FileNotFoundError, match=r"did not give someone/thing \(no network\): check the name, the netw"):
        from_pretrained("hub:someone/thing")
    for name in ("hub:thing", "hub:a/b/c", "hub:../x", "hub:/x", "hub:a/.."):
        with pytest.raises(ValueError, match="write hub:OWNER/NAME or hub:OWNER/NAME@REVISION"):
            from_pretrained(name)
    assert hub.asked == ("someone/thing", None, hub_names.FETCHED)


def test_without_its_package_the_hub_says_what_to_install(monkeypatch, run):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for asked in (lambda: load("hub:someone/thing"), lambda: push_to_hub(run, "someone/thing")):
        with pytest.raises(ValueError, match=r"not installed: pip install 'mixmodal\[hub\]'"):
            asked()


def test_a_folder_that_is_not_there_is_never_asked_of_the_hub(hub):
    with pytest.raises(FileNotFoundError, match="a model of the hub is called hub:runs/mine"):
        load("runs/mine")
    assert hub.asked == ()


# To the hub


def test_a_pushed_model_is_whole_with_its_card_and_nothing_else(hub, run, tmp_path):
    assert push_to_hub(run, "someone/thing", private=True) == "hub/someone/thing"
    assert hub.created == ("someone/thing", True, True) and hub.message
    assert sorted(hub.sent) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert b"somebody" not in b"".join(hub.sent.values())  # the paths of one's own data stay at home
    hub.folder = tmp_path / "fetched"
    hub.folder.mkdir()
    for name, content in hub.sent.items():
        (hub.folder / name).write_bytes(content)
    own, back = from_pretrained(run)[0].state_dict(), from_pretrained("hub:someone/thing")[0].state_dict()
    assert all(torch.equal(own[name], back[name]) for name in own)
    assert not (run / "model/README.md").exists()  # pushing writes nothing here


def test_the_card_tells_the_facts_of_the_run(run):
    lines = card(run / "model", "hub:someone/thing", scores=[SCORES]).splitlines()
    assert lines[:5] == [
        "---",
        'library_name: "mixmodal"',
        'tags: ["mixmodal", "image", "text"]',
        'license: "cc-by-4.0"',
        "---",
    ]
    for line in (
        "# hub:someone/thing",
        "| recipe | tiny |",
        "| seed | 7 |",
        "| steps | 12 |",
        "| seconds | 3.5 |",
        "| licence of the weights | cc-by-4.0 |",
        "| stream patches | image by arrays + flow |",
        "| data mine | kind folder, size 32 |",
        "| text_to_image.exact | 12.6 % (10.0 to 15.8) |",
        "| text.bits_per_byte | 2.500 |",
        'model = mixmodal.load("hub:someone/thing")',
    ):
        assert line in lines, line


def test_whose_weights_they_were_and_under_which_licence_is_told_after_training_too(tmp_path, monkeypatch):
    about = {"foreign": "hub:owner/theirs", "family": "qwen3", "licence": "apache-2.0", "seed": 3}
    hasten(monkeypatch)
    training.train(replace(RECIPE, steps=1, valid={}), tmp_path / "first", say=quiet)
    save_pretrained(from_pretrained(tmp_path / "first")[0], tmp_path / "start", about=about)
    chosen = replace(RECIPE, start=str(tmp_path / "start"), steps=2, every=1, valid={})
    training.train(chosen, tmp_path / "run", say=quiet)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_00000002")  # as if it was stopped before
    training.train(chosen, tmp_path / "run", resume=True, say=quiet)
    told = from_pretrained(tmp_path / "run")[1]
    assert (told["foreign"], told["family"], told["licence"]) == ("hub:owner/theirs", "qwen3", "apache-2.0")
    written = write_card(tmp_path / "run").read_text("utf8")
    assert 'license: "apache-2.0"' in written and 'base_model: "owner/theirs"' in written and told["seed"] == 0


def test_a_model_in_memory_is_saved_and_pushed_with_a_licence_of_its_own(hub, tmp_path):
    loaded = Loaded(small_model(depth=1), {}, torch.float32)
    loaded.save_pretrained(tmp_path / "mine")
    told = (tmp_path / "mine/README.md").read_text("utf8")
    assert "# mine" in told and "not stated: ask before use" in told and "license:" not in told
    loaded.push_to_hub("someone/thing", licence="apache-2.0")
    assert 'license: "apache-2.0"' in hub.sent["README.md"].decode() and hub.created[1] is False
    assert load(tmp_path / "mine").model.config.streams.keys() == loaded.model.config.streams.keys()


def test_the_command_pushes(hub, run, capsys):
    main(["push", str(run), "someone/thing", "--licence", "mit"])
    assert capsys.readouterr().out == "hub/someone/thing\n" and "12.6 %" in hub.sent["README.md"].decode()


def test_a_name_that_cannot_be_one_and_a_base_at_home_are_refused_before_anything_is_sent(hub, run, tmp_path):
    for name in ("thing", "someone/thing@v2", "a/b/c"):
        with pytest.raises(ValueError, match="write OWNER/NAME"):
            push_to_hub(run, name)
    model = adapted(from_pretrained(run)[0], TrunkConfig(adapter_rank=2))
    loaded = Loaded(model, {}, torch.float32)
    with pytest.raises(ValueError, match="where others cannot read them"):
        loaded.push_to_hub("someone/thing", base=str(run))
    hub.folder = run
    loaded.push_to_hub("someone/thing", base="hub:someone/base")
    config = json.loads(hub.sent["config.json"])
    assert config["base"] == "hub:someone/base" and 'base_model: "someone/base"' in hub.sent["README.md"].decode()


def test_an_asset_outside_the_folder_is_never_sent(hub, run):
    path = run / "model/config.json"
    path.write_text(path.read_text("utf8").replace("@file:tokenizer.json", "@file:../scores.json"), "utf8")
    with pytest.raises(ValueError, match="lies outside the folder"):
        push_to_hub(run, "someone/thing")
    assert hub.sent is None


def test_neither_files_nor_folders_of_ones_own_are_told(hub, tmp_path):
    assert sharing._public({"mine": {"kind": "datasets", "files": ["/home/me/a"]}, "all": [{"path": "/home"}]}) == {
        "mine": {"kind": "datasets"},
        "all": [{}],
    }
    model = made("showo")
    model.config.streams["codes"].codec["nets"] = {
        **model.config.streams["codes"].codec["nets"],
        "from": "/home/somebody",
    }
    save_pretrained(model, tmp_path / "m")
    push_to_hub(tmp_path / "m", "someone/codes")
    assert b"somebody" not in hub.sent["config.json"] and b"autoencoder" in hub.sent["config.json"]
