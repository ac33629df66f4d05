"""Ridge least squares towards given weights, from second moments, judged by what is held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.analysis.patterns import Mask
from graphprune.relation import Values
from graphprune.run.moments import FloatArray, Moments

RIDGES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Lambda beside the mean diagonal of ``X^T X``."""
_COARSE = (1e-4, 1e-2, 1e-1, 1.0)
_STEPS, _ENOUGH = 40, 1e-6
"""Steps of conjugate gradients, and the share of the squared residual at which they end."""


@dataclass
class Sums:
    """Second moments of rows and of what they are to come to."""

    rows: Moments
    xy: FloatArray
    y: FloatArray
    yy: FloatArray

    @classmethod
    def empty(cls, groups: int, sums: int, outputs: int) -> Sums:
        """Of no rows yet."""
        shapes = (groups, sums, outputs), (groups, outputs), (groups, outputs)
        return cls(Moments.empty(groups, sums), *(np.zeros(shape) for shape in shapes))

    def add(self, x: Values, y: Values) -> None:
        """Rows ``[groups, n, sums]`` and what they are to come to ``[groups, n, outputs]``."""
        self.rows.add(x)
        self.xy += x.transpose(0, 2, 1) @ y
        self.y += y.sum(1)
        self.yy += np.einsum("gno,gno->go", y, y)

    def joined(self, other: Sums) -> Sums:
        """The rows of both."""
        rows = Moments(self.rows.xx + other.rows.xx, self.rows.x + other.rows.x, self.rows.count + other.rows.count)
        return Sums(rows, self.xy + other.xy, self.y + other.y, self.yy + other.yy)

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
class Split:
    """What is fitted on, and what is held out."""

    fitting: Sums
    held: Sums

    @classmethod
    def empty(cls, groups: int, sums: int, outputs: int) -> Split:
        """Of no rows yet."""
        return cls(Sums.empty(groups, sums, outputs), Sums.empty(groups, sums, outputs))

    def add(self, x: Values, y: Values, held: Values) -> None:
        """Rows and what they are to come to; those that are marked are held out."""
        self.fitting.add(x[:, ~held], y[:, ~held])
        self.held.add(x[:, held], y[:, held])

    def joined(self, other: Split) -> Split:
        """The rows of both."""
        return Split(self.fitting.joined(other.fitting), self.held.joined(other.held))

    @property
    def enough(self) -> bool:
        """Whether there is something on both sides."""
        return self.fitting.rows.count > 0 and self.held.rows.count > 0


def repaired(sums: Split, first: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """Each output scaled and shifted to the mean and variance that are wanted (REPAIR, Jordan et al., ICLR 2023)."""
    fitting = sums.fitting
    now = np.einsum("gio,gio->go", first, fitting.rows.centred @ first)
    wanted = fitting.yy - fitting.y**2 / max(fitting.rows.count, 1)
    scale = np.sqrt(np.maximum(wanted, 0) / np.maximum(now, 1e-30))
    weight = first * np.where(now > 1e-12 * now.max(initial=0), scale, 1.0)[:, None, :]
    shift = _offset(fitting, weight)
    return sums.held.error(weight, shift), weight, shift


def solve(sums: Split, first: FloatArray, bias: FloatArray | None) -> tuple[float, FloatArray, FloatArray]:
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


def masked(sums: Split, first: FloatArray, bias: FloatArray | None, stay: Mask) -> tuple[float, FloatArray, FloatArray]:
    """The same where only some elements of the weight may differ from zero: its error, weight and bias.

    Each output has a support of its own. All are solved for at once by conjugate gradients on their supports,
    preconditioned by the diagonal, from the largest lambda to the smallest, each from the solution before.

    Args:
        sums: second moments.
        first: the weight that is shrunk towards, zero where nothing stays.
        bias: the bias, where it must stay as it is; None lets it be fitted.
        stay: what may differ from zero, in the shape of the weight.
    """
    fitting = sums.fitting
    if bias is None:
        xx, xy = fitting.centred
    else:
        xx, xy = fitting.rows.xx, fitting.xy - np.einsum("gi,go->gio", fitting.rows.x, bias)
    shift = _offset(fitting, first) if bias is None else bias
    found = [(sums.held.error(first, shift), first, shift)]
    if not np.isfinite(xx).all():
        return found[0]
    scale = np.maximum(np.einsum("gii->g", xx) / xx.shape[1], 1e-300)[:, None, None]  # 1 is average: float32 will do
    gram, wanted = (xx / scale).astype(np.float32), np.where(stay, (xy - xx @ first) / scale, 0).astype(np.float32)
    change = np.zeros_like(wanted)
    for ridge in reversed(_COARSE):
        change = _descend(gram, ridge, wanted, stay, change)
        weight = first + change
        shift = _offset(fitting, weight) if bias is None else bias
        found.append((sums.held.error(weight, shift), weight, shift))
    return min(found, key=lambda one: one[0])


def _descend(gram: Values, ridge: float, wanted: Values, stay: Mask, start: Values) -> Values:
    """Conjugate gradients for ``(gram + ridge) x = wanted`` on the support of each column; solved ones wait."""

    def product(x: Values) -> Values:
        return np.where(stay, gram @ x + ridge * x, 0)

    scaled = (1 / (np.einsum("gii->gi", gram) + ridge))[:, :, None]
    x, residual = start.copy(), wanted - product(start)
    step = scaled * residual
    energy = np.einsum("gio,gio->go", residual, step)
    enough = _ENOUGH * np.einsum("gio,gio->go", wanted, scaled * wanted)
    for _ in range(_STEPS):
        going = energy > enough
        if not going.any():
            break
        made = product(step)
        length = _share(energy, np.einsum("gio,gio->go", step, made), going)
        x += length[:, None] * step
        residual -= length[:, None] * made
        turned = scaled * residual
        fresh = np.einsum("gio,gio->go", residual, turned)
        step = turned + _share(fresh, energy, going)[:, None] * step
        energy = fresh
    return x


def _share(a: Values, b: Values, where: Mask) -> Values:
    """``a / b`` where that is asked for and b is positive, else 0."""
    return np.divide(a, b, out=np.zeros_like(a), where=where & (b > 0))


def _offset(sums: Sums, weight: FloatArray) -> FloatArray:
    """The bias that goes with a weight."""
    n = max(sums.rows.count, 1)
    return np.asarray(sums.y / n - np.einsum("gi,gio->go", sums.rows.x / n, weight), np.float64)
