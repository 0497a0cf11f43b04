"""Pictures with captions that lie in files, wherever those are: checked, split by name, decoded when wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from mixmodal.data.pairs import HELD_OUT, Pairs, names_of
from mixmodal.data.pictures import MOST_PIXELS, WHITE, PictureError, decode, fitted, opened
from mixmodal.data.places import MOST_BYTES, Place, megabytes, start_of
from mixmodal.data.report import LeftOut, NothingLeft, Report, why_no_text

LONGEST = 400
KEEP = 256 * 2**20


@dataclass(frozen=True)
class Found:
    """A picture with its caption. `name` is for people; `key` decides the split, and is `name` without its ending."""

    name: str
    place: Place
    caption: str
    key: str = ""

    @property
    def split_by(self) -> str:
        """What decides the split: a picture saved anew in another format keeps its own."""
        return self.key or PurePosixPath(self.name).with_suffix("").as_posix()


class FoundPairs(Pairs):
    """Pairs whose pictures lie in files: finding them is the subclass's, checking, splitting and decoding is here.

    A subclass sets what `found` needs before it calls this. Where `looks` is False, headers are not read before the
    training (they would cost as much as the pictures), and a picture that proves broken is counted then.
    Units: `longest` in characters; `keep` in bytes of decoded pictures that stay in memory.
    """

    looks = True

    def __init__(
        self,
        name: str,
        size: int = 32,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        patch: int | None = None,
        background: tuple[int, int, int] = WHITE,
        most_pixels: int = MOST_PIXELS,
        most_bytes: int = MOST_BYTES,
        longest: int = LONGEST,
        held_out: float = HELD_OUT,
        keep: int = KEEP,
        check: bool = False,
    ) -> None:
        super().__init__(name, tasks)
        fitted(1, 1, size, patch or 1)
        self.report = Report()
        self.longest, self.most_pixels, self.most_bytes = longest, most_pixels, most_bytes
        self._decoding = {"size": size, "patch": patch, "background": background, "most_pixels": most_pixels}
        self._kept: dict[int, np.ndarray] = {}
        self._room = keep
        self._broken: set[int] = set()
        found = [pair for pair in self.found() if self._usable(pair, self.looks or check)]
        if not found:
            raise ValueError(self.why_empty())
        names = self.chosen(split, [pair.split_by for pair in found], held_out)
        self._pairs = [pair for pair in found if pair.split_by in names]
        if check:
            self._pairs = [pair for pair in self._pairs if self._decodes(pair)]
        self.size = len(self._pairs)
        if not self.size:
            left_out = f" ({'; '.join(self.report.lines())})" if self.report else ""
            raise ValueError(
                f"{name} has no pair for split {split!r} among {len(found)}{left_out}: add pictures or use another"
            )

    def found(self) -> Iterator[Found]:
        """Every pair with a picture and a caption, good or not; what has no pair is reported."""
        raise NotImplementedError

    def why_empty(self) -> str:
        """What to say where nothing can be used: what was left out, what was wanted."""
        raise NotImplementedError

    def chosen(self, split: str, keys: list[str], held_out: float) -> set[str]:
        """The keys of a split: by hash, unless a subclass knows better."""
        return names_of(split, keys, held_out)

    def pair(self, index: int) -> tuple[np.ndarray, str]:
        """Picture and caption number `index`.

        Shapes: uint8 [height, width, 3].
        Raises: LeftOut if that file proves broken, which is counted; NothingLeft once all of the split have.
        """
        if index not in self._broken:
            try:
                return self._pixels(index), self._pairs[index].caption
            except PictureError as error:
                self._broken.add(index)
                self.report.add(error.reason, self._pairs[index].name)
        if len(self._broken) == self.size:
            raise NothingLeft(f"no picture of {self.name} can be decoded: {'; '.join(self.report.lines())}")
        raise LeftOut(f"{self._pairs[index].name} of {self.name} cannot be decoded")

    def words_of(self, index: int) -> str:
        """The caption of pair number `index`, whether its picture can be decoded or not."""
        return self._pairs[index].caption

    def names(self) -> list[str]:
        """The names of the split's pictures, in order of index."""
        return [pair.name for pair in self._pairs]

    def entries(self) -> list[Found]:
        """The split's pictures and captions as they lie in their files, in order of index."""
        return list(self._pairs)

    def _usable(self, pair: Found, looks: bool) -> bool:
        if not pair.caption:
            self.report.add("empty caption", pair.name)
        elif len(pair.caption) > self.longest:
            self.report.add(f"caption over {self.longest} characters", pair.name)
        elif reason := why_no_text(pair.caption):
            self.report.add(f"caption {reason}", pair.name)
        elif not looks:
            return True
        else:
            try:
                look(pair.place, self.most_pixels, self.most_bytes)
                return True
            except PictureError as error:
                self.report.add(error.reason, pair.name)
        return False

    def _pixels(self, index: int) -> np.ndarray:
        pixels = self._kept.get(index)
        if pixels is None:
            pixels = decode_at(self._pairs[index].place, self.most_bytes, **self._decoding)
            if pixels.nbytes <= self._room:
                self._room -= pixels.nbytes
                self._kept[index] = pixels
        return pixels

    def _decodes(self, pair: Found) -> bool:
        try:
            decode_at(pair.place, self.most_bytes, **self._decoding)
            return True
        except PictureError as error:
            self.report.add(error.reason, pair.name)
            return False


def look(place: Place, most_pixels: int = MOST_PIXELS, most_bytes: int = MOST_BYTES) -> tuple[int, int, str]:
    """Height, width and format of the picture at a place, from its header alone.

    Raises: PictureError.
    """
    with _stream(place, most_bytes) as stream, opened(stream, most_pixels) as picture:
        return picture.height, picture.width, picture.format


def decode_at(place: Place, most_bytes: int = MOST_BYTES, **options) -> np.ndarray:
    """The picture at a place; the options are those of `decode`.

    Shapes: uint8 [height, width, 3].
    Raises: PictureError.
    """
    with _stream(place, most_bytes) as stream:
        return decode(stream, **options)


def _stream(place: Place, most_bytes: int):
    try:
        count = place.bytes()
        if count is not None and count > most_bytes:
            raise PictureError(f"file over {megabytes(most_bytes)}", f"it has {megabytes(count)}")
        return place.open()
    except PictureError:
        raise
    except FileNotFoundError as error:
        raise PictureError("file not found", str(error)) from error
    except Exception as error:  # pyarrow has a class of its own for every way in which a file can be broken
        raise PictureError("file cannot be read", str(error)) from error


def caption_at(place: Place, longest: int) -> str:
    """The text at a place; of one far too long only the beginning, which is still too long.

    Raises: OSError; UnicodeDecodeError.
    """
    most = 4 * (longest + 4096)  # a character has four bytes at most
    raw = start_of(place, most)
    return raw.decode("utf-8-sig", "strict" if len(raw) < most else "ignore")
