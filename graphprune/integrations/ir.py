"""Passes of onnx-ir: they stand in its ``Sequential`` and ``PassManager`` beside others.

    onnx_ir.passes.Sequential(Prune(ratio=0.3), common.DeduplicateInitializersPass())(model)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import graphprune
from graphprune.errors import BackendError
from graphprune.model import Model, load

try:
    import onnx_ir
    from onnx_ir.passes import FunctionalPass, PassResult
except ImportError as missing:
    raise BackendError(f"onnx-ir is not installed ({missing}): pip install onnx-ir") from missing


@dataclass
class Pruned(PassResult):
    """What came of a pass.

    Attributes:
        result: what :func:`graphprune.prune` and its like give: costs, the plan, the proof. A ``Sequential`` passes on
            the model alone.
    """

    result: graphprune.Result


class Prune(FunctionalPass):
    """:func:`graphprune.prune` as a pass: a smaller model in place of the one given, which is left as it was."""

    def __init__(self, **options: Any) -> None:
        """Take the options of :func:`graphprune.prune`; ``plan`` writes the plan to a file."""
        self.options = options

    def call(self, model: onnx_ir.Model) -> Pruned:
        """Prune.

        Raises:
            GraphpruneError: as :func:`graphprune.prune` does.
        """
        loaded = load(model)
        return _pruned(loaded, graphprune.prune(loaded, **self.options))


class Sparsify(Prune):
    """:func:`graphprune.sparsify` as a pass."""

    def call(self, model: onnx_ir.Model) -> Pruned:
        """Make weights sparse.

        Raises:
            GraphpruneError: as :func:`graphprune.sparsify` does.
        """
        loaded = load(model)
        return _pruned(loaded, graphprune.sparsify(loaded, **self.options))


class Recipe(FunctionalPass):
    """:func:`graphprune.run_recipe` as a pass."""

    def __init__(self, recipe: Any, **options: Any) -> None:
        """Take a recipe, or the file of one, and the options of :func:`graphprune.run_recipe`."""
        self.recipe, self.options = recipe, options

    def call(self, model: onnx_ir.Model) -> Pruned:
        """Do what the recipe says.

        Raises:
            GraphpruneError: as :func:`graphprune.run_recipe` does.
        """
        loaded = load(model)
        return _pruned(loaded, graphprune.run_recipe(self.recipe, loaded, **self.options))


def _pruned(before: Model, result: graphprune.Result) -> Pruned:
    return Pruned(result.ir(), result.model is not before, result)
