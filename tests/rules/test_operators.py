"""Every operator has a rule or a reason, and the table in the docs says which."""

from math import prod
from pathlib import Path

import onnx
import onnxruntime.capi.onnxruntime_pybind11_state as runtime
import pytest

import graphprune.rules
from graphprune.cli.ops import as_lines, as_markdown
from graphprune.rules import NodeView, control, find_rule, microsoft, operators, rule
from graphprune.rules.examples import Example, examples

ALL_ALIKE = ("Identity", "Relu", "Sigmoid", "Sqrt", "Log")
LISTED = Path(graphprune.rules.__file__).with_name("OPERATORS.md")


def test_every_operator_of_onnx_has_a_rule_or_a_reason() -> None:
    """Fails when a new release of onnx adds an operator: give it a line in the table, or a reason."""
    missing = {(s.domain, s.name) for s in onnx.defs.get_all_schemas() if find_rule(s.domain, s.name) is None}
    assert not missing


def test_the_table_in_the_docs_is_the_one_that_is_made() -> None:
    """Domains that only pin differ between releases of onnx; the rules are ours."""
    made = [line for line in as_markdown(operators()).splitlines() if "| rule |" in line]
    assert made == [line for line in LISTED.read_text().splitlines() if "| rule |" in line]


def test_what_rules_say_is_what_is_written_down() -> None:
    """A change of a rule shows there: ``graphprune ops --lines > graphprune/rules/LINES.txt``."""
    assert as_lines() == LISTED.with_name("LINES.txt").read_text()


def test_no_ruled_operator_is_without_a_line() -> None:
    shown = {(e.node.domain, e.node.op) for e in examples()}
    ruled = {(e.domain, e.op) for e in operators() if not e.pins}
    flat = {(control.DOMAIN, op) for op in ("Enter", "If", "Loop", "Scan")}
    assert shown - flat == ruled - {("", op) for _, op in flat}
    assert flat <= shown


@pytest.mark.parametrize("example", tuple(examples()), ids=lambda e: f"{e.node.op}: {e.text}")
def test_an_example_is_one_that_its_rule_can_judge(example: Example) -> None:
    """A line that only pins because shapes do not fit would say nothing of the rule."""
    relation, node = rule(example.node), example.node
    name = f"{node.domain}:{node.op}" if node.domain else node.op
    assert not any(dim.pinned and dim.pinned.startswith(f"{name}: ") for dim in relation.dims)
    for shapes, tensors in ((node.inputs, relation.inputs), (node.outputs, relation.outputs)):
        for shape, axes in zip(shapes, tensors, strict=True):
            if axes is not None and shape is not None:
                sizes = [
                    prod(relation.dims[d].size for d in a.dims) if a.lookup is None else len(a.lookup) for a in axes
                ]
                assert sizes == list(shape)


def test_operators_that_differ_print_differently() -> None:
    lines = {op: str(rule(NodeView(op, "", 17, {}, ((2, 3),), ((2, 3),), (None,)))) for op in ALL_ALIKE}
    assert lines == {
        "Identity": "a b -> a b  [zero 0] [moves 0 1]",
        "Relu": "a b -> a b  [zero 0]",
        "Sigmoid": "a b -> a b",
        "Sqrt": "a b -> a b  [zero 0] [of degree 0.5 in 0]",
        "Log": "a b -> a b  [zero /0]",
    }


def test_no_rule_is_for_an_operator_that_does_not_exist() -> None:
    """A slip in a name would give a rule to nothing. Releases before ours lack what was added since."""
    known = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    young = {"BitCast", "CausalConvWithState", "CumProd", "LinearAttention", "SwiGLU", "Swish", "TensorScatter"}
    assert {e.op for e in operators() if e.domain == ""} - known <= {"SimplifiedLayerNormalization"} | young
    contributed = {s.name for s in runtime.get_all_operator_schema() if s.domain == "com.microsoft"}
    assert set(microsoft.TABLE) - contributed <= {"SimplifiedLayerNormalization", "Gelu", "SwiGLU"}


@pytest.mark.parametrize("op", ["Det", "SequenceAt", "NonZero"])
def test_a_reason_is_a_sentence(op: str) -> None:
    (entry,) = (e for e in operators() if e.op == op and e.domain == "")
    assert entry.pins and len(entry.text.split()) > 4
