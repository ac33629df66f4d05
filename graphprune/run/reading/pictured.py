"""The input of a model that takes images: its size, its channels and where they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.relation import Shape, Values
from graphprune.run.reading.asked import Size, word
from graphprune.run.runtime import run, session, upto

LAYOUTS = ("nchw", "nhwc")
_SIDE = 64
"""Height and width at which a first layer is tried."""
BESIDE = ("pixel_mask", "orig_target_sizes", "im_shape", "scale_factor")
"""Inputs of detectors: which pixels are a picture's and no pad's (all of them), its width and height, its height and
width, and by how much it was resized (here by 1, so that boxes are those of what the model sees)."""


@dataclass(frozen=True)
class Pictured:
    """What a model wants of images.

    Attributes:
        name: of the input.
        dtype: of its elements.
        batch: images that it takes at a time.
        channels: 1 or 3.
        last: whether channels are the last axis.
        size: height and width, 0 where the model leaves it free.
        beside: other inputs, of :data:`BESIDE`, with their types.
    """

    name: str
    dtype: Any
    batch: int
    channels: int
    last: bool
    size: Size
    beside: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, place: Path, model: Model, input_shapes: Mapping[str, Shape], layout: str | None = None) -> Pictured:
        """Of a model.

        Args:
            place: where images come from, for messages.
            model: the model.
            input_shapes: sizes of inputs where the model leaves them free.
            layout: what the user says of its axes.

        Raises:
            InputError: it does not take images.
        """
        inputs = [v for v in model.inputs if v.name not in BESIDE] or list(model.inputs)
        value, *others = inputs
        declared = [max(d.dim_value, 0) for d in value.type.tensor_type.shape.dim]
        given = input_shapes.get(value.name, ())
        dims = [d or g for d, g in zip(declared, given, strict=True)] if len(given) == len(declared) else declared
        said = None if layout is None else word("--preprocess layout", layout, LAYOUTS)
        found = None if others or len(dims) != 4 else _channels(model, value, dims, said)
        if found is None:
            raise InputError(
                f"{place}: holds images, and {model.name} does not take them: it wants {_described(model)}, and not "
                "one input of images with 1 or 3 channels (--input-shape says how many, where the model leaves it open)"
            )
        axis, channels = found
        beside = [(v.name, _kind(v.type.tensor_type.elem_type)) for v in model.inputs if v.name != value.name]
        return cls(
            name=value.name,
            dtype=_kind(value.type.tensor_type.elem_type),
            batch=declared[0] or 1,
            channels=channels,
            last=axis == 3,
            size=(dims[2], dims[3]) if axis == 1 else (dims[1], dims[2]),
            beside=tuple(beside),
        )

    @property
    def remedy(self) -> str:
        """How sizes are given."""
        sizes = [str(self.batch), "HEIGHT", "WIDTH"]
        sizes.insert(3 if self.last else 1, str(self.channels))
        return f"give the size to which all are resized, by --input-shape {self.name}={'x'.join(sizes)}"

    def feeds(self, images: Values) -> dict[str, Values]:
        """A batch of images as the inputs of the model."""
        count, (height, width) = len(images), images.shape[1:3] if self.last else images.shape[2:]
        made = {
            "pixel_mask": np.ones((count, height, width)),
            "orig_target_sizes": np.array([[width, height]] * count),
            "im_shape": np.array([[height, width]] * count),
            "scale_factor": np.ones((count, 2)),
        }
        return {self.name: images, **{name: made[name].astype(kind) for name, kind in self.beside}}


def _kind(element: int) -> Any:
    return helper.tensor_dtype_to_np_dtype(element if element != TensorProto.BFLOAT16 else TensorProto.FLOAT)


def _channels(model: Model, value: ValueInfoProto, dims: Sequence[int], layout: str | None) -> tuple[int, int] | None:
    """The axis of channels and their number; None where it is no input of images."""
    axes = (1, 3) if layout is None else (1,) if layout == LAYOUTS[0] else (3,)
    found = next(((a, dims[a]) for a in axes if dims[a] in (1, 3)), None)
    if found is not None or dims[axes[0]] != 0:
        return found
    named = value.type.tensor_type.shape.dim[axes[0]].dim_param
    taken = [number for number in (1, 3) if _takes(model.runnable, value, axes[0], number)]
    if len(taken) == 1:  # the first layer says it where the input does not
        return axes[0], taken[0]
    return (axes[0], 3) if "channel" in named or layout is not None else None


def _takes(model: Model, value: ValueInfoProto, axis: int, channels: int) -> bool:
    """Whether what reads an input runs on so many channels."""
    first = upto(
        model, [name for use in model.uses.get(value.name, ()) for name in model.nodes[use.node].output if name]
    )
    del first.proto.graph.input[:]
    first.proto.graph.input.append(value)
    declared = [max(d.dim_value, 0) for d in value.type.tensor_type.shape.dim]
    free = (1, channels, _SIDE, _SIDE) if axis == 1 else (1, _SIDE, _SIDE, channels)
    shape = [d or f for d, f in zip(declared, free, strict=True)]
    try:
        with session(first) as active:
            run(active, {value.name: np.zeros(shape, _kind(value.type.tensor_type.elem_type))})
    except InputError:
        return False
    return True


def _described(model: Model) -> str:
    def one(value: ValueInfoProto) -> str:
        dims = value.type.tensor_type.shape.dim
        return f"{value.name} {'x'.join(str(d.dim_value or d.dim_param or '?') for d in dims)}"

    return ", ".join(map(one, model.inputs))
