"""Layer-wise reconstruction: what is left of each linear operator is fitted to what the original made.

For each operator with rows x of the pruned model and outputs y of the original, on unlabelled calibration inputs,

    minimise  sum |y - x W - b|^2 + lambda |W - W0|^2

by ridge least squares that shrinks towards the weights that were kept (AIMET's and ThiNet's reconstruction of a pruned
layer's consumer; Luo et al., ICCV 2017). Operators are taken in the order in which data passes them, those side by side
together; inputs come from the model with everything before already fitted, so that errors do not pile up. Of the
samples every fourth is held out: it chooses lambda, and a fit that does not help there is dropped.

Only second moments are kept of the data (``X^T X`` and ``X^T Y``), so memory does not grow with the number of samples.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from graphprune.contractions import ROWS
from graphprune.editor import Editor
from graphprune.linear import Linear, find
from graphprune.model import Model, node_name
from graphprune.moments import FloatArray, Moments
from graphprune.relation import Values
from graphprune.staged import Staged, waves

Feeds = Mapping[str, Values]
RIDGES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Lambda beside the mean diagonal of ``X^T X``."""
HELD_OUT = 4
"""One sample in this many is held out."""
_GAIN, _EXACT = 1e-3, 1e-9
"""A fit must win this share of the error, and there must be some: else rounding would decide."""


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
) -> Reconstructed:
    """Fit the linear operators of a pruned model to the original.

    Args:
        original: as it runs; tensors that both models have bear the same names.
        pruned: the model; it is not changed.
        batches: gives the calibration inputs, from the start at each call.
        restrict: takes out of an original activation, by name, what was removed from it.
        seed: of the choice of rows.
        progress: is told after each step how many of how many are done.

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
            runs = zip(
                given.run(pruned, number, len(sizes), list(dict.fromkeys(n.input for n in linears))),
                wanted.run(original, number, len(sizes), [n.output for n in linears]),
                strict=True,
            )
            sums = _moments(linears, runs, sizes, restrict, seed)
            editor = Editor(pruned)
            for linear, moments in zip(linears, sums, strict=True):
                fits.append(_fit(editor, pruned, linear, moments))
            pruned = editor.finish()
            progress(number + 1, len(steps))
    return Reconstructed(pruned, fits)


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
            shape = x.shape[0], x.shape[2], y.shape[2]
            total = sums.setdefault(k, _Split(_Sums.empty(*shape), _Sums.empty(*shape)))
            held = (seen + sample) % HELD_OUT == HELD_OUT - 1
            total.fitting.add(x[:, ~held], y[:, ~held])
            total.held.add(x[:, held], y[:, held])
        seen += size
    return [sums[k] for k in range(len(linears))]


def _fit(editor: Editor, model: Model, linear: Linear, sums: _Split) -> Fit:
    """Solve for one operator, and keep the best of all lambdas where it beats what there was."""
    held = model.array(linear.weight)
    first = linear.matrix(held).astype(np.float64)
    outputs = first.shape[0] * first.shape[2]
    old = model.array(model.root(linear.bias)).astype(np.float64) if linear.bias is not None else np.zeros(outputs)
    # of a product whose bias another node adds, the product alone is wanted
    own = np.zeros_like(old) if linear.adder is not None else old
    bias = own.reshape(first.shape[0], first.shape[2])
    before = sums.held.error(first, bias)
    xx, xy = sums.fitting.centred
    scale = np.einsum("gii->g", xx) / xx.shape[1]
    rest = xy - xx @ first
    best, weight, shift = before, first, bias
    for ridge in RIDGES:
        damped = xx + (ridge * scale + 1e-12)[:, None, None] * np.eye(xx.shape[1])
        trial = first + np.linalg.solve(damped, rest)
        offset = _offset(linear, sums.fitting, trial, bias)
        error = sums.held.error(trial, offset)
        if error < best:
            best, weight, shift = error, trial, offset
    enough = sums.held.rows.count > 0 and sums.fitting.rows.count > 0
    kept = best < (1 - _GAIN) * before and before > _EXACT and enough
    if kept:
        editor.renew(linear.weight, linear.weight_of(weight, held))
        _add_bias(editor, linear, (shift - bias).reshape(-1) + old, held.dtype)
    return Fit(node_name(model, linear.node), linear.weight, before, best if kept else before, kept)


def _offset(linear: Linear, sums: _Sums, weight: FloatArray, bias: FloatArray) -> FloatArray:
    """The bias that goes with a weight; what has no place for one keeps what it has."""
    if linear.bias is None and not linear.kernel:
        return bias
    n = max(sums.rows.count, 1)
    return sums.y / n - np.einsum("gi,gio->go", sums.rows.x / n, weight)


def _add_bias(editor: Editor, linear: Linear, value: FloatArray, dtype: npt.DTypeLike) -> None:
    if linear.bias is None and not linear.kernel:
        return
    array = value.astype(dtype)
    if linear.bias is not None and editor.renew(linear.bias, array):
        return
    node, position = linear.node, 2
    if linear.adder is not None:
        node, position = linear.adder, list(editor.nodes[linear.adder].input).index(str(linear.bias))
    editor.redirect(node, position, editor.constant(linear.bias or f"{linear.output}/bias", array, node))
