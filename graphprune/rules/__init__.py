"""Rules: an ONNX node in, a relation out. No weights are read and nothing is changed.

Rules of other packages come in through the entry point group ``graphprune.rules``: each entry is named
``domain:op`` (``com.example:MyOp``) and loads a function from :class:`NodeView` to :class:`Relation`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import entry_points

from graphprune.control import DOMAIN
from graphprune.notation import NotationError, bind, pinned
from graphprune.relation import Relation
from graphprune.rules import control, microsoft
from graphprune.rules.classical import pinned_domains
from graphprune.rules.node import NodeView, Rule, Unruled
from graphprune.rules.table import TABLE

__all__ = ["Entry", "NodeView", "Rule", "Unruled", "bind", "find", "operators", "register", "rule"]

_CONTROL: dict[str, Rule] = {
    "Enter": control.enter,
    "If": control.branches,
    "Loop": control.loop,
    "Scan": control.scan,
}
_registered: dict[tuple[str, str], Rule] = {
    **{("", op): entry for op, entry in TABLE.items()},
    **pinned_domains(),
    **{("com.microsoft", op): entry for op, entry in microsoft.TABLE.items()},
    **{(DOMAIN, op): entry for op, entry in _CONTROL.items()},
    ("", "SimplifiedLayerNormalization"): microsoft.TABLE["SimplifiedLayerNormalization"],  # so ONNX Runtime writes it
}


def register(op: str, function: Rule, domain: str = "") -> None:
    """Give an operator a rule, in place of the one that it may have."""
    _registered[(domain, op)] = function


@lru_cache(maxsize=1)
def _foreign() -> dict[tuple[str, str], Rule]:
    found: dict[tuple[str, str], Rule] = {}
    for entry in entry_points(group="graphprune.rules"):
        domain, _, op = entry.name.rpartition(":")
        found[(domain, op)] = entry.load()
    return found


def find(domain: str, op: str) -> Rule | None:
    """The rule of an operator, or None."""
    domain = "" if domain == "ai.onnx" else domain
    return _registered.get((domain, op)) or _foreign().get((domain, op))


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of an operator.

    Attributes:
        domain, op: the operator; "" is ONNX's own domain.
        pins: whether it pins all that it touches, always.
        text: what its rule says, or why it pins.
    """

    domain: str
    op: str
    pins: bool
    text: str


def operators() -> list[Entry]:
    """Every operator that has a rule or a reason, by domain and name."""
    found = []
    known = {key: entry for key, entry in {**_foreign(), **_registered}.items() if key[0] != DOMAIN}
    known |= {("", op): _CONTROL[op] for op in ("If", "Loop", "Scan")}
    for (domain, op), function in sorted(known.items()):
        first = (function.__doc__ or "a rule of its own").strip().splitlines()[0]
        pins = first.startswith("pins: ")
        found.append(Entry(domain, op, pins, first.removeprefix("pins: ")))
    return found


def rule(node: NodeView) -> Relation:
    """What a node says about the axes of its tensors.

    An operator without a rule, or a node that its rule cannot judge, pins every axis that it touches, with the reason.
    """
    function = find(node.domain, node.op)
    name = f"{node.domain}:{node.op}" if node.domain else node.op
    try:
        if function is None:
            raise Unruled("it has no rule; register one through the entry point group 'graphprune.rules'")
        found = function(node)
        missing = len(node.inputs) - len(found.inputs), len(node.outputs) - len(found.outputs)
        return replace(found, inputs=found.inputs + (None,) * missing[0], outputs=found.outputs + (None,) * missing[1])
    except Unruled as no:
        return pinned(node.inputs, node.outputs, f"{name}: {no}")
    except NotationError as no:
        return pinned(node.inputs, node.outputs, f"{name}: {no}")
