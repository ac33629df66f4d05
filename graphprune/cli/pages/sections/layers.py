"""The strip of layers: how wide each was and is, by which group, and what it lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from graphprune.cli.options import number
from graphprune.cli.pages import drawn
from graphprune.cli.pages.documents import Data
from graphprune.cli.pages.figures import Section, figure
from graphprune.cli.pages.subjects import Subject
from graphprune.cli.pages.tree import Cell, code, folded, make, table
from graphprune.cli.words import pair, plural, set_change

COLOURS = 10
_ALONE = -1


def sections(subject: Subject, limit: int) -> Iterator[Section]:
    """Layers where they are known; of a plan alone its groups."""
    for result in subject.results:
        if result.get("layers"):
            yield _layers(result["layers"], limit)
        elif result.get("groups"):
            yield _groups(result["groups"], limit)


def _layers(layers: Sequence[Data], limit: int) -> Section:
    colours = _colours(layers)
    weights = [[prod(shape) for shape in one["shape"]] for one in layers]
    chosen = sorted(range(len(layers)), key=lambda k: -weights[k][0])[: 2 * limit]
    rows = []
    for k in sorted(chosen):
        one, (before, after) = layers[k], weights[k]
        rows.append([
            one["node"], one["op"], *one["width"], *one["reads"], before, after, *one["macs"],
            colours.get(one["by"] or "", _ALONE), one["by"] or "",
        ])  # fmt: skip
    touched = sum(before != after for before, after in weights)
    picture = drawn.columns(
        [(_title(row), row[2], row[3], 1 - row[7] / row[6] if row[6] else 0.0, _kind(row[10])) for row in rows],
        "width of each layer, before (pale) and after (root scale)", "share of its weights that went",
    )  # fmt: skip
    label = f"Widths of {len(rows)} layers before and after, and what share of its weights each lost"
    left_out = f" The {len(rows)} of {len(layers)} with most weights are drawn." if len(rows) < len(layers) else ""
    caption = (
        "Above the line: width before (pale) and after (solid), on a root scale. Below: the share of its weights that "
        "a layer lost, by narrower outputs and inputs. Layers of one colour share a group, so that they are cut "
        f"together; grey ones stand alone, or in none.{left_out}"
    )
    lead = make("p", f"{plural(len(layers), 'layer', 'layers')} multiply by weights, in the order of the graph; "
                     f"{touched} lost some.")  # fmt: skip
    drawing = figure("strip", label, {"rows": rows}, picture, caption)
    return Section("layers", "Layers", (lead, drawing, folded("All layers in numbers", _table(layers, limit))))


def _colours(layers: Sequence[Data]) -> dict[str, int]:
    """A colour for each group that makes several layers, in the order of the graph."""
    counts = Counter(one["by"] for one in layers if one["by"])
    shared = [group for group in dict.fromkeys(one["by"] for one in layers) if group and counts[group] > 1]
    return {group: place % COLOURS for place, group in enumerate(shared)}


def _kind(colour: int) -> str:
    return "alone" if colour == _ALONE else f"g{colour}"


def _title(row: Sequence[Any]) -> str:
    width, weights = pair(row[2], row[3]), pair(row[6], row[7])
    return f"{row[0]} ({row[1]}): width {width}, weights {weights}, group {row[11] or 'none'}"


def _table(layers: Sequence[Data], limit: int) -> Any:
    rows: list[list[Cell]] = [
        [
            code(one["node"]), one["op"], pair(*one["width"]), pair(*one["reads"]),
            pair(*("×".join(map(str, shape)) or "one" for shape in one["shape"])),
            set_change(*(prod(shape) for shape in one["shape"])),
            pair(*map(number, one["macs"])), code(one["by"]) if one["by"] else "none",
        ]
        for one in layers[:limit]
    ]  # fmt: skip
    head = ["layer", "operator", "width", "reads", "weight", "its elements", "MACs", "group of its width"]
    return table("Layers before and after", head, rows, words=(1, 7), more=len(layers) - len(rows))


def _groups(groups: Sequence[Any], limit: int) -> Section:
    rows = [[id, kind, size, size - gone, 0, 0, size, size - gone, 0, 0, _ALONE, id] for id, kind, size, gone in groups]
    shown = sorted(sorted(range(len(rows)), key=lambda k: -rows[k][2])[: 2 * limit])
    rows = [rows[k] for k in shown]
    columns = [(f"{r[0]}: {r[2]} → {r[3]} {r[1]} classes", r[2], r[3], 1 - r[3] / r[2], "alone") for r in rows]
    picture = drawn.columns(columns, "classes of each group, before (pale) and after (root scale)", "share that went")
    label = f"Classes of {len(rows)} groups before and after"
    caption = (
        "Above the line: classes before (pale) and after (solid), on a root scale. Below: the share that went. A plan "
        "knows groups, not layers: give the JSON of the run too (--json FILE of prune) to see these."
    )
    lines: list[list[Cell]] = [[code(id), kind, f"{size:,}", f"{size - gone:,}", set_change(size, size - gone)]
             for id, kind, size, gone in groups[:limit]]  # fmt: skip
    head = ["group", "kind", "classes before", "after", "change"]
    own = table("Groups that lost classes", head, lines, (1,), len(groups) - len(lines))
    numbers = folded("All groups in numbers", own)
    return Section("layers", "Groups", (figure("strip", label, {"rows": rows}, picture, caption), numbers))
