"""Before and after: what a model costs, whether targets hold, and what was done in how many rounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from graphprune.cli.options import number
from graphprune.cli.pages.documents import Data
from graphprune.cli.pages.figures import Section
from graphprune.cli.pages.subjects import Subject
from graphprune.cli.pages.tree import Cell, Inside, code, make, table
from graphprune.cli.words import few, plural, set_change, time

_COSTS = (("parameters", "Parameters", ""), ("macs", "MACs", ""), ("bytes", "File", "B"))


def sections(subject: Subject, limit: int) -> Iterator[Section]:
    """Before and after."""
    for result in subject.results:
        parts = [make("div", *_tiles(result, subject), class_="tiles")]
        parts += [*_badges(result, subject), *_costs(result), *_targets(result), *_rounds(result)]
        parts += [make("p", f"Note: {note}", class_="note") for note in result.get("notes", ())]
        yield Section("costs", "Before and after", tuple(parts))
        if result.get("blocks"):
            yield Section("blocks", "Blocks that went", (_blocks(result["blocks"], limit),))


def _tiles(result: Data, subject: Subject) -> Iterator[Element]:
    """A tile for each cost: by how much it changed, in large letters, and a bar of what is left."""
    if "before" in result:
        for key, title, unit in _COSTS:
            before, after = result["before"][key], result["after"][key]
            yield _tile(title, before, after, f"{number(before)}{unit} → {number(after)}{unit}")
    found = speed(result, subject)
    if found is not None:
        before, after, ratio = found
        between = f"{ratio['low']:.2f} to {ratio['high']:.2f} times as fast"
        told, much = f"{time(before)} → {time(after)}; {between} at 95 %", f"{ratio['speedup']:.2f}×"
        if ratio["low"] < 1 < ratio["high"]:  # a busy machine, or no difference
            told, much = f"{between} at 95 %: time it where nothing else runs", "not clear"
            ratio = {"speedup": 1.0}
        yield _tile("Speed", max(ratio["speedup"], 1.0), 1.0, told, much)
    if "before" not in result:
        for kind in result["kinds"]:
            told = f"{kind['classes']} → {kind['kept']} in {plural(kind['groups'], 'group', 'groups')}"
            yield _tile(f"{kind['kind'].capitalize()} classes", kind["classes"], kind["kept"], told)


def _tile(title: str, before: float, after: float, told: str, much: str | None = None) -> Element:
    left = min(after / before, 1.0) if before else 1.0
    bar = make("span", make("span", style=f"width:{100 * left:.1f}%"), class_="bar", aria_hidden="true")
    return make(
        "div",
        make("p", title, class_="what"),
        make("p", much or set_change(before, after) or "as before", class_="much"),
        bar,
        make("p", told, class_="told"),
        class_="tile",
    )


def speed(result: Data, subject: Subject) -> tuple[float, float, Data] | None:
    """Seconds before and after, and how many times as fast with its interval; None where it was not timed."""
    for bench in subject.all("bench"):
        names = [one["model"] for one in bench["timings"]]
        wanted = Path(result["output"]).name if result.get("output") else names[-1]
        place = names.index(wanted, 1) if wanted in names[1:] else 0
        if place:
            first, other = bench["timings"][0], bench["timings"][place]
            return first["median"], other["median"], bench["ratios"][place - 1]
    return None


def _badges(result: Data, subject: Subject) -> Iterator[Element]:
    """What was shown of it, each in a word."""
    found: list[tuple[bool, str]] = []
    proof = result.get("proof")
    if proof is not None:
        found.append((True, f"Proof holds, worst relative error {proof['worst'] or 0:.1e}"))
    verdicts = subject.verdicts(result)
    if verdicts:
        passed = all(one["passed"] for one in verdicts)
        found.append((passed, "Validation passed" if passed else "Validation failed"))
    met = result.get("met")
    if met is not None:
        holds = all(one["holds"] for one in met["targets"])
        found.append((holds, "Targets met" if holds else "A target is not met"))
    if found:
        yield make("ul", *(badge(good, told, "li") for good, told in found), class_="badges")


def badge(good: bool | None, told: str, tag: str = "span") -> Element:
    """A state in words, with a sign; None is neither good nor bad."""
    sign, kind = {True: ("✓", "good"), False: ("✗", "bad"), None: ("–", "open")}[good]
    return make(tag, make("span", sign, aria_hidden="true"), f" {told}", class_=f"badge {kind}")


def _costs(result: Data) -> Iterator[Element]:
    rows: list[list[str]] = []
    if "before" in result:
        for key, title, unit in _COSTS:
            before, after = result["before"][key], result["after"][key]
            rows.append([f"{title}{', bytes' if unit else ''}", f"{before:,}", f"{after:,}", set_change(before, after)])
    for kind in result["kinds"]:
        label = f"{kind['kind']} classes in {plural(kind['groups'], 'group', 'groups')}"
        before, after = kind["classes"], kind["kept"]
        rows.append([label, f"{before:,}", f"{after:,}", set_change(before, after)])
    if rows:
        yield table("Costs before and after", ["cost", "before", "after", "change"], rows)


def _targets(result: Data) -> Iterator[Element]:
    met = result.get("met")
    if met is None or not met["targets"]:
        return
    rows: list[list[Any]] = [
        [code(one["target"]), few(one["limit"]), few(one["left"]), badge(holds, "met" if holds else "not met")]
        for one in met["targets"]
        for holds in [bool(one["holds"])]
    ]
    yield table("Targets", ["target", "at most", "is", "holds"], rows, words=(3,))


def _rounds(result: Data) -> Iterator[Element]:
    rounds = result.get("rounds") or ()
    if len(rounds) > 1 and "before" in result:
        before = result["before"]
        rows: list[list[Cell]] = [
            [f"round {place}", f"{one['classes']:,}", number(one["macs"]), set_change(before["macs"], one["macs"]),
             number(one["parameters"]), set_change(before["parameters"], one["parameters"])]
            for place, one in enumerate(rounds, 1)
        ]  # fmt: skip
        head = ["round", "classes that went", "MACs left", "change", "parameters left", "their change"]
        yield table("Rounds", head, rows)


def _blocks(blocks: Any, limit: int) -> Element:
    rows: list[list[Cell]] = [
        [code(one["id"]), code(one["output"]), code(one["by"]), few(one.get("score"))] for one in blocks[:limit]
    ]
    head = ["block", "what it made", "is now", "score"]
    return table("Blocks that went", head, rows, words=(1, 2), more=len(blocks) - len(rows))


def summary(subject: Subject) -> list[Inside]:
    """The line under the title: what became of what."""
    made = [Path(one["output"]).name for one in subject.results if one.get("output")]
    after: list[Inside] = [" → ", code(made[0])] if made else []
    return [code(subject.model), *after]
