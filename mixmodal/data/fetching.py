"""Named data from its pinned source: fetched, checked by sha256, made into its files, and only then put in its place.

What was fetched before a stop is kept and gone on with: a whole file is checked again, half a file is asked for from
where it ends.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable
from importlib import import_module, resources
from pathlib import Path
from typing import BinaryIO

from mixmodal.data import pinned
from mixmodal.data.named import data_folder
from mixmodal.data.pinned import PINNED, Archive, Pinned
from mixmodal.data.places import inner_name, megabytes

Say = Callable[[str], None]
TRIES = 4
PAUSE = 2.0  # seconds before another try; twice as long each time
TIMEOUT = 60.0
_CHUNK = 2**18


class FetchError(ValueError):
    """Data that could not be fetched, or is not what was wanted."""


def listed(out: str | os.PathLike | None = None) -> list[str]:
    """One line for each set that can be fetched: its name, whether it is there, its licence."""
    home = Path(out) if out is not None else data_folder()
    return [
        f"{name:16} {'there' if verified(of, home / of.folder) else 'not there':10} {of.licence}"
        for name, of in PINNED.items()
    ]


def get(name: str, out: str | os.PathLike | None = None, say: Say = lambda line: None) -> Path:
    """The folder of a named set, fetched unless it is there and as it should be.

    Raises: ValueError for a name that cannot be fetched; FetchError; FileExistsError if another folder is in its place.
    """
    if name not in PINNED:
        near = {"openstax-documents": "it lies in openstax-figures; "}.get(name, "")
        raise ValueError(f"{name!r} cannot be fetched: {near}these can, {', '.join(PINNED)}")
    of = PINNED[name]
    home = Path(out) if out is not None else data_folder()
    folder = home / of.folder
    if folder.exists():
        if verified(of, folder):
            return folder
        raise FileExistsError(f"{folder} is there, but is not {name} as it is pinned: move it away first")
    aside = home / f".{of.folder}.part"
    fetched, made = aside / "fetched", aside / "made"
    fetched.mkdir(parents=True, exist_ok=True)
    for remote in of.remotes:
        say(f"{remote.name}  {megabytes(remote.bytes)}")
        download(f"{pinned.FILES}/{remote.path}", fetched / remote.name, remote.bytes, remote.sha256)
    for archive in of.archives:
        say(f"{archive.path}  {megabytes(archive.most)} at most")
        unpacked(archive, fetched)
    if made.exists():
        shutil.rmtree(made)
    made.mkdir()
    _fill(of, fetched, made)
    if not verified(of, made):
        raise FetchError(
            f"what was made of {name} is not what is pinned: tell us, with the versions of numpy and pillow"
        )
    os.replace(made, folder)
    shutil.rmtree(aside)
    return folder


def verified(of: Pinned, folder: Path) -> bool:
    """True if a folder holds every file of the set, with the sha256 that is pinned."""
    wanted = [(remote.name, remote.sha256) for remote in of.remotes] if not of.make else list(of.made)
    wanted += [("captions.jsonl", "")] if of.words else []
    return all((folder / name).is_file() and sha256 in ("", digest(folder / name)) for name, sha256 in wanted)


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def contents(root: Path, names: Iterable[str]) -> str:
    """The sha256 of files and their names: for each in order of name, its name, a zero, its own sha256, a line feed."""
    whole = hashlib.sha256()
    for name in sorted(names):
        whole.update(f"{name}\0{digest(root / name)}\n".encode())
    return whole.hexdigest()


def download(url: str, path: Path, most: int, sha256: str = "") -> None:
    """Fetch `url` to `path`, going on from `path`.part if there is one.

    Units: `most` bytes; with `sha256` the file has exactly so many.
    Raises: FetchError.
    """
    if path.is_file() and (not sha256 or digest(path) == sha256):
        return
    part = path.with_name(path.name + ".part")
    trouble = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            whole = _go_on(url, part, most)
        except urllib.error.HTTPError as error:
            trouble = f"{error.code} {error.reason}"
            if error.code == 416:  # there is nothing behind what is here, so it is something else
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                break
            continue
        except (OSError, http.client.HTTPException) as error:
            trouble = str(getattr(error, "reason", error)) or type(error).__name__
            continue
        if whole:
            got = digest(part) if sha256 else ""
            if got == sha256:
                os.replace(part, path)
                return
            part.unlink()
            raise FetchError(f"{url} has sha256 {got}, wanted {sha256}: it was changed or damaged, try again later")
        trouble = "the connection ended early"
    raise FetchError(f"{url} could not be fetched ({trouble}): what is here is kept, run it again to go on")


def _go_on(url: str, part: Path, most: int) -> bool:
    """True once the file is whole."""
    have = part.stat().st_size if part.exists() else 0
    if have == most:
        return True  # all that may come is here; the sha256 tells whether it is right
    request = urllib.request.Request(url, headers={"User-Agent": "mixmodal"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if have and not goes_on:
            have = 0  # the server sends all of it anew, or something else
            if answer.status == 206:
                part.unlink()
                return False
        length = answer.headers.get("Content-Length")
        with open(part, "ab" if have else "wb") as stream:
            while chunk := answer.read(_CHUNK):
                have += len(chunk)
                if have > most:
                    part.unlink()
                    raise FetchError(f"{url} has more than {most} bytes: it is not what was pinned")
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
    return length is None or have >= _total(answer, int(length))


def _total(answer: http.client.HTTPResponse, length: int) -> int:
    whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(whole) if whole.isdigit() else length


def unpacked(archive: Archive, into: Path) -> None:
    """Fetch an archive and unpack what is kept of it into a folder.

    Raises: FetchError if it is broken, holds something else, or unpacks to more than it may.
    """
    packed = into / f"{archive.path.replace('/', '_')}.tar.gz"  # there may be several
    download(f"{pinned.ARCHIVES}/{archive.path}", packed, archive.most)
    names: list[str] = []
    links: dict[str, str] = {}
    try:
        with gzip.open(packed) as stream:
            with tarfile.open(fileobj=_Limited(stream, 4 * archive.most), mode="r|") as tar:
                for member in tar:
                    name = inner_name(member.name.partition("/")[2]) if "/" in member.name else None
                    if name and member.isreg() and name.startswith(archive.keep):
                        path = into / name
                        path.parent.mkdir(parents=True, exist_ok=True)
                        with open(path, "wb") as out:
                            shutil.copyfileobj(tar.extractfile(member), out)
                        names.append(name)
                    elif name and member.issym() and name.startswith(archive.keep):
                        links[name] = inner_name(f"{os.path.dirname(name)}/{member.linkname}") or ""
        names += _linked(links, set(names), into)
    except (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError, ValueError) as error:
        packed.unlink()
        raise FetchError(f"the archive of {archive.path} is broken ({error}): run it again") from error
    except OSError as error:  # of the disk: the archive is as good as it was
        raise FetchError(f"the archive of {archive.path} cannot be unpacked ({error}): run it again then") from error
    got = contents(into, set(names))
    if got != archive.sha256:
        packed.unlink()
        raise FetchError(f"the archive of {archive.path} holds {got}, wanted {archive.sha256}: it is another content")


def _linked(links: dict[str, str], kept: set[str], into: Path) -> list[str]:
    """The links to files that are kept, now as copies of these; no link is ever laid on the disk."""
    copied = []
    for name, target in links.items():
        steps = 0
        while target in links and steps < len(links):
            target, steps = links[target], steps + 1
        if target in kept:
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(into / target, into / name)
            copied.append(name)
    return copied


class _Limited:
    """A stream that ends with an error once it has given `most` bytes: an archive may unpack to far more than it is."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream, self._left = stream, most

    def read(self, count: int) -> bytes:
        given = self._stream.read(count)
        self._left -= len(given)
        if self._left < 0:
            raise ValueError("it unpacks to more than it may")
        return given


def _fill(of: Pinned, fetched: Path, made: Path) -> None:
    if of.make:
        module, _, function = of.make.partition(":")
        getattr(import_module(module), function)(fetched, made)
    else:
        for remote in of.remotes:
            shutil.copyfile(fetched / remote.name, made / remote.name)
    if of.words:
        words = resources.files("mixmodal.data").joinpath("words", of.words).read_bytes()
        (made / "captions.jsonl").write_bytes(words)
    (made / "SOURCE.txt").write_text(f"{of.source}\nLicence: {of.licence}\n", "utf-8")
