"""Names of strangers, where people read them: on a terminal, in a page, in a picture."""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # what commands a terminal, and what XML does not take
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of text: all of Unicode's Bidi_Control
    "\u2028\u2029"  # ends of lines that are not seen as such
    "\ud800-\udfff\ufffe\uffff]"  # what is no character
)
_BREAKS = re.compile("[\t\n]")


def harmless(text: str) -> str:
    """A text in which what commands a terminal, turns the direction of text, or is no text at all becomes U+FFFD."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def on_one_line(text: str) -> str:
    """The same, and it stands on one line whatever it says."""
    return _BREAKS.sub("\N{REPLACEMENT CHARACTER}", harmless(text))
