"""Fetching from pinned sources, against a server of our own: whole, resumed, checked, and never half in place."""

import hashlib
import io
import json
import os
import sys
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from test_named import have

from mixmodal.cli import main
from mixmodal.data import fetching, pinned, pinned_emoji, pinned_numerals, pinned_textbooks, pinned_video
from mixmodal.data.fetching import FetchError, contents, digest, download, get, listed, unpacked, verified
from mixmodal.data.named import data_folder, named
from mixmodal.data.pinned import PINNED, Archive, Pinned, Remote
from mixmodal.data.pinned_tiles import make, record, spoken

CONTENT = bytes(range(256)) * 300


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` by path. It gives at most `gives` bytes an answer, and knows no ranges if `ranges` is False."""

    files: dict[str, bytes]
    gives: int | None = None
    ranges = True
    status: list[int]
    asked: list[tuple[str, str | None]]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        if self.server.status:
            return self.send_error(self.server.status.pop(0))
        if self.path not in self.server.files:
            return self.send_error(404)
        content, start = self.server.files[self.path], 0
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: self.server.gives])
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    """The server, in place of the real ones."""
    server = Server(("127.0.0.1", 0), Handler)
    server.files, server.asked, server.status = {}, [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(pinned, "FILES", server.url)
    monkeypatch.setattr(pinned, "ARCHIVES", server.url)
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


# One file


def test_a_file_is_fetched_once_and_checked(server, tmp_path):
    server.files["/a"] = CONTENT
    for _ in range(2):
        download(f"{server.url}/a", tmp_path / "a", len(CONTENT), sha(CONTENT))
    assert (tmp_path / "a").read_bytes() == CONTENT and server.asked == [("/a", None)]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_transfer_that_ends_early_goes_on_where_it_ended(server, tmp_path):
    server.files["/a"], server.gives = CONTENT, 30_000
    download(f"{server.url}/a", tmp_path / "a", len(CONTENT), sha(CONTENT))
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.asked == [("/a", None), ("/a", "bytes=30000-"), ("/a", "bytes=60000-")]


def test_half_a_file_of_an_earlier_call_is_gone_on_with(server, tmp_path):
    server.files["/a"], server.gives = CONTENT, 10_000
    with pytest.raises(FetchError, match="connection ended early.*run it again to go on"):
        download(f"{server.url}/a", tmp_path / "a", len(CONTENT), sha(CONTENT))
    assert (tmp_path / "a.part").stat().st_size == 40_000 and not (tmp_path / "a").exists()
    server.gives = None
    download(f"{server.url}/a", tmp_path / "a", len(CONTENT), sha(CONTENT))
    assert (tmp_path / "a").read_bytes() == CONTENT and server.asked[-1] == ("/a", "bytes=40000-")


def test_a_server_without_ranges_sends_all_of_it_anew(server, tmp_path):
    server.files["/a"], server.ranges = CONTENT, False
    (tmp_path / "a.part").write_bytes(CONTENT[:500])
    download(f"{server.url}/a", tmp_path / "a", len(CONTENT), sha(CONTENT))
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_whole_file_that_was_not_yet_put_in_place_is_not_fetched_again(server, tmp_path):
    (tmp_path / "a.part").write_bytes(CONTENT)
    download(f"{server.url}/a", tmp_path / "a", len(CONTENT), sha(CONTENT))
    assert (tmp_path / "a").read_bytes() == CONTENT and server.asked == []


def test_other_content_is_refused_and_thrown_away(server, tmp_path):
    server.files["/a"] = CONTENT[:-1] + b"x"
    with pytest.raises(FetchError, match=f"has sha256 {sha(server.files['/a'])}, wanted {sha(CONTENT)}"):
        download(f"{server.url}/a", tmp_path / "a", len(CONTENT), sha(CONTENT))
    server.files["/a"] = CONTENT + b"more"
    with pytest.raises(FetchError, match="has more than 76800 bytes"):
        download(f"{server.url}/a", tmp_path / "a", len(CONTENT), sha(CONTENT))
    (tmp_path / "a.part").write_bytes(b"x" * 100)  # what is here may be something else
    server.files["/a"] = CONTENT
    with pytest.raises(FetchError, match="sha256"):
        download(f"{server.url}/a", tmp_path / "a", len(CONTENT), sha(CONTENT))
    assert list(tmp_path.iterdir()) == []
    download(f"{server.url}/a", tmp_path / "a", len(CONTENT), sha(CONTENT))


def test_a_server_in_trouble_is_asked_again_and_a_wrong_address_is_not(server, tmp_path):
    server.files["/a"], server.status = CONTENT, [503, 429]
    download(f"{server.url}/a", tmp_path / "a", len(CONTENT), sha(CONTENT))
    assert len(server.asked) == 3
    with pytest.raises(FetchError, match="404"):
        download(f"{server.url}/b", tmp_path / "b", 10, sha(b""))
    assert len(server.asked) == 4
    (tmp_path / "c.part").write_bytes(b"x" * 20)
    server.files["/c"] = b"short"
    download(f"{server.url}/c", tmp_path / "c", 30)
    assert (tmp_path / "c").read_bytes() == b"short"
    server.shutdown()
    server.server_close()
    with pytest.raises(FetchError, match="could not be fetched"):
        download(f"{server.url}/a", tmp_path / "d", 10, sha(b""))


# Whole sets


@pytest.fixture
def small(server, monkeypatch):
    """A pinned set of two files and our words for them."""
    server.files |= {"/o/r/c/a.png": CONTENT, "/o/r/c/b.png": CONTENT[:7]}
    remotes = tuple(Remote(path[1:], path[-5:], len(body), sha(body)) for path, body in server.files.items())
    small = Pinned("small", "github.com/o/r/c", "CC0", remotes, words="photos-misc.jsonl")
    monkeypatch.setitem(PINNED, "small", small)
    return small


def test_a_set_is_fetched_with_its_words_and_source_and_not_again(small, server, tmp_path, capsys):
    main(["data", "get", "small", "--out", str(tmp_path / "data")])
    folder = tmp_path / "data" / "small"
    assert capsys.readouterr().out.splitlines()[-1] == f"small is in {folder}"
    assert sorted(os.listdir(folder)) == ["SOURCE.txt", "a.png", "b.png", "captions.jsonl"]
    assert (folder / "SOURCE.txt").read_text() == "github.com/o/r/c\nLicence: CC0\n"
    assert os.listdir(tmp_path / "data") == ["small"]
    assert get("small", tmp_path / "data") == folder and len(server.asked) == 2
    assert [line.split()[1] for line in listed(tmp_path / "data") if line.startswith("small")] == ["there"]
    main(["data", "get"])
    assert "tinyshakespeare" in capsys.readouterr().out


def test_a_set_that_was_changed_or_is_something_else_is_left_alone(small, tmp_path, capsys):
    get("small", tmp_path)
    (tmp_path / "small" / "a.png").write_bytes(b"mine")
    with pytest.raises(SystemExit):
        main(["data", "get", "small", "--out", str(tmp_path)])
    assert "is there, but is not small as it is pinned: move it away first" in capsys.readouterr().err
    assert (tmp_path / "small" / "a.png").read_bytes() == b"mine"
    with pytest.raises(ValueError, match="these can, kodak24"):
        get("cats", tmp_path)


def test_a_set_stopped_on_the_way_is_not_there_and_goes_on(small, server, tmp_path):
    body = server.files.pop("/o/r/c/b.png")
    with pytest.raises(FetchError, match="404"):
        get("small", tmp_path)
    assert not (tmp_path / "small").exists()
    server.files["/o/r/c/b.png"] = body
    get("small", tmp_path)
    assert [path for path, _ in server.asked].count("/o/r/c/a.png") == 1


def packed(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, body in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return stream.getvalue()


def tiles_made_up(tmp_path) -> dict[str, bytes]:
    """The files of a repository with the layout of tiles-crawl."""
    out = {"r/ARTISTS.md": b"names", "r/README.md": b"CC0", "r/other.txt": b"not kept", "r/../../up.md": b"out"}
    tiles = {
        "item/gold/i-coin1.png": (32, 255),
        "item/gold/coin2.png": (32, 255),  # the same pixels again
        "mon/fungi_plants/bush.png": (32, 128),
        "mon/UNUSED/old.png": (32, 90),
        "mon/large.png": (48, 255),
        "mon/clear.png": (32, 0),
    }
    for name, (side, alpha) in tiles.items():
        stream = io.BytesIO()
        Pillow.new("RGBA", (side, side), (9, 9, 9, alpha)).save(stream, "PNG")
        out[f"r/releases/Nov-2015/{name}"] = stream.getvalue()
    return out


def test_an_archive_gives_what_is_kept_of_it_and_is_made_into_the_set(server, tmp_path, monkeypatch):
    files = tiles_made_up(tmp_path)
    server.files["/crawl"] = packed(files)
    keep = ("releases/Nov-2015/", "ARTISTS.md", "README.md")
    for name, body in files.items():
        if (inner := name.partition("/")[2]).startswith(keep):
            (tmp_path / "whole" / inner).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "whole" / inner).write_bytes(body)
    names = [
        path.relative_to(tmp_path / "whole").as_posix() for path in (tmp_path / "whole").rglob("*.*") if path.is_file()
    ]
    archive = Archive("crawl", keep, contents(tmp_path / "whole", names), 2**20)
    tiles = Pinned(
        "tiles", "s", "CC0", archives=(archive,), make=f"{make.__module__}:make", made=(("LICENSE", sha(b"CC0")),)
    )
    monkeypatch.setitem(PINNED, "tiles", tiles)
    folder = get("tiles", tmp_path / "data")
    assert sorted(os.listdir(folder)) == ["ARTISTS.md", "LICENSE", "SOURCE.txt", "captions.jsonl", "images32_rgba.npz"]
    with np.load(folder / "images32_rgba.npz") as arrays:
        assert arrays["images"].shape == (2, 32, 32, 4) and arrays["images"][1, 0, 0].tolist() == [9, 9, 9, 128]
    assert not (tmp_path / "up.md").exists() and not list(tmp_path.rglob("other.txt"))
    server.files["/crawl"] = packed({**files, "r/README.md": b"other"})
    with pytest.raises(FetchError, match="it is another content"):
        get("tiles", tmp_path / "again")
    server.files["/crawl"] = packed(files)[:-300]
    with pytest.raises(FetchError, match="is broken .*: run it again"):
        get("tiles", tmp_path / "broken")
    monkeypatch.setitem(
        PINNED, "tiles", Pinned("tiles", "", "", archives=(Archive("crawl", keep, "", 9000),), make="m:f")
    )
    server.files["/crawl"] = packed({"r/README.md": bytes(100_000)})
    with pytest.raises(FetchError, match="it unpacks to more than it may"):
        get("tiles", tmp_path / "bomb")
    assert not any((tmp_path / name / "tiles").exists() for name in ("again", "broken", "bomb"))


def test_links_in_an_archive_become_copies_of_what_is_kept(server, tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, target in [("a", "b"), ("b", "c.png"), ("out", "../../secret"), ("round", "round"), ("gone", "d")]:
            member = tarfile.TarInfo(f"r/flags/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
        member = tarfile.TarInfo("r/flags/c.png")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"flag"))
    server.files["/flags"] = stream.getvalue()
    for name in "abc":
        path = tmp_path / "whole" / "flags" / {"c": "c.png"}.get(name, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"flag")
    wanted = contents(tmp_path / "whole", ["flags/a", "flags/b", "flags/c.png"])
    (tmp_path / "into").mkdir()
    unpacked(Archive("flags", ("flags/",), wanted, 10_000), tmp_path / "into")
    assert sorted(os.listdir(tmp_path / "into" / "flags")) == ["a", "b", "c.png"]
    assert not (tmp_path / "into" / "flags" / "a").is_symlink()


def test_emoji_are_drawn_over_white_and_told_by_their_records(tmp_path):
    for folder in ("png/128", "third_party/region-flags/png"):
        (tmp_path / folder).mkdir(parents=True)
    Pillow.new("RGBA", (128, 128), (255, 0, 0, 128)).save(tmp_path / "png/128/emoji_u1f44b_1f3fb.png")
    Pillow.new("RGB", (90, 60), (0, 0, 255)).save(tmp_path / "third_party/region-flags/png/DE.png")
    (tmp_path / "LICENSE").write_text("OFL")
    messages = {
        "groups": [{"order": 1, "message": "people & body"}, {"order": 9, "message": "flags"}],
        "subgroups": [{"order": 3, "key": "old"}, {"order": 3, "key": "hand"}],
    }
    wave = {"hexcode": "1F44B", "emoji": "👋", "label": "waving hand", "tags": ["hand"], "version": 0.6}
    wave |= {"group": 1, "subgroup": 3}
    wave["skins"] = [{**wave, "hexcode": "1F44B-1F3FB", "label": "waving hand: light skin tone", "tone": 1}]
    flag = {
        "hexcode": "1F1E9-1F1EA",
        "emoji": "🇩🇪",
        "label": "flag: Germany",
        "tags": ["DE"],
        "version": 0.6,
        "group": 9,
    }
    (tmp_path / "data.raw.json").write_text(json.dumps([wave, flag]), "utf-8")
    (tmp_path / "messages.raw.json").write_text(json.dumps(messages), "utf-8")
    (tmp_path / "made").mkdir()
    pinned_emoji.make(tmp_path, tmp_path / "made")
    first, second = map(json.loads, (tmp_path / "made" / "captions.jsonl").read_text("utf-8").splitlines())
    assert first["flag_code"] == "DE" and first["name"] == "flag: Germany" and first["subgroup"] is None
    assert (second["base"], second["skin_tone"], second["subgroup"], second["i"]) == ("1F44B", ["light"], "hand", 1)
    with np.load(tmp_path / "made" / "images64.npz") as arrays:
        german, hand = arrays["images"]
    assert german[0, 0].tolist() == [255, 255, 255] and german[32, 0].tolist() == [0, 0, 255]
    assert hand[5, 5].tolist() == [255, 127, 127]
    wales = "1F3F4-E0067-E0062-E0077-E006C-E0073-E007F"
    assert [pinned_emoji.flag_code(code) for code in (wales, "1F3F4", "26F3", "1F1E9-200D")] == ["GB-WLS", "", "", ""]


def test_names_and_splits_of_tiles_are_told_by_their_paths():
    assert [spoken(name) for name in ("i-r-mutation", "snake-a0", "bush_2", "wave_NE1", "07")] == [
        "r mutation",
        "snake a",
        "bush",
        "wave NE1",
        "07",
    ]
    clear = np.zeros((32, 32, 4), np.uint8)
    assert record("dngn/sparkling_fountain2.png", clear) == {
        "path": "dngn/sparkling_fountain2.png",
        "name": "sparkling fountain",
        "category": "dungeon",
        "subcategory": [],
        "opaque": False,
        "split": "val",
    }


def test_handwritten_digits_are_the_first_of_each_in_an_order_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(pinned_numerals, "EACH", 2)
    (tmp_path / "made").mkdir()
    (tmp_path / "LICENSE").write_text("MIT")
    for part, count in (("train", 3), ("test", 1)):
        for digit in range(10):
            home = tmp_path / part / str(digit)
            home.mkdir(parents=True)
            for number in range(count):
                Pillow.new("L", (28, 28), 10 * digit + number).save(home / f"{9 + number}.png")
    pinned_numerals.make_mnist(tmp_path, tmp_path / "made")
    with np.load(tmp_path / "made" / "mnist20k.npz") as arrays:
        labels, images = arrays["train_labels"], arrays["train_images"]
        assert sorted(labels) == sorted([*range(10)] * 2) and len(arrays["test_labels"]) == 10
    assert sorted(images[:, 0, 0].tolist()) == sorted(10 * digit + number for digit in range(10) for number in (0, 1))
    assert (images[:, 0, 0] // 10 == labels).all() and labels.tolist() != sorted(labels)


def test_signs_keep_their_pixels_and_lose_what_the_camera_noted(tmp_path):
    (tmp_path / "Dataset" / "3").mkdir(parents=True)
    (tmp_path / "made").mkdir()
    (tmp_path / "LICENSE").write_text("Apache")
    exif = Pillow.Exif()
    exif[271] = "a camera"
    Pillow.new("RGB", (100, 100), (90, 120, 30)).save(tmp_path / "Dataset" / "3" / "IMG_1.JPG", quality=90, exif=exif)
    pinned_numerals.make_signs(tmp_path, tmp_path / "made")
    with tarfile.open(tmp_path / "made" / "images100.tar") as archive:
        content = archive.extractfile("00000.jpg").read()
    assert b"a camera" not in content and Pillow.open(io.BytesIO(content)).size == (100, 100)
    entry = json.loads((tmp_path / "made" / "labels.jsonl").read_text())
    assert entry["word"] == "three" and entry["source_file"] == "3/IMG_1.JPG"


MODULE = """<document xmlns="http://cnx.rice.edu/cnxml" xmlns:m="http://www.w3.org/1998/Math/MathML">
<title>Two  moons</title><content>
<para>Mars has <term>two</term> moons: <m:math><m:mn>1 </m:mn><m:mo> +1</m:mo></m:math>.</para>
<section><title>Names</title>
<figure><media alt="Map of WISE. A dot (left); a line."><image src="../../media/moons.png"/></media>
<caption>Two dots. (Credit: (a) U.S. Navy; b: none)</caption></figure>
<list><item>Phobos (<link target-id="x"/>)</item></list><table><row/></table></section></content>
<glossary><definition><term>moon</term><meaning>what goes round</meaning></definition></glossary></document>"""


def test_a_module_of_a_textbook_is_text_and_figures_in_order(tmp_path):
    (tmp_path / "modules/m1").mkdir(parents=True)
    (tmp_path / "modules/m1/index.cnxml").write_text(MODULE, "utf-8")
    assert list(pinned_textbooks.pieces(tmp_path, "m1")) == [
        {"title": "Two moons"},
        {"text": "Mars has two moons: 1+1."},
        {"text": "# Names"},
        {"figure": ("moons.png", "Map of WISE. A dot (left); a line.", "Two dots.", "Credit: (a) U.S. Navy; b: none")},
        {"text": "Phobos ()"},
        {"text": "moon: what goes round"},
    ]
    assert pinned_textbooks.credited("A dot (left) (credit: me") == ("A dot (left) (credit: me", "")
    assert pinned_textbooks.credited("A dot (left)") == ("A dot (left)", "")
    assert pinned_textbooks.first_sentence("Map of WISE. A dot (left); a line.") == "Map of WISE. A dot (left)"
    assert pinned_textbooks.first_sentence("no stop") == "no stop"
    owners = {"": "none", "Credit: CDC/flickr": "nasa/esa", "me/Flickr": "flickr", "international": "other"}
    assert all(pinned_textbooks.owner(credit).startswith(who) for credit, who in owners.items())


def test_pictures_of_textbooks_are_reduced_over_white_and_other_books_are_refused(tmp_path):
    Pillow.new("RGBA", (1000, 400), (0, 0, 0, 0)).save(tmp_path / "a.png")
    size, sides, data = pinned_textbooks.reduced(tmp_path / "a.png")
    with Pillow.open(io.BytesIO(data)) as picture:
        assert size == (1000, 400) and sides == picture.size == (256, 102) and picture.getpixel((5, 5)) == (255,) * 3
    (tmp_path / "collections").mkdir()
    for name, _ in pinned_textbooks.BOOKS.values():
        (tmp_path / f"collections/{name}.collection.xml").write_text("<collection/>", "utf-8")
    with pytest.raises(ValueError, match="0 pictures were found, wanted 1267"):
        pinned_textbooks.make(tmp_path, tmp_path)


def test_every_pinned_set_has_an_address_a_commit_and_a_checksum():
    for of in PINNED.values():
        assert of.remotes or of.archives and of.make and of.made
        for piece in (*of.remotes, *of.archives):
            assert any(len(part) == 40 and set(part) <= set("0123456789abcdef") for part in piece.path.split("/"))
            assert len(piece.sha256) == 64
        if of.words:
            assert (Path(pinned.__file__).parent / "words" / of.words).is_file()


@pytest.mark.parametrize("name", PINNED)
def test_the_sets_at_hand_are_those_that_are_pinned(name):
    folder = data_folder() / PINNED[name].folder
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: set MIXMODAL_DATA to the folder that holds it")
    assert verified(PINNED[name], folder)
    if PINNED[name].words:
        words = Path(pinned.__file__).parent / "words" / PINNED[name].words
        assert digest(words) == digest(folder / "captions.jsonl")


@have("kodak24")
def test_a_set_from_the_pinned_files_reads_like_the_one_at_hand(server, tmp_path):
    for remote in PINNED["kodak24"].remotes:
        server.files[f"/{remote.path}"] = (data_folder() / "kodak24" / remote.name).read_bytes()
    get("kodak24", tmp_path)
    fetched, there = named("kodak24", where=tmp_path), named("kodak24")
    assert fetched.size == 24 and fetched.pair(3)[1] == there.pair(3)[1]
    assert np.array_equal(fetched.pair(3)[0], there.pair(3)[0])


def film(path, seconds):
    """In place of a decoder: 25 frames a second, each as bright as its number."""
    for number in range(seconds * 25):
        yield number / 25, np.full((64, 64, 3), number, np.uint8)


def test_films_are_cut_into_clips_of_eight_frames_a_second(server, tmp_path, monkeypatch):
    monkeypatch.setattr(pinned_video, "frames", lambda path: film(path, 5))
    of, remotes = PINNED["video"], []
    for remote in of.remotes:
        server.files[f"/{remote.path}"] = CONTENT
        remotes.append(replace(remote, bytes=len(CONTENT), sha256=sha(CONTENT)))
    monkeypatch.setitem(PINNED, "video", replace(of, remotes=tuple(remotes)))
    folder = get("video", tmp_path)
    clips = np.load(folder / "clips64.npz")["clips"]
    assert clips.shape == (3 * 4, 16, 64, 64, 3) and verified(PINNED["video"], folder)
    assert clips[0, :6, 0, 0, 0].tolist() == [1, 4, 7, 10, 14, 17]  # shown at 0.04, 0.16, 0.28, 0.4, 0.56, 0.68
    assert np.array_equal(clips[1, :8], clips[0, 8:])
    lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text("utf8").splitlines()]
    assert [line["i"] for line in lines] == list(range(45))
    assert list(dict.fromkeys(line["source"] for line in lines)) == list(pinned_video.FILMS)


def test_a_film_without_what_reads_films_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match="pip install av"):
        next(pinned_video.frames(tmp_path / "film.mp4"))
