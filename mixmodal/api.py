"""The package in three lines: load a model, ask it for pictures, ask it about pictures; and give it to others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture

from mixmodal import checkpoint, foreign, sharing
from mixmodal.compute import fast_dtype
from mixmodal.config import unknown
from mixmodal.generate import Request, generate
from mixmodal.model import Model
from mixmodal.parts import Document, Image, Text
from mixmodal.sampling import Settings


def load(where: str | Path, device: str = "cpu", dtype: torch.dtype | None = None) -> Loaded:
    """A model ready to be asked: `where` is a run's folder, a model's folder, "builtin:NAME" or "hub:OWNER/NAME".

    Raises:  FileNotFoundError that says where was looked; ValueError for a device that cannot be used.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).strip().splitlines()[0]
        raise ValueError(
            f"device is {str(device)!r} ({why}): take cpu, or cuda where a GPU and a torch for it are"
        ) from None
    model, about = checkpoint.from_pretrained(where)
    return Loaded(model.to(device), about, dtype or fast_dtype(device))


from_pretrained = load  # as it is called elsewhere


class Loaded:
    """A trained model, what is known about it, and the ways to ask it."""

    def __init__(self, model: Model, about: dict[str, Any], dtype: torch.dtype) -> None:
        self.model, self.about, self.dtype = model, about, dtype

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures it was trained on."""
        return tuple(self.about.get("sample_size", (32, 32)))

    def settings(self, **chosen: Any) -> Settings:
        """The model's own sampling settings with some of them chosen otherwise; None leaves one as it is."""
        own = Settings(steps=self.about.get("steps_sampled", 25), guidance=self.about.get("guidance", 2.0))
        names = [field.name for field in fields(Settings)]
        for key in chosen:
            if key not in names:
                raise ValueError(unknown(f"setting {key!r}", key, names))
        return replace(own, **{key: value for key, value in chosen.items() if value is not None})

    def generate(
        self, documents: Sequence[Document], settings: Settings | None = None, seed: int = 0, free: int = 0
    ) -> list[Document]:
        """The documents with every empty wanted part made; `free` lets the model add that many parts of its own.

        Limits:  their places in the list are their keys: the same list with the same seed gives the same draws.
        """
        settings = settings or self.settings()
        requests = [
            Request(replace(document, key=number), settings, seed, free) for number, document in enumerate(documents)
        ]
        return generate(self.model, requests, dtype=self.dtype)

    def sample(
        self,
        prompts: str | Sequence[str],
        *,
        n: int = 1,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        **chosen: Any,
    ) -> list[Picture.Image]:
        """`n` pictures for every prompt, in the order of the prompts; for an empty one whatever the model likes.

        Units:   `size` is (height, width) in pixels; further arguments are those of Settings (steps, guidance, ...).
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        wanted = Image(size=size or self.size)
        documents = [Document((Text(prompt), wanted) if prompt else (wanted,)) for prompt in prompts for _ in range(n)]
        made = self.generate(documents, self.settings(**chosen), seed)
        return [Picture.fromarray(document.parts[-1].pixels) for document in made]

    def fill(
        self, picture: Image, prompt: str = "", *, n: int = 1, seed: int = 0, **chosen: Any
    ) -> list[Picture.Image]:
        """`n` pictures that keep what is known of this one to the bit, the rest drawn to fit it and the prompt.

        `picture` is made by `hidden`, `grown`, `varied` or `masked` of `mixmodal.filling`, or by hand.
        Raises:  ValueError if nothing is said to be known.
        """
        if picture.known is None or picture.pixels is None:
            raise ValueError("nothing of the picture is said to be known: make it with mixmodal.filling, or use sample")
        parts = (Text(prompt), picture) if prompt else (picture,)
        made = self.generate([Document(parts)] * n, self.settings(**chosen), seed)
        return [Picture.fromarray(document.parts[-1].pixels) for document in made]

    def caption(self, pictures: Any, *, prompt: str = "", seed: int = 0, fit: bool = True, **chosen: Any) -> list[str]:
        """What the model writes about each picture (a path, a PIL picture, or a uint8 array); after `prompt`, if given.

        `fit` brings pictures to the size that the model was trained on, cropping what does not fit.
        """
        from mixmodal.data.pictures import cropped, decode, in_colour

        if isinstance(pictures, (str, Path, Picture.Image, np.ndarray)):
            pictures = [pictures]
        documents = []
        for picture in pictures:
            if isinstance(picture, (str, Path)):
                try:
                    pixels = decode(picture, None)
                except ValueError as error:
                    raise ValueError(f"{picture}: {error}") from None
            elif isinstance(picture, Picture.Image):
                pixels = np.asarray(in_colour(picture))
            else:
                pixels = picture
            if fit:
                pixels = np.asarray(cropped(Picture.fromarray(pixels), *self.size))
            asked = (Text(prompt, wanted=False),) if prompt else ()
            documents.append(Document((Image(pixels, wanted=False), *asked, Text())))
        return [made.parts[-1].text for made in self.generate(documents, self.settings(**chosen), seed)]

    def bits_per_byte(self) -> float:
        """Bits that the model spends on a byte of held-out prose: its text ability, before a training or after.

        Units:   in fp32; the same texts for every model, whatever its tokenizer (see `mixmodal.data.prose`).
        """
        from mixmodal.judge.suites import Exam, bits_per_byte

        return bits_per_byte(Exam(self.model, {"sources": {"prose": {"kind": "prose"}}}))

    def merged(self) -> Loaded:
        """The same model with its adapters, if it has any, added to the matrices beside them."""
        return Loaded(foreign.merged(self.model), self.about, self.dtype)

    def save_pretrained(self, folder: str | Path, *, base: str = "", licence: str = "") -> None:
        """Write the model and a card to `folder`; `base` names a model that holds its frozen weights, then left out.

        Raises:  ValueError if the base does not hold them.
        """
        checkpoint.save_pretrained(self.model, folder, about=self.about, base=base)
        sharing.write_card(folder, licence=licence)

    def push_to_hub(self, name: str, *, base: str = "", licence: str = "", private: bool = False) -> str:
        """The address on the hub under which the model now stands as OWNER/NAME, with its card.

        Raises:  ValueError if huggingface_hub is not installed, or if others could not read the base.
        """
        with TemporaryDirectory() as folder:
            checkpoint.save_pretrained(self.model, folder, about=self.about, base=base)
            return sharing.push_to_hub(folder, name, licence=licence, private=private)
