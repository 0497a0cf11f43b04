"""Text positions are Qwen3's: the same random weights give the logits of transformers' own implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import given, mixed_documents, picture, small_model

from mixmodal.cache import Cache
from mixmodal.foreign import OF_BLOCK
from mixmodal.parts import Document, Text
from mixmodal.sequence import Run, Sequence, collate, pack

transformers = pytest.importorskip("transformers")

# Grouped queries, heads that together are wider than the trunk, gains, a base frequency of a million.
TRUNK = {
    "width": 48,
    "depth": 3,
    "heads": 6,
    "kv_heads": 2,
    "head_size": 12,
    "mlp_width": 80,
    "rope_theta": 1_000_000.0,
}


def mapping(depth: int) -> dict[str, str]:
    """Their name of every tensor -> ours."""
    names = {
        "model.embed_tokens.weight": "streams.text.codec.table.weight",
        "model.norm.weight": "trunk.norm.gain",
        "lm_head.weight": "streams.text.head.table",
    }
    for layer in range(depth):
        for theirs, ours in OF_BLOCK.items():
            names[f"model.layers.{layer}.{theirs}.weight"] = f"trunk.blocks.{layer}.{ours}"
    return names


@pytest.fixture(scope="module")
def pair():
    """Our model and theirs, on the same weights."""
    ours = small_model(depth=3, trunk=TRUNK)
    config = transformers.Qwen3Config(
        vocab_size=ours.speaker.codec.vocabulary,
        hidden_size=TRUNK["width"],
        intermediate_size=TRUNK["mlp_width"],
        num_hidden_layers=TRUNK["depth"],
        num_attention_heads=TRUNK["heads"],
        num_key_value_heads=TRUNK["kv_heads"],
        head_dim=TRUNK["head_size"],
        rms_norm_eps=ours.config.trunk.norm_eps,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": TRUNK["rope_theta"]},
        tie_word_embeddings=False,
        attention_bias=False,
        attn_implementation="eager",
    )
    theirs = transformers.Qwen3ForCausalLM(config).eval()
    own, names = ours.state_dict(), mapping(TRUNK["depth"])
    assert set(names) == set(theirs.state_dict())
    assert {name for name in own if name.startswith("trunk.")} <= set(names.values())
    theirs.load_state_dict({name: own[mine] for name, mine in names.items()})
    return ours, theirs


def agree(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    apart, largest = float((found - expected).abs().max()), float(expected.abs().max())
    assert largest > 0.1, "the logits are too small to tell anything"
    assert apart <= 1e-5 * largest, (apart, largest)


def text_of(sequence: Sequence) -> list[int]:
    """The tokens that stand before the first position of another stream."""
    tokens: list[int] = []
    for run in sequence.runs:
        if run.stream != "text":
            break
        tokens += run.embed["values"].tolist()
    return tokens


@torch.no_grad()
def reference(theirs, tokens: list[int]) -> torch.Tensor:
    return theirs(torch.tensor([tokens]), use_cache=False).logits[0].float()


def test_the_two_configurations_are_not_the_easy_case(pair):
    ours, theirs = pair
    trunk = ours.config.trunk
    assert trunk.heads * trunk.head_size != trunk.width and trunk.kv_heads < trunk.heads
    assert theirs.model.layers[0].self_attn.q_norm.weight.std() > 0  # the gains are not all one
    found = theirs.model.rotary_emb.inv_freq
    wanted = TRUNK["rope_theta"] ** -(torch.arange(6) / 6)
    assert torch.allclose(found, wanted, rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("words", ["a big red circle left of a small blue square", "é ☂ 漢字 two green rings\n", "x"])
def test_a_text_document_has_the_logits_of_qwen3(pair, words):
    ours, theirs = pair
    sequence = ours.lay_out(Document((Text(words),)), np.random.default_rng(0))
    hidden = ours(collate([sequence], [[0]], len(sequence), ours.blank()))[0]
    tokens = text_of(sequence)
    assert len(tokens) == len(sequence)
    agree(ours.speaker.head.logits(hidden), reference(theirs, tokens))


@torch.no_grad()
def test_the_text_before_the_first_picture_of_a_mixed_document_has_the_logits_of_qwen3(pair):
    ours, theirs = pair
    parts = (Text("a big red circle"), picture(0, 12, 8), Text("and then"), given(picture(1)), Text("the end"))
    sequence = ours.lay_out(Document(parts, key=3), np.random.default_rng(0))
    tokens = text_of(sequence)
    words = len(ours.speaker.codec.encode(parts[0]).values)
    assert len(tokens) == 1 + words + 3 < len(sequence)  # begin, the words, and the header: medium, rows, columns
    hidden = ours(collate([sequence], [[0]], len(sequence) + 5, ours.blank()))[0]
    agree(ours.speaker.head.logits(hidden[: len(tokens)]), reference(theirs, tokens))


@torch.no_grad()
@pytest.mark.parametrize("path", ["plain", "dense", "segments"])
def test_packed_among_pictures_text_still_has_the_logits_of_qwen3(pair, path):
    ours, theirs = pair
    documents = mixed_documents()
    sequences = [ours.lay_out(d, np.random.default_rng(d.key)) for d in documents]
    length = max(map(len, sequences)) + 7
    plan = pack(sequences, 4, length)
    logits = ours.speaker.head.logits(ours(collate(sequences, plan, length, ours.blank()), path))
    compared = 0
    for row, numbers in enumerate(plan):
        at = 0
        for number in numbers:
            tokens = text_of(sequences[number])
            agree(logits[row, at : at + len(tokens)], reference(theirs, tokens))
            at += len(sequences[number])
            compared += len(tokens) > 4
    assert compared >= 3


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 3])
def test_the_cache_position_by_position_has_the_logits_of_qwen3(pair, chunk):
    ours, theirs = pair
    sequence = ours.lay_out(
        Document((Text("two green rings above a black plus"), picture(0))), np.random.default_rng(0)
    )
    tokens = text_of(sequence)
    values = np.asarray(tokens, np.int64)
    coords = np.repeat(np.arange(len(tokens), dtype=np.float32)[:, None], 3, axis=1)
    assert np.array_equal(np.concatenate([run.coords for run in sequence.runs])[: len(tokens)], coords)
    cache = Cache(ours.config.trunk, 2, 4)
    hidden = []
    for first in range(0, len(tokens), chunk):
        at = slice(first, first + chunk)
        run = Run("text", {"values": values[at]}, coords[at])
        batch = collate([Sequence([run])], [[0]], len(run), {"text": ours.blank()["text"]}, start=[cache.used[1]])
        hidden.append(ours(batch, cache=cache, slots=[1])[0])
        cache.keep()
    agree(ours.speaker.head.logits(torch.cat(hidden)), reference(theirs, tokens))


@torch.no_grad()
def test_a_scale_of_the_attention_logits_is_a_gain_on_the_queries():
    scaled, gained = (small_model(trunk={"qk_scale": scale}) for scale in (1.5, 1.0))
    for block in gained.trunk.blocks:
        block.attention.q_norm.gain *= 1.5
    sequence = scaled.lay_out(mixed_documents()[0], np.random.default_rng(0))
    batch = collate([sequence], [[0]], len(sequence), scaled.blank())
    agree(scaled(batch), gained(batch))
