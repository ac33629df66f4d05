"""What TensorRT made of a model: its compiled layers, and which operators of the file each holds together.

Two accounts tell it: the engine inspector's JSON, where a GPU lets an engine be opened, and the builder's verbose log,
which TensorRT for RTX writes on any machine. Both name a layer's operators in its metadata, as ``[ONNX Layer: name]``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_LOGGED = re.compile(
    r"^ *Name: (?P<name>.*?), LayerType: (?P<type>\w+), .*?TacticName: (?P<tactic>[^,]*), (?P<rest>.*)$"
)
_MEMORY = {
    "weights_bytes": re.compile(r"Total Weights Memory: (\d+) bytes"),
    "activation_bytes": re.compile(r"Total Activation Memory: (\d+) bytes"),
}
_SPARSITY = re.compile(r"\(Sparsity\)[^:\n]*?(eligible|picked|[Cc]hose)[^:\n]*:? *(.*)")


@dataclass(frozen=True, slots=True)
class Kernel:
    """One compiled layer.

    Attributes:
        name: TensorRT's name for it.
        type: TensorRT's name for what it is (``gemm``, ``correlation``, ``kgen``).
        nodes: names of the ONNX nodes that it computes, wholly or in part.
        sparse: whether it reads 2:4 weights by a sparse tactic; None where the account does not tell.
    """

    name: str
    type: str
    nodes: frozenset[str]
    sparse: bool | None = None


def from_log(log: str) -> list[Kernel]:
    """Compiled layers, as the builder's verbose log lists them; empty where it does not."""
    found = []
    for line in log.splitlines():
        match = _LOGGED.match(line)
        if match:
            found.append(Kernel(match["name"], match["type"], frozenset(_NODE.findall(match["rest"]))))
    return found


def from_inspector(data: dict[str, Any]) -> list[Kernel]:
    """Compiled layers, as the engine inspector tells them; an engine without details gives names alone."""
    found = []
    for layer in data.get("Layers", []):
        if isinstance(layer, str):
            found.append(Kernel(layer, "", frozenset()))
            continue
        sparse = layer.get("HasSparseWeights")
        tactic = str(layer.get("TacticName", ""))
        picked = None if sparse is None else bool(sparse) and "sparse" in tactic.lower()
        nodes = frozenset(_NODE.findall(str(layer.get("Metadata", ""))))
        found.append(Kernel(str(layer.get("Name", "")), str(layer.get("LayerType", "")), nodes, picked))
    return found


def memory(log: str) -> dict[str, int]:
    """Bytes of weights and of activations, as the builder's log says."""
    found = {}
    for key, pattern in _MEMORY.items():
        numbers = pattern.findall(log)
        if numbers:
            found[key] = sum(map(int, numbers))
    return found


def sparsity(log: str) -> dict[str, list[str]]:
    """Layers that the builder's log calls eligible for sparse tactics, and those for which it chose one."""
    found: dict[str, list[str]] = {}
    for word, names in _SPARSITY.findall(log):
        key = "eligible" if word == "eligible" else "picked"
        found[key] = [n.strip() for n in names.split(",") if n.strip()]
    return found


def by_type(kernels: Iterable[Kernel]) -> dict[str, int]:
    """How many compiled layers there are of each type, most first."""
    return dict(Counter(k.type or "layer" for k in kernels).most_common())


@dataclass(frozen=True, slots=True)
class Fusion:
    """Whether what was compiled into one layer still is.

    Attributes:
        groups: sets of nodes that one layer of the original computes, of those that both models have.
        parted: those that no one layer of the other model holds together.
    """

    groups: int
    parted: tuple[tuple[str, ...], ...]


def fusion(original: Sequence[Kernel], other: Sequence[Kernel]) -> Fusion:
    """Compare which nodes are compiled together.

    Nodes that the other model does not have, because pruning took them, say nothing.
    """
    there = frozenset(n for k in other for n in k.nodes)
    groups = list(dict.fromkeys(shared for k in original if len(shared := k.nodes & there) > 1))
    holding: dict[str, set[int]] = {}
    for i, kernel in enumerate(other):
        for node in kernel.nodes:
            holding.setdefault(node, set()).add(i)
    parted = [tuple(sorted(g)) for g in groups if not set.intersection(*(holding[n] for n in g))]
    return Fusion(len(groups), tuple(parted))
