"""Rules: an ONNX node in, a relation out. No weights are read and nothing is changed.

Rules of other packages come in through the entry point group ``graphprune.rules``: each entry is named
``domain:op`` (``com.example:MyOp``) and loads a function from :class:`NodeView` to :class:`Relation`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import entry_points
from math import prod

from graphprune.errors import FaultError, GraphpruneError
from graphprune.relation import Relation
from graphprune.relation.binding import bind, pinned
from graphprune.relation.errors import FitError
from graphprune.relation.notation import Line
from graphprune.relation.zero import Sum, Zero
from graphprune.rules import choosing, control, microsoft
from graphprune.rules.classical import pinned_domains
from graphprune.rules.node import NodeView, Rule, Unruled
from graphprune.rules.table import TABLE

__all__ = ["Entry", "Line", "NodeView", "Rule", "Unruled", "bind", "find_rule", "operators", "register", "rule"]

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
    **{(control.DOMAIN, op): entry for op, entry in _CONTROL.items()},
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
        try:
            found[(domain, op)] = entry.load()
        except Exception as slip:
            raise FaultError(
                f"entry point {entry.name!r} of group 'graphprune.rules' cannot be loaded ({_shown(slip)}); mend or "
                "uninstall the package that brings it"
            ) from slip
    return found


def _shown(slip: Exception) -> str:
    return f"{type(slip).__name__}: {' '.join(str(slip).split())}"


def find_rule(domain: str, op: str) -> Rule | None:
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
    known = {key: entry for key, entry in {**_foreign(), **_registered}.items() if key[0] != control.DOMAIN}
    known |= {("", op): _CONTROL[op] for op in ("If", "Loop", "Scan")}
    for (domain, op), function in sorted(known.items()):
        first = (function.__doc__ or "a rule of its own").strip().splitlines()[0]
        pins = first.startswith("pins: ")
        found.append(Entry(domain, op, pins, first.removeprefix("pins: ")))
    return found


def rule(node: NodeView, where: str = "") -> Relation:
    """What a node says about the axes of its tensors.

    An operator without a rule, or a node that its rule cannot judge, pins every axis that it touches, with the reason.

    Args:
        node: the node.
        where: what to call it in errors.

    Raises:
        FaultError: the rule fails, or what it gives is no relation: a slip in the rule, which must not pin in silence.
    """
    function = find_rule(node.domain, node.op)
    name = f"{node.domain}:{node.op}" if node.domain else node.op
    try:
        if function is None:
            raise Unruled("it has no rule; register one through the entry point group 'graphprune.rules'")
        if node.unknown:  # a rule would take it for one that is not there, and leave free what it must hold
            raise Unruled(f"its {node.unknown} has no known shape")
        found = choosing.moved_on(node, function(node))
        if not isinstance(found.zero, Zero) or not isinstance(found.sums, Sum):
            raise TypeError("what is zero is given as text: read it by Zero.parse, and sums by Sum.parse")
        if unfit := _unfit(node, found):
            raise Unruled(unfit)
        missing = len(node.inputs) - len(found.inputs), len(node.outputs) - len(found.outputs)
        return replace(found, inputs=found.inputs + (None,) * missing[0], outputs=found.outputs + (None,) * missing[1])
    except (Unruled, FitError) as no:
        return pinned(node.inputs, node.outputs, f"{name}: {no}")
    except GraphpruneError:
        raise
    except Exception as slip:
        own = (node.domain, node.op) in _registered
        which = "" if own else f" (entry point '{node.domain}:{node.op}' of group 'graphprune.rules')"
        remedy = "report it, or keep the operator out by 'rules.register'" if own else "mend the package that brings it"
        raise FaultError(
            f"{where or 'a node'}: the rule of operator {name}{which} fails ({_shown(slip)}); this is a fault of the "
            f"rule, not of the model: {remedy}"
        ) from slip


def _unfit(node: NodeView, relation: Relation) -> str:
    """Where a relation speaks of other sizes than a tensor has: the attributes of the node contradict its shapes."""
    for (side, place), axes in relation.slots():
        shapes = node.inputs if side == "in" else node.outputs
        shape = shapes[place] if place < len(shapes) else None
        sizes = tuple(
            prod(relation.dims[d].size for d in axis.dims) if axis.lookup is None else len(axis.lookup) for axis in axes
        )
        if shape is not None and sizes != tuple(shape):
            word = {"in": "input", "out": "output"}[side]
            return f"by its attributes its {word} {place} would be of shape {list(sizes)}, and it is of {list(shape)}"
    return ""
