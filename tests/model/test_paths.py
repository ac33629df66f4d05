"""No command writes over what it reads, or two things to one place; what it writes appears whole or not at all."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import graphprune
from graphprune.cli import report
from graphprune.errors import InputError
from graphprune.model import Model, files, paths
from models.small import chain, residual
from tests.helpers import command, run

PRUNE = ("prune", "m.onnx", "--ratio", "0.5", "-q")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with a file for each of its weights, inputs for it, a plan, and links to them."""
    monkeypatch.chdir(tmp_path)
    onnx.save(chain(), "m.onnx", save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=16)
    np.savez("in.npz", x=np.random.default_rng(0).random((2, 3, 8, 8), np.float32))
    Path("pictures").mkdir()
    np.save("pictures/a.npy", np.zeros((1, 3, 8, 8), np.float32))
    graphprune.prune("m.onnx", "small.onnx", ratio=0.5)
    os.link("m.onnx", "hard.onnx")
    os.link("bias_2", "hard.bin")
    Path("soft.onnx").symlink_to("m.onnx")
    onnx.save(residual(), "whole.onnx")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


CLASHES: dict[str, tuple[tuple[str, ...], str]] = {
    "output on the second data file": ((*PRUNE, "-o", "bias_2"), "bias_2: is the external data of m.onnx itself"),
    "output on a hard link to data": ((*PRUNE, "-o", "hard.bin"), "external data of m.onnx"),
    "output on a hard link to the model": ((*PRUNE, "-o", "hard.onnx"), "is the model itself"),
    "output on a link to the model": ((*PRUNE, "-o", "soft.onnx"), "is the model itself"),
    "output on a folder": ((*PRUNE, "-o", "pictures"), "pictures: is a folder"),
    "plan on the model": ((*PRUNE, "-o", "o.onnx", "--plan", "m.onnx"), "is the model itself"),
    "plan on data": ((*PRUNE, "-o", "o.onnx", "--plan", "conv_1"), "external data of m.onnx"),
    "plan on the inputs": ((*PRUNE, "-o", "o.onnx", "--calibration", "in.npz", "--plan", "in.npz"), "inputs"),
    "plan on one of the inputs": (
        (*PRUNE, "-o", "o.onnx", "--calibration", "pictures", "--plan", "pictures/a.npy"),
        "inputs that are read",
    ),
    "plan on the output": ((*PRUNE, "-o", "o.onnx", "--plan", "./o.onnx"), "would hold the output and the plan"),
    "plan on the output's data": ((*PRUNE, "-o", "o.onnx", "--plan", "o.onnx.data"), "the external data of the output"),
    "JSON on the model": ((*PRUNE, "--json", "m.onnx"), "is no place for JSON"),
    "JSON on the output": ((*PRUNE, "-o", "o.onnx", "--json", "o.onnx"), "is no place for JSON"),
    "JSON on the plan": ((*PRUNE, "-o", "o.onnx", "--json", "o.plan.json"), "would hold the JSON and the plan"),
    "JSON in no folder": ((*PRUNE, "--json", "no/o.json"), "its folder does not exist"),
    "packed on data": (("sparsify", "m.onnx", "--also", "*", "--packed", "conv_1"), "external data of m.onnx"),
    "packed on the output": (
        ("sparsify", "m.onnx", "--also", "*", "-o", "o.onnx", "--packed", "o.onnx"),
        "would hold the output and the packed weights",
    ),
    "inspect": (("inspect", "m.onnx", "--json", "bias_8"), "is no place for JSON"),
    "explain": (("explain", "m.onnx", "node_Conv_3", "--json", "m.onnx"), "is no place for JSON"),
    "validate": (("validate", "whole.onnx", "--against", "m.onnx", "--json", "bias_2"), "is no place for JSON"),
    "validate's inputs": (("validate", "whole.onnx", "--inputs", "in.npz", "--json", "in.npz"), "is no place for JSON"),
    "bench": (("bench", "whole.onnx", "m.onnx", "--rounds", "2", "--json", "m.onnx"), "is no place for JSON"),
    "apply": (("apply", "small.plan.json", "m.onnx", "-o", "small.onnx", "--force"), "is the plan that is read itself"),
    "apply's JSON": (("apply", "small.plan.json", "m.onnx", "--json", "small.plan.json"), "is the plan that is read"),
    "state dict": (
        ("state-dict", "small.plan.json", "in.npz", "-o", "small.plan.json", "--model", "m.onnx"),
        "is the plan that is read",
    ),
}


@pytest.mark.parametrize("case", CLASHES)
def test_nothing_that_is_read_is_written_over(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, words = CLASHES[case]
    before = contents(folder)
    status, out, err = command(capsys, *arguments)
    assert status == 2 and words in err and err.count("\n") == 1 and not out
    assert contents(folder) == before


def test_python_is_no_other_way_in(folder: Path) -> None:
    with pytest.raises(InputError, match="the external data of m"):
        graphprune.prune("m.onnx", "bias_8", ratio=0.5)
    with pytest.raises(InputError, match=r"p.json: is where the plan goes of a model that is written"):
        graphprune.prune("m.onnx", ratio=0.5, plan="p.json")
    with pytest.raises(InputError, match="the inputs that are read"):
        checks = graphprune.Checks(inputs="in.npz")
        graphprune.prune("m.onnx", "o.onnx", ratio=0.5, plan="in.npz", checks=checks)
    with pytest.raises(InputError, match="external data of the model itself"):
        graphprune.prune(onnx.load("m.onnx", load_external_data=False), "bias_8", ratio=0.5)


def test_a_link_stays_and_what_it_leads_to_is_replaced(folder: Path) -> None:
    Path("store").mkdir()
    Path("out.onnx").symlink_to("store/kept.onnx")
    for _ in range(2):  # what it leads to is not there at first
        graphprune.prune("whole.onnx", "out.onnx", ratio=0.5)
    assert Path("out.onnx").is_symlink() and onnx.load("store/kept.onnx").graph.node
    assert Path("out.plan.json").exists() and [p.name for p in Path("store").iterdir()] == ["kept.onnx"]


def test_pipes_are_written_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model comes through a pipe in one piece, its external data within; no plan lands beside a pipe."""
    read: dict[str, bytes] = {}
    readers = []
    for name in ("pipe", "pipe.json"):
        os.mkfifo(name)
        readers.append(threading.Thread(target=lambda n=name: read.update({n: Path(n).read_bytes()}), daemon=True))
        readers[-1].start()
    before = contents(folder).keys()
    status, *_ = command(capsys, *PRUNE, "-o", "pipe", "--json", "pipe.json")
    for reader in readers:
        reader.join(20)
    assert status == 0 and Path("pipe").is_fifo() and contents(folder).keys() == before
    assert json.loads(read["pipe.json"])["output"] == "pipe"
    piped, small = onnx.load_from_string(read["pipe"]), onnx.load("small.onnx")
    feeds = {"x": np.ones((1, 3, 8, 8), np.float32)}
    assert np.array_equal(run(piped, feeds)[0], run(small, feeds)[0])
    for one, two in zip(piped.graph.initializer, small.graph.initializer, strict=True):
        assert np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(two))


def test_standard_output_by_its_path(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = command(capsys, "inspect", "m.onnx", "--json", "/dev/stdout")
    assert status == 0 and json.loads(out)["model"] == "m.onnx"


def test_what_cannot_be_put_in_its_place_leaves_all_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphprune.prune("whole.onnx", "o.onnx", ratio=0.5)
    before = contents(folder)
    replace = Path.replace

    def full(self: Path, target: Any) -> Path:
        if str(target).endswith("plan.json") and not self.name.endswith(".old"):
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    for output in ("o.onnx", "new.onnx"):
        with pytest.raises(InputError, match=r"plan\.json: cannot be written \(No space left on device\)"):
            graphprune.prune("whole.onnx", output, ratio=0.2)
        assert contents(folder) == before


def test_a_command_that_fails_late_has_written_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise InputError("late")

    before = contents(folder)
    monkeypatch.setattr(report, "result_data", fail)
    status, _, err = command(capsys, *PRUNE, "-o", "o.onnx", "--json", "o.json")
    assert status == 2 and err == "graphprune: error: late\n"
    assert contents(folder) == before


def test_two_runs_to_one_output_do_not_mix(folder: Path) -> None:
    """One that ends while the other is under way: the other's set replaces its set, file for file."""
    for _ in range(2):  # what is there when the first begins is nothing at first, then a set
        with paths.run():
            files.declare(Model(onnx.load("whole.onnx")), "o.onnx")
            with paths.alone():
                graphprune.prune("whole.onnx", "o.onnx", ratio=0.2)
            second = contents(folder)
            graphprune.prune("whole.onnx", "o.onnx", ratio=0.5)
            assert contents(folder) == {**second, **{n: t for n, t in contents(folder).items() if n.startswith(".")}}
        first = contents(folder)
        assert first.keys() == second.keys()
        assert first["o.onnx"] != second["o.onnx"] and first["o.plan.json"] != second["o.plan.json"]


def test_what_came_meanwhile_is_not_written_over(folder: Path) -> None:
    with pytest.raises(InputError, match=r"o\.onnx: another run has written it meanwhile; --force"), paths.run():
        paths.keep()
        files.declare(Model(onnx.load("whole.onnx")), "o.onnx")
        with paths.alone():
            graphprune.prune("whole.onnx", "o.onnx", ratio=0.2)
        second = contents(folder)
        graphprune.prune("whole.onnx", "o.onnx", ratio=0.5)
    assert contents(folder) == second


def test_one_model_of_several_that_fails_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("r.toml").write_text(
        'format = "graphprune-recipe/1"\n[[passes]]\nuse = "select"\nratio = 0.5\n[[passes]]\nuse = "cut"\n'
    )
    waiting = paths.waiting

    def full(path: Path) -> tuple[int, Path]:
        if path.name == "two.plan.json":
            raise InputError(f"{path}: cannot be written (No space left on device)")
        return waiting(path)

    for name in ("one.onnx", "two.onnx", "three.onnx"):
        onnx.save(residual(), name)
    monkeypatch.setattr(paths, "waiting", full)
    status, _, err = command(capsys, "run", "r.toml", "one.onnx", "two.onnx", "three.onnx", "-o", "small", "-q")
    assert status == 2 and err.count("\n") == 1 and "No space left" in err
    assert {p.name for p in Path("small").iterdir()} == {
        f"{n}.{e}" for n in ("one", "three") for e in ("onnx", "plan.json")
    }


def test_a_stream_that_is_full_or_closed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    status, _, err = command(capsys, *PRUNE, "-o", "o.onnx", "--json", "/dev/full")
    assert status == 2 and "/dev/full: cannot be written (No space left on device); nothing was" in err
    assert contents(folder) == before
    read, write = os.pipe()
    os.close(read)
    status, _, err = command(capsys, *PRUNE, "-o", "o.onnx", "--json", f"/dev/fd/{write}")
    os.close(write)
    assert (status, err) == (0, "") and contents(folder).keys() - before.keys() == {
        "o.onnx",
        "o.plan.json",
        "o.onnx.data",
    }


def test_what_a_file_system_refuses_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    for name, words in (
        ("a" * 255, "File name too long"),
        ("a" * 300, "File name too long"),
        ("m.onnx/o", "does not exist"),
    ):
        status, _, err = command(capsys, *PRUNE, "-o", name)
        assert status == 2 and err.count("\n") == 1 and words in err, err
    with pytest.raises(InputError, match="File name too long"):
        graphprune.prune("m.onnx", "a" * 255, ratio=0.5)
    assert contents(folder) == before
