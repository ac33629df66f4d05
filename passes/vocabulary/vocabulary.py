"""The pass that takes rows out of tables which no id of a user's reaches."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from graphprune.analysis import Analysis, cost
from graphprune.analysis.numbers import Numbers, find_numbers
from graphprune.errors import InputError
from graphprune.model import Model, paths
from graphprune.passes.contract import Pass
from graphprune.passes.rounds import Restructured, sizes
from graphprune.passes.state import State
from graphprune.passes.vocabulary import ids
from graphprune.proof import renumbering
from graphprune.relation import IntArray
from graphprune.rewrite import renumber
from graphprune.rewrite.renumber import Renumbered

FORMAT = "graphprune-vocabulary/1"
_BEHIND = ("smaller", "store", "validate")


@dataclass(frozen=True)
class Shorter:
    """What became of a vocabulary.

    Attributes:
        inputs: inputs of the graph that hold its ids.
        size: how many ids there were.
        kept: those that stay, ascending: the place of each is its new id.
        unknown: the id that stands for all others, None where none was named.
        inside: whether the interface is as it was.
        outputs: outputs over ids, each with the axis.
        original: the original with the interface of the result: what that is to be compared with.
    """

    inputs: tuple[str, ...]
    size: int
    kept: IntArray
    unknown: int | None
    inside: bool
    outputs: tuple[tuple[str, int], ...]
    original: Model = field(compare=False)

    def to_json(self, model: dict[str, Any]) -> dict[str, Any]:
        """The file that is written beside the model.

        Args:
            model: what the plan says of the original.
        """
        new = np.full(self.size, -1)
        new[self.kept] = np.arange(len(self.kept))
        return {
            "format": FORMAT,
            "model": {key: model[key] for key in ("file", "sha256")},
            "inputs": list(self.inputs),
            "outputs": [{"name": name, "axis": axis} for name, axis in self.outputs],
            "inside": self.inside,
            "unknown": None if self.unknown is None else {"old": self.unknown, "new": int(new[self.unknown])},
            "old_ids": self.kept.tolist(),
            "new_ids": new.tolist(),
        }


@dataclass(frozen=True)
class Vocabulary(Pass):
    """Keep the rows of some ids in the tables that they look up, and in outputs over them; number these ids anew.

    Attributes:
        ids: those that stay: a file (one a line, ``.json`` or ``.npy``), or the ids.
        keep: beside them so many of those that calibration inputs hold most often.
        inside: leave the interface as it is: the model looks up itself which row holds an id.
        unknown: the id that stands for all that go; it stays.
        inputs: inputs of the graph that hold ids; by default all that look up the largest table.
    """

    name: ClassVar[str] = "vocabulary"
    rebases: ClassVar[bool] = True
    leaves: ClassVar[tuple[str, ...]] = ("vocabulary",)

    ids: str | Sequence[int] = ()
    keep: int | None = None
    inside: bool = False
    unknown: int | None = None
    inputs: Sequence[str] = ()

    @classmethod
    def again(cls, entry: Mapping[str, Any] | None) -> Vocabulary | None:
        """The pass that does what a plan says, None where it says nothing."""
        if entry is None:
            return None
        return cls(entry["kept"], None, entry["inside"], entry.get("unknown"), entry["inputs"])

    @classmethod
    def asked(
        cls, given: Vocabulary | str | os.PathLike[str] | Sequence[int] | None, keep: int | None = None
    ) -> Vocabulary | None:
        """The pass from what a caller gives, None where nothing is asked for."""
        if isinstance(given, Vocabulary):
            return given if keep is None else replace(given, keep=keep)
        if given is None and keep is None:
            return None
        named = os.fspath(given) if isinstance(given, os.PathLike) else given
        return cls(() if named is None else named, keep)

    def requires(self, state: State) -> Sequence[str]:
        """Ids are named or can be counted, and nothing ahead reads inputs with the ids of the original."""
        found = [
            f"{one.name!r} is ahead, and reads inputs with the original's ids; put it before"
            for one in state.ahead
            if one.name not in _BEHIND and not self.inside
        ]
        if not (self.ids or self.keep):
            found.append("no ids are named: give a file of those that stay, or how many of those used most")
        if self.keep is not None and self.keep < 1:
            found.append("keep must be at least 1")
        if self.keep and state.job.calibration is None:
            found.append("ids are counted on inputs: give them by --calibration, or a file of ids by --vocabulary")
        if self.inside and self.unknown is None:
            found.append("the model must know what it looks up for ids that go: say which by --unknown-token ID")
        return found

    def declares(self) -> None:
        """The file of ids is read."""
        if isinstance(self.ids, str):
            paths.reads("the vocabulary", self.ids)

    def proves(self, state: State) -> bool:
        """Where proofs are asked for."""
        return state.job.prove

    def call(self, state: State) -> State:
        """Cut tables and outputs, and say in the plan what stayed."""
        analysis = state.analysis()
        numbers = spotted(analysis, self.inputs)
        if not self.inside:
            _check_readers(analysis.model, numbers)
        kept, notes = self._kept(state, analysis.model, numbers)
        done = renumber.renumber(analysis, numbers, kept, self.unknown, self.inside)
        if not any(entry.removed for entry in done.plan.slices):
            raise InputError(f"{analysis.model.name}: every id stays; nothing would change. Leave out the vocabulary")
        if cost.parameters(done.model) >= cost.parameters(analysis.model):
            tables = " and ".join(sorted({repr(one.table) for own in numbers for one in own.lookups}))
            raise InputError(
                f"{analysis.model.name}: without these rows it would not be smaller, since what also reads {tables} "
                "needs them all; leave out the vocabulary" + ", or --vocabulary-inside" * self.inside
            )
        shorter = self._told(state, numbers, kept, done)
        plan = replace(state.plan, vocabulary=_entry(shorter, done))
        notes += [
            f"{len(kept):,} of {shorter.size:,} ids stay in {' and '.join(map(repr, shorter.inputs))}"
            + ("" if self.inside else "; what the model is given and gives is numbered anew")
        ]
        return state.noting(*notes).having(shorter, Restructured(), model=done.model, plan=plan)

    def ensures(self, before: State, after: State) -> State:
        """The model does on new ids what it did on old ones."""
        found = after.found(Shorter)
        assert found is not None
        if not after.job.prove:
            return after
        analysis = before.analysis()
        numbers = spotted(analysis, found.inputs)
        original = _original(analysis, numbers, found)
        asked = {
            one.input: renumbering.compared_with(analysis.model, one, None if found.inside else found.kept)
            for one in numbers
        }
        proof = renumbering.prove(
            original, after.model, sizes(before, analysis), after.job.seed, "with ids that are numbered anew", asked
        )
        told = {**(after.plan.proof or {}), "vocabulary": proof.to_json()}
        return replace(after, plan=replace(after.plan, proof=told))

    def _kept(self, state: State, model: Model, numbers: Sequence[Numbers]) -> tuple[IntArray, list[str]]:
        """The ids that stay, and what users should know of them.

        Raises:
            InputError: one is no id of the model, or none is left.
        """
        size, notes = numbers[0].size, list[str]()
        named = ids.read(self.ids)
        wanted = named if self.unknown is None else np.union1d(named, [self.unknown])
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < size:
            wrong = int(wanted.min() if wanted.min() < 0 else wanted.max())
            raise InputError(f"{model.name}: its ids are 0 to {size - 1}, and {wrong} is to stay; name others")
        if self.keep:
            batches = state.batches(state.original)
            assert batches is not None
            used, seen = ids.most_used(batches, [one.input for one in numbers], size, self.keep)
            wanted = np.union1d(wanted, used)
            if seen < self.keep:
                notes.append(f"the calibration inputs hold {seen:,} different ids, fewer than {self.keep:,}")
        if not self.inside:
            for one in numbers:
                wanted = np.union1d(wanted, renumbering.compared_with(model, one, None))
        if not wanted.size:
            raise InputError(f"{model.name}: no id is left; name those that stay")
        return wanted.astype(np.int64), notes

    def _told(self, state: State, numbers: Sequence[Numbers], kept: IntArray, done: Renumbered) -> Shorter:
        """What was found, with the original as it is to be compared."""
        inputs = tuple(one.input for one in numbers)
        outputs = tuple((head.output, head.axis) for head in done.heads)
        found = Shorter(inputs, numbers[0].size, kept, self.unknown, self.inside, outputs, state.original)
        whole = state.analysis(state.original)
        return replace(found, original=_original(whole, spotted(whole, inputs), found))


def spotted(analysis: Analysis, inputs: Sequence[str] = ()) -> list[Numbers]:
    """The inputs of a graph that hold ids of one vocabulary.

    Args:
        analysis: of the model.
        inputs: their names; by default all that look up tables as long as the longest.

    Raises:
        InputError: there are none, or they look up tables of several lengths.
    """
    found, name = find_numbers(analysis), analysis.model.name
    if unknown := [one for one in inputs if one not in {numbers.input for numbers in found}]:
        there = ", ".join(repr(numbers.input) for numbers in found) or "none"
        raise InputError(f"{name}: input {unknown[0]!r} looks up no rows of a constant; those that do: {there}")
    if not found:
        raise InputError(f"{name}: none of its inputs holds ids that look up rows of a constant: it has no vocabulary")
    longest = max(one.size for one in found)
    chosen = [one for one in found if (one.input in inputs if inputs else one.size == longest)]
    lengths = sorted({lookup.size for one in chosen for lookup in one.lookups})
    if len(lengths) > 1:
        tables = ", ".join(sorted({repr(lookup.table) for one in chosen for lookup in one.lookups}))
        raise InputError(
            f"{name}: {' and '.join(repr(one.input) for one in chosen)} look up tables of {lengths} rows ({tables}), "
            "which have no one vocabulary; name one input by the option inputs of the pass"
        )
    return chosen


def _original(analysis: Analysis, numbers: Sequence[Numbers], found: Shorter) -> Model:
    """A model with the interface of the result."""
    if found.inside:
        assert found.unknown is not None
        return renumbering.with_unknown(analysis, numbers, found.kept, found.unknown)
    heads = [renumber.Head(name, axis) for name, axis in found.outputs]
    return renumbering.with_old_ids(analysis, numbers, found.kept, heads)


def _check_readers(model: Model, numbers: Sequence[Numbers]) -> None:
    """Raise InputError where ids are read as values, so that other ids would mean something else."""
    for one in numbers:
        if one.others:
            raise InputError(
                f"{model.name}: ids of {one.input!r} cannot be numbered anew: {one.told(model)} reads them as values; "
                "--vocabulary-inside leaves them as they are"
            )


def _entry(found: Shorter, done: Renumbered) -> dict[str, Any]:
    """What the plan says."""
    whole = done.plan.to_json()
    return {
        "inputs": list(found.inputs),
        "outputs": [{"name": name, "axis": axis} for name, axis in found.outputs],
        "size": found.size,
        "inside": found.inside,
        "unknown": found.unknown,
        "kept": found.kept.tolist(),
        "compared": list(done.compared),
        "slices": [{**entry, "removed": {a: len(gone) for a, gone in entry["removed"].items()}}
                   for entry in whole["slices"]],
    }  # fmt: skip
