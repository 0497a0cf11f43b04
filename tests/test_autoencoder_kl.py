"""The autoencoder of a latent diffusion model in diffusers' format: computed as there, and a base to stand on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from safetensors.torch import load_file, save_file
from test_designs import TRUNK
from tiny import RECIPE, hasten, quiet
from torch import Tensor
from torch.nn import functional as F

from mixmodal import foreign_nets
from mixmodal.api import load
from mixmodal.codecs import autoencoder_kl, frozen
from mixmodal.designs import mar, transfusion
from mixmodal.parts import Image
from mixmodal.train import train

TOLD = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.30.0",
    "act_fn": "silu",
    "block_out_channels": [32, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "out_channels": 3,
    "sample_size": 32,
    "scaling_factor": 0.5,
    "shift_factor": 0.1,
}


def shapes() -> dict[str, list[int]]:
    """The tensors of such a net under their names in diffusers, spelled out from its source."""
    out: dict[str, list[int]] = {}

    def conv(name: str, before: int, width: int, side: int = 3) -> None:
        out[f"{name}.weight"], out[f"{name}.bias"] = [width, before, side, side], [width]

    def norm(name: str, width: int) -> None:
        out[f"{name}.weight"], out[f"{name}.bias"] = [width], [width]

    def resnet(name: str, before: int, width: int) -> None:
        norm(f"{name}.norm1", before)
        conv(f"{name}.conv1", before, width)
        norm(f"{name}.norm2", width)
        conv(f"{name}.conv2", width, width)
        if before != width:
            conv(f"{name}.conv_shortcut", before, width, 1)

    def middle(name: str) -> None:
        resnet(f"{name}.resnets.0", 64, 64)
        norm(f"{name}.attentions.0.group_norm", 64)
        for matrix in ("to_q", "to_k", "to_v", "to_out.0"):
            out[f"{name}.attentions.0.{matrix}.weight"], out[f"{name}.attentions.0.{matrix}.bias"] = [64, 64], [64]
        resnet(f"{name}.resnets.1", 64, 64)

    conv("encoder.conv_in", 3, 32)
    resnet("encoder.down_blocks.0.resnets.0", 32, 32)
    conv("encoder.down_blocks.0.downsamplers.0.conv", 32, 32)
    resnet("encoder.down_blocks.1.resnets.0", 32, 64)
    middle("encoder.mid_block")
    norm("encoder.conv_norm_out", 64)
    conv("encoder.conv_out", 64, 8)
    conv("quant_conv", 8, 8, 1)
    conv("post_quant_conv", 4, 4, 1)
    conv("decoder.conv_in", 4, 64)
    middle("decoder.mid_block")
    resnet("decoder.up_blocks.0.resnets.0", 64, 64)
    resnet("decoder.up_blocks.0.resnets.1", 64, 64)
    conv("decoder.up_blocks.0.upsamplers.0.conv", 64, 64)
    resnet("decoder.up_blocks.1.resnets.0", 64, 32)
    resnet("decoder.up_blocks.1.resnets.1", 32, 32)
    norm("decoder.conv_norm_out", 32)
    conv("decoder.conv_out", 32, 3)
    return out


def weights() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    out = {}
    for name, shape in shapes().items():
        scale = max(1, math.prod(shape[1:])) ** -0.5
        out[name] = torch.randn(shape, generator=rng) * (scale if len(shape) > 1 else 0.2)
        if "norm" in name and name.endswith("weight"):
            out[name] += 1
    return out


@pytest.fixture
def saved(tmp_path) -> Path:
    folder = tmp_path / "vae"
    folder.mkdir()
    save_file(weights(), folder / foreign_nets.WEIGHTS)
    (folder / "config.json").write_text(json.dumps(TOLD), "utf8")
    return folder


def change(folder: Path, **options) -> None:
    (folder / "config.json").write_text(json.dumps(TOLD | options), "utf8")


def built(folder: Path):
    nets, tensors, _ = foreign_nets.load(f"diffusers:{folder}")
    codec = frozen(nets)
    missing, surplus = codec.load_state_dict(tensors, strict=False)
    assert set(missing) == {"mean", "square", "steps"} and not surplus
    return codec


# The reference: one place, one group, one pair of places at a time


def grouped(x: Tensor, held: dict[str, Tensor], name: str) -> Tensor:
    out, each = torch.empty_like(x), x.shape[0] // 8
    for group in range(8):
        part = x[group * each : (group + 1) * each]
        out[group * each : (group + 1) * each] = (part - part.mean()) / (part.var(correction=0) + 1e-6).sqrt()
    return out * held[f"{name}.weight"][:, None, None] + held[f"{name}.bias"][:, None, None]


def conv(x: Tensor, held: dict[str, Tensor], name: str, pad: tuple = (1, 1, 1, 1), stride: int = 1) -> Tensor:
    weight = held[f"{name}.weight"]
    x = F.pad(x, pad if weight.shape[-1] == 3 else (0, 0, 0, 0))
    windows = x.unfold(1, weight.shape[2], stride).unfold(2, weight.shape[3], stride)
    return torch.einsum("chwpq,dcpq->dhw", windows, weight) + held[f"{name}.bias"][:, None, None]


def swish(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def resnet(x: Tensor, held: dict[str, Tensor], name: str) -> Tensor:
    inner = conv(swish(grouped(x, held, f"{name}.norm1")), held, f"{name}.conv1")
    inner = conv(swish(grouped(inner, held, f"{name}.norm2")), held, f"{name}.conv2")
    return inner + (conv(x, held, f"{name}.conv_shortcut") if f"{name}.conv_shortcut.weight" in held else x)


def middle(x: Tensor, held: dict[str, Tensor], name: str) -> Tensor:
    x = resnet(x, held, f"{name}.resnets.0")
    name_of = f"{name}.attentions.0."
    places = grouped(x, held, name_of + "group_norm").flatten(1).T
    q, k, v = (places @ held[f"{name_of}{m}.weight"].T + held[f"{name_of}{m}.bias"] for m in ("to_q", "to_k", "to_v"))
    out = torch.empty_like(places)
    for place in range(len(places)):
        share = torch.tensor([math.exp(float(q[place] @ each) / math.sqrt(64)) for each in k])
        out[place] = share / share.sum() @ v
    out = out @ held[name_of + "to_out.0.weight"].T + held[name_of + "to_out.0.bias"]
    return resnet(x + out.T.view(x.shape), held, f"{name}.resnets.1")


def encoded(x: Tensor, held: dict[str, Tensor]) -> Tensor:
    x = resnet(conv(x, held, "encoder.conv_in"), held, "encoder.down_blocks.0.resnets.0")
    x = conv(x, held, "encoder.down_blocks.0.downsamplers.0.conv", (0, 1, 0, 1), 2)
    x = middle(resnet(x, held, "encoder.down_blocks.1.resnets.0"), held, "encoder.mid_block")
    x = conv(swish(grouped(x, held, "encoder.conv_norm_out")), held, "encoder.conv_out")
    return conv(x, held, "quant_conv")[:4]


def decoded(z: Tensor, held: dict[str, Tensor]) -> Tensor:
    x = middle(conv(conv(z, held, "post_quant_conv"), held, "decoder.conv_in"), held, "decoder.mid_block")
    for block in ("0.resnets.0", "0.resnets.1"):
        x = resnet(x, held, f"decoder.up_blocks.{block}")
    x = conv(x.repeat_interleave(2, 1).repeat_interleave(2, 2), held, "decoder.up_blocks.0.upsamplers.0.conv")
    for block in ("1.resnets.0", "1.resnets.1"):
        x = resnet(x, held, f"decoder.up_blocks.{block}")
    return conv(swish(grouped(x, held, "decoder.conv_norm_out")), held, "decoder.conv_out")


def test_means_and_pictures_are_those_of_the_reference(saved):
    codec, held = built(saved), weights()
    part = picture(0, 8, 12)
    pixels = torch.from_numpy(part.array()[0]).permute(2, 0, 1)
    mean = encoded(pixels, held)
    latents = codec.latents(part)
    assert latents.shape == (1, 4, 6, 4)
    np.testing.assert_allclose(latents[0], ((mean - 0.1) * 0.5).permute(1, 2, 0), atol=2e-5)
    made = decoded(mean, held).clamp(-1, 1).permute(1, 2, 0)
    np.testing.assert_allclose(codec.pictures(latents)[0], made, atol=5e-5)
    assert float((made.abs() < 1).float().mean()) > 0.3  # not all of it is cut off


def test_every_tensor_has_the_name_and_the_shape_that_diffusers_gives_it(saved):
    own = {name: list(t.shape) for name, t in built(saved).state_dict().items()}
    assert {n: s for n, s in own.items() if n not in ("mean", "square", "steps")} == shapes()


def test_pictures_of_any_size_come_back_in_their_own(saved):
    codec = built(saved)
    for height, width in ((16, 16), (9, 6), (1, 1)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert codec.rebuilt(Image(pixels)).pixels.shape == pixels.shape
        assert codec.cells((1, height, width)) == (1, -(-height // 2), -(-width // 2))


def test_old_names_of_attention_and_half_precision_are_read_too(saved):
    new = foreign_nets.load(f"diffusers:{saved}")[1]
    old = {}
    for name, tensor in weights().items():
        for before, after in foreign_nets.OLD.items():
            name = name.replace(f".0.{after}.", f".0.{before}.")
        if name.endswith(("query.weight", "value.weight")):
            tensor = tensor[:, :, None, None]
        old[name] = tensor.half().contiguous()
    assert any("proj_attn" in name for name in old)
    save_file(old, saved / foreign_nets.WEIGHTS)
    found = foreign_nets.load(f"diffusers:{saved.parent}")[1]  # in a system's folder
    assert found.keys() == new.keys() and all(t.dtype == torch.float32 for t in found.values())
    assert all(torch.allclose(found[name], new[name], atol=2e-3) for name in new)


def test_numbers_of_every_channel_are_taken_where_they_are_told(saved):
    change(saved, latents_mean=[1, 2, 3, 4], latents_std=[1, 2, 1, 2], shift_factor=None)
    codec, held = built(saved), weights()
    part = picture(1, 4, 4)
    mean = encoded(torch.from_numpy(part.array()[0]).permute(2, 0, 1), held).permute(1, 2, 0)
    wanted = (mean - torch.tensor([1.0, 2, 3, 4])) / torch.tensor([1.0, 2, 1, 2]) * 0.5
    np.testing.assert_allclose(codec.latents(part)[0], wanted, atol=2e-5)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"_class_name": "AutoencoderTiny"}, "_class_name is 'AutoencoderTiny'"),
        ({"act_fn": "gelu"}, "act_fn is 'gelu'"),
        ({"down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]}, "down_block_types is"),
        ({"block_out_channels": [32, 10**9]}, "block_out_channels is"),
        ({"block_out_channels": [32, 60]}, "the 8 groups divide"),
        ({"layers_per_block": 10**6}, "layers_per_block is 1000000: want a whole number from 1 to 16"),
        ({"latent_channels": "4"}, "latent_channels is '4'"),
        ({"scaling_factor": 0}, "scaling_factor is 0"),
        ({"latents_std": [1, 2]}, "one each"),
        ({"temporal_compression": 4}, "says temporal_compression = 4"),
        ({"out_channels": 1}, "1 channels come out and 3 go in"),
        ({"layers_per_block": 2}, "lacks decoder.up_blocks.0.resnets.2"),
        ({"latent_channels": 8}, r"conv_in.weight in .* is \[64, 4, 3, 3\], and its config.json makes it \[64, 8"),
        ({"use_quant_conv": False}, "has an unknown quant_conv.bias"),
    ],
)
def test_what_is_not_computed_here_is_refused_by_name(saved, options, said):
    change(saved, **options)
    with pytest.raises(ValueError, match=said):
        foreign_nets.load(f"diffusers:{saved}")


def test_files_that_are_not_there_too_large_broken_or_pickles_are_refused(saved, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        foreign_nets.load(f"diffusers:{saved}/nowhere")
    monkeypatch.setattr(foreign_nets, "WEIGHTS_LIMIT_BYTES", 1000)
    with pytest.raises(ValueError, match="the limit is 1,000"):
        foreign_nets.load(f"diffusers:{saved}")
    monkeypatch.undo()
    (saved / foreign_nets.WEIGHTS).write_bytes(b"\x10" * 200)
    with pytest.raises(ValueError, match="cannot be read"):
        foreign_nets.load(f"diffusers:{saved}")
    (saved / foreign_nets.WEIGHTS).rename(saved / "diffusion_pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="pickles, which are never read"):
        foreign_nets.load(f"diffusers:{saved}")
    (saved / "config.json").write_text("{", "utf8")
    (saved / "diffusion_pytorch_model.bin").rename(saved / foreign_nets.WEIGHTS)
    with pytest.raises(ValueError, match="is no JSON"):
        foreign_nets.load(f"diffusers:{saved}")


@pytest.mark.parametrize("design", [transfusion, mar])
def test_a_design_stands_on_it_trains_and_keeps_it_as_it_is(saved, tmp_path, monkeypatch, design):
    hasten(monkeypatch)
    (saved.parent / "README.md").write_text("---\nlicense: mit\n---\n", "utf8")
    model = design.model(TRUNK, nets={"from": f"diffusers:{saved.parent}"})
    chosen = replace(RECIPE, model=model, valid={}, rows=2, length=192, steps=2, every=2)
    run = train(chosen, tmp_path / "run", say=quiet)
    own = load_file(run / "model/model.safetensors")
    held = {n.split(".codec.nets.")[1]: t for n, t in own.items() if ".codec.nets." in n}
    theirs = weights()
    assert theirs.keys() < held.keys() and all(torch.equal(held[name], theirs[name]) for name in theirs)
    loaded = load(run)
    told = {name: loaded.about[name] for name in ("foreign", "family", "licence")}
    assert told == {"foreign": saved.parent.name, "family": "AutoencoderKL", "licence": "mit"}
    assert loaded.sample("a red circle", steps=2)[0].size == (16, 16)


def test_gradients_flow_where_it_is_trained_on():
    torch.manual_seed(0)
    codec = autoencoder_kl.build(autoencoder_kl.Config(widths=(8, 16), groups=4), 8)
    made, codes, _ = codec(torch.rand(2, 3, 8, 8))
    made.square().sum().backward()
    assert made.shape == (2, 3, 8, 8) and codes is None
    lone = [n for n, p in codec.named_parameters() if p.requires_grad and p.grad is None]
    assert lone == []
