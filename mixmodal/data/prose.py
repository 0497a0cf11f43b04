"""Plain text: English that every Python brings along, or one's own file.

The docstrings of the standard library's modules are some hundred thousand characters of careful prose on every bare
machine. They are read as text with `ast`; nothing is imported or run. Held-out modules measure text ability.
"""

from __future__ import annotations

import ast
import gc
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from inspect import cleandoc
from itertools import chain
from pathlib import Path

import numpy as np

from mixmodal.data.pairs import HELD_OUT, checked_split, names_of
from mixmodal.data.places import MOST_BYTES, megabytes, walked, why_not
from mixmodal.data.report import Report, why_no_text
from mixmodal.parts import Document, Text

LONGEST = 400
SHORTEST = 40
HELD_OUT_MODULES = 0.15
# What some systems leave out of their Python, what is only there for tests, and what is not the library's own.
_SKIPPED = frozenset(
    "__pycache__ ensurepip dist-packages distutils idlelib lib-dynload lib2to3 pydoc_data site-packages test tests"
    " tkinter turtledemo venv".split()
)
_DOCSTRING_OWNERS = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_NOT_PROSE = (" ", "\t", "- ", "* ", ">>>", ":", "@", "|")
_SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[A-Z\"'(])")
_CODE = re.compile(r"[_=<>{}\[\]|\\/*^~@#$%`]|\w\(|\w\.\w|--|\.\.\.|::|>>>")


class Paragraphs:
    """A source of texts, one a document, with `bytes`, what they come to in UTF-8."""

    def __init__(self, name: str, paragraphs: Sequence[str]) -> None:
        if not paragraphs:
            raise ValueError(f"{name} has no paragraph for this split: they stand between blank lines, take more text")
        self.name = name
        self.paragraphs = tuple(paragraphs)
        self.size = len(self.paragraphs)
        self.bytes = sum(len(paragraph.encode()) for paragraph in self.paragraphs)

    def document(self, index: int, rng: np.random.Generator) -> Document:
        """Paragraph number `index`; `rng` is not used."""
        return Document((Text(self.paragraphs[index]),))

    def __len__(self) -> int:
        return self.size


class Prose(Paragraphs):
    """English paragraphs from the docstrings of Python's standard library, split by module into train and heldout.

    What is held out shares less than half of its runs of six words with the training text.
    Limits: the text differs a little from one version of Python to the next, so bits per byte compare exactly only on
    the same version; `about` names it.
    Raises: FileNotFoundError where Python has no source files (an embedded build).
    """

    def __init__(self, split: str = "train", longest: int = LONGEST, held_out: float = HELD_OUT_MODULES) -> None:
        root = sysconfig.get_path("stdlib")
        if not _standard_library(root):
            raise FileNotFoundError(f"no Python source in {root}: use TextFile with a text of your own")
        super().__init__("prose", _divided(root, longest, held_out)[checked_split(split)])
        self.about = f"docstrings of Python {sys.version.split()[0]}"


class TextFile(Paragraphs):
    """One's own text: the paragraphs of a UTF-8 file, between blank lines, cut at sentences to bounded length.

    Units: `held_out` is the share of the paragraphs that is held out, chosen by a hash of each; `most_bytes` of the
    file.
    Raises: FileNotFoundError; ValueError if the file is no text, or too large, or has no paragraph.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        split: str = "train",
        longest: int = LONGEST,
        held_out: float = HELD_OUT,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        path = Path(path)
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is no plain file: give a file of text, or a folder of them")
        if path.stat().st_size > most_bytes:
            raise ValueError(
                f"{path} has {megabytes(path.stat().st_size)}, and all of it is held in memory: split it into a folder"
                " of smaller files, or read with a larger `most_bytes`"
            )
        try:
            paragraphs = list(_paragraphs(path))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): convert it") from error
        if reason := next(filter(None, map(why_no_text, paragraphs)), None):
            raise ValueError(f"{path} {reason}: it is no text, or look at its bytes")
        wanted = names_of(split, paragraphs, held_out)
        cut = [piece for paragraph in paragraphs if paragraph in wanted for piece in pieces(paragraph, longest)]
        super().__init__(path.stem, cut)


class TextFolder(Paragraphs):
    """One's own texts: the paragraphs of every .txt and .md file of a folder and of those in it, as for TextFile.

    What cannot be used is left out and counted with its reason in `report`.
    Units: `most_bytes` of one file.
    Raises: FileNotFoundError without the folder; ValueError if nothing in it can be used.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        split: str = "train",
        longest: int = LONGEST,
        held_out: float = HELD_OUT,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        root = Path(path).resolve()
        if not root.is_dir():
            raise FileNotFoundError(f"no folder at {path}: give the folder that holds the texts")
        self.report = Report()
        paragraphs = [p for name in walked(root, self.report) for p in self._read(root, name, most_bytes)]
        wanted = names_of(split, paragraphs, held_out)
        cut = [piece for paragraph in paragraphs if paragraph in wanted for piece in pieces(paragraph, longest)]
        if not cut:
            left_out = "; ".join(self.report.lines()) or "no file ends in .txt or .md"
            raise ValueError(f"no paragraph for split {split!r} in {path} ({left_out}): put texts in UTF-8 there")
        super().__init__(root.name, cut)

    def _read(self, root: Path, name: str, most: int) -> list[str]:
        reason = why_not(root, name) if name.endswith((".txt", ".md")) else "ending of no text"
        try:
            if reason is None and (root / name).stat().st_size > most:
                reason = f"file over {megabytes(most)}"
            if reason is None:
                paragraphs = list(_paragraphs(root / name))
                no_text = next(filter(None, map(why_no_text, paragraphs)), None)
                if paragraphs and not no_text:
                    return paragraphs
                reason = f"file {no_text}" if no_text else "empty file"
        except UnicodeDecodeError:
            reason = "file is not UTF-8 text"
        except OSError:
            reason = "file cannot be read"
        self.report.add(reason, name)
        return []


class TinyShakespeare(TextFile):
    """A million characters of Shakespeare's plays, a speech or more a document; the folder is called `text`.

    Source: github.com/karpathy/char-rnn.
    """

    def __init__(
        self,
        split: str = "train",
        longest: int = LONGEST,
        held_out: float = HELD_OUT,
        where: str | os.PathLike | None = None,
    ) -> None:
        from mixmodal.data.named import find

        (path,) = find("text", ("tinyshakespeare.txt",), where)
        super().__init__(path, split, longest, held_out)


def _paragraphs(path: Path) -> Iterator[str]:
    held: list[str] = []
    with open(path, encoding="utf-8-sig") as stream:
        for line in chain(stream, ("",)):
            words = " ".join(line.split())
            if words:
                held.append(words)
            elif held:
                yield " ".join(held)
                held = []


def pieces(paragraph: str, longest: int = LONGEST) -> Iterator[str]:
    """The paragraph in runs of whole sentences of at most `longest` characters; longer sentences cut at spaces."""
    held = ""
    for sentence in _SENTENCE_END.split(paragraph):
        at = 0  # by place, not by cutting off: a sentence may be the whole file
        while len(sentence) - at > longest:
            cut = sentence.rfind(" ", at + 1, at + longest + 1)
            cut = at + longest if cut < 0 else cut
            if held:
                yield held
                held = ""
            yield sentence[at:cut]
            at = cut
            while sentence[at : at + 1].isspace():
                at += 1
        sentence = sentence[at:]
        if held and len(held) + 1 + len(sentence) > longest:
            yield held
            held = ""
        held = f"{held} {sentence}" if held else sentence
    if held:
        yield held


def prose_in(docstring: str) -> Iterator[str]:
    """The paragraphs of a docstring that are sentences: no code, tables, lists, signatures or doctests; in ASCII."""
    for block in cleandoc(docstring).split("\n\n"):
        # Two spaces after a full stop are old style; anywhere else they are a table or an indent.
        lines = [re.sub(r"(?<=[.!?:]) +", " ", line.rstrip()) for line in block.strip("\n").split("\n")]
        if any(line.startswith(_NOT_PROSE) or "  " in line for line in lines):
            continue
        text = " ".join(lines)
        if (
            len(text) >= SHORTEST
            and text.isascii()
            and text[0].isupper()
            and text[-1] in ".!?"
            and text.count(" ") >= 6
            and len(_CODE.findall(text)) * 60 <= len(text)
        ):
            yield text


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Every docstring of a module, of its classes and of functions at any depth of classes."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _DOCSTRING_OWNERS) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield first.value.value
        if isinstance(node, ast.Module | ast.ClassDef):
            waiting.extend(reversed([child for child in node.body if isinstance(child, _DOCSTRING_OWNERS)]))


def _modules(root: str) -> Iterator[tuple[str, str]]:
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("config-"))
        for file in sorted(files):
            if file.endswith(".py"):
                path = os.path.join(place, file)
                parts = os.path.relpath(path, root)[:-3].split(os.sep)
                # _pyio and io, _strptime and its kin: a module and its hidden half stay in one split.
                yield ".".join(re.sub(r"^_(py)?(?=[a-z])", "", part) for part in parts), path


@cache
def _standard_library(root: str) -> dict[str, list[str]]:
    modules: dict[str, list[str]] = {}
    # Trees go without the collector, and its passes would cost half as much again; with torch loaded, twice.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for module, path in _modules(root):
            found = [paragraph for docstring in docstrings(_parsed(path)) for paragraph in prose_in(docstring)]
            if found:
                modules.setdefault(module, []).extend(found)
    finally:
        if collecting:
            gc.enable()
    return modules


def _parsed(path: str) -> ast.Module:
    try:
        source = Path(path).read_bytes()
        # Parsing is nearly all of the time: long modules with few docstrings are not worth theirs.
        if source.count(b'"""') * 1000 >= len(source):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of escapes in old modules
                return ast.parse(source)
    except (OSError, SyntaxError, ValueError):
        pass  # a test's broken module, or one that cannot be read, has no prose for us
    return ast.Module([], [])


@cache
def _divided(root: str, longest: int, held_out: float) -> dict[str, tuple[str, ...]]:
    modules = _standard_library(root)
    heldout = names_of("heldout", modules, held_out)
    unique: dict[str, dict[str, str]] = {"train": {}, "valid": {}}
    for module, paragraphs in modules.items():
        kept = unique["valid" if module in heldout else "train"]
        for paragraph in paragraphs:
            for piece in pieces(paragraph, longest):
                if len(piece) >= SHORTEST:
                    kept.setdefault(piece.lower(), piece)
    learned = {run for text in unique["train"] for run in _runs(text)}
    fresh = []
    for text, piece in unique["valid"].items():
        runs = _runs(text)
        if sum(run in learned for run in runs) * 2 < len(runs):
            fresh.append(piece)
    return {"train": tuple(unique["train"].values()), "valid": tuple(fresh)}


def _runs(text: str, length: int = 6) -> list[str]:
    words = re.findall(r"[a-z0-9']+", text.lower())
    return [" ".join(words[start : start + length]) for start in range(max(1, len(words) - length + 1))]
