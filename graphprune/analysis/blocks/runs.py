"""Layers in a row, the periods in which they repeat, and all blocks in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from graphprune.analysis.blocks.block import Block
from graphprune.analysis.blocks.context import Context
from graphprune.analysis.dataflow import DataFlow

Signature = tuple[object, ...]


class Runs:
    """The search for layers that are made of others."""

    def __init__(self, context: Context) -> None:
        self.context, self.flow = context, context.flow

    def run(self, atoms: list[Block]) -> list[Block]:
        """Periods and whole rows of some layers."""
        return [b for run in self._runs(atoms) for b in self._repeats(run)]

    def _runs(self, atoms: list[Block]) -> list[list[Block]]:
        """Layers in a row, each starting where the one before ends, or behind what only passes that on."""
        starting = {b.by: b for b in reversed(atoms)}
        after: dict[tuple[str, str], Block] = {}
        for block in atoms:
            for tensor in self.flow.climb(block.output):
                passed = self.flow.gone(tensor, block.output, block.output) if tensor != block.output else {}
                if self.context.weight(passed):
                    break
                if tensor in starting:
                    after[block.pair] = starting[tensor]
                    break
        second = {b.pair for b in after.values()}
        runs = []
        for block in atoms:
            if block.pair not in second:
                run = [block]
                while run[-1].pair in after:
                    run.append(after[run[-1].pair])
                runs.append(run)
        return runs

    def _repeats(self, run: list[Block]) -> Iterator[Block]:
        """Layers made of several in a row: each period, and the whole row."""
        signatures = [products(b, self.flow) for b in run]
        start, length, count = period(signatures)
        spans = [(start + k * length, start + (k + 1) * length) for k in range(count)] if length > 1 else []
        if len(run) > 1 and (0, len(run)) not in spans:
            spans.append((0, len(run)))
        for low, high in spans:
            parts = run[low:high]
            by = parts[0].by
            output = self._alike(parts[-1].output, by)
            nodes = self.flow.gone(output, by, by) if output is not None else {}
            if output is not None and (output, by) not in self.context.replaced and not self.context.leaks(by, nodes):
                yield self.context.add("layer", output, by, output, nodes, parts)

    def _alike(self, tensor: str, entry: str) -> str | None:
        """A tensor, or what it is passed on as, that can stand for another."""
        for further in self.flow.climb(tensor):
            if further != tensor and self.context.weight(self.flow.gone(further, tensor, tensor)):
                return None
            if self.context.key(further) == self.context.key(entry):
                return further
        return None


def products(block: Block, flow: DataFlow) -> Signature:
    """The products of a block, by operator and shape of their constants."""
    nodes = flow.analysis.model.nodes
    return tuple(sorted(repr((nodes[n].op_type, flow.constant_inputs(n))) for n in block.nodes if flow.macs[n]))


_LONGEST = 64
"""Layers in one period, at most: what repeats after more is no architecture."""


def period(signatures: Sequence[Signature]) -> tuple[int, int, int]:
    """Where the longest repetition starts, its period, and how often it repeats; the shortest period wins."""
    best, length = (0, 1, 1), 0
    for period in range(1, min(len(signatures) // 2, _LONGEST) + 1):
        if length == len(signatures):
            break
        start = 0
        while start + period < len(signatures):
            end = start
            while end + period < len(signatures) and signatures[end] == signatures[end + period]:
                end += 1
            if end > start and (end + period - start) // period * period > length:
                count = (end + period - start) // period
                if count > 1:
                    best, length = (start, period, count), count * period
            start = end + 1
    return best


def finished(context: Context, blocks: list[Block]) -> list[Block]:
    """Blocks in order, with unique ids, depth, parts, and what else is like them."""
    flow, rows = context.flow, context.rows
    blocks.sort(key=lambda b: (flow.place[b.output], len(b.nodes)))
    taken: dict[str, int] = {}
    renamed: dict[int, str] = {}
    for block in blocks:
        taken[block.id] = taken.get(block.id, 0) + 1
        renamed[id(block)] = block.id if taken[block.id] == 1 else f"{block.id}#{taken[block.id]}"
    names = {b.pair: renamed[id(b)] for b in blocks}
    alike: dict[Signature, list[Block]] = {}
    containing: dict[int, list[int]] = {}
    for block in blocks:
        alike.setdefault((block.kind, len(rows.get(block.pair, ())), products(block, flow)), []).append(block)
        for node in block.nodes:
            containing.setdefault(node, []).append(len(block.nodes))
    classes: dict[int, tuple[str, ...]] = {}  # blocks that are alike share one tuple: a deep net has thousands
    for members in alike.values():
        shared = tuple(renamed[id(b)] for b in members)
        classes.update((id(b), shared) for b in members)
    done = []
    for block in blocks:
        name = renamed[id(block)]
        last = flow.maker(block.exit)
        assert last is not None
        depth = sum(size > len(block.nodes) for size in containing[last])
        parts = tuple(names[pair] for pair in rows.get(block.pair, ()))
        done.append(replace(block, id=name, depth=depth, like=classes[id(block)], parts=parts))
    return done
