"""Two files of a split decoder as one: an If on a boolean input, one branch for each, weights shared between them.

So exporters merge a decoder that starts and one that goes on with a cache.
"""

from __future__ import annotations

from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

SWITCH = "use_cache_branch"


def merged(first: ModelProto, further: ModelProto) -> ModelProto:
    """A model with the inputs of ``further`` and :data:`SWITCH`, which says whether it is this or ``first`` that runs.

    Args:
        first: takes some of the inputs of the other, and gives the same outputs.
        further: the other.
    """
    model = ModelProto(ir_version=further.ir_version, opset_import=further.opset_import)
    graph, shared = model.graph, dict[tuple[object, ...], str]()
    graph.name = "merged"
    then, other = (_branch(p, name, shared, graph) for p, name in ((further, "further"), (first, "first")))
    graph.input.extend([*further.graph.input, helper.make_tensor_value_info(SWITCH, TensorProto.BOOL, [1])])
    graph.output.extend(further.graph.output)
    names = [o.name for o in graph.output]
    graph.node.append(helper.make_node("If", [SWITCH], names, "choose", then_branch=then, else_branch=other))
    return model


def _branch(proto: ModelProto, prefix: str, shared: dict[tuple[object, ...], str], main: GraphProto) -> GraphProto:
    """The nodes of a model; its weights go to the main graph, each once."""
    names = {o: f"{prefix}/{o}" for node in proto.graph.node for o in node.output}
    for tensor in proto.graph.initializer:
        key = (tuple(tensor.dims), tensor.data_type, numpy_helper.to_array(tensor).tobytes())
        if key not in shared:
            shared[key] = f"weight.{len(shared)}"
            main.initializer.add().CopyFrom(tensor)
            main.initializer[-1].name = shared[key]
        names[tensor.name] = shared[key]
    branch = GraphProto(name=prefix)
    for node in proto.graph.node:
        copy = branch.node.add()
        copy.CopyFrom(node)
        copy.name = f"{prefix}/{node.name}"
        for side in (copy.input, copy.output):
            side[:] = [names.get(name, name) for name in side]
    for output in proto.graph.output:
        branch.output.add().CopyFrom(output)
        branch.output[-1].name = names[output.name]
    return branch
