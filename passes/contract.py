"""The contract of a pass: a frozen dataclass of its own options, from a state to a state.

A pass says what it needs before anything is computed, what it asks of the passes before it, does its work, and makes
sure that it was done right. A recipe is a list of passes (see ``graphprune.passes.recipe``). A pass of another package
comes in by the entry point group ``graphprune.passes``: its name there stands for it in recipes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from graphprune.passes.state import State

SCHEMA = "schema"
"""In the metadata of an option: what its schema says besides its type."""


class Again(Exception):
    """Raised by a pass that wants what was chosen to be chosen anew: the job goes on at the first pass that ``begins``.

    Args:
        findings: what the state there has more than it had before.
    """

    def __init__(self, *findings: object) -> None:
        super().__init__()
        self.findings = findings


class Pass(ABC):
    """One step of a job.

    Subclasses are frozen dataclasses whose fields are the options that a recipe may give: numbers, strings, booleans,
    lists of these, and None where an option may be left out.
    """

    name: ClassVar[str]
    """What it is called in recipes."""
    chooses: ClassVar[bool] = False
    """Whether it puts classes, or new orders of them, into the plan: for the next pass ``cut``."""
    begins: ClassVar[bool] = False
    """Whether a job that is to choose anew goes back to it, where it is the first of these."""
    leaves: ClassVar[tuple[str, ...]] = ()
    """What it has written beside the model, by kind: ``<model without .onnx>.<kind>.json``."""
    rebases: ClassVar[bool] = False
    """Whether the structure of what it gives is its own, so that no later cut can be told in terms of the original."""

    def requires(self, state: State) -> Sequence[str]:
        """Reasons why it cannot run in this job: asked of the whole recipe before anything is computed.

        Raises:
            GraphpruneError: the same, where the exit status is to be another than that of bad input.
        """
        return ()

    def declares(self) -> None:
        """Declare files that it will read and write, the job's own apart (see ``graphprune.model.paths``).

        Raises:
            InputError: one of them cannot be written, or is another of the job's.
        """
        return None

    def bounds(self, state: State) -> Mapping[str, int]:
        """What it asks of earlier passes: by group id what widths must stay multiples of."""
        return {}

    def phases(self, state: State) -> Sequence[str]:
        """What users are told that it is doing, in order."""
        return (self.name,)

    def costs(self, state: State) -> Mapping[str, float]:
        """What phases cost where they depend on options, in forward passes (see ``graphprune.passes.budget``)."""
        return {}

    def spends(self, left: float, each: float) -> float:
        """Seconds that it takes of a job with an end however many samples are used.

        Args:
            left: seconds that are planned for the job.
            each: seconds that the model takes to run one sample.
        """
        return 0.0

    def proves(self, state: State) -> bool:
        """Whether making sure of it takes a phase of its own."""
        return False

    @abstractmethod
    def call(self, state: State) -> State:
        """Do the work: another model, entries for the plan, findings for the report.

        Raises:
            GraphpruneError: it cannot be done; says why, and what to do.
            Again: what was chosen before is to be chosen anew.
        """

    def ensures(self, before: State, after: State) -> State:
        """Make sure that it was done right, and add the evidence.

        Raises:
            GraphpruneError: it was not.
        """
        return after
