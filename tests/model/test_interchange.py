"""Models in the forms of other libraries, and back: nothing that the model carried is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir
import pytest
from onnx import ModelProto, numpy_helper

import models
from graphprune.errors import InputError
from graphprune.model import interchange, load

FORMS = (interchange.PROTO, interchange.IR, interchange.SURGEON)


def talkative() -> ModelProto:
    """A model that says something wherever one can."""
    model = models.export("gru-tagger-dynamo18s")
    model.doc_string, model.model_version, model.domain, model.producer_version = "model", 7, "com.example", "9"
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "unused"))
    for one in (model, graph, graph.node[0], graph.input[0], graph.output[0], graph.initializer[0]):
        one.metadata_props.add(key="said", value="something")
    for one in (graph, graph.node[0], graph.input[0], graph.output[0], graph.initializer[0]):
        one.doc_string = "words"
    note = graph.quantization_annotation.add(tensor_name=graph.node[0].output[0])
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="unused")
    return model


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_lost(form: str) -> None:
    before = talkative()
    given = interchange.convert(load(before), form)
    after = given.back(given.value, "a step").proto
    for field in ("doc_string", "model_version", "domain", "producer_name", "producer_version", "ir_version"):
        assert getattr(after, field) == getattr(before, field), field
    assert said(after.metadata_props) == said(before.metadata_props)
    assert after.graph.doc_string == "words" and said(after.graph.metadata_props) == said(before.graph.metadata_props)
    assert after.graph.quantization_annotation == before.graph.quantization_annotation
    for field in ("node", "input", "output", "initializer"):
        old, new = ({told(one): one for one in getattr(m.graph, field)} for m in (before, after))
        assert list(old) == list(new) or (field == "initializer" and set(old) == set(new))
        for name, one in old.items():
            assert (one.doc_string, said(one.metadata_props)) == (new[name].doc_string, said(new[name].metadata_props))
    weights = [{t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (before, after)]
    assert all(np.array_equal(value, weights[1][name]) for name, value in weights[0].items())


def said(props: Any) -> dict[str, str]:
    return {prop.key: prop.value for prop in props}


def told(one: Any) -> str:
    return str(one.name or one.output[0])


def test_what_is_taken_out_stays_out() -> None:
    """A library that keeps documentation lets its user take it out."""
    given = interchange.convert(load(talkative()), interchange.IR)
    given.value.doc_string = None
    given.value.metadata_props.clear()
    after = given.back(given.value, "a step").proto
    assert not after.doc_string and not after.metadata_props


def test_the_model_itself_is_not_changed() -> None:
    model = load(talkative())
    whole = model.proto.SerializeToString(deterministic=True)
    for form in FORMS:
        given = interchange.convert(model, form)
        if isinstance(given.value, ModelProto):
            given.value.graph.node[0].doc_string = "changed"
        elif isinstance(given.value, gs.Graph):
            given.value.nodes[0].name = "changed"
        else:
            given.value.graph.node(0).name = "changed"
    assert model.proto.SerializeToString(deterministic=True) == whole


def test_what_is_no_model() -> None:
    given = interchange.convert(load(talkative()), interchange.PROTO)
    with pytest.raises(InputError, match="theirs:f gave a dict, which is no model"):
        given.back({}, "theirs:f")
    broken = ModelProto()
    broken.CopyFrom(given.value)
    del broken.graph.node[0]
    with pytest.raises(InputError, match="is made by no node"):
        given.back(broken, "theirs:f")


@pytest.mark.parametrize(
    ("annotation", "form"),
    [(ModelProto, FORMS[0]), (Any, FORMS[0]), ("onnx.ModelProto", FORMS[0]), (ir.Model, FORMS[1]),
     ("ir.Model", FORMS[1]), (gs.Graph, FORMS[2]), ("gs.Graph", FORMS[2])],
)  # fmt: skip
def test_annotations(annotation: Any, form: str) -> None:
    assert interchange.named(annotation, "theirs:f") == form


def test_an_annotation_of_something_else() -> None:
    with pytest.raises(InputError, match=r"theirs:f takes a onnx\.NodeProto; a step takes"):
        interchange.named("onnx.NodeProto", "theirs:f")
    with pytest.raises(InputError, match="theirs:f"):
        interchange.named(onnx.NodeProto, "theirs:f")
