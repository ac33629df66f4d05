"""Which groups bases are changed of."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from graphprune.analysis import Analysis, Group
from graphprune.passes.choose.ratio import nodes


def asked(analysis: Analysis, include: Sequence[str], exclude: Sequence[str]) -> list[Group]:
    """Groups that are neither left out, nor reach the interface, where callers know the basis.

    Args:
        analysis: of the model.
        include, exclude: globs on group ids and node names.
    """

    def meets(group: Group, globs: Sequence[str]) -> bool:
        return any(fnmatchcase(name, glob) for glob in globs for name in [group.id, *nodes(analysis, group)])

    return [
        group
        for group in analysis.groups
        if not group.interface and (not include or meets(group, include)) and not meets(group, exclude)
    ]
