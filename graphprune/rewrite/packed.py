"""Weights of an N:M pattern without their zeros, as a safetensors file, for runtimes that take them so.

For each weight ``w``, read as its node reads it with the axis of the sum moved to the end, in blocks of M (the last one
filled up with zeros):

- ``w.values``: the N numbers of every block that stay, ``[..., blocks * N]``, of the weight's own type;
- ``w.indices``: their places in the block, ascending, each in ``ceil(log2(M))`` bits (2 for 2:4), in the order of the
  values, the first in the lowest bits of the first byte; ``uint8``;
- ``w.zero``, where a zero is not written as 0: what stands for zero (a zero point), of the shape of the weight with the
  axis of the sum moved to the end, or one number;
- the file's metadata under ``w``: JSON with ``shape`` (as the node reads it), ``axis``, ``pattern``, ``node``.

``format`` in the metadata is ``graphprune-packed/1``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from graphprune.analysis import patterns, shapes, sparsity, web
from graphprune.analysis.patterns import OfEvery
from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.model.canonical import canonicalize
from graphprune.relation import Shape, Values
from graphprune.rewrite import checkpoints
from graphprune.rewrite.checkpoints import Checkpoint
from graphprune.run.calibration import still

FORMAT = "graphprune-packed/1"


def check_place(path: Path) -> None:
    """See before anything is computed that a packed file can be written.

    Raises:
        InputError: its folder is not there.
        BackendError: safetensors is not installed.
    """
    checkpoints.library("safetensors.numpy")
    if not path.parent.is_dir():
        raise InputError(f"{path}: its folder does not exist")


def write(
    path: Path,
    model: Model,
    weights: Collection[str],
    pattern: str,
    input_shapes: Mapping[str, Shape] | None = None,
) -> None:
    """Pack sparse weights of a model.

    Args:
        path: the file.
        model: the sparse model.
        weights: names of the weights.
        pattern: that they follow.
        input_shapes: sizes of inputs that cannot be guessed.

    Raises:
        BackendError: safetensors is not installed.
    """
    flat = canonicalize(model)
    witness = shapes.find_witness(flat, still(input_shapes, flat))
    wanted, one = set(weights), _read(pattern)
    tensors: dict[str, Values] = {}
    metadata = {"format": FORMAT}
    for layer in sparsity.find_layers(flat, witness, web.build(flat, witness), True, one):
        if layer.weight not in wanted or layer.origin is None or layer.axis is None:
            continue
        wanted.remove(layer.weight)
        value, zero = np.asarray(flat.array(layer.weight)), np.asarray(layer.origin.zero)
        if layer.origin.order is not None:
            value = value.reshape(-1)[layer.origin.order]
        tensors[f"{layer.weight}.values"], tensors[f"{layer.weight}.indices"] = pack(value, layer.axis, one, zero)
        if zero.any():
            moved = np.moveaxis(zero, layer.axis, -1) if zero.ndim == value.ndim else zero.reshape(1)
            tensors[f"{layer.weight}.zero"] = np.ascontiguousarray(moved.astype(value.dtype))
        about = {"shape": list(value.shape), "axis": layer.axis, "pattern": pattern, "node": layer.node}
        metadata[layer.weight] = json.dumps(about)
    half = frozenset(n for n, v in tensors.items() if v.dtype.name == "bfloat16")
    checkpoints.write(path, tensors, Checkpoint({}, metadata, half))


def read(path: Path) -> dict[str, Values]:
    """The weights of a packed file with their zeros, each as its node reads it; bfloat16 as float32.

    Raises:
        InputError: no such file, or not a packed one.
        BackendError: safetensors is not installed.
    """
    held = checkpoints.read(path)
    metadata = held.metadata or {}
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: not a {FORMAT} file")
    found = {}
    for name, text in metadata.items():
        if name != "format":
            about = json.loads(text)
            pattern, zero = _read(about["pattern"]), held.tensors.get(f"{name}.zero", np.zeros(1))
            found[name] = unpack(
                held.tensors[f"{name}.values"], held.tensors[f"{name}.indices"], about["shape"], about["axis"], pattern,
                zero,
            )  # fmt: skip
    return found


def _read(text: str) -> OfEvery:
    """A pattern whose blocks have places to count.

    Raises:
        InputError: it has none.
    """
    found = patterns.parse(text)
    if not isinstance(found, OfEvery):
        raise InputError(f"packed weights: {found.lacks('pack')}")
    return found


def _bits(pattern: OfEvery) -> int:
    return (pattern.m - 1).bit_length()


def pack(value: Values, axis: int, pattern: OfEvery, zero: Values | int = 0) -> tuple[Values, Values]:
    """Values and indices of a tensor that follows a pattern along an axis."""
    stay = pattern.kept(sparsity.magnitudes(value, zero), axis)
    fill = np.broadcast_to(np.asarray(zero).astype(value.dtype), value.shape)
    size = value.shape[axis]
    gap, rest = -size % pattern.m, size % pattern.m
    rows, marks = np.moveaxis(value, axis, -1), np.moveaxis(stay, axis, -1)
    if gap:  # the last block is filled up with zeros, of which so many are written as it takes
        more = np.moveaxis(fill, axis, -1)[..., :1].repeat(gap, -1)
        taken = np.broadcast_to(np.arange(gap) < pattern.n - rest, more.shape)
        rows, marks = np.concatenate([rows, more], -1), np.concatenate([marks, taken], -1)
    places = (np.flatnonzero(marks) % pattern.m).astype(np.uint8)
    bits = (places[:, None] >> np.arange(_bits(pattern), dtype=np.uint8)) & np.uint8(1)
    return rows[marks].reshape(*rows.shape[:-1], -1), np.packbits(bits.reshape(-1), bitorder="little")


def unpack(
    values: Values, indices: Values, shape: tuple[int, ...], axis: int, pattern: OfEvery, zero: Values | int = 0
) -> Values:
    """The inverse of :func:`pack`."""
    width = _bits(pattern)
    bits = np.unpackbits(indices, count=values.size * width, bitorder="little").reshape(-1, width)
    order = (bits.astype(np.int64) << np.arange(width)).sum(1).reshape(-1, pattern.n)
    size = shape[axis]
    rest = [n for a, n in enumerate(shape) if a != axis]
    fill = np.asarray(zero).astype(values.dtype)
    fill = (
        fill.reshape(1) if fill.size == 1 else np.concatenate([fill, fill[..., :1].repeat(-size % pattern.m, -1)], -1)
    )
    wide = (*rest, size + -size % pattern.m)
    dense = np.array(np.broadcast_to(fill, wide)).reshape(-1, pattern.m)
    np.put_along_axis(dense, order, values.reshape(-1, pattern.n), 1)
    return np.moveaxis(dense.reshape(wide)[..., :size], -1, axis)
