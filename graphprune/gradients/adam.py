"""Adam (Kingma and Ba, ICLR 2015) on all weights at once, in place.

Weights lie behind one another in one buffer, of which each array is a view, so that an update is a few passes over
memory; it is done in parts that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_PART = 1 << 15
"""Elements that are updated together."""
_FIRST, _SECOND, _SMALL = 0.9, 0.999, 1e-8


class Adam:
    """Weights in training.

    Attributes:
        weights: by name; arrays that were tied share memory. They change at each step.
        flat: all of them, one behind the other.
        moments: running means of gradients and of their squares, ``[2, elements]``.
        steps: how many steps were taken.

    Args:
        weights: their values at first; copied.
        tied: names of weights that are one; those named in no list stand alone.
        frozen_zeros: whether elements that are zero stay zero.
    """

    def __init__(
        self,
        weights: Mapping[str, npt.NDArray[np.floating]],
        tied: Sequence[Sequence[str]] = (),
        frozen_zeros: bool = True,
    ) -> None:
        first = {name: group[0] for group in tied for name in group}
        self.owner = {name: first.get(name, name) for name in weights}
        owners = dict.fromkeys(self.owner.values())
        none: Floats = np.zeros(0, np.float32)  # there may be no weights
        self.flat: Floats = np.concatenate([none, *(np.asarray(weights[n], np.float32).reshape(-1) for n in owners)])
        starts = np.cumsum([0, *(weights[n].size for n in owners)])
        self.span = {n: slice(int(a), int(b)) for n, a, b in zip(owners, starts, starts[1:], strict=False)}
        self.weights = {n: self.flat[self.span[o]].reshape(weights[n].shape) for n, o in self.owner.items()}
        self.stays = self.flat != 0 if frozen_zeros and not self.flat.all() else None
        self.moments: Floats = np.zeros((2, self.flat.size), np.float32)
        self.gradient: Floats = np.zeros(self.flat.size, np.float32)
        self.steps = 0
        size = [float(np.sqrt(np.mean(np.square(self.flat[s], dtype=np.float64)))) for s in self.span.values()]
        self.pace = np.asarray([s or 1.0 for s in size], np.float32)

    def add(self, gradients: Mapping[str, Floats], share: float = 1.0) -> None:
        """Add to the gradient of the step to come, for micro-batches that are ``share`` of it."""
        for name, gradient in gradients.items():
            part = self.gradient[self.span[self.owner[name]]]
            part += gradient.reshape(-1) if share == 1 else gradient.reshape(-1) * np.float32(share)

    def step(self, rate: float) -> None:
        """Take a step by the gradient that was added, and forget it."""
        self.steps += 1
        if self.stays is not None:
            self.gradient *= self.stays
        scale = np.float32(rate / (1 - _FIRST**self.steps))
        root = np.float32(1 / np.sqrt(1 - _SECOND**self.steps))
        for span, pace in zip(self.span.values(), self.pace, strict=True):
            for start in range(span.start, span.stop, _PART):
                self._update(slice(start, min(start + _PART, span.stop)), scale * pace, root)
        self.gradient[:] = 0

    def _update(self, part: slice, scale: np.float32, root: np.float32) -> None:
        g, m, v = self.gradient[part], self.moments[0, part], self.moments[1, part]
        m += np.float32(1 - _FIRST) * (g - m)
        g *= g
        v += np.float32(1 - _SECOND) * (g - v)
        np.sqrt(v, out=g)
        g *= root
        g += np.float32(_SMALL)
        np.divide(m, g, out=g)
        g *= scale
        self.flat[part] -= g

    def reset(self) -> None:
        """Forget the course so far, not the weights."""
        self.moments[:] = 0
        self.gradient[:] = 0
        self.steps = 0
