"""graphprune: a pruning compiler for ONNX.

``analyze`` finds what can be removed from a model, ``prune`` removes it and proves that the removal was structurally
right, ``sparsify`` gives weights a pattern that sparse kernels read, ``distill`` trains what is left towards the
original, ``apply`` replays a plan, ``sensitivity`` says how much each group can lose, ``sweep`` what several targets
come to, ``validate`` whether the result checks, runs, agrees and builds, ``bench`` whether it is faster, and ``diff``
what changed.
``run_recipe`` does what a file of passes says.
What passes do is logged at ``INFO`` and ``DEBUG`` by the logger ``graphprune``; nothing is printed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphprune.analysis import Analysis, Group, analyze
    from graphprune.errors import BackendError, GraphpruneError, InputError, ProofError, TargetError, VerdictError
    from graphprune.passes.aim.meet import Meet
    from graphprune.passes.choose.steering import Steering
    from graphprune.passes.jobs import apply, distill, prune, sparsify
    from graphprune.passes.rank.low_rank import LowRank
    from graphprune.passes.results import Result
    from graphprune.passes.running import run_recipe
    from graphprune.passes.study.curves import Sensitivity
    from graphprune.passes.study.points import Sweep
    from graphprune.passes.study.sensitivity import sensitivity
    from graphprune.passes.study.sweep import sweep
    from graphprune.passes.vocabulary.vocabulary import Vocabulary
    from graphprune.rewrite.plan import Plan
    from graphprune.verdict.checks import Checks, Verdict
    from graphprune.verdict.diff import Diff, diff
    from graphprune.verdict.timing import Bench, bench
    from graphprune.verdict.verdict import validate

_HOMES = {
    "analysis": ("Analysis", "Group", "analyze"),
    "verdict.checks": ("Checks", "Verdict"),
    "errors": ("BackendError", "GraphpruneError", "InputError", "ProofError", "TargetError", "VerdictError"),
    "passes.choose.steering": ("Steering",),
    "passes.results": ("Result",),
    "passes.aim.meet": ("Meet",),
    "passes.jobs": ("apply", "distill", "prune", "sparsify"),
    "passes.rank.low_rank": ("LowRank",),
    "passes.running": ("run_recipe",),
    "passes.study.curves": ("Sensitivity",),
    "passes.study.points": ("Sweep",),
    "passes.study.sensitivity": ("sensitivity",),
    "passes.study.sweep": ("sweep",),
    "passes.vocabulary.vocabulary": ("Vocabulary",),
    "rewrite.plan": ("Plan",),
    "verdict.diff": ("Diff", "diff"),
    "verdict.timing": ("Bench", "bench"),
    "verdict.verdict": ("validate",),
}
"""Modules, and what of them this package offers."""

__all__ = [
    "Analysis",
    "BackendError",
    "Bench",
    "Checks",
    "Diff",
    "GraphpruneError",
    "Group",
    "InputError",
    "LowRank",
    "Meet",
    "Plan",
    "ProofError",
    "Result",
    "Sensitivity",
    "Steering",
    "Sweep",
    "TargetError",
    "Verdict",
    "VerdictError",
    "Vocabulary",
    "analyze",
    "apply",
    "bench",
    "diff",
    "distill",
    "prune",
    "run_recipe",
    "sensitivity",
    "sparsify",
    "sweep",
    "validate",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # imported when it is first asked for: the command line answers at once, and passes stand on this package
    for module, names in _HOMES.items():
        if name in names:
            found: object = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
