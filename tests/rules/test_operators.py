"""Every operator has a rule or a reason, and the table in the docs says which."""

from pathlib import Path

import onnx
import onnxruntime.capi.onnxruntime_pybind11_state as runtime
import pytest

import graphprune.rules
from graphprune.cli.ops import as_markdown
from graphprune.rules import find, microsoft, operators

LISTED = Path(graphprune.rules.__file__).with_name("OPERATORS.md")


def test_every_operator_of_onnx_has_a_rule_or_a_reason() -> None:
    """Fails when a new release of onnx adds an operator: give it a line in the table, or a reason."""
    missing = {(s.domain, s.name) for s in onnx.defs.get_all_schemas() if find(s.domain, s.name) is None}
    assert not missing


def test_the_table_in_the_docs_is_the_one_that_is_made() -> None:
    """Domains that only pin differ between releases of onnx; the rules are ours."""
    made = [line for line in as_markdown(operators()).splitlines() if "| rule |" in line]
    assert made == [line for line in LISTED.read_text().splitlines() if "| rule |" in line]


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
