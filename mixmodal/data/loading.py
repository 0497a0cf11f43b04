"""Batches from a mixture: documents laid out with their own random numbers and packed into fixed rows."""

from __future__ import annotations

from mixmodal.config import Recipe
from mixmodal.data.mixing import Mixture, document_rng
from mixmodal.layout import without_prompt
from mixmodal.model import Model
from mixmodal.sequence import Batch, Sequence, collate, fitting_row


class Loader:
    """Batches without end. What a document draws depends on the seed and on the document alone.

    `skipped` counts the documents that no row could hold.
    """

    def __init__(self, mixture: Mixture, model: Model, recipe: Recipe) -> None:
        self.mixture, self.model, self.recipe = mixture, model, recipe
        self.skipped: dict[str, int] = {}
        self.fill = 0.0
        self._blank = model.blank()

    def next(self, progress: float) -> Batch:
        """The next batch: documents are taken until one fits no row; that one opens the next batch."""
        recipe = self.recipe
        room, plan = [recipe.length] * recipe.rows, [[] for _ in range(recipe.rows)]
        sequences: list[Sequence] = []
        while True:
            before = self.mixture.state()
            sequence, source = self._sequence(progress)
            if len(sequence) > recipe.length:
                self.skipped[source] = self.skipped.get(source, 0) + 1
                if self.skipped[source] > 1000 and not sequences:
                    raise ValueError(
                        f"no document of {source!r} fits: the last has {len(sequence)} positions, a row"
                        f" {recipe.length}; set a larger `length`"
                    )
                continue
            row = fitting_row(room, len(sequence))
            if row is None:
                self.mixture.load(before)
                break
            plan[row].append(len(sequences))
            room[row] -= len(sequence)
            sequences.append(sequence)
        self.fill = 1 - sum(room) / (recipe.rows * recipe.length)
        return collate(sequences, plan, recipe.length, self._blank)

    def _sequence(self, progress: float) -> tuple[Sequence, str]:
        draw = self.mixture.draw()
        name = self.mixture.names[draw.source]
        document = self.mixture.document(draw)
        rng = document_rng(self.mixture.seed, f"{name}/layout", draw.index, draw.visit)
        if rng.random() < self.recipe.drop_prompt:
            document = without_prompt(document, self.model.speaker.medium)
        return self.model.lay_out(document, rng, progress), name

    def state(self) -> dict:
        """Where the data stands, for JSON."""
        return self.mixture.state()

    def load(self, state: dict) -> None:
        """Go on from `state`."""
        self.mixture.load(state)
