"""The files of `mnist-20k` and `sign-digits` out of their repositories."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from mixmodal.data.numerals import WORDS

EACH = 1000  # of every digit, to learn from
QUALITY = 90


def make_mnist(fetched: Path, made: Path) -> None:
    """Nothing; writes mnist20k.npz into `made`: the first thousand of each digit by number, and the whole test."""
    arrays = {}
    for part, most in (("train", EACH), ("test", None)):
        paths = [
            path
            for digit in range(10)
            for path in sorted((fetched / part / str(digit)).glob("*.png"), key=lambda path: int(path.stem))[:most]
        ]
        order = np.random.RandomState(0).permutation(len(paths))  # the generator whose numbers numpy has frozen
        arrays[f"{part}_images"] = np.stack([grey(paths[at]) for at in order])
        arrays[f"{part}_labels"] = np.array([int(paths[at].parent.name) for at in order], np.uint8)
    np.savez_compressed(made / "mnist20k.npz", **arrays)
    shutil.copyfile(fetched / "LICENSE", made / "LICENSE")


def grey(path: Path) -> np.ndarray:
    """A digit's values.

    Shapes: uint8 [28, 28].
    """
    with Pillow.open(path, formats=("PNG",)) as picture:
        return np.array(picture.convert("L"))


def make_signs(fetched: Path, made: Path) -> None:
    """Nothing; writes images100.tar and labels.jsonl into `made`: every photograph without what its camera noted."""
    root, lines = fetched / "Dataset", []
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.JPG"))
    with tarfile.open(made / "images100.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for number, name in enumerate(names):
            with Pillow.open(root / name, formats=("JPEG",)) as picture:
                held = io.BytesIO()
                picture.convert("RGB").save(held, "JPEG", quality=QUALITY)
            member = tarfile.TarInfo(f"{number:05}.jpg")
            member.size = held.tell()
            held.seek(0)
            archive.addfile(member, held)
            digit, file = int(name[0]), name.rpartition("/")[2]
            valid = int(hashlib.sha1(file.encode()).hexdigest(), 16) % 10 == 0
            entry = {"i": number, "file": member.name, "source_file": name, "digit": digit, "word": WORDS[digit]}
            lines.append(json.dumps({**entry, "split": "val" if valid else "train"}) + "\n")
    (made / "labels.jsonl").write_text("".join(lines), "utf-8")
    shutil.copyfile(fetched / "LICENSE", made / "LICENSE")
