"""The house: which rooms there are, which way imports point, and how large things may be.

A reader who follows a model through a job goes through the rooms in the order in which they stand here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("relation", "rules", "model", "run", "gradients", "analysis", "rewrite", "proof", "verdict", "passes", "cli")
"""From the ground up."""
OUTSIDE = "integrations"
"""Stands beside ``cli`` on top of all others, and nothing knows of it: other tools import it."""
OWN = ("__init__.py", "__main__.py", "errors.py", "interruption.py", "progress.py", "py.typed", "schema.py")
"""Files of the package itself: the public names, what all floors read, and the marker of type information."""
API = {
    "prune", "sparsify", "distill", "apply", "analyze", "sensitivity", "sweep", "validate", "bench",
    "run_recipe", "command",
}  # fmt: skip
"""Functions of the public interface, which may have as many parameters as their users have wishes."""


def _files() -> list[Path]:
    return sorted([*(ROOT / "graphprune").rglob("*.py"), *(ROOT / "passes").rglob("*.py")])


def _room(path: Path) -> str:
    if path.is_relative_to(ROOT / "passes"):
        return "passes"
    inside = path.relative_to(ROOT / "graphprune").parts
    return inside[0] if len(inside) > 1 else ""


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and room of everything of this package that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "graphprune" and len(parts) > 1 and parts[1] in (*ROOMS, OUTSIDE):
                yield node.lineno, parts[1]


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_rooms() -> None:
    rooms = {_room(path) for path in _files()} - {""}
    assert rooms == {*ROOMS, OUTSIDE}
    assert len(ROOMS) <= 11
    assert {p.name for p in (ROOT / "graphprune").iterdir() if p.is_file()} - {"README.md"} == set(OWN)


@pytest.mark.parametrize("room", [*ROOMS, OUTSIDE, ""])
def test_imports_point_down(room: str) -> None:
    above = {"": {OUTSIDE}, OUTSIDE: {"cli"}}.get(room) or {*ROOMS[ROOMS.index(room) + 1 :], OUTSIDE}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {found}"
        for path in _files()
        if _room(path) == room
        for line, found in _imports(path)
        if found in above
    ]
    assert not wrong


def test_files_are_small() -> None:
    sizes = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in _files()}
    assert {name: size for name, size in sizes.items() if size > 400} == {}


def test_functions_fit_a_screen() -> None:
    wrong = {}
    for path in _files():
        for node in _functions(path):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):  # a docstring is no code
                lines -= (first.end_lineno or first.lineno) - first.lineno + 1
            taken = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs) if a.arg != "self"]
            if lines > 60 or (len(taken) > 8 and node.name not in API and node.name != "__init__"):
                wrong[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = (lines, len(taken))
    assert wrong == {}
