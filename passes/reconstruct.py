"""Layer-wise reconstruction: what is left of each linear operator is fitted to what the original made.

For each operator with rows x of the pruned model and outputs y of the original, on unlabelled calibration inputs,

    minimise  sum |y - x W - b|^2 + lambda |W - W0|^2

by ridge least squares that shrinks towards the weights that were kept (AIMET's and ThiNet's reconstruction of a pruned
layer's consumer; Luo et al., ICCV 2017). Operators are taken in the order in which data passes them, those side by side
together; inputs come from the model with everything before already fitted, so that errors do not pile up. Of the
samples every fourth is held out: it chooses lambda, and a fit that does not help there is dropped.

Beside it stands repair of statistics alone: each output's mean and variance are brought back to the original's.

Only second moments are kept of the data (``X^T X`` and ``X^T Y``), so memory does not grow with the number of samples.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from graphprune.contractions import ROWS
from graphprune.editor import Editor
from graphprune.linear import Linear, find
from graphprune.model import Model, node_name
from graphprune.moments import FloatArray, Moments
from graphprune.relation import IntArray, Values
from graphprune.staged import Staged, waves

Feeds = Mapping[str, Values]
RIDGES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Lambda beside the mean diagonal of ``X^T X``."""
HELD_OUT = 4
"""One sample in this many is held out."""
_GAIN, _EXACT = 1e-3, 1e-9
"""A fit must win this share of the error, and there must be some: else rounding would decide."""
_NODE = 0.02
"""A bias that needs a node of its own must win this share more."""


@dataclass(frozen=True)
class Fit:
    """One operator, before and after; errors are squared, held out, relative to the variance of what is wanted.

    Attributes:
        node: name of the node.
        weight: name of its weight in the pruned model.
        before, after: errors.
        kept: whether the fit was kept.
    """

    node: str
    weight: str
    before: float
    after: float
    kept: bool


@dataclass
class Reconstructed:
    """A model with fitted weights, and what was done to each operator."""

    model: Model
    fits: list[Fit] = field(default_factory=list)


def reconstruct(
    original: Model,
    pruned: Model,
    batches: Callable[[], Iterable[Feeds]],
    restrict: Callable[[Values, str], Values],
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda _, __: None,
    repair: bool = False,
) -> Reconstructed:
    """Fit the linear operators of a pruned model to the original.

    Args:
        original: as it runs; tensors that both models have bear the same names.
        pruned: the model; it is not changed.
        batches: gives the calibration inputs, from the start at each call.
        restrict: takes out of an original activation, by name, what was removed from it.
        seed: of the choice of rows.
        progress: is told after each step how many of how many are done.
        repair: give outputs the mean and the variance of the original's, and fit nothing else.

    Raises:
        InputError: ONNX Runtime cannot run a model on these inputs.
    """
    known = set(original.producer)
    steps = [[n for n in wave if n.output in known] for wave in waves(pruned, {n.node: n for n in find(pruned)})]
    number_of = {linear.output: k for k, step in enumerate(steps) for linear in step}
    fits: list[Fit] = []
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        wanted = Staged(original, number_of, False, Path(first))
        given = Staged(pruned, number_of, True, Path(second))
        sizes = _start(wanted, given, batches, restrict, {i.name for i in pruned.inputs})
        for number, step in enumerate(steps):
            names = {linear.output for linear in step}
            linears = [linear for linear in find(pruned) if linear.output in names]  # nodes move as biases are added
            beside = {n.output: z for n in linears if (z := _beside(pruned, n, number, given, wanted)) is not None}
            runs = zip(
                given.run(pruned, number, len(sizes), _distinct([n.input for n in linears], beside.values())),
                wanted.run(original, number, len(sizes), _distinct([n.output for n in linears], beside.values())),
                strict=True,
            )
            sums = _moments(linears, beside, runs, sizes, restrict, seed)
            editor = Editor(pruned)
            for linear, moments in zip(linears, sums, strict=True):
                fits.append(_fit(editor, pruned, linear, moments, repair))
            pruned = editor.finish()
            progress(number + 1, len(steps))
    return Reconstructed(pruned, fits)


def _distinct(*names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(n for part in names for n in part))


def _beside(model: Model, linear: Linear, number: int, given: Staged, wanted: Staged) -> str | None:
    """What the output of an operator is added to, where both models have made it before the operator is fitted."""
    output = linear.output if linear.adder is None else model.nodes[linear.adder].output[0]
    uses = model.uses.get(output, [])
    if len(uses) != 1 or output in model.output_names or model.nodes[uses[0].node].op_type != "Add":
        return None
    other = model.nodes[uses[0].node].input[1 - uses[0].input]
    ready = all(other not in s.constants and s.holds(other, number) for s in (given, wanted))
    return other if ready and other != output else None


def _start(
    wanted: Staged,
    given: Staged,
    batches: Callable[[], Iterable[Feeds]],
    restrict: Callable[[Values, str], Values],
    inputs: set[str],
) -> list[int]:
    """Hand every batch to both models; returns how many samples each holds."""
    sizes = []
    for number, feeds in enumerate(batches()):
        wanted.start(number, feeds)
        given.start(number, {n: restrict(v, n) for n, v in feeds.items() if n in inputs})
        sizes.append(max((len(v) for v in feeds.values() if v.ndim), default=1))
    return sizes


@dataclass
class _Sums:
    """Second moments of rows and of what they are to come to."""

    rows: Moments
    xy: FloatArray
    y: FloatArray
    yy: FloatArray

    @classmethod
    def empty(cls, groups: int, sums: int, outputs: int) -> _Sums:
        shapes = (groups, sums, outputs), (groups, outputs), (groups, outputs)
        return cls(Moments.empty(groups, sums), *(np.zeros(shape) for shape in shapes))

    def add(self, x: Values, y: Values) -> None:
        """Rows ``[groups, n, sums]`` and what they are to come to ``[groups, n, outputs]``."""
        self.rows.add(x)
        self.xy += x.transpose(0, 2, 1) @ y
        self.y += y.sum(1)
        self.yy += np.einsum("gno,gno->go", y, y)

    @property
    def centred(self) -> tuple[FloatArray, FloatArray]:
        """``X^T X`` and ``X^T Y`` about the means."""
        means = self.y / max(self.rows.count, 1)
        return self.rows.centred, self.xy - np.einsum("gi,go->gio", self.rows.x, means)

    def error(self, weight: FloatArray, bias: FloatArray) -> float:
        """Squared error, relative to the variance of what is wanted."""
        n = max(self.rows.count, 1)
        square = np.einsum("gio,gio->", weight, self.rows.xx @ weight)
        square += self.yy.sum() + n * (bias**2).sum()
        square -= 2 * np.einsum("gio,gio->", weight, self.xy)
        square += 2 * np.einsum("gio,gi,go->", weight, self.rows.x, bias, optimize=True)
        square -= 2 * (self.y * bias).sum()
        spread = self.yy.sum() - (self.y**2).sum() / n
        return float(max(square, 0.0) / spread) if spread > 0 else float(square > 0)


@dataclass
class _Split:
    """What is fitted on, and what is held out."""

    fitting: _Sums
    held: _Sums


def _moments(
    linears: Sequence[Linear],
    beside: Mapping[str, str],
    runs: Iterable[tuple[Feeds, Feeds]],
    sizes: Sequence[int],
    restrict: Callable[[Values, str], Values],
    seed: int,
) -> list[_Split]:
    """Second moments of every operator of one wave, from its inputs and the outputs that are wanted, batch by batch."""
    rng = np.random.default_rng(seed)
    sums: dict[int, _Split] = {}
    seen = 0
    for (inputs, outputs), size in zip(runs, sizes, strict=True):
        for k, linear in enumerate(linears):
            chosen, sample = linear.choose(inputs[linear.input], ROWS, rng)
            x = linear.rows(inputs[linear.input], chosen)
            y = linear.results(restrict(outputs[linear.output], linear.output), chosen)
            if linear.output in beside:
                y = y + _missing(linear, beside[linear.output], inputs, outputs, restrict, chosen)
            shape = x.shape[0], x.shape[2], y.shape[2]
            total = sums.setdefault(k, _Split(_Sums.empty(*shape), _Sums.empty(*shape)))
            held = (seen + sample) % HELD_OUT == HELD_OUT - 1
            total.fitting.add(x[:, ~held], y[:, ~held])
            total.held.add(x[:, held], y[:, held])
        seen += size
    return [sums[k] for k in range(len(linears))]


def _missing(
    linear: Linear,
    name: str,
    inputs: Feeds,
    outputs: Feeds,
    restrict: Callable[[Values, str], Values],
    chosen: IntArray,
) -> Values:
    """By how much what an output is added to has changed so far, at some rows; zero where it is broadcast."""
    was, now = restrict(outputs[name], name), inputs[name]
    if was.shape != now.shape or was.ndim != outputs[linear.output].ndim:
        return np.zeros(1, np.float32)
    if linear.kernel and was.shape[2:] != outputs[linear.output].shape[2:]:
        return np.zeros(1, np.float32)
    if prod(was.shape[:-1]) != prod(outputs[linear.output].shape[:-1]) and not linear.kernel:
        return np.zeros(1, np.float32)
    return linear.results(was.astype(np.float32) - now.astype(np.float32), chosen)


def _fit(editor: Editor, model: Model, linear: Linear, sums: _Split, repair: bool) -> Fit:
    """Solve for one operator, and keep the best of all lambdas where it beats what there was."""
    held = model.array(linear.weight)
    first = linear.matrix(held).astype(np.float64)
    bias: FloatArray = np.zeros((first.shape[0], first.shape[2]), np.float64)
    if linear.bias is not None and linear.adder is None:  # of a product whose bias another node adds, it alone counts
        bias = model.array(model.root(linear.bias)).astype(np.float64).reshape(first.shape[0], first.shape[2])
    before = sums.held.error(first, bias)
    error, weight, shift = _repair(sums, first) if repair else _solve(sums, first, None)
    if not repair and linear.bias is None and linear.slot is None:  # a bias would be a node more
        plain = _solve(sums, first, bias)
        if plain[0] <= (1 + _NODE) * error:
            error, weight, shift = plain
    enough = sums.held.rows.count > 0 and sums.fitting.rows.count > 0
    kept = error < (1 - _GAIN) * before and before > _EXACT and enough
    if kept:
        editor.renew(linear.weight, linear.weight_of(weight, held))
        if (shift != bias).any():
            linear.shift(editor, model, shift - bias)
    return Fit(node_name(model, linear.node), linear.weight, before, error if kept else before, kept)


def _repair(sums: _Split, first: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """Each output scaled and shifted to the mean and variance that are wanted (REPAIR, Jordan et al., ICLR 2023)."""
    fitting = sums.fitting
    now = np.einsum("gio,gio->go", first, fitting.rows.centred @ first)
    wanted = fitting.yy - fitting.y**2 / max(fitting.rows.count, 1)
    scale = np.sqrt(np.maximum(wanted, 0) / np.maximum(now, 1e-30))
    weight = first * np.where(now > 1e-12 * now.max(initial=0), scale, 1.0)[:, None, :]
    shift = _offset(fitting, weight)
    return sums.held.error(weight, shift), weight, shift


def _solve(sums: _Split, first: FloatArray, bias: FloatArray | None) -> tuple[float, FloatArray, FloatArray]:
    """The best of all lambdas on what is held out: its error, weight and bias.

    Args:
        sums: second moments.
        first: the weight that is shrunk towards.
        bias: the bias, where it must stay as it is; None lets it be fitted.
    """
    fitting = sums.fitting
    if bias is None:
        xx, xy = fitting.centred
    else:
        xx, xy = fitting.rows.xx, fitting.xy - np.einsum("gi,go->gio", fitting.rows.x, bias)
    scale = np.einsum("gii->g", xx) / xx.shape[1]
    rest = xy - xx @ first
    found = []
    for ridge in RIDGES:
        damped = xx + (ridge * scale + 1e-12)[:, None, None] * np.eye(xx.shape[1])
        weight = first + np.linalg.solve(damped, rest)
        shift = _offset(fitting, weight) if bias is None else bias
        found.append((sums.held.error(weight, shift), weight, shift))
    return min(found, key=lambda one: one[0])


def _offset(sums: _Sums, weight: FloatArray) -> FloatArray:
    """The bias that goes with a weight."""
    n = max(sums.rows.count, 1)
    return np.asarray(sums.y / n - np.einsum("gi,gio->go", sums.rows.x / n, weight), np.float64)
