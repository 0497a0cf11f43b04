"""The files of `tiles-crawl` out of its repository: one array of all tiles, and a record of each with its name."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

ROOT = "releases/Nov-2015"
SIDE = 32
LEAST = 31  # pixels that can be seen: fewer are a stray dot or a lock of hair
CATEGORIES = {"dngn": "dungeon", "player": "player equipment", "mon": "monster", "gui": "interface"}


def make(fetched: Path, made: Path) -> None:
    """Nothing; writes images32_rgba.npz and captions.jsonl into `made`."""
    root = fetched / ROOT
    tiles, records, seen = [], [], set()
    paths = [path.relative_to(root) for path in root.rglob("*.png") if "UNUSED" not in path.parts]
    for path in sorted(paths, key=lambda path: (path.parent.parts, path.name)):
        pixels = tile(root / path)
        if pixels is None or pixels.tobytes() in seen:
            continue
        seen.add(pixels.tobytes())
        records.append({"i": len(records), **record(path.as_posix(), pixels)})
        tiles.append(pixels)
    np.savez_compressed(made / "images32_rgba.npz", images=np.stack(tiles))
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in records)
    (made / "captions.jsonl").write_text(lines, "utf-8")
    for file, name in (("ARTISTS.md", "ARTISTS.md"), ("README.md", "LICENSE")):
        shutil.copyfile(fetched / file, made / name)


def tile(path: Path) -> np.ndarray | None:
    """A tile with nothing behind its clear pixels; None for other sizes, and where next to nothing is seen.

    Shapes: uint8 [32, 32, 4].
    """
    with Pillow.open(path, formats=("PNG",)) as picture:
        if picture.size != (SIDE, SIDE):
            return None
        pixels = np.array(picture.convert("RGBA"))
    pixels[pixels[..., 3] == 0] = 0
    return pixels if (pixels[..., 3] > 0).sum() >= LEAST else None


def record(path: str, pixels: np.ndarray) -> dict:
    """What is known of a tile from its path: name, category, the folders under it, the split by a hash of the name."""
    first, *folders, file = path.removesuffix(".png").split("/")
    name = spoken(file)
    held_out = int(hashlib.sha1(name.encode()).hexdigest(), 16) % 20 == 0
    return {
        "path": path,
        "name": name,
        "category": CATEGORIES.get(first, first),
        "subcategory": [folder.replace("_", " ") for folder in folders],
        "opaque": bool((pixels[..., 3] == 255).all()),
        "split": "val" if held_out else "train",
    }


def spoken(file: str) -> str:
    """The name that a file's name spells: no mark of an icon, no dashes, no number behind."""
    words = re.sub(r"[_\s\-]+", " ", re.sub(r"^i-", "", file)).strip()
    return re.sub(r"(?<![A-Z0-9])\s*\d+$", "", words).strip() or words
