"""ONNX's own cases of operators, each as a model that there is something to prune in.

Run as a program it prunes some of them and prints what came of each, a line of JSON a run: so that a crash of a runtime
takes down that process and not the tests (see ``survey``).
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

import graphprune
from graphprune.analysis import verify
from graphprune.errors import InputError

FORMS = ("alone", "constant", "weights", "activations")
"""How a case becomes a model.

``alone`` is the case as it is; ``constant`` has all its inputs as initializers. In ``weights`` products make the first
input and the others are initializers, in ``activations`` products make every input of floats; in both, products read
the outputs, and each runs along every axis, so that no input or output of the graph holds an axis of the case.
"""
WIDEST = 16
"""Elements that the graph's own inputs and outputs have along an axis at most; some cases have 10,000."""
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_WHOLE = (
    *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL),
    *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
)


@dataclass(frozen=True)
class Outcome:
    """What came of one run.

    Attributes:
        case, form: which.
        status: ``proven``, ``refused`` (an error of the user's model, in one line), ``failed`` (any other error, or a
            result that is no valid model), or ``crashed``.
        message: the error.
        removed: how many classes went.
    """

    case: str
    form: str
    status: str
    message: str = ""
    removed: int = 0


@cache
def cases() -> dict[str, Any]:
    """The cases by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return {case.name: case for case in collect_testcases(None)}


def build(case: Any, form: str) -> ModelProto:
    """A case in one of the forms."""
    model = ModelProto()
    model.CopyFrom(case.model)
    if form == "alone":
        return model
    model.ir_version = max(model.ir_version, 4)  # before, initializers had to be inputs
    if "" not in {i.domain for i in model.opset_import}:
        model.opset_import.append(helper.make_opsetid("", 17))
    maker = _Surrounding(model)
    given, results = case.data_sets[0]
    makers = {"constant": (), "weights": (0,), "activations": range(len(given))}[form]
    for k, (value, data) in enumerate(zip(list(model.graph.input), given, strict=False)):
        maker.feed(value, data, made=k in makers, first=k == 0)
    if form != "constant":
        for value, data in zip(list(model.graph.output), results, strict=False):
            maker.read(value, data)
    maker.finish()
    return model


class _Surrounding:
    """Puts initializers and products in front of a graph, and products behind it."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.rng = np.random.default_rng(0)
        self.before: list[onnx.NodeProto] = []
        self.after: list[onnx.NodeProto] = []

    def feed(self, value: ValueInfoProto, data: Any, made: bool, first: bool) -> None:
        """Make an input an initializer, or the result of products (of whole numbers the first input alone)."""
        kind = value.type.tensor_type.elem_type
        if not value.type.HasField("tensor_type") or not isinstance(data, np.ndarray | np.generic | TensorProto):
            return  # a sequence or an optional value
        array = numpy_helper.to_array(data) if isinstance(data, TensorProto) else np.asarray(data)
        fits = kind in _FLOATS or (first and kind in _WHOLE)
        if made and fits and max(array.shape, default=1) > 1:
            entry = f"{value.name}/fed"
            inside = kind if kind in _FLOATS else TensorProto.FLOAT
            made_as = value.name if kind == inside else f"{value.name}/float"
            sizes = [min(n, WIDEST) for n in array.shape]
            self._products(entry, made_as, inside, list(zip(sizes, array.shape, strict=True)), self.before)
            if kind != inside:
                self.before.append(helper.make_node("Cast", [made_as], [value.name], to=kind))
            value.CopyFrom(helper.make_tensor_value_info(entry, inside, sizes))
            return
        tensor = data if isinstance(data, TensorProto) else numpy_helper.from_array(array, value.name)
        if tensor.data_type != kind:
            return  # a type that numpy lacks
        self.graph.initializer.add().CopyFrom(tensor)
        self.graph.initializer[-1].name = value.name
        self.graph.input.remove(value)

    def read(self, value: ValueInfoProto, data: Any) -> None:
        """Let products read an output."""
        kind = value.type.tensor_type.elem_type
        if not value.type.HasField("tensor_type") or kind not in _FLOATS + _WHOLE or max(np.shape(data), default=1) < 2:
            return
        inner, outer = value.name, f"{value.name}/read"
        inside = kind if kind in _FLOATS else TensorProto.FLOAT
        if not np.isfinite(np.asarray(data, dtype=np.float64)).all():  # infinity times a masked weight is no number
            bounds = [f"{inner}/low", f"{inner}/high"]
            for name, bound in zip(bounds, (-100.0, 100.0), strict=True):
                self.graph.initializer.append(helper.make_tensor(name, kind, (), [bound]))
            self.after.append(helper.make_node("Clip", [inner, *bounds], [f"{inner}/finite"]))
            inner = f"{inner}/finite"
        if kind != inside:
            self.after.append(helper.make_node("Cast", [inner], [f"{inner}/float"], to=inside))
            inner = f"{inner}/float"
        sizes = [min(n, WIDEST) for n in np.shape(data)]
        self._products(inner, outer, inside, list(zip(np.shape(data), sizes, strict=True)), self.after)
        value.CopyFrom(helper.make_tensor_value_info(outer, inside, sizes))

    def _products(
        self, source: str, target: str, kind: int, sizes: Sequence[tuple[int, int]], nodes: list[onnx.NodeProto]
    ) -> None:
        """A product along each axis, from one size to another: last axis, rotation, and so round."""
        name = source
        rank = len(sizes)
        for step, (before, after) in enumerate(reversed(sizes)):
            if before > 1:
                weight = self.rng.standard_normal((before, after)) / np.sqrt(before)
                tensor = helper.make_tensor(f"{target}/w{step}", kind, (before, after), weight.ravel())
                self.graph.initializer.append(tensor)
                nodes.append(helper.make_node("MatMul", [name, tensor.name], [f"{target}/p{step}"]))
                name = f"{target}/p{step}"
            if rank > 1:
                order = [rank - 1, *range(rank - 1)]
                nodes.append(helper.make_node("Transpose", [name], [f"{target}/t{step}"], perm=order))
                name = f"{target}/t{step}"
        nodes.append(helper.make_node("Identity", [name], [target]))

    def finish(self) -> None:
        """Set the nodes."""
        nodes = [*self.before, *self.graph.node, *self.after]
        del self.graph.node[:]
        self.graph.node.extend(nodes)


def attempt(name: str, form: str) -> Outcome:
    """Prune a case in a form."""
    try:
        model = build(cases()[name], form)
        result = graphprune.prune(model, ratio=0.5, align=1, uniform=True, allow_statistical=True)
        onnx.checker.check_model(result.model.proto, full_check=True)
    except InputError as error:
        return Outcome(name, form, "refused", str(error))
    except Exception as error:
        return Outcome(name, form, "failed", f"{type(error).__name__}: {error}")
    assert result.proof is not None
    return Outcome(name, form, "proven", "", sum(len(g.removed) for g in result.plan.groups))


def chosen(whole: bool) -> list[tuple[str, str]]:
    """The runs, each a case and a form: all there are, or one case of each operator and some written out in parts."""
    if whole:
        return [(name, form) for name in cases() for form in FORMS]
    rng = np.random.default_rng(0)
    groups: dict[str, list[str]] = {}
    for name, case in cases().items():
        apart = "_expanded" in name
        groups.setdefault("in parts" if apart else case.model.graph.node[0].op_type, []).append(name)
    parts = groups.pop("in parts", [])
    picked = [(groups[op], 1) for op in sorted(groups)] + [(parts, 40)]
    names = [str(n) for group, count in picked for n in rng.choice(group, min(count, len(group)), replace=False)]
    return [(name, FORMS[2 + k % 2]) for k, name in enumerate(names)]


def survey(chunk: int, chunks: int, whole: bool) -> Iterator[Outcome]:
    """Prune one of several chunks of the runs in a process of its own; where it dies, the next goes on behind."""
    start = 0
    while True:
        given = [str(chunk), str(chunks), str(start), *(["whole"] if whole else [])]
        done = subprocess.run(
            [sys.executable, "-m", "tests.node_cases", *given],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
            check=False,
        )
        told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("{", "["))]
        yield from (Outcome(**entry) for entry in told if isinstance(entry, dict))
        if done.returncode == 0:
            return
        if not told or isinstance(told[-1], dict):  # not while it pruned
            raise RuntimeError(f"the process ended with status {done.returncode} before it began")
        yield Outcome(*told[-1], "crashed", f"the process ended with status {done.returncode}")
        start += sum(isinstance(entry, list) for entry in told)


def main(arguments: Sequence[str]) -> None:
    """Prune a chunk of the runs, from a number on; each run is named before it begins."""
    verify.always = True  # as in all tests
    warnings.simplefilter("ignore")
    chunk, chunks, start = map(int, arguments[:3])
    for run in chosen(whole="whole" in arguments[3:])[chunk::chunks][start:]:
        print(json.dumps(run), flush=True)
        print(json.dumps(asdict(attempt(*run))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
