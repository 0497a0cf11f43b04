"""Text after a picture of 256 masked codes: our cache against running the whole sequence again for every token.

Equal model (Show-o's design, untrained), equal work: 256 codes, then 64 tokens, the likeliest each time. What ends a
text is never drawn. To run the whole sequence again for each token is what its authors' code does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from paired import arguments, paired, show

from mixmodal.codecs.text import train_tokenizer, with_specials
from mixmodal.config import TrunkConfig, to_json
from mixmodal.designs import showo
from mixmodal.generate import Request, generate
from mixmodal.layout import after, tokens
from mixmodal.model import Model
from mixmodal.parts import Document, Image, Text
from mixmodal.sampling import Settings
from mixmodal.sequence import Sequence, collate

SIDE, TOKENS = 64, 64  # of the picture in pixels; of the text
NETS = {"kind": "autoencoder", "quantizer": {"kind": "vq", "size": 1024, "width": 8}}


def model(width: int, depth: int) -> Model:
    """Show-o's design, its words bytes."""
    config = showo.model(TrunkConfig(width, depth, 4, 4, width // 4, 3 * width), nets=NETS)
    text = with_specials(train_tokenizer([], 256), ["image"], tasks=True)
    config.streams["text"].codec.update(to_json(text))
    return Model(config).eval()


@torch.inference_mode()
def again(made: Model, documents: list[Document]) -> list[list[int]]:
    """The tokens of each text, the whole sequences run for each; all documents together."""
    speaker, codec = made.speaker, made.speaker.codec
    held = []
    for document in documents:
        runs = made.lay_out(Document((document.parts[0],)), np.random.default_rng(0)).runs
        runs[0] = tokens(speaker, codec.begins(document.parts), 0.0)
        held.append(runs)
    said: list[list[int]] = [[] for _ in documents]
    while len(said[0]) < TOKENS:
        more = [[tokens(speaker, s, after(runs[-1]))] if s else [] for runs, s in zip(held, said, strict=True)]
        sequences = [Sequence([*runs, *some]) for runs, some in zip(held, more, strict=True)]
        rows = [[number] for number in range(len(sequences))]
        hidden = made(collate(sequences, rows, len(sequences[0]), made.blank()))[:, -1]
        drawn, _ = speaker.head.draw([hidden], Settings(), torch.Generator(), forbidden(codec))
        for text, token in zip(said, drawn.tolist(), strict=True):
            text.append(token)
    return said


def forbidden(codec: Any) -> list[int]:
    """All tokens that are no text."""
    marks = [*codec.beginnings(), *codec.size_tokens(), *codec.closing("image")]
    return [*marks, codec.end, codec.opening("image", (1, 1, 1))[0]]


def main() -> None:
    """Print the tables."""
    given = arguments(__doc__, width=256, depth=6)
    made = model(given.width, given.depth)
    head, codec = made.speaker.head, made.speaker.codec
    draw = head.draw
    for count in (1, 4):
        rng = np.random.default_rng(0)
        pictures = [rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(count)]
        documents = [Document((Image(pixels, wanted=False), Text()), key=n) for n, pixels in enumerate(pictures)]
        texts: dict[str, list[str]] = {}

        def ours(documents: list[Document] = documents, texts: dict = texts) -> None:
            head.draw = lambda h, s, r, b: draw(h, s, r, forbidden(codec))
            made_of = generate(made, [Request(d, Settings(max_tokens=TOKENS)) for d in documents])
            texts["ours"] = [d.parts[-1].text for d in made_of]

        def whole(documents: list[Document] = documents, texts: dict = texts) -> None:
            head.draw = draw
            texts["again"] = [codec.decode(said, None, Text()).text for said in again(made, documents)]

        seconds = paired({"ours": ours, "the whole again": whole}, given.rounds)
        show(f"width {given.width}, depth {given.depth}: {count} x {TOKENS} tokens after 256 codes", seconds, "ours")
        print("  equal texts:", texts["ours"] == texts["again"])


if __name__ == "__main__":
    main()
