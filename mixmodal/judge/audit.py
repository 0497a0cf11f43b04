"""The information audit: what pictures hold in bits, what codes of them may carry and do, and what remains of them.

Source:  Su 2024, "Lossless Input" (the audit and its figures); 3.44 bits a byte on ImageNet-64: Child et al. 2019
         (arXiv:1904.10509).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture

from mixmodal.coder import decode_adaptively, encode_adaptively
from mixmodal.compression import bits, compress, decompress, exact
from mixmodal.data.squares import picture_of, squares
from mixmodal.judge import glyphs, scenes
from mixmodal.judge.intervals import rate
from mixmodal.model import Model, Stream
from mixmodal.parts import Document, Image
from mixmodal.similarity import psnr

FILES = {
    "PNG": {"format": "PNG", "optimize": True},
    "WebP, lossless": {"format": "WEBP", "lossless": True, "method": 6},
}
# The example by which Su shows that codes lose: a picture of 64 x 64 px, 3 bits for each of its bytes.
EXAMPLE_BYTES, EXAMPLE_RATE, EXAMPLE_TOKENS = 64 * 64 * 3, 3, (1024, 256)


@dataclass(frozen=True)
class Row:
    """One way to hold the pictures.

    `exact` says that they come back to the bit; where not, `psnr` says how near, `read` how many a judge still reads.
    Of patches through a matrix of lower rank what it drops is counted as 8 bits for each number.
    Units:   bits a picture: `capacity` of codes of fixed length, `tokens` times `bits_each`; `ideal` as told by a law
             (of a model; or of how often each number of a code occurs here, known for nothing); `coded` what a coder
             spent, decoded again.
    """

    name: str
    exact: bool
    tokens: float | None = None
    bits_each: float | None = None
    capacity: float | None = None
    ideal: float | None = None
    coded: float | None = None
    psnr: float | None = None
    read: dict[str, float] | None = None


@dataclass
class Audit:
    """The rows over one set of pictures. Units: `bytes` of one picture, raw, the mean."""

    data: str
    pictures: int
    bytes: float
    rows: list[Row] = field(default_factory=list)

    @property
    def least(self) -> Row:
        """What held the pictures to the bit with the fewest bits."""
        return min((row for row in self.rows if row.exact and row.coded is not None), key=lambda row: row.coded)

    def lines(self) -> list[str]:
        """The table, for people."""
        width = max(len(row.name) for row in self.rows)
        out = [
            f"{self.data}: {self.pictures} pictures of {self.bytes:,.0f} bytes in the mean",
            "",
            f"{'':{width}}   tokens  log2 V  capacity   ideal   coded    PSNR   read   wants",
            f"{'':{width}}                   -----bits a byte-----      dB           log2 V",
        ]
        for row in self.rows:
            rates = (None if bits is None else bits / self.bytes for bits in (row.capacity, row.ideal, row.coded))
            capacity, ideal, coded = (_told(value, ".3f") for value in rates)
            out.append(
                f"{row.name:{width}} {_told(row.tokens, '.0f'):>8} {_told(row.bits_each, '.1f'):>7} {capacity:>9}"
                f" {ideal:>7} {coded:>7} {'exact' if row.exact else _told(row.psnr, '.1f'):>7}"
                f" {_told(row.read and row.read['value'], '.0%'):>6} {_told(self.wants(row), '.1f'):>7}"
            )
        out += ["", f"wants: log2 V with which so many tokens could hold what {self.least.name} does, the least here."]
        return out + [""] + example()

    def wants(self, row: Row) -> float | None:
        """Bits that each of a row's tokens would have to carry to lose nothing."""
        return None if row.tokens is None else codes_needed(self.least.coded, row.tokens)

    def bars(self) -> dict[str, float]:
        """Rates in bits a byte by name, for a plot: what a coder spent, else what is carried at fixed length."""
        out = {}
        for row in self.rows:
            held = "exact" if row.exact else f"{_told(row.psnr, '.1f')} dB"
            held += f", {row.read['value']:.0%} read" if row.read and not row.exact else ""
            if row.capacity is not None:
                out[f"{row.name}: fixed length ({held})"] = row.capacity / self.bytes
            if row.coded is not None:
                out[f"{row.name}: coded ({held})"] = row.coded / self.bytes
        return out

    def as_json(self) -> dict[str, Any]:
        """The same for programs; rates in bits a byte beside bits a picture."""
        rows = []
        for row in self.rows:
            rates = {
                f"{n}_rate": getattr(row, n) / self.bytes for n in ("capacity", "ideal", "coded") if getattr(row, n)
            }
            rows.append({**asdict(row), **rates, "wants": self.wants(row)})
        claims = {str(n): codes_needed(EXAMPLE_BYTES * EXAMPLE_RATE, n) for n in EXAMPLE_TOKENS}
        return {**asdict(self), "rows": rows, "least": self.least.name, "example_log2_v": claims}


def codes_needed(information: float, tokens: float) -> float:
    """log2 V of the smallest vocabulary with which so many tokens carry so many bits: L log2 V >= information."""
    return information / tokens


def example() -> list[str]:
    """The figures of Su 2024, computed."""
    information = EXAMPLE_BYTES * EXAMPLE_RATE
    out = [f"Su 2024: 64 x 64 px at {EXAMPLE_RATE} bits a byte are {information:,} bits; to lose none of them,"]
    for tokens in EXAMPLE_TOKENS:
        needed = codes_needed(information, tokens)
        out.append(f"   {tokens:5} tokens want V >= 2^{needed:g}, about {2.0**needed:.0e}")
    return out


def audit(data: str, documents: list[Document], models: dict[str, tuple[Model, dict[str, Any]]]) -> Audit:
    """The audit of the first pictures of documents that have any; of each model, its `about` beside it.

    Raises:  ValueError where there are no pictures, or a model has none; RuntimeError if a coder loses something.
    """
    documents = [document for document in documents if any(isinstance(part, Image) for part in document.parts)]
    if not documents:
        raise ValueError(f"{data} gave no documents: take data with pictures")
    parts = [picture_of(document) for document in documents]
    readers = [_reader(document) for document in documents]
    found = Audit(data, len(parts), float(np.mean([part.pixels.size for part in parts])))
    true = _read(readers, parts)
    found.rows.append(Row("raw", True, capacity=8 * found.bytes, read=true))
    for name, options in FILES.items():
        found.rows.append(Row(name, True, coded=_filed(parts, options), read=true))
    for name, (model, about) in models.items():
        found.rows += _rows(name, model, about, parts, readers)
    return found


def remains(nets: Any, documents: list[Document]) -> dict[str, Any]:
    """What a tokenizer leaves of the first pictures of documents: `psnr` in dB, and `read` where a judge can tell."""
    parts = [picture_of(document) for document in documents]
    return _near(parts, [nets.rebuilt(part) for part in parts], [_reader(document) for document in documents])


def _near(parts: list[Image], back: list[Image], readers: list) -> dict[str, Any]:
    apart = [_psnr(*pair) for pair in zip(back, parts, strict=True)]
    return {"psnr": float(np.mean(apart)), "read": _read(readers, back)}


def _filed(parts: list[Image], options: dict[str, Any]) -> float:
    """Bits a picture of files, headers included."""
    size = 0
    for part in parts:
        held = io.BytesIO()
        Picture.fromarray(part.pixels).save(held, **options)
        size += held.tell()
        if not np.array_equal(np.asarray(Picture.open(held).convert("RGB")), part.pixels):
            raise RuntimeError(f"{options['format']} gave back other pixels: it is not lossless here")
    return 8 * size / len(parts)


def _rows(name: str, model: Model, about: dict, parts: list[Image], readers: list) -> Iterable[Row]:
    stream = _stream(model)
    codec, count = stream.codec, len(parts)
    nets = codec if hasattr(codec, "rebuilt") else getattr(codec, "nets", None)
    if nets is None and exact(stream):
        yield _spelled(name, model, about, parts)
        return
    if nets is None and not hasattr(codec, "embedding_rank"):
        raise ValueError(
            f"{name} takes pictures in through a net that has no bits to tell: audit its tokenizer, or another design"
        )
    if nets is None:  # arrays: as many bits as were there, where no rank is missing
        rank, size = codec.embedding_rank(), codec.size
        grids = [codec.encode(part) for part in parts]
        tokens = sum(len(grid.values) for grid in grids) / count
        whole, near = f"{name}, rank {rank} of {size}", {}
        back = [codec.decode(codec.embedded(g.values), g, part) for g, part in zip(grids, parts, strict=True)]
        same = all(np.array_equal(a.pixels, b.pixels) for a, b in zip(parts, back, strict=True))
        if not same:  # what of a patch can be told from as many numbers as are left
            near = _near(parts, back, readers)
        yield Row(whole, same, tokens, 8.0 * rank, capacity=8 * rank * tokens, **near)
        return
    latents, back = [nets.latents(part) for part in parts], [nets.rebuilt(part) for part in parts]
    positions = sum(found[..., 0].size for found in latents) / count
    near = _near(parts, back, readers)
    if nets.quantizer is None:
        yield Row(f"{name}, not quantized", False, positions, 32.0 * nets.vector, 32 * nets.vector * positions, **near)
        return
    each = nets.quantizer.bits
    row = {"tokens": positions, "bits_each": each, "capacity": each * positions, **near}
    codes = np.concatenate([nets.to_codes(found) for found in latents])
    codes, sizes = joined(codes, nets.quantizer.sizes)
    spent, ideal = coded(codes, sizes), entropy(codes)
    yield Row(f"{name}, codes one by one", False, ideal=ideal / count, coded=spent / count, **row)
    if codec is not nets and exact(stream):
        asked = [Document((part,), key=number) for number, part in enumerate(parts)]
        data = compress(model, asked)
        for found, part in zip(decompress(model, asked, data), back, strict=True):
            _same(found.parts[-1].pixels, part.pixels)
        yield Row(
            f"{name}, by its law", False, ideal=sum(bits(model, asked)) / count, coded=8 * len(data) / count, **row
        )


def _spelled(name: str, model: Model, about: dict, parts: list[Image]) -> Row:
    """Every value coded by the model's law, pictures larger than those that it learned in pieces."""
    side = min(about.get("sample_size", (32, 32)))
    pieces = [piece for part in parts for piece in squares(part.pixels, side)]
    asked = [Document((Image(piece),), key=number) for number, piece in enumerate(pieces)]
    data = compress(model, asked)
    for found, piece in zip(decompress(model, asked, data), pieces, strict=True):
        _same(found.parts[-1].pixels, piece)
    codec, count = _stream(model).codec, len(parts)
    tokens = sum(len(codec.empty(codec.cells(d.parts[0].extent)).values) for d in asked) / count
    told, spent = sum(bits(model, asked)) / count, 8 * len(data) / count
    return Row(f"{name}, in squares of {side} px", True, tokens, codec.bits, codec.bits * tokens, told, spent)


def joined(codes_NG: np.ndarray, sizes: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Codes with their numbers as one, and how many of those there are: what goes together costs no bits twice.

    Shapes:  [N, G] -> [N, 1], or the same where they are more than what there is to count them by.
    """
    if (whole := math.prod(sizes)) > len(codes_NG):
        return codes_NG, sizes
    return np.ravel_multi_index(tuple(codes_NG.T), sizes)[:, None], (whole,)


def coded(codes_NG: np.ndarray, sizes: tuple[int, ...]) -> float:
    """Bits that a coder spent on codes, each number told by how often it came before at its place in a code.

    Raises:  RuntimeError if they do not come back.
    """
    spent = 0
    for numbers_N, size in zip(codes_NG.T, sizes, strict=True):
        data = encode_adaptively(numbers_N, size)
        _same(decode_adaptively(data, len(numbers_N), size), numbers_N)
        spent += 8 * len(data)
    return float(spent)


def entropy(codes_NG: np.ndarray) -> float:
    """Bits of codes by how often each number occurs, where that is known for nothing."""
    total = 0.0
    for numbers_N in codes_NG.T:
        counts = np.unique(numbers_N, return_counts=True)[1]
        total -= float((counts * np.log2(counts / len(numbers_N))).sum())
    return total


def _stream(model: Model) -> Stream:
    found = [s for s in model.streams.values() if s.medium == Image.medium]
    if not found:
        raise ValueError(
            "a model has no stream of pictures: take a tokenizer, or a design that reads or draws pictures"
        )
    return max(found, key=lambda stream: stream.role != "read")


def _same(found: np.ndarray, true: np.ndarray) -> None:
    if not np.array_equal(found, true):
        raise RuntimeError("what was coded came back changed: the model's laws differ from one pass to the next here")


def _psnr(made: Image, true: Image) -> float:
    pair = (torch.from_numpy(part.array()).movedim(-1, 1) for part in (made, true))
    return float(psnr(*pair))


def _reader(document: Document) -> Callable[[np.ndarray], bool] | None:
    """Whether a picture still shows what the document's does, where a world can tell."""
    if found := document.about.get("glyphs"):
        return lambda pixels: glyphs.read(pixels) == found[0].word
    if found := document.about.get("scenes"):
        return lambda pixels: scenes.judge(pixels, found[0]).exact
    return None


def _read(readers: list, parts: list[Image]) -> dict[str, float] | None:
    if None in readers:
        return None
    return rate(reader(part.pixels) for reader, part in zip(readers, parts, strict=True))


def _told(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
