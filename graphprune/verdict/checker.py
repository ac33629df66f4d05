"""ONNX's own checker, on files: native code is given files."""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import onnx

from graphprune.model import AnyModel, Model, load
from graphprune.model.checked.verdict import told
from graphprune.model.files import save


def on_disk(model: AnyModel, stack: ExitStack) -> Model:
    """A model with a file that holds just it: native code is given files, and what was edited is not yet in one."""
    loaded = load(model)
    if not isinstance(model, Model | onnx.ModelProto):
        return loaded
    path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / re.sub(r"[^\w.-]", "_", loaded.name)
    save(loaded, path)
    return load(path)


def wrong(model: Model) -> str:
    """What the checker finds wrong: the reason and the node; empty where nothing is.

    ONNX's shape inference takes what a sparse initializer holds for no tensor, and few operators read anything else.
    So it looks at such a model as it is when dense.
    """
    if model.stored:
        with ExitStack() as stack:
            dense = on_disk(replace(model, stored=frozenset()), stack)
            return _of_file(model, False) or wrong(dense)
    return _of_file(model, True)


def _of_file(model: Model, shapes: bool) -> str:
    assert model.path is not None
    try:
        onnx.checker.check_model(model.path, full_check=shapes)
    except Exception as error:  # checker and shape inference raise errors of several kinds
        return told(str(error), {node.name: node.op_type for node in model.graph.node})
    return ""
