"""Labels: what is known to be right of an output, learnt beside what the original makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.errors import InputError
from graphprune.passes.distill.losses import Measure, measure
from graphprune.relation import IntArray, Shape, Values
from graphprune.run.runtime import Feeds
from graphprune.run.samples import LABEL


@dataclass(frozen=True)
class Labels:
    """How the labels of each output are compared with it.

    Attributes:
        measures: by output.
        classes: how many each has whose labels are numbers of classes.
        spread: an axis of one element that labels of an output lack.
    """

    measures: Mapping[str, Measure]
    classes: Mapping[str, int]
    spread: Mapping[str, int]

    def targets(self, feeds: Feeds) -> Feeds:
        """The labels of a run as the loss reads them, of the shapes of the outputs."""
        found = {}
        for name, one in self.measures.items():
            label = feeds[LABEL + name]
            if name in self.classes:
                label = _one_hot(label, one.axis, self.classes[name])
            elif name in self.spread:
                label = np.expand_dims(label, self.spread[name])
            found[LABEL + name] = np.asarray(label, np.float32)
        return found

    def check(self, runs: Sequence[Feeds]) -> None:
        """Raise InputError where some inputs have no labels, or a label is of no class."""
        for output in self.measures:
            name = LABEL + output
            if any(name not in one for one in runs):
                raise InputError(f"some inputs have {name!r}, and others do not; give it for all or for none")
            size = self.classes.get(output)
            most = max(int(one[name].max(initial=0)) for one in runs) if size is not None else 0
            if size is not None and most >= size:
                raise InputError(f"{name!r}: holds class {most}, and the output has {size}, 0 to {size - 1}")


def read(runs: Sequence[Feeds], made: Mapping[str, Sequence[Values]]) -> Labels | None:
    """How labels are to be compared; None where there are none.

    Whole numbers where the output has an axis more are classes, negative ones count for nothing; other labels are what
    the output should be, and are compared as the original's output would be.

    Args:
        runs: inputs with their labels.
        made: by output what they give.

    Raises:
        InputError: labels do not fit their output.
    """
    measures, classes, spread = dict[str, Measure](), dict[str, int](), dict[str, int]()
    for name in (n for n in runs[0] if n.startswith(LABEL) and n.removeprefix(LABEL) in made):
        output, label = name.removeprefix(LABEL), runs[0][name]
        values = made[output]
        if values[0].dtype.kind != "f":
            raise InputError(f"{name!r}: output {output!r} holds {values[0].dtype}; labels are for outputs of floats")
        shape, found = values[0].shape, measure(values) or Measure("squares", scale=np.ones((), np.float32))
        axes = [axis for axis in range(len(shape)) if (*shape[:axis], *shape[axis + 1 :]) == label.shape]
        flat = [axis for axis in axes if shape[axis] == 1]
        if flat:
            spread[output] = flat[-1]
        if flat or label.shape == shape:
            measures[output] = found
            continue
        axis = _axis(name, label, shape, [a for a in axes if found.loss != "kl" or a == found.axis % len(shape)])
        measures[output] = Measure("entropy" if found.loss == "kl" else "logits", axis)
        classes[output] = shape[axis]
    return Labels(measures, classes, spread) if measures else None


def _axis(name: str, label: Values, shape: Shape, axes: Sequence[int]) -> int:
    """The axis of an output along which its classes lie."""
    if len(axes) == 1 and label.dtype.kind in "iub":
        return axes[0]
    own, other = ("x".join(map(str, s)) or "one number" for s in (label.shape, shape))
    why = f"fit no axis of an output of shape {other}"
    if len(axes) > 1:
        why = f"fit more than one axis of an output of shape {other}"
    elif axes:
        why = f"are of type {label.dtype}, and the output is of shape {other}"
    raise InputError(
        f"{name!r}: labels of shape {own} {why}; give whole numbers without the axis of the classes, or arrays of the "
        "output's shape"
    )


def _one_hot(label: Values, axis: int, size: int) -> Values:
    """Ones where the classes are; more where others count for nothing, so that the mean is over those that count."""
    whole: IntArray = label.astype(np.int64)
    kept = int((whole >= 0).sum())
    hot = (np.arange(size) == whole[..., None]) * np.float32(whole.size / max(kept, 1))
    return np.moveaxis(hot, -1, axis)
