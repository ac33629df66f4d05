"""A plan as a Python file for the training code: it cuts a PyTorch module in place, and needs torch alone.

What is cut stands in tables; what a module says of its own sizes (``out_channels``, ``groups``) is set by code that
comes with them. Which numbers a forward pass reads besides, only the module can tell: the file looks for those that are
as large as something that was cut, and gives them back.
"""

from __future__ import annotations

import keyword
import textwrap
from collections.abc import Mapping, Sequence
from itertools import count
from math import isfinite
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from graphprune.relation import IntArray
from graphprune.rewrite.settings import Count
from graphprune.rewrite.statedict import Narrowed

_TEMPLATE = Path(__file__).with_name("torch_modules.txt")
_WIDTH = 118


def snippet(
    found: Narrowed, counts: Sequence[Count], title: str, name: str, config: Mapping[str, Any] | None = None
) -> str:
    """The Python file.

    Args:
        found: what the state dict of the module loses.
        counts: what groups lose, as attributes of modules count them.
        title: what it is for, in one line.
        name: under which the file can be imported, for its examples.
        config: changed fields of a configuration, if there is one.
    """
    removed, slices = _tables(found)
    scaled = {n: f for n, f in found.scaled.items() if n in found.removed}
    tables = [
        "# Removed elements; a-b are all from a to b.",
        "REMOVED = {\n" + "".join(f"    {k}: {_text(v)},\n" for v, k in removed.items()) + "}",
        "# By tensor its shape before, and for each axis which of these go.",
        _mapping("SLICES", slices),
        "# By what the rest of a tensor is multiplied: the gain of a norm that runs over fewer elements.",
        _mapping("SCALED", scaled),
        "# Kind, classes before and after, and tensors of each group that was cut.",
        "COUNTS = [\n"
        + "".join(f"    {_count(one)},\n" for one in counts if one.tensors and one.before != one.after)
        + "]",
    ]
    if config is not None:
        tables += ["# Fields of the configuration that change: Config.from_pretrained(folder, **CONFIG).",
                   f"CONFIG = {_literal(dict(config))}"]  # fmt: skip
    module = name if name.isidentifier() and not keyword.iskeyword(name) else "small_modules"
    # All keys in one pass: names of a stranger may hold keys too. The title stands within the file's docstring.
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        TITLE=_quoted(title)[1:-1], NAME=module, TABLES="\n".join(tables)
    )


def _tables(found: Narrowed) -> tuple[dict[str, int], dict[str, tuple[tuple[int, ...], dict[int, int]]]]:
    """Sets of removed elements with their numbers, and for each tensor its shape and the numbers by axis."""
    removed: dict[str, int] = {}
    numbers = count()
    slices = {}
    for name, gone in found.removed.items():
        own = {}
        for axis, elements in sorted(gone.items()):
            text = ranges(elements)
            if text not in removed:
                removed[text] = next(numbers)
            own[axis] = removed[text]
        slices[name] = tuple(map(int, found.shapes[name][0])), own
    return removed, slices


def ranges(elements: IntArray) -> str:
    """Indices in few characters: ``0-3 7``."""
    ordered = np.unique(elements)
    runs = np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1)
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs if len(run))


def _text(text: str) -> str:
    """A string literal, over several lines where it is long."""
    lines = textwrap.wrap(text, _WIDTH - 12)
    if len(lines) < 2:
        return _quoted(text)
    own = [f"        {_quoted(f'{line} ')}\n" for line in lines]
    return "(\n" + "".join(own) + "    )"


def _mapping(name: str, values: Mapping[str, object]) -> str:
    body = "".join(f"    {_literal(k)}: {_literal(v)},\n" for k, v in values.items())
    return f"{name} = {{\n{body}}}" if body else f"{name} = {{}}"


def _count(one: Count) -> str:
    return f"({_literal(one.kind)}, {one.before}, {one.after}, {_literal(list(one.tensors))})"


def _literal(value: object) -> str:
    """A Python literal, strings in double quotes; of numbers that are not finite a call."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple | list):
        inner = ", ".join(map(_literal, value))
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, float):
        return repr(float(value)) if isfinite(value) else f'float("{float(value)}")'
    return repr(value)


def _quoted(text: str) -> str:
    """A string literal in double quotes, on one line and in characters that print: no text can end it."""
    body = repr(text + '"')[1:-2]  # with a double quote in it, Python puts single ones around
    return '"' + body.replace("\\'", "'").replace('"', '\\"') + '"'
