"""What saves time or memory leaves the result as it is: losses in pieces, recomputed blocks, steps in parts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import mixed_documents, small_model
from tiny import RECIPE, hasten

from mixmodal import prepare
from mixmodal.cache import Cache
from mixmodal.config import TrunkConfig
from mixmodal.heads import categorical
from mixmodal.linear import FEW, Lent, Linear, narrowed
from mixmodal.sequence import collate, pack, split
from mixmodal.step import train_step


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def alike(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()) + 1e-9), name


@pytest.mark.parametrize("kept", [0, 49_000])
def test_the_loss_over_a_large_vocabulary_in_pieces_is_the_loss_at_once(kept, monkeypatch):
    torch.manual_seed(0)
    head = categorical.build(categorical.Config(), 16, SimpleNamespace(vocabulary=50_000, kept=kept))
    hidden, targets, weights = torch.randn(9, 16), torch.randint(0, 50_000, (9,)), torch.rand(9)
    found = []
    for whole in (50_000 * 9, 50_000 * 2, 1):
        monkeypatch.setattr(categorical, "WHOLE", whole)
        head.zero_grad()
        entered = hidden.clone().requires_grad_()
        loss = head.loss(entered, targets)
        (loss * weights).sum().backward()
        found.append({"loss": loss.detach(), "hidden": entered.grad, **gradients(head)})
    for pieces in found[1:]:
        alike(pieces, found[0])


def test_no_scores_of_all_positions_exist_where_the_vocabulary_is_large():
    torch.manual_seed(0)
    head = categorical.build(categorical.Config(), 4, SimpleNamespace(vocabulary=50_000))
    hidden = torch.randn(1000, 4, requires_grad=True)
    made = []

    def note(kept: torch.Tensor) -> torch.Tensor:
        made.append(kept.numel())
        return kept

    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        head.loss(hidden, torch.zeros(1000, dtype=torch.long))
    assert max(made) <= categorical.WHOLE < 1000 * 50_000


@pytest.mark.parametrize("skips", [False, True])
def test_recomputed_blocks_have_the_same_losses_and_gradients(skips):
    model = small_model(depth=3, trunk={"long_skips": skips})
    sequences = [model.lay_out(d, np.random.default_rng(d.key)) for d in mixed_documents()]
    batch = collate(sequences, pack(sequences, 3, 96), 96, model.blank())
    found = []
    for model.trunk.recompute in (False, True):
        model.zero_grad()
        losses = {name: total for name, (total, _) in model.losses(batch).items()}
        sum(losses.values()).backward()
        found.append({**gradients(model), **{name: value.detach() for name, value in losses.items()}})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_batch_in_parts_has_the_losses_of_the_whole(parts):
    model = small_model(codec={"ends": 4})
    documents = mixed_documents()
    sequences = [model.lay_out(d, np.random.default_rng(d.key)) for d in documents]
    batch = collate(sequences, pack(sequences, 4, 96), 96, model.blank())
    sums: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for part in split(batch, parts, model.blank()):
            assert part.shape == (4 // parts, 96)
            for name, pair in model.losses(part).items():
                sums[name] = sums.get(name, 0) + np.array([float(value) for value in pair])
        for name, pair in model.losses(batch).items():
            assert sums[name] == pytest.approx([float(value) for value in pair], rel=1e-5), name


def test_rows_that_cannot_be_shared_out_are_refused():
    model = small_model()
    sequence = model.lay_out(mixed_documents()[0], np.random.default_rng(0))
    batch = collate([sequence], [[0], [], []], 96, model.blank())
    with pytest.raises(ValueError, match="3 rows cannot be shared out to 2 parts"):
        split(batch, 2, model.blank())


class Still(torch.optim.Optimizer):
    """Moves nothing, and keeps the gradients of its step."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model.parameters(), {})
        self.model, self.seen = model, {}

    def step(self, closure=None) -> None:
        self.seen = gradients(self.model)


def test_a_step_in_parts_and_recomputed_has_the_gradients_of_one_batch(monkeypatch):
    hasten(monkeypatch)
    found = []
    for options in ({}, {"accumulate": 2}, {"accumulate": 4, "recompute": True}):
        run = prepare.prepare(replace(RECIPE, **options))
        with torch.no_grad():
            for parameter in run.model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
        still = Still(run.model)
        means, taken = train_step(run, run.loader.next(0.5), {"all": still})
        assert taken
        found.append(({name: torch.tensor(mean) for name, mean in means.items()}, still.seen))
    for means, seen in found[1:]:
        alike(means, found[0][0])
        alike(seen, found[0][1])


@torch.inference_mode()
def test_matrices_held_narrow_say_what_those_converted_in_each_pass_say():
    model = small_model()
    sequence = model.lay_out(mixed_documents()[0], np.random.default_rng(0))
    batch = collate([sequence], [[0]], len(sequence), model.blank())
    expected = model(batch, dtype=torch.bfloat16)
    with narrowed(model, torch.bfloat16):
        assert all(m.lent.matrix.dtype == torch.bfloat16 for m in model.modules() if isinstance(m, Linear))
        assert torch.equal(model(batch, dtype=torch.bfloat16), expected)
    assert all(m.lent is None for m in model.modules() if isinstance(m, Linear))


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_matrix_laid_out_for_few_rows_gives_the_same_product(dtype):
    torch.manual_seed(0)
    small, large = 160, 1664
    # wider than tall, several that are taller together, and what is large enough in fp32, too
    for wide, sizes in ((small, (96,)), (small, (96, 32, 64)), (large, (96, 64))):
        linears = tuple(Linear(TrunkConfig(), wide, size) for size in sizes)
        weight, lent = torch.cat([linear.weight for linear in linears]), Lent(linears, dtype)
        for rows in (1, 3, FEW, FEW + 1):
            x = torch.randn(rows, 2, wide).to(dtype)[:, :1]  # as a slice of something larger comes in
            expected = x.double() @ weight.to(dtype).double().T
            assert (lent(x) - expected).abs().max() <= (1e-5 if dtype == torch.float32 else 1e-2) * expected.abs().max()
        packs = torch.backends.mkldnn.is_available() and (wide == large or dtype == torch.bfloat16)
        if dtype == torch.bfloat16:  # only where the processor multiplies it
            packs = packs and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        assert ("packed" in vars(lent)) == packs


@torch.inference_mode()
def test_matrices_of_one_input_are_one_while_the_model_generates_and_adapters_part_of_them():
    model = small_model(trunk={"adapter_rank": 2})
    for name, parameter in model.named_parameters():
        if name.endswith("widen"):
            parameter.normal_(std=0.1)
    sequence = model.lay_out(mixed_documents()[0], np.random.default_rng(0))
    batch = collate([sequence], [[0]], len(sequence), model.blank())
    expected, block = model(batch), model.trunk.blocks[0]
    with narrowed(model, torch.float32):
        assert torch.allclose(model(batch), expected, atol=1e-5)
        assert "matrix" in vars(block.attention.qkv.lent) and "matrix" not in vars(block.attention.q.lent)


@torch.no_grad()
@pytest.mark.parametrize("many", [1, 1 << 30])
@pytest.mark.parametrize("slots", [[1, 2], [2, 0], [0, 3]])
def test_slots_that_follow_one_another_and_slots_that_do_not_read_the_same(slots, many, monkeypatch):
    """Also where they hold unlike lengths: slot 0 and 2 begin with one document more; and whoever asks by itself."""
    monkeypatch.setattr("mixmodal.cache.MANY", many)
    model = small_model()
    blank = model.blank()

    def read(cache: Cache, sequence, at: list[int]) -> torch.Tensor:
        start = [cache.used[slot] for slot in at]
        length = len(sequence)
        return model(
            collate([sequence] * len(at), [[i] for i in range(len(at))], length, blank, start), cache=cache, slots=at
        )

    sequences = [model.lay_out(d, np.random.default_rng(0)) for d in mixed_documents()[:2]]
    # what memory holds before it is written may be no number
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda t, *a: empty(*a, dtype=t.dtype).fill_(torch.nan))
    together, alone = Cache(model.config.trunk, 4, 8), [Cache(model.config.trunk, 1, 200) for _ in slots]
    for place, slot in enumerate(slots):
        if slot % 2 == 0:
            read(together, sequences[0], [slot]), together.keep()
            read(alone[place], sequences[0], [0]), alone[place].keep()
    for keep in (False, True, False):
        found = read(together, sequences[1], slots)
        for place, cache in enumerate(alone):
            assert torch.allclose(found[place], read(cache, sequences[1], [0])[0], atol=1e-5)
            if keep:
                cache.keep()
        if keep:
            together.keep()
