"""The files of `emoji-noto` out of its repositories: one array of all emoji over white, and a record of each."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

SIDE = 64
PICTURES = "png/128"
FLAGS = "third_party/region-flags/png"
TONES = {1: "light", 2: "medium-light", 3: "medium", 4: "medium-dark", 5: "dark"}
_REGIONAL, _TAG, _BLACK_FLAG = 0x1F1E6, 0xE0000, 0x1F3F4


def make(fetched: Path, made: Path) -> None:
    """Nothing; writes images64.npz and captions.jsonl into `made`."""
    emoji = json.loads((fetched / "data.raw.json").read_text("utf-8"))
    messages = json.loads((fetched / "messages.raw.json").read_text("utf-8"))
    records = []
    for first in emoji:
        for one in (first, *first.get("skins", ())):
            entry = record(first, one, messages)
            if (fetched / _folder(entry) / entry["source_file"]).is_file():
                records.append(entry)
    records.sort(key=lambda entry: (entry["group"], entry["base"], entry["codepoints"]))
    records = [{"i": i, "file": f"{i:05}.png", **entry} for i, entry in enumerate(records)]
    pixels = np.stack([drawn(fetched / _folder(entry) / entry["source_file"]) for entry in records])
    np.savez_compressed(made / "images64.npz", images=pixels)
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in records)
    (made / "captions.jsonl").write_text(lines, "utf-8")
    shutil.copyfile(fetched / "LICENSE", made / "LICENSE")


def record(first: dict, one: dict, messages: dict) -> dict:
    """What is known of an emoji, or of one of its skin tones: names, keywords, groups, the split by its base."""
    base = _bare(first["hexcode"]).lstrip("0")
    tones = one.get("tone", [])
    entry = {
        "source_file": f"emoji_u{_bare(one['hexcode']).lower().replace('-', '_')}.png",
        "codepoints": one["hexcode"],
        "emoji": one["emoji"],
        "name": one["label"],
        "keywords": first.get("tags", []),
        "group": _ordered(messages["groups"], first.get("group"), "message") or "components",
        "subgroup": _ordered(messages["subgroups"], first.get("subgroup"), "key"),
        "skin_tone": [TONES[tone] for tone in ([tones] if isinstance(tones, int) else tones)],
        "base": base,
        "unicode_version": one["version"],
    }
    if code := flag_code(one["hexcode"]):
        entry |= {"source_file": f"{code}.png", "flag_code": code}
    held_out = int(hashlib.sha1(base.encode()).hexdigest(), 16) % 20 == 0
    return {**entry, "split": "val" if held_out else "train"}


def flag_code(codepoints: str) -> str:
    """The code of the country or the part of one whose flag it is, such as `GB-WLS`; empty for all others."""
    points = [int(point, 16) for point in codepoints.split("-")]
    if len(points) == 2 and all(0 <= point - _REGIONAL < 26 for point in points):
        return "".join(chr(point - _REGIONAL + ord("A")) for point in points)
    letters = "".join(chr(point - _TAG) for point in points[1:-1] if 0x30 <= point - _TAG < 0x7F).upper()
    return f"{letters[:2]}-{letters[2:]}" if points[0] == _BLACK_FLAG and len(letters) > 2 else ""


def drawn(path: Path) -> np.ndarray:
    """An emoji over white, fitted into a square.

    Shapes: uint8 [64, 64, 3].
    """
    with Pillow.open(path, formats=("PNG",)) as stored:
        picture = stored.convert("RGBA")
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Pillow.Resampling.LANCZOS)
    square = Pillow.new("RGBA", (SIDE, SIDE), (255, 255, 255, 0))
    square.paste(picture, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    white = Pillow.new("RGBA", (SIDE, SIDE), (255, 255, 255, 255))
    return np.array(Pillow.alpha_composite(white, square).convert("RGB"))


def _folder(entry: dict) -> str:
    return FLAGS if "flag_code" in entry else PICTURES


def _bare(codepoints: str) -> str:
    # FE0F only asks for colour; file names leave it out.
    return codepoints.replace("-FE0F", "")


def _ordered(entries: list[dict], order: int | None, key: str) -> str | None:
    # Some numbers are given twice; the later one is meant.
    return next((entry[key] for entry in reversed(entries) if entry["order"] == order), None)
