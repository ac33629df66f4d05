"""Boxes and arrows as a picture: Graphviz lays them out, nothing here does.

What stands in a picture comes from a model, and is only ever text: boxes have numbers for names, and all words are
escaped where they become Graphviz's HTML-like labels.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from graphprune.cli.harmless import on_one_line
from graphprune.errors import BackendError, InputError
from graphprune.model import files

if TYPE_CHECKING:
    import graphviz

FORMATS = ("svg", "png", "pdf")
SOURCES = ("dot", "gv")
_LONGEST = 44
"""Letters of a name that are shown; the whole of it stands in the box's tooltip."""
_COLOURS = {
    "product": "#d6e6f7",
    "other": "#f3f3f3",
    "block": "#dff0df",
    "outside": "#ffffff",
    "cut": "#fbe3d0",
    "gone": "#f6c9c4",
}
"""Fills of boxes; their meaning stands in words too."""


@dataclass
class Box:
    """One box.

    Attributes:
        title: what it is, in bold.
        name: which one; shortened where it is long.
        lines: what is to be said of it.
        role: one of ``_COLOURS``.
        dashed: whether it is only there to show where something leads.
    """

    title: str
    name: str = ""
    lines: list[str] = field(default_factory=list)
    role: str = "other"
    dashed: bool = False


@dataclass
class Picture:
    """A picture.

    Attributes:
        title: lines that stand above it.
        boxes: by a key of the caller's.
        arrows: from key to key, with what stands beside each.
        inside: keys of boxes that a frame is drawn around.
        frame: what stands in the frame.
        stands: pairs of keys joined by a dashed line: where one takes the place of the other.
    """

    title: list[str]
    boxes: dict[object, Box] = field(default_factory=dict)
    arrows: dict[tuple[object, object], list[str]] = field(default_factory=dict)
    inside: set[object] = field(default_factory=set)
    frame: str = ""
    stands: list[tuple[object, object, str]] = field(default_factory=list)

    def arrow(self, start: object, end: object, text: str = "") -> None:
        """Add an arrow; several between the same boxes become one."""
        told = self.arrows.setdefault((start, end), [])
        if text and text not in told:
            told.append(text)


def source(picture: Picture) -> str:
    """A picture as Graphviz's source.

    Raises:
        BackendError: the package ``graphviz``, which writes it, is not installed.
    """
    return str(_graph(picture).source)


def draw(picture: Picture, path: Path) -> None:
    """Write a picture to a file, in the form that its suffix says.

    Raises:
        BackendError: the package ``graphviz`` or its command ``dot`` is not installed.
    """
    kind = suffix(path)
    if kind in SOURCES:
        data = source(picture).encode()
    else:
        graph = _graph(picture)
        try:
            data = graph.pipe(format=kind, quiet=True)
        except _package().ExecutableNotFound as error:
            raise _undrawn(path) from error
        except _package().CalledProcessError as error:
            raise InputError(f"{path}: Graphviz's 'dot' cannot draw this as {kind}: {error.stderr!r}") from error
    files.atomically(path, lambda file: file.write(data))


def ready(path: Path | None) -> None:
    """Raise BackendError where what draws a picture is not there; asked before there is one.

    Args:
        path: where it is to go, None where its source is asked for.
    """
    _package()
    if path is not None and suffix(path) in FORMATS and shutil.which("dot") is None:
        raise _undrawn(path)


def _undrawn(path: Path) -> BackendError:
    return BackendError(
        f"{path}: Graphviz's command 'dot', which draws, is not there; install Graphviz (apt install graphviz, "
        "brew install graphviz), or give -o FILE.dot for its source"
    )


def suffix(path: Path) -> str:
    """The form that a file's suffix names.

    Raises:
        InputError: none that is known.
    """
    found = path.suffix.lower().lstrip(".")
    if found not in (*FORMATS, *SOURCES):
        raise InputError(f"{path}: a picture is .{', .'.join(FORMATS)}, or .dot for Graphviz's source")
    return found


def shortened(name: str) -> str:
    """A name of which the middle is left out where it is long."""
    half = (_LONGEST - 3) // 2
    return name if len(name) <= _LONGEST else f"{name[:half]}...{name[-half - 1 :]}"


def _package() -> ModuleType:
    try:
        import graphviz
    except ImportError as error:
        raise BackendError("pictures need the package graphviz: pip install 'graphprune[graph]'") from error
    found: ModuleType = graphviz
    return found


def _graph(picture: Picture) -> graphviz.Digraph:
    package = _package()
    title = "".join(f'{_text(line)}<br align="left"/>' for line in picture.title)
    graph = package.Digraph(
        graph_attr={
            "label": f"<{title}>", "labelloc": "t", "labeljust": "l", "fontname": "Helvetica", "fontsize": "13",
            "nodesep": "0.25", "ranksep": "0.3", "pad": "0.2", "bgcolor": "white",
        },
        node_attr={"shape": "box", "fontname": "Helvetica", "fontsize": "10", "margin": "0.08,0.04"},
        edge_attr={"fontname": "Helvetica", "fontsize": "9", "color": "#555555", "arrowsize": "0.7"},
    )  # fmt: skip
    numbers = {key: f"n{k}" for k, key in enumerate(picture.boxes)}
    for key, box in picture.boxes.items():
        if key not in picture.inside:
            _box(graph, numbers[key], box)
    if picture.inside:
        label = f"<{_text(picture.frame)}>"
        with graph.subgraph(name="cluster", graph_attr={"label": label, "color": "#2d6a2d", "style": "rounded"}) as own:
            for key, box in picture.boxes.items():
                if key in picture.inside:
                    _box(own, numbers[key], box)
    for (start, end), told in picture.arrows.items():
        text = "<br/>".join(map(_text, told[:3] + (["..."] if len(told) > 3 else [])))
        graph.edge(numbers[start], numbers[end], **({"label": f"<{text}>"} if text else {}))
    for start, end, told_ in picture.stands:
        look = {"style": "dashed", "color": "#b3261e", "fontcolor": "#b3261e", "constraint": "false"}
        graph.edge(numbers[start], numbers[end], label=f"<{_text(told_)}>", **look)
    return graph


def _box(graph: graphviz.Digraph, number: str, box: Box) -> None:
    lines = [f"<b>{_text(box.title)}</b>"]
    if box.name:
        lines.append(f'<font point-size="9">{_text(shortened(box.name))}</font>')
    lines += [f'<font point-size="9">{_text(line)}</font>' for line in box.lines]
    style = "filled,rounded,dashed" if box.dashed else "filled,rounded"
    tooltip = _package().escape(on_one_line(box.name or box.title))
    graph.node(number, f"<{'<br/>'.join(lines)}>", fillcolor=_COLOURS[box.role], style=style, tooltip=tooltip)


def _text(text: str) -> str:
    return escape(on_one_line(text)) or " "
