"""The zoo pruned by 30 %, beside the peers that take ONNX: ``python tests/benchmarks/bench_zoo.py [NAME ...]``.

Peers, where they are installed (``pip install onnxsim onnx2torch torch-pruning torch``): onnxsim's structured and head
pruning one after the other, and Torch-Pruning on what onnx2torch makes of the file. What a peer gives back must load,
run, and have outputs of the same shapes, else it counts as broken. Parameters are counted alike for all: elements of
the floating point constants that the result holds.
"""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path
from statistics import mean

import numpy as np
import onnx
from onnx import ModelProto
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import graphprune  # noqa: E402
import models  # noqa: E402
from graphprune.analysis.cost import parameters  # noqa: E402
from graphprune.model import Model  # noqa: E402
from tests import helpers  # noqa: E402

SIZES = {"batch": 2, "sequence": 9, "length": 50, "height": 16, "width": 16, "past": 7, "target": 5}


def feeds(model: ModelProto) -> dict[str, np.ndarray]:
    """Inputs for a model of the zoo."""
    found = {}
    weights = {t.name for t in model.graph.initializer}
    for value in model.graph.input:
        if value.name in weights:
            continue
        shape = [d.dim_value or SIZES.get(d.dim_param, 3) for d in value.type.tensor_type.shape.dim]
        integer = value.type.tensor_type.elem_type == onnx.TensorProto.INT64
        rng = np.random.default_rng(0)
        found[value.name] = rng.integers(0, 20, shape) if integer else rng.standard_normal(shape, dtype=np.float32)
    return found


def share(before: ModelProto, after: ModelProto) -> str:
    """Share of parameters removed, if the result still works."""
    shapes = [[np.shape(v) for v in helpers.run(m, feeds(before))] for m in (before, after)]
    if shapes[0] != shapes[1]:
        return "broken: outputs of other shapes"
    return f"{100 * (1 - parameters(Model(after)) / parameters(Model(before))):.1f} %"


def by_onnxsim(model: ModelProto) -> str:
    from onnxsim import pruning

    found = pruning.apply_structured_pruning(model, sparsity=0.3)
    return share(model, pruning.apply_attention_head_pruning(found, sparsity=0.3))


def by_torch_pruning(model: ModelProto) -> str:
    import torch
    import torch_pruning as tp

    _stand_in_for_torchvision()
    import onnx2torch

    module = onnx2torch.convert(model).eval()
    given = tuple(torch.from_numpy(v) for v in feeds(model).values())
    with torch.no_grad():
        expected = module(*given)
    last = [m for m in module.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)][-1:]
    before = sum(p.numel() for p in module.parameters())
    importance = tp.importance.MagnitudeImportance(p=2)
    pruner = tp.pruner.MagnitudePruner(module, given, importance=importance, pruning_ratio=0.3, ignored_layers=last)
    pruner.step()
    with torch.no_grad():
        found = module(*given)
    first = [(t[0] if isinstance(t, tuple | list) else t).shape for t in (expected, found)]
    if first[0] != first[1]:
        return "broken: outputs of other shapes"
    return f"{100 * (1 - sum(p.numel() for p in module.parameters()) / before):.1f} %"


def _stand_in_for_torchvision() -> None:
    """onnx2torch imports it for box operators, which no model here has; it does not load beside every PyTorch."""
    if "torchvision" in sys.modules:
        return
    outer, inner = types.ModuleType("torchvision"), types.ModuleType("torchvision.ops")
    for module in (outer, inner):
        module.__spec__ = ModuleSpec(module.__name__, None)
        sys.modules[module.__name__] = module
    inner.roi_align = None  # type: ignore[attr-defined]
    outer.ops = inner  # type: ignore[attr-defined]


PEERS = {"onnxsim": by_onnxsim, "Torch-Pruning": by_torch_pruning}


def attempt(peer: str, name: str) -> str:
    """What a peer makes of a model, in a process of its own: at most half a minute, and 6 GB."""
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--peer", peer, name], capture_output=True, text=True, timeout=30, check=False
        )
    except subprocess.TimeoutExpired:
        return "fails: takes more than 30 s"
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "fails: killed"


def one_peer(peer: str, name: str) -> str:
    """The job of that process."""
    resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30))
    model = models.export(name)
    try:
        return PEERS[peer](model)
    except ModuleNotFoundError as error:
        return f"not installed: {error.name}"
    except Exception as error:  # whatever a peer does with a model is its result
        return f"fails: {type(error).__name__}"


def main(names: list[str]) -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    table = Table(box=None, pad_edge=False)
    for title in (
        "model", "parameters", "removed", "MACs removed", "proof", "statistical too", "onnxsim", "Torch-Pruning",
    ):  # fmt: skip
        table.add_column(title, justify="left" if title == "model" else "right", no_wrap=True)
    shares: list[float] = []
    worked = dict.fromkeys(PEERS, 0)
    names = list(models.known(*names)) or models.zoo()
    pool = ThreadPoolExecutor(2)
    found = {(peer, name): pool.submit(attempt, peer, name) for name in names for peer in PEERS}
    for name in names:
        model = models.export(name)
        exact = graphprune.prune(model, ratio=0.3, align=1)
        every = graphprune.prune(model, ratio=0.3, align=1, allow_statistical=True)
        removed = [1 - r.after.parameters / r.before.parameters for r in (exact, every)]
        shares.append(removed[0])
        peers = [found[(peer, name)].result() for peer in PEERS]
        for peer, text in zip(worked, peers, strict=True):
            worked[peer] += text.endswith("%") and float(text[:-2]) >= 20
        table.add_row(
            name,
            str(exact.before.parameters),
            f"{100 * removed[0]:.1f} %",
            f"{100 * (1 - exact.after.macs / exact.before.macs):.1f} %",
            f"{exact.proof.worst:.0e}" if exact.proof else "",
            f"{100 * removed[1]:.1f} %",
            *peers,
        )
    console = Console(width=200)
    console.print(table)
    console.print(
        f"{len(shares)} models, {100 * mean(shares):.1f} % removed on average; at least 20 % removed from "
        f"{sum(s >= 0.2 for s in shares)} here, {worked['onnxsim']} by onnxsim, {worked['Torch-Pruning']} by "
        "Torch-Pruning"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        print(one_peer(*sys.argv[2:]))
    else:
        main(sys.argv[1:])
