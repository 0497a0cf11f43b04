"""Sharing a model: the card that tells what it is and how it was made, and the way to the hub."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from mixmodal.checkpoint import ASSET, find_model, inside, write_text
from mixmodal.hub import HUB, HUB_NAME, hub_package

TOLD = ("recipe", "foreign", "family", "seed", "steps", "seconds", "torch", "threads", "bits_per_byte")
LOCAL = (
    "path",
    "file",
    "files",
    "where",
)  # options of sources that tell about one's own disk, and nothing about the model


def card(folder: Path, title: str, licence: str = "", scores: list[dict[str, Any]] | None = None) -> str:
    """A README.md for the model in `folder`: what it is, how it was made, its scores, how it is used.

    `licence` is that of the weights, as the hub spells it ("apache-2.0"); where none is known, the card says so.
    """
    data = json.loads((folder / "config.json").read_text(encoding="utf8"))
    model, about = data["model"], data.get("about", {})
    licence = licence or str(about.get("licence", ""))
    head: dict[str, Any] = {"library_name": "mixmodal"}
    head["tags"] = ["mixmodal", *sorted({stream["medium"] for stream in model["streams"].values()})]
    if licence:
        head["license"] = licence
    origin = str(data.get("base") or about.get("foreign") or "")
    if origin.startswith(HUB):
        head["base_model"] = origin.removeprefix(HUB).partition("@")[0]
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", "", f"# {title}", ""]
    lines += ["One transformer that takes text and other media in and gives them out, made with mixmodal.", ""]
    lines += _table([*_facts(folder, data), ("licence of the weights", licence or "not stated: ask before use")])
    for found in scores or []:
        told = f"Scores of the suite `{found['suite']}`, n = {found.get('n')}, seed {found.get('seed')}"
        lines += ["", f"{told}, one sample each, 95 % intervals:", "", *_table(_shown(found))]
    lines += ["", "```python", "import mixmodal", "", f"model = mixmodal.load({json.dumps(title)})", "```", ""]
    return "\n".join(lines)


def _facts(folder: Path, data: dict[str, Any]) -> list[tuple[str, Any]]:
    """What is known about a model without asking it anything."""
    model, about = data["model"], data.get("about", {})
    rows = [(name, about[name]) for name in TOLD if about.get(name) not in (None, "")]
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        numbers = sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping
    rows.append(("size", f"{numbers / 1e6:.2f} million numbers in model.safetensors"))
    if data.get("base"):
        rows.append(("base", f"{data['base']}, from which the frozen weights are read"))
    rows.append(("trunk", ", ".join(f"{key} {value}" for key, value in model["trunk"].items() if value is not None)))
    for name, stream in model["streams"].items():
        kinds = [stream[part]["kind"] for part in ("codec", "objective", "head") if stream.get(part)]
        rows.append((f"stream {name}", f"{stream['medium']} by {' + '.join(kinds)}"))
    for name, source in about.get("sources", {}).items():
        rows.append((f"data {name}", ", ".join(f"{key} {value}" for key, value in _public(source).items())))
    return rows


def _public(told: Any) -> Any:
    """The same without what tells about one's own disk, however deep it stands."""
    if isinstance(told, dict):
        return {name: _public(value) for name, value in told.items() if name not in LOCAL}
    return [_public(value) for value in told] if isinstance(told, list) else told


def _without_origin(stream: dict[str, Any]) -> dict[str, Any]:
    """A stream without the folder that its trained net came from, whose weights lie in the model."""
    out = {}
    for part, spec in stream.items():
        nets = spec.get("nets") if isinstance(spec, dict) else None
        out[part] = {**spec, "nets": {k: v for k, v in nets.items() if k != "from"}} if isinstance(nets, dict) else spec
    return out


def _table(rows: list[tuple[str, Any]]) -> list[str]:
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in cells)]


def _shown(scores: dict[str, Any]) -> list[tuple[str, str]]:
    """The scores as rows: shares with their interval in percent, plain numbers as they are."""
    out = []
    for name, value in scores.items():
        if isinstance(value, dict) and {"value", "low", "high"} <= set(value):
            share, low, high = (100 * value[key] for key in ("value", "low", "high"))
            out.append((name, f"{share:.1f} % ({low:.1f} to {high:.1f})"))
        elif isinstance(value, float):
            out.append((name, f"{value:.3f}"))
    return out


def scores_of(folder: Path) -> list[dict[str, Any]]:
    """What `mixmodal eval --json` left in the folder of a model, or in that of its run."""
    homes = [folder, folder.parent] if folder.name == "model" else [folder]
    out = []
    for path in (path for home in homes for path in sorted(home.glob("*.json"))):
        try:
            data = json.loads(path.read_text(encoding="utf8"))
        except ValueError:
            continue  # somebody's own file, which only ends like ours
        if isinstance(data, dict) and "suite" in data:
            out.append(data)
    return out


def write_card(where: str | Path, title: str = "", licence: str = "") -> Path:
    """The README.md, written beside the model that a user may call `where`."""
    folder = find_model(where)
    path = folder / "README.md"
    write_text(path, card(folder, title or _title(folder), licence, scores_of(folder)))
    return path


def _title(folder: Path) -> str:
    folder = folder.resolve()
    return folder.parent.name if folder.name == "model" else folder.name


def push_to_hub(where: str | Path, name: str, *, licence: str = "", private: bool = False) -> str:
    """The address under which the model `where` now stands on the hub, with its card, sent in one commit.

    Sent are config.json (without the paths of your data) and its assets, model.safetensors and README.md, and nothing
    else that lies there.
    Raises:  ValueError for a name that cannot be one, and for a model whose base others could not read.
    """
    name = name.removeprefix(HUB)
    if not HUB_NAME.fullmatch(name) or "@" in name:
        raise ValueError(f"{name!r} is no name for a model on the hub: write OWNER/NAME")
    folder = find_model(where)
    data = json.loads((folder / "config.json").read_text(encoding="utf8"))
    base = str(data.get("base", ""))
    if base and not base.startswith((HUB, "builtin:")):
        raise ValueError(
            f"the frozen weights of {where} lie in {base} on this machine, where others cannot read them: save it"
            f" without a base, or push the base first and save with base={HUB}OWNER/NAME"
        )
    hub = hub_package()
    codecs = [stream["codec"] for stream in data["model"]["streams"].values()]
    options = [str(value) for codec in codecs for value in codec.values()]
    assets = [inside(folder, value.removeprefix(ASSET)) for value in options if value.startswith(ASSET)]
    sent: dict[str, str | bytes] = {file: str(folder / file) for file in (*assets, "model.safetensors")}
    sent["README.md"] = card(folder, HUB + name, licence, scores_of(folder)).encode()
    if "sources" in data.get("about", {}):
        data["about"]["sources"] = _public(data["about"]["sources"])
    data["model"]["streams"] = {name: _without_origin(s) for name, s in data["model"]["streams"].items()}
    sent["config.json"] = json.dumps(data, indent=1).encode()
    api = hub.HfApi()
    operations = [hub.CommitOperationAdd(file, content) for file, content in sent.items()]
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.create_commit(name, operations, commit_message="A model of mixmodal, with its card")
    except Exception as error:  # of the network, of a login, of a name: its package has many, of no common kind
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OSError(f"{name} was not sent to the hub: {why}") from error
    return str(address)
