"""Positions: packing, padding, who sees whom, headers and ends, coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import given, mixed_documents, picture, small_model

from mixmodal.attention import Sight, attend, find_segments, sight, visible, visible_mask
from mixmodal.layout import ENDING_SHARE, HEADER_WEIGHT, lay_out, tokens, without_prompt
from mixmodal.parts import Document, Image, Text
from mixmodal.sequence import Place, Run, Sequence, collate, fitting_row, pack


def blocks(*lengths: int) -> list[Sequence]:
    """Sequences that only have a length."""
    return [Sequence([Run("text", {"values": np.zeros(n, np.int64)}, np.zeros((n, 3), np.float32))]) for n in lengths]


def place(rows: list[tuple[int, int, int, int]]) -> Place:
    """One row of positions, each (doc, span, index, private)."""
    return Place(*(torch.tensor([list(column)], dtype=torch.int32) for column in zip(*rows, strict=True)))


def laid(model, *parts, ending: bool = False) -> Sequence:
    """A document laid out with or without the end that a tenth of them get."""
    seed = next(s for s in range(1000) if (np.random.default_rng(s).random() < ENDING_SHARE) == ending)
    return lay_out(model, Document(tuple(parts)), np.random.default_rng(seed))


def spelled(model, sequence: Sequence) -> list[str]:
    """The sequence as words: tokens by their name, other runs by copy and size."""
    out = []
    for run in sequence.runs:
        if run.stream == "text":
            out += [model.speaker.codec.tokenizer.id_to_token(int(v)) for v in run.embed["values"]]
        else:
            out.append(("noisy " if run.private >= 0 else "clean ") + str(len(run)))
    return out


# Packing


def test_the_fullest_row_with_room_takes_the_next_sequence():
    assert fitting_row([5, 3, 9], 3) == 1 and fitting_row([5, 3, 9], 4) == 0 and fitting_row([5, 3, 9], 10) is None
    assert fitting_row([4, 4], 4) == 0
    assert pack(blocks(6, 5, 4, 5), 2, 10) == [[0, 2], [1, 3]]


def test_sequences_that_no_row_can_hold_are_refused():
    with pytest.raises(ValueError, match="sequence 1 of 8 positions fits in none of 1 rows of 10: the roomiest has 4"):
        pack(blocks(6, 8), 1, 10)


def test_slots_are_padded_to_a_multiple_and_padding_belongs_to_no_document(model):
    sequences = [model.lay_out(d, np.random.default_rng(0)) for d in mixed_documents()]
    length = max(map(len, sequences)) + 3
    plan = pack(sequences, 5, length)
    batch = collate(sequences, plan, length, model.blank())
    assert batch.shape == (5, length)
    for row, numbers in enumerate(plan):
        used = sum(len(sequences[n]) for n in numbers)
        assert batch.place.doc[row, :used].tolist() == [n for n in numbers for _ in range(len(sequences[n]))]
        assert (batch.place.doc[row, used:] == -1).all() and (batch.time_BL[row, used:] == 1).all()
    for name, slots in batch.slots.items():
        held = [r for s in sequences for r in s.runs if r.stream == name]
        real = sum(map(len, held))
        assert len(slots.embed_at) == max(1, real)
        assert (slots.embed_at[real:] == 5 * length).all() and (slots.embed_at[:real] < 5 * length).all()
        predicted = sum(len(r.predict_at) for r in held if r.predict_at is not None)
        assert (slots.predict["weights"][predicted:] == 0).all() and len(slots.predict_at) == max(1, predicted)
        assert {len(values) for values in slots.embed.values()} == {len(slots.embed_at)}
        assert {len(values) for values in slots.predict.values()} == {len(slots.predict_at)}
        flat = batch.place.doc.flatten()[slots.embed_at[:real]]
        assert (flat >= 0).all() and len(set(slots.embed_at[:real].tolist())) == real


def test_a_stream_that_nothing_uses_still_has_a_slot_of_no_weight(model):
    sequence = model.lay_out(Document((Text("words"),)), np.random.default_rng(0))
    slots = collate([sequence], [[0]], 16, model.blank()).slots["patches"]
    assert slots.embed_at.tolist() == [16]
    assert not slots.predict["weights"].any()


def test_every_position_has_one_stream_and_predictions_stand_in_their_own_document(model):
    sequences = [model.lay_out(d, np.random.default_rng(0)) for d in mixed_documents()]
    length = max(map(len, sequences))
    batch = collate(sequences, pack(sequences, 6, length), length, model.blank())
    taken = torch.cat([s.embed_at[s.embed_at < 6 * length] for s in batch.slots.values()]).tolist()
    assert sorted(taken) == (batch.place.doc.flatten() >= 0).nonzero()[:, 0].tolist()
    text = batch.slots["text"]
    at, targets = text.predict_at[text.predict["weights"] > 0], text.predict["targets"][text.predict["weights"] > 0]
    embedded = dict(zip(text.embed_at.tolist(), text.embed["values"].tolist(), strict=True))
    follows = [embedded.get(int(i) + 1) == int(t) for i, t in zip(at, targets, strict=True)]
    # all but what follows a noisy copy are predicted from the position just before them
    assert sum(follows) > 0.8 * len(follows)
    docs = batch.place.doc.flatten()
    assert (docs[at] >= 0).all()


# Who sees whom


def test_the_rule_is_right_on_a_small_example_written_by_hand():
    """Text a b, two private noisy copies of two patches each, their public clean copy, text c."""
    rows = [
        (0, -1, 0, -1),  # a
        (0, -1, 1, -1),  # b
        (0, 2, 2, 0),  # copy 0
        (0, 2, 3, 0),
        (0, 4, 4, 1),  # copy 1
        (0, 4, 5, 1),
        (0, 6, 6, -1),  # clean
        (0, 6, 7, -1),
        (0, -1, 8, -1),  # c
        (1, -1, 0, -1),  # another document
        (-1, -1, 10, -1),  # padding
    ]
    truth = """
        #..........
        ##.........
        ####.......
        ####.......
        ##..##.....
        ##..##.....
        ##....##...
        ##....##...
        ##....###..
        .........#.
        ..........#
    """
    one = place(rows)
    mask = visible_mask(one, one)[0, 0]
    assert ["".join(".#"[int(v)] for v in row) for row in mask] == truth.split()
    bare = visible(Place(*(f[:, :, None] for f in one)), Place(*(f[:, None, :] for f in one)))[0]
    assert not bare[10].any() and torch.equal(bare[:10, :10], mask[:10, :10])


def test_segments_say_what_the_mask_says(model):
    sequences = [model.lay_out(d, np.random.default_rng(d.key)) for d in mixed_documents()]
    length = max(map(len, sequences)) + 5
    where = collate(sequences, pack(sequences, 4, length), length, model.blank()).place
    found = torch.zeros(4, length, length, dtype=torch.bool)
    for segment in find_segments(where):
        size = segment.stop - segment.start
        keys = torch.arange(segment.start, segment.stop) if segment.keys is None else segment.keys
        if segment.triangle:
            assert keys[-size:].tolist() == list(range(segment.start, segment.stop))
        allowed = torch.ones(size, len(keys), dtype=torch.bool)
        allowed = allowed.tril(len(keys) - size) if segment.triangle else allowed
        found[segment.row, segment.start : segment.stop, keys] = allowed
    real = where.doc >= 0
    mask = visible_mask(where, where)[:, 0] & real[:, :, None]
    assert torch.equal(found, mask)


def test_a_mask_over_one_gibibyte_is_refused_before_it_is_made():
    one = Place(*(torch.zeros(1, 1, dtype=torch.int32).expand(17, 8192) for _ in range(4)))
    with pytest.raises(ValueError, match="takes 1.1 GiB, the limit is 1"):
        visible_mask(one, one)


def test_an_unknown_path_of_attention_is_refused():
    with pytest.raises(ValueError, match="plain, dense, segments, flex"):
        sight(place([(0, -1, 0, -1)]), torch.zeros(1), torch.zeros(1), "sdpa")


@torch.no_grad()
@pytest.mark.parametrize("path", ["plain", "dense", "segments"])
def test_padded_rows_and_positions_never_become_not_a_number(model, path):
    sequence = model.lay_out(mixed_documents()[0], np.random.default_rng(0))
    batch = collate([sequence], [[0], [], []], len(sequence) + 4, model.blank())
    assert model(batch, path).isfinite().all()


def test_the_dense_path_is_scaled_dot_product_attention_and_the_plain_path_is_not(model, monkeypatch):
    calls = []
    original = torch.nn.functional.scaled_dot_product_attention
    counted = lambda *a, **k: calls.append(1) or original(*a, **k)  # noqa: E731
    monkeypatch.setattr("mixmodal.attention.scaled_dot_product_attention", counted)
    sequence = model.lay_out(mixed_documents()[0], np.random.default_rng(0))
    batch = collate([sequence], [[0]], len(sequence), model.blank())
    with torch.no_grad():
        model(batch, "plain")
        assert not calls
        model(batch, "dense")
        assert len(calls) == model.config.trunk.depth


def test_attention_takes_the_softmax_over_what_is_seen_only():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 5, 4)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    found = attend(q, k, v, Sight(torch.zeros(0), torch.zeros(0), mask))
    for row in range(5):
        scores = (q[0, 1, row] @ k[0, 1, : row + 1].T) / 2
        assert torch.allclose(found[0, 1, row], scores.softmax(0) @ v[0, 1, : row + 1], atol=1e-5)


@pytest.mark.parametrize("dtype, near", [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_a_row_asked_by_itself_gathers_what_it_would_beside_others(dtype, near):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 6, 8).to(dtype), torch.randn(2, 2, 9, 8), torch.randn(2, 2, 9, 8)
    mask = torch.ones(2, 1, 6, 9, dtype=torch.bool)
    mask[1, 0] = torch.ones(6, 9, dtype=torch.bool).tril(1)
    nothing = torch.zeros(0)
    wanted = attend(q.float(), k, v, Sight(nothing, nothing, mask, plain=False))
    found = attend(q, k, v, Sight(nothing, nothing, mask, plain=False, ends=((9, False), (7, True))))
    assert found.dtype == dtype and (found.float() - wanted).abs().max() < near
    beside = attend(q, k, v, Sight(nothing, nothing, mask, plain=False))
    assert beside.dtype == dtype and (beside.float() - wanted).abs().max() < near


# Headers, ends, coordinates


def test_a_picture_is_announced_with_its_size_and_closed_where_something_follows(model):
    words = [model.speaker.codec.tokenizer.id_to_token(int(t)) for t in model.speaker.codec.encode(Text("x")).values]
    header, close = ["<|image|>", "<|2|>", "<|3|>"], ["<|/image|>"]
    wanted, shown = picture(0, 8, 12), given(picture(0, 8, 12))
    copies = ["noisy 6", "noisy 6"]
    begin, end = ["<|begin|>"], ["<|end|>"]
    cases = {
        (wanted,): begin + header + copies,
        (shown,): begin + header + ["clean 6"] + close,
        (Text("x"), wanted): begin + words + header + copies,
        (shown, Text("x")): begin + header + ["clean 6"] + close + words + end,
        (shown, Text("x", wanted=False)): begin + header + ["clean 6"] + close + words,
        (wanted, Text("x")): begin + header + copies + ["clean 6"] + close + words + end,
    }
    for parts, expected in cases.items():
        assert spelled(model, laid(model, *parts)) == expected
    assert spelled(model, laid(model, Text("x"), wanted, ending=True)) == (
        begin + words + header + copies + ["clean 6"] + close + end
    )


def test_announcing_and_ending_a_wanted_picture_is_learned_with_little_weight(model):
    sequence = laid(model, Text("x", weight=0.5), Image(picture(0).pixels, weight=2.0), ending=True)
    weights = [w for r in sequence.runs if r.stream == "text" and r.predict for w in r.predict["weights"].tolist()]
    words = len(model.speaker.codec.encode(Text("x")).values)
    assert weights == pytest.approx([0.5] * words + [2 * HEADER_WEIGHT] * 3 + [2 * HEADER_WEIGHT])
    given_only = laid(model, given(picture(0)), Text("x", wanted=False))
    assert not any(run.predict for run in given_only.runs)


def test_a_tenth_of_the_pictures_that_end_a_document_learn_to_end(model):
    document = Document((Text("x"), picture(0)))
    ended = sum(
        spelled(model, lay_out(model, document, np.random.default_rng(seed)))[-1] == "<|end|>" for seed in range(300)
    )
    assert 10 <= ended <= 55


def test_a_part_stands_at_the_coordinates_of_its_cells_and_the_next_begins_behind_the_largest(model):
    sequence = laid(model, Text("x"), picture(0, 8, 12), Text("x"))
    words = len(model.speaker.codec.encode(Text("x")).values)
    n = 1 + words + 3  # begin, the words, the header
    runs = sequence.runs
    cells = [[n, n + r, n + c] for r in range(2) for c in range(3)]
    at = next(i for i, run in enumerate(runs) if run.stream != "text")
    assert [run.coords.tolist() for run in runs[at : at + 3]] == [cells] * 3  # two noisy copies, one clean
    assert [run.private for run in runs[at : at + 3]] == [0, 1, -1]
    assert runs[at + 3].coords.tolist() == [[n + 3] * 3]  # its closing token: the largest was n + 2
    assert runs[at + 4].coords[0].tolist() == [n + 4] * 3
    text = np.concatenate([run.coords for run in runs[:at]])
    assert text.tolist() == [[i] * 3 for i in range(n)]


def test_private_groups_are_numbered_through_the_whole_document(model):
    sequence = laid(model, picture(0), Text("x"), picture(1), Text("x"))
    assert [run.private for run in sequence.runs if run.stream != "text"] == [0, 1, -1, 2, 3, -1]


def test_a_box_makes_another_resolution_finer_and_not_larger():
    model = small_model(codec={"box": 8.0})
    small, large = (laid(model, given(picture(0, side, side))) for side in (16, 64))
    coords = [next(run.coords for run in s.runs if run.stream != "text") for s in (small, large)]
    assert np.unique(coords[0][:, 1] - coords[0][0, 1]).tolist() == [0, 2, 4, 6]
    assert np.unique(coords[1][:, 1] - coords[1][0, 1]).tolist() == [i / 2 for i in range(16)]
    assert small.runs[-1].coords[0, 0] == 4 + 7 and large.runs[-1].coords[0, 0] == 4 + 8


def test_a_picture_with_more_cells_than_can_be_announced_is_refused(model):
    with pytest.raises(ValueError, match="at most 128 along a side; take a larger patch"):
        laid(model, picture(0, 4, 4 * 129))
    opening = model.speaker.codec.opening("image", (3, 1, 2))
    names = [model.speaker.codec.tokenizer.id_to_token(t) for t in opening]
    assert names == ["<|image|>", "<|1|>", "<|2|>", "<|3|>"]


def test_an_empty_document_and_an_empty_part_are_refused(model):
    with pytest.raises(ValueError, match="document 7 has no parts"):
        lay_out(model, Document((), key=7), np.random.default_rng(0))
    with pytest.raises(ValueError, match="part 1 of document 7 is an empty image"):
        lay_out(model, Document((Text("x"), Image(size=(8, 8))), key=7), np.random.default_rng(0))


def test_leaving_the_prompt_out_leaves_pictures_alone():
    drawn = Document((Text("a"), given(picture(0)), Text("b"), picture(1)))
    assert [part.medium for part in without_prompt(drawn, "text").parts] == ["image", "image"]
    told = Document((given(picture(0)), Text("b")))
    assert without_prompt(told, "text") is told


def test_tokens_without_weight_predict_nothing(model):
    assert tokens(model.speaker, [5, 6], 3.0).predict_at is None
    assert tokens(model.speaker, [5, 6], 3.0, 0.5).predict_at.tolist() == [-1, 0]
