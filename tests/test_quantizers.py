"""Codes of vectors, held to slow and obvious code: indices, round trips over all codes, entropies, gradients."""

from __future__ import annotations

import importlib
import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mixmodal.parallel import ALONE
from mixmodal.quantizers import lfq, use_of

MADE = {
    "vq": {"width": 4, "size": 64},
    "vq, directions": {"width": 4, "size": 64, "unit": True},
    "fsq": {"levels": (8, 5, 5, 5)},
    "fsq, even": {"levels": (4, 8, 6)},
    "fsq, joint": {"levels": (8, 5, 5, 5), "joint": True},
    "lfq": {"bits": 10},
    "lfq, in groups": {"bits": 12, "groups": 3},
    "lfq, on the sphere": {"bits": 6, "sphere": True, "normed": False},
}


def made(name: str, **more):
    """A quantizer of that kind, and vectors for it."""
    module = importlib.import_module(f"mixmodal.quantizers.{name.split(',')[0]}")
    torch.manual_seed(0)
    config = module.Config(**{**MADE[name], **more})
    return module.build(config), torch.randn(200, config.width, requires_grad=True)


def all_codes(quantizer) -> torch.Tensor:
    return torch.tensor(list(itertools.product(*(range(size) for size in quantizer.sizes))))


@pytest.mark.parametrize("name", MADE)
def test_a_code_is_looked_up_as_what_it_quantized_to_and_the_gradient_passes_straight(name):
    quantizer, z = made(name)
    found = quantizer(z)
    assert found.codes_NG.dtype == torch.int64 and found.codes_NG.shape == (200, len(quantizer.sizes))
    sizes = torch.tensor(quantizer.sizes)
    assert (found.codes_NG >= 0).all() and (found.codes_NG < sizes).all()
    assert torch.allclose(quantizer.lookup(found.codes_NG), found.values_ND, atol=1e-5)
    assert torch.equal(quantizer.codes(quantizer.index(found.codes_NG)), found.codes_NG)
    assert quantizer.bits == pytest.approx(math.log2(math.prod(quantizer.sizes)))
    (gradient,) = torch.autograd.grad(found.values_ND.sum(), z, retain_graph=True)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", MADE)
def test_the_gradient_is_that_of_what_is_rounded_and_commitment_pulls_it_to_its_code(name):
    quantizer, z = made(name)
    found, kind = quantizer(z), name.split(",")[0]
    smooth = {
        "vq": lambda: F.normalize(z) if quantizer.config.unit else z,
        "fsq": lambda: (torch.tanh(z + quantizer.shift) * quantizer.reach - quantizer.offset) / quantizer.middle,
        "lfq": lambda: F.layer_norm(z, z.shape[1:]) if quantizer.config.normed else F.normalize(z),
    }[kind]()
    weights = torch.randn_like(z)
    pairs = [((found.values_ND * weights).sum(), (smooth * weights).sum())]
    if kind != "fsq":
        pairs.append((found.losses["commitment"], 0.25 * (smooth - found.values_ND.detach()).square().mean()))
        assert pairs[1][0].item() == pytest.approx(pairs[1][1].item(), rel=1e-5)
    for ours, slow in pairs:
        (mine,) = torch.autograd.grad(ours, z, retain_graph=True)
        (theirs,) = torch.autograd.grad(slow, z, retain_graph=True)
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", MADE)
def test_every_code_stands_for_a_vector_that_quantizes_to_it(name):
    quantizer, _ = made(name)
    codes = all_codes(quantizer)
    assert torch.equal(quantizer.index(codes), torch.arange(len(codes)))
    values = quantizer.lookup(codes)
    assert len(torch.unique(values, dim=0)) == len(codes)
    if name.startswith("fsq"):  # its vectors come before the tanh
        bounded = (values * quantizer.middle + quantizer.offset) / quantizer.reach
        values = torch.atanh(bounded.double().clamp(-1 + 1e-9, 1 - 1e-9)).float() - quantizer.shift
    if name.startswith("lfq"):
        quantizer.config = type(quantizer.config)(**{**MADE[name], "normed": False})
    assert torch.equal(quantizer(values).codes_NG, codes)


def test_the_nearest_vector_is_the_nearest_of_all_tried_one_by_one():
    quantizer, z = made("vq")
    slow = [min(range(64), key=lambda k: float(((x - quantizer.book[k]) ** 2).sum())) for x in z.detach()]
    assert quantizer(z).codes_NG[:, 0].tolist() == slow


def test_averages_are_those_of_what_fell_to_a_code_and_a_code_without_any_is_revived():
    quantizer, z = made("vq", decay=0.5, revive=0, size=3)
    quantizer(z)
    quantizer.moved(ALONE, True)  # begins among the data
    book, count = quantizer.book.clone(), quantizer.count.clone()
    total = book * count[:, None]
    half = z.detach()[:120]
    for piece in (half[:70], half[70:]):  # a step in parts is a step
        quantizer(piece)
    codes = quantizer.nearest(half)
    for k in range(3):
        count[k] = 0.5 * count[k] + 0.5 * (codes == k).sum()
        total[k] = 0.5 * total[k] + 0.5 * half[codes == k].sum(0)
    quantizer.moved(ALONE, True)
    assert torch.allclose(quantizer.book, total / count[:, None], atol=1e-5)

    quantizer, z = made("vq", revive=1, size=16)
    quantizer(z)
    quantizer.moved(ALONE, True)
    quantizer.total[5], quantizer.book[5], quantizer.count[5] = 1e4, 1e6, 1e-2
    quantizer(z)
    quantizer.moved(ALONE, True)
    assert (quantizer.book[5] - z.detach()).norm(dim=1).min() < 0.1
    quantizer.eval()
    before = quantizer.book.clone()
    quantizer(z)
    quantizer.moved(ALONE, True)
    assert torch.equal(quantizer.book, before)


def test_a_joint_code_is_the_index_of_its_levels():
    (apart, z), (joint, _) = made("fsq"), made("fsq", joint=True)
    one, other = apart(z), joint(z)
    assert joint.sizes == (1000,) and joint.bits == pytest.approx(apart.bits)
    assert torch.equal(other.codes_NG[:, 0], apart.index(one.codes_NG))
    assert torch.equal(other.values_ND, one.values_ND)
    assert torch.equal(joint.lookup(other.codes_NG), apart.lookup(one.codes_NG))


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (4, 8, 6), (7,)])
def test_levels_are_those_of_a_formula_in_plain_numbers(levels):
    quantizer = importlib.import_module("mixmodal.quantizers.fsq")
    quantizer = quantizer.build(quantizer.Config(levels))
    z = torch.linspace(-4, 4, 81)[:, None].expand(-1, len(levels))
    for column, count in enumerate(levels):
        reach, offset = (count - 1) * 1.001 / 2, 0.5 if count % 2 == 0 else 0.0
        found = quantizer(z)
        for row, number in enumerate(np.linspace(-4, 4, 81)):
            bounded = math.tanh(number + math.atanh(offset / reach)) * reach - offset
            if abs(bounded % 1 - 0.5) > 1e-3:
                assert found.codes_NG[row, column] == round(bounded) + count // 2
                assert found.values_ND[row, column] == pytest.approx(round(bounded) / (count // 2), abs=1e-5)


@pytest.mark.parametrize("sphere", [False, True])
@pytest.mark.parametrize("bits", [3, 10])
def test_entropies_and_their_gradients_are_those_over_all_codes(bits, sphere):
    quantizer, z = made("lfq", bits=bits, sharpness=0.7, sphere=sphere, normed=False)
    book = quantizer.lookup(all_codes(quantizer))
    p = F.softmax(2 * 0.7 * z.double() @ book.double().T, 1)
    sure = -(p * p.log()).sum(1).mean()
    mean = p.mean(0)
    many = -(mean * mean.log()).sum()
    found = quantizer.entropies(z)
    for ours, slow in zip(found, (sure, many), strict=True):
        assert ours.item() == pytest.approx(slow.item(), rel=1e-5)
        (mine,) = torch.autograd.grad(ours, z, retain_graph=True)
        (theirs,) = torch.autograd.grad(slow, z, retain_graph=True)
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-7)


def test_groups_add_up_the_entropies_of_each():
    quantizer, z = made("lfq, in groups", sharpness=0.7, normed=False)
    one, _ = made("lfq", bits=4, sharpness=0.7, normed=False)
    parts = [one.entropies(z[:, at : at + 4]) for at in (0, 4, 8)]
    for number, whole in enumerate(quantizer.entropies(z)):
        assert whole.item() == pytest.approx(sum(part[number].item() for part in parts), rel=1e-5)


def test_over_many_bits_the_penalty_stays_finite_and_has_a_gradient():
    quantizer, z = made("lfq", bits=18, groups=2)
    quantizer.train()
    found = quantizer(z)
    losses = sum(found.losses.values())
    (gradient,) = torch.autograd.grad(losses, z)
    assert math.isfinite(float(losses)) and gradient.isfinite().all() and gradient.abs().sum() > 0


def test_the_entropy_weighs_three_times_as_much_at_the_start():
    quantizer, z = made("lfq")
    weighed = [float(quantizer(z, progress).losses["entropy"].detach()) for progress in (0.0, 0.165, 0.33, 1.0)]
    assert [w / weighed[-1] for w in weighed] == pytest.approx([3, 2, 1, 1], rel=1e-5)


def test_what_cannot_be_is_refused():
    lfq, fsq = (importlib.import_module(f"mixmodal.quantizers.{name}") for name in ("lfq", "fsq"))
    with pytest.raises(ValueError, match="18 bits in 1 groups"):
        lfq.build(lfq.Config(18))
    with pytest.raises(ValueError, match="give each number 3 to 1000"):
        fsq.build(fsq.Config((8, 1)))


def test_use_is_a_share_and_a_perplexity():
    use = use_of(torch.tensor([0, 0, 3, 3]), 4)
    assert (use.seen, use.share, use.perplexity, use.bits) == pytest.approx((2, 0.5, 2.0, 1.0))


def test_what_a_skipped_step_saw_is_forgotten():
    quantizer, z = made("vq", revive=0, size=8)
    quantizer(z)
    quantizer.moved(ALONE, True)
    quantizer(z * math.nan)
    quantizer.moved(ALONE, False)
    before = quantizer.count.clone()
    quantizer(z[:50])
    quantizer.moved(ALONE, True)
    assert quantizer.book.isfinite().all()
    assert float(quantizer.count.sum()) == pytest.approx(0.99 * float(before.sum()) + 0.01 * 50, rel=1e-5)


@pytest.mark.parametrize(("anneal", "until"), [(0.5, 0.5), (3.0, 0.5), (3.0, 0.0)])
def test_the_weight_of_the_entropy_moves_to_its_end_and_stays(anneal, until):
    quantizer, z = lfq.build(lfq.Config(bits=4, anneal=anneal, until=until)), torch.randn(8, 4)
    losses = [float(quantizer(z, progress).losses["entropy"]) for progress in (0.0, until / 2, until, 1.0)]
    began = anneal if until else 1.0
    assert losses == pytest.approx([losses[3] * share for share in (began, (began + 1) / 2, 1, 1)], rel=1e-5)


def test_bits_that_norming_settles_are_refused():
    with pytest.raises(ValueError, match="take 3 or more, or normed=false"):
        lfq.build(lfq.Config(bits=2))
