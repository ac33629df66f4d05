"""What a user learns of a long job while it lasts."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import graphprune
from graphprune.cli import watching
from graphprune.model import load
from graphprune.passes import driver
from graphprune.passes.budget import COSTS
from graphprune.passes.depth.depth import Request
from graphprune.passes.distill.distill import STEPS, Distill
from graphprune.passes.state import State
from graphprune.progress import Progress
from graphprune.rewrite.plan import Plan
from graphprune.verdict import verdict
from models.small import attention, chain, residual
from tests.helpers import command as run
from tests.helpers import drained


def test_phases_follow_each_other_as_planned() -> None:
    seen = []
    progress = Progress(lambda p: seen.append((p.number, p.phase, p.done, p.total)))
    assert progress.number == 0
    progress.plan(["load", "rank", "select", "write"])
    progress.end("load")
    progress.begin("rank")(1, 2)
    assert progress.left is not None
    progress.end("unheard of")
    progress.begin("select")
    progress.end("rank")  # that is behind us
    progress.end("select")
    progress.end("write")
    assert seen == [(1, "load", 0, 0), (2, "rank", 0, 0), (2, "rank", 1, 2), (3, "select", 0, 0), (4, "write", 0, 0)]


Job = Callable[[Path, Progress], Any]


def pruned(folder: Path, progress: Progress) -> Any:
    return graphprune.prune(chain(), folder / "out.onnx", ratio=0.5, calibration="generated", progress=progress)


def sparse(folder: Path, progress: Progress) -> Any:
    model = onnx.load(folder / "m.onnx")
    options = {"pattern": "1:4", "permute": True, "include": ["*"], "checks": graphprune.Checks()}
    return graphprune.sparsify(model, progress=progress, prove=False, **options)  # type: ignore[arg-type]


def shallower(folder: Path, progress: Progress) -> Any:
    return graphprune.prune(attention(), blocks=Request(count=1), progress=progress)


def replayed(folder: Path, progress: Progress) -> Any:
    graphprune.prune(folder / "m.onnx", folder / "a.onnx", ratio=0.5)
    return graphprune.apply(folder / "a.plan.json", folder / "m.onnx", folder / "b.onnx", progress=progress)


@pytest.mark.parametrize(
    ("job", "phases", "stepwise"),
    [
        (
            pruned,
            "load analyze centre rotate observe rank weigh select cut prove fit write",
            "rotate observe rank weigh fit",
        ),
        (sparse, "load analyze permute cut sparsify validate", "permute validate"),
        (shallower, "load analyze select-blocks remove-blocks", "select-blocks"),
        (replayed, "load analyze cut prove write", ""),
    ],
)
def test_every_phase_is_planned_and_told(job: Job, phases: str, stepwise: str, tmp_path: Path) -> None:
    onnx.save(residual(), tmp_path / "m.onnx")
    told: dict[str, list[tuple[int, int]]] = {}
    planned = set()

    def watch(progress: Progress) -> None:
        told.setdefault(progress.phase, []).append((progress.done, progress.total))
        planned.add(tuple(progress.phases))

    job(tmp_path, Progress(watch))
    assert planned == {tuple(phases.split())} and list(told) == phases.split()
    assert [name for name, steps in told.items() if len(steps) > 1] == stepwise.split()
    for name in stepwise.split():
        begun, *steps = told[name]
        assert begun == (0, 0) and steps == [(k + 1, len(steps)) for k in range(len(steps))]


def test_no_terminal_is_told_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(residual(), tmp_path / "m.onnx")
    monkeypatch.setattr(watching, "PAUSE", 0.02)
    wrong = verdict.wrong
    monkeypatch.setattr(verdict, "wrong", lambda model: time.sleep(0.1) or wrong(model))
    status, out, err = run(capsys, "validate", tmp_path / "m.onnx", "--json")
    assert status == 0 and out.startswith("{")
    assert re.match(r"graphprune: validate, 0 s so far\n", err)
    status, _, err = run(capsys, "prune", tmp_path / "m.onnx", "--ratio", "0.5", "--dry-run", "--validate")
    assert status == 0
    assert re.search(r"^graphprune: validate \(phase 7 of 7\), 0 s so far$", err, re.M)
    assert run(capsys, "validate", tmp_path / "m.onnx", "-q") == (0, "", "")


def test_words() -> None:
    progress = Progress()
    progress.plan(["load", "fit"])
    progress.begin("fit")(30, 120)
    progress._start -= 4000
    assert watching.line(progress) == "fit (phase 2 of 2), 25 %, 1 h 6 min so far, 3 h 20 min left of it"
    progress._start += 3930
    assert watching.line(progress) == "fit (phase 2 of 2), 25 %, 1 min 10 s so far, 3 min 30 s left of it"


def test_the_whole_is_foreseen_by_what_phases_cost_beside_each_other() -> None:
    progress = Progress()
    progress.plan(["load", "fit", "judge"], {"load": 1, "fit": 8, "judge": 1})
    assert progress.left_in_all is None, "nothing is done yet"
    progress.begin("fit")
    progress._begun -= 10
    assert progress.left_in_all == pytest.approx(90, abs=1), "load took ten seconds"
    progress.step(1, 4)
    progress._begun -= 20
    progress._start -= 20
    assert progress.left_in_all == pytest.approx(60 + 10, abs=1)
    assert watching.line(progress).endswith("25 %, 20 s so far, 1 min left of it, about 1 min 10 s left in all")


def test_phases_of_rounds_cost_what_they_cost_in_one() -> None:
    seen: list[Progress] = []
    graphprune.prune(chain(), ratio=0.5, steps=2, calibration="generated", progress=Progress(seen.append))
    costs = {phase: seen[-1].costs[phase] for phase in seen[-1].phases}
    assert costs == {phase: COSTS[phase.rpartition(": ")[2]] for phase in costs} and "round 2: weigh" in costs
    model = load(chain())
    state = State(model, model, Plan({}))
    assert driver.costs((Distill(steps=STEPS // 2),), state)["distill"] == COSTS["distill"] / 2


def test_a_terminal_has_a_bar(tmp_path: Path) -> None:
    onnx.save(residual(), tmp_path / "m.onnx")
    own, other = pytest.importorskip("pty").openpty()
    command = [sys.executable, "-m", "graphprune", "prune", "m.onnx", "--ratio", "0.5", "--dry-run"]
    done = subprocess.run(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=other, env={**os.environ, "TERM": "xterm"}
    )
    os.close(other)
    shown = drained(own).decode()
    assert done.returncode == 0 and "(phase 6 of 6)" in shown and b"phase" not in done.stdout
