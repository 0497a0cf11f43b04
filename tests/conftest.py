"""What tests share: one thread, small models, small documents."""

from __future__ import annotations

import os
import signal

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is asked here is asked of the processor, also where a GPU is at hand

import numpy as np
import pytest
import torch

from mixmodal.codecs.text import train_tokenizer, with_specials
from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig
from mixmodal.model import Model
from mixmodal.parts import Document, Image, Text

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Files that take longest begin first: begun last, one of them would keep one process busy while the other has no more.
LONGEST = ("parallel", "killed", "memory", "designs", "compare", "compile", "growing", "train")
WORDS = ["a big red circle left of a small blue square on a white background", "two green rings above a black plus"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in the order of `LONGEST`, others as they were."""
    names = [f"test_{name}" for name in LONGEST]
    items.sort(key=lambda item: names.index(item.path.stem) if item.path.stem in names else len(names))


def small_config(
    *,
    depth: int = 2,
    patch: tuple[int, int, int] = (1, 4, 4),
    trunk: dict | None = None,
    flow: dict | None = None,
    codec: dict | None = None,
    text: dict | None = None,
) -> ModelConfig:
    """A model of width 64 that does everything."""
    made = with_specials(train_tokenizer(WORDS * 5, 300), ["image"])
    words = StreamConfig(
        "text",
        {"kind": "text", "tokenizer": made.tokenizer, "vocabulary": made.vocabulary, **(text or {})},
        {"kind": "next_token"},
        {"kind": "categorical"},
        0.5,
    )
    patches = StreamConfig(
        "image",
        {"kind": "arrays", "patch": list(patch), **(codec or {})},
        {"kind": "flow", "copies": 2, **(flow or {})},
    )
    shape = {"width": 64, "depth": depth, "heads": 4, "kv_heads": 2, "head_size": 16, "mlp_width": 96}
    return ModelConfig(TrunkConfig(**{**shape, **(trunk or {})}), {"text": words, "patches": patches})


def small_model(seed: int = 0, **options) -> Model:
    """A small model whose zero-initialised matrices are not zero, so that every path matters."""
    torch.manual_seed(seed)
    model = Model(small_config(**options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def picture(seed: int, height: int = 8, width: int = 8) -> Image:
    """A picture of noise."""
    return Image(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def given(part: Image) -> Image:
    """The same picture, given only."""
    return Image(part.pixels, wanted=False)


def mixed_documents() -> list[Document]:
    """Text alone, pictures alone, both orders, interleaved, odd sizes."""
    return [
        Document((Text("a big red circle"), picture(0)), key=1),
        Document((given(picture(1)), Text("a small blue square")), key=2),
        Document((Text("only words here"),), key=3),
        Document((picture(2, 12, 4),), key=4),
        Document((Text("first"), picture(3), Text("then", wanted=False), picture(4, 10, 7), Text("end")), key=5),
        Document((given(picture(5)), given(picture(6, 4, 8)), Text("which")), key=6),
    ]


@pytest.fixture
def model() -> Model:
    """A small model."""
    return small_model()
