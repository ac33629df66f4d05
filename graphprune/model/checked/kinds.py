"""Files that are no ONNX at all: what they are, and what to do about it."""

from __future__ import annotations

import re

HEAD = 4096
"""Bytes of a file that tell."""
_SIGNS = (
    (rb"version https://git-lfs", "a Git LFS pointer, and no model; run 'git lfs pull' for the file that it names"),
    (rb"\x1f\x8b", "compressed by gzip; unpack it first"),
    (rb"\xfd7zXZ\x00", "compressed by xz; unpack it first"),
    (rb"BZh[1-9]", "compressed by bzip2; unpack it first"),
    (rb"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it first"),
    (rb"PK\x03\x04", "a zip archive, as PyTorch and numpy write; unpack it, or export the model to ONNX"),
    (rb"\x80[\x02-\x05]", "a pickle of Python, which is not opened; export the model to ONNX"),
    (rb"\x89HDF\r\n", "HDF5, as Keras writes; convert the model to ONNX"),
    (rb".{7}\x00\{\"", "safetensors, which hold weights and no graph; export the model to ONNX"),
    (rb".{4}ORTM", "in ONNX Runtime's own format (.ort), which is made of an .onnx; give that one"),
    (rb".{4}TFL3", "TensorFlow Lite; convert the model to ONNX by tf2onnx"),
    (rb"\x08\x01\x12|\n.{1,3}\n[\x01-\x7f]", "a protobuf of another kind, as TensorFlow writes; convert it by tf2onnx"),
    (rb"\s*<(!DOCTYPE|html|\?xml)", "a web page, as a download that failed leaves; load the file again"),
)


def other(head: bytes) -> str | None:
    """What a file is that cannot be read as ONNX, with a remedy; None where nothing tells.

    Args:
        head: its first :data:`HEAD` bytes.
    """
    if not head:
        return "empty, and not an ONNX model; copy or export it again"
    if (own := re.search(rb"\bformat\"?\s*[:=]\s*\"graphprune-(\w+)/", head)) is not None:
        return f"a {own[1].decode()} of graphprune, and no model; see 'graphprune --help'"
    return next((told for sign, told in _SIGNS if re.match(sign, head, re.DOTALL | re.IGNORECASE)), None)
