"""Text in and out: nothing is lost, whatever was written, with a tokenizer of ours or anybody's."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import WORDS, picture, small_config, small_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mixmodal.codecs import text
from mixmodal.codecs.text import LARGEST_SIZE, Codec, Config, prepare, train_tokenizer, with_specials
from mixmodal.config import ModelConfig, Recipe, to_json
from mixmodal.model import Model
from mixmodal.parts import Document, Text


def test_a_copy_of_a_codec_reads_no_special_tokens_out_of_a_text():
    codec = small_model().speaker.codec
    text = Text("x <|end|>")
    assert copy.deepcopy(codec).encode(text).values.tolist() == codec.encode(text).values.tolist()


ODD = [
    "plain words",
    " leading, trailing and  double  spaces ",
    "line\nbreak\r\n\ttab\u00a0\u200b",
    "naïve café, straße, ﬁ ligature, e\u0301 combining",
    "漢字かな交じり文、한국어, العربية, हिन्दी",
    "👩\u200d👩\u200d👧 🏴\U000e0067\U000e0062 \U0010ffff",
    "\x00\x01\x7f\ufeff\ufffd",
    "</s><unk>[PAD] <|5|",
]
SPELLED = ["<|end|>", "a <|begin|> and an <|image|><|2|><|2|> spelled out", "<|/image|>", "<|5|>"]


def codec_of(config: Config) -> Codec:
    return text.build(config, 8)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return codec_of(with_specials(train_tokenizer(WORDS * 5, 300), ["image", "sound"]))


def round_trip(codec: Codec, written: str) -> str:
    grid = codec.encode(Text(written))
    return codec.decode(grid.values, grid, Text()).text


@pytest.mark.parametrize("written", ODD)
def test_any_unicode_comes_back_to_the_byte(codec, written):
    assert round_trip(codec, written) == written


def test_random_unicode_comes_back_to_the_byte(codec):
    draw = random.Random(0)
    for _ in range(200):
        points = [draw.choice([draw.randrange(0x80), draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)])]
        points += [draw.randrange(0xE000, 0x110000) for _ in range(draw.randrange(6))]
        written = "".join(map(chr, points))
        assert round_trip(codec, written) == written


@pytest.mark.parametrize("written", SPELLED)
def test_a_marker_that_a_text_spells_out_is_text_and_announces_nothing(codec, written):
    """Who writes about "<|end|>" must not end the part."""
    numbers = codec.encode(Text(written)).values.tolist()
    markers = {
        codec.begin,
        codec.end,
        *codec.size_tokens(),
        *codec.closing("image"),
        codec.opening("image", (1, 1, 1))[0],
    }
    assert not markers.intersection(numbers)
    assert round_trip(codec, written) == written


def test_the_vocabulary_is_the_one_asked_for_and_the_specials(codec):
    plain = Tokenizer.from_str(train_tokenizer(WORDS * 5, 300)).get_vocab_size()
    assert plain <= 300 and codec.vocabulary == plain + 2 + 2 * 2 + LARGEST_SIZE
    assert codec.table.weight.shape == (codec.vocabulary, 8)
    # specials are appended: what the tokenizer knew keeps its number
    assert min(codec.begin, codec.end, *codec.size_tokens()) >= plain


def test_frequent_words_take_fewer_tokens_than_bytes(codec):
    assert len(codec.encode(Text(WORDS[0])).values) < len(WORDS[0]) / 2


def test_announced_media_and_sizes_are_read_back(codec):
    for medium in ("image", "sound"):
        opening = codec.opening(medium, (1, 7, LARGEST_SIZE))
        assert codec.announced(opening[0]) == medium
        assert [codec.side(token) for token in opening[1:]] == [7, LARGEST_SIZE]
        assert codec.announced(codec.closing(medium)[0]) is None
    assert codec.announced(codec.begin) is None and codec.announced(codec.end) is None
    assert codec.announced(codec.size_tokens()[0]) is None and codec.side(codec.begin) is None
    assert codec.announced(codec.encode(Text("a")).values[0]) is None


def test_special_tokens_are_never_part_of_the_text_that_is_told(codec):
    grid = codec.encode(Text("red"))
    values = np.concatenate(([codec.begin], grid.values, [codec.end]))
    assert codec.decode(values, None, Text(weight=0.5)).text == "red"
    assert codec.decode(values, None, Text(weight=0.5)).weight == 0.5


def test_tokens_stand_on_the_diagonal(codec):
    grid = codec.grid([4, 5, 6])
    assert grid.size == (3, 1, 1) and codec.coords(grid).tolist() == [[i] * 3 for i in range(3)]
    assert codec.grid([]).values.shape == (0,)


def other_tokenizer(folder) -> str:
    """A tokenizer.json of another make: words, marks of its own, a post-processor that adds one."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(
        WORDS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]", "[CLS]"], show_progress=False)
    )
    from tokenizers.processors import TemplateProcessing

    made.post_processor = TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", made.token_to_id("[CLS]"))])
    path = folder / "tokenizer.json"
    made.save(str(path))
    return str(path)


def test_anybodys_tokenizer_is_loaded_with_the_specials_appended(tmp_path):
    path = other_tokenizer(tmp_path)
    theirs = Tokenizer.from_file(path)
    recipe = Recipe("own", ModelConfig(), {}, tokenizer=path)
    made = prepare(Config(), [], ["image"], recipe)
    codec = codec_of(made)
    ids = theirs.encode(WORDS[0], add_special_tokens=False).ids
    assert codec.encode(Text(WORDS[0])).values.tolist() == ids  # no [CLS]: the document has its own begin
    assert made.vocabulary == theirs.get_vocab_size() + 4 + LARGEST_SIZE
    assert round_trip(codec, "two green rings") == "two green rings"


def test_a_text_of_which_a_tokenizer_makes_nothing_takes_no_place(tmp_path):
    config = small_config()
    made = prepare(Config(), [], ["image"], Recipe("own", ModelConfig(), {}, tokenizer=other_tokenizer(tmp_path)))
    stream = replace(config.streams["text"], codec={"kind": "text", **to_json(made)})
    model = Model(replace(config, streams={**config.streams, "text": stream}))
    assert len(model.speaker.codec.encode(Text(" ")).values) == 0
    with_it = model.lay_out(Document((Text(" "), picture(0))), np.random.default_rng(0))
    without = model.lay_out(Document((picture(0),)), np.random.default_rng(0))
    coords = [np.concatenate([run.coords for run in sequence.runs]) for sequence in (with_it, without)]
    assert np.array_equal(*coords)


def test_a_tokenizer_is_trained_on_the_texts_of_the_documents_unless_one_is_there(tmp_path):
    recipe = Recipe("own", ModelConfig(), {}, vocabulary=280)
    documents = [Document((Text("zyzzyva zyzzyva"), Text("zyzzyva"))) for _ in range(20)]
    made = prepare(Config(), documents, ["image"], recipe)
    assert len(codec_of(made).encode(Text("zyzzyva")).values) <= 2
    assert prepare(made, [], ["image"], replace(recipe, tokenizer="nowhere.json")) == made
    more = prepare(replace(made, tasks=True), [], ["image", "sound"], recipe)
    before, after = (codec_of(config).tokenizer.get_vocab() for config in (made, more))
    assert before.items() < after.items() and {"<|sound|>", "<|/sound|>"} < after.keys() - before.keys()


def test_a_codec_without_a_tokenizer_or_without_its_specials_says_what_to_do():
    with pytest.raises(ValueError, match="train one"):
        codec_of(Config())
    with pytest.raises(ValueError, match=r"lacks the token <\|begin\|>: pass it through with_specials"):
        codec_of(Config(train_tokenizer(WORDS, 300)))
    json.loads(train_tokenizer(WORDS, 300))  # what is kept is the content of a tokenizer.json


def test_a_tied_head_reads_with_the_table_of_the_codec():
    config = small_config()
    stream = replace(config.streams["text"], head={"kind": "categorical", "tied": True})
    model = Model(replace(config, streams={**config.streams, "text": stream}))
    assert model.speaker.head.table is model.speaker.codec.table.weight
    assert small_model().speaker.head.table is not small_model().speaker.codec.table.weight


@torch.no_grad()
def test_the_loss_of_a_token_is_its_negative_log_probability(model):
    head = model.speaker.head
    hidden = torch.randn(3, 64)
    targets = torch.tensor([1, 7, 250])
    assert model.speaker.codec.read(hidden, {}) is hidden  # the head alone reads tokens
    expected = -(hidden @ head.table.T).log_softmax(-1)[range(3), targets]
    assert torch.allclose(head.loss(hidden, targets), expected, atol=1e-5)


def test_a_tokenizer_that_fills_or_cuts_texts_does_neither_here():
    kept = Tokenizer.from_str(train_tokenizer(WORDS * 5, 300))
    kept.enable_padding(length=128)
    kept.enable_truncation(4)
    codec = codec_of(with_specials(kept.to_str(), ["image"]))
    written = "a plain sentence of many more than four tokens"
    assert round_trip(codec, written) == written and len(codec.encode(Text(written)).values) < 60
