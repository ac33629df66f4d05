"""Shape operands follow the new sizes; values that were computed from an old size stay what they were.

The arithmetic on shapes is evaluated again with the new sizes, and a difference flows on as long as it is a literal's
or a constant factor of a computed size (``batch * heads``). Where a node gets what it must have, nothing is done:
a Reshape that reads its sizes from a pruned tensor follows by itself. Where it does not (a literal that is now too
large, an attention scale computed from a head size that shrank) the entries that differ are written out; entries that
depend on the sizes of the model's inputs stay computed.
"""

from __future__ import annotations

from fractions import Fraction
from math import isfinite

import numpy as np
from onnx import helper

from graphprune.analysis.protos import decoded
from graphprune.errors import InputError
from graphprune.model import Use, node_name
from graphprune.model.editor import Editor
from graphprune.relation import IntArray, Kept, Operand, Slot, Values
from graphprune.rewrite.removal import Removal
from graphprune.rules import Unruled
from graphprune.rules import values as shape_values


class Refit:
    """One walk over the nodes, in their order."""

    def __init__(self, removal: Removal, editor: Editor) -> None:
        self.removal, self.editor = removal, editor
        self.model, self.witness = editor.model, removal.analysis.witness
        self.net = removal.analysis.web
        self.current: dict[str, Values] = {}  # values that differ from the original's
        self.patched: dict[tuple[str, bytes], str] = {}
        self.reads: dict[tuple[int, int], Values] = {}  # by node and input, what differs from its tensor's value

    def run(self) -> None:
        """Patch every operand that needs it."""
        for i, node in enumerate(self.model.nodes):
            if len(node.output) == 1 and self._followed(node.output[0]) and node.output[0] not in self.model.sources:
                self._follow(i)
            else:
                self._consume(i)
        self._interface()

    def holds(self, index: int, position: int) -> Values | None:
        """What an input of a node holds after removal, where that is a value of shape arithmetic."""
        name = self.model.nodes[index].input[position]
        return self.reads[(index, position)] if (index, position) in self.reads else self._value(name)

    def _followed(self, name: str) -> bool:
        return name in self.witness.first.values and not self.removal.of(name)

    def _value(self, name: str) -> Values | None:
        """What a tensor of shape arithmetic is now."""
        return self.current.get(name, self.witness.value(name))

    def _follow(self, index: int) -> None:
        """A node of shape arithmetic: evaluate it again; freeze its inputs where it would mix old and new sizes."""
        node = self.model.nodes[index]
        name = node.output[0]
        read = [self.net.tensors.get((index, ("in", k)), n) for k, n in enumerate(node.input)]
        shapes = [self.removal.shape(t) if t else None for t in read]  # of a constant: as this node reads it
        changed = any(n in self.current for n in node.input) or any(
            n and shapes[k] != self.witness.shape(n) for k, n in enumerate(node.input)
        )
        if not changed:
            return
        before = self.witness.value(name)
        assert before is not None
        given = [self._value(n) if n else None for n in node.input]
        after = shape_values.evaluate(node.op_type, given, decoded(node), shapes)
        if after is not None and _same(after, before):
            return
        static = self.witness.static(name)
        if after is not None and after.shape == before.shape:
            moved = ~np.asarray(static) & (after != before)
            # what is whole at the witness (3 * 2 * 4 / 3) need not be so at other sizes: it is rounded as it always was
            rounds = before.dtype.kind in "iu" and node.op_type in shape_values.ROUNDING
            known = {s for n in node.input if n in self.current for s in self._shares(n)}
            roots = not any(n in self.current for n in node.input)
            if not moved.any() or roots or (not rounds and _shares(after[moved], before[moved]) <= known):
                self.current[name] = after
                return
        for k, source in enumerate(node.input):
            if source in self.current:
                original = self.witness.value(source)
                assert original is not None
                self._patch(index, k, original)

    def _shares(self, name: str) -> set[Fraction]:
        """By which factors entries of a value differ from the original's."""
        before = self.witness.value(name)
        assert before is not None
        return _shares(self.current[name], before)

    def _consume(self, index: int) -> None:
        """A node that computes with data: its operands get what the relation asks for, other values stay."""
        node, relation = self.model.nodes[index], self.net.relations[index]
        operands = {o.input: o for o in relation.operands if o.input >= 0} if relation is not None else {}
        for k, name in enumerate(node.input):
            if k in operands or not name or not self._followed(name) or self.removal.of(Use(index, k)):
                continue
            original = self.witness.value(name)
            if name in self.current and original is not None:
                self._patch(index, k, original)
        for operand in relation.operands if relation is not None else ():
            self._operand(index, operand)
        if relation is not None and relation.picks is not None:
            for axis, positions in relation.picks(self._kept(index)).items():
                self.editor.pick(index, axis, positions)

    def _operand(self, index: int, operand: Operand) -> None:
        node = self.model.nodes[index]
        held = operand.attribute
        if held is not None:
            attributes = decoded(node)
            value = np.asarray(attributes[held]) if held in attributes else None
            wanted = self._refitted(index, operand, value)
            if wanted is not None and (value is None or not _same(wanted, value)):
                self.editor.set_attribute(index, held, wanted.tolist())
                self.editor.drop_attributes(index, operand.drops)
            return
        name = node.input[operand.input] if operand.input < len(node.input) else ""
        value = self.witness.value(name) if name else None
        if name and value is None:
            return  # computed from the data: rules pin what such an operand sizes
        wanted = self._refitted(index, operand, value)
        if wanted is None:
            return
        now = self._value(name) if name else None
        if now is None or not _same(np.asarray(wanted), now):
            self._patch(index, operand.input, np.asarray(wanted), operand)
            if now is None:
                self.editor.drop_attributes(index, operand.drops)

    def _refitted(self, index: int, operand: Operand, value: Values | None) -> Values | None:
        try:
            return operand.refit(value, self._kept(index))
        except Unruled as no:
            raise InputError(
                f"{self.model.name}: node {node_name(self.model, index)!r}: {no}; exclude the groups on it by --exclude"
            ) from no

    def _kept(self, index: int) -> Kept:
        def kept(slot: Slot, axis: int) -> IntArray:
            if slot[0] == "dim":
                return np.sort(self.removal.kept(self.net.dim_start[index] + slot[1]))
            tensor = self.net.tensors[(index, slot)]
            if axis >= len(self.net.shapes[tensor]):
                raise IndexError(axis)
            return np.sort(self.removal.kept(self.net.axis_of[tensor] + axis))

        return kept

    def _patch(self, index: int, position: int, wanted: Values, operand: Operand | None = None) -> None:
        """Let an input read a value that differs from the present one in static entries."""
        node = self.model.nodes[index]
        name = node.input[position] if position < len(node.input) else ""
        base = name or f"{node_name(self.model, index)}_{position}"
        original = self.witness.value(name) if name else None
        static = self.witness.static(name) if name else None
        infers = operand is not None and operand.infers
        key = (base, wanted.tobytes() + (b"i" if infers else b""))
        if key not in self.patched:
            if original is None or static is None:
                self.patched[key] = self.editor.constant(base, np.asarray(wanted, np.int64), index)
            else:
                self.patched[key] = self._write(name, wanted.astype(original.dtype), ~static, infers, index)
        self.editor.redirect(index, position, self.patched[key])
        self.reads[(index, position)] = wanted

    def _write(self, name: str, wanted: Values, moving: Values, infers: bool, before: int) -> str:
        """A tensor with the wanted value: literal where it is static, computed where it depends on the inputs."""
        if not moving.any():
            return name if self.editor.renew(name, wanted) else self.editor.constant(name, wanted, before)
        now = self._value(name)
        if now is not None and now.ndim == wanted.ndim == 0:
            return self._scaled(name, Fraction(int(wanted), int(now)), before, ())
        if now is None or now.ndim != 1 or now.shape != wanted.shape:
            raise InputError(f"{self.model.name}: {name!r} mixes fixed and free sizes; exclude the groups on it")
        literal, computed = wanted.copy(), np.array(moving)
        changed = moving & (now != wanted)
        one = moving if moving.sum() == 1 else changed  # the entry that the others determine
        if infers and one.sum() == 1 and not (wanted == -1).any():
            literal[one], computed[one] = -1, False
        parts: list[str] = []
        start = 0
        while start < len(wanted):
            stop = start + 1
            while stop < len(wanted) and computed[stop] == computed[start] and not changed[start : stop + 1].any():
                stop += 1
            if not computed[start]:
                parts.append(self.editor.constant(name, literal[start:stop], before))
            elif changed[start]:
                (piece,) = self._pieces(name, start, stop, before)
                parts.append(self._scaled(piece, Fraction(int(wanted[start]), int(now[start])), before, (1,)))
            else:
                parts += self._pieces(name, start, stop, before)
            start = stop
        if len(parts) == 1:
            return parts[0]
        result = self.editor.name(name)
        self.editor.insert(helper.make_node("Concat", parts, [result], axis=0), before)
        return result

    def _scaled(self, piece: str, share: Fraction, before: int, shape: tuple[int, ...]) -> str:
        """A computed entry times what is left of its fixed factors: ``batch * 4`` becomes ``batch * 4 * 3 / 4``."""
        held = self.witness.value(piece)
        dtype = np.dtype(np.int64) if held is None else held.dtype
        base = piece
        for op, factor in (("Mul", share.numerator), ("Div", share.denominator)):
            result = self.editor.name(base)
            number = self.editor.constant(base, np.full(shape, factor, dtype), before)
            self.editor.insert(helper.make_node(op, [piece, number], [result]), before)
            piece = result
        return piece

    def _pieces(self, name: str, start: int, stop: int, before: int) -> list[str]:
        """Tensors that hold entries ``start`` to ``stop``: those that the value was joined from, where they fit."""
        producer = self.model.producer.get(name)
        joined = producer is not None and self.model.nodes[producer].op_type == "Concat"
        if producer is not None and joined:
            place, found = 0, []
            parts = zip(self.model.nodes[producer].input, self.editor.nodes[producer].input, strict=True)
            for part, now in parts:  # an input may have been patched already
                value = self.witness.value(part)
                length = 0 if value is None else len(value)
                if start <= place and place + length <= stop:
                    found.append((now, length))
                place += length
            if sum(length for _, length in found) == stop - start:
                return [str(part) for part, _ in found]
        result = self.editor.name(name)
        if self.model.opsets.get("", 1) < 10:
            self.editor.insert(helper.make_node("Slice", [name], [result], starts=[start], ends=[stop]), before)
            return [result]
        bounds = [self.editor.constant(name, np.array([edge]), before) for edge in (start, stop)]
        self.editor.insert(helper.make_node("Slice", [name, *bounds], [result]), before)
        return [result]

    def _interface(self) -> None:
        """Sizes that leave the graph, or that a subgraph reads, cannot be patched: say so."""
        places = [(name, f"output {name!r} reports") for name in self.model.output_names]
        for index, names in self.model.captured.items():
            holder = node_name(self.model, index)
            places += [(name, f"the subgraph of node {holder!r} reads {name!r},") for name in names]
        for name, what in places:
            if name in self.current:
                raise InputError(
                    f"{self.model.name}: {what} a size that the removal changes; exclude the groups on it by --exclude"
                )


def _shares(after: Values, before: Values) -> set[Fraction]:
    """Quotients of the entries that differ; an entry that was zero has none that anything else could have."""
    pairs = {(a, b) for a, b in zip(after.ravel().tolist(), before.ravel().tolist(), strict=True) if a != b}
    return {Fraction(a) / Fraction(b) if b and isfinite(a) and isfinite(b) else Fraction(-1) for a, b in pairs}


def _same(a: Values, b: Values) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
