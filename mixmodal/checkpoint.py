"""Models and runs on disk: safetensors and JSON only, written aside and moved into place."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mixmodal.config import ModelConfig, from_json, to_json
from mixmodal.hub import HUB, fetched, hint_of_hub
from mixmodal.model import Model
from mixmodal.parallel import ALONE, Ranks
from mixmodal.stored import Stored

FORMAT = 1  # of models
RUN_FORMAT = 3  # of checkpoints of runs: since 2 they say how long each file is, since 3 each rank may have its own
RESUMED = (1, RUN_FORMAT)  # the oldest and the newest that is gone on from
ASSET = "@file:"  # an option this long is a file of its own beside config.json
ASSET_LENGTH = 1000
OS_ERROR = re.compile(r"\(os error (\d+)\)")


def write_json(path: Path, data: Any) -> None:
    """Write `data` so that a reader finds the old file or the new one, never a half; what is no number becomes null."""
    write_text(path, json.dumps(_told(data), indent=1, allow_nan=False))


def _told(data: Any) -> Any:
    """Data whose numbers are all finite, or null: JSON knows no others."""
    if isinstance(data, dict):
        return {key: _told(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_told(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def read_json(path: Path) -> Any:
    """What a file of JSON holds.

    Raises:  OSError where it is not there; ValueError that names it where it is broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise ValueError(f"{path} is no whole JSON ({error}): fetch it again, or save it anew") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` so that a reader finds the old file or the new one, never a half."""
    aside = path.with_name(path.name + ".part")
    with open(aside, "w", encoding="utf8") as file:
        file.write(text)
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
    try:
        save_file(held, aside)
    except SafetensorError as error:  # which hides what the system said in its text
        if found := OS_ERROR.search(str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
        raise
    _to_disk(aside)
    os.replace(aside, path)


def _to_disk(path: Path) -> None:
    """Wait until a file or a folder lies on the disk, so that what is renamed after it is never there before it."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError:
        if not folder:  # which some file systems of networks cannot do
            raise
    finally:
        os.close(handle)


def save_pretrained(
    model: Model,
    folder: str | Path,
    *,
    about: dict | None = None,
    weights: dict[str, Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
    base: str = "",
) -> None:
    """Write config.json, its assets (tokenizer.json) and model.safetensors to `folder`.

    `weights` replaces some of the model's own (an average of them); `about` is kept beside the configuration. `base`
    names a model (as a user may call one) from which frozen weights are read when this one is: they are not written.
    Raises:  ValueError if a frozen weight is not what the base holds.
    """
    folder = Path(folder)
    if base and find_model(base).resolve() == folder.resolve():
        raise ValueError(f"{folder} is the base itself, whose weights would be lost: choose another folder")
    left_out = _held_by(base, model) if base else set()
    folder.mkdir(parents=True, exist_ok=True)
    config = to_json(model.config)
    for name, stream in config["streams"].items():
        for option, value in stream["codec"].items():
            if isinstance(value, str) and len(value) > ASSET_LENGTH:
                file = f"{option}.json" if name == model.config.speaker else f"{name}.{option}.json"
                write_json(folder / file, json.loads(value))
                stream["codec"][option] = ASSET + file
    once = {name for name, _ in model.named_parameters()}  # by what they are: shards have no address to tell by
    again = {name for name, _ in model.named_parameters(remove_duplicate=False)} - once
    kept = {}
    for name, tensor in model.state_dict().items():
        if name not in again and name not in left_out:  # a tied table is stored once
            tensor = (weights or {}).get(name, tensor)
            kept[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    write_tensors(folder / "model.safetensors", kept)
    held = {"base": base} if base else {}
    write_json(folder / "config.json", {"format": FORMAT, "model": config, "about": about or {}, **held})


def inside(folder: Path, name: str) -> str:
    """The name of a file that lies in `folder` itself.

    Raises:  ValueError for one that lies anywhere else.
    """
    if Path(name).name != name:
        raise ValueError(f"{folder}: the asset {name!r} lies outside the folder: refused")
    return name


def _held_by(base: str, model: Model) -> set[str]:
    """The names of the frozen weights that the model called `base` holds too; all of the trunk's must be among them."""
    tensors, held = _tensors(find_model(base)), set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            continue
        if name in tensors and torch.equal(tensors[name], parameter.detach().cpu()):
            held.add(name)
        elif name.startswith("trunk."):  # others, such as those of a tokenizer, may have come after the base
            raise ValueError(
                f"{base} does not hold the frozen weight {name} as it is in this model: name the model that"
                " training started from, or save without a base"
            )
    return held


def _tensors(folder: Path) -> dict[str, Tensor]:
    """The weights in the folder of a model and in that of its base, floating ones in fp32."""
    path = folder / "model.safetensors"
    try:
        held = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read ({error}): it is damaged or cut short, fetch or copy it again"
        ) from error
    out = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in held.items()}
    base = read_json(folder / "config.json").get("base")
    return {**_tensors(find_model(base)), **out} if base else out


def from_pretrained(where: str | Path) -> tuple[Model, dict]:
    """The model in a folder, a run's folder, `builtin:NAME` or `hub:OWNER/NAME`, and what is told about it.

    Raises:  FileNotFoundError that says where was looked, ValueError for a format that is not known.
    """
    folder = find_model(where)
    data = read_json(folder / "config.json")
    if "model_type" in data and "format" not in data:
        raise ValueError(
            f"{where} is a {data['model_type']} of transformers: bring it in with `mixmodal import {where} OUT` first"
        )
    if data.get("format") != FORMAT or "model" not in data:
        raise ValueError(
            f"{folder} has format {data.get('format')!r}, this version reads {FORMAT}: save it again with"
            " the version that wrote it, or take that version"
        )
    for stream in data["model"]["streams"].values():
        for option, value in stream["codec"].items():
            if isinstance(value, str) and value.startswith(ASSET):
                stream["codec"][option] = (folder / inside(folder, value[len(ASSET) :])).read_text(encoding="utf8")
    model = Model(from_json(ModelConfig, data["model"], "model"))
    tensors, known = _tensors(folder), model.state_dict()
    if data.get("base"):  # which may have streams that this model is without
        tensors = {name: tensor for name, tensor in tensors.items() if name in known}
    refuse_other_shapes(model, tensors, folder)
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


def refuse_other_shapes(model: Model, tensors: dict[str, Tensor], where: Path) -> None:
    """Nothing, if every weight has the shape that it has in the model.

    Raises:  ValueError that names the first that has not.
    """
    for name, here in model.state_dict().items():
        if name in tensors and tensors[name].shape != here.shape:
            raise ValueError(
                f"{where}: {name} has the shape {list(tensors[name].shape)}, and in this version's model"
                f" {list(here.shape)}: go on with the version that wrote it, or train anew"
            )


def find_model(where: str | Path) -> Path:
    """The folder that holds config.json and model.safetensors for what a user may call a model.

    Raises:  FileNotFoundError that says where was looked, ValueError if the hub is meant and cannot be asked.
    """
    text = str(where)
    if text.startswith("builtin:"):
        boxed = Path(str(resources.files("mixmodal"))) / "boxed"
        folder = boxed / Path(text.removeprefix("builtin:")).name
        if not (folder / "config.json").exists():
            known = sorted(p.parent.name for p in boxed.glob("*/config.json"))
            raise FileNotFoundError(f"no model {text} is in the box: there are {', '.join(known) or 'none'}")
        return folder
    folder = fetched(text) if text.startswith(HUB) else Path(text)
    for candidate in (folder, folder / "model"):
        if (candidate / "config.json").exists() and (candidate / "model.safetensors").exists():
            return candidate
    raise FileNotFoundError(
        f"no model in {folder}: looked for config.json and model.safetensors there and in"
        f" {folder / 'model'}; a run has one after its first checkpoint{hint_of_hub(text)}"
    )


def save_run(
    folder: Path,
    step: int,
    tensors: dict[str, dict[str, Tensor]],
    state: dict,
    *,
    keep: int = 2,
    scores: dict[int, float] | None = None,
    ranks: Ranks = ALONE,
) -> Path:
    """A checkpoint of a run in `folder`/checkpoints; it counts only once it is whole. Then older ones go.

    `tensors` are files by name ("weights", "optimizer", ...), `state` what JSON can hold; `keep` and `scores` as in
    `prune`. Of several ranks each writes what is its own; they share the folder, and each calls this.
    Raises:  OSError on all ranks if the disk does not take it; what was there before is untouched.
    """
    home = folder / "checkpoints"
    aside, final = home / f"step_{step:08d}.part", home / f"step_{step:08d}"
    part = f".{ranks.rank}-of-{ranks.count}" if ranks.count > 1 else ""
    try:
        with ranks.agreeing():
            if ranks.first:
                home.mkdir(parents=True, exist_ok=True)
                for left in home.glob("*.part"):
                    shutil.rmtree(left, ignore_errors=True)
                aside.mkdir()
        with ranks.agreeing():
            for name, entries in tensors.items():
                write_tensors(aside / f"{name}{part}.safetensors", entries)
        with ranks.agreeing():
            if ranks.first:
                sizes = {file.name: file.stat().st_size for file in sorted(aside.iterdir())}
                if len(sizes) < len(tensors) * ranks.count:
                    raise OSError(errno.ENOENT, "the files of other ranks are not there: all machines share a folder")
                write_json(aside / "state.json", {"format": RUN_FORMAT, "step": step, "files": sizes, **state})
    except OSError:
        if ranks.first:
            shutil.rmtree(aside, ignore_errors=True)  # its half would take the room that the next one needs
        raise
    with ranks.agreeing():
        if ranks.first:
            _to_disk(aside)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(aside, final)
            _to_disk(home)
            for later in checkpoints(folder):
                if home_step(later) > step:  # not whole, or the run would have gone on from there
                    shutil.rmtree(later, ignore_errors=True)
            prune(folder, keep, scores)
    return final


def prune(folder: Path, keep: int = 2, scores: dict[int, float] | None = None) -> None:
    """Remove all checkpoints of a run but the `keep` newest and the one with the lowest of `scores`, losses by step."""
    homes = checkpoints(folder)
    whole = [home for home in homes if _whole(home)]
    judged = [home for home in whole if home_step(home) in (scores or {})]
    best = min(judged, key=lambda home: scores[home_step(home)], default=None)
    for old in homes if whole else ():
        if old not in (*whole[-max(1, keep) :], best):
            # Its state goes first: a removal that is cut short must not leave what looks whole.
            (old / "state.json").unlink(missing_ok=True)
            shutil.rmtree(old, ignore_errors=True)


def _whole(home: Path) -> bool:
    try:
        return not lacks(home)
    except ValueError:  # another version's: it is whole for that
        return True


def checkpoints(folder: Path) -> list[Path]:
    """The folders of a run's checkpoints, the oldest first, whole or not."""
    return sorted((folder / "checkpoints").glob("step_????????"))


def home_step(home: Path) -> int:
    """The step of the checkpoint in the folder `home`."""
    return int(home.name.removeprefix("step_"))


def lacks(home: Path) -> str:
    """What keeps the checkpoint in `home` from being whole, nothing if it is.

    Raises:  ValueError for a format that this version does not resume.
    """
    try:
        state = json.loads((home / "state.json").read_text(encoding="utf8"))
    except FileNotFoundError:
        return "state.json is missing"
    except (ValueError, OSError) as error:
        return f"state.json cannot be read: {error}"
    found, (oldest, newest) = state.get("format"), RESUMED
    if not isinstance(found, int) or not oldest <= found <= newest:
        later = isinstance(found, int) and found > newest
        raise ValueError(
            f"{home} has format {found!r}, this version resumes {oldest} to {newest}: "
            + (
                "it was written by a later version, so update mixmodal"
                if later
                else "go on with the version that wrote it"
            )
            + ", or start anew in another folder"
        )
    for name, size in state.get("files", {}).items():
        there = (home / name).stat().st_size if (home / name).exists() else None
        if there != size:
            return f"{name} is missing" if there is None else f"{name} has {there:,} of {size:,} bytes"
    return ""


def load_run(folder: Path, say: Callable[[str], None] = lambda _: None) -> tuple[dict[str, Stored], dict] | None:
    """What the newest whole checkpoint of a run holds, None if none was ever finished; what is passed over is said.

    Raises:  ValueError for a format that is not known, or if there are checkpoints and none is whole.
    """
    for left in sorted((folder / "checkpoints").glob("*.part")):
        say(f"{left} was half written when the run was stopped: passed over")
    homes = checkpoints(folder)
    for home in reversed(homes):
        why = lacks(home)
        if not why:
            try:
                tensors: dict[str, Stored] = {}
                for file in sorted(home.glob("*.safetensors")):
                    tensors.setdefault(file.name.partition(".")[0], Stored()).add(file)
                return tensors, json.loads((home / "state.json").read_text(encoding="utf8"))
            except (SafetensorError, OSError) as error:
                why = str(error)
        say(f"{home} is not whole ({why}): passed over")
    if homes:
        raise ValueError(
            f"{folder} has {len(homes)} checkpoints and none is whole: restore one from a copy, or start anew in"
            " another folder"
        )
    return None
