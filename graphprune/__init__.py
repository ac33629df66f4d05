"""graphprune: a pruning compiler for ONNX.

``analyze`` finds what can be removed from a model, ``prune`` removes it and proves that the removal was structurally
right, ``sparsify`` gives weights a pattern that sparse kernels read, ``apply`` replays a plan, ``validate`` says
whether the result checks, runs, agrees and builds, and ``bench`` whether it is faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.analysis import Analysis, Group, analyze
from graphprune.checks import Checks, Verdict
from graphprune.errors import BackendError, GraphpruneError, InputError, ProofError, VerdictError
from graphprune.plan import Plan
from graphprune.timing import Bench, bench
from graphprune.verdict import validate

if TYPE_CHECKING:
    from graphprune.finishing import Result
    from graphprune.pipeline import apply, prune, sparsify

__all__ = [
    "Analysis",
    "BackendError",
    "Bench",
    "Checks",
    "GraphpruneError",
    "Group",
    "InputError",
    "Plan",
    "ProofError",
    "Result",
    "Verdict",
    "VerdictError",
    "analyze",
    "apply",
    "bench",
    "prune",
    "sparsify",
    "validate",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # the pipeline stands on the passes, which stand on this package: it is imported when it is first asked for
    if name in ("Result", "apply", "prune", "sparsify"):
        from graphprune import finishing, pipeline

        return getattr(finishing if name == "Result" else pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
