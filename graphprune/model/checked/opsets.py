"""Operator sets that a proto imports."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import OperatorSetIdProto

from graphprune.errors import InputError
from graphprune.model.checked import text

_STANDARD = "ai.onnx"
_LARGEST = (1 << 31) - 1


def see(imports: Iterable[OperatorSetIdProto], where: str, remedy: str) -> None:
    """See that imports name versions that there are, each set once.

    Args:
        imports: they.
        where: the model, and what of it imports them.
        remedy: what to do where a version is newer than all that is known.

    Raises:
        InputError: they do not.
    """
    found: dict[str, int] = {}
    newest = onnx.defs.C.schema_version_map()
    for one in imports:
        text.see([one.domain], f"{where}: the domain of an operator set")
        domain = "" if one.domain == _STANDARD else one.domain
        named = domain or _STANDARD
        if found.setdefault(domain, one.version) != one.version:
            raise InputError(f"{where}: imports {named!r} twice, as {found[domain]} and as {one.version}; keep one")
        least, most = newest.get(domain, (-_LARGEST, _LARGEST))
        if one.version < least:
            raise InputError(f"{where}: imports version {one.version} of operator set {named!r}; name {least} at least")
        if one.version > most:
            raise InputError(
                f"{where}: imports version {one.version} of operator set {named!r}, and onnx {onnx.__version__} knows "
                f"up to {most}; {remedy}"
            )
