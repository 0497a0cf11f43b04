"""Batches from a mixture: documents laid out with their own random numbers and packed into fixed rows."""

from __future__ import annotations

import contextlib
from typing import Any

from mixmodal.config import Recipe
from mixmodal.data.ahead import Ahead
from mixmodal.data.mixing import Draw, Mixture, document_rng
from mixmodal.data.report import LeftOut
from mixmodal.layout import without_prompt
from mixmodal.model import Model
from mixmodal.parallel import ALONE, Ranks
from mixmodal.sequence import Batch, Sequence, collate, fitting_row

WAITING = 12  # documents that fit no row of a batch wait for the next one; at most so many
BROKEN = -1  # the length of one that cannot be read
Drawn = tuple[Draw, float]  # with the progress at which it was drawn


def shares_at(sources: dict[str, dict[str, Any]], progress: float) -> list[float]:
    """How much each source is drawn at this share of the training: its "share" between its "from" and its "until".

    Raises:  ValueError where no source is drawn.
    """
    shares = [
        float(spec.get("share", 1.0)) if spec.get("from", 0.0) <= progress < spec.get("until", 2.0) else 0.0
        for spec in sources.values()
    ]
    if not any(shares):
        raise ValueError(f"no source is drawn at {progress:.0%} of the training: look at their from, until and share")
    return shares


class Loader:
    """Batches without end. What a document draws depends on the seed and on the document alone.

    `skipped` counts the documents that no row could hold, `broken` those that could not be read; `fill` is the share
    of the last batch that is no padding; `held` is what the last batch was made of. All `ranks` plan one batch of all
    rows together, the same whatever their number, and each collates its own rows. With `workers` of the recipe, the
    documents of the next batch are laid out while the step of this one runs.
    """

    def __init__(self, mixture: Mixture, model: Model, recipe: Recipe, ranks: Ranks = ALONE) -> None:
        self.mixture, self.model, self.recipe, self.ranks = mixture, model, recipe, ranks
        self.skipped: dict[str, int] = {}
        self.broken: dict[str, int] = {}
        self.first: dict[str, int] = {}  # those skipped of the first documents, by which memory was estimated
        self.fill = 0.0
        self.held: list[tuple[Draw, Sequence]] = []
        self._rows = ranks.rows(recipe.rows)
        self._blank = model.blank()
        self._waiting: list[Drawn] = []
        self._lengths: dict[int, int] = {}  # of draws by number, as long as they wait
        self._laid: dict[int, Sequence] = {}  # those of them that were laid out here: nothing is, twice
        self._shares: list[float] = []
        self._fresh = 0  # how many documents the last batch drew
        self._ahead: Ahead | None = None

    def next(self, progress: float, then: float | None = None) -> Batch:
        """This rank's rows of the next batch: what waited comes first, then new documents until too many fit no row.

        `then` is the progress at which the one after it will be asked for.
        """
        recipe, count = self.recipe, self.ranks.count
        if (shares := shares_at(recipe.sources, progress)) != self._shares:
            self._shares = shares
            self.mixture.weigh(shares)
        room, plan = [recipe.length] * recipe.rows, [[] for _ in range(recipe.rows)]
        placed: list[Drawn] = []
        queue, self._waiting = self._waiting, []
        before, fresh = self.mixture.state(), 0
        self._measure(queue)
        while len(self._waiting) < WAITING:
            if not queue:
                # Several ranks draw ahead, since each lays out only its share to learn how long they are.
                ahead = 1 if count == 1 else count if fresh else max(count, self._fresh * 4 // 5)
                queue = [(self.mixture.draw(), progress) for _ in range(ahead)]
                fresh += ahead
                self._measure(queue)
            drawn = draw, _ = queue.pop(0)
            length = self._lengths[draw.number]
            if length == BROKEN or length > recipe.length:
                self._leave_out(draw, length, bool(placed))
            elif (row := fitting_row(room, length)) is None:
                self._waiting.append(drawn)
            else:
                plan[row].append(len(placed))
                room[row] -= length
                placed.append(drawn)
        self._fresh = fresh - len(queue) if fresh else 0
        if not fresh:
            self._waiting += queue
        elif queue:  # drawn too early: the next batch draws them again
            self.mixture.load(before)
            for _ in range(self._fresh):
                self.mixture.draw()
        self.fill = 1 - sum(room) / (recipe.rows * recipe.length)
        batch = self._collated(placed, plan)
        if self.recipe.workers > 0 and then is not None:
            if self._ahead is None:  # not before: what the processes copy must be what is trained, once it is resumed
                self._ahead = Ahead(self._lay_out, self.mixture.sources, self.recipe.workers)
            self._order(self._ahead, then)
        return batch

    def _order(self, ahead: Ahead, then: float) -> None:
        """Have the documents laid out that the next batch will draw, as far as that can be told."""
        ahead.forget()
        if then >= 1 or shares_at(self.recipe.sources, then) != self._shares:
            return
        before = self.mixture.state()
        draws = [self.mixture.draw() for _ in range(self._fresh + self._fresh // 4 + 1)]
        self.mixture.load(before)
        for draw in draws[self.ranks.rank :: self.ranks.count]:
            ahead.order(draw, then)

    def close(self) -> None:
        """End the processes that lay out, if there are any."""
        if self._ahead is not None:
            self._ahead.close()

    def _measure(self, drawn: list[Drawn]) -> None:
        """Learn how long these are. Each is laid out by one of the ranks, which tells the others."""
        rank, count = self.ranks.rank, self.ranks.count
        new = [(draw, progress) for draw, progress in drawn if draw.number not in self._lengths]
        if not new:
            return
        lengths = [self._length(draw, progress) for draw, progress in new[rank::count]]
        lengths += [0] * (-(-len(new) // count) - len(lengths))
        for other, told in enumerate(self.ranks.told(lengths)):
            self._lengths |= {draw.number: length for (draw, _), length in zip(new[other::count], told, strict=False)}

    def _length(self, draw: Draw, progress: float) -> int:
        try:
            self._laid[draw.number] = self._sequence(draw, progress)
        except LeftOut:
            return BROKEN
        return len(self._laid[draw.number])

    def _collated(self, placed: list[Drawn], plan: list[list[int]]) -> Batch:
        """The rows of this rank, with the documents that stand in them."""
        self.held, at = [], {}
        if self._ahead is not None:
            for draw, progress in (placed[number] for row in self._rows for number in plan[row]):
                if draw.number not in self._laid:
                    self._ahead.order(draw, progress)
        for number in sorted(number for row in self._rows for number in plan[row]):
            draw, progress = placed[number]
            with contextlib.suppress(LeftOut):  # another rank could read it just now: its place stays empty
                sequence = self._laid.get(draw.number) or self._sequence(draw, progress)
                at[number] = len(self.held)
                self.held.append((draw, sequence))
        waiting = {draw.number for draw, _ in self._waiting}
        self._lengths = {number: length for number, length in self._lengths.items() if number in waiting}
        self._laid = {number: sequence for number, sequence in self._laid.items() if number in waiting}
        rows = [[at[number] for number in plan[row] if number in at] for row in self._rows]
        return collate([sequence for _, sequence in self.held], rows, self.recipe.length, self._blank)

    def _leave_out(self, draw: Draw, length: int, some: bool) -> None:
        name = self.mixture.names[draw.source]
        if length == BROKEN:
            self.broken[name] = self.broken.get(name, 0) + 1
        else:
            self._skip(name, length, some)

    def _skip(self, source: str, length: int, some: bool) -> None:
        self.skipped[source] = self.skipped.get(source, 0) + 1
        if self.skipped[source] > 1000 and not some:
            raise ValueError(
                f"no document of {source!r} fits: the last has {length} positions, a row"
                f" {self.recipe.length}; set a larger `length`"
            )

    def _sequence(self, draw: Draw, progress: float) -> Sequence:
        made = self._ahead.take(draw, progress) if self._ahead is not None else None
        return self._lay_out(draw, progress) if made is None else made

    def _lay_out(self, draw: Draw, progress: float) -> Sequence:
        name = self.mixture.names[draw.source]
        document = self.mixture.document(draw)
        rng = document_rng(self.mixture.seed, f"{name}/layout", draw.index, draw.visit)
        if rng.random() < self.recipe.drop_prompt:
            document = without_prompt(document, self.model.speaker.medium)
        return self.model.lay_out(document, rng, progress)

    def left_out(self) -> list[str]:
        """One line for each reason why a source left something out, so far."""
        if self._ahead is not None:
            self._ahead.gather()
        reports = [(source.name, getattr(source, "report", None)) for source in self.mixture.sources]
        told = [f"{name}: {line}" for name, report in reports if report for line in report.lines()]
        counts = {name: max(self.skipped.get(name, 0), self.first.get(name, 0)) for name in self.mixture.names}
        if self._ahead is not None and self._ahead.ended:
            told.append(
                "a process that laid out documents ended, for want of memory perhaps: they were laid out without"
            )
        long = f"left out so far, longer than a row of {self.recipe.length} positions: set a larger length"
        return told + [f"{name}: {count} {long}" for name, count in counts.items() if count]

    def state(self) -> dict:
        """Where the data stands, for JSON."""
        return {
            "mixture": self.mixture.state(),
            "waiting": [[*draw, drawn] for draw, drawn in self._waiting],
            "skipped": dict(self.skipped),
            "broken": dict(self.broken),
        }

    def load(self, state: dict) -> None:
        """Go on from `state`, on whatever number of ranks: all of them hold the same."""
        self.mixture.load(state["mixture"])
        self.skipped, self.broken = dict(state.get("skipped", {})), dict(state.get("broken", {}))
        self._waiting = [(Draw(*draw), drawn) for *draw, drawn in state["waiting"]]
        self._laid, self._lengths = {}, {}
        if self._ahead is not None:
            self._ahead.forget()
