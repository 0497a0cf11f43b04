"""Frames of the named set `video`, cut into small pictures: what tokenizers are trained on in minutes."""

from __future__ import annotations

import json
import os

import numpy as np

from mixmodal.data.named import find
from mixmodal.data.pairs import checked_split
from mixmodal.parts import Document, Image

FOLDER = "video"
HELD_OUT = "nasa_13013.mp4"


class ClipCrops:
    """Squares cut at random from the frames of 45 short clips; all clips of one film are held out.

    Shapes: uint8 [size, size, 3], from frames of 64 px.
    Source: Big Buck Bunny (Blender Foundation), and a film by NASA, which is the one held out.
    """

    def __init__(self, size: int = 32, split: str = "train", *, where: str | os.PathLike | None = None) -> None:
        array, lines = find(FOLDER, ("clips64.npz", "captions.jsonl"), where)
        with open(lines, encoding="utf-8") as stream:
            films = [json.loads(line)["source"] for line in stream if line.strip()]
        with np.load(array, allow_pickle=False) as arrays:
            clips = arrays["clips"]
        held = checked_split(split) == "valid"
        self.frames = clips[[(film == HELD_OUT) == held for film in films]].reshape(-1, *clips.shape[2:])
        side = clips.shape[2]
        if not 2 <= size <= side:
            raise ValueError(f"got size {size}, wanted 2 to {side} px: the frames have no more")
        self.name, self.side, self.size = f"clip-crops-{size}", size, None  # endless

    def picture(self, rng: np.random.Generator) -> np.ndarray:
        """A square of a frame, mirrored or not."""
        room = self.frames.shape[1] - self.side + 1
        frame, row, column = (int(rng.integers(n)) for n in (len(self.frames), room, room))
        cut = self.frames[frame, row : row + self.side, column : column + self.side]
        return np.ascontiguousarray(cut[:, ::-1] if rng.random() < 0.5 else cut)

    def document(self, index: int, rng: np.random.Generator) -> Document:
        """A picture alone."""
        return Document((Image(self.picture(rng)),))
