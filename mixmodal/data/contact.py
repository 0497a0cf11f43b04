"""Contact sheets: what a source would give a training, drawn in a grid with its words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

from PIL import Image as Picture
from PIL import ImageDraw

from mixmodal.parts import Document
from mixmodal.track import GREY, INK, PAPER, enlarged, font

MARGIN, LINE, LINES = 8, 15, 4
MOST = 2000  # cells: a sheet beyond that opens nowhere


def contact_sheet(documents: Sequence[Document], columns: int = 6, side: int = 128) -> Picture.Image:
    """A grid of pictures, each above its words; a document with several pictures goes on through several cells.

    Units: `side` in pixels, of the square that a picture is fitted into.
    Raises: ValueError for a grid that cannot be drawn.
    """
    found = [cell for document in documents for cell in cells(document)]
    if columns < 1 or side < 16 or not found or len(found) > MOST:
        raise ValueError(
            f"a sheet wants 1 to {MOST} cells in 1 or more columns, of 16 px or more:"
            f" got {len(found)} in {columns} of {side} px"
        )
    columns = min(columns, len(found))
    wide, high = side + MARGIN, side + LINES * LINE + 2 * MARGIN
    sheet = Picture.new("RGB", (columns * wide + MARGIN, -(-len(found) // columns) * high + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (part, words) in enumerate(found):
        x, y = MARGIN + number % columns * wide, MARGIN + number // columns * high
        if part is not None:
            picture = enlarged(part.pixels, side)
            sheet.paste(picture, (x + (side - picture.width) // 2, y + (side - picture.height) // 2))
        top = y + side + 2 if part is not None else y
        most = LINES if part is not None else LINES + side // LINE
        for row, line in enumerate(wrapped(pen, words, side, most)):
            pen.text((x, top + row * LINE), line, fill=INK if part is not None else GREY, font=_face())
    return sheet


def cells(document: Document) -> list[tuple[object | None, str]]:
    """The pictures of a document, each with the words around it; text alone is a cell without a picture."""
    parts, used, out = document.parts, set(), []
    for at, part in enumerate(parts):
        if getattr(part, "pixels", None) is None:
            continue
        words = []
        for near in (at - 1, at + 1):
            if 0 <= near < len(parts) and hasattr(parts[near], "text") and near not in used:
                used.add(near)
                words.append(parts[near].text)
        out.append((part, " | ".join(words)))
    return out or [(None, " ".join(part.text for part in parts if hasattr(part, "text")))]


def wrapped(pen: ImageDraw.ImageDraw, words: str, width: int, most: int) -> list[str]:
    """The words in lines no wider than `width`, the last of at most `most` with dots where it is not the end."""
    lines, line = [], ""
    for word in drawable(words).split():
        if len(lines) > most:
            break
        while pen.textlength(word, font=_face()) > width and len(word) > 1 and len(lines) <= most:
            lines += [line] if line else []
            fits = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or _fits(pen, word[:n], width))
            lines.append(word[:fits])
            line, word = "", word[fits:]
        longer = f"{line} {word}".strip()
        if pen.textlength(longer, font=_face()) > width and line:
            lines.append(line)
            line = word
        else:
            line = longer
    lines += [line] if line else []
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and not _fits(pen, last + "...", width):
        last = last[:-1]
    return [*lines[: most - 1], last + "..."]


def drawable(text: str) -> str:
    """The text in letters that the font has: accents fall away, dashes are hyphens, what else it lacks is a "?"."""
    dashes = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
    letters = unicodedata.normalize("NFKD", text.translate(dashes))
    return "".join("?" if ord(c) > 126 else c for c in letters if not unicodedata.combining(c))


@cache
def _face():
    return font(12)  # reading it takes longer than drawing a line


def _fits(pen: ImageDraw.ImageDraw, text: str, width: int) -> bool:
    return pen.textlength(text.strip(), font=_face()) <= width
