"""Passes of onnx-ir: they stand in its ``Sequential`` and ``PassManager`` beside others.

onnx_ir.passes.Sequential(Prune(ratio=0.3), common.DeduplicateInitializersPass())(model)
"""

from __future__ import annotations

from typing import Any, cast

import graphprune
from graphprune.errors import BackendError
from graphprune.model import Model, load
from graphprune.model.model import Foreign

try:
    import onnx_ir
    from onnx_ir.passes import FunctionalPass, PassResult
except ImportError as missing:
    raise BackendError(f"onnx-ir is not installed ({missing}): pip install onnx-ir") from missing


class _Job(FunctionalPass):
    """A job as a pass: a new model in place of the one given, which is left as it was.

    Attributes:
        result: what the job came to for the last model: costs, the plan, the proof; None before.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.result: graphprune.Result | None = None

    def __repr__(self) -> str:
        """As it was made: onnx-ir names a pass that fails by it."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"

    def call(self, model: onnx_ir.Model) -> PassResult:
        """Do the job.

        Raises:
            GraphpruneError: as the function of the job does; a ``Sequential`` raises it as the cause of its own.
        """
        loaded = load(cast(Foreign, model))
        self.result = self._done(loaded)
        return PassResult(self.result.ir(), self.result.model is not loaded)

    def _done(self, model: Model) -> graphprune.Result:
        raise NotImplementedError


class Prune(_Job):
    """:func:`graphprune.prune` as a pass; takes its options."""

    def _done(self, model: Model) -> graphprune.Result:
        return graphprune.prune(model, **self.options)


class Sparsify(_Job):
    """:func:`graphprune.sparsify` as a pass; takes its options."""

    def _done(self, model: Model) -> graphprune.Result:
        return graphprune.sparsify(model, **self.options)


class Recipe(_Job):
    """:func:`graphprune.run_recipe` as a pass; takes its options, ``recipe`` among them."""

    def _done(self, model: Model) -> graphprune.Result:
        return graphprune.run_recipe(model=model, **self.options)
