"""Which groups bases are changed of, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphprune.analysis import Analysis, Group
from graphprune.analysis.called import group_names
from graphprune.analysis.reasons import Reason
from graphprune.model import naming


@dataclass(frozen=True)
class Changed:
    """Groups that were changed, and those that were not.

    Attributes:
        groups: ids of groups, each with how many norms lost their mean, or how many matrices turned it.
        stayed: by id of a group why it was left as it is.
    """

    groups: dict[str, int]
    stayed: dict[str, Reason]


def asked(analysis: Analysis, include: Sequence[str], exclude: Sequence[str]) -> list[Group]:
    """Groups that are neither left out, nor reach the interface, where callers know the basis.

    Args:
        analysis: of the model.
        include, exclude: globs on, or modules of, group ids and names of nodes and weights.
    """

    def meets(group: Group, globs: Sequence[str]) -> bool:
        return naming.meets(group_names(analysis, group), globs)

    return [
        group
        for group in analysis.groups
        if not group.interface and (not include or meets(group, include)) and not meets(group, exclude)
    ]
