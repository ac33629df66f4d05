"""Timing: pairs within rounds, an interval around their ratio."""

import json
import time
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest

import graphprune
from graphprune.cli import main
from graphprune.errors import BackendError, InputError
from graphprune.schema import schema
from graphprune.verdict import by_node, timing, trt
from models.small import Net, attention, chain, residual


def test_what_is_reported() -> None:
    """How fast it is belongs in a benchmark; here only that the figures are what they are called."""
    found = graphprune.bench(residual(), chain(), rounds=7, warmup=1)
    (ratio,) = found.ratios
    assert 0 < ratio.low <= ratio.speedup <= ratio.high
    assert all(0 < t.low <= t.median <= t.high for t in found.timings)
    assert found.rounds == 7 and list(found.shapes) == ["x"]
    jsonschema.validate(found.to_json(), schema("bench"))


def test_each_node_is_timed() -> None:
    found = graphprune.bench(residual(), chain(), rounds=2, warmup=0, footprints=False, layers=True)
    jsonschema.validate(found.to_json(), schema("bench"))
    for timing_, model in zip(found.timings, (residual(), chain()), strict=True):
        assert timing_.layers is not None and all(one.seconds >= 0 for one in timing_.layers)
        products = {node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")}
        assert len({one.node for one in timing_.layers}) == len(timing_.layers) >= len(products)


def test_nodes_of_a_loop_count_in_sum() -> None:
    """What runs three times in each of twelve runs takes as long as three of it; the first two runs are left out."""
    runs = by_node.WARMUP + by_node.ROUNDS
    events = [
        {"cat": "Node", "name": "a_kernel_time", "dur": 500 if run < by_node.WARMUP else 2, "args": {"op_name": "Add"}}
        for run in range(runs)
        for _ in range(3)
    ]
    assert by_node.medians(events) == [by_node.NodeTime("a", "Add", pytest.approx(6e-6))]


def test_the_ratio_is_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What slows both models of a round down changes no ratio."""
    clock = {"now": 0.0, "call": 0}
    rng = np.random.default_rng(0)
    drift = rng.uniform(1, 100, 1000)

    def run(active: object, feeds: object) -> list[object]:
        round_number = clock["call"] // 2
        cost = 3.0 if active.names == "slow" else 1.0  # type: ignore[attr-defined]
        clock["now"] += cost * drift[int(round_number)]
        clock["call"] += 1
        return []

    class Session:
        def __init__(self, names: str) -> None:
            self.names = names

        def __enter__(self) -> "Session":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    names = iter(["slow", "fast"])
    monkeypatch.setattr(timing.sizing, "accepted", lambda *_: iter([{"x": np.zeros(1)}]))
    monkeypatch.setattr(timing, "footprint", lambda *_: None)
    monkeypatch.setattr(timing, "_timed_session", lambda *_: Session(next(names)))
    monkeypatch.setattr(timing, "run", run)
    monkeypatch.setattr(time, "perf_counter", lambda: clock["now"])
    (ratio,) = timing.bench(chain(), chain(), rounds=20, warmup=0).ratios
    assert (ratio.low, ratio.speedup, ratio.high) == pytest.approx((3, 3, 3))


def test_models_that_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="at least one model"):
        graphprune.bench()
    with pytest.raises(InputError, match="has no NoSuchProvider"):
        graphprune.bench(chain(), provider="NoSuchProvider")
    net = Net()
    other = net.model(net.conv(net.input("y", ["batch", 3, 8, 8]), 3, 4))
    with pytest.raises(InputError, match="'y' is none of the first"):
        graphprune.bench(chain(), other)
    if not trt.gpu():
        with pytest.raises(BackendError, match=r"no GPU here|not installed"):
            graphprune.bench(chain(), chain(), tensorrt=True)
    with pytest.raises(InputError, match="ONNX Runtime fails"):
        graphprune.bench(chain(), attention(), rounds=2)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(residual(), tmp_path / "a.onnx")
    graphprune.prune(tmp_path / "a.onnx", tmp_path / "b.onnx", ratio=0.5)
    command = ["bench", str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), "--rounds", "5", "--threads", "1"]
    cases = (([], 0, "times as fast"), (["--json"], 0, '"ratios"'), (["--min-speedup", "1e6"], 1, ""))
    for more, status, words in cases:
        with pytest.raises(SystemExit) as done:
            main([*command, *more])
        shown = capsys.readouterr()
        assert int(done.value.code or 0) == status and words in shown.out
        if more == ["--json"]:
            assert json.loads(shown.out)["threads"] == 1


def test_inputs_that_are_given_are_timed(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.zeros((3, 3, 8, 8)))
    assert graphprune.bench(chain(), inputs=tmp_path / "in.npz", rounds=2).shapes == {"x": [3, 3, 8, 8]}
