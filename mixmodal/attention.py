"""Who sees whom, one rule (`visible`) behind four ways to compute the same attention.

plain     matmul and softmax with a mask: on the CPU the fastest to train with, since SDPA's backward is slow there
dense     scaled_dot_product_attention with the same mask
segments  the same without a mask: the rule, asked once per pair of runs, answers all, none or triangle
flex      FlexAttention with the rule as its mask_mod: the CUDA path (it has no CPU backward)
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from mixmodal.config import PATHS
from mixmodal.sequence import Place

MASK_LIMIT_BYTES = 1 << 30
FEW, MANY = 8, 1 << 14  # queries, and pairs of one with a key, from which a CPU answers a row by itself as fast


class Segment(NamedTuple):
    """Queries of one row [start, stop) and the key positions they read; `triangle` where the last keys are theirs."""

    row: int
    start: int
    stop: int
    keys: Tensor | None  # None: the queries' own positions only
    triangle: bool


class Sight(NamedTuple):
    """What attention and rotary need of a batch, prepared once: at most one of the three views is there.

    `plain` says how a mask is used: by matmul and softmax, or by scaled_dot_product_attention. `ends` are, where each
    row is to be asked by itself, the keys before which its own end, and whether some of those are masked. `routes` are,
    for each expert, the positions that take it, counted over the rows; one past the last leads nowhere.
    """

    cos_BLE: Tensor
    sin_BLE: Tensor
    mask_B1LK: Tensor | None = None
    segments: tuple[Segment, ...] | None = None
    block: BlockMask | None = None
    plain: bool = True
    ends: tuple[tuple[int, bool], ...] = ()
    routes: tuple[Tensor, ...] = ()


def visible(q: Place, k: Place) -> Tensor:
    """True where position q may read position k. Works on anything that broadcasts."""
    same_span = (q.span == k.span) & (q.span >= 0)
    earlier = (k.index <= q.index) & ((k.private < 0) | (k.private == q.private))
    return (same_span | earlier) & (q.doc == k.doc) & (q.doc >= 0)


def visible_mask(q: Place, k: Place) -> Tensor:
    """The rule for every pair; a padded position sees what stands at its own index, so that no row is empty.

    Shapes:  fields of q [B, L], of k [B, K] -> [B, 1, L, K] bool.
    Limits:  refuses a mask over 1 GiB.
    """
    rows, length = q.doc.shape
    size = rows * length * k.doc.shape[1]
    if size > MASK_LIMIT_BYTES:
        raise ValueError(
            f"a mask of {rows} x {length} x {k.doc.shape[1]} takes {size / 2**30:.1f} GiB, the limit is"
            f" {MASK_LIMIT_BYTES / 2**30:.0f}: train on the path 'segments' or 'flex' or with shorter rows; ask with a"
            " shorter prompt or for smaller pictures"
        )
    seen = visible(Place(*(f[:, :, None] for f in q)), Place(*(f[:, None, :] for f in k)))
    padding = (q.doc < 0)[:, :, None] & (k.index[:, None, :] == q.index[:, :, None])
    return (seen | padding)[:, None]


def _visible_at(place: Place, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    at_q, at_k = Place(*(f[b, q] for f in place)), Place(*(f[b, k] for f in place))
    return visible(at_q, at_k) | (q == k)


def sight(place: Place, cos_BLE: Tensor, sin_BLE: Tensor, path: str = "plain") -> Sight:
    """The view of a batch that the attention path `path` needs.

    Raises:  ValueError for an unknown path.
    """
    if path not in PATHS:
        raise ValueError(f"attention path {path!r} is unknown: take one of {', '.join(PATHS)}")
    if path == "segments":
        return Sight(cos_BLE, sin_BLE, segments=find_segments(place))
    if path == "flex":
        rows, length = place.doc.shape
        block = create_block_mask(partial(_visible_at, place), rows, None, length, length, device=place.doc.device)
        return Sight(cos_BLE, sin_BLE, block=block)
    return Sight(cos_BLE, sin_BLE, visible_mask(place, place), plain=path == "plain")


def attend(q_BHLE: Tensor, k_BHKE: Tensor, v_BHKE: Tensor, seen: Sight) -> Tensor:
    """Attention of q over k and v as `seen` allows.

    Shapes:  [B, H, L, E], [B, G, K, E] and [B, G, K, F] with G dividing H -> [B, H, L, F].
    """
    groups = q_BHLE.shape[1] // k_BHKE.shape[1]
    if seen.block is not None:
        return flex_attention(q_BHLE, k_BHKE, v_BHKE, block_mask=seen.block, enable_gqa=groups > 1)
    if seen.segments is None and seen.plain:
        return _attend_plainly(q_BHLE, k_BHKE, v_BHKE, seen.mask_B1LK)
    if seen.ends:
        return _attend_by_rows(q_BHLE, k_BHKE, v_BHKE, seen)
    if q_BHLE.dtype != k_BHKE.dtype:  # what a cache keeps
        return attend(q_BHLE.to(k_BHKE.dtype), k_BHKE, v_BHKE, seen).to(q_BHLE.dtype)
    if seen.segments is None:
        return scaled_dot_product_attention(q_BHLE, k_BHKE, v_BHKE, attn_mask=seen.mask_B1LK, enable_gqa=groups > 1)
    if groups > 1:
        k_BHKE, v_BHKE = (x.repeat_interleave(groups, dim=1) for x in (k_BHKE, v_BHKE))
    return _attend_segments(q_BHLE, k_BHKE, v_BHKE, seen.segments)


def _attend_plainly(q: Tensor, k: Tensor, v: Tensor, mask_B1LK: Tensor | None) -> Tensor:
    """Matmul and softmax, over all where there is no mask.

    Heads that share keys and values ask in one product, so that nothing is repeated.
    """
    rows, heads, length, size = q.shape
    shared = k.shape[1]
    scores = (q * size**-0.5).reshape(rows, shared, heads // shared * length, size) @ k.transpose(-1, -2)
    scores = scores.view(rows, heads, length, -1)
    if mask_B1LK is not None:
        scores = scores.masked_fill(~mask_B1LK, -torch.inf)
    weights = scores.softmax(-1, dtype=torch.float32).to(v.dtype)
    return (weights.view(rows, shared, heads // shared * length, -1) @ v).view(rows, heads, length, v.shape[-1])


def _attend_by_rows(q: Tensor, k: Tensor, v: Tensor, seen: Sight) -> Tensor:
    """Attention of each row over its own keys alone: most need no mask then, and what one weighs stays near by."""
    out = q.new_empty(*q.shape[:3], v.shape[-1])
    for row, (end, masked) in enumerate(seen.ends):
        at = slice(row, row + 1)
        mask = seen.mask_B1LK[at, :, :, :end] if masked else None
        own = (q[at], k[at, :, :end], v[at, :, :end])
        if q.dtype == k.dtype:
            out[at] = scaled_dot_product_attention(*own, attn_mask=mask, enable_gqa=q.shape[1] > k.shape[1])
        else:
            _attend_narrowly(*(x[0] for x in own), None if mask is None else mask[0], out[row])
    return out


def _attend_narrowly(q_HLE: Tensor, k_GKE: Tensor, v_GKF: Tensor, mask_1LK: Tensor | None, out_HLF: Tensor) -> None:
    """Fill `out_HLF`, in its dtype: on a CPU products in bf16 are up to twice as fast as SDPA, which works in fp32.

    For forwards alone: it writes over what a gradient would ask for.
    """
    shared, length = len(k_GKE), q_HLE.shape[1]
    scores = (q_HLE * q_HLE.shape[-1] ** -0.5).reshape(shared, -1, q_HLE.shape[-1]) @ k_GKE.to(q_HLE.dtype).mT
    if mask_1LK is not None:
        scores.view(shared, -1, length, scores.shape[-1]).masked_fill_(~mask_1LK, -torch.inf)
    torch.matmul(scores.softmax(-1), v_GKF.to(q_HLE.dtype), out=out_HLF.view(shared, -1, v_GKF.shape[-1]))


def find_segments(place: Place) -> tuple[Segment, ...]:
    """The rule as segments: a Place is constant along a run but for its index, so one question per pair of runs.

    Positions of padding are left out.
    """
    out = []
    for row in range(place.doc.shape[0]):
        doc, span, index, private = (f[row].tolist() for f in place)
        runs, start = [], 0
        for at in range(1, len(doc) + 1):
            same = at < len(doc) and (doc[at], span[at], private[at]) == (doc[start], span[start], private[start])
            if not same or index[at] != index[at - 1] + 1:
                if doc[start] >= 0:
                    runs.append((start, at))
                start = at
        for begin, end in runs:
            keys, triangle, own = [], False, False
            for other, stop in runs:
                first = _rule(doc, span, index, private, begin, stop - 1)  # the least the run sees of the other
                last = _rule(doc, span, index, private, end - 1, other)
                if other == begin and last and not first and end - begin > 1:
                    triangle = own = True
                elif last:
                    keys.append(torch.arange(other, stop))
                    own |= other == begin
            if triangle and keys:
                keys.append(torch.arange(begin, end))
            only_own = not keys or (len(keys) == 1 and own and not triangle)
            out.append(Segment(row, begin, end, None if only_own else torch.cat(keys), triangle))
    return tuple(out)


def _rule(doc: list, span: list, index: list, private: list, q: int, k: int) -> bool:
    at = lambda i: Place(doc[i], span[i], index[i], private[i])  # noqa: E731  # numbers: tensors take far longer
    return bool(visible(at(q), at(k)))


def _attend_segments(q: Tensor, k: Tensor, v: Tensor, segments: tuple[Segment, ...]) -> Tensor:
    out = q.new_zeros(*q.shape[:3], v.shape[-1])
    for segment in segments:
        at = slice(segment.start, segment.stop)
        q_1HLE = q[segment.row : segment.row + 1, :, at]
        keys = at if segment.keys is None else segment.keys
        k_1HKE, v_1HKE = k[segment.row : segment.row + 1, :, keys], v[segment.row : segment.row + 1, :, keys]
        mask, causal = None, segment.triangle and segment.keys is None
        if segment.triangle and segment.keys is not None:
            length, total = q_1HLE.shape[2], k_1HKE.shape[2]
            mask = torch.ones(length, total, dtype=torch.bool, device=q.device).tril(total - length)
        out[segment.row : segment.row + 1, :, at] = scaled_dot_product_attention(
            q_1HLE, k_1HKE, v_1HKE, attn_mask=mask, is_causal=causal
        )
    return out
