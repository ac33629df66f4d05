"""Mutations of bytes, whatever they hold."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

_NUMBERS = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\x08", b"\x12")


def flip(data: bytearray, random: Random, other: bytes) -> None:
    for _ in range(random.choice([1, 1, 2, 8, 64])):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def cut(data: bytearray, random: Random, other: bytes) -> None:
    del data[random.randrange(len(data)) :]


def remove(data: bytearray, random: Random, other: bytes) -> None:
    at = random.randrange(len(data))
    del data[at : at + random.choice([1, 2, 8, 100])]


def insert(data: bytearray, random: Random, other: bytes) -> None:
    at = random.randrange(len(data))
    data[at:at] = random.choice([random.choice(_NUMBERS), random.randbytes(random.choice([1, 4, 50]))])


def replace(data: bytearray, random: Random, other: bytes) -> None:
    at, value = random.randrange(len(data)), random.choice(_NUMBERS)
    data[at : at + len(value)] = value


def repeat(data: bytearray, random: Random, other: bytes) -> None:
    at, size = random.randrange(len(data)), random.choice([2, 16, 200, 2000])
    data[at:at] = data[at : at + size] * random.choice([1, 2, 5])


def splice(data: bytearray, random: Random, other: bytes) -> None:
    """The head of one file and the tail of another, or a piece of it inside."""
    at = random.randrange(len(data))
    if random.random() < 0.5:
        data[at:] = other[random.randrange(len(other) or 1) :]
    else:
        begin = random.randrange(len(other) or 1)
        data[at:at] = other[begin : begin + random.choice([8, 64, 1000])]


Mutation = Callable[[bytearray, Random, bytes], None]
MUTATIONS: tuple[Mutation, ...] = (flip, flip, flip, cut, remove, insert, replace, repeat, splice)


def mutated(data: bytes, random: Random, other: bytes = b"") -> bytes:
    """The bytes after one such mutation; ``other`` is a second file to splice with."""
    made = bytearray(data or b"\0")
    random.choice(MUTATIONS)(made, random, other)
    return bytes(made)
