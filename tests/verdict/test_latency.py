"""Tables of latency: interpolation, the format, and the way from a model over tasks and results to a table."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

import graphprune
from graphprune.errors import BackendError, InputError
from graphprune.model import load
from graphprune.schema import schema
from graphprune.verdict import latency
from graphprune.verdict.latency import grid, measure, pieces, table, time_layers
from graphprune.verdict.latency.isolate import alone
from graphprune.verdict.latency.table import Layer, Table
from models.small import Net, attention, residual
from tests.helpers import command as run

ONCE = latency.How(threads=1, rounds=1, levels=(1, 0.5))


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_layers, "SECONDS", {"layer": 0.0, "whole": 0.0})
    monkeypatch.setattr(time_layers, "LEAST_RUNS", 1)
    monkeypatch.setattr(time_layers, "WARMUP", 1)


def silu() -> ModelProto:
    """Two convolutions, each with an activation in two parts, and a gate that is computed from what it gates."""
    net = Net()
    y = net.conv(net.input("x", [1, 3, 8, 8]), 3, 32)
    y = net.op("Mul", y, net.op("Sigmoid", y))
    z = net.conv(y, 32, 32)
    gate = net.op("Sigmoid", net.conv(net.op("GlobalAveragePool", z), 32, 32, k=1))
    return net.model(net.conv(net.op("Add", net.op("Mul", z, gate), y), 32, 4))


# --- interpolation ---------------------------------------------------------------------------------------------------


@st.composite
def layers(draw: st.DrawFn) -> tuple[Layer, Callable[..., Any]]:
    """A layer whose time is a product of straight lines, one for each width, which interpolation has exactly."""
    count = draw(st.integers(0, 3))
    widths = tuple(np.array(sorted(draw(st.sets(st.integers(1, 500), min_size=1, max_size=4)))) for _ in range(count))
    lines = [(draw(st.integers(0, 9)), draw(st.integers(0, 9))) for _ in range(count)]

    def time(*sizes: Any) -> Any:
        return np.prod(
            np.broadcast_arrays(1.0, *(a + b * np.asarray(s) for (a, b), s in zip(lines, sizes, strict=True))), axis=0
        )

    seconds = np.array([time(*point) for point in itertools.product(*widths)]).reshape([len(w) for w in widths])
    return Layer("y", (), tuple(("y", a) for a in range(count)), widths, seconds), time


@settings(max_examples=60, deadline=None)
@given(layers(), st.data())
def test_interpolation_is_linear_in_every_width_and_clamped(case: tuple[Layer, Any], data: st.DataObject) -> None:
    layer, time = case
    asked = [np.array(data.draw(st.lists(st.integers(1, 600), min_size=3, max_size=3))) for _ in layer.widths]
    clamped = [np.clip(a, w[0], w[-1]) for a, w in zip(asked, layer.widths, strict=True)]
    np.testing.assert_allclose(layer.at(asked), time(*clamped), rtol=1e-9)
    corner = [w[-1] for w in layer.widths]
    assert layer.at(corner) == pytest.approx(layer.whole)


def test_widths_are_broadcast() -> None:
    layer = Layer("y", (), (("x", 1), ("y", 1)), (np.array([8, 16]), np.array([8, 16])), np.array([[1.0, 2], [2, 4]]))
    found = layer.at([np.array([8, 12, 16])[:, None], np.array([8, 16])])
    assert found.tolist() == [[1, 2], [1.5, 3], [2, 4]]


def test_the_whole_is_the_layers_and_a_rest() -> None:
    layer = Layer("y", ("Conv",), (("y", 1),), (np.array([8, 16]),), np.array([1.0, 2.0]))
    fits, dear = Table((layer,), 3.0), Table((layer, layer), 2.0)
    assert (fits.rest, fits.scale, fits.seconds(lambda t, a: 8)) == (1, 1, 2)
    assert (dear.rest, dear.scale, dear.seconds(lambda t, a: 8)) == (0, 0.5, 1)


# --- the format ------------------------------------------------------------------------------------------------------


def by_hand(**changes: Any) -> dict[str, Any]:
    axes = [{"tensor": "y", "axis": 1, "widths": [4, 8]}]
    layers = [
        {"node": "y", "axes": axes, "seconds": [1, 2]},
        {"node": "z", "axes": [{"tensor": "z", "axis": 1}], "like": 0},
    ]
    return {"format": "graphprune-profile/1", "total": 3, "layers": layers, **changes}


def test_a_table_by_hand() -> None:
    found = table.read(by_hand(), "t.json")
    assert [layer.whole for layer in found.layers] == [2, 2] and found.layers[1].axes == (("z", 1),)
    again = found.to_json()
    jsonschema.validate(again, schema("profile"))
    assert again["layers"][1]["like"] == 0 and "widths" not in again["layers"][1]["axes"][0]
    assert table.read(again, "t.json").to_json() == again


@pytest.mark.parametrize(
    ("layer", "error"),
    [
        ({"axes": [], "seconds": [1]}, r"'seconds' must be one number"),
        ({"axes": [{"tensor": "y", "axis": 1, "widths": [4, 8]}], "seconds": [1]}, r"must be 2 numbers"),
        ({"axes": [{"tensor": "y", "axis": 1, "widths": [4, 8]}], "seconds": [1, -1]}, r"at least 0"),
        ({"axes": [{"tensor": "y", "axis": 1, "widths": [8, 4]}], "seconds": [1, 2]}, r"'widths' must ascend"),
        ({"axes": [{"tensor": "y", "axis": 1}], "seconds": [1, 2]}, r"'widths' is missing"),
        ({"axes": [], "like": 0}, r"'like' must be the number of an earlier layer"),
        ({"axes": []}, r"at layers\.0: .*graphprune-profile/1"),
        ({"axes": [{"tensor": "y", "axis": -1, "widths": [4]}], "seconds": [1]}, r"at layers\.0\.axes\.0\.axis"),
    ],
)
def test_slips_in_a_table(layer: dict[str, Any], error: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(by_hand(layers=[{"node": "y", **layer}])))
    with pytest.raises(InputError, match=error):
        latency.load(tmp_path / "t.json")


@pytest.mark.parametrize("data", [b"[" * 100_000, b"no", b"\xff"])
def test_a_table_that_is_no_json(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(data)
    with pytest.raises(InputError, match=r"is no JSON .*'graphprune profile MODEL"):
        table.load(tmp_path / "t.json")


def test_a_table_of_another_model() -> None:
    analysis = graphprune.analyze(residual())
    (name,) = {o for n in analysis.model.nodes if n.op_type == "GlobalAveragePool" for o in n.output}
    wrong = [(name, "nothing", 1, 16), (name, name, 4, 16), (name, name, 1, 17), ("nothing", name, 1, 16)]
    texts = ["has no tensor 'nothing'", "has 4 axes, and no axis 4", "is 16 wide in .*up to 17", "no node of"]
    for (node, tensor, axis, width), text in zip(wrong, texts, strict=True):
        layer = {"node": node, "axes": [{"tensor": tensor, "axis": axis, "widths": [8, width]}], "seconds": [1, 2]}
        with pytest.raises(InputError, match=text):
            latency.check(table.read(by_hand(layers=[layer]), "t.json"), analysis)


# --- pieces ----------------------------------------------------------------------------------------------------------


def test_pieces_are_products_with_what_follows() -> None:
    def types(model: ModelProto) -> list[str]:
        analysis = graphprune.analyze(model)
        found, left_out = pieces.cut(analysis)
        assert not left_out
        held = [n for piece in found for n in piece.nodes]
        assert len(held) == len(set(held))
        return [" ".join(analysis.model.nodes[n].op_type for n in piece.nodes) for piece in found]

    block = ["Conv BatchNormalization Relu", "Conv BatchNormalization Add Relu"]
    assert types(residual())[:4] == ["Conv BatchNormalization Relu", *block, "Conv BatchNormalization Relu"]
    assert types(silu()) == ["Conv Sigmoid Mul", "Conv", "GlobalAveragePool", "Conv Sigmoid Mul Add", "Conv"]
    assert "MatMul Softmax" in types(attention())


@pytest.mark.parametrize("model", [residual(), silu(), attention(), attention(scale_from_shape=True)])
def test_a_piece_alone_is_what_it_is_in_the_pruned_model(model: ModelProto) -> None:
    analysis = graphprune.analyze(model)
    found, _ = pieces.cut(analysis)
    memo: dict[object, grid.Knob | None] = {}
    wanted = [p for n, one in enumerate(found) for p in grid.points(n, grid.knobs(analysis, one, (1, 0.5), memo))]
    seen: set[tuple[int, ...]] = set()
    names: dict[str, set[str]] = {}

    def see(point: grid.Point, refit: Any) -> None:
        piece = found[point.piece]
        one = alone(piece, refit, blocked=True)
        session = ort.InferenceSession(one.model, providers=["CPUExecutionProvider"])
        inputs = [{"name": n, "type": i.type[7:-1].replace("float", "float32"), "shape": s}
                  for (n, _, s), i in zip(one.inputs, session.get_inputs(), strict=True)]  # fmt: skip
        (made,) = session.run(None, time_layers._feeds(inputs, 0))
        last = analysis.model.nodes[piece.nodes[-1]].output[0]
        assert made.shape == refit.removal.shape(last)
        seen.add((point.piece, *point.place))
        names.setdefault(" ".join(one.operators), set()).add(one.name)

    grid.visit(analysis, wanted, see)
    assert len(seen) == len(wanted) > len(found)
    if model.graph.node[0].op_type == "Conv" and len(found) > 5:  # two blocks that are alike
        assert len(names["Conv BatchNormalization Add Relu"]) == 4


# --- from tasks to a table -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [residual(), attention()])
def test_from_tasks_over_results_to_a_table(model: ModelProto, tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    latency.prepare(model, folder, None, ONCE)
    jsonschema.validate(json.loads((folder / "tasks.json").read_text()), schema("tasks"))
    with pytest.raises(InputError, match=r"results are missing; 'python time_layers\.py"):
        latency.collect(folder)
    time_layers.main([str(folder), "--shard", "1/2"])
    with pytest.raises(InputError, match="results are missing"):
        latency.collect(folder)
    time_layers.main([str(folder), "--shard", "2/2"])
    found = latency.collect(folder, load(model))
    assert found.total > 0 and found.covered > 0 and not found.left_out
    assert found.measured["threads"] == 1 and "onnxruntime" in found.measured["runtime"]
    analysis = graphprune.analyze(model)
    latency.check(found, analysis)
    for layer in found.layers:
        for (tensor, axis), widths in zip(layer.axes, layer.widths, strict=True):
            shape = analysis.witness.shape(tensor)
            assert shape is not None and widths[-1] == shape[axis] and len(widths) > 1
    groups = {g for piece in pieces.cut(analysis)[0] for g in piece.groups}
    assert len(groups) == len(analysis.groups)
    text = json.dumps(found.to_json())
    jsonschema.validate(json.loads(text), schema("profile"))
    assert table.read(json.loads(text), "t").to_json() == found.to_json()
    with pytest.raises(InputError, match="of another file"):
        latency.collect(folder, load(silu()))


def test_the_script_stands_alone(tmp_path: Path) -> None:
    """As on a device that does not have this package."""
    net = Net()
    latency.prepare(net.model(net.conv(net.input("x", [1, 3, 8, 8]), 3, 4)), tmp_path, how=ONCE)
    allowed = f"import sys; sys.modules['graphprune'] = sys.modules['onnx'] = None; sys.argv = ['t', {str(tmp_path)!r}]"
    script = f"{allowed}; import runpy; runpy.run_path({str(tmp_path / 'time_layers.py')!r}, run_name='__main__')"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    (layer,) = latency.collect(tmp_path).layers
    assert layer.axes == () and layer.whole >= 0


def test_what_has_a_result_is_not_timed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def stand_in(folder: Path, task: dict[str, Any], how: Any, number: int) -> float:
        calls.append(task["name"])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return float(len(calls))

    monkeypatch.setattr(time_layers, "_seconds", stand_in)
    with pytest.raises(KeyboardInterrupt):
        latency.profile(residual(), how=ONCE, folder=tmp_path)
    assert not list((tmp_path / "results").glob(".*"))
    found = latency.profile(residual(), how=ONCE, folder=tmp_path)
    count = len(calls)
    assert all(calls.count(c) == (time_layers.WHOLES if "whole" in c else 1) + (c == calls[3]) for c in calls)
    assert latency.profile(residual(), how=ONCE, folder=tmp_path).to_json() == found.to_json() and len(calls) == count
    other = latency.How(threads=2, rounds=1, levels=(1, 0.5))
    latency.profile(residual(), how=other, folder=tmp_path)
    assert len(calls) == 2 * count - 1  # what was timed with other threads does not count


def test_results_that_do_not_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_layers, "_seconds", lambda *_: 1.0)
    latency.profile(residual(), how=ONCE, folder=tmp_path)
    one, two, *_ = sorted((tmp_path / "results").iterdir())
    whole = one.read_text()
    one.write_text(json.dumps({**json.loads(whole), "settings": {**json.loads(whole)["settings"], "device": "other"}}))
    with pytest.raises(InputError, match="timed in different ways: device is"):
        latency.collect(tmp_path)
    one.write_text(whole)
    two.write_text(two.read_text()[:20])
    with pytest.raises(InputError, match=r"is no result of time_layers\.py"):
        latency.collect(tmp_path)


def test_a_layer_that_does_not_run_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(folder: Path, task: dict[str, Any], how: Any, number: int) -> float:
        if "GlobalAveragePool" in task["operators"]:
            raise RuntimeError("no kernel\nfor this")
        return 1.0

    monkeypatch.setattr(time_layers, "_seconds", stand_in)
    found = latency.profile(silu(), how=ONCE, folder=tmp_path)
    assert [e["reason"] for e in found.left_out] == ["no kernel"]
    assert all("GlobalAveragePool" not in layer.operators for layer in found.layers)


def test_kernels_around_a_layer_do_not_count(tmp_path: Path) -> None:
    def event(name: str, op: str, start: int, seconds: int) -> dict[str, Any]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": seconds, "args": {"op_name": op}}

    runs = [{"cat": "Session", "name": "model_run", "ts": t, "dur": 90} for t in (100, 0)]
    nodes = [event("a", "Conv", 1, 5), event("r", "ReorderInput", 7, 50), event("entry1", "MaxPool", 20, 9),
             event("t", "Transpose", 60, 3), event("a", "Conv", 101, 7)]  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps([*runs, *nodes]))
    assert time_layers.kernels(tmp_path / "p.json", ["Conv"]) == pytest.approx([5e-6, 7e-6])
    assert time_layers.kernels(tmp_path / "p.json", ["Conv", "Transpose"]) == pytest.approx([8e-6, 7e-6])


def test_what_cannot_be() -> None:
    with pytest.raises(BackendError, match="has no NoSuchProvider"):
        latency.profile(residual(), how=latency.How(provider="NoSuchProvider"))
    for wrong in ({"rounds": 0}, {"threads": -1}, {"levels": (1, 0)}):
        with pytest.raises(InputError, match="out of range"):
            latency.How(**wrong)
    assert set(measure.PHASES) == {"cut", "time"}


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(residual(), "m.onnx")
    arguments = ["profile", "m.onnx", "--levels", "0.5", "--rounds", "1", "--threads", "1"]
    status, out, err = run(capsys, *arguments, "-o", "t.json", "--input-shape", "x=2x3x8x8")
    assert status == 0 and "x=2x3x8x8" in out and "Conv BatchNormalization Add Relu" in out and "written: t.json" in out
    assert latency.load("t.json").measured["shapes"] == {"x": [2, 3, 8, 8]}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "t.json"]
    status, out, _ = run(capsys, *arguments, "--tasks", "folder", "-q")
    assert status == 0 and not out and (tmp_path / "folder" / "time_layers.py").is_file()
    status, _, err = run(capsys, "profile", "m.onnx", "--results", "folder", "-o", "u.json")
    assert status == 2 and "results are missing" in err and not (tmp_path / "u.json").exists()
    time_layers.main(["folder"])
    status, out, _ = run(capsys, "profile", "m.onnx", "--results", "folder", "-o", "u.json", "--json")
    assert status == 0 and json.loads(out) == json.loads((tmp_path / "u.json").read_text())


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (["--tasks", "a", "--results", "b"], 2, "exclude each other"),
        (["--tasks", "a", "-o", "t.json"], 2, "with --results"),
        (["--device", "cpu", "--provider", "X"], 2, "say the same"),
        (["--levels", "half"], 2, "is not like 1,0.75,0.5"),
        (["--provider", "X"], 3, "has no X"),
        (["--results", "nowhere"], 2, "cannot be read"),
    ],
)
def test_slips_on_the_command_line(
    options: list[str], status: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(residual(), tmp_path / "m.onnx")
    found, out, err = run(capsys, "profile", tmp_path / "m.onnx", *options)
    assert found == status and not out and text in err and len(err.splitlines()) == 1
