"""What single weights are worth by gradients.

With g the gradient of one random direction of the outputs (see ``graphprune.passes.choose.backward``), and E over
directions and inputs, a weight w is worth

- ``taylor``: ``E (w g)^2``, the squared error of the outputs without it to first order: the diagonal of Fisher's matrix
  (Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018; Optimal Brain Damage, LeCun et
  al., NIPS 1989);
- ``snip``: ``E |w g|`` (Lee et al., SNIP, ICLR 2019);
- ``movement``: ``-sum w g`` over the steps of a short training (see ``graphprune.passes.choose.movement``), beside
  the weight for which it is least.

These are worth the same in all layers, so that layers compete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from graphprune.analysis.sparsity import Layer
from graphprune.errors import InputError
from graphprune.gradients.terms import Term
from graphprune.model import Model
from graphprune.passes.choose import movement
from graphprune.passes.choose.backward import Scene, backward
from graphprune.passes.sparse.thinning import Weigh
from graphprune.relation import Values
from graphprune.run.runtime import Feeds

SAMPLES = 64
"""That gradients are taken on."""
DRAWS = 2
"""Random directions for each run."""


def attributed(flat: Model, layers: Sequence[Layer], method: str, feeds: Sequence[Feeds], seed: int = 0) -> Weigh:
    """What weights are worth.

    Args:
        flat: the model in canonical form.
        layers: what reads the weights.
        method: one of ``graphprune.passes.sparse.masks.BY_GRADIENTS``.
        feeds: some inputs.
        seed: of random directions.

    Raises:
        InputError: a gradient is not to be had, or ONNX Runtime cannot run the model on these inputs.
    """
    read = {(layer.index, layer.position): flat.nodes[layer.index].input[layer.position] for layer in layers}
    if method == "movement":
        return _moved(flat, layers, feeds, seed)
    asked = {name: partial(_worth, name=name, square=method == "taylor") for name in read.values()}
    found = backward(flat.runnable, feeds, asked, seed, DRAWS)
    _ensure(flat, layers, method, [read[n.index, n.position] for n in layers], found.stopped)
    total: dict[str, Values] = {}
    for values in found.runs:
        total = {name: total[name] + value if name in total else value for name, value in values.items()}
    if not all(np.isfinite(value).all() for value in total.values()):
        raise InputError(f"{flat.name}: --method {method}: gradients are not finite; choose another method")
    readers = Counter(read.values())

    def worth(layer: Layer, _: Values) -> Values:
        name = read[layer.index, layer.position]
        return np.asarray(total[name] / readers[name])  # they are added up, and each gradient is that of all

    return worth


def _moved(flat: Model, layers: Sequence[Layer], feeds: Sequence[Feeds], seed: int) -> Weigh:
    """What a short training says of the constants behind the weights; what is zero already is worth least."""
    readers = Counter(layer.weight for layer in layers)
    found = movement.moved(flat.runnable, feeds, list(readers), seed)
    _ensure(flat, layers, "movement", [layer.weight for layer in layers], found.stopped)
    least = min(float(value.min(initial=0)) for value in found.worth.values())

    def worth(layer: Layer, real: Values) -> Values:
        own, order = found.worth[layer.weight], None if layer.origin is None else layer.origin.order
        seen = own if order is None else own.reshape(-1)[order]
        return np.asarray(np.where(real == 0, 0, seen - least) / readers[layer.weight], np.float32)

    return worth


def _ensure(
    flat: Model, layers: Sequence[Layer], method: str, names: Sequence[str], stopped: Mapping[str, str]
) -> None:
    """There are gradients by all tensors that the layers stand for."""
    for layer, name in zip(layers, names, strict=True):
        why = stopped.get(name)
        if why is not None:
            raise InputError(
                f"{flat.name}: --method {method} asks for gradients, and weight {layer.weight!r} has none: {why}; "
                "leave it out by --exclude, or choose another method"
            )


def _worth(gradient: Term, scene: Scene, name: str, square: bool) -> Term:
    made = gradient * scene.tensor(name)
    return made * made if square else made.unary("Abs")
