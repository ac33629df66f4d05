"""Search over allocations: candidates that keep all budgets, each refitted and held against the original.

Allocation adds up errors that were foreseen for each unit alone, weighted by what is true to first order. How wrong
that is shows only in a whole model. With ``e_u(n)`` what was foreseen, a candidate with ``n_u`` classes gone of unit u
is taken to have the squared distance

    f(n)^2 = sum_u w_u e_u(n_u),    w normal about what was foreseen,

and each candidate that is evaluated says something of all weights (linear regression, Bayesian). The next one is what
the Lagrangian finds for weights drawn from what is then believed of them (Thompson, Biometrika 1933): so it keeps the
budgets as closely as the first does; steps are wide while little is known, and become small. The best is kept.

That candidates are refitted and judged as whole models, by outputs, is from Tyr (arXiv 2503.09657), which exchanges
shares between layers by chance.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.analysis.contractions import observe
from graphprune.passes.choose import goals
from graphprune.passes.choose.goals import Problem
from graphprune.passes.choose.refitted import Refitted
from graphprune.passes.distill import durations
from graphprune.passes.holding import divide
from graphprune.passes.kept import Keeping
from graphprune.passes.metric import FIDELITY, Fidelity
from graphprune.progress import Steps, unseen
from graphprune.rewrite.removal import Selection
from graphprune.run.calibration import Batches
from graphprune.run.moments import FloatArray

SPREAD = 0.7
"""Standard deviation of what is believed of a weight at first, beside what was foreseen."""
_LEAST = 0.05
"""No weight that is drawn is below this: all units lose something when they give."""
_NOISE, _FAR = 0.1, 0.5
"""What a sum of errors leaves unsaid of a candidate, beside the best one; and more of it the further it is from it."""
_DRAWS, _BOLDER = 8, 1.5
"""Draws for a candidate that is new, each from a wider distribution than the last."""


@dataclass(frozen=True)
class Effort:
    """How long a search goes on.

    Attributes:
        candidates: that are evaluated, the first one included; None where time says it.
        seconds: that it takes; None where candidates say it.
    """

    candidates: int | None = None
    seconds: float | None = None

    @classmethod
    def read(cls, text: str | int) -> Effort:
        """From ``40``, a number of candidates, or ``10m``, a time.

        Raises:
            InputError: it is neither.
        """
        return cls(*durations.read(text, "--search", "candidates"))

    def done(self, count: int, elapsed: float) -> bool:
        """Whether that was it."""
        return count >= self.candidates if self.candidates is not None else elapsed >= (self.seconds or 0.0)


class Judge:
    """How far the outputs of a candidate are from the original's.

    What is held out is in none of the second moments that candidates are refitted by. Were it, cuts before a sum of
    which inputs show few rows would look free: its weights would fit just these.

    Args:
        analysis: of the original.
        groups: of which classes go.
        batches: calibration inputs, of which a quarter is held out.
        seed: of what is drawn.
        kept: where distances are kept for another run of the same job.
    """

    def __init__(
        self, analysis: Analysis, groups: Sequence[Group], batches: Batches, seed: int, kept: Keeping | None = None
    ) -> None:
        self._analysis, self._groups, self._batches, self._seed = analysis, groups, batches, seed
        self._fidelity, self._kept = Fidelity(FIDELITY[0], analysis.model, batches, seed), kept

    @cached_property
    def _refitted(self) -> Refitted:
        rest, _ = divide(self._analysis.model.runnable, self._batches, self._seed, "--search")
        return Refitted(self._analysis, observe(self._analysis, self._groups, rest, self._seed))

    def __call__(self, selection: Selection) -> float:
        """The distance of the model without some classes; infinite where it is not finite.

        Raises:
            InputError: ONNX Runtime cannot run the model, or too few inputs are there to hold some out.
        """
        key = "candidate", sorted((id, list(classes)) for id, classes in selection.items())
        known = None if self._kept is None else self._kept.read(*key)
        if known is not None:
            return float(known["distance"])
        found = 1.0 - self._fidelity(self._refitted.without(selection))
        found = found if np.isfinite(found) else np.inf
        if self._kept is not None:
            self._kept.write({"distance": np.asarray(found)}, *key)
        return found


@dataclass
class Search:
    """Improves an allocation.

    Attributes:
        effort: how long.
        judge: says how far a selection is from the original.
        seed: of what is drawn.
        progress: is told after each candidate how many of how many are done, or seconds.
        distances: of all candidates, in order; the first is what the Lagrangian found.
    """

    effort: Effort
    judge: Callable[[Selection], float]
    seed: int = 0
    progress: Steps = unseen
    distances: list[float] = field(default_factory=list)

    def __call__(self, problem: Problem, chosen: Callable[[], Selection]) -> None:
        """Put the best numbers that are found; those that were there are the first candidate.

        Args:
            problem: settled.
            chosen: gives the classes that go for the numbers that are put.
        """
        begun, rng = time.monotonic(), np.random.default_rng(self.seed)
        best, beliefs, seen = list(problem.widths.numbers), Beliefs(), set[tuple[int, ...]]()
        while True:
            numbers = list(problem.widths.numbers)
            seen.add(tuple(numbers))
            self.distances.append(self.judge(chosen()))
            beliefs.learn(_foreseen(problem), self.distances[-1])
            best = numbers if self.distances[-1] <= min(self.distances) else best
            self._tell(time.monotonic() - begun)
            if self.effort.done(len(self.distances), time.monotonic() - begun) or not min(self.distances) > 0:
                break
            if not _another(problem, beliefs, best, seen, rng):
                break
        problem.put_all(best)

    def _tell(self, elapsed: float) -> None:
        done, total = len(self.distances), self.effort.candidates
        if total is None:
            done, total = int(elapsed), int(self.effort.seconds or 0)
        self.progress(min(done, total), total)

    @property
    def notes(self) -> list[str]:
        """What came of it, for the user, where anything was searched."""
        if not self.distances:
            return []
        first, best = self.distances[0], min(self.distances)
        return [
            f"search: {len(self.distances)} candidates; distance to the original on held-out inputs, before the fit, "
            f"{first:.4g} at first, {best:.4g} at best"
        ]


def _another(
    problem: Problem, beliefs: Beliefs, best: Sequence[int], seen: set[tuple[int, ...]], rng: np.random.Generator
) -> bool:
    """Put numbers that were not looked at yet; False where none were found."""
    for draw in range(_DRAWS):
        weights = beliefs.draw(rng, _BOLDER**draw)
        errors = [weight * own for weight, own in zip(weights, problem.errors, strict=True)]
        goals.settle(replace(problem, errors=errors), best)
        if tuple(problem.widths.numbers) not in seen:
            return True
    return False


def _foreseen(problem: Problem) -> FloatArray:
    """What each unit was foreseen to lose."""
    places = (np.searchsorted(own, n) for own, n in zip(problem.numbers, problem.widths.numbers, strict=True))
    return np.asarray([own[place] for own, place in zip(problem.errors, places, strict=True)], np.float64)


class Beliefs:
    """What is believed of the weights of units' errors."""

    def __init__(self) -> None:
        self.rows: list[FloatArray] = []
        self.squares: list[float] = []

    def learn(self, foreseen: FloatArray, distance: float) -> None:
        """A candidate: what each unit was foreseen to lose, and how far it is from the original."""
        self.rows.append(foreseen)
        self.squares.append(distance**2)

    def draw(self, rng: np.random.Generator, bold: float) -> FloatArray:
        """Weights, one a unit: what is believed, and what is not known of it times some number."""
        rows, squares = np.asarray(self.rows), np.asarray(self.squares)
        finite = squares[np.isfinite(squares)]
        unit = float(finite[0]) if len(finite) else 1.0
        seen = np.where(np.isfinite(squares), squares, 4 * finite.max(initial=unit)) / unit
        rows = rows / max(float(rows[0].sum()), 1e-30)  # as if the first one had come to what it is
        noise = (_NOISE * seen.min()) ** 2 + (_FAR * (seen - seen.min())) ** 2
        precision = (rows.T / noise) @ rows + np.eye(rows.shape[1]) / SPREAD**2
        mean = np.linalg.solve(precision, (rows.T / noise) @ seen + 1 / SPREAD**2)
        step = np.linalg.solve(np.linalg.cholesky(precision).T, rng.standard_normal(len(mean)))
        return np.asarray(np.maximum(mean + bold * step, _LEAST))
