"""What an exporter has written into the metadata of a model: texts of others, which may say anything.

Ultralytics and YOLOv5 write Python literals (``ultralytics/engine/exporter.py``), others plain numbers. What cannot be
read says nothing; nothing that stands there is an error.
"""

from __future__ import annotations

import ast
import warnings

from graphprune.model import Model

LONGEST = 1 << 16
"""Characters of a literal that are read: the names of the 1,000 classes of ImageNet take half of them."""
MOST = 10**9 - 1
"""The largest whole number that is read."""


def said(model: Model) -> dict[str, str]:
    """The metadata of a model's file, by key."""
    return {one.key: one.value for one in model.source.proto.metadata_props}


def literal(text: str | None) -> object:
    """What a Python literal stands for; None where the text is none, or one that is too long to be read."""
    if not text or len(text) > LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about a literal but readable
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # a list as a key is a TypeError
        return None


def count(value: object) -> int | None:
    """A whole number from 1 to :data:`MOST`, as it is or as a text; None where it is none."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    return value if isinstance(value, int) and value is not True and 1 <= value <= MOST else None
