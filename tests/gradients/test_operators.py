"""Which operators have no gradient, and why: none may join them unseen."""

from __future__ import annotations

import onnx.defs

from graphprune.gradients.expansion import BODIES
from graphprune.gradients.opsets import CHANGES
from graphprune.gradients.table import FLAT, RULES
from graphprune.rules import operators

_SEQUENCES = "its tensors are in sequences, which the walk does not follow"
_DISCRETE = "its inputs or outputs are text, chosen or counted"
_SPECTRUM = "it is a Fourier transform, whose transpose is not written yet"
_SAMPLED = "it reads between elements at places that are inputs too, and both derivatives are to be written"
_LAYOUT = "its layout is channels last, which no exporter writes"
_REASONS = {
    _SEQUENCES: """
        ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct SequenceEmpty
        SequenceErase SequenceInsert SequenceLength SplitToSequence
    """,
    _DISCRETE: """
        ImageDecoder Multinomial NonMaxSuppression RegexFullMatch StringConcat StringNormalizer StringSplit
        TfIdfVectorizer Unique com.microsoft:Unique
    """,
    _SPECTRUM: "DFT MelWeightMatrix STFT",
    _SAMPLED: "DeformConv GridSample MaxRoiPool RoiAlign com.microsoft:GridSample",
    _LAYOUT: "com.microsoft:NhwcConv com.microsoft:NhwcFusedConv com.microsoft:NhwcMaxPool",
    "its experts are chosen by a kernel that says nothing of its choice": "com.microsoft:MoE",
    "ONNX Runtime has no kernel for processors to hold a rule against": """
        com.microsoft:RelativePositionBias com.microsoft:SwiGLU
    """,
    "a product of all minors, or of all in front, with zeros among them": "CumProd Det",
    "a rule is not written yet": "com.microsoft:ConvTransposeWithDynamicPads com.microsoft:SkipGroupNorm",
}
WITHOUT = {op for ops in _REASONS.values() for op in ops.split()}
"""Operators of ONNX and of com.microsoft that stop gradients for want of a rule."""


def test_what_has_no_gradient_is_known() -> None:
    assert {name for domain, name, key in _asked() if not _told(*key) and domain in ("", "com.microsoft")} == WITHOUT


def _asked() -> list[tuple[str, str, tuple[str, str]]]:
    named = [(e.domain, f"{e.domain}:{e.op}" if e.domain else e.op, (e.domain, e.op)) for e in operators()]
    return [entry for entry in named if entry[2][1] not in CHANGES or entry[2] in RULES]


def _told(domain: str, op: str) -> bool:
    key = (domain, op)
    return key in RULES or key in BODIES or op in FLAT.get(domain, ()) or (domain == "" and _by_schema(op))


def _by_schema(op: str) -> bool:
    if not onnx.defs.has(op):
        return False
    schema = onnx.defs.get_schema(op)
    return bool(schema.has_function or schema.has_context_dependent_function)
