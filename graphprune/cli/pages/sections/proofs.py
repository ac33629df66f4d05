"""Proof and verdict: what was shown, level by level, and what can be done where something fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from graphprune.cli.pages.documents import Data
from graphprune.cli.pages.figures import Section
from graphprune.cli.pages.sections.costs import badge
from graphprune.cli.pages.subjects import Subject
from graphprune.cli.pages.tree import Cell, code, make, table
from graphprune.cli.validate import summary
from graphprune.errors import InputError

_STATES: dict[str, bool | None] = {"passed": True, "failed": False, "skipped": None}
_FAR = "graphprune prune … --calibration YOUR_INPUTS --distill, a smaller target, or --exclude GLOB"
_REMEDIES = {
    "checker": "The file is not valid ONNX. Validate the original too: where that fails as well, export it again with "
    "a newer exporter or opset; where it does not, report it as a fault of graphprune, with the plan.",
    "runtime": "ONNX Runtime does not run it. Where sizes are the reason, give some by --input-shape NAME=1x3x224x224; "
    "where an operator is, a newer onnxruntime may have it.",
    "comparison": f"The outputs are farther off than was allowed. What helps, most first: {_FAR}. Judge on inputs of "
    "yours by --inputs: on generated ones a fitted model is farther off than where it is used.",
    "float16": "Something exceeds float16, at the node that is named. Keep that node in float32 when you convert it; "
    "where the original does so too, it is not pruning's doing.",
    "tensorrt": "TensorRT does not build it. The message says whether it builds the original; where it does not "
    "either, mend the export first. Give shapes by --shapes NAME=MIN:OPT:MAX where they are free.",
    "engine": "The engine does not agree with ONNX Runtime. Without --fp16 it is built in float32; where it agrees "
    "then, precision is the reason.",
    "speed": "It is less fast than was asked for. Prune to speedup=1.5 (prune --target), or to widths that the runtime "
    "likes (--for RUNTIME), and time on the machine where it is to run.",
}
"""What can be done where a level fails."""
_WARNED = (
    f"This is a remark, no failure. What brings outputs nearer, most first: {_FAR}. Judge it on --inputs of yours."
)


def sections(subject: Subject, limit: int) -> Iterator[Section]:
    """The proof, and every verdict."""
    for result in subject.results:
        if result.get("proof") is not None:
            yield _proof(result["proof"], limit)
        if result.get("verdict") is not None:
            yield _verdict(result["verdict"], Path(result.get("output") or "the result").name)
    again = any(result.get("verdict") for result in subject.results)
    for verdict in subject.all("verdict"):
        own = _verdict(verdict, str(verdict["model"]))
        yield replace(own, id="validation", title="Verdict by validate") if again else own


def _proof(proof: Data, limit: int) -> Section:
    lead = make(
        "p",
        badge(True, f"The proof holds: worst relative error {proof['worst'] or 0:.1e}."),
        " The pruned model was run beside the original with the same classes set to zero, before any weight was "
        "fitted: so the removal itself is right, whatever the weights are. It does not say how much accuracy is left.",
    )
    outputs = proof.get("outputs", ())
    rows: list[list[Cell]] = [
        [code(one["name"]), *("" if one[key] is None else f"{one[key]:.1e}" for key in ("max_abs", "max_rel"))]
        for one in outputs[:limit]
    ]
    head = ["output", "largest difference", "largest relative error"]
    parts = [lead, table("Outputs beside the masked original", head, rows, more=len(outputs) - len(rows))]
    sizes = [shapes(one.get("shapes", {})) for one in proof.get("inputs", ())]
    if sizes:
        parts.append(make("p", f"Run at {'; '.join(sizes)}.", class_="faint"))
    return Section("proof", "Proof", tuple(parts))


def shapes(found: Any) -> str:
    """Sizes of inputs in words."""
    return ", ".join(f"{name} = {'×'.join(map(str, sizes))}" for name, sizes in found.items())


def _verdict(verdict: Data, name: str) -> Section:
    passed = bool(verdict["passed"])
    lead = make("p", badge(passed, "passed" if passed else "failed"), " ", code(name), ", level by level:")
    levels = (
        make("li", make("strong", one["name"]), make("span", badge(_STATES[one["status"]], one["status"])), _found(one))
        for one in verdict["levels"]
    )
    own = make("ul", *levels, class_="levels")
    return Section("verdict", "Verdict", (lead, own))


def _found(level: Data) -> Element:
    """What a level found, and a remedy where it is no good."""
    try:
        lines = summary(level["name"], level["details"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"the verdict: level {level['name']!r} is not as 'graphprune validate' writes it") from error
    told = [make("p", line) for line in [*([level["message"]] if level["message"] else []), *lines]]
    remedy = _REMEDIES.get(level["name"]) if level["status"] == "failed" else None
    if remedy is None and level["name"] == "comparison" and "warning" in level["message"]:
        remedy = _WARNED
    if remedy is not None:
        told.append(make("p", make("strong", "What helps: "), remedy, class_="remedy"))
    return make("div", *told, class_="found")
