import numpy as np
import pytest

from graphprune import analyze
from graphprune.passes.choose import magnitude
from models.small import Net, residual
from tests import helpers


def test_the_norm_runs_over_every_slice_that_a_class_owns() -> None:
    net = Net()
    y = net.op("Relu", net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 6))
    model = net.model(net.conv(y, 6, 2))
    first, second = (n for n in model.graph.node if n.op_type == "Conv")
    held = helpers.constants(model)
    squares = (held[first.input[1]] ** 2).sum((1, 2, 3)) + (held[second.input[1]] ** 2).sum((0, 2, 3))
    analysis = analyze(model)
    (scores,) = magnitude.score(analysis, analysis.groups).values()
    assert scores == pytest.approx(np.sqrt(squares) / np.sqrt(squares).mean(), rel=1e-5)
    assert scores.mean() == pytest.approx(1)


def test_running_statistics_do_not_count() -> None:
    model = residual()
    analysis = analyze(model)
    before = magnitude.score(analysis, analysis.groups)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("var"):
            tensor.raw_data = (1e6 * np.arange(1, tensor.dims[0] + 1, dtype=np.float32)).tobytes()
    again = analyze(model)
    after = magnitude.score(again, again.groups)
    assert all((before[k] == after[k]).all() for k in before)


def test_groups_without_products_count_all_their_weights() -> None:
    net = Net()
    table = net.weight(9, 4)
    y = net.op("ReduceSum", net.op("Gather", table, net.input("ids", ["batch"], kind=7)), net.ints(1))
    analysis = analyze(net.model(y))
    (scores,) = magnitude.score(analysis, analysis.groups).values()
    norms = np.linalg.norm(analysis.model.array(table), axis=0)
    assert scores == pytest.approx(norms / norms.mean(), rel=1e-5)


def test_equal_weights_give_equal_scores() -> None:
    net = Net()
    w, v = net.constant(np.ones((4, 6), np.float32)), net.constant(np.ones((6, 2), np.float32))
    analysis = analyze(net.model(net.op("MatMul", net.op("MatMul", net.input("x", ["batch", 4]), w), v)))
    (scores,) = magnitude.score(analysis, analysis.groups).values()
    assert scores == pytest.approx([1] * 6)


def test_dead_groups_score_zero() -> None:
    net = Net()
    w, v = net.constant(np.zeros((4, 6), np.float32)), net.constant(np.zeros((6, 2), np.float32))
    analysis = analyze(net.model(net.op("MatMul", net.op("MatMul", net.input("x", ["batch", 4]), w), v)))
    (scores,) = magnitude.score(analysis, analysis.groups).values()
    assert scores.tolist() == [0] * 6


def test_what_is_no_number_goes_last() -> None:
    net = Net()
    broken = np.ones((4, 6), np.float32)
    broken[1, 2], broken[0, 4] = np.nan, 1e38
    w, v = net.constant(broken), net.constant(np.ones((6, 2), np.float32))
    analysis = analyze(net.model(net.op("MatMul", net.op("MatMul", net.input("x", ["batch", 4]), w), v)))
    (scores,) = magnitude.score(analysis, analysis.groups).values()
    assert np.isfinite(scores).all() and sorted(np.argsort(scores)[-2:]) == [2, 4]
