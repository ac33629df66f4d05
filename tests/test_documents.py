"""What pages show runs, and what they name is there.

Each page has a folder with the files that its examples name (``tests.stage``); its blocks run in it one after another,
in this process, with what takes long made short. See ``tests.documents`` for examples that cannot run.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import tomlkit
from threadpoolctl import threadpool_limits

from graphprune import rules
from graphprune.cli import boundary
from graphprune.cli.commands import cli
from graphprune.gradients.expansion import BODIES
from graphprune.gradients.table import RULES
from graphprune.passes import recipe, toml
from tests.documents import ROOT, Block, Page, pages
from tests.stage import COMES_TO, STAGES, lay_pictures

PAGES = {page.name: page for page in pages()}
TESTED_ELSEWHERE = {"graphprune/integrations/README.md"}
"""Their examples need packages of others; what they name is looked at here all the same."""
RUNNERS = {f"--graphprune-{name}" for name in ("masked", "original", "plan", "model")}
FOREIGN = {"--no-deps", "--help-all", "--tb", "--onnxrt", *RUNNERS}
"""Options of other programs that pages name."""
STAND_INS = {
    "NODE|GROUP|BLOCK|MODULE": "features",
    "GROUP|NODE|TENSOR": "encoder/0/Conv_12_out:1",
}
SHORT = [
    (r"--(distill|time) \d+m", r"--\1 1s"),
    (r"--distill(?! \d)", "--distill 2"),
    (r"--search \d+m?", "--search 2"),
    (r"^distill (?!.*--steps)", "distill --steps 2 "),
    (r"--steps \d+", "--steps 2"),
    (r"=1x3x\d+x\d+", "=1x3x32x32"),
    (r"size=640", "size=32"),
    (r"^bench ", "bench --rounds 3 --warmup 1 "),
    (r"^profile ", "profile --levels 1,0.5 --rounds 1 "),
    (r"^sensitivity ", "sensitivity --levels 0.5 "),
    (r"macs=0.3,0.5,0.7,0.001 --ratios 0.3", "macs=0.5 --ratios 0.3"),
    (r"macs=0.3,0.5(,0.7)?", "macs=0.3,0.5"),
    (r" --trt\b", ""),
]
"""What is written for people, and what stands for it here: less time, smaller sizes; other tests build in TensorRT."""


def _command(name: str) -> click.Command:
    with click.Context(cli) as context:
        found = cli.get_command(context, name)
    assert found is not None, f"there is no command {name!r}"
    return found


@cache
def _options(name: str) -> set[str]:
    given = {option for p in _command(name).params for option in (*p.opts, *p.secondary_opts)}
    return {"-h", "--help", *given}


@cache
def _all_options() -> set[str]:
    with click.Context(cli) as context:
        return {option for name in cli.list_commands(context) for option in _options(name)} | {"--version"}


@pytest.mark.parametrize("name", PAGES)
def test_what_pages_name_is_there(name: str) -> None:
    page = PAGES[name]
    for file, heading in page.links():
        assert file.exists(), f"{name} links to {file}, which is not there"
        if heading and file.suffix == ".md":
            assert heading in Page(file).anchors(), f"{name} links to #{heading} of {file.name}, which is not there"
    for block in page.blocks:
        for words in block.commands():
            if words[0] == "graphprune":
                _there(words, f"{name}:{block.line}")
    for span in page.spans:
        if re.match(r"graphprune [a-z]", span):
            _there(span.split(), f"{name}: `{span}`")
        elif page.name not in ("CHANGELOG.md", "tests/benchmarks/RESULTS.md"):
            unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", span)) - _all_options() - FOREIGN
            foreign = re.match(r"(pip|python|pytest|trtexec|\.venv)", span)
            assert foreign or not unknown, f"{name}: `{span}` names {', '.join(unknown)}"


def _there(words: list[str], where: str) -> None:
    """A command is one that there is, with options that it has."""
    known = _options(words[1])
    unknown = [w for w in words[2:] if re.match(r"-[a-z-]", w) and w.partition("=")[0] not in known]
    assert not unknown, f"{where}: graphprune {words[1]} has no {', '.join(unknown)}"


def test_messages_that_are_explained_are_said() -> None:
    """Headings of the page quote messages, with ``...`` where names and numbers stand."""
    said = "\0".join(
        constant.value
        for folder in ("graphprune", "passes")
        for file in (ROOT / folder).rglob("*.py")
        for constant in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    )
    quoted = re.findall(r"^### `(.+)`$", PAGES["graphprune/guide/troubleshooting.md"].text, re.M)
    parts = {part.strip(" ,:") for message in quoted for part in message.split("...")} - {""}
    assert len(quoted) > 20 and not {part for part in parts if part not in said}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    """Folders that are laid out, by who does it; laid out when asked for."""
    return {}


@pytest.fixture
def stage(request: pytest.FixtureRequest, stages: dict[Any, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    lay = STAGES.get(request.getfixturevalue("name"), lay_pictures)
    if lay not in stages:
        stages[lay] = tmp_path_factory.mktemp("stage")
        lay(stages[lay])
    return stages[lay]


RUN = [n for n, page in PAGES.items() if n not in TESTED_ELSEWHERE and any(not b.skipped for b in page.blocks)]


@pytest.mark.parametrize("name", RUN)
def test_what_pages_show_runs(
    name: str,
    stage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.syspath_prepend(tmp_path)
    own_module = ModuleType("page")  # dataclasses look for the module that they are in
    monkeypatch.setitem(sys.modules, "page", own_module)
    held: dict[str, Any] = vars(own_module)
    with threadpool_limits(1):
        _run_page(PAGES[name], stage, tmp_path, held, capsys)
    COMES_TO.get(name, lambda _: None)(held)


def _run_page(
    page: Page, stage: Path, tmp_path: Path, held: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for number, block in enumerate(page.blocks):
        shutil.copytree(stage, tmp_path, dirs_exist_ok=True)
        where = f"{page.name}:{block.line}"
        if block.file:
            (tmp_path / block.file).write_text(block.text)
            importlib.invalidate_caches()
        if block.language == "toml":
            _toml(block, where, tmp_path, number)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "python" and not block.skipped:
            held.setdefault("model", _model(tmp_path))
            exec(compile("\n" * (block.line - 1) + block.text, str(page.path), "exec"), held)
        elif not block.skipped:
            for words in block.commands():
                _run(words, where, tmp_path, capsys)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[None]:
    """What examples register and import is gone after the test."""
    tables: list[dict[Any, Any]] = [RULES, BODIES, rules._registered]
    kept = [dict(table) for table in tables]
    yield
    for table, old in zip(tables, kept, strict=True):
        table.clear()
        table.update(old)
    for module, loaded in list(sys.modules.items()):
        if Path(getattr(loaded, "__file__", None) or ".").is_relative_to(tmp_path):
            del sys.modules[module]
    recipe._foreign.cache_clear()


def _run(words: list[str], where: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command line does what it says: exit status 0."""
    if words[0] == "python":
        done = subprocess.run([sys.executable, *words[1:]], check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{where}: {' '.join(words)} exits with {done.returncode}\n{done.stderr}"
        return
    arguments = [STAND_INS.get(word, word) for word in words[1:]]
    text = "\x1f".join(arguments)
    for pattern, shorter in SHORT:
        text = re.sub(pattern.replace(" ", "\x1f"), shorter.replace(" ", "\x1f"), text)
    arguments = text.strip("\x1f").split("\x1f")
    if "--force" in _options(arguments[0]):
        arguments.append("--force")  # examples write small.onnx again and again
    elif arguments[0] == "init":
        Path(arguments[-1]).unlink()
    if any(folder.glob("*.dist-info")):  # entry points are read once in a process
        done = subprocess.run([sys.executable, "-m", "graphprune", *arguments], capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])})  # fmt: skip
        status, said = done.returncode, done.stdout + done.stderr
    else:
        status = boundary.run(arguments)
        said = "".join(capsys.readouterr())
    assert status == 0, f"{where}: graphprune {' '.join(arguments)} exits with {status}\n{said}"


def _toml(block: Block, where: str, folder: Path, number: int) -> None:
    """A recipe is one, and entry points become an installed package."""
    text = block.text if "format" in block.text else f'format = "graphprune-recipe/1"\n{block.text}'
    data = tomlkit.parse(text).unwrap()
    if "passes" in data:
        (folder / "page.toml").write_text(text)
        toml.load(folder / "page.toml")
    points = data.get("project", {}).get("entry-points", {})
    if points:
        assert set(points) <= GROUPS, f"{where}: nobody reads entry points of {', '.join(set(points) - GROUPS)}"
        info = folder / f"page{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: page{number}\nVersion: 1.0\n")
        lines = [line for group, named in points.items() for line in (f"[{group}]", *map(" = ".join, named.items()))]
        (info / "entry_points.txt").write_text("\n".join(lines))
        recipe._foreign.cache_clear()


GROUPS = {f"graphprune.{kind}" for kind in ("rules", "criteria", "passes", "patterns", "backends")}


def _model(folder: Path) -> Any:
    import onnx

    return onnx.load(folder / "model.onnx")
