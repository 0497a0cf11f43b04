"""A comparison as one result: every number of every arm over its seeds, and what made them."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixmodal import config as values
from mixmodal.chain import starts_from
from mixmodal.judge.intervals import half_width, over_seeds
from mixmodal.plan import TRAINED, Comparison, comparison_in, home, paid, planned

RATES = (0.25, 0.5)  # of exact pictures, to which the cost is told


def collected(out: Path) -> dict[str, Any]:
    """The result of the comparison in `out`, of the seeds that are done: for JSON, and for the page.

    Raises:  FileNotFoundError if not even the first is.
    """
    whole = comparison_in(out)
    plan = planned(whole, out)
    judged = [*whole.arms, *plan["nets"], *plan["twins"]]
    done = [s for s in whole.seeds if all((home(out, label, s) / "scores.json").exists() for label in judged)]
    comparison = replace(whole, seeds=tuple(done) or whole.seeds[:1])
    arms = {label: _arm(comparison, plan["arms"][label], out, label) for label in comparison.arms}
    arms |= {name: _arm(comparison, told, out, name) for name, told in plan["starts"].items()}
    nets = {n: _net(comparison, plan["nets"][n], out, n) for n in plan["nets"] if n not in plan["starts"]}
    for label in comparison.arms:
        if start := starts_from(comparison.arms[label]):
            arms[label]["scores"] |= _apart(arms[label], arms[start], "change")
    for name, told in plan["twins"].items():
        arms[name] = _arm(comparison, told, out, name)
        arms[told["of"]]["scores"] |= _apart(arms[told["of"]], arms[name], "beside")
    return {
        "name": comparison.name,
        "question": comparison.question,
        "budget": comparison.budget,
        "suite": comparison.suite,
        "options": comparison.options,
        "seeds": list(comparison.seeds),
        "of_seeds": list(whole.seeds),
        "n": comparison.n,
        "few": comparison.few,
        "arms": arms,
        "beside": [*plan["starts"], *plan["twins"]],
        "twins": {name: told["of"] for name, told in plan["twins"].items()},
        "against": against(comparison.against, arms),
        "nets": nets,
        "fingerprint": fingerprint(whole, [*arms.values(), *nets.values()], plan["data"]),
    }


def fingerprint(comparison: Comparison, runs: list[dict[str, Any]], data: str) -> dict[str, str]:
    """What made the numbers: code, settings and data by their digests, versions, the machines."""
    settings = json.dumps(values.to_json(comparison), sort_keys=True)
    return {
        "code": ", ".join(sorted({code for run in runs for code in run["code"]})),
        "settings": hashlib.sha256(settings.encode()).hexdigest()[:16],
        "data": f"{data}, of the first documents of each source",
        "python": platform.python_version(),
        "machine": "; ".join(sorted({machine for run in runs for machine in run["machines"]})) or "not told",
    }


def _arm(comparison: Comparison, plan: dict[str, Any], out: Path, label: str) -> dict[str, Any]:
    every, trained = (
        [_read(home(out, label, s) / f"{n}.json") for s in comparison.seeds] for n in ("scores", "trained")
    )
    lost = {str(s): run["diverged"] for s, run in zip(comparison.seeds, trained, strict=True) if "diverged" in run}
    alive = [seed for seed in comparison.seeds if str(seed) not in lost]
    told = [run for run in every if "diverged" not in run]
    names = paid(comparison, label) if label in comparison.arms else []
    nets = [[_read(home(out, name, s) / TRAINED) for name in names] for s in comparison.seeds]
    pairs = list(zip(trained, nets, strict=True))
    trained, nets = zip(*([pair for pair in pairs if "diverged" not in pair[0]] or pairs), strict=True)
    if len({run["steps"] for run in trained}) > 1 and told and "minutes" not in comparison.budget:
        raise ValueError(f"the trainings of {label} took {[run['steps'] for run in trained]} steps: want as many each")
    flops = [plan["flops_a_step"] * run["steps"] + plan["flops_of_nets"] for run in trained]
    positions = plan["rows"] * plan["length"] * plan.get("fill", 1.0) * _mean([run["steps"] for run in trained])
    arm: dict[str, Any] = {
        "recipe": comparison.arms[label].name if label in comparison.arms else label,
        "parameters": plan["parameters"],
        "text_share": plan["text_share"],
        "words": plan["text_share"] * positions,
        "pictures": plan["pictures"] * positions,
        "stands_on": names,
        "steps": [run["steps"] for run in trained],
        "flops": flops,
        "flops_of_nets": plan["flops_of_nets"],
        "seconds": [run["seconds"] + sum(n["seconds"] for n in on) for run, on in zip(trained, nets, strict=True)],
        "seconds_of_nets": [sum(n["seconds"] for n in on) for on in nets],
        **_made_by([*every, *(run for run, _ in pairs)]),
        "memory": max(run["memory"] for run in trained),
        "seeds": alive,
        "diverged": lost,
        "tuned": told[0]["tuned"] if told else {},
        "scores": _over([run["scores"] for run in told]),
        "sampling": _means([run["sampling"] for run in told if "sampling" in run]),
        "samples": next((run["samples"] for run in told if run.get("samples")), []),
        "asked": told[0]["scores"].get("asked", 0) if told else 0,
    }
    if not told and label in comparison.arms:
        arm["to_rate"] = {f"{rate:.0%}": None for rate in RATES}
        arm["to_rate_of_seeds"] = {f"{rate:.0%}": [None] * len(every) for rate in RATES}
    if told and "evaluations" in told[0]:
        arm["evaluations"] = [
            {
                "steps": entry[0]["steps"],
                **_means(list(entry)),
                "scores": _over([e["scores"] for e in entry]),
            }
            for entry in zip(*(run["evaluations"] for run in told), strict=True)
        ]
    if told and "curve" in told[0]:
        arm["curve"] = [
            {
                "step": point[0]["step"],
                "flops": plan["flops_a_step"] * _mean([e["step"] for e in point]) + plan["flops_of_nets"],
                "seconds": _mean(
                    [e["seconds"] + sum(n["seconds"] for n in on) for e, on in zip(point, nets, strict=True)]
                ),
                "seconds_of_seeds": [
                    e["seconds"] + sum(n["seconds"] for n in on) for e, on in zip(point, nets, strict=True)
                ],
                "scores": _over([e["scores"] for e in point]),
            }
            for point in zip(*(run["curve"] for run in told), strict=True)
        ]
        begun = {"flops": plan["flops_of_nets"], "seconds": _mean(arm["seconds_of_nets"])}
        arm["to_rate"] = {f"{rate:.0%}": reached(arm["curve"], rate, begun) for rate in RATES}
        arm["to_rate_of_seeds"] = {
            f"{rate:.0%}": [_reached_by(arm, alive.index(s), rate) if s in alive else None for s in comparison.seeds]
            for rate in RATES
        }
    return arm


def against(pairs: dict[str, str], arms: dict[str, Any]) -> list[dict[str, Any]]:
    """How many times as much an arm takes to a rate as another does, seed by seed: of FLOPs and of seconds.

    `times` is the geometric mean over the seeds with its 95 % interval, where both come to the rate with each. Where
    the other alone does so, and no seed of the arm diverged, it is `more_than` the mean that counts all that was spent
    in vain; else None. `reached` says with how many seeds each of them does.
    """
    out = []
    for label, other in pairs.items():
        for rate in arms[label].get("to_rate_of_seeds", {}):
            both = [arms[of]["to_rate_of_seeds"][rate] for of in (label, other)]
            told = {"arm": label, "against": other, "rate": rate, "reached": [sum(map(bool, of)) for of in both]}
            for cost in ("flops", "seconds"):
                told[cost] = None
                if all(both[1]) and (all(both[0]) or not arms[label]["diverged"]):
                    spent = [
                        one[cost] if one else all_of_it
                        for one, all_of_it in zip(both[0], arms[label][cost], strict=True)
                    ]
                    logs = [math.log(took / two[cost]) for took, two in zip(spent, both[1], strict=True)]
                    middle, half = _mean(logs), half_width(logs)
                    told[cost] = {"times" if all(both[0]) else "more_than": math.exp(middle)}
                    if all(both[0]) and math.isfinite(half):
                        told[cost] |= {"low": math.exp(middle - half), "high": math.exp(middle + half)}
            out.append(told)
    return out


def _reached_by(arm: dict[str, Any], at: int, rate: float) -> dict[str, float] | None:
    """What it took one seed to come to a rate."""
    name, curve = "text_to_image.exact", []
    for point in arm["curve"]:
        found = {name: {"value": point["scores"][name]["seeds"][at]}} if name in point["scores"] else {}
        curve.append({**point, "seconds": point["seconds_of_seeds"][at], "scores": found})
    return reached(curve, rate, {"flops": arm["flops_of_nets"], "seconds": arm["seconds_of_nets"][at]})


def _net(comparison: Comparison, plan: dict[str, Any], out: Path, name: str) -> dict[str, Any]:
    """What a tokenizer that arms stand on costs, and what it leaves of pictures."""
    told, trained = ([_read(home(out, name, s) / f"{n}.json") for s in comparison.seeds] for n in ("scores", "trained"))
    seconds = [run["seconds"] for run in trained]
    scores = _over([run["scores"] for run in told if "diverged" not in run])
    return {"flops": plan["flops"], "seconds": seconds, "scores": scores, **_made_by([*told, *trained])}


def _made_by(pieces: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The digests of the code that pieces of work ran with, and the machines that did them."""
    return {
        "code": sorted({piece["code"] for piece in pieces}),
        "machines": sorted({piece["machine"] for piece in pieces if "machine" in piece}),
    }


def _apart(arm: dict[str, Any], other: dict[str, Any], what: str) -> dict[str, Any]:
    """By how much each number of an arm differs from that of another one which has it too, seed by seed."""
    out = {}
    for name, score in other["scores"].items():
        if name in arm["scores"] and "half" in score:
            here, there = (dict(zip(of["seeds"], of["scores"][name]["seeds"], strict=True)) for of in (arm, other))
            if both := {seed: here[seed] - there[seed] for seed in here if seed in there}:
                out[f"{name}.{what}"] = _spread(list(both.values())) | {"of": list(both)}
    return out


def reached(curve: list[dict[str, Any]], rate: float, begun: dict[str, float]) -> dict[str, float] | None:
    """FLOPs and seconds after which so many pictures are exact, on a line between points; None where they never are.

    The first point lies at a rate of 0 and what was spent when the training began.
    """
    before = {**begun, "rate": 0.0}
    for point in curve:
        now = {**point, "rate": point["scores"].get("text_to_image.exact", {}).get("value", 0.0)}
        if now["rate"] >= rate:
            share = (rate - before["rate"]) / (now["rate"] - before["rate"])
            return {name: before[name] + share * (now[name] - before[name]) for name in ("flops", "seconds")}
        before = now
    return None


def _over(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Each score over the seeds: rates with their interval, numbers with their mean, and what each seed gave."""
    out: dict[str, Any] = {}
    for name, first in (runs[0] if runs else {}).items():
        if not all(name in run for run in runs):  # of seeds judged by versions of which one tells less
            continue
        found = [run[name] for run in runs]
        if isinstance(first, dict) and "low" in first:
            out[name] = over_seeds(found) | {"seeds": [rate["value"] for rate in found]}
        elif isinstance(first, float):
            out[name] = _spread(found)
    return out


def _spread(found: list[float]) -> dict[str, Any]:
    """The mean of numbers with half of its interval, None of a single one, and each of them."""
    half = half_width(found)
    return {"value": _mean(found), "half": half if math.isfinite(half) else None, "seeds": found}


def _means(entries: list[dict[str, Any]]) -> dict[str, float]:
    names = [name for name, value in (entries[0] if entries else {}).items() if isinstance(value, (int, float))]
    return {name: _mean([entry[name] for entry in entries]) for name in names}


def _mean(found: list[float]) -> float:
    return math.fsum(found) / len(found)


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise FileNotFoundError(f"{file} is not there: the comparison is not done, call it again")
    return json.loads(file.read_text(encoding="utf8"))
