"""The structure of a proto: what code behind relies on, and no reader of ONNX files does without."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto

from graphprune.errors import InputError
from graphprune.model.bodies import every
from graphprune.model.checked import functions, graphs, opsets, text
from graphprune.model.checked.outside import Outside

_ONNX = ("", "ai.onnx")
_NEWER = "convert it down by onnx.version_converter, or install newer releases of onnx and onnxruntime"


def see(proto: ModelProto, name: str, path: Path | None) -> None:
    """See that a proto is built as ONNX asks; what is sparse in it still is.

    Args:
        proto: it; nothing is changed.
        name: what to call it.
        path: its file, beside which external data lies, and in which weights may have stayed (``skeleton``).

    Raises:
        InputError: it is not; names the place and a remedy.
    """
    text.see_fields(proto, name)
    for prop in proto.metadata_props:
        text.see((prop.key, prop.value), f"{name}: metadata")
    if not proto.opset_import or not (proto.graph.node or proto.graph.output):
        raise InputError(f"{name}: not an ONNX model (no operator set, or an empty graph); export it again")
    opsets.see(proto.opset_import, name, _NEWER)
    scope = graphs.Scope(name, Outside(path.parent if path else Path(), path))
    graphs.see(proto.graph, scope)
    functions.see(proto, scope)
    _standard(proto, name)


def _standard(proto: ModelProto, name: str) -> None:
    """ONNX's own operators are read as those of one version, which must be known where one is used."""
    if any(one.domain in _ONNX for one in proto.opset_import):
        return
    if any(node.domain in _ONNX for node in every(proto.graph.node)):
        raise InputError(f"{name}: imports no operator set 'ai.onnx', and has nodes of it; add the one that is meant")
