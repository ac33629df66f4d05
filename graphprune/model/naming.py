"""What users call things: by name, by glob, or by the module that they lie in.

One reading of such words for all options and commands. A name stands for itself and, as the name of a module, for all
that is in it: ``/encoder/layer.3`` for ``/encoder/layer.3/attention/MatMul`` and for ``encoder.layer.3.dense.weight``.
Exporters write paths with slashes, training code with dots; either stands for the other, and a slash in front is no
matter. What has ``*``, ``?`` or ``[`` in it is a glob, on names as they are and without a slash in front; one that ends
in ``/`` or ``.`` stands for all behind it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from glob import escape

_GLOB = re.compile(r"[*?[]")
_LETTER = re.compile(r"\w")


def matches(name: str, text: str) -> bool:
    """Whether a name is one of those that a text of the user's stands for."""
    if name == text:
        return True
    if _GLOB.search(text):
        glob = f"{text}*" if text.endswith(("/", ".")) else text
        shorter = name if text.startswith("[") else name.removeprefix("/")  # so that exactly() is just that
        return fnmatchcase(name, glob) or fnmatchcase(shorter, glob)
    return in_module(name, text)


def in_module(name: str, text: str) -> bool:
    """Whether a text, read as the name of a module, is that of one that a name lies in, or the name itself."""
    module, path = _dotted(text), _dotted(name)
    return bool(module) and (path == module or path.startswith(f"{module}."))


def meets(names: Iterable[str], texts: Iterable[str]) -> bool:
    """Whether any of some names is one of those that any of some texts stand for."""
    found = list(names)
    return any(matches(name, text) for text in texts for name in found)


def exactly(name: str) -> str:
    """A text that stands for one name alone, and for nothing that would lie in a module of this name."""
    letter = _LETTER.search(name)
    if letter is None:
        return escape(name)
    return f"{escape(name[: letter.start()])}[{letter[0]}]{escape(name[letter.end() :])}"


def near(text: str, known: Iterable[str], most: int = 1, otherwise: str = "") -> str:
    """What to say behind a text that stands for nothing: names and modules that come near it.

    Args:
        text: of the user.
        known: all names.
        most: how many are named.
        otherwise: what is said where none comes near.
    """
    names = dict.fromkeys(known)
    every = list(dict.fromkeys(part for name in names for part in (name, *_modules(name))))
    close = difflib.get_close_matches(text, every, most, 0.6) or difflib.get_close_matches(text, list(names), most, 0.5)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else otherwise


def _dotted(name: str) -> str:
    return name.replace("/", ".").strip(".")


def _modules(name: str) -> list[str]:
    """The modules that a path lies in, as the path writes them."""
    return [name[: sign.start()] for sign in re.finditer(r"[/.]", name) if sign.start()]
