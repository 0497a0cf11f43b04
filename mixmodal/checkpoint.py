"""Models and runs on disk: safetensors and JSON only, written aside and moved into place."""

from __future__ import annotations

import json
import os
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mixmodal.config import ModelConfig, from_json, to_json
from mixmodal.model import Model

FORMAT = 1
ASSET = "@file:"  # an option this long is a file of its own beside config.json
ASSET_LENGTH = 1000


def write_json(path: Path, data: Any) -> None:
    """Write `data` so that a reader finds the old file or the new one, never a half."""
    aside = path.with_name(path.name + ".part")
    with open(aside, "w", encoding="utf8") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write `tensors` as safetensors, atomically."""
    aside = path.with_name(path.name + ".part")
    held, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous().cpu()
        held[name] = tensor.clone() if tensor.data_ptr() in seen else tensor  # a file holds no tied tensors
        seen.add(tensor.data_ptr())
    save_file(held, aside)
    os.replace(aside, path)


def save_pretrained(
    model: Model,
    folder: str | Path,
    *,
    about: dict | None = None,
    weights: dict[str, Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write config.json, its assets (tokenizer.json) and model.safetensors to `folder`.

    `weights` replaces some of the model's own (an average of them); `about` is kept beside the configuration.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = to_json(model.config)
    for name, stream in config["streams"].items():
        for option, value in stream["codec"].items():
            if isinstance(value, str) and len(value) > ASSET_LENGTH:
                file = f"{option}.json" if name == model.config.speaker else f"{name}.{option}.json"
                write_json(folder / file, json.loads(value))
                stream["codec"][option] = ASSET + file
    owners: dict[int, str] = {}
    kept = {}
    for name, tensor in model.state_dict().items():
        if owners.setdefault(tensor.data_ptr(), name) == name:  # a tied table is stored once
            tensor = (weights or {}).get(name, tensor)
            kept[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    write_tensors(folder / "model.safetensors", kept)
    write_json(folder / "config.json", {"format": FORMAT, "model": config, "about": about or {}})


def from_pretrained(where: str | Path) -> tuple[Model, dict]:
    """The model in a folder, a run's folder, or `builtin:NAME`, and what is told about it.

    Raises:  FileNotFoundError that says where was looked, ValueError for a format that is not known.
    """
    folder = find_model(where)
    data = json.loads((folder / "config.json").read_text(encoding="utf8"))
    if data.get("format") != FORMAT:
        raise ValueError(
            f"{folder} has format {data.get('format')!r}, this version reads {FORMAT}: save it again with"
            " the version that wrote it, or take that version"
        )
    for stream in data["model"]["streams"].values():
        for option, value in stream["codec"].items():
            if isinstance(value, str) and value.startswith(ASSET):
                name = value[len(ASSET) :]
                if Path(name).name != name:
                    raise ValueError(f"{folder}: the asset {name!r} lies outside the folder: refused")
                stream["codec"][option] = (folder / name).read_text(encoding="utf8")
    model = Model(from_json(ModelConfig, data["model"], "model"))
    tensors = {
        name: t.float() if t.is_floating_point() else t for name, t in load_file(folder / "model.safetensors").items()
    }
    missing, surplus = model.load_state_dict(tensors, strict=False)
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tied -= {name for name, _ in model.named_parameters()}
    owners = {id(p) for name, p in model.named_parameters(remove_duplicate=False) if name in tensors}
    lost = [n for n, p in model.named_parameters(remove_duplicate=False) if n in missing and id(p) not in owners]
    if lost or surplus:
        raise ValueError(
            f"{folder}/model.safetensors does not fit its config.json: missing {lost[:3]}, unknown"
            f" {list(surplus)[:3]}; the two files come from different runs"
        )
    return model.eval(), data.get("about", {})


def find_model(where: str | Path) -> Path:
    """The folder that holds config.json and model.safetensors for what a user may call a model.

    Raises:  FileNotFoundError that says where was looked.
    """
    text = str(where)
    if text.startswith("builtin:"):
        boxed = Path(str(resources.files("mixmodal"))) / "boxed"
        folder = boxed / Path(text.removeprefix("builtin:")).name
        if not (folder / "config.json").exists():
            known = sorted(p.parent.name for p in boxed.glob("*/config.json"))
            raise FileNotFoundError(f"no model {text} is in the box: there are {', '.join(known) or 'none'}")
        return folder
    folder = Path(text)
    for candidate in (folder, folder / "model"):
        if (candidate / "config.json").exists() and (candidate / "model.safetensors").exists():
            return candidate
    raise FileNotFoundError(
        f"no model in {folder}: looked for config.json and model.safetensors there and in"
        f" {folder / 'model'}; a run has one after its first checkpoint"
    )


def save_run(folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict) -> Path:
    """A checkpoint of a run in `folder`/checkpoints; it counts only once it is whole. Older ones go.

    `tensors` are files by name ("weights", "optimizer", ...), `state` what JSON can hold.
    """
    home = folder / "checkpoints"
    home.mkdir(parents=True, exist_ok=True)
    aside, final = home / f"step_{step:08d}.part", home / f"step_{step:08d}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for name, entries in tensors.items():
        write_tensors(aside / f"{name}.safetensors", entries)
    write_json(aside / "state.json", {"format": FORMAT, "step": step, **state})
    shutil.rmtree(final, ignore_errors=True)
    os.replace(aside, final)
    for old in sorted(home.glob("step_????????"))[:-2]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_run(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict] | None:
    """What the newest whole checkpoint of a run holds, None if it has none."""
    for home in sorted((folder / "checkpoints").glob("step_????????"), reverse=True):
        if (home / "state.json").exists():
            state = json.loads((home / "state.json").read_text(encoding="utf8"))
            if state.get("format") != FORMAT:
                raise ValueError(
                    f"{home} has format {state.get('format')!r}, this version resumes {FORMAT}: go on with"
                    " the version that wrote it, or start anew in another folder"
                )
            return {file.stem: load_file(file) for file in home.glob("*.safetensors")}, state
    return None
