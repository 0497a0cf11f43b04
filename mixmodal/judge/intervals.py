"""Rates with their intervals, and other small statistics of scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Z95 = 1.959963984540054
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # 97.5 % by degrees of freedom, from 1


def rate(hits: Iterable[bool]) -> dict[str, float]:
    """The share of hits with its 95 % interval: {"value", "low", "high"}.

    Source:  Wilson 1927, the score interval.
    """
    hits = [bool(hit) for hit in hits]
    count = len(hits)
    if not count:
        return {"value": math.nan, "low": 0.0, "high": 1.0}
    share = sum(hits) / count
    middle = (share + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
    half = Z95 / (1 + Z95**2 / count) * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    return {"value": share, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def mean_share(values: Iterable[float]) -> dict[str, float]:
    """The mean of shares, each from 0 to 1, with its 95 % interval: {"value", "low", "high"}.

    Limits:  a normal one about the mean with two 0 and two 1 added: that all are 1 does not prove that all will be.
    Source:  Agresti & Coull 1998, for rates.
    """
    values = [float(value) for value in values]
    count = len(values)
    if not count:
        return {"value": math.nan, "low": math.nan, "high": math.nan}
    share, more = sum(values) / count, [*values, 0.0, 0.0, 1.0, 1.0]
    middle = sum(more) / len(more)
    half = Z95 * math.sqrt(sum((v - middle) ** 2 for v in more) / (len(more) - 1) / len(more))
    return {"value": share, "low": max(0.0, min(share, middle - half)), "high": min(1.0, max(share, middle + half))}


def told(score: dict[str, float]) -> str:
    """A rate as people read it."""
    return f"{score['value']:6.1%}  [{score['low']:.1%}, {score['high']:.1%}]"


def over_seeds(rates: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of one rate from several seeds, with its 95 % interval: {"value", "low", "high"}.

    Limits:  the wider of two intervals: of the mean over seeds, by Student's law, and of the answers, as they are asked
             the same with each seed.
    """
    values = [rate["value"] for rate in rates]
    middle, count = sum(values) / len(values), len(values)
    low, high = (sum(rate[end] for rate in rates) / count for end in ("low", "high"))
    if count > 1:
        half = half_width(values)
        low, high = min(low, middle - half), max(high, middle + half)
    return {"value": middle, "low": max(0.0, low), "high": min(1.0, high)}


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean by Student's law; infinite for a single value."""
    count, middle = len(values), sum(values) / len(values)
    if count < 2:
        return math.inf
    spread = math.sqrt(sum((v - middle) ** 2 for v in values) / (count - 1) / count)
    return _STUDENT[min(count - 1, len(_STUDENT)) - 1] * spread
