"""Text alone against transformers' Qwen3 on the same weights: a training step, and greedy decoding.

Theirs runs with the attention it is fastest with (SDPA), its cache on, in fp32 and in bf16 where that is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import transformers
from paired import arguments, paired, show

from mixmodal.codecs.text import train_tokenizer, with_specials
from mixmodal.config import ModelConfig, StreamConfig, TrunkConfig
from mixmodal.foreign import OF_BLOCK
from mixmodal.generate import Request, generate
from mixmodal.model import Model
from mixmodal.parts import Document, Text
from mixmodal.prepare import compile_trunk
from mixmodal.sampling import Settings
from mixmodal.sequence import collate

WORDS = "abcdefgh"


def twins(vocabulary: int = 0) -> tuple[Model, transformers.PreTrainedModel]:
    """Our model and theirs on the same weights; `vocabulary` > 0 is the size of the table."""
    text = with_specials(train_tokenizer([], 256), [])
    words = {"kind": "text", "tokenizer": text.tokenizer, "vocabulary": vocabulary or text.vocabulary}
    stream = StreamConfig("text", words, {"kind": "next_token"}, {"kind": "categorical"})
    trunk = TrunkConfig(512, 8, 8, 4, 64, 1536, rope_theta=1e6)
    model = Model(ModelConfig(trunk, {"text": stream}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    config = transformers.Qwen3Config(
        vocab_size=words["vocabulary"],
        hidden_size=trunk.width,
        intermediate_size=trunk.mlp_width,
        num_hidden_layers=trunk.depth,
        num_attention_heads=trunk.heads,
        num_key_value_heads=trunk.kv_heads,
        head_dim=trunk.head_size,
        rms_norm_eps=trunk.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": trunk.rope_theta},
        tie_word_embeddings=False,
        eos_token_id=None,
        bos_token_id=None,
        attn_implementation="sdpa",
    )
    names = {
        "model.embed_tokens.weight": "streams.text.codec.table.weight",
        "model.norm.weight": "trunk.norm.gain",
        "lm_head.weight": "streams.text.head.table",
    }
    for layer in range(trunk.depth):
        names |= {f"model.layers.{layer}.{t}.weight": f"trunk.blocks.{layer}.{o}" for t, o in OF_BLOCK.items()}
    other, own = transformers.Qwen3ForCausalLM(config), model.state_dict()
    other.load_state_dict({name: own[mine] for name, mine in names.items()})
    return model, other


def training(rows: int, length: int, rounds: int, vocabulary: int = 0) -> None:
    """A step on rows of text, AdamW on both sides; the losses before it are equal."""
    model, other = twins(vocabulary)
    document = Document((Text((WORDS * length)[: length - 2]),))
    sequences = [model.lay_out(replace(document, key=row), np.random.default_rng(row)) for row in range(rows)]
    blank = model.blank()
    tokens = torch.from_numpy(np.stack([np.concatenate([run.embed["values"] for run in s.runs]) for s in sequences]))
    say: dict[str, float] = {}

    def step(name: str, of: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(of.parameters(), lr=0.0, fused=True)

        def run() -> None:
            found = loss()
            found.backward()
            optimizer.step()
            optimizer.zero_grad()
            say[name] = float(found.detach())

        return run

    def our_loss(dtype: torch.dtype) -> torch.Tensor:
        plan = [[row] for row in range(rows)]
        (total, count), *_ = model.losses(collate(sequences, plan, len(sequences[0]), blank), dtype=dtype).values()
        return total / count

    def their_loss(dtype: torch.dtype, of: torch.nn.Module = other) -> torch.Tensor:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return of(tokens, labels=tokens, use_cache=False).loss

    wide, narrow = torch.float32, torch.bfloat16
    work = {"ours": step("ours", model, lambda: our_loss(wide))}
    work |= {"theirs": step("theirs", other, lambda: their_loss(wide))}
    title = f"training on {rows} rows of {len(sequences[0])} tokens, vocabulary {other.config.vocab_size:,}"
    show(f"{title}, fp32, not compiled", paired(work, rounds), "ours")
    print("  losses", say, "apart", abs(say["ours"] - say["theirs"]))
    compile_trunk(model)
    compiled = torch.compile(other)
    ours = "ours, bf16, block compiled"
    work = {ours: step("ours", model, lambda: our_loss(narrow))}
    work |= {"theirs, bf16": step("theirs", other, lambda: their_loss(narrow))}
    work |= {"theirs, compiled": step("theirs", other, lambda: their_loss(wide, compiled))}
    work |= {"theirs, bf16, compiled": step("theirs", other, lambda: their_loss(narrow, compiled))}
    show(f"{title}, each at its best", paired(work, rounds), ours)


def decoding(rows: int, prompt: int, length: int, rounds: int) -> None:
    """Greedy tokens behind a prompt."""
    model, other = twins()
    model.eval(), other.eval()
    draw, codec = model.speaker.head.draw, model.speaker.codec
    model.speaker.head.draw = lambda hidden, settings, rng, banned: draw(hidden, settings, rng, [*banned, codec.end])
    settings = Settings(max_tokens=length, guidance=1.0)
    document = Document((Text((WORDS * prompt)[:prompt]), Text()))
    tokens = torch.tensor([[codec.begin, *codec.encode(document.parts[0]).values.tolist()]] * rows)

    def ours(dtype: torch.dtype = torch.float32) -> None:
        generate(model, [Request(document, settings, seed=i) for i in range(rows)], dtype=dtype)

    @torch.inference_mode()
    def theirs(of: torch.nn.Module, **options) -> None:
        made = of.generate(tokens, max_new_tokens=length, do_sample=False, pad_token_id=0, **options)
        assert made.shape[1] == tokens.shape[1] + length

    narrow = twins()[1].eval().to(torch.bfloat16)
    work = {
        "ours": ours,
        "ours, bf16": lambda: ours(torch.bfloat16),
        "theirs": lambda: theirs(other),
        "theirs, static cache": lambda: theirs(other, cache_implementation="static", disable_compile=True),
        "theirs, bf16": lambda: theirs(narrow),
    }
    show(f"{rows} x {length} tokens behind {prompt}", paired(work, rounds, 1), "ours")


if __name__ == "__main__":
    given = arguments(__doc__, rounds=5)
    parts = {
        "training": lambda: training(4, 256, given.rounds),
        "training, large vocabulary": lambda: training(2, 256, given.rounds, 50_000),
        "decoding 1": lambda: decoding(1, 32, 64, given.rounds),
        "decoding 8": lambda: decoding(8, 32, 64, given.rounds),
    }
    for title, part in parts.items():
        if given.only in title:
            torch._dynamo.reset()
            part()
