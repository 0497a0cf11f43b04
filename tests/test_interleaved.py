"""Documents of text and pictures in order: read from lines and from archives, cut into windows that lose nothing."""

import json

import numpy as np
import pytest
from test_tars import archive, png

from mixmodal.data.interleaved import Interleaved, parts_of, windows

RNG = np.random.default_rng(0)


def shown(document) -> list:
    """Texts as they are, pictures as the red of their first pixel."""
    return [part.text if part.medium == "text" else int(part.pixels[0, 0, 0]) for part in document.parts]


def story(number: int, pictures: int = 2) -> dict:
    parts = [{"text": f"Story {number} begins."}]
    for n in range(pictures):
        parts += [{"image": f"{n}.png"}, {"text": f"Below picture {n}."}]
    return {"id": f"story {number}", "parts": parts}


def filled(path, lines) -> None:
    for number in range(6):
        (path / f"{number}.png").write_bytes(png(number))
    (path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")


def test_lines_give_text_and_pictures_in_reading_order(tmp_path):
    segments = {"segments": [{"image": "2.png"}, {"caption": "two"}, {"text": " more\n text "}]}
    lists = {"texts": [None, "between", None], "images": ["3.png", None, "4.png"]}
    filled(tmp_path, [story(0), segments, lists])
    source = Interleaved(tmp_path / "own.jsonl", 16, held_out=0)
    assert (source.name, source.size, source.documents) == ("own", 3, 3)
    assert [shown(source.document(n, RNG)) for n in range(3)] == [
        ["Story 0 begins.", 0, "Below picture 0.", 1, "Below picture 1."],
        [2, "two\nmore text"],
        [3, "between", 4],
    ]
    assert source.document(0, RNG).about == {"document": "story 0"} and source.names()[1] == "line 2"
    assert source.report == {}


def test_pictures_are_drawn_or_only_read_by_their_shares(tmp_path):
    filled(tmp_path, [story(0, 3)])
    for tasks, wanted in (({"draw": 1}, {True}), ({"describe": 1}, {False}), (None, {True, False})):
        source = Interleaved(tmp_path / "own.jsonl", 16, tasks, held_out=0)
        drawn = [source.document(0, np.random.default_rng(seed)).parts for seed in range(10)]
        assert {part.wanted for parts in drawn for part in parts if part.medium == "image"} == wanted


def test_archives_hold_a_record_and_its_pictures_for_each_document(tmp_path):
    (tmp_path / "two").mkdir()
    for name, first in (("a.tar", 0), ("b.tar", 2)):
        files = []
        for number in (first, first + 1):
            parts = [{"image": f"{number}.0.png"}, {"text": f"words {number}"}, {"image": f"./{number}.1.png"}]
            files.append((f"books/{number}.json", json.dumps({"parts": parts}).encode()))
            files += [(f"books/{number}.{n}.png", png(10 * number + n)) for n in range(2)]
        archive(tmp_path / "two" / name, files)
    source = Interleaved(tmp_path / "two", 16, held_out=0)
    assert [shown(source.document(n, RNG)) for n in range(4)] == [[10 * n, f"words {n}", 10 * n + 1] for n in range(4)]
    assert source.names()[0] == "books/0"


def test_what_cannot_be_used_is_left_out_of_its_document_with_a_reason(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "outside.png").write_bytes(png())
    names = ["0.png", "gone.png", "../outside.png", "broken.png", "half.png", "large.png", "a\0b", 7]
    parts = [{"text": "kept"}, *({"image": name} for name in names), {"text": "\ud800"}, {"sound": "x"}, "no part"]
    lines = [{"parts": parts}, {"parts": []}, {"texts": ["t"]}, ["no", "document"], {"parts": [{"text": " "}]}]
    filled(tmp_path / "set", lines)
    (tmp_path / "set" / "broken.png").write_bytes(b"no")
    (tmp_path / "set" / "half.png").write_bytes(png(0, 64)[:-40])
    (tmp_path / "set" / "large.png").write_bytes(png(0, 300))
    source = Interleaved(tmp_path / "set" / "own.jsonl", 16, held_out=0, most_pixels=80_000)
    assert source.size == 1
    assert {reason: len(names) for reason, names in source.report.items()} == {
        "file not found": 3,
        "path leaves the folder": 1,
        "not a picture that can be read": 1,
        "too many pixels": 1,
        "text is not UTF-8 text": 1,
        "part that is neither text nor picture": 2,
        "document without parts": 4,
    }
    assert shown(source.document(0, RNG)) == ["kept", 0]
    assert source.report["broken while decoding"] == ["line 1 half.png"]
    checked = Interleaved(tmp_path / "set" / "own.jsonl", 16, held_out=0, most_pixels=80_000, check=True)
    assert checked.report["broken while decoding"] == ["line 1 half.png"]


def test_an_archive_cannot_name_what_lies_outside_it(tmp_path):
    (tmp_path / "outside.png").write_bytes(png())
    record = {"parts": [{"text": "t"}, {"image": "../outside.png"}, {"image": str(tmp_path / "outside.png")}]}
    archive(tmp_path / "a.tar", [("1.json", json.dumps(record).encode()), ("2.json", b"{broken")])
    source = Interleaved(tmp_path / "a.tar", 16, held_out=0)
    assert shown(source.document(0, RNG)) == ["t"]
    assert source.report == {
        "path leaves the archive": ["a.tar/1.json ../outside.png", f"a.tar/1.json {tmp_path / 'outside.png'}"],
        "record is not JSON in UTF-8": ["a.tar/2.json"],
    }


def test_windows_hold_what_they_may_and_lose_nothing():
    rng = np.random.default_rng(3)
    for _ in range(100):
        items = []
        for number in range(int(rng.integers(1, 30))):
            words = " ".join(f"word{n}." for n in range(int(rng.integers(1, 20))))
            items.append((f"p{number}", None) if rng.random() < 0.4 else words)
        longest, pictures = int(rng.integers(10, 200)), int(rng.integers(1, 4))
        cut = list(windows(items, longest, pictures))
        for window in cut:
            assert window and sum(len(part) for part in window if isinstance(part, str)) <= longest
            assert sum(not isinstance(part, str) for part in window) <= pictures
        flat = [part for window in cut for part in window]
        assert [p for p in flat if not isinstance(p, str)] == [p for p in items if not isinstance(p, str)]
        assert (
            " ".join(p for p in flat if isinstance(p, str)).split()
            == " ".join(p for p in items if isinstance(p, str)).split()
        )


def test_a_picture_moves_on_with_the_text_behind_it():
    assert list(windows(["a" * 8, ("p", None), "b" * 8], 10, 4)) == [["a" * 8], [("p", None), "b" * 8]]
    assert list(windows([("p", None), ("q", None), "b"], 10, 1)) == [[("p", None)], [("q", None), "b"]]
    assert list(windows(["a", ("p", None), "b"], 10, 0)) == [["a\nb"]]


def test_all_windows_of_a_document_are_in_one_split(tmp_path):
    filled(tmp_path, [story(number, 4) for number in range(60)])
    train, valid = (Interleaved(tmp_path / "own.jsonl", 16, split=s, pictures=1) for s in ("train", "heldout"))
    assert set(train.names()).isdisjoint(valid.names()) and train.documents + valid.documents == 60
    assert train.size == 4 * train.documents and valid.size == 4 * valid.documents
    pictured = Interleaved(tmp_path / "own.jsonl", 16, longest=16, pictured=True, held_out=0)
    assert all(any(p.medium == "image" for p in pictured.document(n, RNG).parts) for n in range(pictured.size))


def test_a_source_without_a_document_says_what_one_looks_like(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file at"):
        Interleaved(tmp_path / "own.jsonl")
    (tmp_path / "own.jsonl").write_text('{"caption": "x"}\n{nonsense')
    with pytest.raises(ValueError, match=r"1 left out, document without parts: line 1.*one is \{\"parts\""):
        Interleaved(tmp_path / "own.jsonl")
    filled(tmp_path, [story(0)])
    with pytest.raises(ValueError, match="no document for split 'valid' among 1"):
        Interleaved(tmp_path / "own.jsonl", split="valid")
    with pytest.raises(ValueError, match="a window wants"):
        Interleaved(tmp_path / "own.jsonl", longest=0)


def test_a_line_without_end_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr("mixmodal.data.interleaved.MOST_RECORD", 500)
    filled(tmp_path, [{"parts": [{"text": "x" * 2000}]}, story(1, 1)])
    source = Interleaved(tmp_path / "own.jsonl", 16, held_out=0)
    assert source.names() == ["story 1"] and source.report == {"line over 500 bytes": ["line 1"]}


def test_parts_that_are_neither_text_nor_picture_are_told(tmp_path):
    odd = {"parts": [{"text": True}, {"image": None}, {"image": 3}, 4]}
    assert list(parts_of(odd)) == [
        ("neither", "part 0"),
        ("neither", "part 1"),
        ("image", "3"),
        ("neither", "part 3"),
    ]
    assert list(parts_of({"parts": "text"})) == [] == list(parts_of({}))
    longer = {"texts": ["a", None, "b"], "images": [None]}
    assert list(parts_of(longer)) == [("text", "a"), ("neither", "part 1"), ("text", "b")]
    filled(tmp_path, [{"parts": [{"text": "a"}, 4]}])
    source = Interleaved(tmp_path / "own.jsonl", 16, held_out=0)
    assert source.report == {"part that is neither text nor picture": ["line 1 part 1"]}
