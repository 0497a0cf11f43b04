"""Parquet and Hugging Face datasets: read by row in any order, or streamed; skipped where they are not installed."""

import json
import sys

import numpy as np
import pytest
from test_tars import png

from mixmodal.data.hub import HubPairs, HubStream
from mixmodal.data.mixing import Mixture
from mixmodal.data.parquet import ParquetPairs, stream_of
from mixmodal.data.pictures import PictureError
from mixmodal.data.report import LeftOut


def rows(count: int = 20) -> list[dict]:
    return [{"image": {"bytes": png(n), "path": None}, "caption": f"row {n}", "other": n} for n in range(count)]


def parquet(path, entries, group: int = 4) -> None:
    arrow, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(arrow.Table.from_pylist(entries), path, row_group_size=group)


def red(source, index: int) -> int:
    return int(source.pair(index)[0][0, 0, 0])


# Parquet


def test_rows_are_read_in_any_order_from_every_file(tmp_path):
    parquet(tmp_path / "a.parquet", rows(10))
    parquet(tmp_path / "b.parquet", rows(3))
    source = ParquetPairs(tmp_path, 16, held_out=0, keep_groups=1, keep=0)
    assert source.size == 13 and source.names()[10] == "b.parquet/row 0"
    for index in (9, 0, 12, 4, 9):
        assert source.pair(index)[1] == f"row {red(source, index)}" == f"row {index % 10}"
    assert ParquetPairs(tmp_path / "a.parquet", 16, held_out=0).names()[7] == "row 7"
    train, valid = (ParquetPairs(tmp_path / "a.parquet", 16, split=split, held_out=0.3) for split in ("train", "valid"))
    assert train.size + valid.size == 10 and set(train.names()).isdisjoint(valid.names())


def test_pictures_are_bytes_or_paths_that_stay_in_the_folder(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "outside.png").write_bytes(png())
    (tmp_path / "set" / "in.png").write_bytes(png(7))
    parquet(tmp_path / "set" / "plain.parquet", [{"pixels": png(3), "text": "bytes"}])
    assert red(ParquetPairs(tmp_path / "set" / "plain.parquet", 16, image="pixels", held_out=0), 0) == 3
    names = ["in.png", "../outside.png", str(tmp_path / "outside.png"), "gone.png", None]
    parquet(tmp_path / "set" / "paths.parquet", [{"image": name, "words": ["first", "second"]} for name in names])
    source = ParquetPairs(tmp_path / "set" / "paths.parquet", 16, caption="words", held_out=0, check=True)
    assert source.size == 1 and source.pair(0)[1] == "first" and red(source, 0) == 7
    assert {reason: len(names) for reason, names in source.report.items()} == {
        "path leaves the folder": 2,
        "file not found": 1,
        "no picture in the row": 1,
    }


def test_rows_that_cannot_be_used_are_counted_at_the_start_or_when_they_break(tmp_path):
    entries = rows(6)
    entries[0]["caption"], entries[1]["caption"], entries[2]["caption"] = None, " ", "x" * 500
    entries[3]["image"] = {"bytes": b"no picture", "path": None}
    parquet(tmp_path / "a.parquet", entries)
    source = ParquetPairs(tmp_path / "a.parquet", 16, held_out=0)
    expected = {"no caption": ["row 0"], "empty caption": ["row 1"], "caption over 400 characters": ["row 2"]}
    assert source.report == expected and source.size == 3
    with pytest.raises(LeftOut, match="row 3"):
        source.pair(0)
    assert source.report == {**expected, "not a picture that can be read": ["row 3"]}
    assert ParquetPairs(tmp_path / "a.parquet", 16, held_out=0, check=True).size == 2


def test_files_without_the_columns_or_broken_ones_say_what_is_there(tmp_path):
    parquet(tmp_path / "a.parquet", [{"pixels": b"", "words": "w"}])
    with pytest.raises(ValueError, match="no column 'image' but pixels, words: name the two by image= and caption="):
        ParquetPairs(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(ValueError, match="1 left out, parquet file cannot be read"):
        ParquetPairs(tmp_path / "a.parquet")
    with pytest.raises(FileNotFoundError, match="no parquet file at"):
        ParquetPairs(tmp_path / "none.parquet")


def test_a_row_group_that_would_fill_the_memory_is_left_out(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).bytes(500)
    entries = rows(2) + [{"image": {"bytes": noise, "path": None}, "caption": "large", "other": 0}] * 2
    parquet(tmp_path / "a.parquet", entries, group=2)
    monkeypatch.setattr("mixmodal.data.parquet.MOST_GROUP", 700)
    source = ParquetPairs(tmp_path / "a.parquet", 16, held_out=0)
    assert source.size == 2 and source.report == {"row group over 0.0006676 MB": ["row group 1"]}


def test_a_cell_is_bytes_a_struct_or_a_path(tmp_path):
    (tmp_path / "a.png").write_bytes(b"in file")
    for value in (b"in file", {"bytes": b"in file"}, "a.png", {"bytes": None, "path": "a.png"}):
        with stream_of(value, tmp_path) as stream:
            assert stream.read() == b"in file"
    for value in (None, {}, "", 7):
        with pytest.raises(PictureError, match="no picture in the row"):
            stream_of(value, tmp_path)


@pytest.mark.parametrize("module, made", [("pyarrow.parquet", ParquetPairs), ("datasets", HubPairs)])
def test_what_is_not_installed_is_named_with_how_to_get_it(tmp_path, monkeypatch, module, made):
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'mixmodal\[data\]'"):
        made(tmp_path / "a.parquet")


# Hugging Face datasets


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a data set of 20 rows with a real Image column, written by save_to_disk."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("hub") / "set"
    made = datasets.Dataset.from_list(rows()).cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": made, "test": made.select(range(3))}).save_to_disk(folder)
    return folder


def test_a_saved_data_set_is_read_in_any_order(saved):
    source = HubPairs(saved, 16, held_out=0)
    assert (source.name, source.size, source.report) == ("set", 20, {})
    for index in (19, 0, 7):
        assert source.pair(index)[1] == f"row {red(source, index)}" == f"row {index}"
    assert HubPairs(saved, 16, part="test", held_out=0).size == 3
    train, valid = (HubPairs(saved, 16, split=split, held_out=0.3) for split in ("train", "valid"))
    assert train.size + valid.size == 20 and set(train.names()).isdisjoint(valid.names())
    with pytest.raises(ValueError, match="no part 'validation': its parts are train, test"):
        HubPairs(saved, part="validation")
    with pytest.raises(ValueError, match="no column 'words', only image, caption, other"):
        HubPairs(saved, caption="words")


def test_a_format_with_files_is_loaded_or_streamed_alike(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    parquet(tmp_path / "a.parquet", rows(8))
    files = {"train": str(tmp_path / "a.parquet")}
    options = {"files": files, "held_out": 0.0, "name": "mine"}
    table, stream = HubPairs("parquet", 16, **options), HubStream("parquet", 16, **options)
    assert table.size == 8 and stream.size is None and table.name == stream.name == "mine"
    for index in range(8):
        assert np.array_equal(table.pair(index)[0], stream.pair(index)[0])
        assert table.pair(index)[1] == stream.pair(index)[1] == f"row {index}"


def test_a_folder_of_pictures_stays_in_its_folder(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png(number))
    lines = [json.dumps({"file_name": f"{number}.png", "text": f"row {number}"}) for number in range(3)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    source = HubPairs(folder, 16, held_out=0)
    assert sorted(source.pair(n)[1] for n in range(3)) == ["row 0", "row 1", "row 2"]
    assert all(source.pair(n)[1] == f"row {red(source, n)}" for n in range(3))


def test_a_stream_counts_what_can_be_used_and_goes_round(saved, tmp_path):
    stream = HubStream(saved, 16)
    assert [red(stream, n) for n in (0, 1, 5, 19, 20, 41)] == [0, 1, 5, 19, 0, 1]
    assert [red(stream, n) for n in (41, 3, 30)] == [1, 3, 10]  # a resumed run asks for what is long past
    train, valid = (HubStream(saved, 16, split=split, held_out=0.4) for split in ("train", "valid"))
    seen = [{source.pair(n)[1] for n in range(25)} for source in (train, valid)]
    assert seen[0].isdisjoint(seen[1]) and len(seen[0] | seen[1]) == 20
    mixed = HubStream(saved, 16, shuffle=8)
    rounds = [[mixed.pair(n)[1] for n in range(start, start + 20)] for start in (0, 20)]
    assert sorted(rounds[0]) == sorted(rounds[1]) and rounds[0] != rounds[1]
    again = HubStream(saved, 16, shuffle=8)
    assert [again.pair(n)[1] for n in range(40)] == rounds[0] + rounds[1]


def test_a_stream_leaves_out_with_a_reason_and_doubles_nothing(tmp_path):
    datasets = pytest.importorskip("datasets")
    entries = rows(8)
    entries[1]["image"] = {"bytes": b"no picture", "path": None}
    entries[2]["caption"], entries[3]["caption"], entries[4]["caption"] = None, "", "x" * 500
    made = datasets.Dataset.from_list(entries).cast_column("image", datasets.Image())
    made.save_to_disk(tmp_path / "set")
    stream = HubStream(tmp_path / "set", 16)
    assert [red(stream, n) for n in range(8)] == [0, 5, 6, 7] * 2
    expected = {
        "not a picture that can be read": ["row 1"],
        "no caption": ["row 2"],
        "empty caption": ["row 3"],
        "caption over 400 characters": ["row 4"],
    }
    assert red(stream, 0) == 0 and red(stream, 3) == 7 and stream.report == expected
    none = HubStream(tmp_path / "set", 16, most_pixels=10)
    with pytest.raises(ValueError, match="no row of set can be used"):
        none.pair(0)


def test_a_stream_that_breaks_ends_its_round_there_with_a_reason(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name, first in (("a", 0), ("b", 4)):
        parquet(tmp_path / f"{name}.parquet", rows(8)[first : first + 4])
    (tmp_path / "b.parquet").write_bytes((tmp_path / "b.parquet").read_bytes()[:-40])
    files = {"train": [str(tmp_path / f"{name}.parquet") for name in ("a", "b")]}
    stream = HubStream("parquet", 16, files=files, held_out=0.0, name="mine")
    assert [red(stream, n) for n in range(10)] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    (reason,) = stream.report
    assert reason.startswith("the rows behind cannot be read") and stream.report[reason] == ["row 4"]

    def gone(rows):
        yield from rows[:2]
        raise ConnectionError("no route")

    stream._table.rows = gone([{"image": {"bytes": png(n), "path": None}, "caption": "x"} for n in range(3)])
    stream._restart()
    with pytest.raises(OSError, match=r"mine cannot be read behind row 1 \(no route\): go on with --resume"):
        stream.pair(2)


def test_documents_of_a_stream_are_the_same_whoever_makes_them(saved):
    alone, *workers = (Mixture([(HubStream(saved, 16), 1)], seed=1) for _ in range(3))
    draws = [alone.draw() for _ in range(40)]
    parts = [[worker.document(draw) for draw in draws[n::2]] for n, worker in enumerate(workers)]
    got = sorted((document.about for part in parts for document in part), key=lambda about: about["draw"])
    assert got == [alone.document(draw).about for draw in draws]
