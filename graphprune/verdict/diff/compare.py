"""What changed between two models, by nodes that are the same: widths, operators, weights, attributes, interface."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx import TensorProto, TypeProto, ValueInfoProto

from graphprune import __version__
from graphprune.analysis import cost, shapes, web
from graphprune.errors import GraphpruneError
from graphprune.model import AnyModel, Model, load
from graphprune.model.arguments import InputShapes, checked
from graphprune.model.canonical import canonicalize, inline
from graphprune.verdict.diff import constants, nodes
from graphprune.verdict.diff.flat import flatten
from graphprune.verdict.diff.match import HOW, match

FORMAT = "graphprune-diff/1"


@dataclass(frozen=True)
class Diff:
    """What changed between two models; ``data`` is its JSON, as ``diff.schema.json`` has it."""

    data: dict[str, Any]

    @property
    def same(self) -> bool:
        """Whether they compute the same from the same inputs as far as files tell: names and notes may differ."""
        return bool(self.data["same"])

    def to_json(self) -> dict[str, Any]:
        """Everything that was found."""
        return self.data


@checked
def diff(a: AnyModel, b: AnyModel, input_shapes: InputShapes | None = None, *, run: bool = True) -> Diff:
    """Find what changed between two models.

    Args:
        a: the one, a path or a model in memory.
        b: the other.
        input_shapes: sizes for inputs whose free dims the program cannot guess.
        run: run both, to count multiply-accumulates; else only their files are looked at.

    Raises:
        InputError: one of them is not a model.
    """
    models = [load(a), load(b)]
    notes = []
    functions = [{(f.domain, f.name) for f in own.proto.functions} for own in models]
    opened = models
    if functions[0] != functions[1] and any(functions):
        opened = [inline(own) for own in models]
        notes.append("the models have different functions of their own; both are compared with these laid open")
    pairs = match(flatten(opened[0]), flatten(opened[1]))
    totals = [_totals(own, input_shapes or {}, run, notes) for own in models]
    weights, told = constants.compare(pairs)
    data: dict[str, Any] = {
        "format": FORMAT,
        "graphprune": __version__,
        "models": [{**own, "nodes": len(flat.nodes)} for own, flat in zip(totals, (pairs.a, pairs.b), strict=True)],
        "matched": {"nodes": len(pairs.how), "by": {how: Counter(pairs.how.values())[how] for how in HOW}},
        "widths": constants.widths(weights),
        "operators": nodes.operators(pairs),
        "wiring": nodes.wiring(pairs),
        "attributes": nodes.attributes(pairs),
        "weights": {"counts": told, "entries": weights},
        "interface": _interface(models),
        "opsets": _changes("domain", *(own.opsets for own in models)),
        "metadata": _changes("key", *map(_metadata, models)),
        "notes": notes,
    }
    return Diff({**data, "same": _same(data)})


def _same(data: dict[str, Any]) -> bool:
    operators = data["operators"]
    parts: list[Any] = [[e for e in operators[key] if e["op"] != "Identity"] for key in ("added", "removed")]
    parts.append(operators["changed"])
    parts += [data["wiring"], data["attributes"], data["opsets"]]
    parts.append([e for e in data["weights"]["entries"] if "unread" not in e])
    sides = [entry for entries in data["interface"].values() for entry in entries]
    return not any(parts) and all(entry["before"] == entry["after"] for entry in sides)


def _totals(model: Model, input_shapes: Mapping[str, Any], run: bool, notes: list[str]) -> dict[str, Any]:
    macs = None
    if run:
        try:
            macs = _macs(model, input_shapes)
        except GraphpruneError as error:
            notes.append(f"multiply-accumulates are not known: {error}")
    return {
        "file": model.name,
        "sha256": model.sha256,
        "parameters": cost.parameters(model),
        "macs": macs,
        "bytes": cost.file_bytes(model),
    }


def _macs(model: Model, input_shapes: Mapping[str, Any]) -> int:
    """Multiply-accumulates, which relations count; what hangs together is not asked."""
    names = {i.name for i in model.inputs}
    loaded = canonicalize(model)
    witness = shapes.find_witness(loaded, {n: s for n, s in input_shapes.items() if n in names})
    return cost.counted(web.build(loaded, witness))


def _interface(models: list[Model]) -> dict[str, list[dict[str, Any]]]:
    """Inputs and outputs that differ: matched by name, the rest by place where as many are left."""
    found = {}
    for side in ("inputs", "outputs"):
        one, other = ({v.name: v for v in (own.inputs if side == "inputs" else own.graph.output)} for own in models)
        left, right = [n for n in one if n not in other], [n for n in other if n not in one]
        pairs: list[tuple[str | None, str | None]] = [(n, n) for n in one if n in other]
        if len(left) == len(right):
            pairs += list(zip(left, right, strict=True))
        else:
            pairs += [(n, None) for n in left] + [(None, n) for n in right]
        found[side] = [
            {
                "names": [n, m],
                "before": None if n is None else _value(one[n]),
                "after": None if m is None else _value(other[m]),
            }
            for n, m in pairs
            if n is None or m is None or n != m or _value(one[n]) != _value(other[m])
        ]
    return found


def _value(value: ValueInfoProto) -> dict[str, Any]:
    """Type and shape as they are declared; a free dim by its name, or ``?``."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return {"type": kind or "", "shape": None}
    tensor: TypeProto.Tensor = value.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]
    return {
        "type": TensorProto.DataType.Name(tensor.elem_type).lower(),
        "shape": dims if tensor.HasField("shape") else None,
    }


def _metadata(model: Model) -> dict[str, Any]:
    proto = model.proto
    found: dict[str, Any] = {p.key: p.value for p in proto.metadata_props}
    named = {"name": proto.graph.name, "ir_version": proto.ir_version, "producer": proto.producer_name}
    named |= {"producer_version": proto.producer_version, "domain": proto.domain, "doc_string": proto.doc_string}
    return {**{f"({key})": value for key, value in named.items() if value}, **found}


def _changes(key: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What of two tables differs; None where one has no such entry."""
    names = dict.fromkeys([*one, *other])
    return [
        {key: name, "before": one.get(name), "after": other.get(name)}
        for name in names
        if one.get(name) != other.get(name)
    ]
