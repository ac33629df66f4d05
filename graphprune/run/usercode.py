"""Functions that the user names as ``module:function``: what goes wrong in them is told as theirs."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from graphprune.errors import GraphpruneError, InputError, UserCodeError


def names_one(source: str) -> bool:
    """Whether a text is like ``module:function``."""
    return re.fullmatch(r"[\w.]+:\w+", source) is not None


def items(source: str) -> Iterator[Any]:
    """What a function without arguments yields.

    Raises:
        InputError: there is no such function, or it gives nothing to go through.
        UserCodeError: it raises.
    """
    function = find_function(source)
    with told(source):
        made = function()
    yield from through(made, source)


def through(made: Any, source: str) -> Iterator[Any]:
    """The items of what came from a user's function, or is one's own.

    Raises:
        InputError: it cannot be gone through.
        UserCodeError: it raises.
    """
    if not hasattr(made, "__iter__"):
        raise InputError(f"{source}: gives {type(made).__name__}, and should yield one item after the other")
    with told(source):
        rest = iter(made)
    while True:
        with told(source):
            try:
                item = next(rest)
            except StopIteration:
                return
        yield item


def find_function(source: str) -> Callable[..., Any]:
    """The function of a name; modules of the working directory are found, as for any command that is given one.

    Raises:
        InputError: there is no such module, or no such function in it.
        UserCodeError: the module raises when it is imported.
    """
    module, _, name = source.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as for any command that is given a module by name
    try:
        with told(source):
            holder = import_module(module)
    except UserCodeError as error:
        if isinstance(error.__cause__, ImportError):
            raise InputError(f"{source}: {error.__cause__}") from error
        raise
    finally:
        sys.path.pop(0)
    if not hasattr(holder, name):
        raise InputError(f"{source}: module {module!r} has no attribute {name!r}")
    found: Callable[..., Any] = getattr(holder, name)
    if not callable(found):
        raise InputError(f"{source}: is no function but {type(found).__name__}")
    return found


@contextmanager
def told(source: str) -> Iterator[None]:
    """Tell as the user's what is raised inside; an interruption stays one."""
    try:
        yield
    except GraphpruneError:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        frames = traceback.extract_tb(error.__traceback__)[1:]
        theirs = [f for f in frames if f.filename != __file__ and not f.filename.startswith("<frozen")]
        where = f", at {theirs[-1].filename}:{theirs[-1].lineno}" if theirs else ""
        raise UserCodeError(f"{source}: raised {type(error).__name__}{f': {text}' if text else ''}{where}") from error
