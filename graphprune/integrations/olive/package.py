"""Olive's package configuration with the pass of this package in it.

Olive knows passes by one JSON file, and finds none by entry points. A file that is given to it (``package_config=`` of
``olive.workflows.run``, ``--package-config`` of ``olive run``) takes the place of its own, so that it must list all the
others too. Which these are is read from the Olive that is installed.
"""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from graphprune.errors import BackendError
from graphprune.model import files

NAME = "GraphPrune"
"""What the pass is called in workflows."""
ENTRY = {
    "module_path": "graphprune.integrations.olive.prune.GraphPrune",
    "supported_providers": ["*"],
    "supported_accelerators": ["*"],
    "supported_precisions": ["*"],
    "dataset": "dataset_optional",
}
"""What Olive is told of it; fields of ``olive.passes.PassModuleConfig``."""


def package_config() -> dict[str, Any]:
    """Olive's own configuration, and the pass of this package.

    Raises:
        BackendError: olive-ai is not installed.
    """
    found = find_spec("olive")  # says where it lies without running it, which takes seconds
    own = Path(found.origin).with_name("olive_config.json") if found is not None and found.origin else None
    if own is None or not own.is_file():
        raise BackendError("Olive is not installed: pip install 'graphprune[olive]'")
    config: dict[str, Any] = json.loads(own.read_text(encoding="utf-8"))
    return {**config, "passes": {**config["passes"], NAME: ENTRY}}


def write(path: str | os.PathLike[str]) -> Path:
    """Write the configuration to a file, which is given back; it holds for the Olive that is installed now.

    Raises:
        BackendError: olive-ai is not installed.
        InputError: the file cannot be written.
    """
    text = json.dumps(package_config(), indent=1) + "\n"
    files.atomically(Path(path), lambda file: file.write(text.encode()))
    return Path(path)
