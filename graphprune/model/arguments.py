"""Arguments from Python, held against the type hints of the function that takes them.

The hints are the one statement of what a function takes: type checkers read them, and so does :func:`checked`, which
says in one line which argument is wrong, what was given, and what is expected. Ranges stand in the hints too. What is
right is passed on in plain types: numbers of NumPy as Python's, lists for tuples as tuples.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from graphprune.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Least:
    """The smallest value that a number may have."""

    value: int


Count = Annotated[int, Least(0)]
Seed = Annotated[int, Least(0)]
Size = Annotated[int, Least(1)]
InputShapes = Mapping[str, tuple[Size, ...]]
"""Sizes of inputs by name."""


class _WrongError(InputError):
    """An argument does not fit; how deep in it that was found tells which of several hints was meant."""

    def __init__(self, name: str, value: Any, hint: Any, depth: int) -> None:
        super().__init__(f"{name} is {_shown(value)}, and must be {described(hint)}")
        self.depth = depth


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with its arguments checked against its type hints when it is called."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def within(*given: P.args, **named: P.kwargs) -> R:
        hints = _hints(function)
        bound = signature.bind(*given, **named)
        for name, value in bound.arguments.items():
            many = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
            hint = tuple[hints[name], ...] if many else hints[name]  # type: ignore[valid-type]
            bound.arguments[name] = read(name, value, hint)
        return function(*bound.args, **bound.kwargs)

    return within


@functools.cache
def _hints(of: Any) -> dict[str, Any]:
    return get_type_hints(of, include_extras=True)


def read(name: str, value: Any, hint: Any, depth: int = 0) -> Any:
    """A value as a type hint asks for it.

    Args:
        name: what to call it.
        value: what was given.
        hint: a type, or what ``typing`` and ``collections.abc`` make of types; classes that are frozen data are looked
            into, field by field.
        depth: how many steps into an argument the value stands.

    Raises:
        InputError: it is something else; says what, and what is expected.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        found = read(name, value, inner[0], depth)
        if any(found < rule.value for rule in inner[1:]):
            raise _WrongError(name, value, hint, depth)
        return found
    if origin in (Union, UnionType):
        return _either(name, value, hint, depth)
    if origin in (tuple, Sequence):
        return _in_a_row(name, value, hint, depth)
    if origin is Mapping and isinstance(value, Mapping):
        return {
            read(f"a name in {name}", k, inner[0], depth + 1): read(f"{name}[{k!r}]", v, inner[1], depth + 1)
            for k, v in value.items()
        }
    if (origin is Callable and callable(value)) or (origin is Iterable and _endless(value)):
        return value
    return _single(name, value, hint, origin or hint, depth)


def _endless(value: Any) -> bool:
    """Whether a value is gone through one after the other, and is neither text nor a table of names."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _either(name: str, value: Any, hint: Any, depth: int) -> Any:
    """A value as the first alternative that it fits; the one that it comes nearest to says what is wrong with it."""
    nearest = _WrongError(name, value, hint, depth)
    for one in get_args(hint):
        try:
            return read(name, value, one, depth)
        except _WrongError as wrong:
            # a number out of range is as good as deeper: it says more than the list of alternatives
            if wrong.depth > nearest.depth or (get_origin(one) is Annotated and isinstance(value, Real)):
                nearest = wrong
    raise nearest


def _in_a_row(name: str, value: Any, hint: Any, depth: int) -> Any:
    inner = get_args(hint)
    endless = get_origin(hint) is Sequence or inner[-1] is Ellipsis
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or not (endless or len(value) == len(inner)):
        raise _WrongError(name, value, hint, depth)
    hints = [inner[0]] * len(value) if endless else list(inner)
    found = [read(f"{name}[{k}]", v, h, depth + 1) for k, (v, h) in enumerate(zip(value, hints, strict=True))]
    return tuple(found) if get_origin(hint) is tuple or isinstance(value, tuple) else found


def _single(name: str, value: Any, hint: Any, kind: Any, depth: int) -> Any:
    if kind is Any:
        return value
    if kind is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    if kind in (int, float) and isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool):
        with suppress(OverflowError):
            if kind is int or not math.isnan(value):
                return kind(value)
    elif kind is not bool and isinstance(kind, type) and isinstance(value, kind):
        if is_dataclass(kind) and kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            hints = _hints(kind)
            held = {f.name: getattr(value, f.name) for f in fields(kind)}
            made = {n: read(f"{name}.{n}", v, hints[n], depth + 1) for n, v in held.items()}
            return replace(value, **made)  # type: ignore[type-var]
        return value
    raise _WrongError(name, value, hint, depth)


def _shown(value: Any) -> str:
    shown = " ".join(reprlib.repr(value).split())
    return shown if value is None else f"{shown} ({type(value).__name__})"


_WORDS: dict[Any, tuple[str, str]] = {
    bool: ("True or False", "True or False"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a string", "strings"),
    bytes: ("bytes", "bytes"),
    Iterable: ("an iterable", "iterables"),
    os.PathLike: ("a path", "paths"),
    NoneType: ("None", "None"),
    Callable: ("a function", "functions"),
}


def described(hint: Any, many: bool = False) -> str:
    """A type hint in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{described(inner[0], many)} from {inner[1].value} up"
    if origin in (Union, UnionType):
        *first, last = dict.fromkeys(described(one, many) for one in inner)
        return f"{', '.join(first)} or {last}" if first else last
    if origin is tuple and inner[-1] is not Ellipsis:
        parts = " and ".join(described(one) for one in inner)
        return f"pairs of {parts}" if many else f"a tuple of {parts}"
    if origin in (tuple, Sequence):
        return f"{'lists' if many else 'a list'} of {described(inner[0], True)}"
    if origin is Mapping:
        return f"{'dicts' if many else 'a dict'} of {described(inner[1], True)} by {described(inner[0], True)}"
    words = getattr(hint, "words", "")
    one, several = (words, words) if words else _WORDS.get(origin or hint, (f"a {getattr(hint, '__name__', hint)}", ""))
    return (several or f"{one[2:]}s") if many else one
