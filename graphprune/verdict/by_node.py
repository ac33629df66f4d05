"""How long each node takes, by ONNX Runtime's own profile of a few runs: cheap, and of the model as it is executed.

Nodes are those that the runtime made of the graph: what it fuses is one, what it folds is none. Profiling costs some
microseconds a node, so times are for looking at shares; ``timing`` tells how fast a model is.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime as ort

from graphprune.model import Model
from graphprune.run.runtime import Feeds, run, session

_KERNEL = "_kernel_time"
ROUNDS, WARMUP = 10, 2


@dataclass(frozen=True)
class NodeTime:
    """Time of one node.

    Attributes:
        node: its name, as the runtime has it.
        operator: its type, as the runtime has it.
        seconds: median over runs.
    """

    node: str
    operator: str
    seconds: float


def by_node(model: Model, feeds: Feeds, threads: int = 0, provider: str = "CPUExecutionProvider") -> list[NodeTime]:
    """Time each node of a model, with all optimisations, in the order of execution.

    Args:
        model: the model.
        feeds: its inputs.
        threads: within one operator; 0 leaves it to the runtime.
        provider: of ONNX Runtime.
    """
    level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "profile"
        with session(model, level, threads=threads, provider=provider, profile=start) as active:
            for _ in range(WARMUP + ROUNDS):
                run(active, feeds)
            events = json.loads(Path(active.end_profiling()).read_text())
    return medians(events)


def medians(events: list[dict[str, Any]]) -> list[NodeTime]:
    """What events of a profile say: each time that a node ran is one, in microseconds."""
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            operator = event.get("args", {}).get("op_name", "")
            found[event["name"].removesuffix(_KERNEL), operator].append(float(event["dur"]))
    # a node in the body of a loop runs many times in one run of the model: their sum counts
    return [
        NodeTime(node, operator, median(_each_run(times)[WARMUP:]) / 1e6) for (node, operator), times in found.items()
    ]


def _each_run(times: list[float]) -> list[float]:
    runs = WARMUP + ROUNDS
    each = max(len(times) // runs, 1)
    sums = [sum(times[k : k + each]) for k in range(0, each * runs, each)]
    return sums if len(times) >= runs else [*[0.0] * WARMUP, sum(times) / runs]
