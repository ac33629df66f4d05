"""Text of a proto: protobuf gives what is no UTF-8 as bytes, which nothing else here knows of."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message

from graphprune.errors import InputError


def see(texts: Iterable[str | bytes], where: str) -> None:
    """See that texts are text.

    Args:
        texts: as protobuf gives them.
        where: the model, and what of it has them.

    Raises:
        InputError: one is no UTF-8.
    """
    for one in texts:
        if isinstance(one, bytes):
            raise InputError(f"{where}: {one!r} is no text in UTF-8; write the model with other names")


def see_fields(message: Message, where: str) -> None:
    """The same of the fields that a message itself has."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            see([value] if isinstance(value, str | bytes) else value, f"{where}: {field.name}")
