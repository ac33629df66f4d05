"""One small model for each operator, of ONNX's own cases: packed here, since collecting those takes 20 seconds.

``python -m tests.fuzz.operators`` packs them again: operator by operator the first case, with products around it
(see ``tests.node_cases``) that is no larger than ``LARGEST``.
"""

from __future__ import annotations

import lzma
from functools import cache
from pathlib import Path

from onnx import ModelProto

PACKED = Path(__file__).parent / "operators.xz"
LARGEST = 6000
"""Bytes of one model."""


@cache
def packed() -> dict[str, bytes]:
    """Models by the name of their case."""
    found, rest = {}, lzma.decompress(PACKED.read_bytes())
    while rest:
        head, _, rest = rest.partition(b"\n")
        name, size = head.decode().split()
        found[name], rest = rest[: int(size)], rest[int(size) :]
    return found


def pack() -> None:
    from tests import node_cases

    first: dict[str, tuple[str, ModelProto]] = {}
    for name, case in sorted(node_cases.cases().items()):
        operator = name.rpartition("_expanded")[2] if "_expanded" in name else case.model.graph.node[0].op_type
        model = node_cases.build(case, "weights")
        model.graph.doc_string = ""
        if model.ByteSize() <= LARGEST:
            first.setdefault(operator, (name, model))
    data = b""
    for name, model in sorted(first.values(), key=lambda entry: entry[0]):
        one = model.SerializeToString(deterministic=True)
        data += f"{name} {len(one)}\n".encode() + one
    PACKED.write_bytes(lzma.compress(data, preset=9))
    print(f"{len(first)} models, {PACKED.stat().st_size} bytes")


if __name__ == "__main__":
    pack()
