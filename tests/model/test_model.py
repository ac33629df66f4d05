from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import graphprune
from graphprune.errors import InputError
from graphprune.model import Model, Use, load
from graphprune.model.editor import Editor
from models.small import Net, chain, residual


def test_constants_of_every_kind_are_sources() -> None:
    net = Net()
    x = net.input("x", [2, 4])
    plain = net.weight(4)
    alias = net.op("Identity", plain)
    made = net.op("Constant", value=numpy_helper.from_array(np.ones(4, np.float32)))
    scalar = net.op("Constant", value_float=2.0)
    fill = net.op("ConstantOfShape", net.ints(4), value=numpy_helper.from_array(np.array([3.0], np.float32)))
    turned = net.op("Transpose", net.weight(4, 4))
    y = x
    for other in (alias, made, scalar, fill):
        y = net.op("Add", y, other)
    model = load(net.model(net.op("MatMul", net.op("MatMul", y, turned), turned)))
    assert model.root(alias) == plain
    kinds = {name: s.kind for name, s in model.sources.items() if name in (plain, made, scalar, fill)}
    assert kinds == {plain: "initializer", made: "constant", scalar: "constant", fill: "fill"}
    assert model.array(fill).tolist() == [3, 3, 3, 3]
    assert model.array(scalar) == 2
    assert turned in model.constant_names and turned not in model.sources


def test_a_constant_operator_with_one_reader_stays_a_node() -> None:
    net = Net()
    turned = net.op("Transpose", net.weight(3, 4))
    model = load(net.model(net.op("MatMul", net.input("x", [2, 4]), turned)))
    assert turned not in model.sources and turned in model.constant_names


def test_captures_of_subgraphs_are_seen() -> None:
    inner = helper.make_graph(
        [helper.make_node("Relu", ["outer"], ["y"])], "then", [], [helper.make_empty_tensor_value_info("y")]
    )
    net = Net()
    x = net.input("x", [2, 3])
    net.nodes.append(helper.make_node("Relu", [x], ["outer"]))
    condition = net.constant(np.array(True))
    net.nodes.append(helper.make_node("If", [condition], ["out"], then_branch=inner, else_branch=inner))
    model = load(net.model("out"))
    assert model.captured == {1: ["outer"]}
    assert model.uses[x] == [Use(0, 0)]


def broken(change: str) -> ModelProto:
    model = chain()
    node = model.graph.node[1]
    if change == "undefined":
        node.input[0] = "nowhere"
    elif change == "circle":
        model.graph.node[0].input[0] = model.graph.node[-1].output[0]
    elif change == "twice":
        node.output[0] = model.graph.node[0].output[0]
    elif change == "domain":
        node.domain = "com.unheard"
    elif change == "operator":
        node.op_type = "Rleu"
    elif change == "output":
        model.graph.output[0].name = "nowhere"
    elif change == "short":
        model.graph.initializer[0].raw_data = b"\0" * 4
    elif change == "opset":
        del model.opset_import[:]
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("undefined", "node 'node_Relu_6' .* input 'nowhere' is made by no node"),
        ("circle", "its nodes read each other in a circle"),
        ("twice", "already the name of another tensor"),
        ("domain", "domain 'com.unheard' is not among"),
        ("operator", "no such operator"),
        ("output", "output 'nowhere' is made by no node"),
        ("short", "initializer 'conv_1' does not hold"),
        ("opset", "not an ONNX model"),
    ],
)
def test_graphs_that_break_the_specification_name_the_node(change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(broken(change))


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("not a model, but some text")
    with pytest.raises(InputError, match="not an ONNX model"):
        load(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="not an ONNX model"):
        load(tmp_path / "empty.onnx")
    (tmp_path / "cut.onnx").write_bytes(chain().SerializeToString()[:-500])
    with pytest.raises(InputError, match=r"cut\.onnx"):
        load(tmp_path / "cut.onnx")


def external(folder: Path) -> Path:
    path = folder / "outside.onnx"
    onnx.save(chain(), path, save_as_external_data=True, location="weights.bin", size_threshold=16)
    return path


def test_external_data_is_read_when_asked_for(tmp_path: Path) -> None:
    model = load(external(tmp_path))
    tensor = model.initializers["conv_1"]
    assert tensor.data_location == TensorProto.EXTERNAL and not tensor.raw_data
    expected = {t.name: numpy_helper.to_array(t) for t in chain().graph.initializer}
    assert all((model.array(n) == v).all() for n, v in expected.items())


@pytest.mark.parametrize(("location", "message"), [("../weights.bin", "outside the model's folder"), ("x", "missing")])
def test_external_data_stays_inside_the_folder(tmp_path: Path, location: str, message: str) -> None:
    (tmp_path / "inner").mkdir()
    path = external(tmp_path / "inner")
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    onnx.save(proto, path)
    with pytest.raises(InputError, match=message):
        load(path)


def test_external_data_that_ends_early(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 8)
    with pytest.raises(InputError, match="ends before"):
        load(path)


def test_nodes_in_any_order_are_sorted() -> None:
    """Converters append what they insert, and ONNX Runtime takes it."""
    model = residual()
    shuffled = residual()
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(list(model.graph.node)[::-1])
    result = graphprune.prune(shuffled, ratio=0.5)
    assert result.proof is not None and result.proof.worst < 1e-5
    onnx.checker.check_model(result.model.proto, full_check=True)
    assert [n.name for n in load(shuffled).nodes].index(model.graph.node[-1].name) == len(model.graph.node) - 1


def test_a_new_value_takes_the_place_of_one_that_is_yet_to_be_made() -> None:
    net = Net()
    weight = net.weight(4, 4)
    proto = net.model(net.op("MatMul", net.input("x", [2, 4]), weight))
    editor = Editor(Model(proto, lazy={weight: lambda: np.zeros((4, 4), np.float32)}))
    assert editor.replace(weight, np.ones((4, 4), np.float32))
    assert editor.finish().array(weight).all()
