"""Write a model of any size beside its weights: layers of a transformer encoder, each of about 200 MB.

    python -m models.make_large FILE 8            # GB of weights, in FILE.data
    python -m models.make_large FILE 1 --inside   # in the file itself, which holds at most 2 GB

Weights are drawn from a seeded generator and written one at a time, so that this takes the memory of one of them.
``x`` and ``y`` are float32 ``[batch, sequence, 2048]``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

WIDTH, INNER, HEADS = 2048, 8192, 16
LAYER = 4 * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)
"""Bytes of the matrices of one layer."""


def write(path: Path, size: int, *, width: int = WIDTH, inside: bool = False, seed: int = 0) -> Path:
    """Write a model.

    Args:
        path: of the model; weights go to ``<name>.data`` beside it.
        size: bytes of weights, about.
        width: hidden size; the feed-forward is four times as wide, a head 128 or an eighth of it.
        inside: weights go into the file.
        seed: of the weights.

    Returns:
        The path.
    """
    shapes, nodes = dict[str, tuple[int, ...]](), list[NodeProto]()
    heads = HEADS if width == WIDTH else 8
    name = "x"
    for layer in range(max(1, round(size / (LAYER * (width / WIDTH) ** 2)))):
        name = _layer(nodes, shapes, f"l{layer}", name, width, heads)
    nodes.append(helper.make_node("Identity", [name], ["y"]))
    edges = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", "sequence", width]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "large", edges[:1], edges[1:], list(_constants(heads, width)))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    rng = np.random.default_rng(seed)
    if inside:
        for name, shape in shapes.items():
            proto.graph.initializer.append(numpy_helper.from_array(_drawn(rng, shape), name))
        onnx.save(proto, path)
        return path
    _beside(proto, path, shapes, rng)
    return path


def _beside(proto: ModelProto, path: Path, shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> None:
    data = path.with_name(path.name + ".data")
    with open(data, "wb") as file:
        for name, shape in shapes.items():
            offset = file.tell()
            _drawn(rng, shape).tofile(file)
            tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", offset), ("length", file.tell() - offset)):
                tensor.external_data.add(key=key, value=str(value))
            proto.graph.initializer.append(tensor)
    onnx.save(proto, path)


def _drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return np.full(shape, 0.01, np.float32)
    found = rng.standard_normal(shape, np.float32)
    found *= np.float32(shape[0] ** -0.5)
    return found


def _constants(heads: int, width: int) -> Iterator[TensorProto]:
    yield numpy_helper.from_array(np.array([0, 0, heads, width // heads]), "apart")
    yield numpy_helper.from_array(np.array([0, 0, width]), "together")
    yield numpy_helper.from_array(np.array((width // heads) ** -0.5, np.float32), "scale")
    yield numpy_helper.from_array(np.ones(width, np.float32), "ones")
    yield numpy_helper.from_array(np.zeros(width, np.float32), "zeros")


def _layer(
    nodes: list[NodeProto], shapes: dict[str, tuple[int, ...]], prefix: str, name: str, width: int, heads: int
) -> str:
    """Attention and a feed-forward, each behind a norm and beside a skip; returns what comes out."""

    def op(kind: str, result: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"{prefix}.{result}"], f"{prefix}.{result}", **attributes))
        return f"{prefix}.{result}"

    def linear(result: str, read: str, sums: int, outputs: int) -> str:
        shapes[f"{prefix}.{result}.weight"], shapes[f"{prefix}.{result}.bias"] = (sums, outputs), (outputs,)
        product = op("MatMul", f"{result}.product", read, f"{prefix}.{result}.weight")
        return op("Add", result, product, f"{prefix}.{result}.bias")

    normed = op("LayerNormalization", "norm1", name, "ones", "zeros")
    query, key, value = (
        op("Transpose", f"{one}.heads", op("Reshape", f"{one}.apart", linear(one, normed, width, width), "apart"),
           perm=[0, 2, 3, 1] if one == "key" else [0, 2, 1, 3])
        for one in ("query", "key", "value")
    )  # fmt: skip
    scores = op("Mul", "scaled", op("MatMul", "scores", query, key), "scale")
    mixed = op("MatMul", "mixed", op("Softmax", "shares", scores, axis=-1), value)
    mixed = op("Reshape", "together", op("Transpose", "turned", mixed, perm=[0, 2, 1, 3]), "together")
    name = op("Add", "skip1", name, linear("out", mixed, width, width))
    normed = op("LayerNormalization", "norm2", name, "ones", "zeros")
    inner = op("Gelu", "gelu", linear("up", normed, width, 4 * width))
    return op("Add", "skip2", name, linear("down", inner, 4 * width, width))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("size", type=float, help="GB")
    parser.add_argument("--inside", action="store_true")
    given = parser.parse_args()
    write(given.file, int(given.size * 1e9), inside=given.inside)
