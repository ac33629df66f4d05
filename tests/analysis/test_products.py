"""Products as matrices: rows times matrix is what the node makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from graphprune.analysis import analyze
from graphprune.analysis.products import Product, find_products
from graphprune.run.runtime import exposing, generate, run, session
from models.small import Net, chain


def conv(
    kernel: tuple[int, ...], i: int = 6, o: int = 8, group: int = 1, bias: bool = True, **attributes: Any
) -> ModelProto:
    net = Net()
    x = net.input("x", ["batch", i, *([9, 11, 7][: len(kernel)])])
    inputs = [x, net.weight(o, i // group, *kernel), *([net.weight(o)] if bias else [])]
    return net.model(net.op("Conv", *inputs, group=group, **attributes))


def gemm(transposed: bool, bias: bool) -> ModelProto:
    net = Net()
    weight = net.weight(*((5, 12) if transposed else (12, 5)))
    inputs = [net.input("x", ["batch", 12]), weight, *([net.weight(5)] if bias else [])]
    return net.model(net.op("Gemm", *inputs, transB=int(transposed)))


def matmul(bias: bool) -> ModelProto:
    net = Net()
    return net.model(net.linear(net.input("x", ["batch", 3, 12]), 12, 5, bias))


def backward(kernel: tuple[int, ...], i: int = 6, o: int = 4, group: int = 1, **attributes: Any) -> ModelProto:
    net = Net()
    x = net.input("x", ["batch", i, *([5, 4, 3][: len(kernel)])])
    weight = net.weight(i, o // group, *kernel)
    return net.model(net.op("ConvTranspose", x, weight, net.weight(o), group=group, **attributes))


def moved(*way: str, half: bool = False) -> ModelProto:
    """A matrix behind nodes that move or convert it."""
    net = Net()
    shape = {"": (12, 5), "Transpose": (5, 12), "Reshape": (3, 4, 5), "Squeeze": (1, 12, 5)}[way[0] if way else ""]
    weight = net.weight(*shape) if not half else net.constant(net.rng.standard_normal(shape).astype(np.float16))
    for op in way:
        more = {"Reshape": [net.ints(12, 5)], "Squeeze": [net.ints(0)]}.get(op, [])
        weight = net.op(op, weight, *more, **({"perm": [1, 0]} if op == "Transpose" else {}))
    weight = net.op("Cast", weight, to=1) if half else net.op("Identity", weight)
    return net.model(net.op("MatMul", net.input("x", ["batch", 12]), weight))


def product(kind: str, shape: tuple[int | str, ...], *weights: tuple[int, ...], **attributes: Any) -> ModelProto:
    """Any operator with an activation before its weights; those of com.microsoft are written with a dot in front."""
    net, op = Net(), kind.removeprefix(".")
    domain = "com.microsoft" if kind.startswith(".") else ""
    inputs = [net.input("x", shape), *(net.weight(*w) for w in weights)]
    y = net.op(op, *inputs, domain=domain, **attributes)
    return net.model(net.op("Identity", y), domains=[domain] if domain else [], rank=len(shape))


CASES = {
    "3x3": conv((3, 3), pads=[1, 1, 1, 1]),
    "1x1, no bias": conv((1, 1), bias=False),
    "strided": conv((3, 3), pads=[0, 1, 2, 1], strides=[2, 3]),
    "dilated": conv((3, 3), pads=[2, 2, 2, 2], dilations=[2, 2]),
    "same upper": conv((4, 3), auto_pad="SAME_UPPER", strides=[2, 1]),
    "same lower": conv((4, 3), auto_pad="SAME_LOWER", strides=[2, 1]),
    "valid": conv((2, 3), auto_pad="VALID"),
    "one axis": conv((5,), pads=[2, 2]),
    "three axes": conv((3, 2, 2), pads=[1, 0, 0, 1, 1, 1]),
    "groups": conv((3, 3), 6, 9, 3, pads=[1, 1, 1, 1]),
    "depthwise": conv((3, 3), 6, 6, 6, pads=[1, 1, 1, 1]),
    "gemm": gemm(False, True),
    "gemm, transposed": gemm(True, False),
    "matmul": matmul(True),
    "matmul, no bias": matmul(False),
    "behind a transpose, no bias": moved("Transpose"),
    "behind a reshape and two transposes, no bias": moved("Reshape", "Transpose", "Transpose"),
    "behind a squeeze, no bias": moved("Squeeze"),
    "behind a cast, no bias": moved(half=True),
    "behind a transpose and a cast, no bias": moved("Transpose", half=True),
    "backward": backward((2, 2), strides=[2, 2]),
    "backward, padded": backward((3, 4), pads=[1, 0, 1, 2], strides=[2, 1], output_padding=[1, 0]),
    "backward, dilated": backward((3, 2), dilations=[2, 1], strides=[3, 2]),
    "backward, groups": backward((3, 3), 6, 4, 2, strides=[2, 1], pads=[1, 1, 1, 1]),
    "backward, one axis": backward((4,), strides=[3]),
    "outputs first, no bias": product("Einsum", ("batch", 3, 12), (5, 12), equation="bsi,oi->bso"),
    "two sums, no bias": product("Einsum", ("batch", 3, 4, 6), (4, 6, 5), equation="bshd,hdo->bso"),
    "rows and outputs mixed, no bias": product("Einsum", ("batch", 3, 6), (6, 2, 5), equation="bsi,ijo->jbos"),
    "a group for each head, no bias": product("Einsum", ("batch", 3, 6), (3, 6, 5), equation="bhi,hio->bho"),
    "batched, no bias": product("MatMul", ("batch", 4, 3, 12), (4, 12, 5)),
    "fused, transposed, no bias": product(".FusedMatMul", ("batch", 3, 12), (5, 12), transB=1),
    "fused convolution": product(".FusedConv", ("batch", 6, 9, 9), (8, 3, 3, 3), (8,), group=2, strides=[2, 1]),
}


def products(model: ModelProto) -> list[Product]:
    analysis = analyze(model)
    return find_products(analysis.model, analysis.rulings)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("most", [10_000, 7])
def test_rows_times_matrix_is_the_output(name: str, most: int) -> None:
    analysis = analyze(CASES[name])
    model, (product,) = analysis.model, find_products(analysis.model, analysis.rulings)
    assert not product.inner
    feeds = generate(model, {"x": tuple(d.dim_value or 4 for d in model.inputs[0].type.tensor_type.shape.dim)})
    with session(exposing(model, [product.output])) as active:
        (y,) = run(active, feeds, [product.output])
    chosen, sample = product.choose(feeds["x"], most, np.random.default_rng(0))
    rows, wanted = product.rows(feeds["x"], chosen), product.results(y, chosen)
    assert rows.shape[1] == wanted.shape[1] == len(sample) == min(most, y.size // (wanted.shape[0] * wanted.shape[2]))
    weight = model.array(product.weight)
    found = rows @ product.matrix(weight)
    added = product.added(model)
    if added is not None and product.adder is None:
        found = found + added[:, None]
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert np.array_equal(product.weight_of(product.matrix(weight), weight), weight)
    assert sample.max() < 4 and (product.bias is not None) == ("no bias" not in name and name != "gemm, transposed")


def test_weights_that_others_read_are_left_alone() -> None:
    net = Net()
    x, weight = net.input("x", ["batch", 6]), net.weight(6, 6)
    assert products(net.model(net.op("MatMul", net.op("MatMul", x, weight), weight))) == []
    net = Net()
    x = net.input("x", [6, 6])
    assert products(net.model(net.op("MatMul", net.op("Neg", x), x))) == []
    assert len(products(chain())) == 2


INNER = {
    "scaled": product("Gemm", ("batch", 12), (12, 5), (5,), alpha=0.5),
    "a bias for each row": product("Gemm", (3, 12), (12, 5), (3, 5)),
    "activated": product(".FusedConv", ("batch", 6, 9, 9), (8, 6, 3, 3), (8,), activation="Relu"),
    "fused gemm": product(".FusedGemm", ("batch", 12), (5, 12), (5,), transB=1, activation="Relu"),
    "summed over rows": product("Einsum", ("batch", 3, 12), (12, 5), equation="bsi,io->bo"),
    "fixed by a size": product("ConvTranspose", ("batch", 6, 4, 4), (6, 4, 3, 3), output_shape=[7, 7], strides=[2, 2]),
}


@pytest.mark.parametrize("name", INNER)
def test_what_is_done_to_a_product_makes_it_a_step_inside_the_node(name: str) -> None:
    (product,) = products(INNER[name])
    assert product.inner and product.bias is None and product.form.slot is None


def test_an_operator_is_no_product_where_its_weight_meets_no_activation_or_nothing_is_summed() -> None:
    assert products(product("Einsum", ("batch", 6), (6,), equation="bi,i->bi")) == []
    assert products(product("Einsum", ("batch", 6), (4,), equation="bi,o->bo")) == []
