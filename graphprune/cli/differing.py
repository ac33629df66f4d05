"""The tables of a diff, which ``diff`` prints and a page shows: each row is a name with what was and what is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: what it is about; a node, a tensor or the like.
        facts: what else is to be said of it.
        before, after: what was and what is, in words; None in a table that has neither.
        more: what is to be said of the change.
    """

    name: str
    facts: tuple[str, ...] = ()
    before: str | None = None
    after: str | None = None
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A table.

    Attributes:
        title: what it shows.
        head: of the name, then of facts.
        rows: its rows.
        more: heads of what is said of the change.
        paired: whether there is a before and an after.
        long: whether these are names too, and want lines of their own where there are no columns.
    """

    title: str
    head: tuple[str, ...]
    rows: list[Row]
    more: tuple[str, ...] = ()
    paired: bool = True
    long: bool = False


_COSTS = ("parameters", "parameters", ""), ("macs", "MACs", ""), ("bytes", "bytes", "B"), ("nodes", "nodes", "")


def parts(data: Data, by: str = "x") -> Iterator[Part]:
    """All tables but that of constants, which pages show whole and terminals in part.

    Nodes that pass on what they read are left out, and inputs that were computed and are constants now.

    Args:
        data: the JSON of a diff.
        by: what stands between the sizes of a shape.
    """
    operators = data["operators"]
    rows = [
        Row(e["node"], (e["op"],), shape(e["before"], by), shape(e["after"], by), (e["state"],)) for e in data["widths"]
    ]
    yield Part("Widths", ("node", "operator"), rows, ("values",))
    yield Part("Operators, how many of a type", ("operator",), [_row(e, "op") for e in operators["types"]])
    for title, key in (("Nodes removed", "removed"), ("Nodes added", "added")):
        rows = [Row(e["node"], (e["op"],)) for e in operators[key] if e["op"] != "Identity"]
        yield Part(title, ("node", "operator"), rows, paired=False)
    rows = [_row(e, "node") for e in operators["changed"]]
    yield Part("Nodes that became another operator", ("node",), rows)
    rows = [
        Row(f"{e['node']} input {e['input']}" if e["node"] is not None else "an output of the graph", (),
            e["before"] or "left out", e["after"] or "left out")
        for e in data["wiring"] if not e["folded"]
    ]  # fmt: skip
    yield Part("Inputs that come from elsewhere", ("input",), rows, long=True)
    rows = [_row(e, "node", e["op"], e["name"]) for e in data["attributes"]]
    yield Part("Attributes", ("node", "operator", "attribute"), rows)
    rows = [
        Row(named(e["names"]), (side[:-1],), value(e["before"], by), value(e["after"], by))
        for side in ("inputs", "outputs")
        for e in data["interface"][side]
    ]
    yield Part("Interface", ("name", "side"), rows, long=True)
    rows = [Row(e["domain"] or "ai.onnx", (), told(e["before"]), told(e["after"])) for e in data["opsets"]]
    yield Part("Operator sets", ("domain",), rows)
    yield Part("Metadata", ("key",), [_row(e, "key") for e in data["metadata"]])


def totals(data: Data) -> Iterator[tuple[str, str, int, int]]:
    """Costs of both models where they are known: title, unit, before, after."""
    one, other = data["models"]
    for key, title, unit in _COSTS:
        if one[key] is not None and other[key] is not None:
            yield title, unit, one[key], other[key]


def matched_by(data: Data) -> str:
    """How many nodes were matched by what."""
    by = {how: count for how, count in data["matched"]["by"].items() if count}
    return ", ".join(f"{count} identical" if how == "identical" else f"{count} by {how}" for how, count in by.items())


def counted(data: Data) -> str:
    """How many constants are what."""
    return ", ".join(f"{count} {state}" for state, count in data["weights"]["counts"].items() if count)


def named(names: list[str | None]) -> str:
    """A name, or two where it changed."""
    return " -> ".join(dict.fromkeys(name for name in names if name is not None))


def shape(sizes: list[Any] | None, by: str = "x") -> str:
    """A shape."""
    return "of any shape" if sizes is None else by.join(map(str, sizes)) or "scalar"


def value(found: Data | None, by: str = "x") -> str:
    """Type and shape of an input or an output."""
    return "none" if found is None else f"{found['type']} {shape(found['shape'], by)}"


def told(found: Any) -> str:
    """An attribute or a number, where there is one."""
    return "none" if found is None else str(found)


def _row(entry: Data, name: str, *facts: str) -> Row:
    return Row(str(entry[name]), facts, told(entry["before"]), told(entry["after"]))
