"""A diff as one page of HTML: no script, nothing from elsewhere, and names of a model are only ever text."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from graphprune.cli.options import change, number

_STYLE = """
:root{color-scheme:light dark;--line:#767676}
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:0 auto;padding:1rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;min-width:20rem}
caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0;border-bottom:1px solid var(--line)}
td.n{text-align:right;font-variant-numeric:tabular-nums}
code{font:14px ui-monospace,monospace;overflow-wrap:anywhere}
"""


def page(data: dict[str, Any]) -> str:
    """The page of a diff.

    Args:
        data: its JSON, as ``diff.schema.json`` has it.
    """
    one, other = (escape(model["file"]) for model in data["models"])
    body = "".join(section(*part) for part in _sections(data))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{one} and {other}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>What changed from <code>{one}</code> to <code>{other}</code></h1>"
        f"<p>{escape(_summary(data))}</p>{body}</main></body></html>\n"
    )


def section(title: str, columns: Iterable[str], rows: list[Iterable[Any]]) -> str:
    """A heading and a table; nothing where it has no rows."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<section><h2>{escape(title)}</h2><div class="wide" tabindex="0" role="region" aria-label="{escape(title)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div></section>"
    )


def _cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="n">{value:.4g}</td>' if isinstance(value, float) else f'<td class="n">{value}</td>'
    return "<td></td>" if value is None else f"<td><code>{escape(str(value))}</code></td>"


def _summary(data: dict[str, Any]) -> str:
    same = "Nothing differs but names and metadata. " if data["same"] else ""
    constants = ", ".join(f"{count} {state}" for state, count in data["weights"]["counts"].items() if count)
    return f"{same}{data['matched']['nodes']} nodes are in both ({matched_by(data)}). Constants: {constants}."


def matched_by(data: dict[str, Any]) -> str:
    """How many nodes were matched by what, in words."""
    by = {how: count for how, count in data["matched"]["by"].items() if count}
    return ", ".join(f"{count} identical" if how == "identical" else f"{count} by {how}" for how, count in by.items())


def _sections(data: dict[str, Any]) -> list[tuple[str, list[str], list[Iterable[Any]]]]:
    one, other = data["models"]
    operators = data["operators"]
    both = ["before", "after"]
    totals: list[Iterable[Any]] = [
        ("MACs" if key == "macs" else key, number(one[key]), number(other[key]), change(one[key], other[key]))
        for key in ("parameters", "macs", "bytes", "nodes")
        if one[key] is not None and other[key] is not None
    ]
    return [
        ("Totals", ["", *both, "change"], totals),
        ("Widths", ["node", "operator", *both, "values"],
         [(e["node"], e["op"], _by(e["before"]), _by(e["after"]), e["state"]) for e in data["widths"]]),
        ("Operators of a type", ["operator", *both], [tuple(e.values()) for e in operators["types"]]),
        ("Nodes removed", ["node", "operator"], [(e["node"], e["op"]) for e in operators["removed"]]),
        ("Nodes added", ["node", "operator"], [(e["node"], e["op"]) for e in operators["added"]]),
        ("Nodes that became another operator", ["node", *both],
         [(e["node"], e["before"], e["after"]) for e in operators["changed"]]),
        ("Inputs that come from elsewhere", ["node", "input", *both], [tuple(e.values()) for e in data["wiring"]]),
        ("Attributes", ["node", "operator", "attribute", *both], [tuple(e.values()) for e in data["attributes"]]),
        ("Constants", ["constant", "state", "shape", "now", "relative difference", "zeros", "now"],
         [(e["names"][0] or e["names"][1], e["state"], *map(_by, e["shapes"]), e.get("relative"), *e["zeros"])
          for e in data["weights"]["entries"]]),
        ("Interface", ["name", *both],
         [(" -> ".join(n for n in dict.fromkeys(e["names"]) if n), _value(e["before"]), _value(e["after"]))
          for side in ("inputs", "outputs") for e in data["interface"][side]]),
        ("Operator sets", ["domain", *both], [(e["domain"] or "ai.onnx", e["before"], e["after"])
                                              for e in data["opsets"]]),
        ("Metadata", ["key", *both], [(e["key"], e["before"], e["after"]) for e in data["metadata"]]),
    ]  # fmt: skip


def _by(shape: list[int] | None) -> str | None:
    return None if shape is None else "x".join(map(str, shape)) or "scalar"


def _value(value: dict[str, Any] | None) -> str | None:
    return None if value is None else f"{value['type']} {_by(value['shape'])}"
