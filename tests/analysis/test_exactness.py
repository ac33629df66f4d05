"""When masking equals removal: the zeros of a removed channel on their way to a sum."""

from collections.abc import Callable

import numpy as np
import pytest

from graphprune import Group, analyze
from models.small import Net


def group(make: Callable[[Net, str], str]) -> Group | None:
    """The group of six channels of a convolution, whose output goes through ``make``."""
    net = Net()
    y = net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 6)
    analysis = analyze(net.model(make(net, y)))
    return next((g for g in [*analysis.groups, *analysis.fixed] if g.size == 6), None)


def statistical(make: Callable[[Net, str], str]) -> bool:
    found = group(make)
    assert found is not None and found.prunable
    return found.statistical


def test_a_weight_that_is_masked_too_makes_every_sum_exact() -> None:
    assert not statistical(lambda net, y: net.conv(net.op("Sigmoid", y), 6, 2))


def test_a_sum_over_zeros_is_exact() -> None:
    assert not statistical(lambda net, y: net.op("ReduceSum", net.op("Relu", y), net.ints(1)))
    assert not statistical(lambda net, y: net.op("ReduceL2", net.op("Tanh", y), axes=[1]))


def test_a_sum_over_what_zeros_become_is_not() -> None:
    assert statistical(lambda net, y: net.op("ReduceSum", net.op("Sigmoid", y), net.ints(1)))
    assert statistical(lambda net, y: net.op("ReduceSum", net.op("Add", y, net.constant(np.float32(1))), net.ints(1)))


def test_a_product_with_zero_is_zero_again() -> None:
    def gate(net: Net, y: str) -> str:
        return net.op("ReduceSum", net.op("Mul", y, net.op("Sigmoid", y)), net.ints(1))

    assert not statistical(gate)


def test_powers_and_bounds_count_where_they_are_known() -> None:
    def square(net: Net, y: str) -> str:
        return net.op("ReduceSum", net.op("Pow", y, net.constant(np.float32(2))), net.ints(1))

    def relu6(net: Net, y: str) -> str:
        low, high = net.constant(np.float32(0)), net.constant(np.float32(6))
        return net.op("ReduceSum", net.op("Clip", y, low, high), net.ints(1))

    def lifted(net: Net, y: str) -> str:
        return net.op("ReduceSum", net.op("Clip", y, net.constant(np.float32(1))), net.ints(1))

    assert not statistical(square) and not statistical(relu6) and statistical(lifted)


def test_a_mean_over_zeros_is_exact_where_it_is_corrected() -> None:
    assert not statistical(lambda net, y: net.op("ReduceMean", y, axes=[1]))
    assert statistical(lambda net, y: net.op("ReduceMean", net.op("Sigmoid", y), axes=[1]))


def test_norms_that_take_off_a_mean_are_statistical() -> None:
    def layer_norm(net: Net, y: str) -> str:
        y = net.op("Transpose", y, perm=[0, 2, 3, 1])
        return net.op("MatMul", net.op("LayerNormalization", y, net.weight(6), net.weight(6)), net.weight(6, 2))

    assert statistical(layer_norm)


def test_a_decomposed_norm_divided_by_a_constant_is_exact() -> None:
    """Sums times 1/n, as some exporters write a mean: the removed terms are zero, and n stays what it was."""

    def norm(net: Net, y: str) -> str:
        share = net.constant(np.float32(1 / 6))
        mean = net.op("Mul", net.op("ReduceSum", y, net.ints(1), keepdims=1), share)
        square = net.op("Mul", net.op("ReduceSum", net.op("Mul", y, y), net.ints(1), keepdims=1), share)
        spread = net.op("Sqrt", net.op("Add", square, net.constant(np.float32(1e-5))))
        return net.conv(net.op("Div", net.op("Sub", y, mean), spread), 6, 2)

    assert not statistical(norm)


def test_what_masking_would_divide_by_is_pinned() -> None:
    found = group(lambda net, y: net.conv(net.op("Div", y, net.weight(6, 1, 1)), 6, 2))
    assert found is not None and not found.prunable
    assert any("divide by zero" in r.text for r in found.reasons)


@pytest.mark.parametrize("op", ["Softmax", "Hardmax", "LogSoftmax"])
def test_a_softmax_over_the_channels_pins_them(op: str) -> None:
    found = group(lambda net, y: net.op(op, y, axis=1))
    assert found is not None and not found.prunable


def test_attention_scores_need_only_one_zero_factor() -> None:
    """Query and key dims are summed away between two activations."""
    net = Net()
    x = net.input("x", ["batch", "length", 4])
    scores = net.op("MatMul", net.linear(x, 4, 6), net.op("Transpose", net.linear(x, 4, 6), perm=[0, 2, 1]))
    (found,) = analyze(net.model(scores)).groups
    assert found.size == 6 and not found.statistical


def test_a_divisor_that_a_mask_makes_zero_pins() -> None:
    for make in (
        lambda net, y: net.op("Mod", y, net.weight(6, 1, 1), fmod=1),
        lambda net, y: net.op("Pow", y, net.constant(np.float32(-1))),
    ):
        found = group(lambda net, y, make=make: net.conv(make(net, y), 6, 2))
        assert found is not None and [r.text for r in found.reasons] == ["masking it would divide by zero"]
