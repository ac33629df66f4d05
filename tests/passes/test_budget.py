"""Jobs with an end: how many samples they look at, and what passes may take."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

import graphprune
from graphprune.analysis import analyze
from graphprune.errors import InputError
from graphprune.model import load
from graphprune.passes import budget, driver, toml
from graphprune.passes.budget import LEAST, Budget
from graphprune.passes.contract import Pass
from graphprune.passes.cut import Cut
from graphprune.passes.distill.distill import STEPS, Distill
from graphprune.passes.fit.fit import Fit
from graphprune.passes.recipe import Recipe
from graphprune.passes.state import Job, State
from graphprune.rewrite.plan import Plan
from graphprune.run.calibration import Held
from models.small import residual


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("1.5m", 90), (45.5, 45.5), (2, 2)]
)
def test_times(text: str | float, seconds: float) -> None:
    assert budget.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "5 minutes", "m", "-3", "5m1h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InputError, match="--time"):
        budget.seconds(text)


def test_the_time_says_how_many_samples_are_used() -> None:
    analysis = analyze(residual())
    batches = [{"x": np.ones((8, 3, 8, 8), np.float32)}] * 6
    enough = budget.measure(analysis, lambda: batches, Budget(1000, time.monotonic()))
    assert (enough.samples, enough.there) == (48, 48) and enough.each > 0
    none = budget.measure(analysis, lambda: batches, Budget(1e-6, time.monotonic()))
    assert none.samples == LEAST and "may not do" in none.told(Budget(1e-6, 0))
    assert "may not do" not in enough.told(Budget(1000, 0))


def test_rounds_and_what_passes_spend_leave_time_for_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = (0.008 * k for k in itertools.count())  # all that is timed takes 8 ms, and no time goes by
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: next(ticks), monotonic=lambda: 0.0))
    analysis, batches = analyze(residual()), [{"x": np.ones((8, 3, 8, 8), np.float32)}] * 1000

    def samples(*given: Any) -> int:
        return budget.measure(analysis, lambda: batches, Budget(75, 0.0), *given).samples

    assert samples() == pytest.approx(5000, rel=0.01), "60 s are planned for, and each is run 12 times"
    assert samples((), 4) == pytest.approx(1250, rel=0.01)
    assert samples((Distill(),)) == pytest.approx(2500, rel=0.01), "training has half"
    assert samples((Distill(time="15s"),)) == pytest.approx(3750, rel=0.01)
    assert samples((Distill(time="1h"),)) == pytest.approx(1250, rel=0.01), "not all of it"


def test_training_has_the_share_of_a_job_with_an_end() -> None:
    model = load(residual())
    state = State(model, model, Plan({}), Job(calibration="generated"))
    timed = replace(state, budget=Budget(100, time.monotonic()))
    assert Distill()._schedule(state).steps == STEPS
    found = Distill()._schedule(timed)
    assert found.steps is None and found.seconds is not None and 80 < found.seconds < 100
    behind = Distill()._schedule(replace(timed, ahead=(Distill(),))).seconds
    assert behind is not None and 40 < behind < 50, "there is as much to do yet"
    assert (Distill(steps=7)._schedule(timed).steps, Distill(time="9s")._schedule(timed).seconds) == (7, 9)
    assert Distill(steps=50).spends(100, 0.01) == 10 * Distill(steps=5).spends(100, 0.01) > 0
    assert Distill().spends(100, 0.01) == 50


def test_only_these_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {"x": np.random.default_rng(0).standard_normal((64, 3, 8, 8), dtype=np.float32)}
    options = {"ratio": 0.4, "align": 1, "prove": False}
    fewer = graphprune.prune(residual(), calibration={"x": inputs["x"][:16]}, **options)  # type: ignore[arg-type]
    monkeypatch.setattr(budget, "measure", lambda *_: budget.Measured(16, 64, 0.01))
    timed = graphprune.prune(residual(), calibration=inputs, time="1m", **options)  # type: ignore[arg-type]
    assert [f.after for f in timed.fits] == [f.after for f in fewer.fits] and timed.fits
    assert timed.notes == ["16 of 64 samples are used: one takes 10 ms to run, and all may take 60 s"]


def test_what_was_measured_is_of_the_same_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count(8)
    monkeypatch.setattr(budget, "measure", lambda *_: budget.Measured(next(numbers), 64, 0.01))
    model = load(residual())

    def samples(*passes: Pass) -> int | None:
        inputs = {"x": np.ones((8, 3, 8, 8), np.float32)}
        state = State(model, model, Plan({}), Job(calibration=inputs, time=60))
        found = driver.prepared(passes, state, tmp_path, 0.0).budget
        return None if found is None else found.samples

    assert [samples(Fit()), samples(Fit(), Distill()), samples(Fit())] == [8, 9, 8]


def test_passes_share_what_is_left() -> None:
    model = load(residual())
    state = State(model, model, Plan({}), Job(calibration="generated"), ahead=(Fit(),))
    found = Budget(100, time.monotonic())
    assert found.share(Cut(), state) + found.share(Fit(), state) < 101
    assert found.share(Cut(), state) < 5 < found.share(Fit(), State(model, model, Plan({})))
    assert Budget(1, time.monotonic() - 5).share(Fit(), state) == 0


def test_recipes_and_commands_say_it(tmp_path: Path) -> None:
    text = 'format = "graphprune-recipe/1"\n[job]\ntime = "5m"\n[[passes]]\nuse = "cut"\n'
    (tmp_path / "r.toml").write_text(text)
    recipe = toml.load(tmp_path / "r.toml")
    assert recipe.job.time == 300
    (tmp_path / "again.toml").write_text(toml.dump(Recipe(recipe.passes, recipe.job), tmp_path / "again.toml"))
    assert toml.load(tmp_path / "again.toml").job.time == 300
    (tmp_path / "r.toml").write_text(text.replace("5m", "soon"))
    with pytest.raises(InputError, match=r"r.toml:3: --time soon: is no time"):
        toml.load(tmp_path / "r.toml")
    with pytest.raises(InputError, match="time is"):
        graphprune.prune(onnx.ModelProto(), ratio=0.5, time=[5])  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"time": 5}, {"resume": "kept"}])
def test_without_inputs_there_is_nothing_to_spare(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"--(time|resume) is about jobs that look at inputs"):
        graphprune.prune(residual(), ratio=0.4, **options)


def test_inputs_are_read_once() -> None:
    read: list[int] = []

    def batches() -> list[dict[str, np.ndarray]]:
        read.append(0)
        return [{"x": np.full((2, 3), k)} for k in range(3)]

    held = Held(batches)
    next(iter(held()))
    for _ in range(3):
        assert [int(feeds["x"][0, 0]) for feeds in held()] == [0, 1, 2]
    assert len(read) == 2, "the first time it was not gone through"
