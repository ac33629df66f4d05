"""The command line as a user meets it: what it prints, where, and its exit status."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import onnx
import pytest
from onnx import helper

import graphprune
import models
from graphprune.cli import commands, helping
from models.small import Net, attention, chain, residual
from tests.helpers import bare
from tests.helpers import command as run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model in it."""
    monkeypatch.chdir(tmp_path)
    onnx.save(residual(), "m.onnx")
    return tmp_path


def test_inspect_lists_groups_and_what_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "inspect", "m.onnx")
    assert status == 0 and not err
    for group in graphprune.analyze("m.onnx").groups:
        assert group.id in out
    assert "it is the input 'x' of the graph" in out and "exact" in out


def test_names_do_not_command_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, evil = chain(), "\x1b]0;mine\x07[red]"
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = evil
    onnx.save(model, "evil.onnx")
    _, out, err = run(capsys, "inspect", "evil.onnx", "-v")
    _, explained, more = run(capsys, "explain", "evil.onnx", evil)
    assert "]0;mine" in out and "[red]" in out and "]0;mine" in explained
    assert "\x1b" not in out + err + explained + more and "\x07" not in out + err + explained + more


def test_inspect_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "inspect", "m.onnx", "--json")
    data = json.loads(out)
    assert status == 0 and [g["size"] for g in data["groups"]] == [16, 12, 12]
    assert {"id", "kind", "size", "statistical", "tensors", "parameters", "macs", "reasons"} <= data["groups"][0].keys()
    status, out, _ = run(capsys, "inspect", "m.onnx", "-q", "--json", "data.json")
    assert not out and json.loads((folder / "data.json").read_text()) == data


def test_prune_prints_what_it_did(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "prune", "m.onnx", "-o", "out.onnx", "--ratio", "0.5")
    assert status == 0 and not err
    for word in ("parameters", "MACs", "bytes", "channel classes in 3 groups", "proof: holds", "time:", "written: out"):
        assert word in out
    assert sorted(p.name for p in folder.iterdir()) == ["m.onnx", "out.onnx", "out.plan.json"]


def test_a_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ("-o", "o.onnx", "--plan", "p.json", "--save-recipe", "r.toml")
    status, out, _ = run(capsys, "prune", "m.onnx", "--ratio", "0.5", *named, "--dry-run", "--json")
    assert status == 0 and json.loads(out)["proof"]["worst"] < 1e-4
    assert [p.name for p in folder.iterdir()] == ["m.onnx"]


def test_options_reach_the_selection(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = graphprune.analyze("m.onnx").groups[1].id
    command = ["prune", "m.onnx", "-o", "out.onnx", "--ratio", "0.4", "--include", group, "--plan", "p.json"]
    assert run(capsys, *command, "--align", "4", "--seed", "7", "-q")[:2] == (0, "")
    plan = json.loads((folder / "p.json").read_text())
    assert [(g["id"], len(g["removed"])) for g in plan["groups"]] == [(group, 4)]
    assert plan["proof"]["inputs"][0]["seed"] == 7
    assert not (folder / "out.plan.json").exists()


def test_apply_replays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "prune", "m.onnx", "-o", "a.onnx", "--ratio", "0.5")
    status, out, _ = run(capsys, "apply", "a.plan.json", "m.onnx", "-o", "b.onnx")
    assert status == 0 and "proof: holds" in out
    assert bare(folder / "a.onnx") == bare(folder / "b.onnx")


def test_explain_a_group_a_node_and_a_stranger(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = graphprune.analyze("m.onnx").groups[0].id
    status, out, _ = run(capsys, "explain", "m.onnx", group)
    assert status == 0 and "16 classes, exact" in out and "weights (" in out
    node = next(n.name for n in residual().graph.node if n.op_type == "Gemm")
    status, out, _ = run(capsys, "explain", "m.onnx", node)
    assert (
        "m k, o k, o -> m o\n  it says (numbers are inputs): zero 0*1+2, macs m k o\n" in out
        and group in out
        and "not prunable, it is the output" in out
    )
    status, _, err = run(capsys, "explain", "m.onnx", node[:-1] + "99")
    assert status == 2 and "did you mean" in err and node in err


def test_explain_says_why_something_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(models.export("bert-base-dynamo"), "bert.onnx")
    fixed = graphprune.analyze("bert.onnx").fixed
    hidden = max(fixed, key=lambda g: g.parameters.sum())
    status, out, _ = run(capsys, "explain", "bert.onnx", hidden.id)
    assert status == 0 and "stays because it is the output" in out and "reached from its weights through" in out


def test_a_plain_proof_only_on_request(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "prune", "m.onnx", "--ratio", "0.5", "--no-proof", "--dry-run")
    assert "proof: not asked for" in out


def unknown_operator() -> onnx.ModelProto:
    net = Net()
    y = net.op("Strange", net.linear(net.input("x", ["batch", 4]), 4, 6), domain="com.example")
    return net.model(net.linear(y, 5, 2), domains=["com.example"], rank=2)


def beside_an_unknown_operator() -> onnx.ModelProto:
    net = Net()
    x = net.input("x", ["batch", 4])
    y = net.op("Strange", net.linear(x, 4, 6), domain="com.example")
    known = net.linear(net.op("Relu", net.linear(x, 4, 8)), 8, 2)
    return net.model(y, known, domains=["com.example"], rank=2)


def unprunable() -> onnx.ModelProto:
    net = Net()
    return net.model(net.linear(net.input("x", ["batch", 4]), 4, 6))


def statistical_only() -> onnx.ModelProto:
    net = Net()
    y = net.linear(net.input("x", ["batch", "length", 4]), 4, 6)
    y = net.op("LayerNormalization", y, net.weight(6), net.weight(6))
    return net.model(net.linear(y, 6, 3))


def undeclared_domain() -> onnx.ModelProto:
    model = chain()
    model.graph.node[1].domain = "com.example"
    return model


BAD = {
    "missing": (None, ["--ratio", "0.3"], "no such file"),
    "text": (b"some text", ["--ratio", "0.3"], "not an ONNX model"),
    "empty": (b"", ["--ratio", "0.3"], "not an ONNX model"),
    "truncated": (chain().SerializeToString()[:-200], ["--ratio", "0.3"], "m.onnx"),
    "cut in a weight": (chain().SerializeToString()[:900], ["--ratio", "0.3"], "m.onnx"),
    "without weights": (
        helper.make_model(
            helper.make_graph(list(chain().graph.node)[::-1], "g", chain().graph.input, chain().graph.output)
        ).SerializeToString(),
        ["--ratio", "0.3"],
        "is made by no node",
    ),
    "undeclared domain": (undeclared_domain().SerializeToString(), ["--ratio", "0.3"], "'com.example' is not among"),
    "unknown operator": (unknown_operator().SerializeToString(), ["--ratio", "0.3"], "Strange"),
    "beside an unknown operator": (
        beside_an_unknown_operator().SerializeToString(),
        ["--ratio", "0.3"],
        "--no-proof goes on without one",
    ),
    "ratio of one": (chain().SerializeToString(), ["--ratio", "1"], "--ratio 1 is out of range"),
    "negative ratio": (chain().SerializeToString(), ["--ratio", "-0.5"], "out of range"),
    "ratio that is no number": (
        chain().SerializeToString(),
        ["--ratio", "nan"],
        "--ratio nan is out of range",
    ),
    "word for a ratio": (chain().SerializeToString(), ["--ratio", "much"], "much"),
    "nothing prunable": (unprunable().SerializeToString(), ["--ratio", "0.3"], "nothing is prunable"),
    "only statistical": (statistical_only().SerializeToString(), ["--ratio", "0.3"], "statistical"),
    "too small a ratio": (chain().SerializeToString(), ["--ratio", "0.01"], "the smallest that does is 0.125"),
    "unknown glob": (chain().SerializeToString(), ["--ratio", "0.3", "--include", "zz*"], "'zz*' matches no group"),
    "unknown input": (chain().SerializeToString(), ["--ratio", "0.3", "--input-shape", "y=1"], "names 'y'"),
    "no shape": (chain().SerializeToString(), ["--ratio", "0.3", "--input-shape", "x=axb"], "not like NAME"),
    "no folder": (chain().SerializeToString(), ["--ratio", "0.3", "-o", "nowhere/out.onnx"], "folder does not exist"),
    "itself": (chain().SerializeToString(), ["--ratio", "0.3", "-o", "m.onnx"], "is the model itself"),
    "unknown option": (chain().SerializeToString(), ["--ratio", "0.3", "--speed"], "--speed"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, options, message = BAD[case]
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("m.onnx").write_bytes(content)
    output = [] if "-o" in options else ["-o", "out.onnx"]
    status, out, err = run(capsys, "prune", "m.onnx", *output, *options)
    assert status == 2 and not out
    assert message in err and err.startswith("graphprune: error: ") and err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ([] if content is None else ["m.onnx"])
    assert content is None or Path("m.onnx").read_bytes() == content


def test_inspect_of_an_operator_without_a_rule_says_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net()
    y = net.op("CDist", net.linear(net.input("x", ["batch", 4]), 4, 6), net.weight(5, 6), domain="com.microsoft")
    onnx.save(net.model(net.linear(y, 5, 2), domains=["com.microsoft"], rank=2), tmp_path / "m.onnx")
    status, out, _ = run(capsys, "inspect", str(tmp_path / "m.onnx"))
    assert status == 0 and "com.microsoft:CDist has no rule" in out and "node_CDist" in out


def test_without_a_proof_an_unknown_operator_only_pins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(beside_an_unknown_operator(), tmp_path / "m.onnx")
    status, out, _ = run(capsys, "inspect", str(tmp_path / "m.onnx"))
    assert status == 0 and "com.example:Strange has no rule" in out
    command = ["prune", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "out.onnx"), "--ratio", "0.5", "--no-proof"]
    status, out, _ = run(capsys, *command)
    assert status == 0 and "feature classes in 1 group " in out and "proof: not asked for" in out


def test_the_module_and_the_script_are_the_same_program(tmp_path: Path) -> None:
    onnx.save(attention(), tmp_path / "m.onnx")
    command = [sys.executable, "-m", "graphprune", "prune", "m.onnx", "-o", "out.onnx", "--ratio", "0.5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "proof: holds" in done.stdout
    script = Path(sys.executable).with_name("graphprune")
    version = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert graphprune.__version__ in version.stdout


@pytest.mark.parametrize("command", [[], ["inspect"], ["prune"], ["apply"], ["explain"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, *command, "--help")
    assert status == 0 and "Usage: graphprune" in out


def test_every_command_is_in_the_help_and_starts() -> None:
    folder = Path(commands.__file__).parent
    made = {n for p in folder.rglob("*.py") for n in re.findall(r'@click\.command\("([\w-]+)"', p.read_text())}
    assert set(commands._COMMANDS) == made
    for name in commands._COMMANDS:
        found = commands.cli.get_command(click.Context(commands.cli), name)
        assert found is not None and found.name == name
    assert sorted(name for names in commands._SECTIONS.values() for name in names) == sorted(commands._COMMANDS)
    assert helping.EXAMPLES.keys() == commands._COMMANDS.keys()


@pytest.mark.parametrize("name", commands._COMMANDS)
def test_every_option_has_a_group_and_every_example_is_one(name: str) -> None:
    command = commands.cli.get_command(click.Context(commands.cli), name)
    assert command is not None
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert [p.name for p in options if helping.title_of(name, str(p.name)) is None] == []
    program, given, *words = shlex.split(helping.EXAMPLES[name])
    assert (program, given) == ("graphprune", name)
    command.make_context(name, words)  # parses


def test_completion_knows_commands_and_options() -> None:
    for words, wanted in (("graphprune spar", "sparsify"), ("graphprune prune --dry", "--dry-run")):
        asked = {"_GRAPHPRUNE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = subprocess.run(
            [sys.executable, "-m", "graphprune"], env={**os.environ, **asked}, capture_output=True, text=True
        )
        assert done.stdout == f"plain,{wanted}\n"
