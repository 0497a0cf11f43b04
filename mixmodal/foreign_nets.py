"""Weights of others: the autoencoder of a latent diffusion model as diffusers saves it, to stand under `latents`.

Source:  AutoencoderKL, and the old names of its attention, in github.com/huggingface/diffusers.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mixmodal.codecs import autoencoder_kl
from mixmodal.config import to_json
from mixmodal.foreign import licence_of
from mixmodal.hub import HUB, fetched

MARK = "diffusers:"
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
WITHIN = "vae"  # of the folder of a whole system
CONFIG_LIMIT_BYTES, WEIGHTS_LIMIT_BYTES = 1 << 20, 4 << 30
# Option of theirs -> ours, what it is unless told, the most that it may be.
NUMBERS = {
    "layers_per_block": ("layers", 1, 16),
    "norm_num_groups": ("groups", 32, 1024),
    "in_channels": ("channels", 3, 64),
    "latent_channels": ("vector", 4, 1024),
}
FLAGS = {"mid_block_add_attention": "attention", "use_quant_conv": "mixed_out", "use_post_quant_conv": "mixed_in"}
WIDEST, LEVELS = 8192, 8
ONLY = {"_class_name": "AutoencoderKL", "act_fn": "silu"}
BLOCKS = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
TOLD = ("block_out_channels", "out_channels", "scaling_factor", "shift_factor", "latents_mean", "latents_std")
IDLE = ("sample_size", "force_upcast")  # of how it was trained and is run there
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def load(place: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Options and weights of the codec that computes what the autoencoder at diffusers:FOLDER does, and whose it is.

    The folder is that of the autoencoder, or of a system that has it in `vae`; hub:OWNER/NAME is fetched.
    Raises:  FileNotFoundError for files that are not there, ValueError for what the codec does not compute.
    """
    text = place.removeprefix(MARK)
    names = ("README.md", *(f"{where}{name}" for where in ("", WITHIN + "/") for name in (CONFIG, WEIGHTS)))
    folder = fetched(text, names) if text.startswith(HUB) else Path(text)
    about = {"foreign": text if text.startswith(HUB) else folder.resolve().name, "family": ONLY["_class_name"]}
    if licence := licence_of(folder):
        about["licence"] = licence
    if not (folder / CONFIG).exists() and (folder / WITHIN / CONFIG).exists():
        folder /= WITHIN
    for name, limit in ((CONFIG, CONFIG_LIMIT_BYTES), (WEIGHTS, WEIGHTS_LIMIT_BYTES)):
        _check(folder, name, limit)
    try:
        told = json.loads((folder / CONFIG).read_text(encoding="utf8"))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG} is no JSON ({error}): a part of it is missing") from error
    config = config_of(told if isinstance(told, dict) else {})
    return {"kind": "autoencoder_kl", **to_json(config)}, _tensors(folder / WEIGHTS, config), about


def config_of(told: dict[str, Any]) -> autoencoder_kl.Config:
    """The options of the codec that computes what the net of a config.json of diffusers does.

    Raises:  ValueError that names the first thing in it that ours does not compute.
    """
    for name, can in ONLY.items():
        if told.get(name, can if name != "_class_name" else None) != can:
            raise ValueError(f"{name} is {told.get(name)!r} in config.json: only {can!r} is computed here")
    known = {*ONLY, *BLOCKS, *NUMBERS, *FLAGS, *TOLD, *IDLE}
    if odd := sorted(name for name in told if name not in known and not name.startswith("_")):
        raise ValueError(f"config.json says {odd[0]} = {told[odd[0]]!r}, which no {ONLY['_class_name']} known here has")
    widths = _numbers(told, "block_out_channels", [64])
    if not 1 <= len(widths) <= LEVELS or not all(1 <= each <= WIDEST and each == int(each) for each in widths):
        raise ValueError(f"block_out_channels is {widths}: want 1 to {LEVELS} whole numbers up to {WIDEST:,}")
    for name, can in BLOCKS.items():
        if told.get(name, [can] * len(widths)) != [can] * len(widths):
            raise ValueError(f"{name} is {told[name]}: want {len(widths)} times {can}, the only one computed here")
    own: dict[str, Any] = {"widths": tuple(map(int, widths))}
    for name, (ours, default, most) in NUMBERS.items():
        own[ours] = told.get(name, default)
        if type(own[ours]) is not int or not 1 <= own[ours] <= most:
            raise ValueError(f"{name} is {own[ours]!r}: want a whole number from 1 to {most:,}")
    if told.get("out_channels", 3) != own["channels"]:
        raise ValueError(f"{told.get('out_channels', 3)} channels come out and {own['channels']} go in: want as many")
    for name, ours in FLAGS.items():
        own[ours] = bool(told.get(name, True))
    (scale,) = _numbers(told, "scaling_factor", [0.18215])
    mean, deviation = (
        _numbers(told, "latents_mean", _numbers(told, "shift_factor", [0.0])),
        _numbers(told, "latents_std", [1.0]),
    )
    if scale <= 0 or {len(mean), len(deviation)} - {1, own["vector"]} or min(deviation) <= 0:
        raise ValueError(
            f"scaling_factor is {scale}, the mean {mean}, the deviation {deviation}: want positive scales, and one"
            f" number for all {own['vector']} channels of a vector or one each"
        )
    return autoencoder_kl.Config(**own, mean=tuple(mean), deviation=tuple(each / scale for each in deviation))


def _numbers(told: dict[str, Any], name: str, default: list[float]) -> list[float]:
    """A number or a list of them, as a list; the default where there is none."""
    found = told.get(name)
    found = default if found is None else found if isinstance(found, list) else [found]
    if not found or not all(type(each) in (int, float) for each in found):
        raise ValueError(f"{name} is {told[name]!r} in config.json: want a number, or a list of numbers")
    return found


def _check(folder: Path, name: str, limit: int) -> None:
    """Nothing, if the file is there and no larger than it may be."""
    path = folder / name
    if not path.is_file():
        pickles = name == WEIGHTS and list(folder.glob("*.bin"))
        hint = "its weights are pickles, which are never read: load it in diffusers and save it again"
        others = "give the folder of an AutoencoderKL that diffusers saved in one file, not as a variant"
        raise FileNotFoundError(f"{folder} has no {name}: {hint if pickles else others}")
    if path.stat().st_size > limit:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, the limit is {limit:,}: it is no such autoencoder")


def _tensors(path: Path, config: autoencoder_kl.Config) -> dict[str, Tensor]:
    """Every tensor in fp32 by its name in our codec, each of the shape that it has there.

    Raises:  ValueError for a tensor that is missing, unknown, or of another shape; no weight is read before all fit.
    """
    with torch.device("meta"):
        codec = autoencoder_kl.build(config, 1)
    own = {"mean", "square", "steps"}  # ours, and told by the configuration
    shapes = {name: list(held.shape) for name, held in codec.state_dict().items() if name not in own}
    try:
        with safe_open(path, "pt") as file:
            theirs = {_renamed(name): name for name in file.keys()}  # noqa: SIM118 - it is no mapping
            for odd, what in ((set(shapes) - set(theirs), "lacks"), (set(theirs) - set(shapes), "has an unknown")):
                if odd:
                    raise ValueError(f"{path} {what} {min(odd)} ({len(odd)} in all): its config.json is of another net")
            for ours, name in theirs.items():
                found = file.get_slice(name).get_shape()
                # An old attention was of convolutions of one pixel.
                if found != shapes[ours] and not (".attentions." in ours and found == [*shapes[ours], 1, 1]):
                    raise ValueError(f"{name} in {path} is {found}, and its config.json makes it {shapes[ours]}")
            return {ours: file.get_tensor(name).float().view(shapes[ours]) for ours, name in theirs.items()}
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}): fetch it again") from error


def _renamed(name: str) -> str:
    """A tensor's name as it is today."""
    return re.sub(
        r"(\.attentions\.\d+\.)(query|key|value|proj_attn)(?=\.)", lambda found: found[1] + OLD[found[2]], name
    )
