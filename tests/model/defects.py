"""Defects of a proto, by kind: what makes each, and words of the line that tells it."""

from __future__ import annotations

from collections.abc import Callable

from onnx import AttributeProto, TensorProto, helper

from tests.model.broken import (
    FLOAT,
    INT,
    Break,
    again,
    attribute,
    attributes,
    becomes,
    body,
    both,
    cleared,
    entry,
    function,
    gives,
    imports,
    inside,
    loop,
    more,
    node,
    reads,
    replaced,
    scan,
    setting,
    sparse,
    typed,
    weight,
)

GRAPHS: dict[str, tuple[Break, str]] = {
    "no graph": (cleared(lambda m: m, "graph"), "not an ONNX model"),
    "no nodes": (cleared(lambda m: m.graph, "node"), "output 'y' is made by no node"),
    "no outputs at a node": (gives("relu"), "node 'relu' (Relu) has no output"),
    "output without a name": (gives("relu", ""), "'hidden' is made by no node"),
    "output doubled": (gives("act", "fc"), "node 'act' (Relu): its output 'fc' is already the name"),
    "output twice": (gives("relu", "hidden", "hidden"), "output 'hidden' is already the name"),
    "output is a weight": (gives("act", "fc_w"), "output 'fc_w' is already the name"),
    "output is an input": (gives("act", "x"), "output 'x' is already the name"),
    "too many outputs": (gives("relu", "hidden", "more"), "node 'relu' (Relu): it has 2 outputs"),
    "too many inputs": (reads("relu", "first", "first"), "node 'relu' (Relu): it has 2 inputs"),
    "too few inputs": (reads("conv", "x"), "node 'conv' (Conv): it has 1 inputs"),
    "input left out": (reads("relu", ""), "node 'relu' (Relu): Node (relu)'s input 0"),
    "input undefined": (reads("act", "nowhere"), "node 'act' (Relu): its input 'nowhere' is made by no node"),
    "circle": (reads("conv", "hidden", "conv_w"), "read each other in a circle"),
    "reads itself": (reads("relu", "hidden"), "read each other in a circle"),
    "graph output undefined": (setting(lambda m: m.graph.output[0], "name", "no"), "output 'no' is made by no node"),
    "graph output without a name": (cleared(lambda m: m.graph.output[0], "name"), "output '' is made by no node"),
    "graph output of no type": (
        setting(lambda m: m.graph.output[0].type.tensor_type, "elem_type", 99),
        "graph's output 'y' has elements of type 99",
    ),
    "graph output of another type": (
        setting(lambda m: m.graph.output[0].type.tensor_type, "elem_type", INT),
        "node 'out' (MatMul)",
    ),
    "graph input doubled": (lambda m: m.graph.input.append(m.graph.input[0]), "input of the graph 'x' is there twice"),
    "graph input without a name": (cleared(lambda m: m.graph.input[0], "name"), "input of the graph has no name"),
    "graph input without a type": (cleared(lambda m: m.graph.input[0], "type"), "input 'x' has no type"),
    "graph input of no element type": (
        cleared(lambda m: m.graph.input[0].type.tensor_type, "elem_type"),
        "input 'x' has elements of type 0",
    ),
    "operator unknown": (becomes("relu", "Rleu"), "node 'relu' (Rleu): no such operator in ONNX's set 17"),
    "operator of a later set": (becomes("relu", "Gelu"), "node 'relu' (Gelu): no such operator in ONNX's set 17"),
    "operator of an earlier set": (becomes("relu", "Upsample"), "node 'relu' (Upsample): ONNX's set 17 has this"),
    "operator left out": (becomes("relu", ""), "node 'relu' () names no operator"),
    "domain not imported": (becomes("relu", "Relu", "com.no"), "domain 'com.no' is not among"),
    "types differ": (more(helper.make_node("Add", ["fc", "flag"], ["k"], "add")), "node 'add' (Add)"),
    "shapes differ": (more(helper.make_node("Add", ["fc", "conv_w"], ["k"], "add")), "node 'add' (Add): Incompatible"),
    "condition is no boolean": (setting(lambda m: weight(m, "flag"), "data_type", 2), "node 'branch' (If)"),
}

ATTRIBUTES: dict[str, tuple[Break, str]] = {
    "missing": (lambda m: node(m, "branch").attribute.pop(), "node 'branch' (If): Required attribute"),
    "unknown": (attributes("relu", helper.make_attribute("no", 1)), "node 'relu' (Relu): Unrecognized attribute: no"),
    "of a wrong type": (
        both(
            lambda m: node(m, "conv").attribute.pop(),
            attributes("conv", helper.make_attribute("pads", "much")),
        ),
        "node 'conv' (Conv): Mismatched attribute type in 'conv : pads'",
    ),
    "of another type than its field": (
        setting(lambda m: attribute(m, "conv", "pads"), "type", AttributeProto.INT),
        "attribute 'pads' is said to be of type INT and holds 'ints'",
    ),
    "of type tensor without one": (
        attributes("relu", AttributeProto(name="no", type=AttributeProto.TENSOR)),
        "attribute 'no' is said to be of type TENSOR and holds none",
    ),
    "of type graph without one": (
        attributes("relu", AttributeProto(name="no", type=AttributeProto.GRAPH)),
        "attribute 'no' is said to be of type GRAPH and holds none",
    ),
    "without a type": (cleared(lambda m: attribute(m, "conv", "pads"), "type"), "'pads' does not say of which type"),
    "of two fields": (setting(lambda m: attribute(m, "conv", "pads"), "i", 1), "type INTS and holds 'i'"),
    "twice": (
        lambda m: node(m, "conv").attribute.append(attribute(m, "conv", "pads")),
        "node 'conv' (Conv) has the attribute 'pads' twice",
    ),
    "without a name": (cleared(lambda m: attribute(m, "conv", "pads"), "name"), "has an attribute without a name"),
    "reference outside of a function": (
        attributes("flatten", AttributeProto(name="axis", ref_attr_name="k", type=AttributeProto.INT)),
        "attribute 'axis' refers to 'k', and stands in no function",
    ),
    "pads of another rank": (lambda m: attribute(m, "conv", "pads").ints.append(1), "node 'conv' (Conv)"),
    "tensor cut": (
        more(helper.make_node("Constant", [], ["k"], value=TensorProto(dims=[4], data_type=FLOAT, raw_data=b"1"))),
        "node 'k' (Constant): its attribute 'value' does not hold (4,) elements of FLOAT: 1 bytes where 16 belong",
    ),
    "constant of nothing": (more(helper.make_node("Constant", [], ["k"])), "node 'k' (Constant)"),
    "constant of no output": (more(helper.make_node("Constant", [], [], value_int=1)), "node '#9' (Constant) has no"),
    "fill of no shape": (more(helper.make_node("ConstantOfShape", [], ["k"])), "node 'k' (ConstantOfShape)"),
    "fill of a negative shape": (
        more(helper.make_node("ConstantOfShape", ["s"], ["k"]), s=helper.make_tensor("", INT, [2], [-1, 3])),
        "node 'k' (ConstantOfShape): shape input tensor must have non-negative elements",
    ),
}

TENSORS: dict[str, tuple[Break, str]] = {
    "short": (setting(lambda m: weight(m, "conv_b"), "raw_data", b"1234"), "(8,) elements of FLOAT: 4 bytes where 32"),
    "long": (setting(lambda m: weight(m, "conv_b"), "raw_data", b"1234" * 9), "36 bytes where 32 belong"),
    "without data": (cleared(lambda m: weight(m, "conv_b"), "raw_data"), "0 in float_data where 8 belong"),
    "typed data short": (typed("float_data", 5), "5 in float_data where 8 belong"),
    "typed data long": (typed("float_data", 9), "9 in float_data where 8 belong"),
    "data in another field": (typed("int64_data", 8), "0 in float_data where 8 belong, and some in int64_data"),
    "of no type": (cleared(lambda m: weight(m, "conv_b"), "data_type"), "initializer 'conv_b' has data type 0"),
    "of unknown type": (setting(lambda m: weight(m, "conv_b"), "data_type", 99), "'conv_b' has data type 99"),
    "strings in raw form": (setting(lambda m: weight(m, "conv_b"), "data_type", 8), "strings have no raw form"),
    "strings short": (more(s=TensorProto(dims=[2], data_type=8, string_data=[b"a"])), "1 in string_data where 2"),
    "4 bits short": (more(s=TensorProto(dims=[3], data_type=TensorProto.INT4, raw_data=b"1")), "1 bytes where 2"),
    "2 bits short": (more(s=TensorProto(dims=[9], data_type=25, raw_data=b"1")), "1 bytes where 3 belong"),
    "8 bits short": (more(s=TensorProto(dims=[3], data_type=17, raw_data=b"1")), "1 bytes where 3 belong"),
    "in segments": (setting(lambda m: weight(m, "conv_b").segment, "begin", 1), "'conv_b' is stored in segments"),
    "without a name": (cleared(lambda m: weight(m, "conv_b"), "name"), "an initializer of dims (8,) has no name"),
    "of negative dims": (lambda m: weight(m, "conv_b").dims.append(-1), "'conv_b' has the dims (8, -1)"),
    "of endless dims": (lambda m: weight(m, "conv_b").dims.extend([1 << 40] * 2), "which no tensor can have"),
    "unlike the input of its name": (
        lambda m: m.graph.input.append(helper.make_tensor_value_info("conv_b", INT, [8])),
        "initializer 'conv_b' has another data type than the input of its name",
    ),
    "unlike the shape of its input": (
        lambda m: m.graph.input.append(helper.make_tensor_value_info("conv_b", FLOAT, [9])),
        "initializer 'conv_b' has the shape (8,), and the input of its name [9]",
    ),
    "sparse out of range": (sparse([1, 8]), "sparse tensor 'sp'"),
    "sparse out of order": (sparse([5, 1]), "sparse tensor 'sp'"),
    "sparse of too many places": (sparse([1, 2, 3]), "sparse tensor 'sp'"),
    "sparse of strings": (sparse([1, 2], kind=TensorProto.STRING), "sparse initializer 'sp' must hold numbers"),
    "sparse of negative dims": (sparse([1, 2], [-8]), "sparse initializer 'sp' has the dims (-8,)"),
    "sparse without values": (
        both(sparse([1, 2]), cleared(lambda m: m.graph.sparse_initializer[0].values, "float_data")),
        "sparse initializer 'sp', values does not hold (2,)",
    ),
    "sparse of no places": (
        both(sparse([1, 2]), cleared(lambda m: m.graph.sparse_initializer[0], "indices")),
        "sparse initializer 'sp', indices has data type 0",
    ),
    "sparse twice": (
        both(sparse([1, 2]), lambda m: m.graph.sparse_initializer.append(m.graph.sparse_initializer[0])),
        "sparse initializer 'sp' has the name of another tensor",
    ),
}

OUTSIDE: dict[str, tuple[Break, str]] = {
    "offset negative": (entry("offset", "-4"), "initializer 'fc_w' has '-4' as the offset"),
    "offset in words": (entry("offset", "banana"), "has 'banana' as the offset"),
    "offset empty": (entry("offset", ""), "has '' as the offset"),
    "offset a fraction": (entry("offset", "1.5"), "has '1.5' as the offset"),
    "offset in other digits": (entry("offset", "\u0661"), "as the offset"),
    "offset endless": (entry("offset", "9" * 5000), "as the offset"),
    "offset behind the file": (entry("offset", "4096"), "ends before it does, at 512 of 4,608 bytes"),
    "offset twice": (again("offset", "0"), "says the offset of its external data twice"),
    "length negative": (entry("length", "-4"), "has '-4' as the length"),
    "length in words": (entry("length", "much"), "has 'much' as the length"),
    "length short": (entry("length", "4"), "takes 512 bytes, and 4 of external data"),
    "length long": (entry("length", "4096"), "takes 512 bytes, and 4,096 of external data"),
    "location missing": (entry("location", "no.data"), "external data 'no.data' is missing"),
    "location empty": (entry("location", ""), "lies outside of the model, at no place ('')"),
    "location of NUL": (entry("location", "m\0.data"), "at no place ('m\\x00.data')"),
    "location endless": (entry("location", "a" * 5000), "is missing (File name too long)"),
    "location a folder": (entry("location", "."), "external data '.' is no file"),
    "location a pipe": (entry("location", "pipe"), "external data 'pipe' is no file"),
    "location above": (entry("location", "../m.data"), "points outside the model's folder, to '../m.data'"),
    "location absolute": (entry("location", "/etc/passwd"), "points outside the model's folder"),
    "location a device": (entry("location", "/dev/zero"), "points outside the model's folder"),
    "location a link out": (entry("location", "link"), "points outside the model's folder, to 'link'"),
    "location a link to itself": (entry("location", "loop"), "external data 'loop' is missing"),
    "location in memory": (entry("location", "*/_ORT_MEM_ADDR_/*"), "is missing"),
    "location twice": (again("location", "m.data"), "says the location of its external data twice"),
    "no location": (cleared(lambda m: weight(m, "fc_w"), "external_data"), "at no place ('')"),
    "not said to be outside": (cleared(lambda m: weight(m, "fc_w"), "data_location"), "0 in float_data where 128"),
    "of strings": (setting(lambda m: weight(m, "fc_w"), "data_type", 8), "holds strings, which cannot lie outside"),
    "of larger dims": (lambda m: weight(m, "fc_w").dims.append(2), "takes 1,024 bytes, and 512 of external data"),
    "in a body": (
        lambda m: body(m).initializer.append(_far("../m.data")),
        "in If 'branch': initializer 'far' points outside the model's folder",
    ),
    "in a constant": (
        more(helper.make_node("Constant", [], ["k"], value=TensorProto(dims=[4], data_type=FLOAT, data_location=1))),
        "node 'k' (Constant): its attribute 'value' lies outside of the model, at no place",
    ),
}

SETS: dict[str, tuple[Break, str]] = {
    "none": (imports(), "no operator set"),
    "no standard one": (imports(("local", 1)), "imports no operator set 'ai.onnx'"),
    "none of a function's": (imports(("", 17)), "node 'call' (Twice): its domain 'local' is not among"),
    "twice": (imports(("", 17), ("ai.onnx", 13), ("local", 1)), "imports 'ai.onnx' twice, as 17 and as 13"),
    "negative": (imports(("", -1), ("local", 1)), "imports version -1 of operator set 'ai.onnx'; name 1 at least"),
    "of no version": (imports(("", 0), ("local", 1)), "imports version 0 of operator set 'ai.onnx'"),
    "of the future": (imports(("", 99), ("local", 1)), "imports version 99 of operator set 'ai.onnx', and onnx"),
    "of the far future": (imports(("", 17), ("local", 1 << 62)), "of operator set 'local'"),
    "IR of the future": (setting(lambda m: m, "ir_version", 99), "ir_version 99 is higher"),
    "no IR version": (cleared(lambda m: m, "ir_version"), "does not have an ir_version"),
}

FUNCTIONS: dict[str, tuple[Break, str]] = {
    "twice": (lambda m: m.functions.append(m.functions[0]), "function 'Twice': is there twice"),
    "without a name": (function(lambda f: f.ClearField("name")), "has no name"),
    "without an output": (function(lambda f: f.ClearField("output")), "function 'Twice': has no output"),
    "of two inputs of one name": (function(lambda f: f.input.append("a")), "has two inputs or two outputs of one name"),
    "of an output without a name": (function(lambda f: f.output.append("")), "an input or output without a name"),
    "output undefined": (function(lambda f: f.output.append("no")), "function 'Twice': its output 'no' is made by no"),
    "reads around": (
        function(lambda f: f.node[0].input.append("hidden")),
        "node 'inner' (Relu), function 'Twice': its input 'hidden' is made by no node",
    ),
    "name twice": (
        function(lambda f: f.node.append(f.node[0])),
        "node 'inner' (Relu), function 'Twice': its output 'r' is already the name",
    ),
    "without nodes": (function(lambda f: f.ClearField("node")), "function 'Twice': its output 'b' is made by no"),
    "imports nothing": (function(lambda f: f.ClearField("opset_import")), "does not import its domain 'ai.onnx'"),
    "imports a negative version": (
        function(lambda f: setattr(f.opset_import[0], "version", -13)),
        "function 'Twice': imports version -13",
    ),
    "unknown operator": (function(lambda f: setattr(f.node[0], "op_type", "Rleu")), "no such operator in ONNX's set"),
    "called with too much": (reads("call", "chosen", "hidden"), "has 2 inputs, and the function that it calls 1"),
    "called for too much": (gives("call", "doubled", "k"), "has 2 outputs, and the function that it calls 1"),
    "called with too little": (reads("call"), "node 'call' (Twice)"),
    "calls itself": (
        function(
            lambda f: (
                setattr(f.node[0], "op_type", "Twice"),
                setattr(f.node[0], "domain", "local"),
                f.opset_import.append(helper.make_opsetid("local", 1)),
            )
        ),
        "function 'Twice' calls itself",
    ),
}

BODIES: dict[str, tuple[Break, str]] = {
    "empty": (lambda m: body(m).Clear(), "node 'branch' (If)"),
    "of no output": (lambda m: body(m).ClearField("output"), "node 'branch' (If)"),
    "of two outputs": (lambda m: body(m).output.append(body(m).output[0]), "node 'branch' (If)"),
    "of an input": (
        lambda m: body(m).input.append(helper.make_tensor_value_info("q", FLOAT, [1])),
        "node 'branch' (If)",
    ),
    "output undefined": (lambda m: setattr(body(m).output[0], "name", "no"), "in If 'branch': the graph's output 'no'"),
    "output of what is around": (lambda m: setattr(body(m).output[0], "name", "hidden"), "Graph output 'hidden'"),
    "input undefined": (
        lambda m: body(m).node[0].input.append("no"),
        "node 'then_Relu' (Relu), in If 'branch': its input 'no' is made by no node",
    ),
    "reads what comes later": (lambda m: setattr_first(body(m).node[0].input, "fc"), "read each other in a circle"),
    "name twice": (lambda m: body(m).node.append(body(m).node[0]), "output 'then_made' is already the name"),
    "name of what it reads": (
        lambda m: (setattr_first(body(m).node[0].output, "hidden"), setattr(body(m).output[0], "name", "hidden")),
        "'hidden' has been used as output names multiple times",
    ),
    "unknown operator": (lambda m: setattr(body(m).node[0], "op_type", "Rleu"), "no such operator in ONNX's set 17"),
    "weight cut": (
        lambda m: body(m).initializer.append(TensorProto(name="w", dims=[4], data_type=FLOAT, raw_data=b"1")),
        "m.onnx, in If 'branch': initializer 'w' does not hold (4,) elements",
    ),
    "of another type": (
        lambda m: setattr(body(m).output[0].type.tensor_type, "elem_type", INT),
        "node 'branch' (If)",
    ),
    "of a node without outputs": (gives("branch", ""), "is made by no node|has no output"),
    "loop without its state": (loop(a=reads("loop", "trips", "flag")), "node 'loop' (Loop)"),
    "loop of too much state": (loop(a=reads("loop", "trips", "flag", "act", "act")), "node 'loop' (Loop)"),
    "loop of one input": (loop(a=reads("loop", "trips")), "node 'loop' (Loop): it has 1 inputs"),
    "loop of too many outputs": (loop(a=gives("loop", "looped", "k")), "node 'loop' (Loop)"),
    "loop of too few results": (loop(a=lambda m: inside(m).output.pop()), "node 'loop' (Loop)"),
    "scan of no number": (
        scan(lambda m: node(m, "scan").attribute.remove(attribute(m, "scan", "num_scan_inputs"))),
        "node 'scan' (Scan): Required attribute 'num_scan_inputs' is missing",
    ),
    "scan of too many": (scan(lambda m: setattr(attribute(m, "scan", "num_scan_inputs"), "i", 9)), "'scan' (Scan)"),
    "scan of none": (scan(lambda m: setattr(attribute(m, "scan", "num_scan_inputs"), "i", 0)), "'scan' (Scan)"),
    "scan along no axis": (scan(attributes("scan", helper.make_attribute("scan_input_axes", [9]))), "'scan' (Scan)"),
    "scan of too many outputs": (scan(gives("scan", "last", "all", "k")), "node 'scan' (Scan)"),
}

TEXT: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    name: (replaced(old, old[:1] + b"\xff" + old[2:]), "is no text in UTF-8")
    for name, old in {
        "tensor": b"hidden",
        "node": b"relu",
        "operator": b"Relu",
        "weight": b"conv_w",
        "dim": b"batch",
        "attribute": b"kernel_shape",
        "domain": b"local",
        "function": b"Twice",
        "location": b"m.data",
        "key": b"offset",
        "producer": b"test",
        "graph": b"small",
        "body": b"then_made",
    }.items()
}

BROKEN = {
    f"{kind}: {name}": case
    for kind, cases in {
        "graph": GRAPHS,
        "attribute": ATTRIBUTES,
        "tensor": TENSORS,
        "outside": OUTSIDE,
        "sets": SETS,
        "function": FUNCTIONS,
        "body": BODIES,
    }.items()
    for name, case in cases.items()
}


def setattr_first(names: object, name: str) -> None:
    names[0] = name  # type: ignore[index]


def _far(place: str) -> TensorProto:
    found = TensorProto(name="far", dims=[4], data_type=FLOAT, data_location=TensorProto.EXTERNAL)
    found.external_data.add(key="location", value=place)
    return found
