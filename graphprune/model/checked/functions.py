"""Functions that a model brings: what they take and give, and how many nodes there are once each call is laid open.

ONNX Runtime looks for an operator first, and for a function only where there is none. So a function with the name of an
operator is never called; many models bring some, for readers that lack the operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache

import onnx
import onnxruntime.capi.onnxruntime_pybind11_state as runtime
from onnx import FunctionProto, ModelProto, NodeProto

from graphprune.errors import InputError
from graphprune.model.bodies import every
from graphprune.model.checked import graphs, opsets, text

LIMIT = 1_000_000
"""Nodes that a model may unfold to: ten times those of the largest models that are exported."""
_Key = tuple[str, str, str]


def called(proto: ModelProto) -> dict[_Key, FunctionProto]:
    """Functions of a model that a node may mean: all that no operator takes the place of, by domain, name, overload."""
    imports = {one.domain: one.version for one in proto.opset_import}
    found = {}
    for function in proto.functions:
        domain = "" if function.domain == "ai.onnx" else function.domain
        if not _operator(function.name, domain, imports.get(function.domain, imports.get(domain, 1))):
            found[function.domain, function.name, function.overload] = function
    return found


def _operator(name: str, domain: str, version: int) -> bool:
    """Whether ONNX Runtime has an operator of this name."""
    if domain in onnx.defs.C.schema_version_map():
        return bool(onnx.defs.has(name, version, domain))
    return (domain, name) in _contributed()


@cache
def _contributed() -> frozenset[tuple[str, str]]:
    """Operators of ONNX Runtime's own."""
    return frozenset((schema.domain, schema.name) for schema in runtime.get_all_operator_schema())


def see(proto: ModelProto, scope: graphs.Scope) -> None:
    """See to functions: their own graphs, their calls, and that laying them open comes to an end.

    Each function is counted once, whoever calls it: some that double thirty times in a row are small on disk.

    Raises:
        InputError: one is no function, is called with what it does not take, or calls itself, by others or at once; or
            the nodes would be more than :data:`LIMIT`.
    """
    if not proto.functions:
        return
    name = scope.model
    seen: set[_Key] = set()
    for function in proto.functions:
        _own(function, scope, seen)
    named = called(proto)
    for node in every([*proto.graph.node, *(n for f in named.values() for n in f.node)]):
        if _key(node) in named:
            _call(node, named[_key(node)], scope)
    bodies = {key: list(function.node) for key, function in named.items()}
    sizes: dict[_Key, int] = {}
    for key in _callees_first(bodies, name):
        sizes[key] = _size(bodies[key], sizes)
    total = _size(proto.graph.node, sizes)
    most = max((key for key in keys(proto.graph.node) if key in sizes), key=lambda key: sizes[key], default=None)
    if most is not None and total > LIMIT:
        raise InputError(
            f"{name}: its functions unfold to {total:,} nodes, {sizes[most]:,} of them behind one call of "
            f"{most[1]!r}; at most {LIMIT:,} are worked on"
        )


def _own(function: FunctionProto, scope: graphs.Scope, seen: set[_Key]) -> None:
    """See to what one function is."""
    text.see_fields(function, f"{scope.model}: function")
    formal = frozenset([*function.attribute, *(a.name for a in function.attribute_proto)])
    scope = replace(scope, inside=f", function {function.name!r}", formal=formal)
    where = scope.where
    key = function.domain, function.name, function.overload
    if not function.name or key in seen:
        raise InputError(f"{where}: {'is there twice' if function.name else 'has no name'}; keep one, with a name")
    seen.add(key)
    opsets.see(function.opset_import, where, "have the model written for operators that are known")
    own, made = set(function.input), {o for n in function.node for o in n.output} | set(function.input)
    if len(own) < len(function.input) or len(set(function.output)) < len(function.output):
        raise InputError(f"{where}: has two inputs or two outputs of one name; give each its own")
    if not function.output or not all(function.output) or not all(function.input):
        raise InputError(
            f"{where}: has {'an input or output without a name' if function.output else 'no output'}; give it one"
        )
    graphs.see_nodes(function.node, own, scope)
    if (lost := next((o for o in function.output if o not in made), None)) is not None:
        raise InputError(f"{where}: its output {lost!r} is made by no node; name one that is")
    known = {"" if one.domain == "ai.onnx" else one.domain for one in function.opset_import}
    for place, node in enumerate(function.node):
        if ("" if node.domain == "ai.onnx" else node.domain) not in known:
            domain = node.domain or "ai.onnx"
            raise InputError(f"{scope.label(node, place)}: the function does not import its domain {domain!r}; add it")


def _call(node: NodeProto, function: FunctionProto, scope: graphs.Scope) -> None:
    for what, given, taken in (("input", node.input, function.input), ("output", node.output, function.output)):
        if len(given) > len(taken):
            label = scope.label(node, 0)
            raise InputError(
                f"{label}: has {len(given)} {what}s, and the function that it calls {len(taken)}; take the rest away"
            )


def keys(nodes: Iterable[NodeProto]) -> Iterator[_Key]:
    """What nodes call, were it a function: those of the bodies in them too."""
    return map(_key, every(nodes))


def _key(node: NodeProto) -> _Key:
    return node.domain, node.op_type, node.overload


def _size(nodes: Iterable[NodeProto], sizes: dict[_Key, int]) -> int:
    return sum(sizes.get(_key(node), 1) for node in every(nodes))


def _callees_first(bodies: dict[_Key, list[NodeProto]], name: str) -> Iterator[_Key]:
    """Functions, each behind those that it calls; without recursion here, as chains of them may be long."""
    done: set[_Key] = set()
    for first in bodies:
        path = [(first, iter(_called(bodies, first)))] if first not in done else []
        on_path = dict.fromkeys([first]) if path else {}
        while path:
            key, callees = path[-1]
            callee = next((c for c in callees if c not in done), None)
            if callee is None:
                path.pop()
                del on_path[key]
                done.add(key)
                yield key
            elif callee in on_path:
                raise InputError(f"{name}: function {callee[1]!r} calls itself{_by(key, callee)}, which ONNX forbids")
            else:
                path.append((callee, iter(_called(bodies, callee))))
                on_path[callee] = None


def _called(bodies: dict[_Key, list[NodeProto]], key: _Key) -> list[_Key]:
    return list(dict.fromkeys(k for node in every(bodies[key]) if (k := _key(node)) in bodies))


def _by(key: _Key, callee: _Key) -> str:
    return "" if key == callee else f" by way of {key[1]!r}"
