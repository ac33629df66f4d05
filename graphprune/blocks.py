"""Blocks: parts of a model that can be taken out whole, so that the graph closes behind them.

Found from the data graph alone; no operator and no architecture is named. A *branch* is what enters one operand of a
sum: without it the sum is its other operand, which is what the branch times zero would leave. A *layer* leads from one
tensor to another of the same shape and type, at every size of the inputs: without it the second is the first. Either
way, a block is one tensor that is replaced by another, and what nothing needs any more goes.

1. Branches: for each sum of two activations, operands that nothing else reads, behind which there is a product, and
   which lead back to a tensor of the sum's own shape.
2. Layers: from each tensor to the nearest tensor of its shape and type that all it leads to must pass (an immediate
   post-dominator, or one further up), where a product lies between. Trailing operators belong to it where the same
   operator made what it starts from: the norm behind a sum in post-norm transformers, the rectifier in residual nets.
   Where no way round the products leads through (no skip), it is a layer only outside of branches: a square projection
   inside of an attention is none.
3. Runs: layers in a row; where their products repeat with a period of several (attention, then feed-forward), each
   period is a layer as well, and so is the whole row (a stage).

What looks like a branch and is none is kept with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from graphprune.analysis import Analysis
from graphprune.dataflow import SINK, DataFlow
from graphprune.model import node_name

Key = tuple[tuple[int, ...] | None, tuple[int, ...] | None, int | None]
Signature = tuple[object, ...]


@dataclass(frozen=True)
class Block:
    """A part of a model that can be taken out.

    Attributes:
        id: ``branch:`` or ``layer:`` and the tensor that is replaced, with a number where that is not unique.
        kind: ``branch`` or ``layer``.
        output: the tensor that is replaced.
        by: the tensor that replaces it.
        exit: the last tensor of the part: for a branch the operand of the sum.
        nodes: indices of the nodes that go, ascending.
        parameters: elements of constants that go with them.
        macs: their multiply-accumulates at the witness.
        depth: in how many other blocks it lies.
        like: ids of all blocks with the same products, this one among them.
        parts: ids of the blocks in a row that it is made of.
        interface: inputs and outputs of the graph that go with it.
    """

    id: str
    kind: str
    output: str
    by: str
    exit: str
    nodes: tuple[int, ...]
    parameters: int
    macs: int
    depth: int = 0
    like: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    interface: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fixed:
    """What looks like a block and cannot be taken out.

    Attributes:
        output: the tensor that would have to be replaced.
        nodes: indices of the nodes inside, ascending.
        reason: why it stays.
    """

    output: str
    nodes: tuple[int, ...]
    reason: str


@dataclass
class Blocks:
    """All blocks of a model, in order of what they replace, and what stays."""

    blocks: list[Block] = field(default_factory=list)
    fixed: list[Fixed] = field(default_factory=list)

    def get(self, id: str) -> Block | None:
        """The block of this id."""
        return next((b for b in self.blocks if b.id == id), None)

    def holding(self, node: int) -> list[Block]:
        """Blocks that a node lies in, smallest first."""
        return sorted((b for b in self.blocks if node in b.nodes), key=lambda b: len(b.nodes))


def find(analysis: Analysis, allow_io: bool = False) -> Blocks:
    """Every block of a model.

    Args:
        analysis: of the model.
        allow_io: also blocks that hold a state that callers carry round (a cache): its inputs and outputs go with them.
    """
    return _Search(analysis, allow_io).run()


class _Search:
    def __init__(self, analysis: Analysis, allow_io: bool) -> None:
        self.analysis = analysis
        self.states = carried(analysis) if allow_io else {}
        self.flow = DataFlow(analysis, self.states)
        self.found: list[Block] = []
        self.fixed: dict[str, Fixed] = {}
        self.replaced: dict[tuple[str, str], Block] = {}
        self.further: dict[str, str] = {}  # the nearest of its kind that all that is made of a tensor passes
        self.exits: set[str] = set()  # operands of sums with products behind them, removable or not

    def run(self) -> Blocks:
        self._branches()
        atoms = self._layers()
        whole = [b for run in self._runs(atoms) for b in self._repeats(run)]
        blocks = _finished(self.found + whole, self.flow)
        replaced = {b.output for b in blocks}
        return Blocks(blocks, [f for f in self.fixed.values() if f.output not in replaced])

    def key(self, tensor: str) -> Key:
        """What two tensors must have in common for one to stand for the other."""
        return (*self.flow.shape(tensor), self.analysis.witness.first.types.get(tensor))

    def known(self, tensor: str) -> bool:
        """Whether a tensor has a shape, and is in the main graph: what bodies of control flow hold stays."""
        layout, maker = self.analysis.model.layout, self.flow.maker(tensor)
        inside = layout is not None and maker is not None and layout.of(self.analysis.model.nodes[maker])
        return self.flow.shape(tensor)[0] is not None and not inside

    def weight(self, nodes: dict[int, None]) -> int:
        return sum(self.flow.macs[n] for n in nodes)

    def add(
        self, kind: str, output: str, by: str, exit: str, nodes: dict[int, None], parts: Sequence[Block] = ()
    ) -> Block:
        block = Block(
            f"{kind}:{output}",
            kind,
            output,
            by,
            exit,
            tuple(sorted(nodes)),
            self.flow.parameters(nodes),
            self.weight(nodes),
            parts=tuple(p.id for p in parts),
            interface=self._interface(nodes),
        )
        self.replaced.setdefault((output, by), block)
        return block

    def _interface(self, nodes: dict[int, None]) -> tuple[str, ...]:
        made = [o for n in sorted(nodes) for o in self.flow.made(n) if o in self.states]
        return tuple(name for output in made for name in (self.states[output], output))

    # --- branches

    def _branches(self) -> None:
        for node, relation in enumerate(self.analysis.web.relations):
            if relation is None or not relation.joint or len(self.flow.reads[node]) != 2:
                continue
            output = self.analysis.model.nodes[node].output[0]
            pair = self.flow.reads[node]
            if len(self.analysis.model.nodes[node].input) != 2 or not self.known(output):
                continue
            for exit, by in (pair, pair[::-1]):
                self._branch(node, output, exit, by)

    def _branch(self, node: int, output: str, exit: str, by: str) -> None:
        if self.flow.leads(exit, by):  # what the other operand is made of is the skip
            return
        nodes = self.flow.gone(exit, like=by)
        if not self.weight(nodes):
            return
        key = self.key(output)
        frontier = self.flow.frontier(nodes)
        behind = [t for t in frontier if self.weight(self.flow.between(t, nodes))]
        elsewhere = [exit] if self.flow.readers[exit] != [node] or exit in self.flow.outputs_set else []
        if self.key(exit) == key == self.key(by):
            self.exits.add(exit)
            entries = [t for t in behind if self.key(t) == key]
            leaks = [self._leak(t, frontier) for t in entries]
            if not elsewhere and None in leaks:
                self.found.append(self.add("branch", output, by, exit, {**nodes, node: None}))
                return
            elsewhere += [t for t in leaks if t is not None]
        self._refuse(node, by, nodes, behind, elsewhere)

    def _refuse(self, node: int, by: str, nodes: dict[int, None], behind: list[str], elsewhere: list[str]) -> None:
        """Keep why something that looks like a branch is none; what does not look like one is not worth a word."""
        shapes = self.analysis.witness.first.shapes
        output = self.analysis.model.nodes[node].output[0]
        whole = shapes.get(output)
        alike = [t for t in behind if whole and len(shapes.get(t, ())) == len(whole)]
        if elsewhere:
            if not any(self._passes(t, by) or self._passes(by, t) for t in alike):
                return  # what is added to a stream that is read elsewhere: no skip
            readers = [r for r in self.flow.readers.get(elsewhere[0], ()) if r != node and r not in nodes]
            where = f"node {node_name(self.analysis.model, readers[0])!r} reads" if readers else "the graph gives out"
            reason = f"{where} {elsewhere[0]!r} as well, which is inside"
        else:
            first = next((t for t in alike if self.flow.leads(t, by)), None)
            if first is None or whole is None:
                return
            sizes = ["x".join(map(str, shape)) for shape in (shapes[first], whole)]
            reason = f"it leads from {first!r} of {sizes[0]} to {sizes[1]}: a projection would be needed"
        if output not in self.fixed or len(self.fixed[output].nodes) < len(nodes):
            self.fixed[output] = Fixed(output, tuple(sorted(nodes)), reason)

    def _passes(self, start: str, end: str) -> bool:
        """Whether one tensor makes another without a product."""
        return self.flow.leads(start, end, lambda n: not self.flow.macs[n])

    # --- layers

    def _layers(self) -> list[Block]:
        """Layers that are made of no others, in topological order of what they start from."""
        atoms: list[tuple[Block, bool]] = []
        inside: set[str] = set()  # tensors within layers without a skip
        nearest = self._nearest()
        for entry in self.flow.tensors:
            if entry in inside or entry not in self.flow.above or not self.known(entry):
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
            b.id
            for b, skip in atoms
            if not skip and any(set(b.nodes) < set(w.nodes) for w in holding.get(b.nodes[-1], ()))
        }
        self.found = [b for b in self.found if b.id not in inner]
        return [b for b, _ in atoms if b.id not in inner]

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
            key = self.key(tensor)
            if done:
                stacks[key].pop()
                continue
            stack = stacks.setdefault(key, [])
            if stack:
                self.further[tensor] = stack[-1]
            stack.append(tensor)
            for entry in readers.get(tensor, ()):
                above = stacks.get(self.key(entry))
                if above and above[-1] not in found.setdefault(entry, []):
                    found[entry].append(above[-1])
            pending.append((tensor, True))
            pending += [(t, False) for t in below.get(tensor, ())]
        return found

    def _layer(self, entry: str, end: str) -> tuple[Block, bool] | None:
        """The layer that starts at a tensor, and whether it has a skip; the first end may lie before any product."""
        exit, nodes = end, self.flow.gone(end, entry, entry)
        while not self.known(exit) or not self.weight(self.flow.between(entry, nodes)):
            if exit not in self.further:
                return None
            exit = self.further[exit]
            nodes = self.flow.gone(exit, entry, entry)
        if not self._starts(entry, exit) or self._leaks(entry, nodes):
            return None
        skip = self._passes(entry, exit)
        if not skip and any(t in self.exits for t in self.flow.climb(exit)):
            return None
        exit, nodes = self._extended(entry, exit, nodes)
        if (exit, entry) not in self.replaced:  # else a branch says the same
            self.found.append(self.add("layer", exit, entry, exit, nodes))
        return self.replaced[(exit, entry)], skip

    def _starts(self, entry: str, exit: str) -> bool:
        """Whether the very first step from a tensor holds a product: else the layer starts later."""
        inside = self.flow.gone(exit, entry, entry)
        outs = [o for r in self.flow.readers[entry] if r in inside for o in self.flow.made(r) if o in self.flow.above]
        if not outs:
            return False
        first = self.flow.meet(outs)
        return first != SINK and self.weight(self.flow.between(entry, self.flow.gone(first, entry, entry))) > 0

    def _leaks(self, entry: str, nodes: dict[int, None]) -> bool:
        """Whether something between entry and exit stays, because it is used elsewhere."""
        return self._leak(entry, self.flow.frontier(nodes)) is not None

    def _leak(self, entry: str, frontier: list[str]) -> str | None:
        """What is read of a part that is made of its entry and yet stays, because it is used elsewhere."""
        first = self.flow.place[entry]
        made = (t for t in frontier if t != entry and self.flow.place[t] > first)
        return next((t for t in made if self.flow.leads(entry, t)), None)

    def _extended(self, entry: str, exit: str, nodes: dict[int, None]) -> tuple[str, dict[int, None]]:
        """The layer with trailing operators, where what it starts from was made by the last of them."""
        maker = self.flow.maker(entry)
        if maker is None or self._kind(maker) == self._kind(self.flow.maker(exit)):
            return exit, nodes
        for further in self.flow.climb(exit):
            longer = self.flow.gone(further, entry, entry)
            if self.weight(longer) != self.weight(nodes):
                break
            if self.key(further) == self.key(entry) and self._kind(self.flow.maker(further)) == self._kind(maker):
                return (exit, nodes) if self._leaks(entry, longer) else (further, longer)
        return exit, nodes

    def _kind(self, node: int | None) -> Signature:
        """What a node does, whatever the names."""
        if node is None:
            return ()
        proto = self.analysis.model.nodes[node]
        attributes = tuple(a.SerializeToString(deterministic=True) for a in proto.attribute)
        constants = tuple(shape is not None for shape in self.flow.constant_inputs(node))
        return proto.domain, proto.op_type, attributes, constants

    # --- runs

    def _runs(self, atoms: list[Block]) -> list[list[Block]]:
        """Layers in a row, each starting where the one before ends, or behind what only passes that on."""
        starting = {b.by: b for b in reversed(atoms)}
        after: dict[str, Block] = {}
        for block in atoms:
            for tensor in self.flow.climb(block.output):
                passed = self.flow.gone(tensor, block.output, block.output) if tensor != block.output else {}
                if self.weight(passed):
                    break
                if tensor in starting:
                    after[block.id] = starting[tensor]
                    break
        second = {b.id for b in after.values()}
        runs = []
        for block in atoms:
            if block.id not in second:
                run = [block]
                while run[-1].id in after:
                    run.append(after[run[-1].id])
                runs.append(run)
        return runs

    def _repeats(self, run: list[Block]) -> Iterator[Block]:
        """Layers made of several in a row: each period, and the whole row."""
        signatures = [_products(b, self.flow) for b in run]
        start, period, count = _period(signatures)
        spans = [(start + k * period, start + (k + 1) * period) for k in range(count)] if period > 1 else []
        if len(run) > 1 and (0, len(run)) not in spans:
            spans.append((0, len(run)))
        for low, high in spans:
            parts = run[low:high]
            by = parts[0].by
            output = self._alike(parts[-1].output, by)
            nodes = self.flow.gone(output, by, by) if output is not None else {}
            if output is not None and (output, by) not in self.replaced and not self._leaks(by, nodes):
                yield self.add("layer", output, by, output, nodes, parts)

    def _alike(self, tensor: str, entry: str) -> str | None:
        """A tensor, or what it is passed on as, that can stand for another."""
        for further in self.flow.climb(tensor):
            if further != tensor and self.weight(self.flow.gone(further, tensor, tensor)):
                return None
            if self.key(further) == self.key(entry):
                return further
        return None


def carried(analysis: Analysis) -> dict[str, str]:
    """Outputs of the graph that give back an input, grown or changed without a product: a state, and whose it is."""
    flow = DataFlow(analysis)
    witness = analysis.witness.first
    found: dict[str, str] = {}
    inputs = {i.name for i in analysis.model.inputs}
    for output in flow.outputs:
        seen, pending = {output}, [output]
        while pending:
            tensor = pending.pop(0)
            same = len(witness.shapes.get(tensor, ())) == len(witness.shapes.get(output, ()))
            if tensor in inputs and same and witness.types.get(tensor) == witness.types.get(output):
                if tensor not in found.values():
                    found[output] = tensor
                break
            node = flow.maker(tensor)
            if node is not None and not flow.macs[node]:
                fresh = [n for n in flow.reads[node] if n not in seen]
                seen.update(fresh)
                pending += fresh
    return found


def _products(block: Block, flow: DataFlow) -> Signature:
    """The products of a block, by operator and shape of their constants."""
    nodes = flow.analysis.model.nodes
    return tuple(sorted(repr((nodes[n].op_type, flow.constant_inputs(n))) for n in block.nodes if flow.macs[n]))


def _period(signatures: Sequence[Signature]) -> tuple[int, int, int]:
    """Where the longest repetition starts, its period, and how often it repeats; the shortest period wins."""
    best, length = (0, 1, 1), 0
    for period in range(1, len(signatures) // 2 + 1):
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


def _finished(blocks: list[Block], flow: DataFlow) -> list[Block]:
    """Blocks in order, with unique ids, depth, and what else is like them."""
    blocks.sort(key=lambda b: (flow.place[b.output], len(b.nodes)))
    taken: dict[str, int] = {}
    renamed: dict[int, str] = {}
    for block in blocks:
        taken[block.id] = taken.get(block.id, 0) + 1
        renamed[id(block)] = block.id if taken[block.id] == 1 else f"{block.id}#{taken[block.id]}"
    alike: dict[Signature, list[Block]] = {}
    containing: dict[int, list[int]] = {}
    for block in blocks:
        alike.setdefault((block.kind, len(block.parts), _products(block, flow)), []).append(block)
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
        done.append(replace(block, id=name, depth=depth, like=classes[id(block)]))
    return done
