"""JSON of every kind that a page shows, as commands write it, with names as hostile as a file can hold."""

from __future__ import annotations

import re
from typing import Any

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x00\ud800&amp;\"'"
"""What would be markup, a script, an attribute, or no text at all, if it were not told as text."""

COST = {"parameters": 1000, "macs": 5000, "bytes": 4000}


def result(name: str = HOSTILE) -> dict[str, Any]:
    """What ``prune`` writes, with all that a page shows of it."""
    group = f"{name}:1"
    return {
        "model": name,
        "output": f"{name}.pruned",
        "before": COST,
        "after": {key: value // 2 for key, value in COST.items()},
        "kinds": [{"kind": "channel", "groups": 1, "classes": 16, "kept": 8}],
        "blocks": [{"id": name, "kind": "branch", "output": name, "by": name, "exit": name, "score": 0.5}],
        "proof": {
            "worst": 1e-7,
            "inputs": [{"seed": 0, "shapes": {name: [1, 3]}}],
            "outputs": [{"name": name, "max_abs": 1e-7, "max_rel": 1e-7}],
        },
        "rounds": [{"classes": 4, "groups": 1, "macs": 4000, "parameters": 800, "proof": 1e-7}] * 2,
        "untouched": [{"group": group, "reason": f"node {name} is fixed"}],
        "choices": [
            {
                "round": 1, "criterion": "obs", "cost": "macs", "whole": 5000.0, "limit": 2500.0, "left": 2500.0,
                "worth": 0.5,
                "groups": [{"id": group, "kind": "channel", "size": 16, "removed": 8, "cause": "dear", "why": name,
                            "error": 0.1, "saved": 0.5}],
            }
        ],
        "layers": [
            {"node": f"{name}{k}", "op": "Conv", "weight": name, "shape": [[16, 8, 3, 3], [8, 8, 3, 3]],
             "groups": [group], "macs": [900, 450], "width": [16, 8], "reads": [8, 8], "by": group if k else None}
            for k in range(3)
        ],
        "compensated": [{"node": name, "weight": name, "before": 0.5, "after": 0.001}],
        "abroad": [{"inputs": "generated", "before": 0.5, "after": 0.1}],
        "distilled": {"kept": True, "steps": 20, "best": 10, "rate": 0.001, "before": 0.5, "after": 0.25,
                      "looks": [[0, 0.5], [10, 0.25], [20, None]], "weights": [name], "losses": {name: "kl"}},
        "met": {"targets": [{"target": "macs=0.5", "kind": "macs", "limit": 2500, "left": 2500, "holds": True}],
                "tries": [], "chosen": 0, "missed": ""},
        "sparse": {"pattern": "2:4", "kinds": [], "dense": [{"node": name, "weight": name, "reason": name}],
                   "weights": [{"name": name, "nodes": [name], "method": "magnitude", "kept_magnitude": 0.7}]},
        "notes": [f"look at {name}"],
        "recipe": f'format = "graphprune-recipe/1"\n# {name}\n',
        "verdict": verdict(name),
        "seconds": {"load": 0.1},
    }  # fmt: skip


def verdict(name: str = HOSTILE) -> dict[str, Any]:
    """A verdict that fails."""
    outputs = {name: dict.fromkeys(("max_abs", "mean_abs", "max_rel", "mean_rel", "cosine", "psnr", "top1"), 0.5)}
    levels = [("checker", "passed", {}), ("comparison", "failed", {"outputs": outputs}), ("speed", "skipped", {})]
    return {
        "format": "graphprune-verdict/1",
        "model": name,
        "passed": False,
        "levels": [
            {"name": level, "status": status, "message": name, "details": details, "seconds": 0.1}
            for level, status, details in levels
        ],
    }


def bench(name: str = HOSTILE) -> dict[str, Any]:
    """Two models, node by node."""
    layers = [{"node": f"{name}{k}", "operator": name, "seconds": 1e-4 * (k + 1)} for k in range(3)]
    times = {"median": 0.01, "low": 0.009, "high": 0.011, "peak_bytes": 1000}
    return {
        "format": "graphprune-bench/1", "shapes": {name: [1, 3]}, "threads": 0, "provider": "CPUExecutionProvider",
        "rounds": 5, "timings": [{"model": own, **times, "layers": layers} for own in (name, f"{name}.pruned")],
        "ratios": [{"model": f"{name}.pruned", "speedup": 1.5, "low": 1.4, "high": 1.6}],
    }  # fmt: skip


def profile(name: str = HOSTILE) -> dict[str, Any]:
    """A table of latency."""
    axes = [{"tensor": name, "axis": 1, "widths": [4, 8]}]
    return {
        "format": "graphprune-profile/1", "model": {"file": name, "sha256": "0" * 64},
        "measured": {"runtime": name, "provider": "CPUExecutionProvider", "shapes": {name: [1]}, "threads": 0,
                     "device": name},
        "total": 0.01, "layers": [{"node": name, "operators": [name], "axes": axes, "seconds": [0.001, 0.002]}],
        "left_out": [],
    }  # fmt: skip


def sensitivity(name: str = HOSTILE) -> dict[str, Any]:
    """A study of one set of groups."""
    level = {"level": 0.25, "removed": 2, "share": 0.25, "score": 0.9, "drop": 0.1, "macs_saved": 10,
             "parameters_saved": 4}  # fmt: skip
    broken = {**level, "level": 0.5, "removed": 4, "score": None, "drop": None}
    return {
        "format": "graphprune-sensitivity/1", "graphprune": "0", "metric": name, "original": 1.0, "criterion": "obs",
        "model": {"file": name, "sha256": "0" * 64, "macs": 100, "parameters": 40}, "seed": 0, "levels": [0.25, 0.5],
        "missing": 0, "notes": [name], "untouched": [],
        "sets": [{"groups": [f"{name}:1", "b"], "kind": "channel", "size": 8, "free": 8, "price": None,
                  "order": [0, 1], "levels": [level, broken]}],
    }  # fmt: skip


def sweep(name: str = HOSTILE) -> dict[str, Any]:
    """Runs of two recipes, one that cannot be met."""
    point = {"recipe": name, "asked": f"macs=0.5{name}", "macs": 50, "parameters": 20, "bytes": 200, "score": 0.9,
             "sha256": "0" * 64, "drop": 0.1, "front": True, "file": None, "reason": None, "notes": [],
             "latency": {"seconds": 0.1, "speedup": 2.0, "low": 1.9, "high": 2.1, "front": True}}  # fmt: skip
    empty = dict.fromkeys(("macs", "parameters", "bytes", "score", "sha256", "drop", "latency"))
    lost = {**point, **empty, "recipe": "b", "front": False, "reason": name}
    timed = {"provider": "CPUExecutionProvider", "threads": 1, "rounds": 4, "shapes": {"x": [1]}, "seconds": 0.2}
    return {
        "format": "graphprune-sweep/1", "graphprune": "0", "metric": name, "original": 1.0, "seed": 0, "missing": 0,
        "model": {"file": name, "sha256": "0" * 64, "macs": 100, "parameters": 40, "bytes": 400}, "notes": [name],
        "latency": timed, "points": [point, lost],
    }  # fmt: skip


def inspection(name: str = HOSTILE) -> dict[str, Any]:
    """What ``inspect`` writes."""
    group = {"id": f"{name}:1", "kind": "channel", "size": 8, "statistical": False, "parameters": 9, "macs": 9,
             "reasons": [{"reason": name}]}  # fmt: skip
    return {
        "model": name, "groups": [group], "fixed": [group], "witness": {name: [1]}, "owned": {"exact": 9},
        "parameters": 9, "macs": 9, "bytes": 9, "blocks": [{"id": name, "nodes": [name], "parameters": 1, "macs": 1,
                                                           "by": name}],
    }  # fmt: skip


def sparsity(name: str = HOSTILE) -> dict[str, Any]:
    """What ``inspect --sparsity`` writes."""
    layer = {"node": name, "follows": False, "kept_magnitude": 0.7, "reasons": [name]}
    return {"model": name, "pattern": "2:4", "layers": [layer]}


def diff(name: str = HOSTILE) -> dict[str, Any]:
    """Two models of which everything differs."""
    node, both = {"node": name, "op": "Conv", "in": ""}, {"before": name, "after": name}
    models = [{"file": name, "sha256": "", "nodes": 9, **COST} for _ in range(2)]
    end = {"names": [name, name], "before": None, "after": {"type": name, "shape": [name, 3]}}
    constant = {
        "names": [name, None], "kind": "weight", "shapes": [[16, 8], None], "types": [name, None], "zeros": [0.5, None],
        "values": [None, None], "state": "removed", "relative": None, "largest": None, "elements": None, "node": name,
        "op": "Conv", "input": 1,
    }  # fmt: skip
    by = {"identical": 4, "weights": 1, "name": 1, "structure": 2, "order": 0}
    return {
        "format": "graphprune-diff/1", "graphprune": "0", "models": models, "same": False, "notes": [f"of {name}"],
        "matched": {"nodes": 8, "by": by},
        "widths": [{"node": name, "op": "Conv", "weight": name, "before": [16], "after": [8], "state": "cut"}],
        "operators": {"types": [{"op": "Conv", "before": 3, "after": 2}], "added": [node], "removed": [node],
                      "changed": [{"node": name, "now": name, **both}], "renamed": [[name, name]]},
        "wiring": [{"node": None, "input": None, "folded": False, **both}],
        "attributes": [{"node": name, "op": "Conv", "name": name, **both}],
        "weights": {"counts": {"removed": 1}, "entries": [constant]},
        "interface": {"inputs": [end], "outputs": [end]},
        "opsets": [{"domain": "", "before": 17, "after": 18}],
        "metadata": [{"key": name, **both}],
    }  # fmt: skip


def plan(name: str = HOSTILE) -> dict[str, Any]:
    """A plan, which holds much of what the result says."""
    shown = result(name)
    group = {"id": f"{name}:1", "kind": "channel", "size": 16, "statistical": False, "removed": [0, 1]}
    distilled = {"steps": 20, "best": 10, "before": 0.5, "after": 0.25, "weights": [name]}
    file = re.sub(r"[\x00-\x1f\x7f-\x9f/\\]", "_", name)  # of a file plans take no path
    return {
        "format": "graphprune-plan/1", "model": {"file": file, "sha256": "0" * 64, "witness": {}}, "groups": [group],
        "slices": [], "distilled": distilled, "blocks": [{"id": name, "kind": "branch", "output": name, "by": name,
        "exit": name}], **{key: shown[key] for key in ("proof", "choices", "compensated")},
    }  # fmt: skip


ALL = (plan, result, verdict, bench, profile, sensitivity, sweep, diff, inspection, sparsity)
SECTIONS = {
    "result": [
        "costs",
        "blocks",
        "layers",
        "proof",
        "verdict",
        "fits",
        "distillation",
        "choices",
        "sparsity",
        "recipe",
    ],
    "plan": ["costs", "blocks", "layers", "proof", "fits", "distillation", "choices", "recipe"],
    "verdict": ["verdict"],
    "diff": ["differences"],
    "bench": ["latency"],
    "profile": ["profile"],
    "sensitivity": ["sensitivity"],
    "sweep": ["sweep"],
    "inspection": ["inspection"],
    "sparsity": ["sparsity"],
}
"""What a page must have of each kind."""
