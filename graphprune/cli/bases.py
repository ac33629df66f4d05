"""What is told of changes of basis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from graphprune.analysis.reasons import Reason

if TYPE_CHECKING:
    from graphprune.passes.results import Result


def bases_data(result: Result) -> dict[str, Any] | None:
    """As it stands in JSON; None where nothing was asked for."""
    if result.centred is None and result.rotated is None:
        return None
    proofs = result.plan.proof or {}
    return {
        name: None
        if found is None
        else {
            "groups": dict(found.groups),
            "stayed": {id: _told(why) for id, why in found.stayed.items()},
            "worst": _worst(proofs.get(proof)),
        }
        for name, found, proof in (("centred", result.centred, "centred"), ("rotated", result.rotated, "bases"))
    }


def _told(why: Reason) -> dict[str, str]:
    return {"reason": str(why), "node": why.node}


def _worst(proof: Mapping[str, Any] | None) -> float | None:
    return None if proof is None else max((one["max_rel"] for one in proof["outputs"]), default=0.0)


def print_bases(out: Console, result: Result, verbose: bool) -> None:
    """What was changed, how far it is from the original, and with ``verbose`` what stayed and why."""
    data = bases_data(result) or {}
    for name, made in (("centred", "without the means of their norms"), ("rotated", "in principal directions")):
        found = data.get(name)
        if found is None or not found["groups"]:
            continue
        count = len(found["groups"])
        proof = "not proven" if found["worst"] is None else f"proof: the same model, worst {found['worst']:.1e}"
        out.print(Text(f"bases: {count} {'group' if count == 1 else 'groups'} {made} ({proof})"))
    for name, what in (("centred", "the means of norms"), ("rotated", "its basis")) if verbose else ():
        for id, why in (data.get(name) or {"stayed": {}})["stayed"].items():
            out.print(Text(f"bases: {id} keeps {what}: {why['reason']}"))
