"""Why something stays as it is, or what the user should know of it: one value for all that is said."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """A reason, in words for the user; what tells reasons apart is a type or a field, never the words.

    Attributes:
        text: the reason.
        node: name of the node that it is about; empty where it is about none.
        remedy: what the user can do about it; empty where there is nothing.
    """

    text: str
    node: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}" if self.remedy else self.text
