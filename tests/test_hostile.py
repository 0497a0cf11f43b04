"""Damaged, odd and hostile files: none of them stops a reader, goes silently, or comes twice."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from importlib.util import find_spec

import hostile
import numpy as np
import pytest
from conftest import small_model
from tiny import RECIPE, hasten, own_pictures

from mixmodal.data.folders import PictureFolder
from mixmodal.data.opening import kind_of
from mixmodal.data.prose import TextFile, TextFolder, pieces
from mixmodal.data.report import MOST_NAMES, Report, shown
from mixmodal.data.tars import members
from mixmodal.doctor import of_run
from mixmodal.train import read_metrics, train

if sys.platform == "win32":
    pytest.skip("it makes pipes and links, and waits with an alarm", allow_module_level=True)


@pytest.fixture(autouse=True)
def in_time():
    """A reader that hangs is a failure."""
    signal.alarm(120)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_files_hold_they_are_read_or_left_out_with_a_reason(tmp_path, seed):
    cases = hostile.make(tmp_path, 75, seed, heavy=False, tables=find_spec("pyarrow") is not None)
    assert sum(case.files for case in cases) == 75
    wrong = {case.path.name: found for case in cases if (found := hostile.looked_at(case)[2])}
    assert not wrong


def test_words_that_look_like_commands_are_learned_as_words(tmp_path):
    picture = hostile.encoded(hostile.good(hostile.random.Random(0)).resize((16, 16)), "PNG")
    for number, caption in enumerate(hostile.STRANGE):
        (tmp_path / f"{number}.png").write_bytes(picture)
        (tmp_path / f"{number}.txt").write_text(caption, "utf-8")
    model, source = small_model(), PictureFolder(tmp_path, 16, {"describe": 1}, held_out=0)
    read = model.speaker.codec
    for index in range(source.size):
        document = source.document(index, np.random.default_rng(0))
        grid = read.encode(document.parts[-1])
        assert read.decode(grid.values, grid, document.parts[-1]).text == document.parts[-1].text
        assert len(model.lay_out(document, np.random.default_rng(0), 0.0)) > 4
    assert source.size == len(hostile.STRANGE)


def test_a_training_tells_what_it_left_out_and_so_does_the_doctor(tmp_path, monkeypatch):
    folder = own_pictures(tmp_path / "own", 9)
    (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:-200])
    (folder / "scan.tif").write_bytes(b"II*")
    source = {"kind": "folder", "path": str(folder), "size": 16, "held_out": 0.0}
    hasten(monkeypatch)
    said: list[str] = []
    chosen = replace(RECIPE, sources={"own": source}, valid={}, steps=6, every=3)
    train(chosen, tmp_path / "run", say=said.append)
    told = [line for line in said if line.startswith("own: ")]
    assert told == [
        "own: 1 left out, broken while decoding: 4.png",
        "own: 1 left out, ending of no picture: scan.tif",
    ]
    last = read_metrics(tmp_path / "run")[-1]
    assert last["broken_so_far"] >= 1
    found = [finding for finding in of_run(tmp_path / "run") if finding.what == "left out"]
    assert [finding.told.split(":")[0] for finding in found] == [f"{last['broken_so_far']} of own"]


def test_a_header_that_leads_back_or_fills_the_memory_ends_its_archive(tmp_path):
    for seed in range(300):
        rng, path = hostile.random.Random(seed), tmp_path / f"{seed}.tar"
        sound = hostile.archives(tmp_path / "of", rng, 0, False).path.read_bytes()
        path.write_bytes(hostile.damaged_archive(rng, sound or bytes(1024)))
        report = Report()
        assert len(list(members(path, report))) < 100 and report.total() < 100


def test_a_text_without_end_is_cut_in_time_and_large_or_binary_ones_are_refused(tmp_path):
    assert sum(map(len, pieces("x" * 20_000_000, 400))) == 20_000_000
    assert list(pieces("ab cd  ef " * 3, 6)) == ["ab cd ", "ef ab", "cd  ef", "ab cd ", "ef "]
    (tmp_path / "a.txt").write_text("Some words of English.\n\n" * 9)
    with pytest.raises(ValueError, match="held in memory: split it into a folder"):
        TextFile(tmp_path / "a.txt", most_bytes=100)
    (tmp_path / "b.txt").write_bytes(b"Some words\0")
    with pytest.raises(ValueError, match="holds control characters"):
        TextFile(tmp_path / "b.txt")
    hostile.os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "data.csv").write_text("a,b")
    source = TextFolder(tmp_path, held_out=0)
    assert dict(source.report) == {
        "file holds control characters": ["b.txt"],
        "ending of no text": ["data.csv"],
        "no plain file": ["pipe.txt"],
    }
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        kind_of(tmp_path / "pipe.txt")


def test_names_without_number_are_counted_and_any_name_can_be_shown(monkeypatch):
    monkeypatch.setattr("mixmodal.data.report.MOST_NAMES", 3)
    report, other = Report(), Report()
    for number in range(5):
        report.add("bad", f"line {number}")
    other.add("bad", "line 0")
    other.take(report)
    assert MOST_NAMES > 3 and (report.count("bad"), report.total(), len(report["bad"])) == (5, 5, 3)
    assert other.count("bad") == 5 and report.lines() == ["5 left out, bad: line 0, line 1, line 2, ..."]
    assert shown("a\x1b[1m\n\udcffé") == "a\\x1b[1m\\n\\udcffé" and len(shown("x" * 9999)) < 200
