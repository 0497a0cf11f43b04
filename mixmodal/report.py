"""The page of a comparison: one file that needs no network, from its result alone."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from typing import Any

from mixmodal.compute import duration
from mixmodal.judge.intervals import half_width
from mixmodal.plan import TWIN

COLOURS = (
    *("#2a5db0", "#c2521b", "#2c8a57", "#8a3fa0", "#b08a00", "#0f8f9c", "#c02f5b", "#6b6b74", "#7a5230", "#4a4ae0"),
    *("#93b5e8", "#f0a47c", "#8fd0ad", "#cf9fdd", "#e0c860", "#83d3db"),
)
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1120px;padding:20px;color:#1e1e22;background:#fff}
h1{font-size:25px;line-height:1.25;margin:0 0 6px} h2{font-size:19px;margin:34px 0 8px}
p,li{max-width:74ch;margin:6px 0} .wide{overflow-x:auto;margin:10px 0} table{border-collapse:collapse;font-size:14.5px}
td,th{padding:5px 14px 5px 0;text-align:left;vertical-align:top;white-space:nowrap}
th{font-weight:600;border-bottom:1px solid #bbb} td{font-variant-numeric:tabular-nums;border-bottom:1px solid #eee}
.dim{color:#6d6d75;font-size:13px} svg{width:100%;height:auto;display:block}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:18px}
.dot{display:inline-block;width:11px;height:11px;border-radius:6px;margin-right:6px}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:14px;margin:8px 0}
.made img{width:72px;height:auto;image-rendering:pixelated;border:1px solid #ddd;border-radius:3px;display:block}
.made td{padding:4px 8px 4px 0;white-space:normal;min-width:72px}
.made td:first-child{min-width:150px;font-size:13.5px}
"""
COSTS = (
    "arm",
    "parameters",
    "steps",
    "pictures seen",
    "prose seen",
    "training",
    "of it, what it stands on",
    "time",
    "memory",
    "a picture: passes",
    "FLOPs",
    "seconds",
    "guidance",
)
NAMES = {
    "text_to_image.exact": "pictures, exact",
    "text_to_image.parts": "parts right",
    "text_to_image.letters": "letters right",
    "image_to_text.exact": "described, exact",
    "image_to_image.exact": "copied, exact",
    "one_picture.exact": "of one picture",
    "two_pictures.exact": "of two pictures",
    "two_pictures.changed": "what changed",
    "two_pictures.same": "the same?",
    "two_pictures.which": "which has more",
    "two_pictures.backgrounds": "backgrounds the same?",
    "two_pictures.blind": "of two, without looking",
    "text_to_image.frechet": "pictures, distance",
    "image_to_text.bits_per_byte": "captions, bits a byte",
    "text.bits_per_byte": "prose, bits a byte",
    "text.bits_per_byte.change": "prose, bits since the start",
    "text.bits_per_byte.beside": "prose, bits beside its twin's",
}
LEFT = {"psnr": "dB", "read": "still read", "written": "of what is to be written"}  # of pictures by a tokenizer
NEAREST = "nearest_training"  # what a picture of training would get whose sentence is the nearest
PROSE = "text.bits_per_byte"
LITTLE = 0.05  # of what is learned: a text ability of less is told, and nothing concluded from it
MARKS = 6  # along a chart: so few costs are told themselves
# the less the better
LOWER = ("text_to_image.frechet", "image_to_text.bits_per_byte", PROSE, f"{PROSE}.change", f"{PROSE}.beside")
DRAWN = {
    "text_to_image.exact": "exact pictures",
    "text_to_image.frechet": "distance of pictures from true ones",
    "two_pictures.exact": "right answers about two pictures",
    "image_to_text.exact": "exact descriptions",
}


def page(result: dict[str, Any]) -> str:
    """The whole page."""
    arms = result["arms"]
    inks = {label: COLOURS[number % len(COLOURS)] for number, label in enumerate(arms)}
    shown = [name for name in NAMES if any(name in arm["scores"] for arm in arms.values())]
    scores = [_scores_row(label, arm, shown, inks) for label, arm in arms.items()]
    ((kind, amount),) = result["budget"].items()
    spent = _flops(amount) if kind == "flops" else f"{amount:,.6g} {kind}"
    seeds, wanted = (", ".join(map(str, result.get(name, result["seeds"]))) for name in ("seeds", "of_seeds"))
    count = len(arms) - len(result["beside"])
    seeds += f" (so far, of {wanted})" if seeds != wanted else ""
    twin = f"{TWIN}ARM learned prose alone, for what ARM spent on it." if result["twins"] else ""
    asked = ", ".join(f"{name} {_flat(value)}" for name, value in result["options"].items() if name != "source")
    made = "".join(f"<tr><td>{_safe(k)}</td><td>{_safe(v)}</td></tr>" for k, v in result["fingerprint"].items())
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_safe(result["name"])}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>
<h1>{_safe(result["question"])}</h1>
<p>{count} arm{"s" * (count != 1)}, seed{"s" * (len(result["seeds"]) != 1)} {seeds}, each on {spent}. Judged by the
suite <i>{_safe(result["suite"])}</i>{f" ({_safe(asked)})" if asked else ""}: {_count(result)} questions of a kind, the
same for every seed, one sample each, curves with up to {result["few"]}. Intervals are of 95 %: of rates the wider of
that over the seeds and that over the questions, of other numbers (±) that over the seeds. {twin}</p>
<ul>{"".join(f"<li>{line}</li>" for line in verdicts(result))}</ul>
<h2>Scores</h2>{_table(("arm", *(NAMES[name] for name in shown)), scores)}
<h2>Costs</h2>{_table(COSTS, [_costs_row(label, arm, inks) for label, arm in arms.items()])}
<p class="dim">FLOPs are counted as the runs multiply, encoding and tokenizers included; time and seconds are of this
machine, memory is the most that the process of a training held. Guidance and weights were tuned on other questions than
those told here, with the first seed. Pictures and prose (positions) seen are reckoned from a few documents.</p>
{_nets(result)}{_to_rates(result, inks)}{_charts(result, inks)}{_samples(result, inks)}
<h2>What made this</h2><div class="wide"><table>{made}</table></div></body></html>"""


def _table(heads: tuple[str, ...], rows: list[str]) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def verdicts(result: dict[str, Any]) -> list[str]:
    """One sentence for each score: which arm is best, and whether another one may be as good."""
    lines, arms = [], {n: arm for n, arm in result["arms"].items() if n not in result["beside"]}
    for name, words in NAMES.items():
        found = {
            label: arm["scores"][name]
            for label, arm in arms.items()
            if name in arm["scores"] and not (name.startswith(PROSE) and arm["text_share"] < LITTLE)
        }
        if len(found) < 2 or name.endswith(".blind"):
            continue
        sign = -1 if name in LOWER else 1
        order = sorted(found, key=lambda label: sign * found[label]["value"], reverse=True)
        best = found[order[0]]
        if all(score["value"] == best["value"] for score in found.values()):
            lines.append(f"<b>{words}</b>: all arms alike, {_told(best)}.")
            continue
        if len(best["seeds"]) < 2:
            rest = f"; next {order[1]} with {_told(found[order[1]])}. One seed does not tell their order"
        elif all(score.get("half", 0.0) is not None for score in found.values()):
            low = _ends(best, sign)[0]
            near = [label for label in order[1:] if _ends(found[label], sign)[1] >= low]
            rest = f"; the intervals of {', '.join(near)} reach into its own" if near else ", apart from all others"
            rest += _ahead(arms, order[:2], name) if near else ""
        else:
            rest = f"; next {order[1]} with {_told(found[order[1]])}"
        lines.append(f"<b>{words}</b>: {_safe(order[0])} with {_told(best)}{_safe(rest)}.")
    for label, arm in result["arms"].items():
        for seed, why in arm["diverged"].items():
            lines.append(
                f"<b>{_safe(label)} diverged</b> with seed {_safe(seed)}, and has no score of it: {_safe(why)}."
            )
    near = next((arm["scores"] for arm in arms.values() if f"{NEAREST}.parts" in arm["scores"]), None)
    if near is not None:
        exact, parts = near[f"{NEAREST}.exact"]["value"], near[f"{NEAREST}.parts"]["value"]
        lines.append(
            f"A picture of training whose sentence is the nearest: {exact:.1%} exact, {parts:.1%} of parts right."
        )
    return lines


def _count(result: dict[str, Any]) -> str:
    """How many questions were asked, of data that has fewer than were wanted."""
    asked = [arm["asked"] for arm in result["arms"].values() if arm.get("asked")]
    return str(min([result["n"], *asked]))


def _flat(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _ahead(arms: dict[str, Any], order: list[str], name: str) -> str:
    """By how much one arm is ahead of another, seed by seed: both were asked the same."""
    (best, other), label = (arms[of]["scores"][name] for of in order), order[1]
    seeds = [score.get("of", arms[of]["seeds"]) for score, of in zip((best, other), order, strict=True)]
    if seeds[0] != seeds[1]:  # one of them diverged, or what it is told beside
        return ""
    apart = [a - b for a, b in zip(best["seeds"], other["seeds"], strict=True)]
    middle, half = abs(sum(apart) / len(apart)), half_width(apart)
    if not math.isfinite(half) or half == 0:  # alike in all seeds: a few questions, no certainty
        return ""
    told = f"{100 * middle:.1f} ± {100 * half:.1f} points" if "low" in best else f"{middle:.3f} ± {half:.3f}"
    return f"; on these questions it is ahead of {label} by {told}, seed by seed"


def _ends(score: dict[str, Any], sign: int) -> tuple[float, float]:
    """The worse and the better end of an interval."""
    value, half = score["value"], score.get("half", 0.0)
    half = math.inf if half is None else half
    ends = sorted((sign * score.get("low", value - half), sign * score.get("high", value + half)))
    return ends[0], ends[1]


def _safe(text: Any) -> str:
    return html.escape(str(text))


def _told(score: dict[str, Any]) -> str:
    if "low" in score:
        return f"{score['value']:.1%} ({score['low']:.0%} to {score['high']:.0%})"
    return f"{score['value']:.3f}" + ("" if score["half"] is None else f" ± {score['half']:.3f}")


def _name(label: str, inks: dict[str, str]) -> str:
    return f'<span class="dot" style="background:{inks[label]}"></span>{_safe(label)}'


def _scores_row(label: str, arm: dict[str, Any], shown: list[str], inks: dict[str, str]) -> str:
    cells = []
    for name in shown:
        score = arm["scores"].get(name)
        if score is None:
            cells.append("<td>–</td>")
            continue
        each = ", ".join(f"{v:.0%}" if "low" in score else f"{v:.2f}" for v in score["seeds"])
        cells.append(f'<td>{_told(score)}<br><span class="dim">{each}</span></td>')
    return f"<tr><td>{_name(label, inks)}</td>{''.join(cells)}</tr>"


def _nets(result: dict[str, Any]) -> str:
    """What tokenizers cost, and what they leave of pictures."""
    if not result["nets"]:
        return ""
    rows = []
    for name, net in result["nets"].items():
        left = [_told(net["scores"][of]) if of in net["scores"] else "–" for of in LEFT]
        cells = (_safe(name), _flops(net["flops"]), duration(_mean(net["seconds"])), *left)
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f"<h2>Tokenizers, on held-out pictures</h2>{_table(('', 'training', 'time', *LEFT.values()), rows)}"


def _costs_row(label: str, arm: dict[str, Any], inks: dict[str, str]) -> str:
    flops, seconds = _mean(arm["flops"]), _mean(arm["seconds"])
    price, tuned = arm["sampling"], arm["tuned"]
    averaged = ", averaged weights" if tuned.get("weights") == "average" else ""
    cooled = f", temperature {tuned['temperature']:g}" if tuned.get("temperature") else ""
    cells = [
        _name(label, inks),
        f"{arm['parameters'] / 1e6:.2f} M",
        f"{_mean(arm['steps']):,.0f}",
        f"{arm['pictures']:,.0f}" if arm["pictures"] else "–",
        f"{arm['words']:,.0f}",
        _flops(flops),
        f"{arm['flops_of_nets'] / flops:.0%} of FLOPs, {duration(_mean(arm['seconds_of_nets']))}"
        if arm["stands_on"]
        else "–",
        duration(seconds),
        f"{arm['memory'] / 2**30:.2f} GiB",
        *((f"{price['passes']:.0f}", _flops(price["flops"]), f"{price['seconds']:.2f}") if price else ("–", "–", "–")),
        f"{tuned['guidance']:g}{cooled}{averaged}" if "guidance" in tuned else "–",
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _to_rates(result: dict[str, Any], inks: dict[str, str]) -> str:
    """What it takes to draw so many pictures right, where any arm does."""
    found = {label: arm["to_rate"] for label, arm in result["arms"].items() if "to_rate" in arm}
    if not any(any(rates.values()) for rates in found.values()):
        return ""
    rates = list(next(iter(found.values())))
    rows = []
    for label, arm in found.items():
        most = f"not in {_flops(_mean(result['arms'][label]['flops']))}"
        seeds = result["arms"][label].get("to_rate_of_seeds", {})
        cells = [
            (f"{_flops(c['flops'])}, {duration(c['seconds'])}" if (c := arm[rate]) else most) + _each(seeds.get(rate))
            for rate in rates
        ]
        rows.append(f"<tr><td>{_name(label, inks)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f"<h2>Training until so many pictures are exact</h2>{_table(('arm', *rates), rows)}{_against(result)}"


def _against(result: dict[str, Any]) -> str:
    """How many times as much one arm takes as another."""
    seeds, rows = len(result["seeds"]), []
    for told in result.get("against", []):
        cells = [_safe(f"{told['arm']} ÷ {told['against']}"), told["rate"]]
        for cost in ("flops", "seconds"):
            found, reached = told[cost], "reached by {} and {} of {} seeds".format(*told["reached"], seeds)
            if found is None:
                cells.append(reached)
            elif "more_than" in found:
                cells.append(f"more than {found['more_than']:.2f} times ({reached})")
            else:
                between = f" ({found['low']:.2g} to {found['high']:.2g})" if "low" in found else ""
                cells.append(f"{found['times']:.2f} times{between}")
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return _table(("", "rate", "FLOPs", "time"), rows) if rows else ""


def _each(seeds: list[dict[str, float] | None] | None) -> str:
    """What each seed took, in small letters."""
    told = ", ".join(_flops(found["flops"]) if found else "not" for found in seeds or [])
    return f'<br><span class="dim">{told}</span>' if told else ""


def _flops(count: float) -> str:
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G")):
        if count >= size:
            return f"{count / size:.3g} {letter}FLOPs"
    return f"{count / 1e6:.3g} MFLOPs"


def _mean(found: list[float]) -> float:
    return sum(found) / len(found)


def _charts(result: dict[str, Any], inks: dict[str, str]) -> str:
    drawing = {label: arm for label, arm in result["arms"].items() if arm.get("curve")}
    if not drawing:
        return ""

    def lines(drawn: str, of: str, least: int, across: Callable[[dict], float]) -> dict[str, list[tuple[float, dict]]]:
        return {
            label: [(across(p), p["scores"][drawn]) for p in arm[of] if drawn in p["scores"]]
            for label, arm in drawing.items()
            if len(arm.get(of, ())) >= least
        }

    wanted = (
        ("curve", 1, lambda p: p["flops"] / 1e12, "TFLOPs of training", False),
        ("curve", 1, lambda p: p["seconds"] / 60, "minutes of training", False),
        ("evaluations", 2, lambda p: p["steps"], "steps sampled", True),  # one: steps change nothing there
        ("evaluations", 1, lambda p: p["flops"] / 1e9, "GFLOPs a picture", True),
    )
    charts = [
        chart(found, inks, (x_name, told), log)
        for drawn, told in DRAWN.items()
        for of, least, across, x_name, log in wanted
        if any((found := lines(drawn, of, least, across)).values())
    ]
    legend = "".join(f"<span>{_name(label, inks)}</span>" for label in drawing)
    return (
        f'<h2>Quality over cost</h2><div class="legend">{legend}</div>'
        f'<div class="charts">{"".join(charts)}</div>'
        '<p class="dim">Lines are means over the seeds, pale dots each seed. A point before the end is of a training'
        " whose rates have not fallen yet.</p>"
    )


def chart(
    lines: dict[str, list[tuple[float, dict]]], inks: dict[str, str], names: tuple[str, str], log: bool = False
) -> str:
    """Scores over a cost as a picture in SVG; `names` are of cost and score, `log` puts costs apart by their ratio."""
    width, height, left, bottom, top = 360, 250, 42, 206, 22
    bend = math.log2 if log else float
    xs = [bend(x) for points in lines.values() for x, _ in points]
    low, high = (min(xs) if log else 0.0), max(xs)
    scores = [score for points in lines.values() for _, score in points]
    shares = all("low" in score for score in scores)
    most = 1.0 if shares else max(value for score in scores for value in score["seeds"]) or 1.0

    def at(x: float, score: float) -> tuple[float, float]:
        across = (bend(x) - low) / ((high - low) or 1)
        return left + across * (width - left - 14), bottom - score / most * (bottom - top)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{names[1]} over {names[0]}">']
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = at(2**low if log else low, share * most)[1]
        told = f"{share:.0%}" if shares else f"{share * most:.3g}"
        parts.append(f'<line x1="{left}" x2="{width - 14}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e8"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" font-size="11" text-anchor="end" fill="#666">{told}</text>')
    alike = len({tuple(x for x, _ in points) for points in lines.values()}) == 1
    told_each = alike and len(set(xs)) <= MARKS
    marks = sorted(set(xs)) if told_each else [low + (high - low) * i / 4 for i in range(5)]
    for bent in marks:
        value, (x, _) = 2**bent if log else bent, at(2**bent if log else bent, 0)
        side = "end" if bent == high else "middle"  # the last would leave the picture
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 16}" font-size="11" text-anchor="{side}" fill="#666">{value:.3g}</text>'
        )
    parts.append(
        f'<text x="{(left + width) / 2}" y="{height - 8}" font-size="12" text-anchor="middle" fill="#333">'
        f"{names[0]}</text>"
    )
    parts.append(f'<text x="{left}" y="12" font-size="12" fill="#333">{names[1]}</text>')
    for label, points in lines.items():
        for x, score in points:
            for value in score["seeds"]:
                cx, cy = at(x, value)
                parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="2.4" fill="{inks[label]}" opacity=".3"/>')
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(x, s["value"]) for x, s in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{inks[label]}" stroke-width="2"/>')
    return "".join(parts) + "</svg>"


def _samples(result: dict[str, Any], inks: dict[str, str]) -> str:
    drawing = {label: arm["samples"] for label, arm in result["arms"].items() if arm["samples"]}
    if not drawing:
        return ""
    head = "".join(f"<td>{_name(label, inks)}</td>" for label in drawing)
    rows = []
    for number, first in enumerate(next(iter(drawing.values()))):
        pictures = "".join(
            f'<td><img src="data:image/png;base64,{samples[number]["png"]}" alt="{_safe(label)}"></td>'
            for label, samples in drawing.items()
        )
        rows.append(f"<tr><td>{_safe(first['prompt'])}</td>{pictures}</tr>")
    seed = result["seeds"][0]
    return (
        f"<h2>The same sentences, drawn by each (seed {seed})</h2>"
        f'<div class="wide"><table class="made"><tr><td></td>{head}</tr>{"".join(rows)}</table></div>'
    )
