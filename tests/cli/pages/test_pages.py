"""Pages without a browser: what stands in them, that no name becomes markup, and that they stay small."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import onnx
import pytest

import graphprune
import models
from graphprune.analysis import cost
from graphprune.cli.harmless import harmless
from graphprune.cli.layers import layers_data
from graphprune.cli.pages import documents, page
from graphprune.cli.pages.subjects import subjects
from graphprune.errors import InputError
from graphprune.rewrite.removal import Removal
from models.small import residual
from tests.cli.pages import pieces
from tests.helpers import command


class Read(HTMLParser):
    """Tags, attributes and texts of a page, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside != "script":
            self.texts.append(data)


def built(*data: dict[str, Any]) -> str:
    return page.build([one for own in data for one in documents.read(json.loads(json.dumps(own)), "a.json")])


@pytest.mark.parametrize("make", pieces.ALL, ids=lambda make: make.__name__)
def test_every_section_is_there(make: Callable[[], dict[str, Any]]) -> None:
    read = Read(built(make()))
    ids = [value for tag, name, value in read.attributes if tag == "section" and name == "id"]
    assert ids == pieces.SECTIONS[make.__name__]
    links = [value for tag, name, value in read.attributes if tag == "a" and name == "href"]
    assert {f"#{id}" for id in ids} <= set(links)
    for tag in ("main", "nav", "header", "footer", "h1"):
        assert read.tags[tag] == 1


@pytest.mark.parametrize("make", pieces.ALL, ids=lambda make: make.__name__)
def test_no_name_becomes_markup(make: Callable[[str], dict[str, Any]]) -> None:
    """The same tags and attributes with a hostile name as with a tame one, and the name is there as text."""
    hostile, tame = Read(built(make(pieces.HOSTILE))), Read(built(make("tame")))
    assert hostile.tags - Counter(wbr=hostile.tags["wbr"]) == tame.tags - Counter(wbr=tame.tags["wbr"])
    names = [sorted((tag, name) for tag, name, _ in one.attributes) for one in (hostile, tame)]
    assert names[0] == names[1] and not any(name.startswith("on") for _, name in names[0])
    assert hostile.tags["img"] == 0
    assert harmless(pieces.HOSTILE) in "".join(hostile.texts)


def test_nothing_is_loaded_from_anywhere() -> None:
    text = built(*(make() for make in pieces.ALL))
    read = Read(text)
    for tag, name, value in read.attributes:
        if name in ("src", "href", "action", "data", "srcset", "poster"):
            assert value is not None and value.startswith("#"), (tag, name, value)
    assert "@import" not in text and "url(" not in re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    policy = next(v for _, n, v in read.attributes if n == "content" and v and "default-src" in v)
    assert "default-src 'none'" in policy and policy.count("sha256-") == text.count("<script>") == 3
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_data_stands_in_the_page() -> None:
    text = built(pieces.result())
    held = re.findall(r'<script type="application/json">(.*?)</script>', text, flags=re.S)
    rows = json.loads(held[0])["rows"]
    assert rows[0][:4] == [f"{harmless(pieces.HOSTILE)}0", "Conv", 16, 8] and rows[0][10] == -1 and rows[1][10] == 0
    assert not any(sign in one for one in held for sign in "<>&")


def test_it_stays_under_a_megabyte_whatever_the_model() -> None:
    large = pieces.result("a_rather_long_name_of_a_node/in/a/deep/module/")
    for key in ("layers", "untouched", "compensated", "blocks"):
        large[key] = large[key] * 500
    large["choices"][0]["groups"] *= 1500
    text = built(large)
    assert len(text.encode()) <= page.MOST and "more rows are left out" in text


def test_what_is_about_one_model_stands_together() -> None:
    own = [pieces.result("m.onnx"), pieces.verdict("m.onnx.pruned"), pieces.bench("m.onnx"), pieces.sweep("m.onnx")]
    assert Read(built(*own)).tags["h1"] == 1 and "2 models" not in built(*own)
    other = Read(built(*own, pieces.result("n.onnx")))
    assert other.tags["h2"] == 2 and "2 models" in "".join(other.texts)
    run = {"format": "graphprune-run/1", "models": [{**pieces.result("m.onnx"), "error": None}, {"error": "no"}]}
    assert Read(built(run)).tags["h1"] == 1


def told(*data: tuple[str, dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Subjects of some documents: what they are called, and kinds of what is about them."""
    read = [one for where, own in data for one in documents.read(json.loads(json.dumps(own)), where)]
    return [(one.model, [own.kind for own in one.documents]) for one in subjects(read)]


def test_what_is_about_another_model_stands_apart() -> None:
    plan = pieces.plan("m.onnx")
    mine, other = pieces.verdict("small.onnx"), pieces.verdict("other.onnx")
    assert told(("small.plan.json", plan), ("ov.json", other)) == [("m.onnx", ["plan"]), ("other.onnx", ["verdict"])]
    assert told(("v.json", mine), ("small.plan.json", plan)) == [("m.onnx", ["verdict", "plan"])]
    result = pieces.result("m.onnx")
    both = [{**result, "error": None, "file": f"{folder}/m.onnx"} for folder in "AB"]
    assert told(("run.json", {"format": "graphprune-run/1", "models": both})) == [
        ("A/m.onnx", ["result"]),
        ("B/m.onnx", ["result"]),
    ]
    changed = {**plan, "model": {**plan["model"], "sha256": "1" * 64}}
    assert len(told(("a.plan.json", plan), ("b.plan.json", changed))) == 2
    assert len(told(("a.plan.json", plan), ("b.json", {**result, "sha256": "0" * 64}))) == 1
    assert told(("a.plan.json", plan), ("s.json", pieces.sweep("n.onnx")))[0] == ("m.onnx", ["plan", "sweep"])


def test_the_worst_verdict_and_its_own_time_are_shown() -> None:
    result = {**pieces.result("m.onnx"), "output": "s.onnx", "verdict": None}
    passed, failed = ({**pieces.verdict("s.onnx"), "passed": state} for state in (True, False))
    text = "".join(Read(built(result, passed, failed)).texts)
    assert "Validation failed" in text and "Validation passed" not in text
    text = "".join(Read(built(result, {**passed, "model": "m.onnx"})).texts)
    assert "Validation passed" not in text, "the original's"
    bench = pieces.bench("m.onnx")  # of which the other model is m.onnx.pruned
    for output, there in (("s.onnx", False), ("m.onnx.pruned", True), (None, True)):
        assert ("1.50\u00d7" in built({**result, "output": output}, bench)) is there


def test_what_is_no_json_of_ours_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = {**pieces.verdict("m"), "levels": [{"name": "comparison"}]}
    files = {"list": [], "other": {"a": 1}, "next": {"format": "graphprune-plan/9"}, "broken": broken}
    for name, data in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(data))
    (tmp_path / "text.json").write_text("no")
    for name in (*files, "text", "none"):
        status, _, err = command(capsys, "report", tmp_path / f"{name}.json", "-o", tmp_path / "r.html")
        assert status == 2 and f"{name}.json" in err and err.count("\n") == 1
    status, _, err = command(capsys, "report", tmp_path / "none.json", "-o", tmp_path / "r.pdf")
    assert status == 2 and ".html" in err
    assert not (tmp_path / "r.html").exists()
    with pytest.raises(InputError, match="nothing to report"):
        page.build([])


def spots(data: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """Where something stands in JSON: of a list the first entry alone."""
    inside = data.items() if isinstance(data, dict) else list(enumerate(data))[:1] if isinstance(data, list) else ()
    for key, value in inside:
        yield (*path, key)
        yield from spots(value, *path, key)


@pytest.mark.parametrize("make", pieces.ALL, ids=lambda make: make.__name__)
def test_what_is_written_wrongly_is_bad_input(
    make: Callable[[str], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands anywhere in place of what should: a page or an InputError, and no other error."""
    monkeypatch.setattr(page, "_read", lambda name: "")
    data = json.loads(json.dumps(make("m")))
    refused = 0
    for *path, last in list(spots(data)):
        holder = data
        for key in path:
            holder = holder[key]
        kept = holder[last]
        for value in (None, 0, "x", [None]):
            holder[last] = value
            try:
                page.build(list(documents.read(data, "a.json")))
            except InputError:
                refused += 1
        holder[last] = kept
    assert refused


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 3000 + "]" * 3000, "too deep"),
        ('{"a":' * 900 + "1" + "}" * 900, "too deep"),
        ('{"model": "m", "before": 1e999}', "no finite number"),
        ('{"model": "m", "before": -Infinity}', "no finite number"),
        ('{"format": "graphprune-run/1", "models": 5}', "'models'"),
        ('{"format": "graphprune-run/1", "models": [5]}', "'models'"),
    ],
)
def test_numbers_that_are_none_and_depths_are_bad_input(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=told):
        documents.load(tmp_path / "a.json")


def test_a_proof_has_the_worst_that_is_known() -> None:
    plan = pieces.plan("m")
    plan["proof"]["outputs"] = [
        {"name": name, "max_abs": rel, "max_rel": rel} for name, rel in (("a", None), ("b", 0.5))
    ]
    del plan["proof"]["worst"]
    assert documents.of_plan(plan)["proof"]["worst"] == 0.5


def test_commands_write_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(residual(), "m.onnx")
    prune = ["prune", "m.onnx", "-o", "s.onnx", "--ratio", "0.5", "--json", "s.json", "-q", "--report"]
    assert command(capsys, *prune, "s.html")[0] == 0
    text = Path("s.html").read_text()
    ids = {value for tag, name, value in Read(text).attributes if tag == "section" and name == "id"}
    assert {"costs", "layers", "proof", "choices", "latency", "recipe"} <= ids
    data = json.loads(Path("s.json").read_text())
    assert [one["width"] for one in data["layers"]] and data["recipe"].startswith("format")
    study = ["sensitivity", "m.onnx", "--calibration", "generated", "--levels", "0.5", "--metric", "distance"]
    assert command(capsys, *study, "-q", "-o", "study.html")[0] == 0
    assert 'data-picture="heat"' in Path("study.html").read_text()
    status, _, err = command(capsys, *study, "-q", "-o", "study.html", "--report", "other.html")
    assert status == 2 and "one place" in err
    for arguments, status in (
        (["inspect", "m.onnx"], 0),
        (["validate", "s.onnx", "--against", "m.onnx", "--max-abs", "0"], 1),
    ):
        assert command(capsys, *arguments, "-q", "--report", f"{arguments[0]}.html")[0] == status
        assert Path(f"{arguments[0]}.html").stat().st_size < page.MOST
    status, out, _ = command(capsys, "report", "s.plan.json", "s.json")
    assert status == 0 and "report.html" in out
    assert command(capsys, "report", "s.plan.json", "-q", "-o", "plan.html")[:2] == (0, "")
    assert "A plan knows groups" in Path("plan.html").read_text()
    status, _, err = command(capsys, *prune, "s.json")
    assert status == 2 and ".html" in err
    status, _, err = command(capsys, "report", "s.json", "-o", "s.json.html", "-q")
    assert status == 0 and not err


def test_layers_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Widths and MACs of layers are those of the model that is written."""
    monkeypatch.chdir(tmp_path)
    onnx.save(residual(), "m.onnx")
    assert command(capsys, "prune", "m.onnx", "-o", "s.onnx", "--ratio", "0.5", "--json", "s.json", "-q")[0] == 0
    data = json.loads(Path("s.json").read_text())
    for place, key in enumerate(("before", "after")):
        assert sum(one["macs"][place] for one in data["layers"]) == data[key]["macs"]
    shapes = [list(one.dims) for one in onnx.load("s.onnx").graph.initializer]
    for one in data["layers"]:
        assert one["shape"][1] in shapes and one["width"][1] in one["shape"][1]


@pytest.mark.parametrize("name", ["gru-tagger-ts13", "yolo-int8-ort18"])
def test_layers_have_all_the_work_of_any_weights(name: str) -> None:
    """Of recurrent layers, and of weights of eight bits that are scaled before they are read."""
    analysis = graphprune.analyze(models.export(name))
    selection = {g.id: range(g.size // 4) for g in analysis.groups if not g.pinned.any()}
    layers = {one["node"]: one for one in layers_data(analysis, selection)}
    after = cost.macs(analysis, Removal(analysis, selection).sizes())
    assert [sum(one["macs"][k] for one in layers.values()) for k in (0, 1)] == [cost.macs(analysis), after]
    assert cost.macs(analysis) > after
    for one in layers.values():
        assert one["by"] is None or one["by"] in one["groups"]
