import numpy as np
import pytest
from onnx import TensorProto

import models
from graphprune.errors import InputError
from graphprune.model import Model, load
from graphprune.run.first import record_shapes
from graphprune.run.runtime import RefusedError, generate, index_limits, run, session
from models.small import Net, chain


def test_indices_stay_below_the_shortest_table_that_they_reach() -> None:
    net = Net()
    ids = net.input("ids", ["batch", "length"], kind=TensorProto.INT64)
    long = net.op("Gather", net.weight(50, 4), ids)
    short = net.op("Gather", net.weight(7, 4), net.op("Cast", ids, to=TensorProto.INT32))
    model = load(net.model(net.op("Add", long, short)))
    assert index_limits(model) == {"ids": 7}
    drawn = generate(model, {"ids": (20, 20)})["ids"]
    assert drawn.dtype == np.int64 and drawn.min() == 0 and drawn.max() == 6


def test_inputs_that_are_compared_reach_every_constant() -> None:
    model = load(models.packaged("magika"))
    assert index_limits(model) == {"bytes": 257}


def test_inputs_of_every_type() -> None:
    net = Net()
    names = {"f": TensorProto.FLOAT16, "b": TensorProto.BOOL, "i": TensorProto.INT32, "s": TensorProto.STRING}
    outputs = [net.op("Identity", net.input(name, [2, 3], kind=kind)) for name, kind in names.items()]
    proto = net.model(*outputs)
    for output, kind in zip(proto.graph.output, names.values(), strict=True):
        output.type.tensor_type.elem_type = kind
    feeds = generate(load(proto), dict.fromkeys(names, (2, 3)))
    assert feeds["f"].dtype == np.float16 and feeds["b"].all() and set(np.unique(feeds["i"])) <= {0, 1}
    assert feeds["s"].shape == (2, 3)


def test_the_same_seed_draws_the_same() -> None:
    model = load(chain())
    first, second, other = (generate(model, {"x": (1, 3, 8, 8)}, seed)["x"] for seed in (3, 3, 4))
    assert (first == second).all() and not (first == other).all()


def test_inner_tensors_can_be_recorded() -> None:
    model = load(chain())
    inner = model.nodes[1].output[0]
    assert record_shapes(model, {"x": (2, 3, 8, 8)}, [inner])[inner].shape == (2, 8, 8, 8)


def test_what_the_runtime_refuses_is_told_from_what_it_fails_at() -> None:
    net = Net()
    unknown = load(net.model(net.op("Strange", net.input("x", [2]), domain="com.example"), domains=["com.example"]))
    with pytest.raises(RefusedError, match="cannot run it"), session(unknown):
        pass
    with session(load(chain())) as active, pytest.raises(InputError, match="x=1x2x8x8"):
        run(active, {"x": np.zeros((1, 2, 8, 8), np.float32)})


def test_an_operator_set_that_is_too_new_is_told_whole() -> None:
    model = chain()
    model.opset_import[0].version = 99
    with pytest.raises(RefusedError, match="Opset 99") as told, session(Model(model)):
        pass
    assert "onnxruntime_src" not in str(told.value) and "till opset" in str(told.value)


def test_errors_of_the_body_pass_through_a_session() -> None:
    with pytest.raises(ZeroDivisionError), session(load(chain())):
        raise ZeroDivisionError
