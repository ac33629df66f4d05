"""What is lost of what a weight makes, at every rank.

With C the second moments of its inputs (about their mean, where a bias can make up for it), the product ``x W`` loses
``E |x W - x A B|^2 = tr((W - A B)^T C (W - A B))``. With ``C = L L^T`` the best A B of a rank comes from the singular
values of ``L^T W``: what is lost is the sum of the squares of those left out (DRONE, Chen et al., NeurIPS 2021;
SVD-LLM, Wang et al., ICLR 2025). Without inputs C is the identity, and this is the SVD of the weight.

Whichever of ``W^T C W = V S^2 V^T`` and ``L^T W W^T L = U S^2 U^T`` is smaller is diagonalised: ``A = W V, B = V^T``,
or ``A = L^-T U, B = U^T L^T W``. Of a table C is diagonal: how often each row is looked up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.analysis import Analysis
from graphprune.analysis.contractions import chance, rows_of_run
from graphprune.analysis.factors import Site
from graphprune.model import Model
from graphprune.progress import Steps, unseen
from graphprune.relation import Values
from graphprune.rewrite.factor import Factors
from graphprune.run.calibration import Batches
from graphprune.run.moments import FloatArray, Gathered, Moments
from graphprune.run.staged import observed, waves

HELD = 4
"""One in so many batches is held out, and measured."""
_RIDGE = 1e-3
"""Of the mean of C's diagonal, what is added to it: directions that few inputs take are not without worth."""

_UNSEEN = 0.25
"""What part of the weight of a table's rows lies on all of them alike."""


@dataclass(frozen=True)
class Spectrum:
    """What a weight loses at every rank.

    Attributes:
        site: the weight.
        lost: for ranks 0, 1, ... the share of the energy of what it makes that is lost; 1 at rank 0, 0 at the last.
        energy: of what it makes, per row: the mean square length.
        held: the same on inputs that were held out, None where there are none.
        basis: U or V, strongest directions first.
        root: L, None where C is the identity; of a table its diagonal.
        mean: of the inputs, where a bias makes up for it.
    """

    site: Site
    lost: FloatArray
    energy: float
    held: FloatArray | None
    basis: FloatArray
    root: FloatArray | None
    mean: FloatArray | None

    def factors(self, weight: FloatArray, rank: int) -> Factors:
        """The best product of two of a rank.

        Args:
            weight: ``[sums, outputs]``.
            rank: at most that of ``lost``'s last entry.
        """
        left, right = _halves(weight, self.basis[:, :rank], self.root)
        scale = np.sqrt((np.linalg.norm(right, axis=1) + 1e-30) / (np.linalg.norm(left, axis=0) + 1e-30))
        left, right = left * scale, right / scale[:, None]  # alike in size, for types with little range
        shift = None if self.mean is None else self.mean @ weight - (self.mean @ left) @ right
        return Factors(self.site, left, right, shift)


def _halves(weight: FloatArray, basis: FloatArray, root: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    if basis.shape[0] == weight.shape[1]:
        return weight @ basis, basis.T
    if root is None:
        return basis, basis.T @ weight
    if root.ndim == 1:
        return basis / root[:, None], (basis * root[:, None]).T @ weight
    return np.linalg.solve(root.T, basis), (root @ basis).T @ weight


def spectrum(
    site: Site,
    weight: FloatArray,
    second: FloatArray | None = None,
    held: FloatArray | None = None,
    mean: FloatArray | None = None,
) -> Spectrum:
    """What a weight loses at every rank.

    Args:
        site: the weight.
        weight: ``[sums, outputs]``.
        second: second moments of what it multiplies, ``[sums, sums]`` or the diagonal; None is the identity.
        held: the same on inputs that were held out.
        mean: of what it multiplies, where a bias can make up for it.
    """
    root = None if second is None else _root(second)
    seen = weight if root is None else root[:, None] * weight if root.ndim == 1 else root.T @ weight
    narrow = seen.shape[1] <= seen.shape[0]
    values, basis = np.linalg.eigh(seen.T @ seen if narrow else seen @ seen.T)
    energies, basis = np.maximum(values[::-1], 0), np.ascontiguousarray(basis[:, ::-1])
    left, right = _halves(weight, basis, root)
    apart = None if held is None else _energies(left, right, held)
    return Spectrum(
        site, _left(energies), float(energies.sum()), None if apart is None else _left(apart), basis, root, mean
    )


def _root(second: FloatArray) -> FloatArray:
    """L of second moments, with a ridge; of a diagonal its root."""
    diagonal = second if second.ndim == 1 else np.diag(second)
    ridge = _RIDGE * float(diagonal.mean()) + 1e-30
    if second.ndim == 1:
        return np.asarray(np.sqrt(second + ridge), np.float64)
    return np.asarray(np.linalg.cholesky(second + ridge * np.eye(len(second))), np.float64)


def _energies(left: FloatArray, right: FloatArray, second: FloatArray) -> FloatArray:
    """What each direction adds on other inputs.

    Rows of ``right`` are orthogonal, so that they add up.
    """
    moved = second[:, None] * left if second.ndim == 1 else second @ left
    found: FloatArray = np.einsum("ik,ik->k", left, moved) * np.einsum("kj,kj->k", right, right)
    return np.maximum(found, 0)


def _left(energies: FloatArray) -> FloatArray:
    """For every rank the share of what is left out."""
    behind = np.append(np.cumsum(energies[::-1])[::-1], 0.0)
    return behind / max(float(behind[0]), 1e-300)


def matrix(model: Model, site: Site) -> FloatArray:
    """A weight as ``[sums, outputs]``."""
    value = model.array(site.weight)
    found: Values = value if site.product is None else site.product.matrix(value)[0]
    return found.astype(np.float64)


def by_weights(analysis: Analysis, sites: Sequence[Site]) -> list[Spectrum]:
    """What weights lose by themselves, whatever they multiply."""
    return [spectrum(site, matrix(analysis.model, site)) for site in sites]


def by_data(
    analysis: Analysis, sites: Sequence[Site], batches: Batches, seed: int = 0, progress: Steps = unseen
) -> list[Spectrum]:
    """What weights lose of what they make of calibration inputs; of those that no input reaches by themselves.

    Args:
        analysis: of the model.
        sites: the weights.
        batches: gives the calibration inputs.
        seed: of the choice of rows.
        progress: is told after each step how many of how many are done.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    seen = _observed(analysis, sites, batches, seed, progress)
    found = []
    for site in sites:
        own, weight = seen.get(site.weight), matrix(analysis.model, site)
        if own is None:
            found.append(spectrum(site, weight))
            continue
        second, held = own.told()
        found.append(spectrum(site, weight, second, held, own.mean))
    return found


class _Sums:
    """Second moments of what a product multiplies, on what is fitted and on what is held out."""

    def __init__(self, site: Site) -> None:
        assert site.product is not None
        self.product = site.product
        self.parts = [Moments.empty(*self.product.widths) for _ in range(2)]
        self.rows = [Gathered(part.add, site.sums) for part in self.parts]

    def add(self, values: Mapping[str, Values], seed: int, run: int, runs: int) -> None:
        x = values[self.product.input]
        most = rows_of_run(self.product.widths[1], runs)
        chosen = self.product.choose(x, most, chance(seed, self.product.input, run))[0]
        self.rows[run % HELD == HELD - 1].add(self.product.rows(x, chosen))

    @property
    def mean(self) -> FloatArray | None:
        """Of what is fitted, where a bias makes up for it."""
        return self.parts[0].mean[0] if self.product.bias is not None else None

    def told(self) -> tuple[FloatArray, FloatArray | None]:
        """Second moments of both parts, about one mean."""
        for rows in self.rows:
            rows.finish()
        fitted, held = self.parts
        origin = fitted.mean if self.mean is not None else np.zeros_like(fitted.x)
        if not held.count:
            return fitted.seen_from(origin)[0] / max(fitted.count, 1), None
        return fitted.seen_from(origin)[0] / fitted.count, held.seen_from(origin)[0] / held.count


class _Counts:
    """How often each row of a table is looked up."""

    mean = None

    def __init__(self, site: Site) -> None:
        self.site, self.parts = site, np.zeros((2, site.sums))

    def add(self, values: Mapping[str, Values], seed: int, run: int, runs: int) -> None:
        for name in self.site.numbers:
            rows = np.asarray(values[name]).reshape(-1) % self.site.sums
            self.parts[int(run % HELD == HELD - 1)] += np.bincount(rows, minlength=self.site.sums)

    def told(self) -> tuple[FloatArray, FloatArray | None]:
        """Frequencies; a part of the weight lies on all rows alike, since others may come than those that were seen."""
        fitted, held = self.parts
        seen = (1 - _UNSEEN) * fitted / max(fitted.sum(), 1) + _UNSEEN / len(fitted)
        return seen, held / held.sum() if held.any() else None


def _observed(
    analysis: Analysis, sites: Sequence[Site], batches: Batches, seed: int, progress: Steps
) -> dict[str, _Sums | _Counts]:
    """What is multiplied by every weight that inputs reach."""
    model = analysis.model.runnable
    there = (set(model.producer) | {i.name for i in model.inputs}) - model.constant_names
    found: dict[str, _Sums | _Counts] = {}
    pending: dict[int, list[tuple[_Sums | _Counts, list[str], str]]] = {}
    for site in sites:
        reads = list(site.numbers) if site.product is None else [site.product.input]
        outputs = site.nodes(analysis.model)
        if there.issuperset(reads) and all(o in model.producer for o in outputs):
            own = found[site.weight] = _Counts(site) if site.product is None else _Sums(site)
            pending.setdefault(model.producer[outputs[0]], []).append((own, reads, outputs[0]))
    steps = [[one for node in step for one in node] for step in waves(model, pending)]
    made = [{output: reads for _, reads, output in step} for step in steps]
    runs = sum(1 for _ in batches())
    for number, run, values in observed(model, made, batches, progress):
        for own, _, _ in steps[number]:
            own.add(values, seed, run, runs)
    return found
