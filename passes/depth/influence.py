"""Which blocks matter least, by what they do to the data.

Two scores, both from inputs alone:

- ``influence``: one minus the cosine of what a block is given and what it gives, taken for each position along the
  feature axis and averaged: block influence (ShortGPT, Men et al., 2024, equation 1).
- ``effect``: how far the model's outputs move when the block is bypassed: the L2 norm of the change, relative to that
  of the outputs, averaged over outputs and inputs. All candidates share a few runs: what lies behind each is there
  once more, reading what it bypasses; what lies before is computed once.

Blocks are taken one by one, those first that lose least beside the multiply-accumulates that they save, and scored
again after each, since what was redundant beside a neighbour may no longer be without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from graphprune.analysis import Analysis, analyze, cost
from graphprune.analysis.blocks import Block, carried, find_blocks
from graphprune.analysis.called import is_meant
from graphprune.errors import InputError
from graphprune.model import Model, naming, reread
from graphprune.model.messages import copy_all_but
from graphprune.progress import Steps, unseen
from graphprune.relation import Shape, Values
from graphprune.rewrite.bypass import remove, resolve
from graphprune.rewrite.plan import BlockPlan
from graphprune.run.calibration import still
from graphprune.run.runtime import Feeds, exposing, run, session

SCORES = ("effect", "influence")
"""By which blocks can be chosen, the default first: it keeps more (``tests/benchmarks/bench_blocks.py``)."""
_MOST_NODES = 20_000
"""Copies of nodes in one run of ``effect``: sessions of more take long to start."""


@dataclass
class Taken:
    """Blocks that were chosen.

    Attributes:
        entries: what to replace by what, in the original.
        scores: of each, in the order in which they were taken; None where no score was asked for.
    """

    entries: list[BlockPlan]
    scores: list[float | None]


def matching(analysis: Analysis, blocks: Sequence[Block], globs: Sequence[str]) -> list[Block]:
    """Blocks that ids or globs name, and the largest that lie in a module that is named.

    Raises:
        InputError: one of these names none.
    """
    found: set[str] = set()
    for glob in globs:
        own = [block for block in blocks if is_meant(analysis, block, glob)]
        if not own:
            ids = [block.id for block in blocks]
            hint = f"; there are {', '.join(map(repr, ids[:3]))}, ... ('graphprune inspect' lists all)" if ids else ""
            hint = naming.near(glob, ids, otherwise=hint or "; the model has none")
            raise InputError(f"{analysis.model.name}: no block matches {glob!r}{hint}")
        by_id = [block for block in own if naming.matches(block.id, glob)]
        sets = [set(block.nodes) for block in own]
        largest = [block for block, nodes in zip(own, sets, strict=True) if not any(nodes < other for other in sets)]
        found.update(block.id for block in by_id or largest)
    return [block for block in blocks if block.id in found]


def units(analysis: Analysis, blocks: Sequence[Block], globs: Sequence[str] = ()) -> list[Block]:
    """Blocks to choose from, none within another.

    Where ids, globs or modules name them, the smallest that match (of layers and stages the layers); else the largest
    that are not made of others in a row.
    """
    chosen = [b for b in blocks if any(is_meant(analysis, b, g) for g in globs) or (not globs and not b.parts)]
    sets = [set(b.nodes) for b in chosen]
    if globs:
        return [b for b, own in zip(chosen, sets, strict=True) if not any(other < own for other in sets)]
    return [b for b, own in zip(chosen, sets, strict=True) if not any(own < other for other in sets)]


def take(
    analysis: Analysis,
    count: int,
    globs: Sequence[str],
    score: str,
    feeds: Sequence[Feeds],
    input_shapes: Mapping[str, Shape] | None = None,
    allow_io: bool = False,
    progress: Steps = unseen,
) -> Taken:
    """Choose blocks, greedily and with new scores after each.

    Args:
        analysis: of the original.
        count: how many to take.
        globs: on ids, or modules, to choose from; by default :func:`units`.
        score: ``influence`` or ``effect``.
        feeds: inputs to score on.
        input_shapes: sizes for inputs whose free dims cannot be guessed.
        allow_io: whether states that callers carry round may go with them.
        progress: is told after each block how many of how many are taken.

    Raises:
        InputError: fewer blocks can go than were asked for; says how many.
    """
    states = carried(analysis) if allow_io else {}
    entries: list[BlockPlan] = []
    scores: list[float | None] = []
    current = analysis
    while len(entries) < count:
        candidates = units(current, find_blocks(current, allow_io).blocks, globs)
        if not candidates:
            raise InputError(
                f"{analysis.model.name}: {count} blocks are to go, and only {len(entries)} can; "
                "'graphprune inspect' lists them"
            )
        fed = {i.name for i in current.model.inputs}
        given = [{n: v for n, v in one.items() if n in fed} for one in feeds]
        values = score_all(current, candidates, score, given)
        prices = [value / _worth(current, block) for value, block in zip(values, candidates, strict=True)]
        best = int(np.argmin(prices))
        (entry,) = resolve(current, [candidates[best]])
        entries.append(entry)
        scores.append(values[best])
        progress(len(entries), count)
        if len(entries) < count:
            smaller = remove(analysis, entries, states).model
            current = analyze(smaller, still(input_shapes, smaller), allow_io=allow_io)
    return Taken(entries, scores)


def _worth(analysis: Analysis, block: Block) -> float:
    """The share of the multiply-accumulates that go with a block; of parameters, where the model has no others."""
    macs = cost.macs(analysis)
    whole = macs or cost.parameters(analysis.model)
    return max((block.macs if macs else block.parameters) / max(whole, 1), 1e-9)


def score_all(analysis: Analysis, blocks: Sequence[Block], score: str, feeds: Sequence[Feeds]) -> list[float]:
    """The score of each block, lower is less important."""
    found = effect(analysis, blocks, feeds) if score == "effect" else influence(analysis, blocks, feeds)
    return [float(np.mean(values)) for values in found]


def influence(analysis: Analysis, blocks: Sequence[Block], feeds: Sequence[Feeds]) -> list[list[float]]:
    """One minus the cosine of entry and exit, for each block and input."""
    model = analysis.model.runnable
    names = list(dict.fromkeys(n for b in blocks for n in (b.by, b.output)))
    exposed = exposing(model, [n for n in names if n in model.producer])
    found: list[list[float]] = [[] for _ in blocks]
    with session(exposed) as active:
        for one in feeds:
            inside = [n for n in names if n in model.producer]
            values = {**one, **dict(zip(inside, run(active, one, inside), strict=True))}
            for block, total in zip(blocks, found, strict=True):
                total.append(1 - _cosine(values[block.by], values[block.output], features(analysis, block.output)))
    return found


def features(analysis: Analysis, tensor: str) -> int:
    """The axis of a tensor that holds features: the last one whose elements a weight tells apart."""
    net = analysis.web
    start = net.axis_of.get(tensor)
    rank = len(analysis.witness.shape(tensor) or ())
    for axis in reversed(range(rank)):
        if start is None:
            break
        for group in [*analysis.groups, *analysis.fixed]:
            if (
                group.kind in ("hidden", "channel", "feature", "state")
                and start + axis in group.labels
                and group.size > 1
            ):
                return axis
    return 1 if rank > 3 else rank - 1


def _cosine(a: Values, b: Values, axis: int) -> float:
    """Mean cosine along an axis; positions where both are zero say nothing."""
    x, y = (np.moveaxis(v.astype(np.float64), axis, -1).reshape(-1, v.shape[axis]) for v in (a, b))
    sizes = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    held = sizes > 0
    return float((np.einsum("ij,ij->i", x, y)[held] / sizes[held]).mean()) if held.any() else 1.0


def effect(analysis: Analysis, blocks: Sequence[Block], feeds: Sequence[Feeds]) -> list[list[float]]:
    """Relative change of the model's outputs without each block, for each block and input."""
    return without(analysis, [[block] for block in blocks], feeds)


def without(analysis: Analysis, sets: Sequence[Sequence[Block]], feeds: Sequence[Feeds]) -> list[list[float]]:
    """Relative change of the model's outputs without each of some sets of blocks, for each set and input."""
    model = analysis.model.runnable
    found: list[list[float]] = [[] for _ in sets]
    for chunk in _chunks(model, sets):
        proto, changed = _with_bypasses(model, [sets[k] for k in chunk])
        names = list(dict.fromkeys([*model.output_names, *(n for outputs in changed for n in outputs.values())]))
        with session(Model(proto, model.path, lazy=model.lazy)) as active:
            for one in feeds:
                made = [n for n in names if n not in one]
                values = {**one, **dict(zip(made, run(active, one, made), strict=True))}
                for k, outputs in zip(chunk, changed, strict=True):
                    moved = [_change(values[name], values[other]) for name, other in outputs.items()]
                    found[k].append(float(np.mean(moved or [0.0])))
    return found


def _change(before: Values, after: Values) -> float:
    if before.dtype.kind != "f":
        return float((before != after).mean())
    size = float(np.linalg.norm(before.astype(np.float64)))
    moved = float(np.linalg.norm(after.astype(np.float64) - before))
    return moved / size if size else moved


def _behind(model: Model, blocks: Sequence[Block]) -> list[int]:
    """Nodes that what some blocks make reaches."""
    reached = {block.output for block in blocks}
    found = []
    for index, node in enumerate(model.nodes):
        reads = [*node.input, *model.captured.get(index, ())]
        if any(name in reached for name in reads):
            found.append(index)
            reached.update(o for o in node.output if o)
    return found


def _chunks(model: Model, sets: Sequence[Sequence[Block]]) -> Iterator[list[int]]:
    """Sets that share a run."""
    chunk: list[int] = []
    total = 0
    for k, blocks in enumerate(sets):
        size = len(_behind(model, blocks))
        if chunk and total + size > _MOST_NODES:
            yield chunk
            chunk, total = [], 0
        chunk.append(k)
        total += size
    if chunk:
        yield chunk


def _with_bypasses(model: Model, sets: Sequence[Sequence[Block]]) -> tuple[ModelProto, list[dict[str, str]]]:
    """The model with, for each set, once more all that lies behind its blocks, reading what bypasses these."""
    proto = ModelProto()
    copy_all_but(model.proto, proto, {"graph"})
    copy_all_but(model.graph, proto.graph, {"node"})
    proto.graph.node.extend(model.nodes)
    names = []
    for k, blocks in enumerate(sets):
        instead, renamed = {block.output: block.by for block in blocks}, dict[str, str]()
        for index in _behind(model, blocks):
            node = NodeProto()
            node.CopyFrom(model.nodes[index])
            reads = {*node.input, *model.captured.get(index, ())} - {""}
            reread(node, {name: _final(name, instead, renamed) for name in reads})
            renamed.update((o, f"{o}/without {k}") for o in model.nodes[index].output if o)
            for position, name in enumerate(node.output):
                node.output[position] = renamed.get(name, name)
            node.name = f"{node.name}/without {k}" if node.name else ""  # a name stands once in a model
            proto.graph.node.append(node)
        finals = {o: _final(o, instead, renamed) for o in model.output_names}
        names.append({name: other for name, other in finals.items() if other != name})
    known = {v.name for v in [*proto.graph.output, *proto.graph.input]}
    fresh = dict.fromkeys(name for outputs in names for name in outputs.values() if name not in known)
    for name in fresh:
        proto.graph.output.add(name=name)
    return proto, names


def _final(name: str, instead: Mapping[str, str], renamed: Mapping[str, str]) -> str:
    """What is read in place of a tensor: what bypasses its block, or the copy of what made it."""
    while name in instead:
        name = instead[name]
    return renamed.get(name, name)
