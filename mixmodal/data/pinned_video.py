"""The clips of `video` out of three films: the middle square of each frame, eight frames a second."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

FILMS = ("bbb_5s.mp4", "bbb_30s.webm", "nasa_13013.mp4")  # the order in which `words/video.jsonl` tells of their clips
SIDE, RATE = 64, 8  # pixels; frames a second
LONG, STRIDE = 16, 8  # frames of a clip, and from one clip to the next
LICENCE = """bbb_5s.mp4, bbb_30s.webm: (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0
nasa_13013.mp4: NASA, public domain
"""


def make(fetched: Path, made: Path) -> None:
    """Nothing; writes clips64.npz and the films into `made`."""
    clips = [clip for film in FILMS for clip in cut(even(frames(fetched / film)))]
    np.savez_compressed(made / "clips64.npz", clips=np.stack(clips), fps=RATE)
    for film in FILMS:
        shutil.copyfile(fetched / film, made / film)
    (made / "LICENSE").write_text(LICENCE, "utf-8")


def frames(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """When each frame of a film is shown, and its middle square.

    Shapes:  uint8 [64, 64, 3].
    Units:   seconds.
    Raises:  ValueError where nothing here reads films.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError("films are read by PyAV, which is not here: pip install av") from error
    with av.open(str(path)) as film:
        largest = max(film.streams.video, key=lambda stream: stream.width * stream.height)  # a film may hold several
        for frame in film.decode(largest):
            width = round(frame.width * SIDE / frame.height)
            small = frame.reformat(width=width, height=SIDE, format="rgb24", interpolation="LANCZOS").to_ndarray()
            left = (width - SIDE) // 2
            yield float(frame.time), small[:, left : left + SIDE]


def even(shown: Iterable[tuple[float, np.ndarray]]) -> list[np.ndarray]:
    """Of the frames nearest to each eighth of a second the last one; the one before where there is none."""
    last = {int(seconds * RATE + 0.5): frame for seconds, frame in shown}
    out: list[np.ndarray] = []
    for number in range(max(last) + 1 if last else 0):
        out.append(last[number] if number in last or not out else out[-1])
    return out


def cut(film: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Clips, each beginning in the middle of the one before.

    Shapes:  [16, 64, 64, 3].
    """
    for first in range(0, len(film) - LONG + 1, STRIDE):
        yield np.stack(film[first : first + LONG])
