"""Losses of the user's own: an ONNX file, or a function that gives a loss and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx.compose
import onnx.version_converter
from onnx import ModelProto, TensorProto, helper

from graphprune.errors import InputError
from graphprune.gradients.expansion import prepared
from graphprune.gradients.known import Known, version_of
from graphprune.gradients.terms import Tape, Term
from graphprune.model import Model, load
from graphprune.model.interchange import whole
from graphprune.passes.distill.losses import TEACHER
from graphprune.relation import Values
from graphprune.run import usercode
from graphprune.run.runtime import Feeds
from graphprune.run.samples import LABEL

STUDENT = "student:"
"""In front of a tensor's name, where a loss reads what the student makes."""
SUFFIX = ".onnx"
Function = Callable[..., Any]


@dataclass(frozen=True)
class File:
    """A loss as an ONNX model: inputs ``student:NAME``, ``teacher:NAME``, ``label:NAME``; one output, a float.

    Attributes:
        model: the loss.
        student, teacher, labels: names of the tensors that it reads.
    """

    model: Model
    student: Sequence[str]
    teacher: Sequence[str]
    labels: Sequence[str]

    @classmethod
    def read(cls, path: str) -> File:
        """The loss of a file.

        Raises:
            InputError: it is no model, or no loss; says at which input or output.
        """
        model = load(path)
        found: dict[str, list[str]] = {STUDENT: [], TEACHER: [], LABEL: []}
        for one in model.inputs:
            prefix = next((p for p in found if one.name.startswith(p)), None)
            if prefix is None:
                raise InputError(
                    f"{path}: input {one.name!r} of the loss is none of {STUDENT}NAME, {TEACHER}NAME and {LABEL}NAME"
                )
            found[prefix].append(one.name.removeprefix(prefix))
        if not found[STUDENT]:
            raise InputError(f"{path}: the loss reads nothing of the student: give it an input {STUDENT}NAME")
        kinds = [o.type.tensor_type.elem_type for o in model.graph.output]
        if kinds != [TensorProto.FLOAT]:
            raise InputError(f"{path}: a loss has one output, a single float; this has {len(kinds)} outputs or others")
        return cls(model, found[STUDENT], found[TEACHER], found[LABEL])

    def __call__(self, proto: ModelProto, known: Known, tape: Tape) -> Term:
        """Write the loss beside a model; see ``losses.Own``."""
        for name in self.student:
            if name not in known.kinds:
                raise InputError(f"{self.model.name}: the student has no tensor {name!r} that the loss could read")
        own = self._prefixed(proto, tape)
        graph = own.graph
        for value, plain in zip(graph.input, self.model.inputs, strict=True):
            kind = value.type.tensor_type.elem_type
            if plain.name.startswith(STUDENT):
                name = plain.name.removeprefix(STUDENT)
                term = Term(tape, name, known.kinds[name], known.dims.get(name)).cast(kind)
                tape.nodes.append(helper.make_node("Identity", [term.name], [value.name]))
                continue
            given = helper.make_tensor_value_info(plain.name, kind, None)
            given.type.CopyFrom(value.type)
            proto.graph.input.append(given)
            tape.nodes.append(helper.make_node("Identity", [plain.name], [value.name]))
        tape.nodes.extend(graph.node)
        proto.graph.initializer.extend(graph.initializer)
        there = {o.domain for o in proto.opset_import}
        proto.opset_import.extend(o for o in own.opset_import if o.domain not in there)
        return tape.op("ReduceSum", Term(tape, graph.output[0].name, TensorProto.FLOAT), keepdims=0, dims=())

    def _prefixed(self, proto: ModelProto, tape: Tape) -> ModelProto:
        """The loss at the opset of a model, its names unlike those of the model."""
        opened, _ = prepared(whole(self.model))
        wanted, version = version_of(proto), version_of(opened)
        if wanted != version:
            try:
                opened = onnx.version_converter.convert_version(opened, wanted)
            except Exception as error:  # the converter's errors share no base class
                raise InputError(
                    f"{self.model.name}: the loss is of opset {version}, and cannot be converted to {wanted} as the "
                    "model is; export it at that"
                ) from error
        prefix = "loss/"
        while any(name.startswith(prefix) for name in tape.taken):
            prefix = f"{prefix}/"
        made = onnx.compose.add_prefix(opened, prefix)
        tape.taken.update(n for node in made.graph.node for n in (*node.output, node.name))
        return made

    def check(self, tensors: Sequence[str], runs: Sequence[Feeds]) -> None:
        """Raise InputError where the teacher has no such tensor, or inputs no such labels."""
        for name in self.teacher:
            if name not in tensors:
                raise InputError(f"{self.model.name}: the teacher has no tensor {name!r} that the loss could read")
        for name in self.labels:
            if any(LABEL + name not in one for one in runs):
                raise InputError(f"{self.model.name}: the loss reads {LABEL + name!r}, which the inputs do not have")

    def targets(self, feeds: Feeds, made: Feeds) -> Feeds:
        """What the loss reads beside the student, in its types.

        Args:
            feeds: inputs, with labels.
            made: tensors of the teacher, by name.
        """
        found = {}
        for value in self.model.inputs:
            dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            if value.name.startswith(TEACHER):
                found[value.name] = np.asarray(made[value.name.removeprefix(TEACHER)], dtype)
            elif value.name.startswith(LABEL):
                found[value.name] = np.asarray(feeds[value.name], dtype)
        return found


def function(asked: str | Function) -> tuple[Function, str]:
    """A function of the user's, and what to call it.

    Raises:
        InputError: there is no such function.
    """
    if isinstance(asked, str):
        return usercode.find_function(asked), asked
    return asked, getattr(asked, "__name__", "loss")


def judge(asked: str | Function) -> Callable[[Feeds, Mapping[str, Values]], tuple[float, Mapping[str, Values]]]:
    """A function of the user's as it judges a run: see ``graphprune.gradients.training``.

    It is called with two dicts by output, of what the student and what the original make, and gives the loss, and by
    output its gradient; an output that it leaves out has none.
    """
    own, source = function(asked)

    def judged(feeds: Feeds, outputs: Mapping[str, Values]) -> tuple[float, Mapping[str, Values]]:
        teacher = {n.removeprefix(TEACHER): v for n, v in feeds.items() if n.startswith(TEACHER)}
        with usercode.told(source):
            found = own({n: np.array(v) for n, v in outputs.items()}, {n: np.array(v) for n, v in teacher.items()})
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):
            raise InputError(f"{source}: must give the loss, and by output its gradient: (loss, {{output: gradient}})")
        loss, given = np.asarray(found[0]), found[1]
        if loss.size != 1 or loss.dtype.kind not in "fiu":
            raise InputError(f"{source}: the loss must be one number, not {loss.dtype} of shape {loss.shape}")
        if unknown := next((name for name in given if name not in outputs), None):
            raise InputError(
                f"{source}: gives a gradient of {unknown!r}, which is no output; there are {list(outputs)}"
            )
        return float(loss.reshape(())), {n: _gradient(source, n, given.get(n), v) for n, v in outputs.items()}

    return judged


def _gradient(source: str, name: str, value: Any, output: Values) -> Values:
    kind = np.float64 if output.dtype == np.float64 else np.float32
    found = np.zeros(output.shape, kind) if value is None else np.asarray(value)
    if found.shape != output.shape or found.dtype.kind not in "fiu":
        raise InputError(
            f"{source}: the gradient of {name!r} must be of shape {output.shape}, not {found.dtype} of {found.shape}"
        )
    return found.astype(kind)


def is_file(loss: object) -> bool:
    """Whether a loss is an ONNX file."""
    return isinstance(loss, str) and Path(loss).suffix == SUFFIX


def is_function(loss: object) -> bool:
    """Whether a loss is a function, by name or itself."""
    return callable(loss) or (isinstance(loss, str) and usercode.names_one(loss))
