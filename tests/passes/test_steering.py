"""What is said of single groups and regions holds, by what is left, and in rounds in terms of the original."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import onnx
import pytest

import graphprune
import models
from graphprune import Steering
from graphprune.errors import InputError
from models.small import Net
from tests.helpers import command
from tests.passes.test_ties import layers as sharing

DETECTOR = "feature-pyramid-ts11"


def named(*widths: int) -> onnx.ModelProto:
    """Layers whose nodes are called ``/body/N/MatMul``, the last three ``/head/N/MatMul``; one group between two."""
    net = Net()
    y, last = net.input("x", ["batch", 16]), 16
    for k, size in enumerate((*widths, 5)):
        place = "head" if k > len(widths) - 3 else "body"
        y = net.op("MatMul", net.op("Tanh", y) if k else y, net.weight(last, size, stem=f"{place}.{k}.weight"))
        net.nodes[-1].name, last = f"/{place}/{k}/MatMul", size
    return net.model(y)


def left(model: onnx.ModelProto) -> list[int]:
    return [t.dims[1] for t in model.graph.initializer if len(t.dims) == 2]


def pruned(steering: Steering | None = None, ratio: float = 0.5, **options: Any) -> list[int]:
    return left(graphprune.prune(named(40, 40, 40, 40), ratio=ratio, align=1, steering=steering, **options).proto)


@pytest.mark.parametrize(
    ("steering", "expected"),
    [
        (Steering(ratios={"body/": 0.25}), [30, 30, 20, 20, 5]),
        (Steering(ratios={"body.": 0.25}), [30, 30, 20, 20, 5]),  # by names of weights
        (Steering(ratios={"/body/*": 0.25, "head/": 0}), [30, 40, 40, 40, 5]),  # the last that matches says
        (Steering(ratios={"head/": 0, "/body/*": 0.25}), [30, 30, 40, 40, 5]),
        (Steering(limits={"body/": 0.1}), [36, 36, 20, 20, 5]),
        (Steering(limits={"*": 0.1, "head/": 1.0}), [36, 20, 20, 20, 5]),
        (Steering(min_width=25), [25, 25, 25, 25, 5]),
        (Steering(keep_first=1), [40, 20, 20, 20, 5]),
        (Steering(keep_last=2), [20, 20, 40, 40, 5]),
        (Steering(keep_first=9), None),
        (Steering(before=["/body/1/MatMul"]), None),  # all groups end in it or behind it
        (Steering(before=["/head/2/MatMul"]), [20, 40, 40, 40, 5]),
        (Steering(after=["/body/0/MatMul"]), [40, 20, 20, 20, 5]),
        (Steering(before=["/head"]), [20, 40, 40, 40, 5]),  # modules
        (Steering(after=["body"]), [40, 40, 20, 20, 5]),
        (Steering(ratios={"body": 0.25}), [30, 30, 20, 20, 5]),
        (Steering(after=["/body/0/MatMul"], before=["/head/3/MatMul"]), [40, 20, 40, 40, 5]),
    ],
)
def test_what_is_left(steering: Steering, expected: list[int] | None) -> None:
    if expected is None:
        with pytest.raises(InputError, match="nothing can be removed: group"):
            pruned(steering)
    else:
        assert pruned(steering) == expected


def test_what_is_left_out_may_be_a_module() -> None:
    assert pruned(exclude=["/head/3"]) == [20, 20, 40, 40, 5] and pruned(include=["head.3"]) == [40, 40, 20, 20, 5]
    with pytest.raises(
        InputError, match=r"'/hea' matches no group, and no node or weight of one; did you mean '/head'"
    ):
        pruned(exclude=["/hea"])


def test_reasons() -> None:
    steering = Steering(ratios={"body/0/*": 0}, limits={"head/4/*": 0.01}, keep_last=1)
    result = graphprune.prune(named(40, 40, 40, 40), ratio=0.5, steering=steering)
    assert [str(one) for one in result.untouched] == [
        "its ratio is 0",
        "--keep-last 1: it cuts the layer '/head/4/MatMul'",
    ]
    result = graphprune.prune(named(40, 40), ratio=0, steering=Steering(ratios={"head/0/*": 0.5}))
    assert left(result.proto) == [20, 40, 5] and [str(one) for one in result.untouched] == ["nothing is asked of it"]


def removed(model: onnx.ModelProto, **options: Any) -> set[str]:
    """Nodes of which a weight is cut."""
    result = graphprune.prune(model, ratio=0.5, **options)
    assert result.proof is not None and result.proof.worst < 1e-5
    makers = {out: node.name for node in model.graph.node for out in node.output}
    return {makers[entry.consumer] for entry in result.plan.slices}


def test_regions_of_a_detector() -> None:
    """Beside reachability in the file itself."""
    model = models.export(DETECTOR)
    graph: nx.DiGraph[str] = nx.DiGraph()
    makers = {out: node.name for node in model.graph.node for out in node.output}
    for node in model.graph.node:
        graph.add_edges_from((makers[n], node.name) for n in node.input if n in makers)
    edges = [f"/smooth.{k}/Conv" for k in range(3)]
    before = removed(model, steering=Steering(before=edges[:1]))
    assert before and before <= nx.ancestors(graph, edges[0])
    after = removed(model, steering=Steering(after=edges))
    assert after and after <= set().union(*(nx.descendants(graph, edge) for edge in edges))
    both = removed(model, steering=Steering(before=[f"/smooth.{k}/Conv_output_0" for k in range(3)]))
    assert both & {*edges} and both <= {*edges}.union(*(nx.ancestors(graph, edge) for edge in edges))


def test_layers_of_quantised_weights_are_told_by_what_reads_them() -> None:
    model = models.export("yolo-int8-ort18")
    order = [node.name for node in model.graph.node if node.op_type == "Conv"]
    whole = {entry.consumer for entry in graphprune.prune(model, ratio=0.5).plan.slices}
    steered = {
        entry.consumer for entry in graphprune.prune(model, ratio=0.5, steering=Steering(keep_first=2)).plan.slices
    }
    readers = {node.name: set(node.input) for node in model.graph.node}
    first, third = readers[order[0]], readers[order[2]]
    assert first & whole and not first & steered and steered & third


def test_an_allocation_takes_what_is_said_and_shares_the_rest() -> None:
    rng = np.random.default_rng(0)
    calibration = {"x": rng.standard_normal((64, 16)).astype(np.float32)}
    said = Steering(ratios={"body/0/*": 0.75}, limits={"head/4/*": 0.1})
    found = pruned(said, ratio=0.4, calibration=calibration)
    assert found[0] == 10 and found[3] >= 36 and min(found[1:3]) < 40
    even = left(graphprune.prune(named(40, 40, 40, 40), ratio=0.4, align=1, steering=said).proto)
    macs = [sum(a * b for a, b in zip([16, *w], w, strict=False)) for w in (found, even)]
    assert even == [10, 24, 24, 36, 5] and macs[0] <= macs[1]


@pytest.mark.parametrize("calibrated", [False, True])
def test_rounds_count_in_the_original(calibrated: bool) -> None:
    rng = np.random.default_rng(0)
    data = {"calibration": {"x": rng.standard_normal((64, 16)).astype(np.float32)}} if calibrated else {}
    steering = Steering({"body/0/*": 0.75}, {"head/4/*": 0.25}, min_width=22, keep_last=1)
    found = pruned(steering, steps=3, **data)
    assert found[0] == 22 and found[3] == 40 and min(found[1:3]) >= 22  # the least width is stricter than the ratio
    steering = Steering({"body/0/*": 0.75}, {"head/3/*": 0.25})
    found = pruned(steering, steps=3, **data)
    assert found[0] == 10 and found[2] >= 30
    assert pruned(Steering({"body/0/*": 0.75}), ratio=0, steps=2, **data) == [10, 40, 40, 40, 5]


def test_of_groups_that_go_together_the_strictest_holds() -> None:
    model = sharing(shared=True)
    first, second = (g.id for g in graphprune.analyze(model).groups)

    def gone(steering: Steering, ratio: float = 0.5) -> Mapping[str, int]:
        return {
            g.id: len(g.removed) for g in graphprune.prune(model, ratio=ratio, align=1, steering=steering).plan.groups
        }

    assert gone(Steering()) == {first: 6, second: 6}
    assert gone(Steering({first: 0.25, second: 0.75})) == {first: 3, second: 3}
    assert gone(Steering(limits={second: 0.1})) == {first: 1, second: 1}
    with pytest.raises(InputError, match="which stays"):
        gone(Steering({second: 0}))


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_a_file_says_the_same_as_options(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, file, recipe = tmp_path / "m.onnx", tmp_path / f"s.{suffix}", tmp_path / "r.toml"
    onnx.save(named(40, 40, 40, 40, 40), model)

    def run(name: str, *options: str | Path) -> list[int]:
        target = tmp_path / name
        assert command(capsys, "prune", model, "-o", target, "-q", "--align", "1", *options) == (0, "", "")
        return left(onnx.load(target))

    if suffix == "toml":
        text = 'min_width = 12\nkeep_last = 1\n[[groups]]\nmatch = "body/"\nratio = 0.25\nlimit = 0.2\n'
        text += '[[groups]]\nmatch = "body/0/*"\nkeep = true\n'
        file.write_text('format = "graphprune-steering/1"\n' + text)
    else:
        groups = [{"match": "body/", "ratio": 0.25, "limit": 0.2}, {"match": "body/0/*", "keep": True}]
        file.write_text(
            json.dumps({"format": "graphprune-steering/1", "min_width": 12, "keep_last": 1, "groups": groups})
        )
    options = ["--ratio", "0.9", "--ratio", "body/=0.25", "--ratio", "body/0/*=0", "--limit", "body/=0.2"]
    options += ["--min-width", "12", "--keep-last", "1"]
    expected = [40, 32, 32, 12, 40, 5]
    assert run("a.onnx", "--ratio", "0.9", "--steer", file) == run("b.onnx", *options) == expected
    assert run("c.onnx", "--ratio", "0.9", "--steer", file, "--ratio", "body/0/*=0.1") == [36, *expected[1:]]
    assert run("d.onnx", *options, "--save-recipe", recipe) == expected
    assert command(capsys, "run", recipe, model, "-q", "-o", tmp_path / "e.onnx") == (0, "", "")
    assert (tmp_path / "e.onnx").stat().st_size and left(onnx.load(tmp_path / "e.onnx")) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ratio", "0.3", "--ratio", "heads/*=0.1"], "'heads/*' matches no group, and no node or weight of one"),
        (["--ratio", "0.3", "--limit", "nothing=0.1"], "'nothing' matches no group"),
        (
            ["--ratio", "0.3", "--before", "/head/9/MatMul"],
            "there is no tensor, no node and no module '/head/9/MatMul'; did",
        ),
        (["--ratio", "head/=1"], "--ratio head/=1 is out of range: the share must be at least 0 and below 1"),
        (["--ratio", "0.3", "--limit", "1.5"], "--limit *=1.5 is out of range: the share must be from 0 to 1"),
        (["--ratio", "0.3", "--min-width", "0"], "--min-width 0 is out of range: it must be at least 1"),
        (["--ratio", "0.3", "--keep-first", "-1"], "--keep-first -1 is out of range: it must be at least 0"),
        (["--ratio", "0.3", "--ratio", "0.4"], "'0.4' is the second for all groups"),
        (["--ratio", "head/*"], "'head/*' is neither a share, as 0.3, nor GLOB=0.3"),
        (["--ratio", "0.3", "--steer", "none.toml"], "none.toml: no such file"),
    ],
)
def test_slips(options: Sequence[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "m.onnx"
    onnx.save(named(40, 40, 40), model)
    status, _, errors = command(capsys, "prune", model, *options)
    assert status == 2 and message in " ".join(errors.split()) and "Traceback" not in errors


def test_a_file_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('format = "graphprune-steering/1"\n[[groups]]\nmatch = "a"\nratio = 2\n')
    with pytest.raises(InputError, match=r"s\.toml: groups\.1\.ratio: 2 is greater"):
        graphprune.prune(named(40, 40), ratio=0.3, steering=file)
