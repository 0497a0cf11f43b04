"""What real folders, archives and disks hold besides what they should: no crash, no hang, nothing lost in silence."""

from __future__ import annotations

import io
import json
import os
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import small_model
from PIL import Image as Pillow
from test_folders import encoded, filled, halves
from test_interleaved import filled as documents_filled
from test_interleaved import story
from test_loading import loader
from test_tars import archive, png, shard
from tiny import own_pictures

from mixmodal.data import fetching
from mixmodal.data.ahead import _begin, _news, _own
from mixmodal.data.checking import check
from mixmodal.data.fetching import Archive, FetchError, unpacked
from mixmodal.data.folders import PairLines, PictureFolder, PictureShards
from mixmodal.data.interleaved import Interleaved
from mixmodal.data.opening import kind_of
from mixmodal.data.packing import pack
from mixmodal.data.pairs import names_of
from mixmodal.data.parted import Parted
from mixmodal.data.pictures import decode
from mixmodal.data.prose import TextFile
from mixmodal.data.report import LeftOut, NothingLeft, Report
from mixmodal.data.squares import Squares

# Pictures


@pytest.mark.parametrize(("width", "height", "wish"), [(29, 40, {"size": 28}), (1295, 963, {"size": 64, "patch": 8})])
def test_no_picture_is_cropped_beyond_its_edge_by_a_rounding(width, height, wish):
    assert decode(io.BytesIO(encoded(halves(width, height))), **wish).shape[2] == 3


def test_a_link_laid_out_of_the_folder_since_the_start_is_not_followed(tmp_path):
    (tmp_path / "own").mkdir()
    filled(tmp_path / "own", 3)
    (tmp_path / "secret.png").write_bytes(png())
    source = PictureFolder(tmp_path / "own", 16, held_out=0)
    (tmp_path / "own" / "001.png").unlink()
    (tmp_path / "own" / "001.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(LeftOut):
        source.pair(source.names().index("001.png"))
    assert source.report["path leaves the folder"] == ["001.png"]


def test_a_picture_as_large_as_was_asked_for_can_be_checked(tmp_path):
    filled(tmp_path, 3)
    assert check(tmp_path, most_pixels=256).good == {"all": 3}
    with pytest.raises(ValueError, match="too many pixels"):
        check(tmp_path, most_pixels=255)
    Pillow.new("1", (10_000, 6_000)).save(tmp_path / "vast.png")
    (tmp_path / "vast.txt").write_text("vast")
    assert check(tmp_path, most_pixels=70_000_000).good == {"all": 4}


# Parts of other sources


def test_a_part_of_a_source_of_which_nothing_can_be_read_ends(tmp_path):
    filled(tmp_path, 20)
    source = Parted({"kind": "folder", "path": str(tmp_path), "size": 16, "held_out": 0.0})
    rng = np.random.default_rng(0)
    assert source.texts(0, np.random.default_rng(0)) == ["picture 0"] and source.document(0, rng)
    for file in tmp_path.glob("*.png"):
        file.write_bytes(file.read_bytes()[:-40])
    broken = Parted({"kind": "folder", "path": str(tmp_path), "size": 16, "held_out": 0.0})
    for index in range(broken.size - 1):
        with pytest.raises(LeftOut):
            broken.document(index, rng)
    with pytest.raises(NothingLeft, match="can be read"):
        broken.document(broken.size - 1, rng)


def test_squares_tell_what_their_source_left_out(tmp_path):
    filled(tmp_path, 4)
    (tmp_path / "001.txt").unlink()
    assert Squares({"kind": "folder", "path": str(tmp_path), "size": 16}).report == {"no caption": ["001.png"]}


# Packing


def test_lines_with_whole_paths_pack_under_names_within_the_folder(tmp_path):
    (tmp_path / "own").mkdir()
    filled(tmp_path / "own", 4)
    names = [str(tmp_path / "own" / "000.png"), "001.png", f"../own/{'002.png'}", "003.png"]
    lines = [json.dumps({"image": name, "caption": f"picture {number}"}) for number, name in enumerate(names)]
    (tmp_path / "own" / "own.jsonl").write_text("\n".join(lines))
    source = PairLines(tmp_path / "own" / "own.jsonl", 16, held_out=0)
    assert source.names() == ["000.png", "001.png", "002.png", "003.png"]
    pack(source, tmp_path / "out")
    assert PictureShards(tmp_path / "out", 16, held_out=0).size == 4


def test_texts_on_lines_of_their_own_stay_there_when_packed(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.png").write_bytes(png())
    parts = [{"text": "# Title"}, {"text": "First paragraph."}, {"image": "a.png"}, {"text": "More."}, {"text": "End."}]
    (tmp_path / "own" / "own.jsonl").write_text(json.dumps({"parts": parts}))
    before = Interleaved(tmp_path / "own" / "own.jsonl", 16, held_out=0)
    pack(before, tmp_path / "out")
    texts = [source.texts(0, None) for source in (before, Interleaved(tmp_path / "out", 16, held_out=0))]
    assert texts == [["# Title\nFirst paragraph.", "More.\nEnd."]] * 2


# Archives and folders


def test_what_is_called_an_archive_and_is_none_is_told_and_waited_for_by_nobody(tmp_path):
    shard(tmp_path / "a.tar", 6)
    os.mkfifo(tmp_path / "b.tar")
    (tmp_path / "c.tar").mkdir()
    (tmp_path / "d.tar").symlink_to(tmp_path / "nowhere")
    source = PictureShards(tmp_path, 16, held_out=0)
    assert source.size == 6
    assert source.report == {"no plain file": ["b.tar", "c.tar"], "file not found": ["d.tar"]}


def test_archives_put_behind_each_other_are_told(tmp_path):
    for number in range(2):
        shard(tmp_path / f"{number}.tar", 3, 10 * number)
    joined = tmp_path / "joined"
    joined.mkdir()
    (joined / "all.tar").write_bytes(b"".join((tmp_path / f"{n}.tar").read_bytes() for n in range(2)))
    source = PictureShards(joined, 16, held_out=0)
    assert source.size == 3 and source.report == {"archive goes on behind its end": ["all.tar"]}


def test_an_archive_among_pictures_does_not_hide_them_nor_pictures_among_archives(tmp_path):
    for name, count, archives in (("pictures", 5, 1), ("archives", 1, 2)):
        (tmp_path / name).mkdir()
        filled(tmp_path / name, count)
        for number in range(archives):
            shard(tmp_path / name / f"{number}.tar", 3, 10 * number)
    assert kind_of(tmp_path / "pictures") == "folder" and kind_of(tmp_path / "archives") == "shards"
    assert PictureFolder(tmp_path / "pictures", 16).report == {"ending of no picture": ["0.tar"]}
    assert PictureShards(tmp_path / "archives", 16).report == {"picture beside the archives": ["000.png"]}


def test_a_second_record_of_the_same_name_is_told(tmp_path):
    records = [json.dumps({"parts": [{"text": text}]}).encode() for text in ("first", "second")]
    archive(tmp_path / "a.tar", [("a.json", record) for record in records])
    source = Interleaved(tmp_path / "a.tar", 16, held_out=0)
    assert source.texts(0, None) == ["first"] and source.report == {"second file of the same name": ["a.tar/a.json"]}


def test_a_document_longer_than_a_caption_is_known_for_one(tmp_path):
    (tmp_path / "own").mkdir()
    documents_filled(tmp_path / "own", [story(0, 3)])
    record = json.loads((tmp_path / "own" / "own.jsonl").read_text().splitlines()[0])
    record["parts"].append({"text": "word " * 300_000})
    (tmp_path / "own" / "own.jsonl").write_text(json.dumps(record))
    assert kind_of(tmp_path / "own" / "own.jsonl") == "interleaved"


def test_a_lone_paragraph_is_trained_on(tmp_path):
    assert all(names_of("train", [name]) == {name} and not names_of("valid", [name]) for name in map(str, range(200)))
    (tmp_path / "a.txt").write_text("Hi.")
    assert TextFile(tmp_path / "a.txt").size == 1
    with pytest.raises(ValueError, match="no paragraph for this split"):
        TextFile(tmp_path / "a.txt", split="valid")


# Fetching


def test_a_damaged_archive_is_fetched_again_and_a_good_one_survives_a_full_disk(tmp_path, monkeypatch):
    content = io.BytesIO()
    archive(tmp_path / "a.tar", [("r/keep/a.png", os.urandom(40_000))])
    packer = zlib.compressobj(wbits=31)
    content = packer.compress((tmp_path / "a.tar").read_bytes()) + packer.flush()
    given = {"content": content}
    monkeypatch.setattr(fetching, "download", lambda url, to, most: to.exists() or to.write_bytes(given["content"]))
    told = Archive("o/n@1", ("keep/",), "x", 2**20)
    file = tmp_path / "o_n@1.tar.gz"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fetching.shutil, "copyfileobj", full)
        with pytest.raises(FetchError, match="No space left"):
            unpacked(told, tmp_path)
    assert file.read_bytes() == content
    for at in range(40, 200, 10):
        file.unlink(missing_ok=True)
        given["content"] = content[:at] + bytes(20) + content[at + 20 :]
        with pytest.raises(FetchError):
            unpacked(told, tmp_path)
        assert not file.exists()


# Workers


def test_what_nobody_took_of_a_worker_is_told_all_the_same(tmp_path):
    home = own_pictures(tmp_path / "own", 60)
    names = PictureFolder(home, 16, held_out=0).names()
    for name in names[::4]:
        (home / name).write_bytes((home / name).read_bytes()[:-40])
    counts = []
    for workers in (0, 2):
        source = PictureFolder(home, 16, held_out=0, name="own")
        made = loader(small_model(depth=1), source, specs={"own": {}}, workers=workers)
        try:
            for step in range(12):
                made.next(step / 12, (step + 1) / 12)
        finally:
            made.close()
        made.left_out()
        counts.append((made.broken["own"], source.report.total()))
    (_, alone), (broken, helped) = counts
    assert alone <= helped <= len(names[::4]) and broken


def test_a_worker_tells_nothing_that_was_told_before_it_began(monkeypatch):
    report = Report()
    report.add("broken", "a")
    monkeypatch.setattr("mixmodal.data.ahead.signal.signal", lambda *_: None)
    monkeypatch.setattr("mixmodal.data.ahead.threading", SimpleNamespace(Thread=lambda **_: SimpleNamespace(start=int)))
    monkeypatch.setattr("mixmodal.data.ahead.torch", SimpleNamespace(set_num_threads=lambda count: None))
    _begin(None, [SimpleNamespace(name="own", report=report)], 0)
    report.add("broken", "b")
    assert _news("own", report) == {"broken": ["b"]} and not _news("own", report)
    _own.clear()
