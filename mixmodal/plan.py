"""A comparison as values: its question, its arms, its budget, and what it will cost, kept in a folder."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mixmodal import config as values
from mixmodal.chain import stands_on, untrained
from mixmodal.checkpoint import write_json
from mixmodal.compute import duration, fast_dtype, measured_peak
from mixmodal.config import Recipe
from mixmodal.recipes import recipe as known_recipe

BUDGETS = ("steps", "tokens", "flops", "minutes")
TWIN = "text_alone"  # the arm that reads and writes the same prose, and nothing else


@dataclass(frozen=True)
class Comparison:
    """A question to trained models.

    `arms` are recipes by label, `nets` recipes that these may stand on ("recipe:NAME"), before those of the package.
    Units:   `budget` is one of steps, tokens (positions), flops (of training and of what an arm stands on) or minutes,
             for each arm; `n` questions of each kind, `few` where guidance is tuned and curves are drawn; `guidances`
             are those tried, `evaluations` the numbers of steps sampled with, `points` the models of a training judged.
    """

    name: str
    question: str
    arms: dict[str, Recipe]
    budget: dict[str, float]
    nets: dict[str, Recipe] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    suite: str = "scenes"
    options: dict[str, Any] = field(default_factory=dict)
    n: int = 200
    few: int = 60
    guidances: tuple[float, ...] = (1.0, 2.0, 4.0)
    evaluations: tuple[int, ...] = (2, 4, 8, 16, 32)
    points: int = 4
    twin: bool = True

    def __post_init__(self) -> None:
        if len(self.budget) != 1 or next(iter(self.budget)) not in BUDGETS:
            raise ValueError(f"budget is {self.budget}: give one of {', '.join(BUDGETS)}, for example steps=500")
        if not 0 < next(iter(self.budget.values())) < math.inf:
            raise ValueError(f"budget is {self.budget}: take more than nothing")
        if TWIN in self.arms or not self.arms:
            raise ValueError(f"arms are {sorted(self.arms)}: want at least one, and none called {TWIN!r}")


def budget(told: str) -> dict[str, float]:
    """A budget as it is typed, kind=amount.

    Raises:  ValueError for what is none.
    """
    kind, _, amount = told.partition("=")
    try:
        return {kind: float(amount)}
    except ValueError:
        raise ValueError(f"budget is {told!r}: write one of {', '.join(BUDGETS)} and how much, as steps=500") from None


def smoke(whole: Comparison) -> Comparison:
    """The same comparison in miniature: three arms, two seeds, a few steps, a few questions."""
    arms = {label: replace(arm, compile=False, rows=4) for label, arm in list(whole.arms.items())[:3]}
    named = {name for arm in arms.values() for name in stands_on(arm)}
    nets = {name: replace(whole.nets.get(name) or known_recipe(name), steps=4, every=4, rows=8) for name in named}
    return replace(
        whole,
        arms=arms,
        nets=nets,
        budget={"steps": 4},
        seeds=(0, 1),
        n=4,
        few=4,
        guidances=(1.0, 2.0),
        evaluations=(2, 4),
        points=2,
    )


def begin(comparison: Comparison, out: Path) -> Comparison:
    """The comparison that lies in `out`, put there unless it is.

    Raises:  ValueError if another lies there.
    """
    file = out / "comparison.json"
    if file.exists():
        kept = values.from_json(Comparison, json.loads(file.read_text(encoding="utf8")), "comparison")
        if values.to_json(kept) != values.to_json(comparison):
            raise ValueError(f"{out} holds another comparison, {kept.name!r} with other settings: take another --out")
        return kept
    out.mkdir(parents=True, exist_ok=True)
    write_json(file, values.to_json(comparison))
    return comparison


def comparison_in(out: Path) -> Comparison:
    """The comparison that lies in `out`."""
    return values.from_json(Comparison, json.loads((out / "comparison.json").read_text(encoding="utf8")), "comparison")


def home(out: Path, label: str, seed: int) -> Path:
    """The folder of one run."""
    return out / f"seed_{seed}" / label


def planned(comparison: Comparison, out: Path) -> dict[str, Any]:
    """Steps and costs of every arm, counted once and kept in `out`."""
    from mixmodal.judge.costs import step_cost

    file = out / "plan.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf8"))
    arms, nets = {}, {}
    for label, arm in comparison.arms.items():
        for name in stands_on(arm):
            if name not in nets:
                inner = comparison.nets.get(name) or known_recipe(name)
                nets[name] = step_cost(inner).flops * inner.steps
        cost = step_cost(untrained(arm, comparison.nets))
        before = sum(nets[name] for name in stands_on(arm))
        arms[label] = {
            "flops_a_step": cost.flops,
            "flops_of_nets": before,
            "text_share": cost.text_share,
            "parameters": cost.parameters,
            "positions": arm.rows * arm.length,
            "steps": _steps(comparison.budget, arm, cost.flops, before, label),
        }
    plan: dict[str, Any] = {"arms": arms, "nets": nets, "twin": {}}
    if comparison.twin and (twin := twin_of(next(iter(comparison.arms.values())))) is not None:
        first, cost = next(iter(arms.values())), step_cost(twin)
        flops = first["flops_a_step"] * first["steps"] * first["text_share"]
        plan["twin"] = {
            "flops_a_step": cost.flops,
            "flops_of_nets": 0,
            "text_share": 1.0,
            "parameters": cost.parameters,
            "positions": twin.rows * twin.length,
            "steps": max(1, round(flops / cost.flops)),
        }
    write_json(file, plan)
    return plan


def _steps(budget: dict[str, float], arm: Recipe, flops: float, before: float, label: str) -> int:
    """The steps that a budget allows; under minutes, a guess until they have been taken."""
    ((kind, amount),) = budget.items()
    if kind == "steps":
        return int(amount)
    if kind == "tokens":
        return max(1, round(amount / (arm.rows * arm.length)))
    if kind == "flops":
        if amount <= before:
            raise ValueError(
                f"the budget of {amount:.3g} FLOPs is spent before {label} begins: what it stands on takes {before:.3g}"
            )
        return max(1, round((amount - before) / flops))
    return max(1, round(amount * 60 * 0.3 * measured_peak(fast_dtype()) / flops))


def twin_of(arm: Recipe) -> Recipe | None:
    """The recipe of the arm's prose alone, on the same trunk; None where it learns none."""
    prose = {name: spec for name, spec in arm.sources.items() if spec.get("kind") in ("prose", "file")}
    if not prose:
        return None
    speaker = arm.model.speaker
    alone = replace(arm.model, streams={speaker: arm.model.streams[speaker]})
    return replace(arm, name=TWIN, model=alone, sources=prose, valid={}, prompts=())


def estimate(comparison: Comparison, plan: dict[str, Any], jobs: int) -> list[str]:
    """What it will cost, for people."""
    peak, lines, total = measured_peak(fast_dtype()), [], 0.0
    for label, arm in (*plan["arms"].items(), *([(TWIN, plan["twin"])] if plan["twin"] else [])):
        flops = arm["flops_a_step"] * arm["steps"] + arm["flops_of_nets"]
        total += flops * len(comparison.seeds)
        lines.append(
            f"{label:24} {arm['parameters'] / 1e6:6.2f} M parameters, {arm['steps']:6,} steps,"
            f" {flops / 1e12:8.2f} TFLOPs"
            + (f", {arm['flops_of_nets'] / flops:.0%} of them for what it stands on" if arm["flops_of_nets"] else "")
        )
    seconds = total / (0.3 * peak)
    lines.append(
        f"{len(comparison.seeds)} seeds: {total / 1e12:,.0f} TFLOPs of training, about {duration(seconds)} at 30 % of"
        f" this machine's speed, and judging besides; {jobs} at a time"
    )
    return lines
