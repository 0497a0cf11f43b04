"""The trunk's own pieces: rotary axes, long skips, norms, the MLPs, the cache's room."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import mixed_documents, small_model

from mixmodal.attention import sight, visible_mask
from mixmodal.cache import Cache
from mixmodal.config import TrunkConfig
from mixmodal.rotary import rotary_tables, rotate
from mixmodal.sequence import Place, Run, Sequence, collate
from mixmodal.trunk import MLP, RMSNorm, Trunk, run_block


def test_frequencies_are_dealt_to_time_row_and_column_in_turn():
    coords = torch.tensor([[[2.0, 5.0, 11.0]]])
    cos, sin = rotary_tables(coords, 14, 100.0)
    for i in range(7):
        angle = torch.tensor([2.0, 5.0, 11.0][i % 3] * 100.0 ** -(i / 7))
        for half in (i, i + 7):
            assert cos[0, 0, half] == pytest.approx(float(angle.cos()), abs=1e-6)
            assert sin[0, 0, half] == pytest.approx(float(angle.sin()) * (1 if half > 6 else -1), abs=1e-6)


def test_what_attention_sees_of_rotary_is_the_distance_along_each_axis():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 12)

    def score(at_q, at_k):
        turned = [
            rotate(x, *rotary_tables(torch.tensor([[at]]).float(), 12, 100.0)) for x, at in ((q, at_q), (k, at_k))
        ]
        return float((turned[0] * turned[1]).sum())

    base = score([3, 4, 5], [1, 1, 1])
    assert score([13, 24, 35], [11, 21, 31]) == pytest.approx(base, abs=1e-4)
    for axis in range(3):
        moved = [3, 4, 5]
        moved[axis] += 1
        assert abs(score(moved, [1, 1, 1]) - base) > 1e-3, axis


def test_the_coordinates_of_a_picture_turn_its_positions_apart(model):
    """Rows and columns are told apart, and not only by the learned place."""
    model = small_model(codec={"learned": False})
    runs = model.lay_out(mixed_documents()[3], np.random.default_rng(0)).runs
    batch = collate([Sequence(runs)], [[0]], sum(map(len, runs)), model.blank())
    with torch.no_grad():
        straight = model(batch)
        batch.coords_BL3 = batch.coords_BL3[:, :, [0, 2, 1]]
        assert not torch.allclose(straight, model(batch), atol=1e-4)


def test_the_time_of_a_position_is_that_of_its_run_and_one_where_nothing_is_noisy(model):
    sequence = model.lay_out(mixed_documents()[0], np.random.default_rng(0), times=(0.25, 0.5))
    batch = collate([sequence], [[0]], len(sequence) + 2, model.blank())
    expected = np.concatenate([np.ones(len(r)) if r.time is None else r.time for r in sequence.runs])
    assert batch.time_BL[0].tolist() == [*expected.tolist(), 1, 1] and {0.25, 0.5, 1.0} == set(expected.tolist())


@torch.no_grad()
@pytest.mark.parametrize("depth", [4, 5])
def test_a_long_skip_brings_to_block_i_from_the_end_what_block_i_was_given(depth):
    torch.manual_seed(0)
    config = TrunkConfig(width=16, depth=depth, heads=2, kv_heads=1, head_size=8, mlp_width=24, long_skips=True)
    trunk = Trunk(config)
    for parameter in trunk.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    cos, sin = rotary_tables(torch.randn(1, 5, 3), 8, 100.0)
    none = torch.full((1, 5), -1)
    place = Place(torch.zeros(1, 5), none, torch.arange(5)[None], none)
    seen = sight(place, cos, sin)
    start = x = torch.randn(1, 5, 16)
    entered = []
    for number, block in enumerate(trunk.blocks):
        mirrored = depth - 1 - number
        if number > mirrored:
            x = x + entered[mirrored] @ trunk.skips[mirrored].weight.T
        entered.append(x)
        x = run_block(block, x, seen, None)
    assert len(trunk.skips) == depth // 2
    assert torch.allclose(trunk(start, seen), trunk.norm(x), atol=1e-5)


def test_a_norm_divides_by_the_root_mean_square_and_keeps_the_type():
    x = torch.randn(3, 8) * 5
    assert torch.allclose(RMSNorm(8, 0.0)(x).square().mean(-1), torch.ones(3), atol=1e-5)
    bare = RMSNorm(8, 1e-6, gain=False)
    assert not list(bare.parameters()) and bare(x.bfloat16()).dtype == torch.bfloat16


@torch.no_grad()
def test_squared_relu_has_one_matrix_less_than_swiglu():
    for kind, count in (("swiglu", 3), ("relu2", 2)):
        mlp = MLP(TrunkConfig(width=8, mlp_width=12, mlp=kind))
        torch.nn.init.normal_(mlp.down.weight)
        assert len(list(mlp.parameters())) == count
        x = torch.randn(2, 8)
        up = x @ mlp.up.weight.T
        inner = up.relu() ** 2 if kind == "relu2" else torch.nn.functional.silu(x @ mlp.gate.weight.T) * up
        assert torch.allclose(mlp(x), inner @ mlp.down.weight.T, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_gated_block_is_the_slow_obvious_formula(qk_norm):
    torch.manual_seed(0)
    shape = {"width": 16, "depth": 1, "heads": 1, "kv_heads": 1, "head_size": 8, "mlp_width": 24}
    block = Trunk(TrunkConfig(**shape, block="gau", qk_norm=qk_norm, qk_scale=2.0)).blocks[0]
    for parameter in block.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    none, x = torch.full((1, 5), -1), torch.randn(1, 5, 16)
    coords = torch.randn(1, 5, 3)
    cos, sin = rotary_tables(coords, 8, 100.0)
    seen = sight(Place(torch.zeros(1, 5), none, torch.arange(5)[None], none), cos, sin)
    silu = torch.nn.functional.silu
    normed = block.norm(x)
    u, v, z = (silu(normed @ m.weight.T)[0] for m in (block.gate, block.v, block.shared))
    if qk_norm:
        z = z / z.square().mean(-1, keepdim=True).add(1e-6).sqrt()
    q, k = (rotate((z * block.scale[i] + block.shift[i])[None, :, None], cos, sin)[0, :, 0] for i in (0, 1))
    weights = ((2 * q @ k.T) * 8**-0.5).masked_fill(~torch.ones(5, 5).tril().bool(), -torch.inf).softmax(-1)
    assert torch.allclose(run_block(block, x, seen, None), x + (u * (weights @ v)) @ block.o.weight.T, atol=1e-5)


def test_a_trunk_says_which_blocks_there_are():
    with pytest.raises(ValueError, match="did you mean gau"):
        Trunk(TrunkConfig(block="gua"))
    with pytest.raises(ValueError, match="one head, got 6 and 6: set both to 1"):
        Trunk(TrunkConfig(block="gau"))


@torch.no_grad()
def test_a_new_block_adds_nothing_and_a_condition_reaches_both_of_its_halves():
    torch.manual_seed(0)
    config = TrunkConfig(width=16, depth=1, heads=2, kv_heads=2, head_size=8, mlp_width=24, adaptive=True)
    trunk = Trunk(config)
    torch.nn.init.normal_(trunk.blocks[0].modulate.weight)
    place = Place(*(torch.tensor([[v, v]], dtype=torch.int32) for v in (0, 0, 0, -1)))
    seen = sight(place, *rotary_tables(torch.zeros(1, 2, 3), 8, 100.0))
    x, condition = torch.randn(2, 1, 2, 16)
    assert torch.equal(run_block(trunk.blocks[0], x, seen, condition), x)  # both last matrices begin at zero
    for last in (trunk.blocks[0].attention.o, trunk.blocks[0].mlp.down):
        torch.nn.init.normal_(last.weight)
        plain, moved = (run_block(trunk.blocks[0], x, seen, c) for c in (torch.zeros_like(condition), condition))
        assert not torch.allclose(plain, moved, atol=1e-3)
        torch.nn.init.zeros_(last.weight)


@torch.no_grad()
def test_a_cache_grows_and_a_cleared_slot_is_as_new(model):
    tokens = model.speaker.codec.size_tokens()[:20]
    run = Run("text", {"values": np.array(tokens)}, np.repeat(np.arange(20, dtype=np.float32)[:, None], 3, 1))
    batch = collate([Sequence([run])], [[0]], 20, {"text": model.blank()["text"]})
    fresh = model(batch, cache=Cache(model.config.trunk, 1, 4), slots=[0])
    cache = Cache(model.config.trunk, 3, 4)
    for _ in range(3):  # the same sequence thrice in one slot, the slot cleared in between
        assert torch.allclose(model(batch, cache=cache, slots=[2]), fresh, atol=1e-6)
        cache.keep()
        assert cache.used == [0, 0, 20] and cache.keys.shape[3] >= 20
        cache.clear(2)


def test_a_position_of_padding_sees_itself_alone(model):
    sequence = model.lay_out(mixed_documents()[2], np.random.default_rng(0))
    place = collate([sequence], [[0], []], len(sequence) + 3, model.blank()).place
    mask = visible_mask(place, place)[:, 0]
    assert torch.equal(mask[1], torch.eye(len(sequence) + 3, dtype=torch.bool))
    assert mask[0, len(sequence) :, len(sequence) :].equal(torch.eye(3, dtype=torch.bool))
