"""How much of what the original detects in held-out images another model detects too, without labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.passes.holding import answers
from graphprune.run.calibration import Batches
from graphprune.run.runtime import Feeds, run, session
from graphprune.verdict.detections import AUTO, Form, Found, agreement, find

NAME = "detections"


@dataclass
class Detected:
    """Mean average precision of a model's boxes, where those of the original are taken for true.

    Args:
        form: of the boxes: one of ``graphprune.verdict.detections.FORMS``, or ``auto``.
        original: the model; it is run once.
        batches: inputs, of which a quarter is held out.
        seed: of the choice.
    """

    form: str
    original: Model
    batches: Batches
    seed: int = 0
    notes: list[str] = field(default_factory=list)

    def __call__(self, model: Model) -> float:
        """The score of a model, from 0 to 1; minus infinity where it makes what is not finite of what was.

        Raises:
            InputError: outputs hold no boxes, in no form that can be told, or the original detects nothing.
        """
        held, form, wanted, finite = self._wanted
        if model is self.original:
            return 1.0
        found, there = list[Found](), {value.name for value in model.runnable.inputs}
        with session(model.runnable) as active:
            for feeds in held:
                outputs = run(active, {n: v for n, v in feeds.items() if n in there})
                if finite and not _finite(form, outputs):
                    return -np.inf
                found += form.read(outputs)
        return agreement(wanted, found).map

    @cached_property
    def _wanted(self) -> tuple[list[Feeds], Form, list[Found], bool]:
        """Held-out runs, the form of boxes, what the original detects, and whether all that it makes is finite."""
        option = f"--metric {NAME}" + (f":{self.form}" if self.form != AUTO else "")
        held, made, notes = answers(self.original.runnable, self.batches, self.seed, option)
        form = find(self.original, made, self.form)
        wanted = [one for outputs in made for one in form.read(outputs)]
        found = agreement(wanted, wanted)
        if not found.boxes:
            raise InputError(
                f"{option}: {self.original.name} detects nothing in {found.images} held-out images; give images in "
                "which there is something"
            )
        self.notes += [*notes, f"{option}: {found.boxes} boxes that the original finds in {found.images} images"]
        return held, form, wanted, all(_finite(form, outputs) for outputs in made)


def _finite(form: Form, outputs: list[np.ndarray]) -> bool:
    return all(bool(np.isfinite(outputs[place]).all()) for place in form.places)
