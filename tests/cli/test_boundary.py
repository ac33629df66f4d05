"""Where errors become words: one line on standard error and an exit status, whatever goes wrong and wherever."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from graphprune.analysis import analysis
from graphprune.errors import FaultError, InputError
from graphprune.model import files
from models.small import residual
from tests.helpers import command as run

GRAPHPRUNE = [sys.executable, "-m", "graphprune"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model in it."""
    monkeypatch.chdir(tmp_path)
    onnx.save(residual(), "m.onnx")
    return tmp_path


def one_line(err: str) -> bool:
    return err.startswith("graphprune: error: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.plan.json", '{"groups": []}', 'no field named "groups"'),
        ("x.json", "{", "Failed to load JSON"),
        ("x.onnxjson", '{"graph": 3}', "graph field"),
        ("x.textproto", "garbage {{", 'no field named "garbage"'),
        ("x.onnxtxt", "<garb", "line: 1 column: 6"),
    ],
)
def test_what_no_format_of_onnx_reads(
    folder: Path, name: str, content: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_text(content)
    status, out, err = run(capsys, "inspect", name)
    assert status == 2 and not out and one_line(err)
    assert f"{name}: not an ONNX model" in err and words in err


def test_without_arguments_help_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys)
    assert status == 2 and not out
    assert err.startswith("Usage: graphprune [OPTIONS] COMMAND") and "\n\nMake a model smaller:\n" in err


@pytest.mark.parametrize(
    "command", ["inspect m.onnx -v", "inspect m.onnx --json", "ops", "ops --markdown", "ops --lines", "--help"]
)
def test_a_pipe_that_is_closed_is_no_failure(folder: Path, command: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*GRAPHPRUNE, *command.split()], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_verdict_outlives_the_pipe(folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [*GRAPHPRUNE, "validate", "m.onnx", "--against", "m.onnx", "--max-abs=-1"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*GRAPHPRUNE, "inspect", "m.onnx"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and one_line(done.stderr)
    assert "standard output: cannot be written (No space left on device)" in done.stderr
    no_room = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fails(*_: object) -> None:
        raise no_room

    monkeypatch.setattr(files, "_write_model", fails)
    status, _, err = run(capsys, "prune", "m.onnx", "-o", "out.onnx", "--ratio", "0.5")
    assert status == 2 and one_line(err) and "out.onnx: cannot be written (No space left on device)" in err
    assert [p.name for p in folder.iterdir()] == ["m.onnx"]
    monkeypatch.setattr(analysis, "canonicalize", fails)
    status, _, err = run(capsys, "inspect", "m.onnx")
    assert status == 2 and one_line(err) and "No space left on device" in err and "TMPDIR" in err


def test_a_folder_in_the_place_of_the_output(folder: Path) -> None:
    Path("out.onnx").mkdir()
    with pytest.raises(InputError, match=r"out\.onnx: is a folder"):
        files.atomically(Path("out.onnx"), lambda file: file.write(b"x"))
    assert sorted(p.name for p in folder.iterdir()) == ["m.onnx", "out.onnx"]


def raising(error: BaseException) -> Callable[..., None]:
    def fails(*_: object, **__: object) -> None:
        raise error

    return fails


FAULT = "a fault of graphprune itself at graphprune/analysis/analysis.py:"


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (
            ZeroDivisionError("division by zero"),
            4,
            [FAULT, "in analyze: ZeroDivisionError: division by zero", "report"],
        ),
        (AssertionError(), 4, [FAULT, "AssertionError; please report"]),
        (RecursionError("too deep"), 4, [FAULT, "RecursionError: too deep"]),
        (EOFError("no data left"), 4, [FAULT, "EOFError: no data left"]),
        (OSError("no such device"), 4, [FAULT, "OSError: no such device"]),
        (FaultError("m.onnx: the rule of Conv\nraised"), 4, ["error: m.onnx: the rule of Conv raised"]),
        (MemoryError(), 2, ["out of memory at graphprune/analysis/analysis.py:", "helps"]),
        (PermissionError(errno.EACCES, "Permission denied", "m.data"), 2, ["error: m.data: Permission denied"]),
        (KeyboardInterrupt(), 130, ["error: interrupted"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_is_raised_is_one_line(
    folder: Path,
    error: BaseException,
    status: int,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(analysis, "canonicalize", raising(error))
    found, out, err = run(capsys, "inspect", "m.onnx")
    assert found == status and not out and one_line(err)
    assert all(w in err for w in words)
    _, _, err = run(capsys, "inspect", "m.onnx", "-v")
    assert ("Traceback" in err) == (status == 4)


def test_an_interruption_while_the_program_is_read(folder: Path) -> None:
    """As Ctrl-C does while modules are imported."""
    Path("numpy.py").write_text("raise KeyboardInterrupt\n")
    done = subprocess.run([*GRAPHPRUNE, "inspect", "m.onnx"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "graphprune: error: interrupted\n")


USER_CODE = """
import sys
import numpy as np

def some():
    yield {"x": np.zeros((1, 3, 8, 8), np.float32)}
    raise ValueError("no more pictures")

def leaves():
    sys.exit("bye")

def nothing():
    pass

def arrays():
    yield np.zeros(3)

def ragged():
    yield {"x": [[1.0], [2.0, 3.0]]}

number = 3
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("some", "users:some: raised ValueError: no more pictures, at"),
        ("leaves", "users:leaves: raised SystemExit: bye, at"),
        ("nothing", "users:nothing: gives NoneType"),
        ("arrays", "users:arrays: gives ndarray, and not an array for each input"),
        ("ragged", "users:ragged: input 'x' is no array"),
        ("number", "users:number: is no function but int"),
    ],
)
def test_what_user_code_raises_is_told_as_such(
    folder: Path, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("users.py").write_text(USER_CODE)
    status, out, err = run(capsys, "prune", "m.onnx", "--ratio", "0.5", "--calibration", f"users:{name}")
    sys.modules.pop("users", None)
    assert status == 2 and not out and one_line(err) and words in err


def test_a_module_of_the_user_that_fails_as_it_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken_module.py").write_text("\n\nundefined\n")
    status, _, err = run(capsys, "validate", "m.onnx", "--inputs", "broken_module:some")
    assert status == 2 and one_line(err)
    assert "broken_module:some: raised NameError: name 'undefined' is not defined, at" in err
    assert "broken_module.py:3" in err


def test_version_imports_nothing_heavy() -> None:
    code = "import sys, graphprune.cli.commands\nprint({'numpy', 'onnx', 'onnxruntime', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n"
