"""Time: of whole models beside each other, of nodes before and after, and of layers at several widths."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from graphprune.cli.options import number
from graphprune.cli.pages import drawn
from graphprune.cli.pages.documents import Data
from graphprune.cli.pages.figures import Section, figure
from graphprune.cli.pages.sections.proofs import shapes
from graphprune.cli.pages.subjects import Subject
from graphprune.cli.pages.tree import Cell, code, folded, make, table
from graphprune.cli.words import plural, set_change, share, time
from graphprune.verdict.latency import table as profiles

_OPERATORS = 10
_DRAWN = 24
"""Nodes that are drawn: those that take most time."""
_OWN = re.compile(r"_token_\d+$")
"""How ONNX Runtime ends the names of nodes of its own, by a number that is another one in every model."""


def sections(subject: Subject, limit: int) -> Iterator[Section]:
    """Benchmarks, then profiles."""
    for bench in subject.all("bench"):
        yield _bench(bench, limit)
    for profile in subject.all("profile"):
        yield _profile(profile, limit)


def _bench(bench: Data, limit: int) -> Section:
    threads = (
        plural(bench["threads"], "thread", "threads") if bench["threads"] else "as many threads as the runtime likes"
    )
    lead = make(
        "p",
        f"{plural(bench['rounds'], 'round', 'rounds')}, in turn, at {shapes(bench['shapes'])}; {bench['provider']}, "
        f"{threads}. Times are of the machine that this ran on.",
    )
    held = any(one["peak_bytes"] is not None for one in bench["timings"])
    rows: list[list[Cell]] = []
    for place, one in enumerate(bench["timings"]):
        ratio = bench["ratios"][place - 1] if place else None
        faster = ["", ""] if ratio is None else [f"{ratio['speedup']:.2f}", _between(ratio, "{:.2f}".format)]
        peak = "" if one["peak_bytes"] is None else f"{number(one['peak_bytes'])}B"
        rows.append([code(one["model"]), time(one["median"]), _between(one, time), *faster, *[peak] * held])
    head = ["model", "median", "quartiles", "times as fast", "95 % interval", *["memory"] * held]
    parts = [lead, table("Time of one run", head, rows)]
    known = [(one["model"], one["layers"]) for one in bench["timings"] if one.get("layers")]
    if known:
        parts += _nodes(known[0], known[-1] if len(known) > 1 else None, limit)
    return Section("latency", "Latency", tuple(parts))


def _between(one: Data, words: Callable[[float], str]) -> str:
    return f"{words(one['low'])} to {words(one['high'])}"


def _nodes(first: tuple[str, Any], other: tuple[str, Any] | None, limit: int) -> Iterator[Element]:
    """Time of each node, of the first model and of the last."""
    before, kinds = _summed(first[1])
    after, more = _summed(other[1]) if other is not None else ({}, {})
    names = list(dict.fromkeys([*before, *after]))
    names.sort(key=lambda name: -max(before.get(name, 0.0), after.get(name, 0.0)))
    operators = {**more, **kinds}
    whole = [sum(before.values()), sum(after.values())]
    rows = [(name, before.get(name), after.get(name) if other is not None else None) for name in names]
    label = f"Time of the {min(len(rows), _DRAWN)} nodes that take most, before and after"
    picture = drawn.bars(rows[:_DRAWN], "time of each node, before (pale) and after", "µs", 1e6)
    shown = [[name, b, a] for name, b, a in rows[:_DRAWN]]
    caption = (
        f"By ONNX Runtime's own profile, in microseconds: the {min(len(rows), _DRAWN)} of {len(rows)} nodes that take "
        f"most. In all {time(whole[0])}{f', now {time(whole[1])}' if other is not None else ''}. A dash stands where "
        "the runtime has no node of that name: it fuses and lays out each model as it likes."
    )
    yield _operators(before, after, operators)
    yield figure("pairs", label, {"rows": shown, "unit": "µs", "factor": 1e6}, picture, caption)
    lines: list[list[Cell]] = [
        [code(name), operators[name], _time(b), _time(a), share(_part(b, whole[0])), share(_part(a, whole[1]))]
        for name, b, a in rows[:limit]
    ]
    head = ["node", "operator", "before", "after", "share before", "share after"]
    numbers = table("Time by node", head, lines, words=(1,), more=len(rows) - len(lines))
    yield folded("All nodes in numbers", numbers)


def _operators(before: dict[str, float], after: dict[str, float], operators: dict[str, str]) -> Element:
    """The same by operator: what is alike in both models even where the runtime calls nodes otherwise."""
    found: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for place, own in enumerate((before, after)):
        for name, seconds in own.items():
            found[operators[name]][place] += seconds
    ranked = sorted(found.items(), key=lambda one: -max(one[1]))[:_OPERATORS]
    rows = [[kind, time(b), time(a) if after else "", set_change(b, a) if after else ""] for kind, (b, a) in ranked]
    return table("Time by operator", ["operator", "before", "after", "change"], rows, more=len(found) - len(rows))


def _summed(nodes: Sequence[Data]) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds and operators by node; nodes of the runtime's own are one for each operator."""
    found: defaultdict[str, float] = defaultdict(float)
    kinds: dict[str, str] = {}
    for one in nodes:
        name = _OWN.sub(" (of the runtime)", one["node"])
        found[name] += one["seconds"]
        kinds[name] = one["operator"]
    return dict(found), kinds


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else time(seconds)


def _part(seconds: float | None, whole: float) -> float | None:
    return None if seconds is None or not whole else seconds / whole


def _profile(data: Data, limit: int) -> Section:
    """Layers at their full widths and at half of them."""
    found = profiles.read(data, "the profile")
    rows = []
    for layer in sorted(found.layers, key=lambda one: -one.whole):
        half = float(layer.at([widths[-1] / 2 for widths in layer.widths])) if layer.axes else None
        rows.append((layer.node, layer.whole, half, " ".join(dict.fromkeys(layer.operators))))
    told = found.measured
    where = ", ".join(str(told[key]) for key in ("runtime", "provider", "device") if key in told)
    each = f"The whole model takes {time(found.total)}, its layers one by one {time(found.covered)}"
    lead = make("p", f"{each}; {where}.")
    label = f"Time of the {min(len(rows), _DRAWN)} layers that take most, at full and at half widths"
    pairs = [row[:3] for row in rows[:_DRAWN]]
    picture = drawn.bars(pairs, "time of each layer, full (pale) and half widths", "µs", 1e6)
    shown = [list(pair) for pair in pairs]
    names = {"unit": "µs", "factor": 1e6, "was": "full widths", "now": "half widths"}
    caption = "In microseconds: at full widths, and at half of them, where a layer's width can change at all."
    own = figure("pairs", label, {"rows": shown, **names}, picture, caption)
    lines: list[list[Cell]] = [
        [code(node), words, time(whole), _time(half)] for node, whole, half, words in rows[:limit]
    ]
    head = ["layer", "operators", "full widths", "half widths"]
    numbers = table("Time by layer", head, lines, words=(1,), more=len(rows) - len(lines))
    return Section("profile", "Time by width", (lead, own, folded("All layers in numbers", numbers)))
