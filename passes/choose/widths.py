"""Widths: how many elements of every axis and dim stay, for any number of classes that goes of every unit.

A unit is what gives classes by one number: groups that lose the same classes (see ``ties``), or layers that are to keep
one width. Of each of its groups the order in which classes go is fixed; so an element goes as soon as the number of its
unit is above the place of its class in that order, and the sizes for all numbers of one unit are one cumulative count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import lcm

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.passes.choose import ties
from graphprune.passes.choose.magnitude import Scores
from graphprune.passes.choose.ties import Together
from graphprune.relation import IntArray

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Unit:
    """Sets of groups of which one number of classes goes; each set loses classes of its own.

    Where sets have different sizes, their classes differ in width: numbers are then counted in the smallest parts that
    divide them all, and one class of a set is as many of these as :meth:`step` says.

    Attributes:
        sets: groups of one size that lose the same classes.
    """

    sets: tuple[Together, ...]

    @property
    def id(self) -> str:
        """That of the first group."""
        return self.sets[0].id

    @cached_property
    def size(self) -> int:
        """Number of classes of each group."""
        return lcm(*(one.size for one in self.sets))

    def step(self, one: Together) -> int:
        """How much one class of a set counts."""
        return self.size // one.size

    @cached_property
    def stride(self) -> int:
        """What numbers are a multiple of, for whole classes to go of every set."""
        return lcm(*map(self.step, self.sets))

    @cached_property
    def most(self) -> int:
        """How many classes may go, whatever else is asked for (see ``Together.most``)."""
        return min(one.most * self.step(one) for one in self.sets)

    @cached_property
    def members(self) -> tuple[Group, ...]:
        """All groups."""
        return tuple(g for one in self.sets for g in one.members)


@dataclass
class Widths:
    """Sizes of all vertices of a web.

    Attributes:
        analysis: of the model.
        units: the units.
        numbers: how many classes of each unit go; :meth:`put` changes them.
    """

    analysis: Analysis
    units: Sequence[Unit]
    scores: Scores
    numbers: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.numbers = [0] * len(self.units)
        self._places: dict[int, dict[int, IntArray]] = {}
        self._touched: list[list[int]] = [[] for _ in self.units]
        for number, unit in enumerate(self.units):
            for one in unit.sets:
                self._place(number, one)
        self._counts: dict[int, IntArray] = {}
        self._gone: list[dict[int, IntArray]] = [{} for _ in self.units]  # by unit and vertex, for each number
        self._left: dict[int, int] = {}  # of vertices of which each unit may lose elements of its own
        known: dict[tuple[int, int], IntArray] = {}
        for vertex, own in self._places.items():
            whole = self.analysis.web.sizes[vertex]
            for number in own:
                self._touched[number].append(vertex)
            if len(own) == 1:
                ((number, places),) = own.items()
                key = number, id(places)
                if key not in known:
                    known[key] = self._remaining(np.ones(whole, bool), number, places)
                self._counts[vertex] = known[key]
            elif np.all(np.add.reduce([(places < _NEVER).astype(np.int64) for places in own.values()]) <= 1):
                self._left[vertex] = whole
                for number, places in own.items():
                    self._gone[number][vertex] = whole - self._remaining(np.ones(whole, bool), number, places)

    def _place(self, number: int, one: Together) -> None:
        """By vertex and unit after how many classes each element goes."""
        order = one.free[np.argsort(self.scores[one.id][one.free], kind="stable")]
        places = np.full(one.size + 1, _NEVER)  # the last entry stands for no class
        places[order] = (np.arange(len(order)) + 1) * self.units[number].step(one) - 1
        made: dict[int, IntArray] = {}  # most vertices of a group share one array of labels
        for vertex, labels in (item for group in one.members for item in group.labels.items()):
            found = made.get(id(labels))
            if found is None:
                found = made[id(labels)] = places[labels]
            own = self._places.setdefault(vertex, {})
            own[number] = np.minimum(own[number], found) if number in own else found

    def put(self, number: int, value: int) -> None:
        """So many classes of a unit go."""
        before, self.numbers[number] = self.numbers[number], value
        for vertex, gone in self._gone[number].items():
            self._left[vertex] += int(gone[before]) - int(gone[value])

    def put_all(self, values: Sequence[int]) -> None:
        """So many classes of each unit go."""
        for number, value in enumerate(values):
            self.put(number, value)

    def _remaining(self, alive: np.ndarray, number: int, places: IntArray) -> IntArray:
        """How many elements stay for each number of classes that goes of a unit."""
        size = self.units[number].size
        held = places[alive]
        gone = np.bincount(held[held < size], minlength=size)
        return np.concatenate([[len(held)], len(held) - np.cumsum(gone)])

    def touched(self, number: int) -> Sequence[int]:
        """Vertices with elements that a unit may lose."""
        return self._touched[number]

    def size(self, vertex: int) -> int:
        """How many elements of a vertex stay."""
        own = self._places.get(vertex)
        if own is None:
            return self.analysis.web.sizes[vertex]
        if len(own) == 1:
            return int(self._counts[vertex][self.numbers[next(iter(own))]])
        left = self._left.get(vertex)
        return int(self._alive(own).sum()) if left is None else left

    def along(self, vertex: int, number: int) -> IntArray:
        """How many elements of a vertex stay for each number of classes that goes of a unit, all others as they are.

        Shape ``[size of the unit + 1]``; of a vertex that the unit does not touch a number.
        """
        own = self._places.get(vertex, {})
        if number not in own:
            return np.asarray(self.size(vertex))
        if len(own) == 1:
            return self._counts[vertex]
        if vertex in self._left:
            gone = self._gone[number][vertex]
            return self._left[vertex] + gone[self.numbers[number]] - gone
        others = {k: places for k, places in own.items() if k != number}
        return self._remaining(self._alive(others), number, own[number])

    def _alive(self, places: Mapping[int, IntArray]) -> np.ndarray:
        return np.asarray(np.logical_and.reduce([p >= self.numbers[k] for k, p in places.items()]))

    def alike(self, one: Sequence[int], other: Sequence[int]) -> bool:
        """Whether some vertices lose the same elements as others, whatever goes."""
        return all(a == b or self._same(a, b) for a, b in zip(one, other, strict=True))

    def _same(self, a: int, b: int) -> bool:
        first, second = self._places.get(a, {}), self._places.get(b, {})
        return first.keys() == second.keys() and all(
            first[k] is second[k] or np.array_equal(first[k], second[k]) for k in first
        )


def units(analysis: Analysis, groups: Sequence[Group], share: float) -> list[Unit]:
    """Each set of groups that go together as a unit of its own.

    Args:
        analysis: of the model.
        groups: the groups.
        share: of the classes that will go.
    """
    return [Unit((one,)) for one in ties.together(analysis, groups, share)]
