"""Trials of models that are yet to be made, before the first session of this process: some jobs never open one."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextvars import ContextVar

from graphprune.model import Model

_Owed = tuple["weakref.ref[Model]", Callable[[Model], None]]
_owed: ContextVar[tuple[_Owed, ...]] = ContextVar("owed", default=())


def owe(model: Model, trial: Callable[[Model], None]) -> None:
    """Have a model tried before the next session, if it is still there then."""
    alive = tuple(one for one in _owed.get() if one[0]() is not None)
    _owed.set((*alive, (weakref.ref(model), trial)))


def settle() -> None:
    """Make the trials that are owed; whatever they raise, none is made twice."""
    held = _owed.get()
    if held:
        _owed.set(())
        for reference, trial in held:
            if (model := reference()) is not None:
                trial(model)
