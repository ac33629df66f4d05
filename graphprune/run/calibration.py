"""Calibration inputs of a model: those that the user gives, or made-up ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from graphprune.model import Model
from graphprune.relation import Shape
from graphprune.run import samples, sizing, synthetic
from graphprune.run.runtime import Feeds
from graphprune.run.shelf import Shelf

Source = samples.Source
Batches = Callable[[], Iterable[Feeds]]
"""Gives the inputs from the start at each call, each ready to run."""


def batches(
    source: Source,
    model: Model,
    input_shapes: Mapping[str, Shape] | None = None,
    seed: int = 0,
    *,
    labels: bool = False,
) -> Batches:
    """The calibration inputs of a model.

    Args:
        source: as :func:`graphprune.run.samples.load` takes it, or ``generated``.
        model: the model, as it runs.
        input_shapes: sizes of images, and of generated inputs that the program cannot guess.
        seed: of generated inputs.
        labels: whether labels are given along (see ``graphprune.run.samples``).

    Raises:
        InputError: inputs are to be generated, and the model runs at no size that was tried.
    """
    if isinstance(source, str) and source == synthetic.NAME:
        accepted = next(sizing.accepted(model, still(input_shapes, model), seed))
        sizes = {n: tuple(v.shape) for n, v in accepted.items()}
        return lambda: synthetic.inputs(model, sizes, seed)
    held = samples.kept(source)
    return lambda: samples.load(held, model, input_shapes=input_shapes, labels=labels)


class Held:
    """Batches that are read once: the first time that they are gone through, they are kept (see ``shelf``).

    Args:
        batches: gives the inputs.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.folder = tempfile.TemporaryDirectory()
        self.shelf = Shelf(Path(self.folder.name))
        self.count: int | None = None

    def __call__(self) -> Iterator[Feeds]:
        """The inputs from the start."""
        if self.count is not None:
            yield from (self.shelf.get(run) for run in range(self.count))
            return
        place = -1
        for place, feeds in enumerate(self.batches()):
            self.shelf.put(place, feeds)
            yield self.shelf.get(place)
        self.count = place + 1


def first(batches: Batches, count: int) -> list[Feeds]:
    """The first inputs, so many samples or the rest of a batch more."""
    found: list[Feeds] = []
    seen = 0
    for feeds in batches():
        found.append(feeds)
        seen += samples.count(feeds)
        if seen >= count:
            break
    return found


def still(given: Mapping[str, Shape] | None, model: Model) -> dict[str, Shape]:
    """Sizes that were given for a model before it changed, as they are now: inputs may have gone, and others shrunk."""
    found = {n: given[n] for n in sizing.free_dims(model) if n in given} if given else {}
    for name, declared in sizing.free_dims(model).items():
        if name in found and len(declared) == len(found[name]):
            pairs = zip(declared, found[name], strict=True)
            found[name] = tuple(now if isinstance(now, int) else before for now, before in pairs)
    return found
