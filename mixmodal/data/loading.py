"""Batches from a mixture: documents laid out with their own random numbers and packed into fixed rows."""

from __future__ import annotations

from typing import Any

from mixmodal.config import Recipe
from mixmodal.data.mixing import Draw, Mixture, document_rng
from mixmodal.layout import without_prompt
from mixmodal.model import Model
from mixmodal.sequence import Batch, Sequence, collate, fitting_row

WAITING = 12  # documents that fit no row of a batch wait for the next one; at most so many


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

    `skipped` counts the documents that no row could hold; `fill` is the share of the last batch that is no padding;
    `held` is what the last batch was made of.
    """

    def __init__(self, mixture: Mixture, model: Model, recipe: Recipe) -> None:
        self.mixture, self.model, self.recipe = mixture, model, recipe
        self.skipped: dict[str, int] = {}
        self.fill = 0.0
        self.held: list[tuple[Draw, Sequence]] = []
        self._blank = model.blank()
        self._waiting: list[tuple[Draw, float]] = []  # with the progress at which they were drawn
        self._laid: dict[int, Sequence] = {}  # theirs, so that nothing is laid out twice
        self._shares: list[float] = []

    def next(self, progress: float) -> Batch:
        """The next batch: what waited comes first, then new documents until too many fit no row."""
        recipe = self.recipe
        if (shares := shares_at(recipe.sources, progress)) != self._shares:
            self._shares = shares
            self.mixture.weigh(shares)
        room, plan = [recipe.length] * recipe.rows, [[] for _ in range(recipe.rows)]
        sequences: list[Sequence] = []
        self.held = []
        asked, self._waiting = self._waiting, []
        while len(self._waiting) < WAITING:
            draw, drawn = asked.pop(0) if asked else (self.mixture.draw(), progress)
            sequence = self._laid.pop(draw.number, None) or self._sequence(draw, drawn)
            if len(sequence) > recipe.length:
                self._skip(self.mixture.names[draw.source], len(sequence), bool(sequences))
                continue
            row = fitting_row(room, len(sequence))
            if row is None:
                self._waiting.append((draw, drawn))
                self._laid[draw.number] = sequence
                continue
            plan[row].append(len(sequences))
            room[row] -= len(sequence)
            sequences.append(sequence)
            self.held.append((draw, sequence))
        self._waiting += asked
        self.fill = 1 - sum(room) / (recipe.rows * recipe.length)
        return collate(sequences, plan, recipe.length, self._blank)

    def _skip(self, source: str, length: int, some: bool) -> None:
        self.skipped[source] = self.skipped.get(source, 0) + 1
        if self.skipped[source] > 1000 and not some:
            raise ValueError(
                f"no document of {source!r} fits: the last has {length} positions, a row"
                f" {self.recipe.length}; set a larger `length`"
            )

    def _sequence(self, draw: Draw, progress: float) -> Sequence:
        name = self.mixture.names[draw.source]
        document = self.mixture.document(draw)
        rng = document_rng(self.mixture.seed, f"{name}/layout", draw.index, draw.visit)
        if rng.random() < self.recipe.drop_prompt:
            document = without_prompt(document, self.model.speaker.medium)
        return self.model.lay_out(document, rng, progress)

    def state(self) -> dict:
        """Where the data stands, for JSON."""
        return {
            "mixture": self.mixture.state(),
            "waiting": [[*draw, drawn] for draw, drawn in self._waiting],
            "skipped": dict(self.skipped),
            "ranks": self.mixture.ranks,
        }

    def load(self, state: dict) -> None:
        """Go on from `state`.

        Raises:  ValueError if it was saved on another number of ranks: each has documents of its own that wait.
        """
        if (ranks := state.get("ranks", 1)) != self.mixture.ranks:
            raise ValueError(
                f"saved on {ranks} ranks, but here there are {self.mixture.ranks}: go on with {ranks}, or train on in"
                " another folder with --set start=RUN"
            )
        self.mixture.load(state["mixture"])
        self.skipped = dict(state.get("skipped", {}))
        self._waiting = [(Draw(*draw), drawn) for *draw, drawn in state["waiting"]]
        self._laid = {}
