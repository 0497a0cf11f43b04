"""Text as tokens of a byte-level BPE, with the tokens that announce, size and end the parts of other media."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from mixmodal.config import Recipe
from mixmodal.parts import MEDIA, Document, Text
from mixmodal.sequence import Grid

BEGIN, END = "<|begin|>", "<|end|>"
TASK, MIXED = "to:", "mixed"  # a task is named by the medium that is wanted, or by there being several
LARGEST_SIZE = 128  # cells along one side of a part that is announced


@dataclass(frozen=True)
class Config:
    """Options of the text codec: the content of a tokenizer.json, and the size of its vocabulary with additions.

    Units:   `learned` > 0 adds a learned place to the first so many tokens of a part, beside the rotary one: rotary
             places are relative, and which letter of a word stands where in a picture is not.
             `fill` > 0 fills a text with end tokens to a multiple of so many, at least one: for who makes it whole.
             With `tasks` a document opens with a token for what is wanted of it: one medium, or several.
             `kept` > 0 keeps the first so many rows of the table, and of a head over it, as they are: what the rows
             behind them learn stands beside, in `table_added`. Of `ends`, tokens of a foreign vocabulary, each ends a
             text that the model writes, as its own end does.
    """

    tokenizer: str = ""
    vocabulary: int = 0
    learned: int = 0
    tasks: bool = False
    fill: int = 0
    kept: int = 0
    ends: tuple[int, ...] = ()


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> str:
    """A byte-level BPE trained on `texts`, as the content of a tokenizer.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def with_specials(tokenizer: str, media: Iterable[str], tasks: bool = False) -> Config:
    """The options for a tokenizer.json, its vocabulary extended by begin, end, sizes, the given media, and tasks."""
    loaded = Tokenizer.from_str(tokenizer)
    loaded.no_padding()  # a file may keep how somebody once filled or cut texts: here rows are packed
    loaded.no_truncation()
    named = [BEGIN, END, *(mark for medium in sorted(media) for mark in (f"<|{medium}|>", f"<|/{medium}|>"))]
    if tasks:
        named += [f"<|{TASK}{task}|>" for task in (*sorted({*media, Text.medium}), MIXED)]
    loaded.add_special_tokens([*named, *(f"<|{n}|>" for n in range(1, LARGEST_SIZE + 1))])
    return Config(loaded.to_str(), loaded.get_vocab_size(), tasks=tasks)


def prepare(config: Config, documents: Iterable[Document], media: Iterable[str], recipe: Recipe) -> Config:
    """The options completed: their own tokenizer, the recipe's, or one trained on the documents' texts; with specials.

    A tokenizer that has some of them gets the others behind, so that its own numbers stay.
    """
    if config.tokenizer:
        tokenizer = config.tokenizer
    elif recipe.tokenizer:
        with open(recipe.tokenizer, encoding="utf8") as file:
            tokenizer = file.read()
    else:
        texts = (part.text for document in documents for part in document.parts if part.medium == Text.medium)
        tokenizer = train_tokenizer(texts, recipe.vocabulary)
    made = with_specials(tokenizer, media, config.tasks)
    vocabulary = max(made.vocabulary, config.vocabulary)  # a table may have rows that no token has yet
    return replace(config, tokenizer=made.tokenizer, vocabulary=vocabulary)


class Codec(nn.Module):
    """Tokens and their table."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        if not config.tokenizer:
            raise ValueError(
                "the text codec has no tokenizer: train one (train_tokenizer) or load a tokenizer.json,"
                " and add its specials (with_specials)"
            )
        self.tokenizer = Tokenizer.from_str(config.tokenizer)
        self.tokenizer.encode_special_tokens = True  # a text that spells "<|end|>" is text and ends nothing
        self.vocabulary = config.vocabulary or self.tokenizer.get_vocab_size()
        self.table = nn.Embedding(self.vocabulary, width)
        nn.init.normal_(self.table.weight)  # as large as what the blocks add, or words drown in it
        self.kept = config.kept
        self.table.weight.requires_grad_(not self.kept)
        self.table_added = nn.Parameter(torch.zeros(self.vocabulary - self.kept, width)) if self.kept else None
        self.place = nn.Parameter(torch.randn(config.learned, width) * 0.8) if config.learned else None
        self.begin, self.end, self.tasks, self.fill = self._id(BEGIN), self._id(END), config.tasks, config.fill
        self.ends = tuple(config.ends)
        self._sizes = {n: self._id(f"<|{n}|>") for n in range(1, LARGEST_SIZE + 1)}
        self._of_size = {token: n for n, token in self._sizes.items()}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self.tokenizer.encode_special_tokens = True  # a copy of a tokenizer forgets it

    def _id(self, mark: str) -> int:
        number = self.tokenizer.token_to_id(mark)
        if number is None:
            raise ValueError(f"the tokenizer lacks the token {mark}: pass it through with_specials first")
        return number

    def encode(self, part: Any) -> Grid:
        """Token numbers of the part's text, one a position, standing on the diagonal."""
        try:
            tokens = self.tokenizer.encode(part.text, add_special_tokens=False).ids
        except TypeError:
            raise ValueError(f"the text {part.text[:40]!r} is no valid Unicode: write it in UTF-8") from None
        return self.grid(tokens + [self.end] * (self.fill - len(tokens) % self.fill if self.fill else 0))

    def grid(self, tokens: list[int], first: int = 0) -> Grid:
        """The grid of given token numbers, of which the first is number `first` of its part."""
        steps = np.arange(first, first + len(tokens), dtype=np.float32)
        return Grid(np.asarray(tokens, np.int64), steps[:, None].repeat(3, axis=1), (len(tokens), 1, 1))

    def decode(self, values: np.ndarray, grid: Grid | None, part: Any) -> Any:
        """The part with the text that the tokens spell, up to an end among them."""
        ends = np.flatnonzero(np.asarray(values) == self.end)
        values = values[: ends[0]] if self.fill and len(ends) else values
        return replace(part, text=self.tokenizer.decode([int(v) for v in values], skip_special_tokens=True))

    def coords(self, grid: Grid) -> np.ndarray:
        """Coordinates of the positions, relative to where the part begins."""
        return grid.cells

    def begins(self, parts: Iterable[Any]) -> list[int]:
        """The tokens that a document of such parts begins with: with `tasks`, one that says what is wanted of it.

        A text in front of what is wanted is no task, though it may be learned too.
        """
        if not self.tasks:
            return [self.begin]
        wanted = [part.medium for part in parts if part.wanted]
        while len(wanted) > 1 and wanted[0] == Text.medium:
            wanted.pop(0)
        task = wanted[0] if len(set(wanted)) == 1 else MIXED
        return [self.begin, self._id(f"<|{TASK}{task}|>")]

    def beginnings(self) -> list[int]:
        """Every token that may begin a document, and stands nowhere else."""
        tasks = (f"<|{TASK}{task}|>" for task in (*MEDIA, MIXED)) if self.tasks else ()
        return [self.begin, *(n for task in tasks if (n := self.tokenizer.token_to_id(task)) is not None)]

    def opening(self, medium: str, size: tuple[int, int, int]) -> list[int]:
        """The header of a part: begin of its medium, then rows and columns (and frames, where there are several).

        Raises:  ValueError if a side has more cells than can be announced.
        """
        frames, rows, columns = size
        sides = [rows, columns] + ([frames] if frames > 1 else [])
        if max(sides) > LARGEST_SIZE:
            raise ValueError(
                f"a part of {rows} x {columns} cells, {frames} frames, cannot be announced: at most"
                f" {LARGEST_SIZE} along a side; take a larger patch or a smaller picture"
            )
        return [self._id(f"<|{medium}|>"), *(self._sizes[n] for n in sides)]

    def closing(self, medium: str) -> list[int]:
        """The token that ends a part of `medium`."""
        return [self._id(f"<|/{medium}|>")]

    def announced(self, token: int) -> str | None:
        """The medium that `token` begins, if it begins one; what begins one has a token that ends it too."""
        mark = self.tokenizer.id_to_token(int(token)) or ""
        inside = mark[2:-2] if mark.startswith("<|") and mark.endswith("|>") else ""
        return inside if inside and self.tokenizer.token_to_id(f"<|/{inside}|>") is not None else None

    def side(self, token: int) -> int | None:
        """The number of cells that `token` announces, if it announces one."""
        return self._of_size.get(int(token))

    def size_tokens(self) -> list[int]:
        """The tokens that announce sizes."""
        return list(self._of_size)

    def blank(self) -> dict[str, Tensor]:
        """One slot that embeds nothing of meaning."""
        blank = {"values": torch.zeros(1, dtype=torch.long)}
        return blank if self.place is None else blank | {"cells": torch.zeros(1, dtype=torch.long)}

    def fields(self, grid: Grid) -> dict[str, np.ndarray]:
        """What a position embeds."""
        if self.place is None:
            return {"values": grid.values}
        return {"values": grid.values, "cells": grid.cells[:, 0].astype(np.int64)}

    def embed(self, fields: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """Rows of the table, with their learned place if there is one.

        Shapes:  [N] -> [N, D].
        """
        x_ND = self.table(fields["values"])
        if self.table_added is not None:
            behind_N = fields["values"] - self.kept
            x_ND = x_ND + self.table_added[behind_N.clamp(min=0)] * (behind_N >= 0)[:, None]
        if self.place is None:
            return x_ND
        cells_N = fields["cells"]
        there_N1 = (cells_N < len(self.place))[:, None]
        return x_ND + self.place[cells_N.clamp(max=len(self.place) - 1)] * there_N1

    def read(self, hidden_ND: Tensor, fields: dict[str, Tensor]) -> Tensor:
        """The hidden state itself: a head reads tokens."""
        return hidden_ND


def build(config: Config, width: int) -> Codec:
    """The codec for a trunk of `width`."""
    return Codec(config, width)
