"""The files of `openstax-figures` out of the repositories of three textbooks: pictures, what is said of them, texts.

A module of a book is one file of CNXML. Its text is flattened: a paragraph, an item of a list or a definition is a
piece, headings begin with "# ", formulas lose their spaces, tables are left out. The repositories' later commits are
under another licence, so these books are taken from no other commit.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image as Pillow

BOOKS = {
    "astronomy": ("astronomy-2e", "Astronomy 2e"),
    "introduction-sociology": ("introduction-sociology-3e", "Introduction to Sociology 3e"),
    "psychology": ("psychology-2e", "Psychology 2e"),
}
HELD_OUT = frozenset(
    "m59765 m59785 m59794 m59816 m59858 m59890 m59899 m59915 m59948 m59980 m59993 m60003 m82205 m82217"
    " m90206 m90221 m90224".split()
)
LEFT_OUT = frozenset({"OSC_Astro_13_04_JanOort.jpg"})  # its caption says: copyright by the Leiden Observatory
FIELDS = (
    "i file book module source_file width height orig_width orig_height alt alt_short caption credit credit_class kind"
    " panels split"
).split()
KINDS = {"p": "photo", "d": "diagram", "m": "mixed", "o": "other"}
SIDE, QUALITY = 256, 88
LEAST = 500  # letters of a module that is a document
_PIECES = frozenset("para item".split())
_AROUND = frozenset("content section list note example exercise problem solution glossary".split())
_AGENCY = re.compile(r"nasa|\besa\b|\beso\b|noaa|usgs|nrao|noao|nsf|\bcdc\b|\bnational|\bu\.?s\.? ", re.IGNORECASE)
_CREDIT = re.compile(r"[Cc]redit|Graph (attribution|courtesy)")
_SENTENCE = re.compile(r"(.*?)(?<=[a-z0-9)\]”’])[.;](\s|$)", re.DOTALL)


def make(fetched: Path, made: Path) -> None:
    """Nothing; writes images256.tar, captions.jsonl and interleaved.jsonl into `made`."""
    records: dict[str, dict[str, Any]] = {}
    documents = []
    for book in BOOKS:
        for module in modules(fetched, book):
            held = list(pieces(fetched, module))
            for name, alt, caption, credit in (piece["figure"] for piece in held if "figure" in piece):
                if name not in records:  # what is said where it stands first
                    said = {"alt": alt, "alt_short": first_sentence(alt), "caption": caption or "", "credit": credit}
                    records[name] = {"book": BOOKS[book][1], "module": module, "source_file": name, **said}
            documents.append((book, module, held))
    kinds = resources.files("mixmodal.data").joinpath("words", "openstax_kinds.txt").read_text("utf-8").split()
    kinds = "".join(kinds)
    if len(kinds) != len(records):
        raise ValueError(
            f"{len(records)} pictures were found, wanted {len(kinds)}: these are other books than those pinned"
        )
    with tarfile.open(made / "images256.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for number, (name, record) in enumerate(records.items()):
            size, sides, data = reduced(fetched / "media" / name)
            member = tarfile.TarInfo(f"{number:05}.jpg")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
            record |= {"i": number, "file": member.name, "width": sides[0], "height": sides[1]}
            record |= {"orig_width": size[0], "orig_height": size[1], "kind": KINDS[kinds[number]], "panels": 1}
            record |= {"credit_class": owner(record["credit"])}
            record |= {"split": "val" if record["module"] in HELD_OUT else "train"}
    _write(made / "captions.jsonl", ({name: record[name] for name in FIELDS} for record in records.values()))
    _write(made / "interleaved.jsonl", filter(None, (_document(*each, records) for each in documents)))
    shutil.copyfile(fetched / "LICENSE", made / "LICENSE")


def _write(path: Path, records: Any) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")


def _document(book: str, module: str, held: list[dict], records: dict[str, dict]) -> dict[str, Any] | None:
    """A module as text and pictures in order; None for a preface, and for one that is little but tables."""
    title, segments = held[0]["title"], [{"text": f"# {held[0]['title']}"}]
    for piece in held[1:]:
        if "text" in piece:
            segments.append(piece)
        else:
            name, _, caption, _ = piece["figure"]
            segments.append({"image": records[name]["i"]})
            segments += [] if caption is None else [{"caption": records[name]["caption"]}]
    letters = sum(len(segment.get("text", "")) for segment in segments)
    if title == "Preface" or letters < LEAST:
        return None
    told = {"id": f"{book}/{module}", "book": BOOKS[book][1], "title": title}
    told |= {"n_images": sum("image" in segment for segment in segments), "n_chars": letters}
    return {**told, "split": "val" if module in HELD_OUT else "train", "segments": segments}


def modules(fetched: Path, book: str) -> list[str]:
    """The modules of a book in reading order."""
    tree = ElementTree.parse(fetched / "collections" / f"{BOOKS[book][0]}.collection.xml")
    return [element.attrib["document"] for element in tree.iter() if _name(element) == "module"]


def pieces(fetched: Path, module: str) -> Iterator[dict[str, Any]]:
    """The title of a module, then its pieces in order: `text`, or `figure`, (file, alt, caption or None, credit)."""
    root = ElementTree.parse(fetched / "modules" / module / "index.cnxml").getroot()
    yield {"title": next(_line(child) for child in root if _name(child) == "title")}
    for child in root:
        if _name(child) in ("content", "glossary"):
            yield from _within(child)


def _within(element: ElementTree.Element) -> Iterator[dict[str, Any]]:
    for child in element:
        name = _name(child)
        if name in _PIECES:
            if text := _line(child, ("figure", "table", "media")):
                yield {"text": text}
            yield from (figure for inner in child.iter() if _name(inner) == "figure" for figure in _figure(inner))
        elif name == "title":
            yield {"text": f"# {_line(child)}"}
        elif name == "definition":
            term, meaning = (next((_line(c) for c in child if _name(c) == of), "") for of in ("term", "meaning"))
            yield {"text": f"{term}: {meaning}"}
        elif name == "figure":
            yield from _figure(child)
        elif name in _AROUND:
            yield from _within(child)


def _figure(element: ElementTree.Element) -> Iterator[dict[str, Any]]:
    media = next((inner for inner in element.iter() if _name(inner) == "media"), None)
    image = next((inner for inner in element.iter() if _name(inner) == "image"), None)
    if media is None or image is None:
        return
    name = image.attrib["src"].rpartition("/")[2]
    if name in LEFT_OUT:
        return
    below = next((_line(child) for child in element if _name(child) == "caption"), None)
    caption, credit = (None, "") if below is None else credited(below)
    yield {"figure": (name, _spaced(media.attrib.get("alt", "")), caption, credit)}


def credited(below: str) -> tuple[str, str]:
    """A caption, and the credit that stands in brackets at its end."""
    if not below.endswith(")"):
        return below, ""
    depth = 0
    for at in range(len(below) - 1, -1, -1):
        depth += (below[at] == ")") - (below[at] == "(")
        if depth == 0:
            inner = below[at + 1 : -1]
            return (below[:at].strip(), inner.strip()) if _CREDIT.match(inner.strip()) else (below, "")
    return below, ""


def owner(credit: str) -> str:
    """Whose a picture is, roughly, by the words of its credit."""
    if not credit:
        return "none-stated (OpenStax)"
    if _AGENCY.search(credit):
        return "nasa/esa/eso/noaa/agency"
    return next((name for name in ("flickr", "wikimedia") if name in credit.lower()), "other-named")


def first_sentence(text: str) -> str:
    """A text up to its first full stop or semicolon, not after capitals (initials, the names of comets)."""
    found = _SENTENCE.match(text)
    return found[1] if found else text


def reduced(path: Path) -> tuple[tuple[int, int], tuple[int, int], bytes]:
    """The size of a picture, its size within 256 px, and that as JPEG."""
    with Pillow.open(path, formats=("JPEG", "PNG")) as picture:
        size, whole = picture.size, picture.convert("RGB")
        if picture.mode == "RGBA":
            whole = Pillow.alpha_composite(Pillow.new("RGBA", size, "white"), picture).convert("RGB")
    whole.thumbnail((SIDE, SIDE), Pillow.Resampling.LANCZOS)
    held = io.BytesIO()
    whole.save(held, "JPEG", quality=QUALITY, optimize=True)
    return size, whole.size, held.getvalue()


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _line(element: ElementTree.Element, without: tuple[str, ...] = ()) -> str:
    return _spaced(_flat(element, without))


def _flat(element: ElementTree.Element, without: tuple[str, ...]) -> str:
    out = [element.text or ""]
    for child in element:
        name = _name(child)
        if name == "math":
            out.append("".join("".join(child.itertext()).split()))
        elif name == "newline":
            out.append("\n")
        elif name not in without:
            out.append(_flat(child, without))
        out.append(child.tail or "")
    return "".join(out)


def _spaced(text: str) -> str:
    return " ".join(text.split())
