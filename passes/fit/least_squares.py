"""Ridge least squares towards given weights, from second moments, judged by what is held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from graphprune.analysis.patterns import Mask
from graphprune.relation import Values
from graphprune.run import positive
from graphprune.run.moments import FloatArray, Moments

RIDGES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Lambda beside the mean diagonal of ``X^T X``."""
_SINGLE = 1e-3
"""Lambda from which on single precision does."""
_ASKED = 128
"""Outputs that say which lambda is the best."""
_COARSE = (1e-4, 1e-2, 1e-1, 1.0)
_STEPS, _ENOUGH = 40, 1e-6
"""Steps of conjugate gradients, and the share of the squared residual at which they end."""


@dataclass
class Sums:
    """Second moments of rows and of what they are to come to.

    Attributes:
        rows: of the rows.
        cross: ``X^T Y``, each about its origin.
        y: sum of what is wanted.
        yy: its squares about its origin.
        origin: of what is wanted, as that of rows.
    """

    rows: Moments
    cross: FloatArray
    y: FloatArray
    yy: FloatArray
    origin: FloatArray | None = None

    @classmethod
    def empty(cls, groups: int, sums: int, outputs: int) -> Sums:
        """Of no rows yet."""
        cross, y, yy = (np.zeros(shape) for shape in ((groups, sums, outputs), (groups, outputs), (groups, outputs)))
        return cls(Moments.empty(groups, sums), cross, y, yy)

    def add(self, x: Values, y: Values) -> None:
        """Rows ``[groups, n, sums]`` and what they are to come to ``[groups, n, outputs]``."""
        if not x.shape[1]:
            return
        if self.origin is None:
            self.origin = np.asarray(y.mean(1), np.float64)
        seen = y - self.origin.astype(y.dtype)[:, None]
        self.cross += self.rows.add(x).transpose(0, 2, 1) @ seen
        self.y += y.sum(1, dtype=np.float64)
        self.yy += np.einsum("gno,gno->go", seen, seen)

    def part(self, own: slice) -> Sums:
        """The same of some of what is wanted."""
        origin = None if self.origin is None else self.origin[:, own]
        return Sums(self.rows, self.cross[:, :, own], self.y[:, own], self.yy[:, own], origin)

    def joined(self, other: Sums) -> Sums:
        """The rows of both."""
        if self.origin is None or self.rows.origin is None:
            return other
        rows = Moments(
            self.rows.about + other.rows.seen_from(self.rows.origin),
            self.rows.x + other.rows.x,
            self.rows.count + other.rows.count,
            self.rows.origin,
        )
        cross = self.cross + other._crossed(self.rows.origin, self.origin)
        return Sums(rows, cross, self.y + other.y, self.yy + other._squares(self.origin), self.origin)

    def _crossed(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """``X^T Y`` about other origins."""
        n, own = self.rows.count, (self.rows.origin, self.origin)
        first, second = (np.zeros_like(to) if o is None else o for o, to in zip(own, (x, y), strict=True))
        steps = first - x, second - y
        found = self.cross + steps[0][:, :, None] * (self.y - n * y)[:, None]
        return np.asarray(found + (self.rows.x - n * first)[:, :, None] * steps[1][:, None], np.float64)

    def _squares(self, origin: FloatArray) -> FloatArray:
        own = np.zeros_like(origin) if self.origin is None else self.origin
        step = own - origin
        return np.asarray(self.yy + 2 * step * (self.y - self.rows.count * own) + self.rows.count * step**2, np.float64)

    @property
    def xy(self) -> FloatArray:
        """``X^T Y``."""
        return self._crossed(np.zeros_like(self.rows.x), np.zeros_like(self.y))

    @property
    def mean(self) -> FloatArray:
        """The mean of what is wanted."""
        return self.y / max(self.rows.count, 1)

    @property
    def variance(self) -> FloatArray:
        """Squares of what is wanted about its mean, summed."""
        return self._squares(self.mean)

    @property
    def centred(self) -> tuple[FloatArray, FloatArray]:
        """``X^T X`` and ``X^T Y`` about the means."""
        return self.rows.centred, self._crossed(self.rows.mean, self.mean)

    def error(self, weight: FloatArray, bias: FloatArray) -> float:
        """Squared error, relative to the variance of what is wanted."""
        xx, xy = self.centred
        spread = float(self.variance.sum())
        square = np.einsum("gio,gio->", weight, _times(xx, weight) - 2 * xy) + spread
        apart = np.einsum("gi,gio->go", self.rows.mean, weight) + bias - self.mean
        square += self.rows.count * np.square(apart).sum()
        return float(max(square, 0.0) / spread) if spread > 0 else float(square > 0)


@dataclass
class Split:
    """What is fitted on, and what is held out.

    Attributes:
        fitting, held: the sums of both.
        roots: of second moments that were solved for, by lambda and whether about the mean: for all that is wanted of
            the same rows.
    """

    fitting: Sums
    held: Sums
    roots: dict[tuple[float, bool], Values] = field(default_factory=dict, repr=False)

    @classmethod
    def empty(cls, groups: int, sums: int, outputs: int) -> Split:
        """Of no rows yet."""
        return cls(Sums.empty(groups, sums, outputs), Sums.empty(groups, sums, outputs))

    def add(self, x: Values, y: Values, held: Values) -> None:
        """Rows and what they are to come to; those that are marked are held out."""
        self.fitting.add(x[:, ~held], y[:, ~held])
        self.held.add(x[:, held], y[:, held])

    def part(self, own: slice) -> Split:
        """The same of some of what is wanted."""
        return Split(self.fitting.part(own), self.held.part(own), self.roots)

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
    wanted = fitting.variance
    scale = np.sqrt(np.maximum(wanted, 0) / np.maximum(now, 1e-30))
    weight = first * np.where(now > 1e-12 * now.max(initial=0), scale, 1.0)[:, None, :]
    shift = _offset(fitting, weight)
    return sums.held.error(weight, shift), weight, shift


def solve(sums: Split, first: FloatArray, bias: FloatArray | None) -> tuple[float, FloatArray, FloatArray]:
    """The best of all lambdas on what is held out: its error, weight and bias.

    Of many outputs some say which lambda is the best; the others are solved for with that one alone.

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
    rest = xy - _times(xx, first)
    some = slice(None, None, max(1, first.shape[2] // _ASKED))
    every = slice(None)

    def at(place: int, own: slice) -> tuple[float, FloatArray, FloatArray]:
        part, fixed = sums.part(own), None if bias is None else bias[:, own]
        try:
            weight = first[:, :, own] + _solved(sums, xx, rest[:, :, own], place, bias is None)
        except np.linalg.LinAlgError:  # lambda is less than what rounding left in the moments
            weight = first[:, :, own]
            return np.inf, weight, _offset(part.fitting, weight) if fixed is None else fixed
        shift = _offset(part.fitting, weight) if fixed is None else fixed
        return part.held.error(weight, shift), weight, shift

    found = cache(lambda place: at(place, some))
    best = _lowest(lambda place: found(place)[0])
    return found(best) if some == slice(None, None, 1) else at(best, every)


def _solved(sums: Split, xx: FloatArray, rest: FloatArray, place: int, centred: bool) -> Values:
    """What a lambda makes into the rest.

    Raises:
        LinAlgError: it is too small.
    """
    single = xx.shape[1] > positive.LARGE and RIDGES[place] >= _SINGLE
    kind = np.float32 if single else np.float64
    key = RIDGES[place], centred
    if key not in sums.roots:
        sums.roots[key] = _root(xx, RIDGES[place], kind)
    return positive.solved(sums.roots[key], rest.astype(kind, copy=False))


def _root(xx: FloatArray, ridge: float, kind: npt.DTypeLike) -> Values:
    """The inverse of Cholesky's factor of damped second moments.

    Raises:
        LinAlgError: they are not positive definite.
    """
    diagonal = np.arange(xx.shape[1])
    damped = xx.copy()
    damped[:, diagonal, diagonal] += (ridge * np.einsum("gii->g", xx) / xx.shape[1] + 1e-12)[:, None]
    return positive.inverse_root(damped.astype(kind, copy=False))


def _lowest(error: Callable[[int], float]) -> int:
    """The place of the least error, downhill from the middle: it falls up to the best lambda, then it rises."""
    place = len(RIDGES) // 2
    for step in (1, -1):
        begun = place
        while 0 <= place + step < len(RIDGES) and error(place + step) < error(place):
            place += step
        if place != begun:
            break
    return place


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


def _times(xx: FloatArray, weight: FloatArray) -> FloatArray:
    """Their product; of long sums in single precision, which does for what is compared by a thousandth."""
    if xx.shape[1] <= positive.LARGE:
        return xx @ weight
    return np.asarray(xx.astype(np.float32) @ weight.astype(np.float32), np.float64)


def _offset(sums: Sums, weight: FloatArray) -> FloatArray:
    """The bias that goes with a weight."""
    return np.asarray(sums.mean - np.einsum("gi,gio->go", sums.rows.mean, weight), np.float64)
