"""Weights of a large file stay in it, and are what they are; what is odd is left to protobuf."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

import graphprune
from graphprune.model import files, load, skeleton
from models.small import Net, residual


@pytest.fixture(autouse=True)
def all_files_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skeleton, "LARGE", 0)
    monkeypatch.setattr(skeleton, "LEAST", 64)


def written(proto: ModelProto, folder: Path, data: bytes | None = None) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString(deterministic=True) if data is None else data)
    return path


def test_weights_stay_in_the_file_and_a_copy_is_the_same_to_the_byte(tmp_path: Path) -> None:
    proto = residual()
    proto.graph.initializer[0].doc_string = "of a weight"
    model = load(written(proto, tmp_path))
    apart = [t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    assert len(apart) > 5 and not any(t.raw_data for t in apart)
    for tensor in proto.graph.initializer:
        assert (model.array(tensor.name) == numpy_helper.to_array(tensor)).all()
    files.save(model, tmp_path / "copy.onnx")
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["copy.onnx", "m.onnx"]
    assert onnx.load(tmp_path / "copy.onnx") == proto
    assert files.size(model) == (tmp_path / "copy.onnx").stat().st_size


def test_what_comes_out_is_the_same_wherever_weights_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, found = written(residual(), tmp_path), []
    for large in (0, 1 << 30):
        monkeypatch.setattr(skeleton, "LARGE", large)
        graphprune.prune(path, tmp_path / f"{large}.onnx", ratio=0.3)
        found.append(hashlib.sha256((tmp_path / f"{large}.onnx").read_bytes()).hexdigest())
    assert found[0] == found[1] and not list(tmp_path.glob("*.data"))


def test_a_link_to_a_file_is_as_good(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.onnx").symlink_to(written(residual(), tmp_path / "there"))
    model = load(tmp_path / "link.onnx")
    assert all(model.array(t.name).size for t in model.graph.initializer)


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.DOUBLE])
def test_all_types_come_back(kind: int, tmp_path: Path) -> None:
    net = Net(opset=21, ir_version=10)
    held = onnx.helper.make_tensor("w", kind, [9, 33], np.arange(297) % 7)
    raw = numpy_helper.from_array(numpy_helper.to_array(held), "w")
    net.initializers.append(raw)
    net.op("Identity", net.linear(net.input("x", [1, 4]), 4, 4))
    proto = net.model(net.op("Cast", "w", to=1))
    model = load(written(proto, tmp_path))
    files.save(model, tmp_path / "copy.onnx")
    assert onnx.load(tmp_path / "copy.onnx") == proto


def tag(number: int, data: bytes) -> bytes:
    return skeleton._tag(number) + skeleton.varint(len(data)) + data


def odd() -> dict[str, bytes]:
    """Files that are the same model by the rules of protobuf, in forms that no exporter writes."""
    proto = residual()
    whole = proto.SerializeToString(deterministic=True)
    graph = proto.graph.SerializeToString(deterministic=True)
    head = ModelProto()
    head.CopyFrom(proto)
    head.ClearField("graph")
    rest = head.SerializeToString(deterministic=True)
    nodes, weights = onnx.GraphProto(), onnx.GraphProto()
    nodes.CopyFrom(proto.graph)
    nodes.ClearField("initializer")
    weights.initializer.extend(proto.graph.initializer)
    twice = onnx.GraphProto()
    twice.CopyFrom(nodes)
    doubled = b"".join(tag(5, t.SerializeToString() + tag(9, t.raw_data)) for t in proto.graph.initializer)
    return {
        "graph first": tag(7, graph) + rest,
        "graph in two parts": rest + tag(7, nodes.SerializeToString()) + tag(7, weights.SerializeToString()),
        "initializers first": rest + tag(7, weights.SerializeToString() + nodes.SerializeToString()),
        "data twice": rest + tag(7, nodes.SerializeToString() + doubled),
        "unknown fields": whole + tag(1000, b"later"),
    }


@pytest.mark.parametrize("name", odd())
def test_forms_that_nobody_writes_are_read_all_the_same(name: str, tmp_path: Path) -> None:
    model = load(written(ModelProto(), tmp_path, odd()[name]))
    for tensor in residual().graph.initializer:
        assert (model.array(tensor.name) == numpy_helper.to_array(tensor)).all()


@pytest.mark.parametrize("cut", [1, 100, 3000])
def test_a_truncated_file_is_told_as_ever(cut: int, tmp_path: Path) -> None:
    with pytest.raises(graphprune.InputError, match="not an ONNX model, or truncated"):
        load(written(ModelProto(), tmp_path, residual().SerializeToString(deterministic=True)[:-cut]))


def test_data_of_the_wrong_length_is_told(tmp_path: Path) -> None:
    proto = residual()
    proto.graph.initializer[0].raw_data += b"more"
    with pytest.raises(graphprune.InputError, match="does not hold"):
        load(written(proto, tmp_path))


def test_a_disk_without_room_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(residual(), tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(graphprune.InputError, match=r"small.onnx: the disk has 0.0 GB free, and up to 0.0 GB"):
        graphprune.prune(path, tmp_path / "small.onnx", ratio=0.3)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_over_the_limit_of_a_file_weights_go_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(written(residual(), tmp_path))
    monkeypatch.setattr(files, "_INSIDE", 1000)
    files.save(model, tmp_path / "large.onnx")
    assert (tmp_path / "large.onnx.data").stat().st_size > 1000
    again = load(tmp_path / "large.onnx")
    assert all((model.array(n) == again.array(n)).all() for n in model.initializers)
