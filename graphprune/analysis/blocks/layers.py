"""Layers: from a tensor to the nearest one of its kind that all its data must pass, with a product between."""

from __future__ import annotations

from graphprune.analysis.blocks.block import Block
from graphprune.analysis.blocks.context import Context, Key
from graphprune.analysis.dataflow import SINK

Kind = tuple[object, ...]


class Layers:
    """The search for layers that are made of no others; what it finds is in the context."""

    def __init__(self, context: Context) -> None:
        self.context, self.flow, self.analysis = context, context.flow, context.analysis
        self.branched: dict[str, bool] = {}  # whether a tensor, or one that all of it passes, is the end of a branch
        self.further: dict[str, str] = {}  # the nearest of its kind that all that is made of a tensor passes

    def run(self) -> list[Block]:
        """Layers that are made of no others, in topological order of what they start from."""
        atoms: list[tuple[Block, bool]] = []
        inside: set[str] = set()  # tensors within layers without a skip
        nearest = self._nearest()
        for entry in self.flow.tensors:
            if entry in inside or entry not in self.flow.above or not self.context.known(entry):
                continue
            for end in sorted(nearest.get(entry, ()), key=self.flow.place.__getitem__):
                found = self._layer(entry, end)
                if found is None:
                    continue
                block, skip = found
                if not skip:
                    inside.update(o for n in block.nodes for o in self.flow.made(n) if o != block.output)
                atoms.append(found)
                break
        holding: dict[int, list[Block]] = {}
        for block in (b for b, skip in atoms if skip):
            for node in block.nodes:
                holding.setdefault(node, []).append(block)
        inner = {
            b.pair
            for b, skip in atoms
            if not skip and any(set(b.nodes) < set(w.nodes) for w in holding.get(b.nodes[-1], ()))
        }
        self.context.found = [b for b in self.context.found if b.pair not in inner]
        return [b for b, _ in atoms if b.pair not in inner]

    def _nearest(self) -> dict[str, list[str]]:
        """For each tensor, the nearest ones of its kind that what is made of it passes, one for each of its readers."""
        below: dict[str, list[str]] = {}
        for tensor, up in self.flow.above.items():
            below.setdefault(up, []).append(tensor)
        readers: dict[str, list[str]] = {}
        for node, names in enumerate(self.flow.reads):
            for out in () if self.flow.measures(node) else self.flow.made(node):
                readers.setdefault(out, []).extend(names)
        found: dict[str, list[str]] = {}
        stacks: dict[Key, list[str]] = {}
        pending: list[tuple[str, bool]] = [(t, False) for t in below.get("", ())]
        while pending:  # depth first through the tree of post-dominators
            tensor, done = pending.pop()
            key = self.context.key(tensor)
            if done:
                stacks[key].pop()
                continue
            stack = stacks.setdefault(key, [])
            if stack:
                self.further[tensor] = stack[-1]
            stack.append(tensor)
            for entry in readers.get(tensor, ()):
                above = stacks.get(self.context.key(entry))
                if above and above[-1] not in found.setdefault(entry, []):
                    found[entry].append(above[-1])
            pending.append((tensor, True))
            pending += [(t, False) for t in below.get(tensor, ())]
        return found

    def _layer(self, entry: str, end: str) -> tuple[Block, bool] | None:
        """The layer that starts at a tensor, and whether it has a skip; the first end may lie before any product."""
        exit, nodes = end, self.flow.gone(end, entry, entry)
        while not self.context.known(exit) or not self.context.weight(self.flow.between(entry, nodes)):
            if exit not in self.further:
                return None
            exit = self.further[exit]
            nodes = self.flow.gone(exit, entry, entry)
        if not self._starts(entry, exit) or self.context.leaks(entry, nodes):
            return None
        skip = self.context.passes(entry, exit)
        if not skip and self._in_branch(exit):
            return None
        exit, nodes = self._extended(entry, exit, nodes)
        if (exit, entry) not in self.context.replaced:  # else a branch says the same
            self.context.found.append(self.context.add("layer", exit, entry, exit, nodes))
        return self.context.replaced[(exit, entry)], skip

    def _in_branch(self, tensor: str) -> bool:
        path, found = [], False
        for one in self.flow.climb(tensor):
            if one in self.branched:
                found = self.branched[one]
                break
            path.append(one)
        for one in reversed(path):
            found = self.branched[one] = found or one in self.context.exits
        return found

    def _starts(self, entry: str, exit: str) -> bool:
        """Whether the very first step from a tensor holds a product: else the layer starts later."""
        inside = self.flow.gone(exit, entry, entry)
        outs = [o for r in self.flow.readers[entry] if r in inside for o in self.flow.made(r) if o in self.flow.above]
        if not outs:
            return False
        first = self.flow.meet(outs)
        return first != SINK and self.context.weight(self.flow.between(entry, self.flow.gone(first, entry, entry))) > 0

    def _extended(self, entry: str, exit: str, nodes: dict[int, None]) -> tuple[str, dict[int, None]]:
        """The layer with trailing operators, where what it starts from was made by the last of them."""
        maker = self.flow.maker(entry)
        if maker is None or self._kind(maker) == self._kind(self.flow.maker(exit)):
            return exit, nodes
        for further in self.flow.climb(exit):
            longer = self.flow.gone(further, entry, entry)
            if self.context.weight(longer) != self.context.weight(nodes):
                break
            same = self._kind(self.flow.maker(further)) == self._kind(maker)
            if same and self.context.key(further) == self.context.key(entry):
                return (exit, nodes) if self.context.leaks(entry, longer) else (further, longer)
        return exit, nodes

    def _kind(self, node: int | None) -> Kind:
        """What a node does, whatever the names."""
        if node is None:
            return ()
        proto = self.analysis.model.nodes[node]
        attributes = tuple(a.SerializeToString(deterministic=True) for a in proto.attribute)
        constants = tuple(shape is not None for shape in self.flow.constant_inputs(node))
        return proto.domain, proto.op_type, attributes, constants
