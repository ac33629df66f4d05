"""Fits: how far operators were from the original before, and are now; and the course of a distillation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from xml.etree.ElementTree import Element

from graphprune.cli.pages import drawn
from graphprune.cli.pages.documents import Data
from graphprune.cli.pages.figures import Section, figure
from graphprune.cli.pages.subjects import Subject
from graphprune.cli.pages.tree import Cell, code, folded, make, table
from graphprune.cli.words import few, plural, set_change

_DRAWN = 24
"""Operators that are drawn."""


def sections(subject: Subject, limit: int) -> Iterator[Section]:
    """Fits and distillation."""
    for result in subject.results:
        if result.get("compensated"):
            yield _fits(result, limit)
        if result.get("distilled"):
            yield _distilled(result["distilled"], limit)


def _fits(result: Data, limit: int) -> Section:
    fits: Sequence[Data] = [one for one in result["compensated"] if one["before"] is not None]
    worst = sorted(sorted(range(len(fits)), key=lambda k: -(fits[k]["after"] or 0.0))[:_DRAWN])
    pairs = [(str(fits[k]["node"]), fits[k]["before"], fits[k]["after"]) for k in worst]
    before, after = (median([one[key] or 0.0 for one in fits] or [0.0]) for key in ("before", "after"))
    lead = make("p", f"{plural(len(fits), 'operator was', 'operators were')} fitted by least squares to what they gave "
                     f"in the original; median error on inputs held out {few(before)}, now {few(after)}.")  # fmt: skip
    label = f"Relative errors of {len(pairs)} fitted operators before and after"
    shown = (
        f" The {len(pairs)} of {len(fits)} that are farthest off now are drawn, in the order of the graph."
        if len(pairs) < len(fits)
        else ""
    )
    picture = drawn.bars(pairs, "relative error of each operator, before (pale) and after", "")
    caption = f"Relative error of what each operator gives, on held-out inputs: before its fit and after.{shown}"
    own = figure("pairs", label, {"rows": pairs, "unit": "relative error", "log": True}, picture, caption)
    rows: list[list[Cell]] = [
        [code(one["node"]), few(one["before"]), few(one["after"]), set_change(one["before"] or 0, one["after"] or 0)]
        for one in fits[:limit]
    ]
    numbers = table("Errors of fits", ["operator", "before", "after", "change"], rows, more=len(fits) - len(rows))
    return Section("fits", "Fits", (lead, *_abroad(result), own, folded("All fits in numbers", numbers)))


def _abroad(result: Data) -> Iterator[Element]:
    places = result.get("abroad") or ()
    if places:
        rows: list[list[Cell]] = [[one["inputs"], few(one["before"]), few(one["after"])] for one in places]
        yield table("Errors of outputs by inputs, before and after the fits", ["inputs", "before", "after"], rows)


def _distilled(found: Data, limit: int) -> Section:
    points = [(float(step), loss) for step, loss in found.get("looks", ()) if loss is not None]
    best = found["best"] if found.get("kept", True) else None
    lost = set_change(found["before"] or 0, found["after"] or 0)
    state = f"the best was step {found['best']}" if best is not None else "nothing was gained, so all stayed as it was"
    trained = plural(len(found.get("weights", ())), "weight", "weights")
    parts = [
        make("p", f"{trained} trained towards the original in {plural(found['steps'], 'step', 'steps')}; held-out loss "
                  f"{few(found['before'])}, now {few(found['after'])} ({lost or 'as before'}); {state}.")
    ]  # fmt: skip
    if len(points) > 1:
        picture = drawn.course(points, "held-out loss over steps", best)
        label = f"Held-out loss over {found['steps']} steps of distillation"
        caption = "Loss on inputs that were held out, each time that it was looked at; the large mark is what was kept."
        parts.append(figure("course", label, {"points": points, "best": best}, picture, caption))
        rows: list[list[Cell]] = [[f"{step:g}", few(loss)] for step, loss in points[:limit]]
        numbers = table("Held-out loss", ["step", "loss"], rows, more=len(points) - len(rows))
        parts.append(folded("The course in numbers", numbers))
    if found.get("losses"):
        ways: list[list[Cell]] = [[code(name), way] for name, way in list(found["losses"].items())[:limit]]
        own = table("What was compared", ["tensor", "by"], ways, words=(1,), more=len(found["losses"]) - len(ways))
        parts.append(folded("What was compared, and how", own))
    return Section("distillation", "Distillation", tuple(parts))
