"""The laws that carry everything, in logits, losses and gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import given, mixed_documents, picture, small_model

from mixmodal.attention import PATHS
from mixmodal.cache import Cache
from mixmodal.layout import tokens
from mixmodal.model import Model
from mixmodal.parts import Document, Image, Text
from mixmodal.rotary import rotary_tables
from mixmodal.sequence import Run, Sequence, collate, pack

CONV = {"codec": {"ends": 4}}
GAU = {"block": "gau", "heads": 1, "kv_heads": 1}
TRUNKS = {"qwen3": {}, "gau": GAU, "experts": {"experts": 2}, "gau experts": {**GAU, "experts": 2}}


@pytest.fixture(params=TRUNKS)
def model(request):
    """A small model on every kind of trunk."""
    return small_model(trunk=TRUNKS[request.param])


def laid(model, documents):
    return [model.lay_out(d, np.random.default_rng(d.key)) for d in documents]


def gradients(model, batch, path="plain"):
    model.zero_grad()
    losses = model.losses(batch, path)
    sum(total for total, _ in losses.values()).backward()
    return losses, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def close(a, b, scale=None):
    scale = float(scale if scale is not None else b.abs().max().clamp(min=1e-3))
    assert float((a - b).abs().max()) <= 1e-5 * scale + 1e-7, (float((a - b).abs().max()), scale)


@pytest.mark.parametrize(
    "options",
    [
        {},
        CONV,
        {"flow": {"time": "token", "prediction": "v"}},
        {"flow": {"sigma_data": 0.5}},
        {"trunk": {"long_skips": True, "mlp": "relu2", "norm_gain": False}},
        {"trunk": {"adaptive": True}, "flow": {"time": "trunk"}},
        {"trunk": GAU},
        {"trunk": {**GAU, "adaptive": True, "long_skips": True, "qk_norm": False}, "flow": {"time": "trunk"}},
        {"trunk": {"experts": 2}},
        {"trunk": {"experts": 3, "adaptive": True, "long_skips": True}, "flow": {"time": "trunk"}},
        {"trunk": {**GAU, "experts": 2}},
    ],
)
def test_packed_equals_alone_in_losses_and_gradients(options):
    model = small_model(**options)
    sequences = laid(model, mixed_documents())
    length = max(map(len, sequences)) + 9
    packed = collate(sequences, pack(sequences, 4, length), length, model.blank())
    together, grads = gradients(model, packed)
    totals, summed = {}, {}
    for sequence in sequences:
        alone = collate([sequence], [[0]], len(sequence), model.blank())
        losses, own = gradients(model, alone)
        for name, (total, count) in losses.items():
            before = totals.get(name, (0, 0))
            totals[name] = (before[0] + total.detach(), before[1] + count)
        for name, grad in own.items():
            summed[name] = summed.get(name, 0) + grad
    for name, (total, count) in together.items():
        close(total.detach(), totals[name][0])
        close(count, totals[name][1])
    for name, grad in grads.items():
        close(grad, summed[name], scale=max(1e-2, float(summed[name].abs().max())))


def test_packed_equals_alone_in_hidden_states(model):
    sequences = laid(model, mixed_documents())
    length = max(map(len, sequences))
    plan = pack(sequences, 4, length)
    with torch.no_grad():
        together = model(collate(sequences, plan, length, model.blank()))
        for row, numbers in enumerate(plan):
            at = 0
            for number in numbers:
                alone = model(collate([sequences[number]], [[0]], len(sequences[number]), model.blank()))
                close(together[row, at : at + len(sequences[number])], alone[0])
                at += len(sequences[number])


@pytest.mark.parametrize("path", [p for p in PATHS if p != "plain"])
@pytest.mark.filterwarnings("ignore")
def test_every_attention_path_follows_the_one_rule(model, path):
    sequences = laid(model, mixed_documents())
    length = max(map(len, sequences))
    batch = collate(sequences, pack(sequences, 4, length), length, model.blank())
    with torch.no_grad():
        seen = batch.place.doc >= 0
        close(model(batch, path)[seen], model(batch, "plain")[seen])
    if path != "flex":  # FlexAttention has no backward pass on the CPU
        _, expected = gradients(model, batch)
        _, found = gradients(model, batch, path)
        for name, grad in found.items():
            close(grad, expected[name], scale=max(1e-2, float(expected[name].abs().max())))


def cached(model, runs_in_blocks, cache, slot=0):
    """Hidden states of blocks run one after another; each is (runs, keep)."""
    out = []
    for runs, keep in runs_in_blocks:
        used = {run.stream for run in runs}
        blank = {name: slots for name, slots in model.blank().items() if name in used}
        length = sum(map(len, runs))
        batch = collate([Sequence(runs)], [[0]], length, blank, start=[cache.used[slot]])
        out.append(model(batch, cache=cache, slots=[slot])[0])
        if keep:
            cache.keep()
    return out


@torch.no_grad()
@pytest.mark.parametrize("trunk", [*TRUNKS.values(), {"long_skips": True}, {"adaptive": True}])
def test_cached_equals_uncached_and_chunked_equals_whole(trunk):
    model = small_model(trunk=trunk)
    document = Document((Text("first one"), given(picture(3)), Text("then two"), given(picture(4)), Text("end")), key=9)
    sequence = model.lay_out(document, np.random.default_rng(0))
    whole = model(collate([sequence], [[0]], len(sequence), model.blank()))[0]
    cache = Cache(model.config.trunk, 2, 128)
    blocks = []
    for run in sequence.runs:
        if run.two_way:
            blocks.append(([run], True))
        else:  # text one position at a time: the finest chunks
            for i in range(len(run)):
                blocks.append(
                    ([Run(run.stream, {k: v[i : i + 1] for k, v in run.embed.items()}, run.coords[i : i + 1])], True)
                )
    close(torch.cat(cached(model, blocks, cache, slot=1)), whole)


@torch.no_grad()
def test_a_noisy_copy_behind_a_cache_equals_the_same_copy_in_training(model):
    document = Document((Text("a red circle"), picture(3)), key=9)
    sequence = model.lay_out(document, np.random.default_rng(0))
    whole = model(collate([sequence], [[0]], len(sequence), model.blank()))[0]
    prefix = [run for run in sequence.runs if run.private < 0 and not run.two_way][:3]
    noisy = [run for run in sequence.runs if run.private >= 0]
    cache = Cache(model.config.trunk, 1, 8)  # grows as it must
    hidden = cached(model, [(prefix, True), *(([run], False) for run in noisy)], cache)
    close(torch.cat(hidden), whole[: sum(map(len, prefix)) + sum(map(len, noisy))])


@torch.no_grad()
def test_what_comes_later_never_changes_what_came_before(model):
    """Text, and whole pictures, see only what stands before them; private copies are seen by nobody else."""
    first = Document((Text("one"), picture(0), Text("two"), picture(1), Text("three")), key=1)
    other = Document((Text("one"), picture(0), Text("two"), picture(2), Text("other")), key=1)
    a, b = (model.lay_out(d, np.random.default_rng(0)) for d in (first, other))
    same = 0
    for run, twin in zip(a.runs, b.runs, strict=False):
        if len(run) != len(twin) or any(not np.array_equal(run.embed[k], twin.embed[k]) for k in run.embed):
            break
        same += len(run)
    assert same > 20
    hidden = [model(collate([s], [[0]], len(s), model.blank()))[0] for s in (a, b)]
    close(hidden[0][:same], hidden[1][:same])


@torch.no_grad()
def test_a_private_copy_is_seen_by_nobody_else(model):
    document = Document((Text("one"), picture(0), Text("two")), key=1)
    sequence = model.lay_out(document, np.random.default_rng(0))
    hidden = model(collate([sequence], [[0]], len(sequence), model.blank()))[0]
    private = [run for run in sequence.runs if run.private >= 0]
    private[0].embed["values"] = private[0].embed["values"] + 1
    changed = model(collate([sequence], [[0]], len(sequence), model.blank()))[0]
    at, moved = 0, []
    for run in sequence.runs:
        moved.append(float((hidden[at : at + len(run)] - changed[at : at + len(run)]).abs().max()) > 1e-6)
        at += len(run)
    assert moved == [run is private[0] for run in sequence.runs]


@torch.no_grad()
def test_the_embedding_of_raw_patches_loses_nothing(model):
    """Least squares on what enters the trunk returns every grey level."""
    stream = model.streams["patches"]
    part = picture(7, 16, 16)
    grid = stream.codec.encode(part)
    assert np.array_equal(stream.codec.decode(grid.values, grid, Image(size=(16, 16))).pixels, part.pixels)
    run = stream.objective.show("patches", stream.codec, grid, 0.0)
    fields = {name: torch.from_numpy(values) for name, values in run.embed.items()}
    entered = stream.objective.embed(stream.codec, fields, torch.float32)
    bare = {**fields, "values": torch.zeros_like(fields["values"])}
    offset = stream.objective.embed(stream.codec, bare, torch.float32)
    values = torch.linalg.lstsq(stream.codec.into, (entered - offset).T).solution.T
    levels = np.rint((values.numpy() + 1) * 127.5)
    assert np.array_equal(levels, np.rint((grid.values + 1) * 127.5))
    assert stream.codec.embedding_rank() == stream.codec.size


def test_beside_convolutions_no_change_of_a_pixel_is_lost():
    codec = small_model(codec={"ends": 4}).streams["patches"].codec
    grid = codec.encode(picture(7, 8, 8))
    fields = {name: torch.from_numpy(values) for name, values in codec.fields(grid).items()}

    def entered(values):
        return codec.embed({**fields, "values": values}, torch.float32).flatten()

    slopes = torch.autograd.functional.jacobian(entered, fields["values"]).flatten(1).double()
    assert torch.linalg.matrix_rank(slopes) == fields["values"].numel()


def test_a_low_rank_embedding_reports_its_rank():
    codec = small_model(codec={"rank": 16}).streams["patches"].codec
    assert codec.embedding_rank() == 16 < codec.size


def test_every_stream_runs_in_a_batch_that_does_not_use_it(model):
    sequence = model.lay_out(Document((Text("words"),), key=1), np.random.default_rng(0))
    losses, grads = gradients(model, collate([sequence], [[0]], 16, model.blank()))
    assert float(losses["patches.mse"][1]) == 0 and float(losses["patches.mse"][0].detach()) == 0
    assert {n for n, _ in model.named_parameters()} - set(grads) == set()


def test_packing_never_changes_what_a_document_draws(model):
    document = mixed_documents()[0]
    a, b = (model.lay_out(document, np.random.default_rng(5)) for _ in range(2))
    for run, twin in zip(a.runs, b.runs, strict=True):
        assert all(np.array_equal(run.embed[k], twin.embed[k]) for k in run.embed)


def test_text_alone_has_the_coordinates_of_ordinary_rotary(model):
    run = tokens(model.speaker, [5, 6, 7], 3.0)
    assert run.coords.tolist() == [[3, 3, 3], [4, 4, 4], [5, 5, 5]]
    cos, _ = rotary_tables(torch.from_numpy(run.coords)[None], 16, 10_000.0)
    angle = torch.tensor([3.0, 4, 5])[:, None] * 10_000.0 ** -(torch.arange(8) / 8)
    close(cos[0, :, :8], angle.cos())


def test_once_settled_the_same_losses_move_only_what_reads():
    model = small_model(**CONV)
    documents = [Document((Text("one"), picture(0)), key=1), Document((given(picture(1)), Text("two")), key=2)]
    batch = collate(laid(model, documents), [[0], [1]], 32, model.blank())
    losses, whole = gradients(model, batch)
    model.zero_grad()
    settled = model.losses(batch, settled=True)
    assert all(torch.equal(settled[name][0], losses[name][0]) for name in losses)
    sum(total for total, _ in settled.values()).backward()
    moved = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    stems = ("streams.text.head.", "streams.patches.codec.")
    assert moved and all(n.startswith(stems) for n in moved) and all(torch.equal(g, whole[n]) for n, g in moved.items())
    assert not any(".down." in n or n.endswith(("into", "place", "from_down")) for n in moved)
    assert any(".beside." in n for n in moved) and any(".up." in n for n in moved)


@torch.no_grad()
def test_an_adaptive_trunk_is_moved_by_time_where_noise_is_and_nowhere_else():
    model = small_model(trunk={"adaptive": True}, flow={"time": "trunk"})
    document = Document((Text("one"), picture(0), Text("two")), key=1)
    sequence = model.lay_out(document, np.random.default_rng(0))
    batch = collate([sequence], [[0]], len(sequence), model.blank())
    before = model(batch)[0]
    noisy = batch.time_BL[0] < 1
    batch.time_BL = torch.where(batch.time_BL < 1, batch.time_BL * 0.5, batch.time_BL)
    moved = (model(batch)[0] - before).abs().amax(1) > 1e-5
    assert noisy.any() and torch.equal(moved, noisy)
    clean = model.lay_out(Document((Text("words"),), key=1), np.random.default_rng(0))
    alone = collate([clean], [[0]], len(clean), model.blank())
    plain = model(alone)
    for block in model.trunk.blocks:
        block.modulate.weight.mul_(2)
    close(model(alone), plain)


@torch.no_grad()
def test_an_expert_moves_its_own_positions_and_what_attends_to_them():
    model = small_model(trunk={"experts": 2})
    sequence = model.lay_out(Document((Text("one"), picture(0), Text("two")), key=1), np.random.default_rng(0))
    batch = collate([sequence], [[0]], len(sequence) + 3, model.blank())
    before = model(batch)[0]
    for layer in model.trunk.blocks:
        for parameter in layer.experts[1].parameters():
            parameter.add_(0.1)
    moved = (model(batch)[0] - before).abs().amax(1) > 1e-6
    own = torch.zeros(len(moved), dtype=torch.bool)
    own[batch.slots["patches"].embed_at] = True
    clean = own & (batch.place.private[0] < 0)
    behind = (torch.arange(len(own)) >= int(clean.nonzero()[0])) & (batch.place.doc[0] >= 0)
    assert torch.equal(moved, own | behind) and not moved.all()


def test_streams_beyond_the_last_expert_take_the_last():
    model = small_model(trunk={"experts": 3})
    sequence = model.lay_out(Document((Text("one"), picture(0)), key=1), np.random.default_rng(0))
    batch = collate([sequence], [[0]], len(sequence), model.blank())
    count, (first, second, third) = len(sequence), [at.tolist() for at in model._routes(batch, True)]
    assert sorted(first + second) == [*range(count), *[count] * 4] and third == [count] * 2


def test_a_stream_takes_the_expert_that_it_is_told():
    config = small_model(trunk={"experts": 2}).config
    first = {name: replace(stream, expert=0) for name, stream in config.streams.items()}
    model = Model(replace(config, streams=first))
    sequence = model.lay_out(Document((Text("one"), picture(0)), key=1), np.random.default_rng(0))
    batch = collate([sequence], [[0]], len(sequence), model.blank())
    assert [len(at) for at in model._routes(batch, False)] == [len(sequence), 0]
    for number, hint in ((2, "want 0 to 1, or set trunk.experts=3$"), (-1, "want 0 to 1$")):
        with pytest.raises(ValueError, match=rf"streams.text.expert is {number}: {hint}"):
            Model(replace(config, streams={**first, "text": replace(first["text"], expert=number)}))
