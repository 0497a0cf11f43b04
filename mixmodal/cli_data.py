"""The commands on data: check, preview, pack, get. They import what they need when they run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg, subcommand

LARGEST = 2048  # pixels, to which data is resized along a side


@dataclass
class Check:
    """Tell what is in a set of data and what is wrong with it: good, left out and why, sizes, lengths."""

    path: Positional[str]
    """A folder, a .jsonl, .tar, .parquet or .txt file, shards-{000..031}.tar, or named data (emoji-noto)."""
    examples: int = 3
    """How many names are told for each reason."""
    json: Path | None = None
    """File for all that was found, with every name."""
    strict: bool = False
    """End with 1 if anything was left out."""

    def run(self) -> None:
        """Print the findings."""
        from mixmodal.data.checking import check

        found = check(self.path)
        print("\n".join(found.lines(self.examples)))
        if self.json:
            from mixmodal.checkpoint import write_json

            self.json.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.json, found.as_json())
        if self.strict and found.skipped:
            raise SystemExit(1)


@dataclass
class Preview:
    """Draw a contact sheet of what a training would get, with its words."""

    path: Positional[str]
    """What `data check` takes."""
    output: Annotated[Path, arg(aliases=["-o"])] = Path("sheet.png")
    """File for the sheet."""
    n: int = 24
    """How many documents."""
    size: int | None = None
    """Side of the pictures as they are read; 64 unless given, or what the data has."""
    split: str = ""
    """train or valid; the reader's own unless given."""
    columns: int = 6
    """How many in a row."""
    seed: int = 0
    """Seed of the order in which they are drawn."""

    def run(self) -> None:
        """Save the sheet."""
        from mixmodal.data.contact import contact_sheet
        from mixmodal.data.mixing import Mixture
        from mixmodal.data.opening import source_at

        if self.n < 1:
            raise ValueError(f"--n is {self.n}: take 1 or more")
        if self.size is not None and not 1 <= self.size <= LARGEST:
            raise ValueError(f"--size is {self.size}: take 1 to {LARGEST:,} pixels")
        options = {"split": self.split} if self.split else {}
        try:
            source = source_at(self.path, size=self.size or 64, **options)
        except ValueError:
            if self.size:
                raise
            source = source_at(self.path, **options)  # small pictures are not read at 64
        count = self.n if source.size is None else min(self.n, source.size)
        sheet = contact_sheet(Mixture([(source, 1)], self.seed).preview(count), self.columns)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        aside = self.output.with_name(f".{self.output.stem}.part{self.output.suffix or '.png'}")
        sheet.save(aside)
        aside.replace(self.output)
        print(f"{self.output}  {count} of {source.size} documents, {sheet.width} x {sheet.height} px")
        if getattr(source, "report", None):
            source.report.show()


@dataclass
class Pack:
    """Write what can be used as tar shards, which are read fast in any order."""

    path: Positional[str]
    """What `data check` takes."""
    out: Positional[Path]
    """Folder for the shards; it must not be there yet."""
    size: int | None = None
    """Resize pictures to about this side; unless given, files are copied to the bit."""
    square: bool = False
    """With --size, cut the centre square; otherwise pictures keep their aspect."""
    split: str = ""
    """Of named data, train or valid; train unless given. Of your own, everything is packed."""
    megabytes: float = 256.0
    """The most that a shard holds."""

    def run(self) -> None:
        """Write the shards."""
        from mixmodal.data.named import NAMED
        from mixmodal.data.opening import kind_of, source_at
        from mixmodal.data.packing import pack

        if self.size is not None and not 1 <= self.size <= LARGEST:
            raise ValueError(f"--size is {self.size}: take 1 to {LARGEST:,} pixels")
        named = kind_of(self.path) in NAMED
        if self.split and not named:
            raise ValueError("--split is for named data: your own is packed as a whole, and split when it is read")
        options = {} if named and not self.split else {"split": self.split or "train"}
        source = source_at(self.path, check=True, keep=0, **({} if named else {"held_out": 0.0}), **options)
        patch = None if self.size is None or self.square else 1
        index = pack(source, self.out, size=self.size, patch=patch, shard_bytes=int(self.megabytes * 2**20), say=print)
        if getattr(source, "report", None):
            source.report.show()
        print(f"{sum(shard['samples'] for shard in index)} samples in {len(index)} shards in {self.out}")


@dataclass
class Get:
    """Fetch named data from its pinned source, checked by sha256; a stopped transfer goes on where it stopped."""

    names: Positional[tuple[str, ...]] = ()
    """Names of data; without any, they are listed."""
    out: Path | None = None
    """Folder that holds named data; the one that MIXMODAL_DATA names unless given."""

    def run(self) -> None:
        """Fetch them, or list what can be fetched."""
        from mixmodal.data.fetching import get, listed

        if not self.names:
            print("\n".join(listed(self.out)))
        for name in self.names:
            print(f"{name} is in {get(name, self.out, say=print)}")


@dataclass
class Data:
    """Look at data, draw it, pack it, fetch it."""

    action: OmitArgPrefixes[
        OmitSubcommandPrefixes[
            Annotated[Check, subcommand("check")]
            | Annotated[Preview, subcommand("preview")]
            | Annotated[Pack, subcommand("pack")]
            | Annotated[Get, subcommand("get")]
        ]
    ]
    """What to do."""

    def run(self) -> None:
        """Do it."""
        self.action.run()
