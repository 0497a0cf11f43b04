"""A comparison as values: its question, its arms, its budget, and what it will cost, kept in a folder."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mixmodal import config as values
from mixmodal.chain import stands_on, starts_from, untrained
from mixmodal.checkpoint import write_json
from mixmodal.compute import duration, fast_dtype, measured_peak
from mixmodal.config import ModelConfig, Recipe
from mixmodal.growing import together
from mixmodal.judge.costs import Fare, digest, fare, step_cost
from mixmodal.judge.suites import FEWEST, Exam, asks_for_pictures, questions
from mixmodal.prepare import made
from mixmodal.recipes import recipe as known_recipe

TEST, TUNING = 0, 1_001  # seeds of the questions: those that scores are told of are never tuned on
BUDGETS = ("steps", "tokens", "flops", "minutes")
TRAINED = "trained.json"  # what says that a run is trained, and how
TWIN = "text_alone_of_"  # and an arm: what reads and writes the same prose, and nothing else


@dataclass(frozen=True)
class Comparison:
    """A question to trained models.

    `arms` are recipes by label, `nets` recipes that these may stand on ("recipe:NAME"), before those of the package.
    Units:   `budget` is one of steps, tokens (positions), flops (of training and of what an arm stands on) or minutes,
             for each arm; `n` questions of each kind, `few` where guidance is tuned and curves are drawn; `guidances`
             are those tried, `temperatures` those for who draws codes, `evaluations` the numbers of steps sampled
             with, `points` the models of a training judged;
             `least` the steps below which a twin learns nothing and is left out; `against` names for an arm another
             one, by whose cost to a rate its own is divided.
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
    temperatures: tuple[float, ...] = (1.0, 0.5)
    evaluations: tuple[int, ...] = (2, 4, 8, 16, 32)
    points: int = 4
    twin: bool = True
    least: int = 50
    against: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.budget) != 1 or next(iter(self.budget)) not in BUDGETS:
            raise ValueError(f"budget is {self.budget}: give one of {', '.join(BUDGETS)}, for example steps=500")
        if not 0 < next(iter(self.budget.values())) < math.inf:
            raise ValueError(f"budget is {self.budget}: take more than nothing")
        if not self.arms or any(label.startswith(TWIN) for label in self.arms):
            raise ValueError(f"arms are {sorted(self.arms)}: want at least one, and none called {TWIN}...")
        if not {*self.against, *self.against.values()} <= set(self.arms):
            raise ValueError(f"against is {self.against}, but the arms are {sorted(self.arms)}: name these alone")


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
    against = {label: other for label, other in whole.against.items() if {label, other} <= set(arms)}
    named = {name for arm in arms.values() for name in stands_on(arm)}
    nets = {name: replace(net_of(whole, name), steps=4, every=4, rows=8) for name in named}
    return replace(
        whole,
        arms=arms,
        nets=nets,
        budget={"steps": 4},
        seeds=(0, 1),
        n=4,
        few=4,
        guidances=(1.0, 2.0),
        temperatures=(1.0,),
        evaluations=(2, 4),
        points=2,
        least=0,
        against=against,
    )


def begin(comparison: Comparison, out: Path) -> Comparison:
    """The comparison that lies in `out`, put there unless it is; to one of fewer seeds those that it lacks are added.

    Raises:  ValueError if another lies there.
    """
    file = out / "comparison.json"
    if file.exists():
        kept = values.from_json(Comparison, json.loads(file.read_text(encoding="utf8")), "comparison")
        if values.to_json(replace(kept, seeds=comparison.seeds)) != values.to_json(comparison):
            raise ValueError(f"{out} holds another comparison, {kept.name!r} with other settings: take another --out")
        comparison = replace(comparison, seeds=tuple(dict.fromkeys((*kept.seeds, *comparison.seeds))))
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
    """Steps, rows and costs of every arm, and a digest of the data, counted once and kept in `out`.

    Raises:  ValueError for a suite that has no pictures drawn where arms draw some.
    """
    file = out / "plan.json"
    if file.exists():
        plan = json.loads(file.read_text(encoding="utf8"))
        if "starts" not in plan or plan.get("twin"):
            raise ValueError(f"{out} was begun by an older version, which planned otherwise: take another --out")
        plan.setdefault("twins", {})
        return plan
    for name in starts_of(comparison):
        if stands_on(net_of(comparison, name)) or len(net_of(comparison, name).model.streams) > 1:
            raise ValueError(f"arms start from {name}, which is no model of words alone: train it, and compare without")
    if any(map(draws, comparison.arms.values())) and not asks_for_pictures(comparison.suite):
        raise ValueError(f"the suite {comparison.suite!r} has no pictures drawn, but an arm draws: take another suite")
    for name in {name for arm in comparison.arms.values() for name in stands_on(arm)}:
        if inner := stands_on(net_of(comparison, name)):
            raise ValueError(
                f"arms stand on {name}, which stands on {inner[0]} itself: train that first, and name its run"
            )
    _asks_enough(comparison)
    arms, nets = {}, {}
    starts = {name: made(net_of(comparison, name))[0].model for name in starts_of(comparison)}
    for label, arm in comparison.arms.items():
        for name in stands_on(arm):
            if name not in nets:
                inner, _, shape = _fitted(net_of(comparison, name))
                nets[name] = {"flops": step_cost(inner).flops * inner.steps, **shape}
        fitting, held, shape = _fitted(_begun(comparison, arm, starts))
        cost, before = step_cost(fitting), sum(nets[name]["flops"] for name in paid(comparison, label))
        arms[label] = {
            "flops_a_step": cost.flops,
            "flops_of_nets": before,
            "fill": cost.fill,
            "text_share": held.text_share,
            "pictures": held.pictures,
            "parameters": cost.parameters,
            "steps": _steps(comparison.budget, fitting, cost.flops, before, label),
            **shape,
        }
    of = [*comparison.arms.values(), *(net_of(comparison, name) for name in nets)]
    begun = {name: _alone(net_of(comparison, name), nets[name]) for name in starts}
    data = digest([recipe.sources for recipe in of])
    plan: dict[str, Any] = {"arms": arms, "nets": nets, "starts": begun, "twins": {}, "data": data}
    for label, twin in twins_of(comparison).items():
        arm = arms[label]  # as many positions of prose, and as nearly as many a step as whole rows allow
        rows = max(1, round(arm["rows"] * arm["text_share"]))
        told = _alone(_begun(comparison, twin, starts), {"length": arm["length"], "rows": rows})
        steps = arm["steps"] * arm["rows"] * arm["text_share"] / rows
        if steps >= comparison.least:
            plan["twins"][TWIN + label] = {"of": label, **told, "steps": max(1, round(steps))}
    write_json(file, plan)
    return plan


def _asks_enough(comparison: Comparison) -> None:
    """Refuse data of which so little is held out that nothing can be told, before anything is trained."""
    if not any(map(draws, comparison.arms.values())):
        return
    about = {"sources": next(iter(comparison.arms.values())).sources}
    for seed, what in ((TEST, "told of"), (TUNING, "tuned on")):
        exam = Exam(None, about, comparison.n, seed, options=comparison.options)
        asked = len(questions(comparison.suite, exam))
        if asked < min(FEWEST, comparison.n):
            raise ValueError(
                f"{asked} held-out pictures with words could be {what}, and {FEWEST} are wanted: take more data (of"
                " a folder a twentieth is held out, and half of that tuned on)"
            )


def _begun(comparison: Comparison, arm: Recipe, starts: dict[str, ModelConfig]) -> Recipe:
    """An arm as it is before its training, with the trunk and the words of the model that it starts from.

    Raises:  ValueError for an arm whose trunk is another: it would be compared under a name that is not its own.
    """
    name, arm = starts_from(arm), untrained(arm, comparison.nets)
    if not name:
        return arm
    found = starts[name]
    if replace(found.trunk, frozen=False) != replace(arm.model.trunk, frozen=False):
        raise ValueError(f"{arm.name} has another trunk than {name}, from which it starts: take arms of one trunk")
    return replace(arm, model=together(found, arm.model))


def _alone(words: Recipe, shape: dict[str, int]) -> dict[str, Any]:
    """What is planned of a recipe of words, which stands on nothing."""
    shape = {key: shape[key] for key in ("length", "rows")}
    cost = step_cost(replace(words, **shape))
    alike = {"flops_of_nets": 0, "text_share": 1.0, "pictures": 0.0}
    told = {"flops_a_step": cost.flops, "fill": cost.fill, **alike, "parameters": cost.parameters}
    return {**told, "steps": words.steps, **shape}


def starts_of(comparison: Comparison) -> list[str]:
    """The names of the recipes whose models some arm trains on."""
    return list(dict.fromkeys(filter(None, map(starts_from, comparison.arms.values()))))


def paid(comparison: Comparison, label: str) -> list[str]:
    """The names of the recipes that count in an arm's budget: those it stands on, but for one that all start from."""
    shared = {starts_from(arm) for arm in comparison.arms.values()}
    return [name for name in stands_on(comparison.arms[label]) if shared != {name}]


def net_of(comparison: Comparison, name: str) -> Recipe:
    """The recipe of what arms stand on."""
    return comparison.nets.get(name) or known_recipe(name)


def draws(arm: Recipe) -> bool:
    """Whether an arm learns to make pictures."""
    return any(s.medium == "image" and s.role != "read" and s.weight > 0 for s in arm.model.streams.values())


def tells(arm: Recipe) -> bool:
    """Whether an arm learns to write text, whatever stream does it."""
    text = arm.model.streams[arm.model.speaker].medium
    return any(s.medium == text and s.role != "read" and s.weight > 0 for s in arm.model.streams.values())


def writes(arm: Recipe) -> bool:
    """Whether what speaks in an arm learns to write text itself."""
    speaker = arm.model.streams[arm.model.speaker]
    return speaker.role != "read" and speaker.weight > 0


def _fitted(arm: Recipe) -> tuple[Recipe, Fare, dict[str, int]]:
    """The arm with rows as long as its documents want, and as many as keep its positions; what they hold; these two."""
    held = fare(arm)
    shape = {"length": held.length, "rows": max(1, round(arm.rows * arm.length / held.length))}
    return replace(arm, **shape), held, shape


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


def twins_of(comparison: Comparison) -> dict[str, Recipe]:
    """By the label of each arm that learns to write prose, the recipe of its prose alone on its trunk."""
    found = {}
    for label, arm in comparison.arms.items() if comparison.twin else ():
        prose = {name: spec for name, spec in arm.sources.items() if spec.get("kind") in ("prose", "file")}
        if prose and writes(arm):
            speaker = arm.model.speaker
            alone = replace(arm.model, streams={speaker: arm.model.streams[speaker]})
            found[label] = replace(arm, name=TWIN + label, model=alone, sources=prose, valid={}, prompts=())
    return found


def estimate(comparison: Comparison, plan: dict[str, Any], jobs: int) -> list[str]:
    """What it will cost, for people."""
    peak, lines, total = measured_peak(fast_dtype()), [], 0.0
    for label, arm in {**plan["starts"], **plan["arms"], **plan["twins"]}.items():
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
