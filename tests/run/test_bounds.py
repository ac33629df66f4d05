"""What files beside a model declare is held against what is there, and against what is allowed, before it is read."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from graphprune.errors import InputError
from graphprune.model import limits, load, parsing
from graphprune.passes.choose import tables
from graphprune.passes.vocabulary import ids
from graphprune.rewrite import plan
from graphprune.run import arrays, samples
from graphprune.run.reading import configs
from tests.helpers import command


@pytest.fixture
def model() -> ModelProto:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def npy(shape: str, data: bytes = b"", kind: str = "<f4", header: int = 0) -> bytes:
    """A ``.npy`` file that declares what it likes."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(max(117, header)) + "\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text.encode() + data


def npz(member: bytes, copies: int = 1) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member)
        for k in range(1, copies):
            archive.writestr(f"x{k}.npy", member)
    return file.getvalue()


FILES = {
    "a.npz": (npz(npy("(1099511627776, 4)")), "declares 1099511627776x4, 16 TiB, and holds"),
    "b.npz": (npz(npy("(8, 4)", b"\0" * 128, header=1 << 26)), "its header has 67,108,865 bytes, and at most 10,000"),
    "c.npz": (npz(npy("(8, 4)", b"\0" * 128, "|O")), "must be of numbers"),
    "d.npz": (npz(npy("(1099511627776, 0)")), "its samples hold no numbers"),
    "e.npz": (npz(npy("(-8, 4)", b"\0" * 128)), "declares -8x4"),
    "f.npz": (npz(npy("(8, 524288)", b"\0" * (1 << 24))), "8 samples, which run at once, take 16 MiB, more than the 1"),
    "g.npy": (npy("(1099511627776, 4)"), "declares 1099511627776x4, 16 TiB, and holds"),
    "h.npy": (npy("(4611686018427387904, 4611686018427387904)"), "over 1,000 EiB"),
    "i.npy": (npy("(1, 4)", b"\0" * 64, "|O"), "not a NumPy file"),
    "j.npy": (npy("(1048576, 4)", b"\0" * (1 << 24)), "is one batch, and takes 16 MiB"),
    "k.npz": (npz(npy("(1, 4)", b"\0" * 16))[:-30], "not a NumPy file"),
}


@pytest.mark.parametrize("name", FILES)
def test_arrays_are_what_they_declare(name: str, model: ModelProto, tmp_path: Path) -> None:
    data, said = FILES[name]
    (tmp_path / name).write_bytes(data)
    with limits.memory(10 << 20), pytest.raises(InputError) as told:
        list(samples.load(tmp_path / name, load(model)))
    assert said in str(told.value) and name in str(told.value)


def test_what_inflates_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(npz(npy("(4194304,)", b"\0" * (1 << 24)), 4))
    assert path.stat().st_size < 1 << 18
    with limits.memory(32 << 20), pytest.raises(InputError, match="its arrays take 64 MiB, more than the 32 MiB"):
        arrays.read(path)
    assert len(arrays.read(path)) == 4


LONG = "[" + "[]," * 30000 + "[]]"
TEXTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a.json": (plan.load, LONG, "longer than the 64 KiB of text"),
    "b.json": (plan.load, "[" * 20000, "nested too deep"),
    "c.json": (plan.load, "9" * 20000, "not a JSON file"),
    "d.toml": (lambda path: tables.load(path, "steer"), "a = 1\n" * 20000, "longer than the 64 KiB of text"),
    "e.toml": (lambda path: tables.load(path, "steer"), "a = " + "[" * 20000, "not TOML"),
    "f.json": (lambda path: tables.load(path, "steer"), "[" * 20000, "not JSON"),
    "g.json": (configs.read, LONG, "longer than the 64 KiB of text"),
    "h.yml": (
        configs.read,
        "a: &a {x: 1}\n" + "".join(f"k{k}: &k{k} {{<<: [{', '.join(['*a'] * 9)}]}}\n" for k in range(9)),
        "merges tables, is not read here",
    ),
    "i.txt": (lambda path: ids.read(str(path)), "1\n" * 40000, "longer than the 64 KiB of text"),
    "j.json": (lambda path: ids.read(str(path)), "[" * 20000, "nested too deep"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_have_room(name: str, tmp_path: Path) -> None:
    read, text, said = TEXTS[name]
    path = tmp_path / name
    path.write_text(text)
    with limits.memory(2 << 20), pytest.raises(InputError) as told:
        read(path)
    assert said in str(told.value) and name in str(told.value)


def test_devices_have_an_end() -> None:
    with limits.memory(64 << 20), pytest.raises(InputError, match="/dev/zero: is longer than the 2 MiB"):
        parsing.text(Path("/dev/zero"))


def test_what_asks_for_too_much_ends_in_one_line(
    model: ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(model, tmp_path / "m.onnx")
    (tmp_path / "a.npz").write_bytes(npz(npy("(1099511627776, 4)")))
    given = [tmp_path / "m.onnx", "--calibration", tmp_path / "a.npz", "-o", tmp_path / "o.onnx"]
    before = sorted(tmp_path.iterdir())
    for extra in ([], ["--input-shape", "x=1099511627776x4"], ["--memory", "10"]):
        status, out, error = command(capsys, "prune", *given, *extra)
        assert status == 2 and not out and error.count("\n") == 1 and error.startswith("graphprune: error: ")
    assert sorted(tmp_path.iterdir()) == before
