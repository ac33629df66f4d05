"""The order of channels in which an N:M pattern keeps most: a search by swaps.

Channels stand in stripes of M; of each column of scores the N largest of every stripe are kept (Pool and Yu, Channel
Permutations for N:M Sparsity, NeurIPS 2021). What a stripe keeps once another channel stands in one of its places is,
with b the N-th largest of the others and a the sum of those that are larger,

    sum over columns of  a + max(b, x)

so the gains of all swaps come from one table over places and channels. In each round the best swaps of disjoint pairs
of stripes are made at once, and only rows of stripes that changed are computed again. Many channels are searched in
pools that are drawn anew each round; few, until no swap gains, and then on from swaps made by chance that are taken
back where they lead nowhere better (the paper's bounded regressions).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from graphprune.analysis.patterns import OfEvery
from graphprune.relation import IntArray

Floats = npt.NDArray[np.float32]
POOL = 256
"""Channels of one pool."""
ROUNDS = 6
"""Times that pools are drawn."""
ESCAPES = 1000
"""Attempts to leave a local optimum."""
WORK = 300_000_000
"""Comparisons that all attempts together may take."""
_SWAPPED = 3
"""Pairs of stripes that an attempt changes."""
_LEAST = 1e-7
"""Share of the whole that a swap must gain."""
_CACHE = 1 << 16
"""Numbers compared at once, few enough to stay in the cache."""


def search(scores: Floats, stripes: IntArray, pattern: OfEvery, kinds: IntArray, seed: int = 0) -> IntArray:
    """Stripes in which a pattern keeps more.

    Args:
        scores: what each channel is worth in each column, ``[channels, columns]``, not negative.
        stripes: the channels that stand together, ``[stripes, M]``.
        pattern: the pattern.
        kinds: for each channel a number; only those of one kind take each other's places.
        seed: of pools and attempts.

    Returns:
        For each place the channel that comes there; of the shape of ``stripes``.
    """
    rng = np.random.default_rng(seed)
    found = stripes.copy()
    alone = found.size <= POOL
    for _ in range(1 if alone else ROUNDS):
        shuffled = rng.permutation(len(found))
        for start in range(0, len(found), POOL // pattern.m):
            pool = np.sort(shuffled[start : start + POOL // pattern.m])
            state = _Pool(scores, found[pool], pattern, kinds)
            state.descend()
            if alone:
                tried = int(WORK // (2 * _SWAPPED * pattern.m * found.size * scores.shape[1] + 1))
                state.escape(min(ESCAPES, tried), rng)
            found[pool] = state.channels[state.stripes]
    return found


def kept(scores: Floats, stripes: IntArray, n: int) -> npt.NDArray[np.float64]:
    """What each stripe keeps of all columns, shape ``[stripes]``."""
    own = scores[stripes]
    own.partition(own.shape[1] - n, axis=1)
    return own[:, own.shape[1] - n :].sum((1, 2), dtype=np.float64)


class _Pool:
    """Channels and stripes that are searched together; both are numbered within the pool."""

    def __init__(self, scores: Floats, stripes: IntArray, pattern: OfEvery, kinds: IntArray) -> None:
        self.channels = stripes.reshape(-1)
        self.scores = np.ascontiguousarray(scores[self.channels])
        self.pattern = pattern
        own = kinds[self.channels]
        self.apart = own[:, None] != own[None]
        self.stripes = np.arange(stripes.size).reshape(stripes.shape)
        self.kept = np.zeros(len(stripes))
        self.place = np.arange(stripes.size)
        # what a stripe gains when a channel (column) takes the place of one of its own (row)
        self.gain = np.zeros((stripes.size, stripes.size))
        self.current = np.full_like(self.stripes, -1)  # those that ``gain`` and ``worth`` are of
        self.worth = np.zeros(len(stripes))
        self.known: dict[bytes, tuple[list[tuple[int, int]], npt.NDArray[np.float64]]] = {}

    def descend(self) -> None:
        """Swap until nothing gains.

        Of few channels the same stripes come again and again: swaps that they led to, and what was kept then in the
        stripe of each channel, are remembered.
        """
        least = np.empty(len(self.place), np.int64)
        least[self.stripes] = self.stripes.min(1)[:, None]
        key = least.tobytes()
        found = self.known.get(key)
        if found is None:
            swaps, each = self._descended(), np.empty(len(self.place))
            each[self.stripes] = self.kept[:, None]
            self.known[key] = swaps, each
            return
        for channel, other in found[0]:
            self._swap(channel, other)
        self.kept = found[1][self.stripes[:, 0]]

    def _descended(self) -> list[tuple[int, int]]:
        """Swap until nothing gains; which swaps those were."""
        width, made = self.pattern.m, list[tuple[int, int]]()
        while True:
            self._update()
            stripe = self.place // width
            both = self.gain + self.gain.T
            both[self.apart | (stripe[:, None] == stripe[None])] = 0
            partner = both.argmax(1)
            gains = both[np.arange(len(both)), partner]
            least = _LEAST * self.kept.sum()
            free = np.ones(len(self.stripes), bool)
            for channel in np.argsort(-gains, kind="stable").tolist():
                if gains[channel] <= least:
                    break
                other = int(partner[channel])
                if free[stripe[channel]] and free[stripe[other]]:
                    free[[stripe[channel], stripe[other]]] = False
                    self._swap(channel, other)
                    made.append((channel, other))
            if free.all():
                return made

    def escape(self, attempts: int, rng: np.random.Generator) -> None:
        """Swap by chance, go on from there, and return where it was no better."""
        pairs = min(_SWAPPED, len(self.stripes) // 2)
        best = self.kept.sum()
        for _ in range(attempts if pairs else 0):
            before, worth = self.stripes.copy(), self.kept
            chosen = rng.choice(len(self.stripes), (pairs, 2), replace=False)
            places = rng.integers(self.pattern.m, size=(pairs, 2))
            for channel, other in self.stripes[chosen, places].tolist():
                if not self.apart[channel, other]:
                    self._swap(channel, other)
            self.descend()
            total = self.kept.sum()
            if total < best:
                self.stripes, self.kept = before, worth
                self.place[before.reshape(-1)] = np.arange(before.size)
            best = max(best, total)

    def _swap(self, channel: int, other: int) -> None:
        a, b = self.place[channel], self.place[other]
        self.stripes.flat[a], self.stripes.flat[b] = other, channel
        self.place[channel], self.place[other] = b, a

    def _update(self) -> None:
        """Compute the rows of stripes anew that are others than when this was last done."""
        changed = np.flatnonzero((self.stripes != self.current).any(1))
        n, own = self.pattern.n, self.scores[self.stripes[changed]]
        worth = self.worth
        worth[changed] = kept(self.scores, self.stripes[changed], n)
        for place in range(self.pattern.m):
            others = np.delete(own, place, 1)
            others.partition(others.shape[1] - n, axis=1)
            lowest = others[:, -n]
            above = others[:, others.shape[1] - n + 1 :].sum((1, 2), dtype=np.float64)
            table = _larger(lowest, self.scores)
            self.gain[self.stripes[changed, place]] = table + (above - worth[changed])[:, None]
        self.kept, self.current = worth.copy(), self.stripes.copy()


def _larger(rows: Floats, columns: Floats) -> npt.NDArray[np.float64]:
    """The sum of the larger of two numbers over all columns, for every pair of rows."""
    found = np.zeros((len(rows), len(columns)))
    wide = max(1, _CACHE // len(columns))
    for start in range(0, rows.shape[1], wide):
        a, b = rows[:, start : start + wide], columns[:, start : start + wide]
        many = max(1, _CACHE // b.size)
        for first in range(0, len(a), many):
            found[first : first + many] += np.maximum(a[first : first + many, None], b[None]).sum(2)
    return found
