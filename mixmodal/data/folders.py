"""One's own pictures and captions: a folder with sidecar text files, a file of JSON lines, or shards of tar.

What cannot be used is left out and counted with its reason in `report`; nothing a file holds stops a training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mixmodal.data.found import Found, FoundPairs, caption_at
from mixmodal.data.pairs import unnumbered
from mixmodal.data.pictures import ENDINGS
from mixmodal.data.places import File, Piece, start_of, walked, why_not
from mixmodal.data.report import one_line, records
from mixmodal.data.tars import Sample, samples, shards

CAPTIONS = (".txt", ".caption")
MOST_JSON = 2**20  # bytes of one record beside a picture


class _Files(FoundPairs):
    """Pairs whose pictures are files in one folder, and may not lie outside it."""

    def __init__(
        self,
        path: str | os.PathLike,
        size: int = 32,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        name: str | None = None,
        **options,
    ) -> None:
        if not str(path):
            raise ValueError("no folder of pictures is named: give it, as `mixmodal train own_32 --data PATH` does")
        self._path = Path(path)
        self._root = self._folder(self._path).resolve()
        if not self._root.is_dir():
            raise FileNotFoundError(f"no folder at {self._root}: give the folder that holds the pictures")
        super().__init__(name or self._path.resolve().name.removesuffix(".jsonl"), size, tasks, split, **options)

    def _folder(self, path: Path) -> Path:
        raise NotImplementedError


class PictureFolder(_Files):
    """A folder of pictures, with all folders in it, each with a caption beside it: `cat.png` and `cat.txt`.

    Every document is one pair in one of the directions of `tasks`. `check` decodes each picture once before it
    starts, so that broken ones are not even counted.
    Shapes: uint8 [size, size, 3], or with `patch` the native aspect of about that area.
    Limits: a caption is the whole text file, on one line; hidden files are passed over.
    Raises: FileNotFoundError without the folder; ValueError if nothing in it can be used.
    """

    def _folder(self, path: Path) -> Path:
        return path

    def found(self) -> Iterator[Found]:
        """Every picture of the folder that has a caption; whatever else lies there is reported."""
        files = list(walked(self._root, self.report))
        pictures = {os.path.splitext(name)[0] for name in files if name.lower().endswith(ENDINGS)}
        for name in files:
            stem, ending = os.path.splitext(name)
            if ending in CAPTIONS and stem in pictures:
                continue
            if ending.lower() not in ENDINGS:
                self.report.add("caption without a picture" if ending in CAPTIONS else "ending of no picture", name)
            elif reason := why_not(self._root, name):
                self.report.add(reason, name)
            elif (caption := self._beside(self._root / name, name)) is not None:
                yield Found(name, File(self._root / name, self._root), caption)

    def why_empty(self) -> str:
        """What a folder should hold."""
        left_out = "; ".join(self.report.lines()) or f"no file ends in {' '.join(ENDINGS)}"
        return f"no picture with a caption in {self._path} ({left_out}): put NAME.txt beside each NAME.png"

    def _beside(self, picture: Path, name: str) -> str | None:
        for ending in CAPTIONS:
            beside = picture.with_suffix(ending)
            if os.path.lexists(beside):
                if reason := why_not(self._root, str(beside)):
                    self.report.add(f"caption: {reason}", name)
                    return None
                try:
                    return one_line(caption_at(File(beside), self.longest))
                except (OSError, UnicodeDecodeError):
                    self.report.add("caption is not UTF-8 text", name)
                    return None
        self.report.add("no caption", name)
        return None


class PairLines(_Files):
    """A file of JSON lines, each `{"image": path, "caption": text}`; `file_name` or `file`, and `text`, are taken too.

    Paths are relative to the folder of the file and stay in it. Everything else is as in PictureFolder.
    Raises: FileNotFoundError without the file; ValueError if nothing in it can be used.
    """

    def _folder(self, path: Path) -> Path:
        if not path.is_file():
            raise FileNotFoundError(f"no file at {path}: give a file of JSON lines")
        return path.parent

    def found(self) -> Iterator[Found]:
        """Every line that names a picture which is there, and has a caption."""
        for line_name, entry in records(self._path, self.report, MOST_JSON):
            name = next((entry[key] for key in ("image", "file_name", "file") if key in entry), None)
            caption = entry.get("caption", entry.get("text"))
            if not isinstance(name, str) or not name:
                self.report.add('no "image" path', line_name)
            elif not isinstance(caption, str):
                self.report.add("no caption", line_name)
            elif reason := why_not(self._root, name):
                self.report.add(reason, line_name)
            else:
                yield Found(self._within(name), File(self._root / name, self._root), one_line(caption))

    def _within(self, name: str) -> str:
        """The name as it is told from the folder, also where a line has all of the path."""
        plain = Path(os.path.normpath(self._root / name))
        return (plain if plain.is_relative_to(self._root) else plain.resolve()).relative_to(self._root).as_posix()

    def why_empty(self) -> str:
        """What a line should look like."""
        left_out = "; ".join(self.report.lines()) or "the file is empty"
        return f'no usable pair in {self._path} ({left_out}): a line is {{"image": "cat.png", "caption": "a cat"}}'


class PictureShards(FoundPairs):
    """Shards in the form of WebDataset: tar archives in which `0007.jpg` is followed by `0007.txt` or `0007.json`.

    `path` is an archive, a folder of them, or a pattern such as `train-{0000..0031}.tar`. A record in JSON holds its
    text under `caption` or `text`. Nothing is unpacked: pictures are read where they lie, in any order.
    Limits: archives are not compressed; their headers are read once at the start, and with them that of each picture.
    Raises: FileNotFoundError without the archives; ValueError if nothing in them can be used.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        size: int = 32,
        tasks: Mapping[str, float] | None = None,
        split: str = "train",
        *,
        name: str | None = None,
        **options,
    ) -> None:
        self._path = Path(path)
        self._shards = shards(path)
        super().__init__(name or self._path.name.removesuffix(".tar"), size, tasks, split, **options)

    def found(self) -> Iterator[Found]:
        """Every sample that has a picture and a caption."""
        if self._path.is_dir():
            for name in walked(self._path, self.report):
                if name.lower().endswith(ENDINGS):
                    self.report.add("picture beside the archives", name)
        for shard in self._shards:
            for sample in samples(shard, self.report):
                picture = next((e for e in sample.files if f".{e}" in ENDINGS), None)
                if picture is None:
                    self.report.add("no picture in the sample", sample.name(next(iter(sample.files))))
                    continue
                for other in sample.files:
                    if other != picture and f".{other}" in ENDINGS:
                        self.report.add("another picture in the same sample", sample.name(other))
                caption = self._caption(sample, sample.name(picture))
                if caption is not None:
                    yield Found(sample.name(picture), sample.files[picture], caption, unnumbered(sample.key))

    def why_empty(self) -> str:
        """What an archive should hold."""
        left_out = "; ".join(self.report.lines()) or "the archives are empty"
        return f"no sample of {self._path} can be used ({left_out}): put 0007.txt behind each 0007.jpg"

    def _caption(self, sample: Sample, name: str) -> str | None:
        try:
            for ending in CAPTIONS:
                if ending[1:] in sample.files:
                    return one_line(caption_at(sample.files[ending[1:]], self.longest))
            if "json" in sample.files:
                return self._recorded(sample.files["json"], name)
            self.report.add("no caption", name)
        except (OSError, UnicodeDecodeError):
            self.report.add("caption is not UTF-8 text", name)
        return None

    def _recorded(self, place: Piece, name: str) -> str | None:
        if place.length > MOST_JSON:
            return self.report.add(f"record over {MOST_JSON} bytes", name)
        try:
            entry = json.loads(start_of(place, MOST_JSON).decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return self.report.add("record is not JSON in UTF-8", name)
        caption = entry.get("caption", entry.get("text")) if isinstance(entry, dict) else None
        if not isinstance(caption, str):
            return self.report.add("no caption", name)
        return one_line(caption)
