"""Every reader fits the mixture: the same documents after a stop, in another process."""

import contextlib
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from test_interleaved import story
from test_tables import parquet, rows
from test_tars import archive, png, shard

from mixmodal.data import KINDS, make_mixture, make_source, options_of, source_class
from mixmodal.data.mixing import Mixture
from mixmodal.data.opening import kind_of, source_at
from mixmodal.data.report import LeftOut, Report, is_unicode, records
from mixmodal.parts import Document
from mixmodal.recipes import own_data, recipe


def make_folder(home: Path) -> dict:
    for number in range(23):
        (home / f"{number}.png").write_bytes(png(number))
        (home / f"{number}.txt").write_text(f"picture {number}")
    return {"kind": "folder", "path": str(home)}


def make_pairs(home: Path) -> dict:
    make_folder(home)
    lines = [json.dumps({"image": f"{number}.png", "caption": f"picture {number}"}) for number in range(23)]
    (home / "own.jsonl").write_text("\n".join(lines))
    return {"kind": "pairs", "path": str(home / "own.jsonl")}


def make_shards(home: Path) -> dict:
    shard(home / "a.tar", 11)
    shard(home / "b.tar", 12, start=11)
    return {"kind": "shards", "path": str(home)}


def make_documents(home: Path) -> dict:
    make_folder(home)
    lines = [json.dumps(story(number, 3)) for number in range(9)]
    (home / "own.jsonl").write_text("\n".join(lines))
    return {"kind": "interleaved", "path": str(home / "own.jsonl"), "pictures": 1}


def make_document_shards(home: Path) -> dict:
    files = []
    for number in range(9):
        parts = [{"text": f"words {number}"}, {"image": f"{number}.0.png"}]
        files += [(f"{number}.json", json.dumps({"parts": parts}).encode()), (f"{number}.0.png", png(number))]
    archive(home / "a.tar", files)
    return {"kind": "interleaved", "path": str(home / "a.tar")}


def make_texts(home: Path) -> dict:
    for number in range(7):
        (home / f"{number}.txt").write_text("\n\n".join(f"Paragraph {n} of text {number}." for n in range(3)))
    return {"kind": "texts", "path": str(home)}


def make_parquet(home: Path) -> dict:
    parquet(home / "a.parquet", rows(17))
    return {"kind": "parquet", "path": str(home / "a.parquet")}


def make_hub(home: Path) -> dict:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(rows(17)).cast_column("image", datasets.Image()).save_to_disk(home / "set")
    return {"kind": "datasets", "path": str(home / "set")}


MAKERS = [
    make_folder,
    make_pairs,
    make_shards,
    make_documents,
    make_document_shards,
    make_texts,
    make_parquet,
    make_hub,
]


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__.removeprefix("make_"))
def spec(request, tmp_path) -> dict:
    """What a recipe says of a source of each kind."""
    return request.param(tmp_path)


def told(document: Document) -> tuple:
    """A document as something that can be compared to the bit."""
    parts = tuple(
        part.text if part.medium == "text" else (part.wanted, part.pixels.tobytes()) for part in document.parts
    )
    return document.about["draw"], document.key, parts


def test_every_document_comes_once_a_round_and_the_same_after_a_stop(spec):
    specs = {"own": {**spec, "held_out": 0.0}, "other": {**spec, "share": 0.5}}
    whole = make_mixture(specs, seed=3)
    size = whole.sources[0].size
    expected = [told(document) for document in islice(whole, 4 * size)]
    indexes = [draw.index for draw in islice(iter(make_mixture(specs, seed=3).draw, None), 4 * size) if not draw.source]
    assert sorted(indexes[:size]) == list(range(size))
    stopped = make_mixture(specs, seed=3)
    got = [told(document) for document in islice(stopped, size + 3)]
    saved = json.loads(json.dumps(stopped.state()))
    resumed = make_mixture(specs, seed=3)
    resumed.load(saved)
    assert got + [told(document) for document in islice(resumed, 3 * size - 3)] == expected


def test_documents_are_the_same_whoever_makes_them(spec):
    specs = {"own": {**spec, "held_out": 0.0}}
    alone = make_mixture(specs, seed=3)
    size = alone.sources[0].size
    expected = [told(document) for document in islice(alone, 2 * size)]
    for count in (1, 2, 3):  # workers, of whom each makes its share, the last first
        draws = list(islice(iter(make_mixture(specs, seed=3).draw, None), 2 * size))
        workers = [make_mixture(specs, seed=3) for _ in range(count)]
        got = [told(workers[draw.number % count].document(draw)) for draw in reversed(draws)]
        assert got[::-1] == expected and size > 0


def test_a_model_lays_out_what_every_reader_gives(spec, model):
    source = make_source({**spec, "held_out": 0.0})
    for index in range(source.size):
        rng = np.random.default_rng(index)
        sequence = model.lay_out(source.document(index, rng), rng, 0.0)
        assert len(sequence) > 4


def test_the_kind_of_data_is_found_by_looking(spec):
    assert kind_of(spec["path"]) == spec["kind"]
    source = source_at(spec["path"], size=8, held_out=0.0, check=True, keep=0)
    assert type(source) is type(make_source(spec)) and source.size > 0 and not getattr(source, "report", None)


def test_a_recipe_for_ones_own_takes_data_of_every_kind(spec):
    chosen = own_data(recipe("own_32"), spec["path"])
    for specs, split in ((chosen.sources, "train"), (chosen.valid, "valid")):
        source = make_source(specs["pictures"])
        assert specs["pictures"]["kind"] == spec["kind"] and specs["pictures"].get("split", "train") == split
        for index in range(source.size):
            parts = source.document(index, np.random.default_rng(0)).parts
            assert sum(len(part.text) for part in parts if part.medium == "text") <= 400
            assert all(part.pixels.shape == (32, 32, 3) for part in parts if part.medium == "image")
    assert chosen.sources["prose"] == recipe("own_32").sources["prose"]


def test_what_is_no_data_is_told_with_what_would_be(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing is at .*one of emoji-noto, tiles-crawl"):
        kind_of(tmp_path / "nothing")
    (tmp_path / "a.doc").write_text("")
    with pytest.raises(ValueError, match="no reader takes .*a.doc: it takes .jsonl"):
        kind_of(tmp_path / "a.doc")
    with pytest.raises(ValueError, match="nothing in .* is a picture"):
        kind_of(tmp_path)
    assert kind_of("kodak24") == "kodak24"


def test_a_broken_picture_is_left_out_by_whoever_makes_it_and_doubles_no_other(tmp_path):
    options = make_folder(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Pillow.fromarray(noise).save(tmp_path / "7.png")
    (tmp_path / "7.png").write_bytes((tmp_path / "7.png").read_bytes()[:3000])
    alone, *workers = (make_mixture({"own": {**options, "held_out": 0.0}}, 0) for _ in range(4))
    expected = [told(document) for document in islice(alone, 44)]
    got = []
    for draw in islice(iter(make_mixture({"own": {**options, "held_out": 0.0}}, 0).draw, None), 46):
        with contextlib.suppress(LeftOut):
            got.append(told(workers[draw.number % 3].document(draw)))
    assert got == expected and len({key for _, key, _ in got}) == 22  # two rounds without the broken one


def test_an_option_that_a_reader_does_not_have_is_refused_with_the_nearest(tmp_path):
    options = make_shards(tmp_path)
    with pytest.raises(ValueError, match="most_pixels"):
        make_source({**options, "most_pixel": 3})
    with pytest.raises(ValueError, match="source kind 'shard'.*shards"):
        make_source({**options, "kind": "shard"})
    assert make_source({**options, "most_pixels": 10**6, "longest": 50, "check": True}).report == {}


def test_every_kind_can_be_found_by_its_name():
    for kind in KINDS:
        known = options_of(source_class(kind))
        assert known and {"self", "options"}.isdisjoint(known), kind


def test_lines_are_read_one_by_one_and_what_is_no_object_is_empty(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n\n[1]\nno\n\xff\n' + b"x" * 99 + b'\n{"b": 2}')
    report = Report()
    assert list(records(tmp_path / "a.jsonl", report, 50)) == [
        ("line 1", {"a": 1}),
        ("line 3", {}),
        ("line 7", {"b": 2}),
    ]
    assert report == {"line is not JSON in UTF-8": ["line 4", "line 5"], "line over 50 bytes": ["line 6"]}
    assert is_unicode("é 🀄") and not is_unicode("half \ud83c")


def test_a_mixture_of_one_source_and_itself_needs_two_names(tmp_path):
    options = make_texts(tmp_path)
    with pytest.raises(ValueError, match="different names"):
        Mixture([(make_source(options), 1), (make_source(options), 1)])


def test_no_reader_unpickles():
    folder = Path(make_source.__code__.co_filename).parent
    for path in folder.rglob("*.py"):
        text = path.read_text("utf-8")
        assert "pickle.load" not in text and "allow_pickle=True" not in text, path
