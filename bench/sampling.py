"""Pictures from text, and text after pictures, against transfusion-pytorch 0.20.0 at its fastest settings.

Equal parameters, 16 evaluations of the flow on both sides (their midpoint over 8 intervals, our Euler over 16), equal
guidance. Their prefix cache is on. What ends a text is never drawn, so that both write equally many tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from paired import arguments, costs, paired, show
from rivals import PATCH, Size, both, tokens, words
from torch import Tensor, nn

from mixmodal.generate import Request, generate
from mixmodal.model import Model
from mixmodal.parts import Document, Image, Text
from mixmodal.sampling import Settings

EVALUATIONS = 16
SHAPE = (16, 16)
EXTENT = (1, SHAPE[0] * PATCH, SHAPE[1] * PATCH)


class Script(nn.Module):
    """Their logits, with every token but text ruled out; after `length` tokens a picture begins."""

    def __init__(self, logits: nn.Module, length: int, begin: int) -> None:
        super().__init__()
        self.logits, self.length, self.begin = logits, length, begin
        self.said = 0

    def forward(self, x: Tensor) -> Tensor:
        """The logits of what the script says."""
        found = self.logits(x)
        self.said += 1
        allowed = torch.zeros(found.shape[-1], dtype=torch.bool)
        allowed[slice(256) if self.said <= self.length else self.begin] = True
        return found.masked_fill(~allowed, -torch.inf)


def scripted(model: Model) -> None:
    """Our head never draws what ends a text."""
    draw, codec = model.speaker.head.draw, model.speaker.codec
    ends = [codec.end, codec.opening("image", (1, 1, 1))[0]]
    model.speaker.head.draw = lambda hidden, settings, rng, banned: draw(hidden, settings, rng, [*banned, *ends])


def in_bf16(work: dict[str, Callable[[], object]], ours: Callable[[], object]) -> dict[str, Callable[[], object]]:
    """The same in bf16: ours by its own means, theirs under autocast."""

    def narrow(run: Callable[[], object]) -> Callable[[], object]:
        def inner() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                run()

        return inner

    return {"ours, bf16": ours} | {f"{n}, bf16": narrow(run) for n, run in work.items() if n.startswith("theirs")}


def pictures(size: Size, prompt: int, count: int, guidance: float, rounds: int) -> None:
    """Text to picture."""
    model, other = both(size)
    model.eval(), other.eval()
    settings = Settings(steps=EVALUATIONS, guidance=guidance)
    document = Document((words(prompt), Image(size=EXTENT[1:])))
    prompts = [tokens(prompt) for _ in range(count)]
    rest = {"force_modality_at_start": (0, SHAPE), "modality_steps": EVALUATIONS // 2 + 1, "cfg_scale": guidance}
    requests = [Request(document, settings, seed=i) for i in range(count)]
    work = {
        "ours": lambda: generate(model, requests),
        "theirs, sample_many": lambda: other.sample_many([[p] for p in prompts], max_length=1, **rest),
        "theirs, sample_one": lambda: [other.sample_one(p, max_length=1, **rest) for p in prompts],
        "theirs, sample_one, cache_kv": lambda: [
            other.sample_one(p, max_length=1, cache_kv=True, **rest) for p in prompts
        ],
    }
    least = costs(work)
    title = f"text of {prompt} tokens to {count} picture(s) of 256 patches, guidance {guidance:g}"
    found = paired({**work, **in_bf16(work, lambda: generate(model, requests, dtype=torch.bfloat16))}, rounds, 1)
    show(title, found, "ours", least)
    show("  the same, ours in bf16", {n: t for n, t in found.items() if n != "ours"}, "ours, bf16", least)


def turns(size: Size, prompt: int, count: int, length: int, rounds: int) -> None:
    """Text, picture, text, picture: all but the first text is made."""
    model, other = both(size)
    model.eval(), other.eval()
    scripted(model)
    script = other.to_text_logits = Script(other.to_text_logits, length, other.som_ids[0])
    settings = Settings(steps=EVALUATIONS, guidance=1.0, max_tokens=length)
    empty = Image(size=EXTENT[1:])
    document = Document((words(prompt), empty, Text(), empty))
    prompts = [tokens(prompt) for _ in range(count)]
    rest = {"force_modality_at_start": (0, SHAPE), "modality_steps": EVALUATIONS // 2 + 1, "cfg_scale": 1.0}
    rest |= {"fixed_modality_shape": SHAPE, "max_length": 2 * 256 + length}

    def many() -> None:
        script.said = -1  # the first logits, of the prompt, say nothing
        other.sample_many([[p] for p in prompts], **rest)

    def one() -> None:
        for p in prompts:
            script.said = 0
            other.sample_one(p, cache_kv=True, **rest)

    requests = [Request(document, settings, seed=i) for i in range(count)]
    work = {"ours": lambda: generate(model, requests), "theirs, sample_many": many, "theirs, sample_one": one}
    least = costs(work)
    found = paired({**work, **in_bf16(work, lambda: generate(model, requests, dtype=torch.bfloat16))}, rounds, 1)
    show(f"{count} x two turns: text {prompt}, picture, text {length}, picture", found, "ours", least)
    show("  the same, ours in bf16", {n: t for n, t in found.items() if n != "ours"}, "ours, bf16", least)


def answers(size: Size, prompt: int, count: int, length: int, rounds: int) -> None:
    """Text written after a picture that is given."""
    model, other = both(size)
    model.eval(), other.eval()
    scripted(model)
    other.to_text_logits = Script(other.to_text_logits, 10**9, other.som_ids[0])
    pixels = torch.randint(0, 256, (*EXTENT[1:], 3), dtype=torch.uint8).numpy()
    document = Document((words(prompt), Image(pixels, wanted=False), Text()))
    given = [[tokens(prompt), (0, torch.randn(*SHAPE, 48))] for _ in range(count)]
    settings = Settings(max_tokens=length, guidance=1.0)
    requests = [Request(document, settings, seed=i) for i in range(count)]
    rest = {"max_length": length - 1, "text_temperature": 1e-3}
    work = {
        "ours": lambda: generate(model, requests),
        "theirs, sample_many": lambda: other.sample_many([list(g) for g in given], **rest),
        "theirs, sample_one": lambda: [other.sample_one(list(g), cache_kv=True, **rest) for g in given],
    }
    least = costs(work)
    found = paired({**work, **in_bf16(work, lambda: generate(model, requests, dtype=torch.bfloat16))}, rounds, 1)
    show(f"{count} x text of {length} tokens after text {prompt} and a picture", found, "ours", least)
    show("  the same, ours in bf16", {n: t for n, t in found.items() if n != "ours"}, "ours, bf16", least)


if __name__ == "__main__":
    given = arguments(__doc__, rounds=5)
    small = Size()
    parts = {
        f"picture {prompt} {count} {guidance:g}": lambda p=prompt, c=count, g=guidance: pictures(
            small, p, c, g, given.rounds
        )
        for prompt in (64, 512)
        for count in (1, 4)
        for guidance in (1.0, 3.0)
    }
    parts |= {f"turns {count}": lambda c=count: turns(small, 128, c, 64, given.rounds) for count in (1, 4)}
    parts |= {f"answer {count}": lambda c=count: answers(small, 128, c, 64, given.rounds) for count in (1, 4)}
    for title, part in parts.items():
        if given.only in title:
            part()
