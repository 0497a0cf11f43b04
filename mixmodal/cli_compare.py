"""The command that compares designs. It imports what it needs when it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tyro.conf import Positional

if TYPE_CHECKING:
    from mixmodal.plan import Comparison


@dataclass
class Compare:
    """Train and judge designs on one budget, several seeds each, and write a page that says which is better.

    Without names, the comparisons of the package are listed. Stopped at any moment, the same command goes on; the page
    is there when the first seed is done, and once more after each.
    """

    names: Positional[tuple[str, ...]] = ()
    """A comparison of the package, or the recipes to compare, or designs, for their recipes on scenes."""
    budget: str = ""
    """What each may spend, as steps=, tokens=, flops= or minutes= (tokenizers counted in the last two); that of the
    comparison, or steps=500, unless given."""
    seeds: tuple[int, ...] = ()
    """Seeds of the trainings; those of the comparison, or 0 1 2, unless given."""
    suite: str = ""
    """What they are asked; that of the comparison, or scenes, unless given."""
    data: str = ""
    """Other pictures for every arm: what `mixmodal data check` takes, or a world: scenes, glyphs, digits."""
    data_set: tuple[str, ...] = ()
    """Options of that data as key=value, for example size=32 level=two."""
    n: int = 0
    """How many questions of each kind; those of the comparison, or 200, unless given."""
    out: Path | None = None
    """Folder for all of it; runs/compare_NAME unless given."""
    jobs: int = 0
    """How many trainings at a time; one for each core unless given."""
    set: tuple[str, ...] = ()
    """Settings of every arm as dotted.key=value, for example rows=8."""
    smoke: bool = False
    """All of it in miniature: does it run?"""
    dry_run: bool = False
    """Only tell what it would cost."""

    def run(self) -> None:
        """Compare, or list what can be."""
        from mixmodal import comparisons
        from mixmodal.checkpoint import write_json, write_text
        from mixmodal.collect import collected
        from mixmodal.compare import run
        from mixmodal.plan import begin, estimate, planned, smoke
        from mixmodal.report import page

        if self.n < 0 or self.jobs < 0 or len(set(self.seeds)) < len(self.seeds):
            told = f"--n is {self.n}, --jobs {self.jobs}, --seeds {' '.join(map(str, self.seeds))}"
            raise ValueError(f"{told}: want no number below 0, and no seed twice")
        if self.data_set and not self.data:
            raise ValueError("--data-set says how --data is to be read, and no --data is given")
        if not self.names:
            for name, function in comparisons.known().items():
                print(f"{name:24} {(function.__doc__ or '').splitlines()[0]}")
            return
        chosen = self._chosen()
        out = self.out or Path("runs") / f"compare_{chosen.name}{'_smoke' if self.smoke else ''}"
        if self.smoke:
            chosen = smoke(chosen)
        if self.dry_run:
            with TemporaryDirectory() as aside:
                begin(chosen, Path(aside))
                print("\n".join(estimate(chosen, planned(chosen, Path(aside)), self.jobs or 1)))
            return

        def tell() -> None:
            result = collected(out)
            write_json(out / "result.json", result)
            write_text(out / "index.html", page(result))

        run(chosen, out, tell, self.jobs)
        print(f"the page: {out / 'index.html'}   the numbers: {out / 'result.json'}")

    def _chosen(self) -> Comparison:
        from dataclasses import replace

        from mixmodal import comparisons
        from mixmodal.cli_audit import options
        from mixmodal.config import override, unknown
        from mixmodal.judge.suites import suites
        from mixmodal.plan import Comparison, budget
        from mixmodal.recipes import recipe, recipes

        found = {name: f"{name}_two" if f"{name}_two" in recipes() else name for name in self.names}
        if len(found) == 1 and not set(found.values()) <= set(recipes()):
            chosen = comparisons.named(self.names[0])
        else:
            several = f"{', '.join(self.names[:-1])} or {self.names[-1]}: which is better?"
            chosen = Comparison(
                name="_".join(self.names),
                question=several if len(self.names) > 1 else f"How good is {self.names[0]}?",
                arms={name: recipe(known) for name, known in found.items()},
                budget={"steps": 500},
                options=dict(comparisons.HELDOUT) if (self.suite or "scenes") in comparisons.LOOK else {},
            )
        if self.suite and self.suite not in suites():
            raise ValueError(unknown(f"suite {self.suite!r}", self.suite, suites()))
        chosen = replace(chosen, suite=self.suite or chosen.suite)
        if self.budget:
            chosen = replace(chosen, budget=budget(self.budget))
        if self.data:
            chosen = comparisons.on_data(chosen, self.data, options(self.data_set))
        arms = {label: override(arm, self.set) for label, arm in chosen.arms.items()}
        return replace(chosen, arms=arms, seeds=self.seeds or chosen.seeds, n=self.n or chosen.n)
