"""The hub: names of models on it, and their files fetched from it. Its package is asked for when it is used."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

HUB = "hub:"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)
FETCHED = ("*.json", "*.safetensors", "README.md")  # never a pickle


def hint_of_hub(text: str) -> str:
    """How to ask the hub for what is no folder but might be a name on it; nothing where it cannot be one."""
    return f"; a model of the hub is called {HUB}{text}" if HUB_NAME.fullmatch(text) and "@" not in text else ""


def fetched(name: str, files: tuple[str, ...] = FETCHED) -> Path:
    """The folder into which the files of `hub:OWNER/NAME` (perhaps with @REVISION) were fetched, now or earlier.

    Raises:  ValueError for a name that cannot be one, FileNotFoundError if the hub does not give it.
    """
    asked = name.removeprefix(HUB)
    if not HUB_NAME.fullmatch(asked):
        raise ValueError(
            f"{name!r} is no name of a model on the hub: write {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION"
        )
    owner_and_name, _, revision = asked.partition("@")
    download = hub_package().snapshot_download
    try:
        return Path(download(owner_and_name, revision=revision or None, allow_patterns=list(files)))
    except Exception as error:  # whatever the network, the hub or its package may raise
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(
            f"the hub did not give {owner_and_name} ({why}): check the name, the network, and, for what is private,"
            " your login"
        ) from error


def hub_package() -> Any:
    """The package huggingface_hub.

    Raises:  ValueError that says how to install it.
    """
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ValueError(
            "the hub is reached with huggingface_hub, which is not installed: pip install 'mixmodal[hub]'"
        ) from error
