"""A user's own step in a recipe: ``module:function``, from a model to a model.

The function takes and gives one of three forms of a model, told by the annotation of its first parameter: an ONNX
``ModelProto``, an ``onnx_ir.Model`` or an ``onnx_graphsurgeon.Graph`` (see ``graphprune.model.interchange``). Without
an annotation it is a ``ModelProto``. It may change what it is given, and then return None.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_type_hints

from graphprune.errors import InputError
from graphprune.model import interchange
from graphprune.passes.contract import Pass
from graphprune.passes.rounds import Base, Cutting, Unfitted
from graphprune.passes.state import State
from graphprune.run import usercode


@dataclass(frozen=True)
class Step(Pass):
    """A function of the user's.

    Attributes:
        function: as ``module:function``.
        options: what it is given by name beside the model.
    """

    name: ClassVar[str] = "step"
    rebases: ClassVar[bool] = True

    function: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def requires(self, state: State) -> list[str]:
        """It can be imported and called with a model."""
        _form(self.function, usercode.find_function(self.function))
        return []

    def call(self, state: State) -> State:
        """Call it, and check that what it gives is a model."""
        function = usercode.find_function(self.function)
        form = _form(self.function, function)
        given = interchange.convert(state.model, form)
        with usercode.told(self.function):
            made = function(given.value, **self.options)
        model = given.back(given.value if made is None else made, self.function)
        return state.without(Cutting).without(Unfitted).having(Base(model), model=model)


def _form(name: str, function: Callable[..., Any]) -> str:
    """Which form of a model a function takes."""
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        raise InputError(f"{name} takes no model: a step is a function from a model to a model")
    try:
        hints = get_type_hints(function)
    except Exception:  # an annotation that cannot be evaluated says nothing
        hints = {}
    annotation = hints.get(parameters[0].name, parameters[0].annotation)
    return interchange.named(annotation, name)
