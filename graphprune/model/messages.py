"""Protobuf messages, copied in part."""

from __future__ import annotations

from google.protobuf.message import Message


def copy_all_but(source: Message, target: Message, skip: set[str]) -> None:
    """Copy every field of a message that is set, but those named; unknown future fields come along."""
    for field, value in source.ListFields():
        if field.name in skip:
            continue
        if field.label == field.LABEL_REPEATED if hasattr(field, "label") else field.is_repeated:
            getattr(target, field.name).MergeFrom(value)
        elif field.message_type is not None:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)
