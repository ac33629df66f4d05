"""What a program that uses the package looks like to a type checker: ``.ci/run`` checks it beside the wheel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx

import graphprune
from graphprune.gradients import vjp
from graphprune.passes.choose.criteria import Given
from graphprune.passes.contract import Pass
from graphprune.passes.state import State
from graphprune.rules import Line, NodeView, bind, register
from graphprune.verdict import latency


def shrink(model: onnx.ModelProto) -> tuple[onnx.ModelProto, float]:
    """Prune in memory, and judge."""
    inputs = {"x": np.zeros((16, 3, 32, 32), np.float32)}
    result = graphprune.prune(model, ratio=0.3, calibration=inputs, steering=graphprune.Steering(keep_first=1))
    verdict: graphprune.Verdict = graphprune.validate(result.proto, model, graphprune.Checks(min_cosine=0.9))
    if not verdict.passed:
        raise graphprune.VerdictError(str(verdict.failures))
    groups: list[str] = [group.id for group in graphprune.analyze(model).groups]
    share: float = result.after.parameters / result.before.parameters
    return result.proto, share if groups else 1.0


def studied(path: str) -> list[float | None]:
    """Studies, tables and gradients."""
    found: graphprune.Sensitivity = graphprune.sensitivity(path, calibration="generated")
    swept: graphprune.Sweep = graphprune.sweep(path, targets=["macs=0.5"], calibration="generated")
    whole: list[float] = [layer.whole for layer in latency.load("table.json").layers]
    backward: onnx.ModelProto = vjp(onnx.load(path))
    return [point.drop for curve in found.curves for point in curve.points][: len(swept.points) + len(whole)] or [
        float(len(backward.graph.node))
    ]


def last_first(given: Given, group: graphprune.Group) -> np.ndarray:
    """A criterion."""
    return np.arange(group.size, 0, -1, dtype=float)


def scaled_add(node: NodeView) -> object:
    """A rule."""
    return bind(Line("... c, ... c, c -> ... c", zero="0+1*2"), node.inputs, node.outputs)


@dataclass(frozen=True)
class Told(Pass):
    """A pass."""

    name: ClassVar[str] = "told"

    def call(self, state: State) -> State:
        """Say something."""
        return state.noting("told")


register("Never", lambda node: bind(Line("a -> a"), node.inputs, node.outputs), domain="com.example")
