"""Tables of measured latency: how long each layer takes at each width.

A table speaks of the tensors and axes of the ONNX file that the user has, so that it can be written by hand or by
another tool for another runtime. ``profile.schema.json``, beside this page, is the format.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt

from graphprune.analysis import Analysis
from graphprune.errors import InputError
from graphprune.model import parsing
from graphprune.model.paths import reads
from graphprune.relation import IntArray
from graphprune.schema import schema

FORMAT = "graphprune-profile/1"
FloatArray = npt.NDArray[np.float64]
Axis = tuple[str, int]
"""A tensor by its name in the model, and the number of one of its axes."""


@dataclass(frozen=True, eq=False)
class Layer:
    """How long a layer takes, by the widths of some axes.

    Attributes:
        node: the first output of its first node, in the model.
        operators: types of its nodes.
        axes: what it depends on.
        widths: for each axis the widths that were measured, ascending.
        seconds: at each combination of them; shape ``[len(w) for w in widths]``, of no axes ``[]``.
    """

    node: str
    operators: tuple[str, ...]
    axes: tuple[Axis, ...]
    widths: tuple[IntArray, ...]
    seconds: FloatArray

    def at(self, widths: Sequence[npt.ArrayLike]) -> FloatArray:
        """Seconds at other widths, by multilinear interpolation; outside of the grid what its edge has.

        Args:
            widths: for each axis widths, whose shapes are broadcast.
        """
        if len(widths) != len(self.axes):
            raise ValueError(f"layer {self.node!r} has {len(self.axes)} axes, not {len(widths)}")
        places = [self._place(own, given) for own, given in zip(self.widths, widths, strict=True)]
        result = np.zeros(np.broadcast_shapes(*(share.shape for _, share in places)))
        for corner in itertools.product((0, 1), repeat=len(places)):
            weight: FloatArray | float = 1.0
            for (_, share), upper in zip(places, corner, strict=True):
                weight = weight * (share if upper else 1 - share)
            index = tuple(low + upper for (low, _), upper in zip(places, corner, strict=True))
            result = result + weight * self._padded[index]
        return np.asarray(result, float)

    @property
    def whole(self) -> float:
        """Seconds at the largest widths."""
        return float(self.seconds[(-1,) * len(self.axes)])

    @cached_property
    def _padded(self) -> FloatArray:
        """The grid with its last entries twice, so that every place has an upper neighbour."""
        return np.pad(self.seconds, [(0, 1)] * self.seconds.ndim, mode="edge") if self.axes else self.seconds

    @staticmethod
    def _place(own: IntArray, given: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
        """The place on the grid below some widths, and how far they are on the way to the next."""
        places = np.interp(np.asarray(given, float), own, np.arange(len(own)))
        low = np.floor(places).astype(np.int64)
        return low, places - low


@dataclass(frozen=True)
class Table:
    """What was measured of a model.

    Attributes:
        layers: with those that depend on no axis.
        total: seconds of one run of the whole model.
        measured: how: ``provider``, ``threads``, ``runtime``, ``device``, ``shapes`` of the inputs; what a writer adds.
        model: ``file`` and ``sha256``.
        left_out: what is in no layer, ``node`` and ``reason``.
    """

    layers: tuple[Layer, ...]
    total: float
    measured: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[Mapping[str, str], ...] = ()

    @property
    def covered(self) -> float:
        """The sum of all layers at their largest widths, in seconds."""
        return sum(layer.whole for layer in self.layers)

    @property
    def scale(self) -> float:
        """By what layers are multiplied so that they are no more than the whole."""
        return min(1.0, self.total / self.covered) if self.covered else 1.0

    @property
    def rest(self) -> float:
        """Seconds of the whole that no layer accounts for, and no width changes."""
        return max(0.0, self.total - self.covered)

    def seconds(self, size: Callable[[str, int], int]) -> float:
        """Seconds of the whole model, where ``size`` gives the width of an axis of a tensor."""
        each = (float(layer.at([size(*axis) for axis in layer.axes])) for layer in self.layers)
        return self.rest + self.scale * sum(each)

    def to_json(self) -> dict[str, Any]:
        """As plain data; layers that have the same grid refer to the first of them."""
        seen: dict[tuple[bytes, ...], int] = {}
        layers = []
        for number, layer in enumerate(self.layers):
            key = (*(w.tobytes() for w in layer.widths), str(layer.seconds.shape).encode(), layer.seconds.tobytes())
            like = seen.setdefault(key, number)
            own = like == number
            axes: list[dict[str, Any]] = [{"tensor": t, "axis": a} for t, a in layer.axes]
            for entry, widths in zip(axes, layer.widths if own else (), strict=False):
                entry["widths"] = widths.tolist()
            grid = {"seconds": layer.seconds.tolist()} if own else {"like": like}
            layers.append({"node": layer.node, "operators": list(layer.operators), "axes": axes, **grid})
        head = {"format": FORMAT, "model": dict(self.model), "measured": dict(self.measured), "total": self.total}
        return {**head, "layers": layers, "left_out": [dict(entry) for entry in self.left_out]}


def load(path: Path | str) -> Table:
    """Read a table.

    Raises:
        InputError: no such file, or it breaks the format; says where.
    """
    place = Path(path)
    reads("the table of latency", place)
    try:
        data = parsing.parsed(parsing.text(place))
    except OSError as error:
        raise InputError(f"{place}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{place}: is no JSON ({error}); 'graphprune profile MODEL -o {place}' writes one") from error
    return read(data, str(place))


def read(data: Any, name: str) -> Table:
    """A table from plain data; ``name`` is what to call it in errors."""
    validator = jsonschema.Draft202012Validator(schema("profile"))
    error = jsonschema.exceptions.best_match(validator.iter_errors(data))
    if error is not None:
        where = ".".join(map(str, error.absolute_path)) or "the top"
        raise InputError(f"{name}: at {where}: {error.message[:200]}; it must be {FORMAT}")
    grids: list[tuple[tuple[IntArray, ...], FloatArray]] = []
    layers = []
    for number, entry in enumerate(data["layers"]):
        label = f"{name}: layer {number} ({entry['node']!r})"
        grids.append(_like(entry, grids, label) if "like" in entry else _grid(entry, label))
        axes = tuple((a["tensor"], a["axis"]) for a in entry["axes"])
        layers.append(Layer(entry["node"], tuple(entry.get("operators", ())), axes, *grids[-1]))
    left_out = tuple(data.get("left_out", ()))
    return Table(tuple(layers), float(data["total"]), data.get("measured", {}), data.get("model", {}), left_out)


def _like(
    entry: Mapping[str, Any], grids: Sequence[tuple[tuple[IntArray, ...], FloatArray]], label: str
) -> tuple[tuple[IntArray, ...], FloatArray]:
    if entry["like"] >= len(grids):
        raise InputError(f"{label}: 'like' must be the number of an earlier layer, not {entry['like']}")
    widths, seconds = grids[entry["like"]]
    if len(widths) != len(entry["axes"]):
        raise InputError(f"{label}: has {len(entry['axes'])} axes, and the layer that it is like has {len(widths)}")
    return widths, seconds


def _grid(entry: Mapping[str, Any], label: str) -> tuple[tuple[IntArray, ...], FloatArray]:
    widths = []
    for axis in entry["axes"]:
        where = f"{label}: axis {axis['axis']} of {axis['tensor']!r}"
        if "widths" not in axis:
            raise InputError(f"{where}: 'widths' is missing; only a layer with 'like' has none")
        try:
            widths.append(np.asarray(axis["widths"], np.int64))
        except OverflowError as error:
            raise InputError(f"{where}: 'widths' has a number that no width can be") from error
        if (np.diff(widths[-1]) <= 0).any():
            raise InputError(f"{where}: 'widths' must ascend, and are {axis['widths']}")
    try:
        seconds = np.asarray(entry["seconds"], float)
    except (ValueError, TypeError):  # lists of different lengths, or what is no number
        seconds = np.zeros((0, 0))
    wanted = tuple(map(len, widths))
    if seconds.shape != wanted or not np.isfinite(seconds).all() or (seconds < 0).any():
        shape = "x".join(map(str, wanted)) or "one"
        raise InputError(f"{label}: 'seconds' must be {shape} numbers of at least 0, one level of lists for each axis")
    return tuple(widths), seconds


def check(table: Table, analysis: Analysis, name: str = "the table of latency") -> None:
    """Hold a table against the model that it is to be used for.

    Raises:
        InputError: a tensor or an axis is not there, or is not as wide as the table says.
    """
    for layer in table.layers:
        label = f"{name}: layer {layer.node!r}"
        if layer.node not in analysis.model.producer:
            raise InputError(f"{label}: no node of {analysis.model.name} makes {layer.node!r}; is it another model's?")
        for (tensor, axis), widths in zip(layer.axes, layer.widths, strict=True):
            shape = analysis.witness.shape(tensor)
            if shape is None:
                raise InputError(f"{label}: {analysis.model.name} has no tensor {tensor!r}; is it another model's?")
            if axis >= len(shape):
                raise InputError(f"{label}: {tensor!r} has {len(shape)} axes, and no axis {axis}")
            if widths[-1] > shape[axis]:
                raise InputError(
                    f"{label}: axis {axis} of {tensor!r} is {shape[axis]} wide in {analysis.model.name}, "
                    f"and up to {widths[-1]} in the table; is it another model's?"
                )
