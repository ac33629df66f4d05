"""The files that examples on pages name: small models, inputs for them, and what commands have made of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from PIL import Image

import graphprune
import models
from graphprune.cli import boundary
from graphprune.gradients import vjp
from models.small import Net
from tests.gradients.checking import evaluate

MODULES = {
    "mymetric.py": "def score(model):\n    return 1.0 - sum(len(t.dims) for t in model.graph.initializer) * 1e-6\n",
    "mystep.py": "def rename(model, name='small'):\n    model.graph.name = name\n",
}
"""Functions of the user's own."""


def pictures(seed: int = 0) -> ModelProto:
    """A classifier of pictures in three parts, stem, encoder and head; half of what it computes matters little."""
    net = Net(seed)
    x = net.op("Relu", net.conv(net.input("x", ["batch", 3, 32, 32]), 3, 32, strides=[4, 4]))
    y = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    for _ in range(2):
        z = net.op("Relu", net.conv(y, 32, 32, k=1))
        y = net.op("Relu", net.op("Add", y, net.conv(z, 32, 32, k=1)))
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    y = net.op("Relu", net.linear(y, 32, 64))
    y = net.op("Relu", net.linear(y, 64, 64))
    made = net.model(net.linear(y, 64, 10))
    _rename(made)
    for tensor in made.graph.initializer:  # every second output is small, and matrices are nearly of low rank
        value = numpy_helper.to_array(tensor).copy() * 0.3
        if value.ndim == 4:
            value[1::2] *= 0.03
        elif value.shape == (64, 64):
            u, s, v = np.linalg.svd(value)
            value = (u * s * np.exp(-np.arange(64) / 4)) @ v
        tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
    return made


def _rename(model: ModelProto) -> None:
    """Names as an exporter gives them: ``encoder/1/conv`` makes ``encoder/1/conv_out``."""
    parts = ["backbone"] * 3 + [f"encoder/{k}" for k in range(2) for _ in range(5)] + ["head"] * 99
    new = {}
    for node, part in zip(model.graph.node, parts, strict=False):
        node.name = f"{part}/{node.name.removeprefix('node_')}"
        new[node.output[0]] = f"{node.name}_out"
    new |= {model.graph.node[2].output[0]: "features", model.graph.node[-1].output[0]: "logits"}
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
    model.graph.output[0].name = "logits"


def words(size: int = 8000, width: int = 8) -> ModelProto:
    """Ids in, a vector for each out."""
    net = Net()
    ids = net.input("input_ids", ["batch", "sequence"], TensorProto.INT64)
    return net.model(net.linear(net.op("Gather", net.weight(size, width), ids), width, 4))


def lay_pictures(folder: Path) -> None:
    """What most pages speak of: a model, another like it, inputs, and results."""
    for name, seed in (("model", 0), ("other", 1), ("one", 0), ("two", 1), ("digits-cnn", 0)):
        onnx.save(pictures(seed), folder / f"{name}.onnx")
    rng = np.random.default_rng(0)
    np.savez(folder / "inputs.npz", x=rng.standard_normal((16, 3, 32, 32), np.float32))
    np.savez(folder / "scored.npz", x=rng.standard_normal((16, 3, 32, 32), np.float32), y=np.zeros(16, np.int64))
    graphprune.prune(folder / "model.onnx", folder / "small.onnx", ratio=0.3)
    graphprune.sparsify(folder / "model.onnx", folder / "sparse.onnx")
    weights = {t.name: numpy_helper.to_array(t) for t in pictures().graph.initializer}
    from safetensors.numpy import save_file

    save_file(weights, folder / "weights.safetensors")
    (folder / "config.json").write_text('{"hidden_size": 64}')
    (folder / "photos").mkdir()
    for number, picture in enumerate(rng.integers(0, 256, (8, 24, 40, 3), np.uint8)):
        Image.fromarray(picture).save(folder / "photos" / f"{number}.png")
    for name, text in MODULES.items():
        (folder / name).write_text(text)
    recipe = 'format = "graphprune-recipe/1"\n[[passes]]\nuse = "select"\nratio = 0.3\n[[passes]]\nuse = "cut"\n'
    for name in ("recipe", "plain", "distilled"):
        (folder / f"{name}.toml").write_text(recipe)


def lay_results(folder: Path) -> None:
    """What pages on the results of commands speak of: what commands told of a run."""
    lay_pictures(folder)
    model, small = folder / "model.onnx", folder / "small.onnx"
    for name, *words in (
        ("prune", model, "-o", small, "--force", "--ratio", "0.3"),
        ("validate", small, "--against", model),
        ("bench", model, small, "--rounds", "3", "--warmup", "1"),
        ("sensitivity", model, "--levels", "0.5", "--calibration", folder / "inputs.npz"),
        ("sweep", model, "--targets", "macs=0.5", "--calibration", folder / "inputs.npz"),
    ):
        assert boundary.run([name, *map(str, words), "--json", str(folder / f"{name}.json"), "-q"]) == 0


def lay_words(folder: Path) -> None:
    """What the page of vocabularies speaks of."""
    onnx.save(words(), folder / "model.onnx")
    rng = np.random.default_rng(0)
    np.savez(folder / "texts.npz", input_ids=rng.integers(0, 8000, (16, 24)))
    (folder / "ids.txt").write_text("\n".join(map(str, range(7600))))
    (folder / "special.txt").write_text("0\n101\n102\n")
    graphprune.prune(
        folder / "model.onnx", folder / "small.onnx", vocabulary=graphprune.Vocabulary(ids=tuple(range(7600)))
    )


def lay_decoder(folder: Path) -> None:
    """What the page of plans speaks of: pictures, and a language model in three files that share weights."""
    lay_pictures(folder)
    for name, new in (("", "plain"), ("-decoder", "decoder"), ("-decoder-with-past", "decoder_with_past")):
        shutil.copy(models.trained(f"tiny-lm{name}"), folder / f"{new}.onnx")
    shutil.copy(models.TRAINED / "tiny-lm.data", folder)
    ids = onnx.load(folder / "plain.onnx", load_external_data=False).graph.input[0]
    texts = np.random.default_rng(0).integers(1, 50, (8, 16))
    np.savez(
        folder / "texts.npz",
        **{ids.name: texts.astype(helper.tensor_dtype_to_np_dtype(ids.type.tensor_type.elem_type))},
    )


def lay_gradients(folder: Path) -> None:
    """What the page of gradients speaks of: a convolution, a mean, a product."""
    weights = {"w": (8, 3, 3, 3), "v": (8, 10)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [4, 3, 32, 32]), ("y", [4, 10]))]
    held = [numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in weights.items()]
    graph = helper.make_graph(nodes, "page", ends[:1], ends[1:], held)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx"
    )


def gradients_are_right(held: dict[str, Any]) -> None:
    """What the page of gradients comes to, rules of its own among it."""
    assert {n: g.shape for n, g in held["gradients"].items()} == {"d:w": (8, 3, 3, 3), "d:v": (8, 10)}
    assert held["gradients"]["d:v"].any()
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in "xsy"]
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    found = {}
    for op in ("Gate", "ScaledTanh"):
        node = helper.make_node(op, ["x", "s"], ["y"], domain="com.example")
        graph = helper.make_graph([node], "one", values[:2], values[2:])
        found[op] = vjp(helper.make_model(graph, opset_imports=imports, ir_version=10), wrt=["x", "s"])
    x, s, g = np.random.default_rng(0).standard_normal((3, 2, 3)).astype(np.float32)
    dx, ds = evaluate(found["Gate"], {"x": x, "s": s, "d:y": g}, exact=False)
    gate = 1 / (1 + np.exp(-s))
    assert dx == pytest.approx(g * gate, abs=1e-6) and ds == pytest.approx(g * x * gate * (1 - gate), abs=1e-6)
    onnx.checker.check_model(found["ScaledTanh"])


COMES_TO = {"graphprune/gradients/README.md": gradients_are_right}
"""What the names that the Python of a page has set must be."""
STAGES = {
    "graphprune/gradients/README.md": lay_gradients,
    "graphprune/rewrite/README.md": lay_decoder,
    "graphprune/cli/README.md": lay_results,
    "graphprune/cli/pages/README.md": lay_results,
    "passes/vocabulary/README.md": lay_words,
}
"""Who lays out what a page speaks of; ``lay_pictures`` for all others."""
