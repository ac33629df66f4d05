"""Recipes: a list of passes with their options, and what holds for the whole job.

A recipe is plain data, and stands in one file (TOML, see ``graphprune.passes.toml``). Passes are called by name: those
of this package, those of others (entry point group ``graphprune.passes``), and ``module:function`` for a function from
a model to a model (see ``graphprune.passes.step``).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, get_type_hints

from graphprune.errors import InputError
from graphprune.model import arguments
from graphprune.passes.contract import Pass
from graphprune.passes.state import Job
from graphprune.run import usercode

FORMAT = "graphprune-recipe/1"
GROUP = "graphprune.passes"
"""Entry points of other packages' passes."""

PASSES = {
    "centre": "graphprune.passes.basis.centre:Centre",
    "cut": "graphprune.passes.cut:Cut",
    "distill": "graphprune.passes.distill.distill:Distill",
    "fit": "graphprune.passes.fit.fit:Fit",
    "fold-constants": "graphprune.passes.choose.fold:FoldConstants",
    "low-rank": "graphprune.passes.rank.low_rank:LowRank",
    "meet": "graphprune.passes.aim.meet:Meet",
    "permute": "graphprune.passes.sparse.passes:Permute",
    "remove-blocks": "graphprune.passes.depth.remove:RemoveBlocks",
    "replay-bases": "graphprune.passes.basis.again:ReplayBases",
    "replay-blocks": "graphprune.passes.replay:ReplayBlocks",
    "replay-groups": "graphprune.passes.replay:ReplayGroups",
    "same-interface": "graphprune.passes.transfer:SameInterface",
    "same-slices": "graphprune.passes.replay:SameSlices",
    "rotate": "graphprune.passes.basis.rotate:Rotate",
    "select": "graphprune.passes.choose.select:Select",
    "select-blocks": "graphprune.passes.depth.remove:SelectBlocks",
    "smaller": "graphprune.passes.smaller:Smaller",
    "sparsify": "graphprune.passes.sparse.passes:Sparsify",
    "store": "graphprune.passes.sparse.store:Store",
    "vocabulary": "graphprune.passes.vocabulary.vocabulary:Vocabulary",
    "take-values": "graphprune.passes.transfer:TakeValues",
    "transfer-groups": "graphprune.passes.transfer:TransferGroups",
    "validate": "graphprune.passes.judge:Validate",
}
"""The passes of this package, imported when they are used."""


@dataclass(frozen=True)
class Recipe:
    """What is to be done to a model.

    Attributes:
        passes: in order.
        job: what holds for all of them.
        models: by glob on the name of a model's file, what holds for such models instead: fields of the job.
        places: where each pass stands in the file that the recipe was read from, for messages.
    """

    passes: tuple[Pass, ...] = ()
    job: Job = field(default_factory=Job)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    places: tuple[str, ...] = field(default=(), compare=False)

    def job_for(self, name: str) -> Job:
        """What holds for a model of this file name; of several sections that match, the last one says."""
        found = self.job
        for glob, changes in self.models.items():
            if fnmatchcase(name, glob):
                found = dataclasses.replace(found, **changes)
        return found


@lru_cache(maxsize=1)
def _foreign() -> dict[str, Any]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def known() -> list[str]:
    """Names of all passes that are installed."""
    return sorted({*PASSES, *_foreign()})


def find_pass(name: str) -> type[Pass]:
    """The pass of a name.

    Raises:
        InputError: there is none, or the package that brings it does not import.
    """
    if name in PASSES:
        module, _, attribute = PASSES[name].partition(":")
        found: type[Pass] = getattr(import_module(module), attribute)
        return found
    if name not in _foreign():
        close = difflib.get_close_matches(name, known(), 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known())}, and module:function"
        raise InputError(f"there is no pass {name!r}; {hint}")
    try:
        loaded = _foreign()[name].load()
    except Exception as error:  # whatever a package raises when it is imported
        raise InputError(f"pass {name!r} of entry point {_foreign()[name].value!r} does not import: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Pass) and dataclasses.is_dataclass(loaded)):
        raise InputError(f"pass {name!r} of entry point {_foreign()[name].value!r} is no dataclass that is a Pass")
    return loaded


def build(name: str, options: Mapping[str, Any]) -> Pass:
    """A pass with its options.

    Raises:
        InputError: there is no such pass, or an option is unknown, missing or of the wrong kind; says which.
    """
    if usercode.names_one(name):
        from graphprune.passes.step import Step

        return Step(name, **_checked(Step, name, options, ("function",)))
    return find_pass(name)(**_checked(find_pass(name), name, options))


def _checked(kind: type, name: str, options: Mapping[str, Any], given: Sequence[str] = ()) -> dict[str, Any]:
    """Options of a pass, each of the type that its field says."""
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init and f.name not in given}
    for key in options:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, 1)
            hint = f"; did you mean {close[0]}?" if close else f"; it has {', '.join(fields) or 'none'}"
            raise OptionError(name, key, f"is no option of this pass{hint}")
    for key, one in fields.items():
        needed = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        if needed and key not in options:
            raise OptionError(name, key, "is missing")
    found = {}
    for key, value in options.items():
        try:
            found[key] = arguments.read(key, value, hints[key])
        except InputError as error:
            raise OptionError(name, key, str(error).removeprefix(f"{key} ")) from error
    return found


class OptionError(InputError):
    """An option of a pass that is wrong: which, and why."""

    def __init__(self, name: str, key: str, why: str) -> None:
        super().__init__(f"{name}: {key} {why}")
        self.key, self.why = key, why
