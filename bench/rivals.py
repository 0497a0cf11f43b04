"""Two models of equal size on equal work: ours, and transfusion-pytorch's with the same width, depth and heads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from loguru import logger
from torch import Tensor, nn
from transfusion_pytorch import Transfusion

from mixmodal.codecs.text import train_tokenizer, with_specials
from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig
from mixmodal.model import Model
from mixmodal.parts import Document, Image, Text

PATCH = 4
CHANNELS = PATCH * PATCH * 3
logger.remove()  # the other one tells of every sample


@dataclass(frozen=True)
class Size:
    """What both have in common."""

    width: int = 256
    depth: int = 6
    heads: int = 4
    head_size: int = 64


def theirs(size: Size, strategy: str = "auto") -> Transfusion:
    """Their model; its text has 256 tokens, its modality is patches of 4 x 4 pixels."""
    shape = {"dim": size.width, "depth": size.depth, "heads": size.heads, "dim_head": size.head_size}
    return Transfusion(
        num_text_tokens=256,
        dim_latent=CHANNELS,
        modality_default_shape=(16, 16),
        transformer=shape,
        modality_processing=strategy,
    )


def ours(size: Size, parameters: int) -> Model:
    """Our model with the same number of parameters: its MLP is as wide as that takes. A byte is a token."""
    text = with_specials(train_tokenizer([], 256), ["image"])
    streams = {
        "text": StreamConfig(
            "text",
            {"kind": "text", "tokenizer": text.tokenizer, "vocabulary": text.vocabulary},
            {"kind": "next_token"},
            {"kind": "categorical"},
        ),
        "patches": StreamConfig("image", {"kind": "arrays", "patch": [1, PATCH, PATCH]}, {"kind": "flow"}),
    }
    heads = (size.heads, size.heads, size.head_size)
    trunk = TrunkConfig(size.width, size.depth, *heads, 8, norm_gain=False, rope_theta=100.0)
    lacking = parameters - count(Model(ModelConfig(trunk, streams)))
    trunk = replace(trunk, mlp_width=8 + round(lacking / (3 * size.width * size.depth)))
    return Model(ModelConfig(trunk, streams))


def count(model: nn.Module) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in model.parameters())


def both(size: Size, strategy: str = "auto") -> tuple[Model, Transfusion]:
    """Ours and theirs, with equally many parameters to one in a thousand."""
    other = theirs(size, strategy)
    model = ours(size, count(other))
    print(
        f"width {size.width}, depth {size.depth}: {count(model) / 1e6:.2f} M and {count(other) / 1e6:.2f} M parameters"
    )
    return model, other


def words(length: int) -> Text:
    """A text of so many tokens of ours."""
    return Text("abcdefgh"[: length % 8] + "abcdefgh" * (length // 8))


def tokens(length: int) -> Tensor:
    """A text of so many tokens of theirs."""
    return torch.randint(0, 256, (length,))


def pixels(rows: int, columns: int) -> Image:
    """A picture of so many patches."""
    shape = (rows * PATCH, columns * PATCH, 3)
    return Image(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def patches(rows: int, columns: int) -> Tensor:
    """The same for theirs."""
    return torch.randn(rows, columns, CHANNELS)


Sizes = list[tuple[int, int, int]]  # of each document: tokens of text, rows and columns of the picture


def documents(sizes: Sizes) -> list[Document]:
    """Text, then a picture to draw."""
    return [Document((words(n), pixels(rows, columns)), key=i) for i, (n, rows, columns) in enumerate(sizes)]


def samples(sizes: Sizes) -> list[list[Tensor]]:
    """The same for theirs."""
    return [[tokens(n), patches(rows, columns)] for n, rows, columns in sizes]
