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

from graphprune.editor import Editor
from graphprune.linear import Linear, find
from graphprune.model import Model, node_name
from graphprune.relation import Values
from graphprune.staged import Staged

Feeds = Mapping[str, Values]
Moments = npt.NDArray[np.float64]
ROWS = 2048
"""Rows of one operator in one run of the model; more positions of an image say little that is new."""
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
    steps = [[n for n in wave if n.output in known] for wave in waves(pruned)]
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


def waves(model: Model) -> list[list[Linear]]:
    """Linear operators in the order in which data passes them; no two of one wave are behind each other."""
    linears = {linear.node: linear for linear in find(model)}
    depth: dict[str, int] = {}
    found: list[list[Linear]] = []
    for index, node in enumerate(model.nodes):
        behind = max((depth.get(n, 0) for n in [*node.input, *model.captured.get(index, ())]), default=0)
        if index in linears:
            while len(found) <= behind:
                found.append([])
            found[behind].append(linears[index])
            behind += 1
        depth.update(dict.fromkeys(node.output, behind))
    return found


@dataclass
class _Sums:
    """Second moments of one operator's rows: of fitting samples, and of those held out."""

    xx: list[Moments]
    xy: list[Moments]
    x: list[Moments]
    y: list[Moments]
    yy: list[Moments]
    count: list[int]

    @classmethod
    def empty(cls, groups: int, sums: int, outputs: int) -> _Sums:
        shapes = ((groups, sums, sums), (groups, sums, outputs), (groups, sums), (groups, outputs), (groups, outputs))
        xx, xy, x, y, yy = ([np.zeros(shape), np.zeros(shape)] for shape in shapes)
        return cls(xx, xy, x, y, yy, [0, 0])

    def add(self, part: int, x: Values, y: Values) -> None:
        """Rows ``[groups, n, sums]`` and what they come to ``[groups, n, outputs]``."""
        if not x.shape[1]:
            return
        turned = x.transpose(0, 2, 1)
        self.xx[part] += turned @ x
        self.xy[part] += turned @ y
        self.x[part] += x.sum(1)
        self.y[part] += y.sum(1)
        self.yy[part] += np.einsum("gno,gno->go", y, y)
        self.count[part] += x.shape[1]

    def centred(self, part: int) -> tuple[Moments, Moments]:
        """``X^T X`` and ``X^T Y`` about the means of a part."""
        n = max(self.count[part], 1)
        x, y = self.x[part] / n, self.y[part] / n
        outer = np.einsum("gi,gj->gij", x, x), np.einsum("gi,go->gio", x, y)
        return self.xx[part] - n * outer[0], self.xy[part] - n * outer[1]

    def error(self, weight: Moments, bias: Moments) -> float:
        """Squared error on what is held out, relative to the variance of what is wanted."""
        n = max(self.count[1], 1)
        b = bias
        square = np.einsum("gio,gij,gjo->", weight, self.xx[1], weight, optimize=True)
        square += self.yy[1].sum() + n * (b**2).sum()
        square -= 2 * np.einsum("gio,gio->", weight, self.xy[1])
        square += 2 * np.einsum("gio,gi,go->", weight, self.x[1], b, optimize=True)
        square -= 2 * (self.y[1] * b).sum()
        spread = self.yy[1].sum() - (self.y[1] ** 2).sum() / n
        return float(max(square, 0.0) / spread) if spread > 0 else float(square > 0)


def _moments(
    linears: Sequence[Linear],
    runs: Iterable[tuple[Feeds, Feeds]],
    sizes: Sequence[int],
    restrict: Callable[[Values, str], Values],
    seed: int,
) -> list[_Sums]:
    """Second moments of every operator of one wave, from its inputs and the outputs that are wanted, batch by batch."""
    rng = np.random.default_rng(seed)
    sums: dict[int, _Sums] = {}
    seen = 0
    for (inputs, outputs), size in zip(runs, sizes, strict=True):
        for k, linear in enumerate(linears):
            y = restrict(outputs[linear.output], linear.output)
            x, y, sample = linear.pick(inputs[linear.input], y, ROWS, rng)
            held = (seen + sample) % HELD_OUT == HELD_OUT - 1
            total = sums.setdefault(k, _Sums.empty(x.shape[0], x.shape[2], y.shape[2]))
            total.add(0, x[:, ~held], y[:, ~held])
            total.add(1, x[:, held], y[:, held])
        seen += size
    return [sums[k] for k in range(len(linears))]


def _fit(editor: Editor, model: Model, linear: Linear, sums: _Sums) -> Fit:
    """Solve for one operator, and keep the best of all lambdas where it beats what there was."""
    held = model.array(linear.weight)
    first = linear.matrix(held).astype(np.float64)
    outputs = first.shape[0] * first.shape[2]
    old = model.array(model.root(linear.bias)).astype(np.float64) if linear.bias is not None else np.zeros(outputs)
    # of a product whose bias another node adds, the product alone is wanted
    own = np.zeros_like(old) if linear.adder is not None else old
    bias = own.reshape(first.shape[0], first.shape[2])
    before = sums.error(first, bias)
    xx, xy = sums.centred(0)
    scale = np.einsum("gii->g", xx) / xx.shape[1]
    rest = xy - xx @ first
    best, weight, shift = before, first, bias
    for ridge in RIDGES:
        damped = xx + (ridge * scale + 1e-12)[:, None, None] * np.eye(xx.shape[1])
        trial = first + np.linalg.solve(damped, rest)
        offset = _offset(linear, sums, trial, bias)
        error = sums.error(trial, offset)
        if error < best:
            best, weight, shift = error, trial, offset
    kept = best < (1 - _GAIN) * before and before > _EXACT and sums.count[1] > 0 and sums.count[0] > 0
    if kept:
        editor.renew(linear.weight, linear.weight_of(weight, held))
        _add_bias(editor, linear, (shift - bias).reshape(-1) + old, held.dtype)
    return Fit(node_name(model, linear.node), linear.weight, before, best if kept else before, kept)


def _offset(linear: Linear, sums: _Sums, weight: Moments, bias: Moments) -> Moments:
    """The bias that goes with a weight; what has no place for one keeps what it has."""
    if linear.bias is None and not linear.kernel:
        return bias
    n = max(sums.count[0], 1)
    return sums.y[0] / n - np.einsum("gi,gio->go", sums.x[0] / n, weight)


def _add_bias(editor: Editor, linear: Linear, value: Moments, dtype: npt.DTypeLike) -> None:
    if linear.bias is None and not linear.kernel:
        return
    array = value.astype(dtype)
    if linear.bias is not None and editor.renew(linear.bias, array):
        return
    node, position = linear.node, 2
    if linear.adder is not None:
        node, position = linear.adder, list(editor.nodes[linear.adder].input).index(str(linear.bias))
    editor.redirect(node, position, editor.constant(linear.bias or f"{linear.output}/bias", array, node))
