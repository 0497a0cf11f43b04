"""Tar shards out of any data: what readers can use, in archives of bounded size that they read where they lie."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture

from mixmodal.checkpoint import write_json
from mixmodal.data.found import Found, decode_at, look
from mixmodal.data.pairs import numbered
from mixmodal.data.places import Place

SHARD_BYTES = 256 * 2**20
INDEX = "index.json"
_ENDINGS = {"PNG": "png", "JPEG": "jpg", "MPO": "jpg", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"}
_INNER = str.maketrans(dict.fromkeys(".\\:", "_"))
Files = list[tuple[str, bytes]]


def pack(
    source: Any,
    out: str | os.PathLike,
    *,
    size: int | None = None,
    patch: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """The shards written to the folder `out`: name, samples, bytes and sha256 of each, which `index.json` keeps.

    Files of pictures are copied to the bit; with `size` (and `patch`, for the native aspect) they are decoded, resized
    and written as PNG. The same data makes the same bytes. Shards appear all together, once they are all written.
    Units: a shard has at most `shard_bytes`, unless a single sample has more.
    Raises: FileExistsError where `out` is there and not empty; ValueError for a limit that holds nothing.
    """
    out = Path(out)
    if shard_bytes < 1:
        raise ValueError(f"a shard wants 1 or more bytes, got {shard_bytes}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already: take another folder, or remove it first")
    aside = out.with_name(f".{out.name}.part")
    if aside.exists():
        shutil.rmtree(aside)  # what a stopped call left
    aside.mkdir(parents=True)
    try:
        index = []
        for number, shard in enumerate(_shards(samples_of(source, size, patch), shard_bytes)):
            index.append(_written(aside / f"shard-{number:06}.tar", shard))
            say(f"{index[-1]['name']}  {index[-1]['samples']} samples, {index[-1]['bytes']} bytes")
        write_json(aside / INDEX, {"shards": index})
        if out.exists():
            out.rmdir()
        os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # gone already, unless something went wrong
    return index


def samples_of(source: Any, size: int | None = None, patch: int | None = None) -> Iterator[Files]:
    """The files of each sample of a source: a picture and its caption, or a record and its pictures.

    Raises: ValueError for a source of text alone, or without end.
    """
    used: dict[str, int] = {}  # how many copies of a name there are; each copy's name is one too
    if hasattr(source, "documents"):
        for number, (key, window) in enumerate(source.entries()):
            yield _interleaved(f"{number:08}", key, window, size, patch)
    elif hasattr(source, "entries"):
        for entry in source.entries():
            yield _pair(_free(_key(entry), used), entry, size, patch)
    elif hasattr(source, "pair") and source.size is not None:
        for number in range(source.size):
            pixels, caption = source.pair(number)
            yield [(f"{number:08}.png", _png(pixels)), (f"{number:08}.txt", caption.encode())]
    else:
        raise ValueError(
            f"{source.name} has no pictures, or no end: pack makes shards of pictures with captions or of documents"
        )


def _shards(samples: Iterable[Files], most: int) -> Iterator[list[Files]]:
    held, count = [], 2 * 512
    for sample in samples:
        more = sum(512 + -(-len(content) // 512) * 512 for _, content in sample)
        if held and count + more > most:
            yield held
            held, count = [], 2 * 512
        held.append(sample)
        count += more
    if held:
        yield held


def _written(path: Path, shard: list[Files]) -> dict:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for sample in shard:
            for name, content in sample:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    return {"name": path.name, "samples": len(shard), "bytes": path.stat().st_size, "sha256": digest}


def _key(entry: Found) -> str:
    # A dot would end the name, a colon begin a path of Windows; what decides the split stays for all names without one.
    key = entry.split_by.encode("utf-8", "backslashreplace").decode()
    return "/".join(part.translate(_INNER) for part in key.split("/"))


def _free(key: str, used: dict[str, int]) -> str:
    number = used.get(key, 0) + 1
    while (free := numbered(key, number)) in used and number > 1:
        number += 1
    used[key] = number
    used.setdefault(free, 1)
    return free


def _pair(key: str, entry: Found, size: int | None, patch: int | None) -> Files:
    ending, content = _stored(entry.place, size, patch)
    return [(f"{key}.{ending}", content), (f"{key}.txt", entry.caption.encode())]


def _interleaved(key: str, document: str, window: list, size: int | None, patch: int | None) -> Files:
    parts, files = [], []
    for item in window:
        if isinstance(item, str):
            parts += [{"text": line} for line in item.split("\n")]  # a reader puts them on lines again
        else:
            ending, content = _stored(item[1], size, patch)
            files.append((f"{key}.{len(files)}.{ending}", content))
            parts.append({"image": files[-1][0]})
    record = json.dumps({"id": document, "parts": parts}, ensure_ascii=False).encode()
    return [(f"{key}.json", record), *files]


def _stored(place: Place, size: int | None, patch: int | None) -> tuple[str, bytes]:
    if size is not None:
        return "png", _png(decode_at(place, size=size, patch=patch))
    ending = _ENDINGS[look(place)[2]]
    with place.open() as stream:
        return ending, stream.read()


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Picture.fromarray(pixels).save(stream, "PNG", optimize=False)
    return stream.getvalue()
