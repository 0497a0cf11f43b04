"""What lies at a path, found out by looking: which reader reads it, for commands that take any data."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from mixmodal.data import make_source, options_of, source_class
from mixmodal.data.interleaved import MOST_RECORD
from mixmodal.data.named import NAMED
from mixmodal.data.pictures import ENDINGS
from mixmodal.data.places import start_of
from mixmodal.data.report import Report, records
from mixmodal.data.tars import members, shards

WORLDS = ("scenes", "glyphs", "digits")  # endless or built in: nothing of them lies anywhere
LOOKED_AT = 1000  # files or lines, before the kind is decided
_OF_DOCUMENTS = ("parts", "segments", "texts")


def kind_of(path: str | os.PathLike) -> str:
    """The kind of source that reads what lies at `path`: one of `data.KINDS`, or the name of named data.

    Raises: FileNotFoundError for nothing there; ValueError for something that no reader takes.
    """
    path = Path(path)
    if not path.exists():
        if str(path) in NAMED:
            return str(path)
        if "{" in path.name:
            return _kind_of_tar(shards(path)[0])
        raise FileNotFoundError(
            f"nothing is at {path}, and no named data is called so: give a file, a folder, or one of {', '.join(NAMED)}"
        )
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder: give one of these")
    if path.suffix == ".tar":
        return _kind_of_tar(path)
    if path.suffix == ".jsonl":
        entries = (entry for _, entry in records(path, Report(), MOST_RECORD) if entry)
        return "interleaved" if set(next(entries, {})).intersection(_OF_DOCUMENTS) else "pairs"
    kinds = {".parquet": "parquet", ".txt": "file", ".md": "file"}
    if path.suffix not in kinds:
        raise ValueError(f"no reader takes {path}: it takes .jsonl, .tar, .parquet, .txt, .md, or a folder")
    return kinds[path.suffix]


def source_at(path: str | os.PathLike, **options: Any) -> Any:
    """The source of what lies at `path`, or of named data; options that its reader does not know are left out."""
    kind = kind_of(path)
    known = options_of(source_class(kind))
    spec = {name: value for name, value in options.items() if known is None or name in known}
    return make_source({"kind": kind, **spec} if kind in NAMED else {"kind": kind, "path": str(path), **spec})


def described(path: str | os.PathLike, **options: Any) -> dict[str, Any]:
    """What `make_source` takes for what lies at `path`, for named data, or for a world called so.

    Raises: FileNotFoundError for nothing there; ValueError for something that no reader takes.
    """
    if str(path) in WORLDS and not Path(path).exists():
        return {"kind": str(path), **options}
    kind = kind_of(path)
    return {"kind": kind, **options} if kind in NAMED else {"kind": kind, "path": str(path), **options}


def _kind_of_folder(path: Path) -> str:
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return "datasets"
    endings: Counter[str] = Counter()
    for _, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        endings.update(os.path.splitext(file)[1].lower() for file in files if not file.startswith("."))
        if endings.total() > LOOKED_AT:
            break
    if endings[".tar"] > sum(map(endings.__getitem__, ENDINGS)):  # one among pictures is somebody's copy of them
        return _kind_of_tar(shards(path)[0])
    for kind, wanted in (("parquet", [".parquet"]), ("folder", ENDINGS), ("texts", [".txt", ".md"])):
        if any(map(endings.__getitem__, wanted)):
            return kind
    raise ValueError(
        f"nothing in {path} is a picture, .tar, .parquet, .txt or .md: give the folder that holds the data"
    )


def _kind_of_tar(path: Path) -> str:
    for number, (name, piece) in enumerate(members(path, Report())):
        if name.endswith(".json"):
            try:
                entry = json.loads(start_of(piece, MOST_RECORD))
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and set(entry).intersection(_OF_DOCUMENTS):
                return "interleaved"
        if number > LOOKED_AT:
            break
    return "shards"
