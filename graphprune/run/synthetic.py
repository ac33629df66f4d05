"""Calibration inputs for who has none: what a model reads is made up, by name, type and seed.

Numbers along axes that are long enough are noise whose power falls with frequency, as in natural images and sounds
(Field, J. Opt. Soc. Am. A, 1987): neighbours are alike, and contrast and brightness differ from one sample to the next.
White noise, which has neither, says less about what a trained network does with real inputs
(``tests/benchmarks/bench_accuracy.py``). Everything else is as :func:`graphprune.run.runtime.generate` makes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from graphprune.model import Model
from graphprune.relation import Shape, Values
from graphprune.run.runtime import generate

NAME = "generated"
"""What stands for these inputs where a source of inputs is asked for."""
SAMPLES = 64
_EXPONENT = 1.5
"""Amplitudes are ``frequency ** -_EXPONENT``."""
_LONG = 8
"""Elements from which on an axis is taken for space or time."""


def inputs(
    model: Model, shapes: Mapping[str, Shape], seed: int = 0, samples: int | None = None
) -> Iterator[dict[str, Values]]:
    """Made-up inputs, each ready to run.

    Args:
        model: whose inputs they are to be.
        shapes: of each input; the largest first axis is the number of samples in a run.
        seed: of the noise.
        samples: at least how many there are in all; :data:`SAMPLES` by default.
    """
    batch = max((s[0] for s in shapes.values() if s), default=1)
    for number in range(-(-(SAMPLES if samples is None else samples) // max(batch, 1))):
        feeds = generate(model, shapes, seed + number)
        rng = np.random.default_rng((seed, number))
        yield {n: _smooth(v, rng) if v.dtype.kind == "f" else v for n, v in feeds.items()}


def _smooth(white: Values, rng: np.random.Generator) -> Values:
    """Noise along the long axes behind channels, the same for all channels (grey)."""
    long = [a for a in range(min(2, white.ndim - 1), white.ndim) if a and white.shape[a] >= _LONG]
    if not long:
        return white
    sizes = [white.shape[a] for a in long]
    grid = np.meshgrid(*(np.fft.fftfreq(n) for n in sizes), indexing="ij")
    frequency = np.sqrt(sum(g**2 for g in grid))
    frequency.flat[0] = 1 / max(sizes)
    falling = frequency**-_EXPONENT
    whole = [white.shape[a] if a == 0 or a in long else 1 for a in range(white.ndim)]
    noise = np.fft.fftn(rng.standard_normal(whole), axes=long)
    shaped = falling.reshape([whole[a] if a in long else 1 for a in range(white.ndim)])
    smooth = np.fft.ifftn(noise * shaped, axes=long).real
    smooth /= np.maximum(smooth.std(axis=tuple(range(1, white.ndim)), keepdims=True), 1e-12)
    each = [white.shape[0], *[1] * (white.ndim - 1)]
    found = smooth * rng.uniform(0.2, 1, each) + rng.uniform(-0.5, 0.5, each)
    return np.asarray(np.broadcast_to(found, white.shape), white.dtype)
