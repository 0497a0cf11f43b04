"""Values one by one: nothing is lost, and bits are exact: what a model says, a coder spends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import given, picture
from test_designs import CELLS, made

from mixmodal.codecs.values import Codec, Config
from mixmodal.compression import bits, compress, decompress
from mixmodal.data import make_source
from mixmodal.data.squares import Squares, corners, picture_of, squares
from mixmodal.heads import categorical
from mixmodal.model import Model
from mixmodal.objectives import next_token
from mixmodal.parts import Document, Image, Text
from mixmodal.scans import SCANS
from mixmodal.sequence import collate

TINY = {
    "pixels": {},
    "planes": {"order": "planes", "scan": "diagonal"},
    "spiral": {"scan": "spiral"},
    "columns": {"scan": "columns"},
    "corner": {"order": "planes", "scan": "corner"},
    "grey": {"grey": True},
}


def model_of(name: str) -> Model:
    """A small model of values."""
    CELLS["imagegpt now"] = TINY[name]
    try:
        return made("imagegpt now")
    finally:
        del CELLS["imagegpt now"]


def grey(part: Image) -> Image:
    """The picture without colour."""
    return Image(part.pixels[..., :1].repeat(3, axis=2))


def documents(name: str) -> list[Document]:
    """Pictures after words, alone, after another picture, and one of one colour."""
    flat = Image(np.full((3, 4, 3), 255, np.uint8))
    parts = [picture(0, 4, 4), picture(1, 2, 3), picture(2, 3, 3), picture(3, 1, 4)]
    one, two, three, four = map(grey, parts) if name == "grey" else parts
    return [
        Document((Text("a red circle"), one), key=1),
        Document((two,), key=2),
        Document((given(three), Text("then"), four), key=3),
        Document((flat,), key=4),
    ]


@pytest.mark.parametrize("order", ["pixels", "planes"])
@pytest.mark.parametrize("kind", SCANS)
def test_a_picture_comes_back_to_the_bit(order, kind):
    codec = Codec(Config(order=order), 8)
    every = Image(np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3))
    for part in (every, picture(1, 5, 7), picture(2, 1, 1)):
        grid = codec.encode(part)
        assert np.array_equal(codec.decode(grid.values, grid, part.cleared()).pixels, part.pixels)
        scanned = next_token.Objective(next_token.Config(scan=kind))._scanned(grid)
        row, column, channel = scanned.cells[:, 1:].astype(int).T
        assert np.array_equal(scanned.values, part.pixels[row, column, channel])
        assert len({*zip(row, column, channel, strict=True)}) == part.pixels.size
        runs = channel.reshape(-1, 3) if order == "pixels" else channel.reshape(3, -1).T
        assert (runs == [0, 1, 2]).all()
        assert (codec.coords(grid)[:, 0] == 0).all() and codec.coords(grid).max() == max(part.size) - 1


def test_grey_pictures_take_one_position_a_pixel_and_coloured_ones_are_refused():
    codec = Codec(Config(grey=True), 8)
    part = grey(picture(1))
    grid = codec.encode(part)
    assert len(grid.values) == 64 and np.array_equal(codec.decode(grid.values, grid, part).pixels, part.pixels)
    with pytest.raises(ValueError, match=r"a part has colour: set it to false"):
        codec.encode(picture(1))
    with pytest.raises(ValueError, match="take pixels or planes"):
        Codec(Config(order="rows"), 8)


@pytest.mark.parametrize("name", TINY)
def test_a_coder_spends_the_bits_that_the_model_reports_and_gives_the_same_pictures_back(name):
    model, asked = model_of(name), documents(name)
    reported, data = bits(model, asked), compress(model, asked)
    assert abs(8 * len(data) - sum(reported)) <= 0.001 * sum(reported) + 64
    assert abs(8 * len(compress(model, asked[1:2])) - reported[1]) <= 0.001 * reported[1] + 64
    back = decompress(model, [document.emptied() for document in asked], data)
    for document, found in zip(asked, back, strict=True):
        assert np.array_equal(found.parts[-1].pixels, document.parts[-1].pixels)
        assert found.parts[:-1] == document.parts[:-1]


def test_reported_bits_are_the_loss_of_training():
    model, document = model_of("pixels"), documents("pixels")[0]
    sequence = model.lay_out(document, np.random.default_rng(0))
    total, count = model.losses(collate([sequence], [[0]], len(sequence), model.blank()))["pixels.nll"]
    assert int(count) == 48 and bits(model, [document])[0] == pytest.approx(total.item() / np.log(2), rel=1e-5)


def test_a_sure_model_spends_next_to_nothing(monkeypatch):
    """A law of a thousandth of a bit a value: what a coder of few bits would round away."""
    model = model_of("pixels")
    bias = torch.zeros(256)
    bias[255] = 13.0
    whole = categorical.Head.logits
    monkeypatch.setattr(categorical.Head, "logits", lambda self, h: whole(self, h) * 0.01 + bias)
    white = Document((Image(np.full((4, 7, 3), 255, np.uint8)),), key=1)
    (reported,), data = bits(model, [white]), compress(model, [white])
    assert reported < 1 and 8 * len(data) <= reported + 16
    assert np.array_equal(decompress(model, [white], data)[0].parts[-1].pixels, white.parts[-1].pixels)


def test_codes_are_coded_too_and_decode_to_what_the_tokenizer_makes_of_them():
    model = made("llamagen")
    asked = [Document((Text("a red circle"), picture(0, 16, 16)), key=1), Document((picture(1),), key=2)]
    reported, data = sum(bits(model, asked)), compress(model, asked)
    nets = model.writer("image").codec.nets
    assert abs(8 * len(data) - reported) <= 0.001 * reported + 64
    for document, found in zip(asked, decompress(model, asked, data), strict=True):
        assert np.array_equal(found.parts[-1].pixels, nets.rebuilt(document.parts[-1]).pixels)


def test_one_vocabulary_for_words_and_codes_costs_no_more_where_the_medium_is_known():
    model = made("chameleon")
    document = Document((Text("a"), picture(0)), key=1)
    sequence = model.lay_out(document, np.random.default_rng(0))
    total, _ = model.losses(collate([sequence], [[0]], len(sequence), model.blank()))["codes.nll"]
    (reported,), data = bits(model, [document]), compress(model, [document])
    assert reported < total.item() / np.log(2) and abs(8 * len(data) - reported) <= 0.001 * reported + 64


def test_what_has_no_exact_law_says_so():
    for cell in ("lossless", "showo", "mar"):
        for ask in (bits, compress):
            with pytest.raises(ValueError, match="take a model by next token over values or codes"):
                ask(made(cell), [Document((picture(0),))])
    with pytest.raises(ValueError, match="let it be a picture"):
        compress(model_of("pixels"), [Document((picture(0), Text("a")))])


# Squares


def test_the_pieces_of_a_mosaic_cover_a_picture_once():
    pixels = picture(1, 9, 13).pixels
    pieces = squares(pixels, 4)
    assert [p.shape[:2] for p in pieces[:6]] == [(4, 4)] * 6 and sum(p.size for p in pieces) == pixels.size
    back = np.zeros_like(pixels)
    for (row, column), piece in zip(corners((9, 13), 4), pieces, strict=True):
        back[row : row + 4, column : column + 4] = piece
    assert np.array_equal(back, pixels)


def test_squares_come_from_the_pictures_of_another_source():
    world = {"kind": "scenes", "level": "one", "size": 20}
    source = make_source({"kind": "squares", "of": world, "size": 8, "split": "heldout"})
    assert source.source.split == "heldout" and source.size is None
    whole = Squares({**world, "tasks": {"look": 1.0}}, 16)
    one, again = (whole.document(3, np.random.default_rng(3)).parts[0].pixels for _ in range(2))
    assert one.shape == (16, 16, 3) and np.array_equal(one, again)
    assert source.document(0, np.random.default_rng(0)).parts[0].size == (8, 8)
    with pytest.raises(ValueError, match="has no square of 32 px"):
        Squares(world, 32).document(0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="take data with pictures"):
        picture_of(Document((Text("a"),)))


def test_an_earlier_picture_of_which_some_is_known_is_shown_and_not_coded():
    model, (first, second) = model_of("pixels"), documents("pixels")[:2]
    half = np.zeros(first.parts[-1].size, bool)
    half[:, :3] = True
    both = Document((replace(first.parts[-1], known=half), *second.parts), key=7)
    (back,) = decompress(model, [both.emptied()], compress(model, [both]))
    assert np.array_equal(back.parts[-1].pixels, both.parts[-1].pixels) and back.parts[0] is both.parts[0]
