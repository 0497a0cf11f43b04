"""Plain text: the prose every Python brings along, and one's own files."""

import ast
import subprocess
import sys
import time

import numpy as np
import pytest

from mixmodal.data.prose import Prose, TextFile, docstrings, pieces, prose_in

RNG = np.random.default_rng(0)


def test_the_prose_is_read_in_seconds_and_says_how_much_it_is():
    start = time.perf_counter()
    train, heldout = Prose("train"), Prose("heldout")
    assert time.perf_counter() - start < 8  # 1.7 s on a quiet machine
    assert train.bytes == sum(len(paragraph.encode()) for paragraph in train.paragraphs)
    assert train.bytes > 150_000 and heldout.bytes > 8_000
    assert train.size == len(train) == len(train.paragraphs)
    assert "Python 3." in train.about


def test_every_paragraph_is_bounded_ascii_prose_and_occurs_once():
    for split in ("train", "heldout"):
        paragraphs = Prose(split).paragraphs
        assert all(40 <= len(paragraph) <= 400 and paragraph.isascii() for paragraph in paragraphs)
        assert not any("\n" in paragraph or ">>>" in paragraph for paragraph in paragraphs)
        assert len({paragraph.lower() for paragraph in paragraphs}) == len(paragraphs)
        letters = sum(letter.isalpha() or letter == " " for paragraph in paragraphs for letter in paragraph)
        assert letters / sum(map(len, paragraphs)) > 0.93


def test_no_heldout_paragraph_is_in_training():
    train = {paragraph.lower() for paragraph in Prose("train").paragraphs}
    assert train.isdisjoint(paragraph.lower() for paragraph in Prose("heldout").paragraphs)


def test_a_prose_document_is_one_text_to_be_learned():
    document = Prose("heldout", longest=120).document(3, RNG)
    (text,) = document.parts
    assert text.medium == "text" and text.wanted and text.weight == 1.0 and len(text.text) <= 120


def test_building_the_prose_imports_none_of_the_modules_it_reads():
    code = (
        "import sys; from mixmodal.data.prose import Prose; before = set(sys.modules); Prose(); "
        "print([name for name in sys.modules if name not in before and not name.startswith('_sysconfigdata')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_only_sentences_are_taken_from_a_docstring():
    docstring = """Return the sum of all the numbers that are given.

    This second paragraph is prose as well.  It has an old style
    double space and goes on over two lines.

    >>> add(1, 2)
    3

        indented = code_that_is(not_prose)

    - a list of things that are not a paragraph at all.

    :param numbers: the numbers that are to be added up here.

    Naïve text with a letter beyond plain ASCII is left out here.
    """
    assert list(prose_in(docstring)) == [
        "Return the sum of all the numbers that are given.",
        "This second paragraph is prose as well. It has an old style double space and goes on over two lines.",
    ]


def test_docstrings_come_in_reading_order_from_modules_classes_and_functions():
    source = (
        '"""one"""\nclass A:\n    """two"""\n    def f(self):\n        """three"""\nasync def g():\n    """four"""\n'
    )
    source += "def bare():\n    return 1\nx = 'not a docstring'\n"
    assert list(docstrings(ast.parse(source))) == ["one", "two", "three", "four"]


def test_pieces_are_whole_sentences_of_bounded_length_and_lose_nothing():
    paragraph = "First here. Second there! " + "Words " * 30 + "end. Last one?"
    cut = list(pieces(paragraph, 60))
    assert all(len(piece) <= 60 for piece in cut)
    assert " ".join(cut) == paragraph
    assert cut[0] == "First here. Second there!"
    assert list(pieces("x" * 25, 10)) == ["x" * 10, "x" * 10, "x" * 5]


def test_a_text_file_is_cut_into_paragraphs_and_split_by_their_hash(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("\n\n".join(f"Paragraph number {number}\nover two lines." for number in range(200)), "utf-8")
    train, valid = TextFile(path), TextFile(path, split="valid")
    assert train.name == "own" and train.size + valid.size == 200 and 1 <= valid.size <= 30
    assert set(train.paragraphs).isdisjoint(valid.paragraphs)
    assert "Paragraph number 7 over two lines." in train.paragraphs + valid.paragraphs


def test_a_text_file_of_one_paragraph_or_none_says_what_is_wrong(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("Only one paragraph is here.", "utf-8")
    assert TextFile(path).size == 1
    with pytest.raises(ValueError, match="no paragraph"):
        TextFile(path, split="valid")
    path.write_bytes(b"\xff\xfe\x00broken")
    with pytest.raises(ValueError, match="not UTF-8"):
        TextFile(path)
