"""Functions that a model brings: how many nodes there are once each call is laid open, before any is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import ModelProto, NodeProto

from graphprune.errors import InputError
from graphprune.model.bodies import subgraphs

LIMIT = 1_000_000
"""Nodes that a model may unfold to: ten times those of the largest models that are exported."""
_Key = tuple[str, str, str]


def check_functions(proto: ModelProto, name: str) -> None:
    """See that a model's functions call each other in no circle, and that laying them open comes to an end.

    Each function is counted once, whoever calls it: some that double thirty times in a row are small on disk.

    Args:
        proto: the model.
        name: what to call it.

    Raises:
        InputError: a function calls itself, by others or at once; or the nodes would be more than :data:`LIMIT`.
    """
    bodies = {(f.domain, f.name, f.overload): list(f.node) for f in proto.functions}
    if not bodies:
        return
    sizes: dict[_Key, int] = {}
    for key in _callees_first(bodies, name):
        sizes[key] = _size(bodies[key], sizes)
    total = _size(proto.graph.node, sizes)
    if total > LIMIT:
        called = max((_key(n) for n in _nodes(proto.graph.node) if _key(n) in sizes), key=lambda k: sizes[k])
        raise InputError(
            f"{name}: its functions unfold to {total:,} nodes, {sizes[called]:,} of them behind one call of "
            f"{called[1]!r}; at most {LIMIT:,} are worked on"
        )


def _key(node: NodeProto) -> _Key:
    return node.domain, node.op_type, node.overload


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, and those of the bodies in them."""
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            yield node
            waiting.extend(body.node for body in subgraphs(node))


def _size(nodes: Iterable[NodeProto], sizes: dict[_Key, int]) -> int:
    return sum(sizes.get(_key(node), 1) for node in _nodes(nodes))


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
    return list(dict.fromkeys(k for node in _nodes(bodies[key]) if (k := _key(node)) in bodies))


def _by(key: _Key, callee: _Key) -> str:
    return "" if key == callee else f" by way of {key[1]!r}"
