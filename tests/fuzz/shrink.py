"""Makes a case that ends badly small: fewer steps, fewer nodes, fewer weights, while it ends at the same place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from tests.fuzz import bases, cases, judge, workers
from tests.fuzz.cases import MODEL, Case
from tests.fuzz.outcome import Outcome


def shrunk(case: Case) -> tuple[bytes, str]:
    """The model of a case as small as it gets with the same end, and what to say of it.

    Raises:
        ValueError: the case does not mutate a model, or ends well.
    """
    if case.surface != "model":
        raise ValueError(f"case {case.number} mutates a {case.surface}; keep its files by --keep")
    wanted = ended(case, cases.model(case))
    if not wanted.bad:
        raise ValueError(f"case {case.number} ends well: {wanted}")

    def same(data: bytes) -> bool:
        found = ended(case, data)
        return (found.kind, found.place) == (wanted.kind, wanted.place)

    steps = _fewer(case.steps, lambda left: same(cases.model(replace(case, steps=left))))
    data = cases.model(replace(case, steps=steps))
    try:
        proto = ModelProto.FromString(data)
    except DecodeError:
        return data, f"{wanted} ({' '.join(case.command)})"
    for part in _parts(proto):
        kept = _fewer(list(part), lambda left, part=part: same(_with(proto, part, left)))
        _with(proto, part, kept)
    data = proto.SerializeToString(deterministic=True)
    return data, f"{steps}: {wanted} ({' '.join(case.command)}), {len(data)} bytes"


def ended(case: Case, data: bytes) -> Outcome:
    """What comes of a case with another model in its place."""

    def work(folder: Path) -> Outcome:
        (folder / MODEL).write_bytes(data)
        (folder / "base.onnx").write_bytes(bases.data(case.base))
        os.chdir(folder)
        return judge.run(case.command, case.number, folder)

    return next(workers.run([(case.number, work)], 1))


def _parts(proto: ModelProto) -> Iterator:  # type: ignore[type-arg]
    graph = proto.graph
    yield graph.output
    yield graph.node
    for node in graph.node:
        yield node.attribute
    yield graph.initializer
    yield graph.value_info
    yield graph.input
    yield proto.functions
    yield proto.metadata_props


def _with(proto: ModelProto, part, left) -> bytes:  # type: ignore[no-untyped-def]
    """The bytes with only some entries of a part; the part stays so."""
    copies = [type(one).FromString(one.SerializeToString()) for one in left]
    del part[:]
    part.extend(copies)
    return proto.SerializeToString(deterministic=True)


def _fewer(entries: list, holds: Callable[[list], bool]) -> list:  # type: ignore[type-arg]
    """As few of some entries as still do: in halves first, then one by one (Zeller's delta debugging)."""
    left, size = list(entries), max(len(entries) // 2, 1)
    while left:
        at = 0
        while at < len(left):
            fewer = left[:at] + left[at + size :]
            if holds(fewer):
                left = fewer
            else:
                at += size
        if size == 1:
            return left
        size = max(size // 2, 1)
    return left
