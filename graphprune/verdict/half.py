"""A model in float16, to tell what that type costs from what pruning costs.

Two forms. :func:`rounded` is for numbers, on any machine: every float32 tensor, weights among them, is rounded to
float16 and back, while each operator computes in float32, as tensor cores accumulate. What exceeds the largest float16
becomes infinite, as it would there. ONNX Runtime leaves such pairs of casts alone; those that it puts round operators
itself, to run a float16 file on a processor, it takes out again, so that such a run shows neither rounding nor
overflow.

:func:`converted` is the file that a float16 engine is built of, by ONNX Runtime's own converter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.errors import InputError
from graphprune.model import Model, subgraphs
from graphprune.model.messages import copy_all_but


def rounded(model: Model, types: Mapping[str, int]) -> Model:
    """The model with every float32 tensor rounded to float16.

    Args:
        model: the model; weights are shared with it.
        types: ``TensorProto`` data type of each tensor that nodes make.
    """
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    _round(proto.graph, types)
    return Model(proto, model.path, lazy=model.lazy)


def _round(graph: GraphProto, types: Mapping[str, int]) -> None:
    floats = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    nodes: list[NodeProto] = [node for name in sorted(floats) for node in _casts(name, f"{name}/rounded")]
    for node in graph.node:
        for inner in subgraphs(node):
            _round(inner, types)
        for k, name in enumerate(node.input):
            if name in floats:
                node.input[k] = f"{name}/rounded"
        nodes.append(node)
        for k, name in enumerate(node.output):
            if types.get(name) == TensorProto.FLOAT:
                node.output[k] = f"{name}/single"
                nodes += _casts(node.output[k], name)
    fresh = GraphProto()
    copy_all_but(graph, fresh, {"node", "value_info"})
    fresh.node.extend(nodes)
    graph.CopyFrom(fresh)


def _casts(source: str, target: str) -> Iterator[NodeProto]:
    yield helper.make_node("Cast", [source], [f"{target}/half"], to=TensorProto.FLOAT16)
    yield helper.make_node("Cast", [f"{target}/half"], [target], to=TensorProto.FLOAT)


def converted(model: Model) -> Model:
    """A float16 copy of a model whose inputs and outputs keep their types; its weights are held in memory.

    Raises:
        InputError: the converter refuses the model.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    whole = ModelProto()
    whole.CopyFrom(model.proto)
    for tensor in whole.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.name in model.lazy:
            tensor.CopyFrom(numpy_helper.from_array(model.tensor_array(tensor), tensor.name))
    try:
        made = convert_float_to_float16(whole, keep_io_types=True, disable_shape_infer=whole.ByteSize() > 2e9)
        return Model(made, stored=model.stored)
    except Exception as error:  # the converter raises errors of several kinds
        raise InputError(f"{model.name}: cannot be converted to float16 ({error})") from error
