"""The named sets beyond the first two: made up in small, and as they are where they are at hand."""

import json

import numpy as np
import pytest
from test_named import have
from test_tars import archive, png

from mixmodal.data.figures import OpenstaxDocuments, OpenstaxFigures
from mixmodal.data.named import NAMED, data_folder, named
from mixmodal.data.numerals import Mnist20k, SignDigits
from mixmodal.data.photographs import Kodak24, PhotosMisc
from mixmodal.data.prose import TextFolder, TinyShakespeare

RNG = np.random.default_rng(0)


def lines(path, entries) -> None:
    path.write_text("\n".join(map(json.dumps, entries)), "utf-8")


def books(home) -> None:
    """A folder with the layout of openstax-figures: six figures, and three modules in two splits."""
    (home / "openstax-figures").mkdir()
    archive(home / "openstax-figures" / "images256.tar", [(f"{n:05}.jpg", png(n)) for n in range(6)])
    figures = [
        {
            "i": n,
            "file": f"{n:05}.jpg",
            "alt_short": f"Model “{n}”",
            "alt": f"Model {n}. It is red.",
            "caption": f"Below {n}" if n else "",
            "kind": "photo" if n % 2 else "diagram",
            "split": "val" if n == 5 else "train",
        }
        for n in range(6)
    ]
    lines(home / "openstax-figures" / "captions.jsonl", figures)
    modules = [
        {
            "id": f"book/m{n}",
            "split": "val" if n == 2 else "train",
            "segments": [{"text": f"# Part {n}"}, {"image": 2 * n}, {"caption": "It’s red."}, {"image": 2 * n + 1}],
        }
        for n in range(3)
    ]
    lines(home / "openstax-figures" / "interleaved.jsonl", modules)


def test_figures_are_described_by_what_is_asked_for_and_split_by_their_records(tmp_path):
    books(tmp_path)
    source = OpenstaxFigures(16, where=tmp_path)
    assert [source.pair(n)[1] for n in range(source.size)] == [f'Model "{n}"' for n in range(5)]
    assert source.pair(3)[0][0, 0].tolist() == [3, 0, 252] and source.record(3)["kind"] == "photo"
    assert OpenstaxFigures(16, split="heldout", where=tmp_path).pair(0)[1] == 'Model "5"'
    photos = OpenstaxFigures(16, kinds=["photo"], says="alt", where=tmp_path)
    assert [photos.pair(n)[1] for n in range(photos.size)] == ["Model 1. It is red.", "Model 3. It is red."]
    below = OpenstaxFigures(16, says="caption", where=tmp_path)
    assert below.size == 4 and below.report == {"empty caption": ["openstax-figures/00000.jpg"]}
    with pytest.raises(ValueError, match="says is one of alt_short, alt, caption, got 'title'"):
        OpenstaxFigures(says="title", where=tmp_path)
    with pytest.raises(ValueError, match="kinds of openstax-figures are photo"):
        OpenstaxFigures(kinds=["drawing"], where=tmp_path)


def test_modules_are_text_and_figures_in_order(tmp_path):
    books(tmp_path)
    source = OpenstaxDocuments(16, where=tmp_path)
    assert source.names() == ["book/m0", "book/m1"] and source.report == {}
    parts = source.document(1, RNG).parts
    assert [part.text if part.medium == "text" else int(part.pixels[0, 0, 0]) for part in parts] == [
        "# Part 1",
        2,
        "It's red.",
        3,
    ]
    assert OpenstaxDocuments(16, split="valid", where=tmp_path).names() == ["book/m2"]
    assert OpenstaxDocuments(16, where=tmp_path, pictures=1).size == 4


def test_an_archive_that_lacks_pictures_is_not_taken_for_the_set(tmp_path):
    books(tmp_path)
    archive(tmp_path / "openstax-figures" / "images256.tar", [("00000.jpg", png())])
    with pytest.raises(FileNotFoundError, match="lacks 5 of 6 pictures: fetch the set again"):
        OpenstaxFigures(where=tmp_path)


def test_hands_and_handwriting_are_shown_with_their_words(tmp_path):
    (tmp_path / "sign-digits").mkdir()
    archive(tmp_path / "sign-digits" / "images100.tar", [(f"{n:05}.jpg", png(n)) for n in range(3)])
    words = ["zero", "one", "two"]
    records = [
        {"file": f"{n:05}.jpg", "word": word, "split": "val" if n == 2 else "train"} for n, word in enumerate(words)
    ]
    lines(tmp_path / "sign-digits" / "labels.jsonl", records)
    assert [SignDigits(16, where=tmp_path).pair(n)[1] for n in range(2)] == ["zero", "one"]
    assert SignDigits(16, split="valid", where=tmp_path).pair(0)[1] == "two"
    (tmp_path / "mnist-20k").mkdir()
    ink = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8)
    np.savez(
        tmp_path / "mnist-20k" / "mnist20k.npz",
        train_images=ink,
        train_labels=np.array([3, 1, 4, 1], np.uint8),
        test_images=ink[:2],
        test_labels=np.array([5, 9], np.uint8),
    )
    train = Mnist20k(where=tmp_path)
    assert [train.pair(n)[1] for n in range(4)] == ["three", "one", "four", "one"]
    assert train.pair(2)[0].shape == (28, 28, 3) and (train.pair(2)[0] == 2).all()
    assert Mnist20k(14, split="valid", where=tmp_path).pair(1)[0].shape == (14, 14, 3)
    with pytest.raises(ValueError, match="wanted 1 to 256"):
        Mnist20k(0, where=tmp_path)


def test_photographs_for_tests_are_not_trained_on(tmp_path):
    for name in ("kodak24", "photos-misc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(png(5))
        lines(tmp_path / name / "captions.jsonl", [{"file": "a.png", "caption": "a red door"}])
    assert Kodak24(16, where=tmp_path).pair(0)[1] == "a red door"
    assert Kodak24(16, split="heldout", where=tmp_path).size == 1
    with pytest.raises(ValueError, match="kodak24 is for tests only: use split='valid'"):
        Kodak24(16, split="train", where=tmp_path)
    for split in ("train", "valid"):
        assert PhotosMisc(16, split=split, where=tmp_path).pair(0)[0][0, 0, 0] == 5
    with pytest.raises(ValueError, match="split is one of"):
        PhotosMisc(16, split="test", where=tmp_path)


def test_a_folder_of_texts_gives_their_paragraphs_and_says_what_it_left_out(tmp_path):
    (tmp_path / "set" / "deep").mkdir(parents=True)
    (tmp_path / "outside.txt").write_text("A secret.")
    (tmp_path / "set" / "a.txt").write_text("First paragraph\nof a.\n\n\nSecond of a.", "utf-8")
    (tmp_path / "set" / "deep" / "b.md").write_text("\ufeffOnly one of b.", "utf-8")
    (tmp_path / "set" / "c.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "set" / "d.txt").write_text(" \n ")
    (tmp_path / "set" / "e.txt").symlink_to(tmp_path / "outside.txt")
    (tmp_path / "set" / "f.txt").write_text("x" * 2000)
    (tmp_path / "set" / "g.rst").write_text("not read")
    source = TextFolder(tmp_path / "set", held_out=0, most_bytes=1000)
    assert source.paragraphs == ("First paragraph of a.", "Second of a.", "Only one of b.")
    assert source.report == {
        "file is not UTF-8 text": ["c.txt"],
        "empty file": ["d.txt"],
        "path leaves the folder": ["e.txt"],
        "file over 0.0009537 MB": ["f.txt"],
        "ending of no text": ["g.rst"],
    }
    train, valid = (TextFolder(tmp_path / "set", split, held_out=0.4) for split in ("train", "valid"))
    assert set(train.paragraphs).isdisjoint(valid.paragraphs)
    with pytest.raises(FileNotFoundError, match="give the folder that holds the texts"):
        TextFolder(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no file ends in .txt or .md"):
        TextFolder(tmp_path / "empty")


# As they are


@have("openstax-figures")
def test_the_figures_and_the_books_are_all_there():
    train, valid = named("openstax-figures"), named("openstax-figures", split="valid")
    assert (train.size, valid.size, train.report) == (1199, 68, {})
    assert train.pair(0)[1] == "Model of a Pulsar"
    books, held = named("openstax-documents", 32), named("openstax-documents", 32, split="valid")
    assert (books.documents, held.documents, books.report) == (375, 16, {})
    assert set(books.names()).isdisjoint(held.names())
    assert max(len(p.text) for n in range(50) for p in books.document(n, RNG).parts if p.medium == "text") <= 1200
    pictured = named("openstax-documents", 32, split="valid", pictured=True)
    figures = [p for n in range(pictured.size) for p in pictured.document(n, RNG).parts if p.medium == "image"]
    assert len(figures) == 67


@pytest.mark.parametrize(
    "name, file, sizes",
    [
        ("sign-digits", "labels.jsonl", (1854, 208)),
        ("mnist-20k", "mnist20k.npz", (10000, 10000)),
        ("photos-misc", "captions.jsonl", (3, 3)),
        ("kodak24", "captions.jsonl", (None, 24)),
    ],
)
def test_the_other_sets_are_all_there(name, file, sizes):
    if not (data_folder() / name / file).is_file():
        pytest.skip(f"{name} is not in {data_folder()}: set MIXMODAL_DATA to the folder that holds it")
    for split, size in zip(("train", "valid"), sizes, strict=True):
        if size is not None:
            source = named(name, 32, split=split)
            pixels, caption = source.pair(source.size - 1)
            assert source.size == size and pixels.shape == (32, 32, 3) and caption


def test_shakespeare_is_all_there():
    if not (data_folder() / "text" / "tinyshakespeare.txt").is_file():
        pytest.skip(f"text is not in {data_folder()}: set MIXMODAL_DATA to the folder that holds it")
    train, valid = TinyShakespeare(), named("tinyshakespeare", "valid")
    assert train.bytes + valid.bytes > 1_050_000 and set(train.paragraphs).isdisjoint(valid.paragraphs)


def test_a_set_that_is_not_there_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXMODAL_DATA", str(tmp_path))
    for name in NAMED:
        with pytest.raises(FileNotFoundError, match="set MIXMODAL_DATA"):
            named(name, **({"split": "valid"} if name == "kodak24" else {}))
    with pytest.raises(FileNotFoundError, match="mixmodal data get kodak24"):
        named("kodak24")
    with pytest.raises(FileNotFoundError, match="mixmodal data get tinyshakespeare"):
        named("tinyshakespeare")
