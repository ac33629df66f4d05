"""A run that is killed or interrupted at any moment leaves nothing half done, and the next one nothing behind.

A few random moments by default. ``GRAPHPRUNE_KILLS=200`` tries as many kills, and a quarter as many signals;
``GRAPHPRUNE_SEED`` repeats the moments of a run that failed (the machine's own speed decides what they hit).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from models.small import chain

KILLS = int(os.environ.get("GRAPHPRUNE_KILLS", "6"))
SEED = int(os.environ.get("GRAPHPRUNE_SEED", random.randrange(1 << 16)))
SIGNALS = {signal.SIGTERM: (143, "terminated"), signal.SIGINT: (130, "interrupted")}
RATIOS = ("0.3", "0.6")
SET = ("o.onnx", "o.onnx.data", "o.plan.json")
ALL = {*SET, "o.json", "o.html"}
RUNNER = """
import atexit, json, os, signal, sys
import onnxruntime
import graphprune.cli.commands, graphprune.cli.init, graphprune.cli.prune
import graphprune.passes.running, graphprune.passes.sparse.passes, graphprune.cli.pages.page
from graphprune.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would these
print("ready", flush=True)
for line in sys.stdin:
    if (child := os.fork()) == 0:
        os.setsid()
        for number, name in enumerate((os.devnull, "out.txt", "err.txt")):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["graphprune", *json.loads(line)]
        try:
            main()
        except SystemExit as ended:
            atexit._run_exitfuncs()
            os._exit(ended.code)  # a copy lacks threads that ONNX Runtime waits for at its end
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Runner:
    """Starts jobs in copies of a process that has read all modules already.

    Attributes:
        folder: in which jobs work; results go to ``out``, what is put aside to ``aside``.
        wrote: seconds that the last job took from where signals may have come on.
    """

    folder: Path
    wrote: float = 0.0

    def __post_init__(self) -> None:
        for name in ("out", "aside"):
            (self.folder / name).mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNNER],
            cwd=self.folder,
            env={**os.environ, "TMPDIR": str(self.folder / "aside")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __call__(self, *words: str, moment: float = 0.0, signals: tuple[int, ...] = (), waits: int = 0) -> int:
        """The exit status of a job, after signals from a moment on, counted from its start or from so many outputs."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        child = int(self._line())
        while _waiting(self.folder / "out") < waits and Path(f"/proc/{child}").exists():
            time.sleep(0.0002)
        start = time.monotonic()
        for number in signals:
            time.sleep(moment)
            moment = 0.003
            if Path(f"/proc/{child}").exists():  # the runner waits for it only now: nobody else has its number
                os.kill(child, number)
        status = int(self._line())
        self.wrote = time.monotonic() - start
        until = time.monotonic() + 30
        while others := _of_group(child):
            assert time.monotonic() < until, f"left over: {others}"
            time.sleep(0.01)
        return status

    def prune(self, ratio: str, moment: float = 0.0, signals: tuple[int, ...] = (), waits: int = 0) -> int:
        """A calibrated run with external data, all of whose files go to one folder."""
        files = ("-o", "out/o.onnx", "--json", "out/o.json", "--report", "out/o.html")
        words = ("prune", "m.onnx", "--ratio", ratio, "--calibration", "in.npz", "--force", "-q", *files)
        return self(*words, moment=moment, signals=signals, waits=waits)

    def told(self) -> str:
        """What the last job said on standard error."""
        return (self.folder / "err.txt").read_text()

    def contents(self) -> dict[str, bytes]:
        """What lies where results go."""
        return {p.name: p.read_bytes() for p in (self.folder / "out").iterdir()}

    def aside(self) -> list[str]:
        """What is put aside."""
        found = (p for p in (self.folder / "aside").rglob("*") if p.name != ".ses")  # ONNX Runtime's, at import
        return sorted(str(p.relative_to(self.folder)) for p in found)


def _waiting(folder: Path) -> int:
    return sum(path.name.endswith(".waiting") for path in folder.iterdir())


def _of_group(leader: int) -> list[str]:
    """Processes that a job has started and that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(group) == leader and state != "Z":
            found.append(path.parent.name)
    return found


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("kills")
    onnx.save(chain(), folder / "m.onnx", save_as_external_data=True, location="weights", size_threshold=16)
    np.savez(folder / "in.npz", x=np.random.default_rng(0).random((16, 3, 8, 8), np.float32))
    made = Runner(folder)
    yield made
    assert made.process.stdin is not None
    made.process.stdin.close()
    made.process.wait()


@dataclass(frozen=True)
class Known:
    """The two sets that jobs make, by ratio, how long the slower one took, and how long it wrote."""

    sets: dict[str, dict[str, bytes]]
    seconds: float
    writing: float

    def of(self, found: dict[str, bytes], names: tuple[str, ...] = SET) -> str | None:
        """Which of the sets files are of, None where they are of neither."""
        return next((r for r, own in self.sets.items() if all(found.get(n) == own[n] for n in names)), None)


@pytest.fixture(scope="module")
def known(runner: Runner) -> Known:
    sets, seconds, writing = {}, 0.0, 0.0
    for ratio in RATIOS:
        start = time.monotonic()
        assert runner.prune(ratio, signals=(0,), waits=1) == 0, runner.told()
        seconds = max(seconds, time.monotonic() - start)
        writing = max(writing, runner.wrote)
        sets[ratio] = {name: data for name, data in runner.contents().items() if name in SET}
        assert runner.contents().keys() == ALL and not runner.aside()
    assert all(sets[RATIOS[0]][name] != sets[RATIOS[1]][name] for name in SET)
    return Known(sets, seconds, writing)


def whole(runner: Runner, known: Known, why: str) -> str:
    """All files are there, and are of one run; which."""
    found = runner.contents()
    ratio = known.of(found)
    assert found.keys() == ALL and ratio is not None, why
    assert json.loads(found["o.json"])["output"] == "out/o.onnx", why
    assert found["o.html"].endswith(b"</html>\n"), why
    return ratio


def moment(drawn: random.Random, number: int, known: Known) -> tuple[float, int]:
    """When to end a job: anywhere, while it writes, or while files go to their places, which takes milliseconds."""
    spans = {0: known.seconds, 1: 0.7 * known.writing, len(ALL): 0.01}
    waits = [*spans][number % 3]
    return drawn.uniform(0, spans[waits]), waits


def test_kills(runner: Runner, known: Known) -> None:
    drawn, came = random.Random(SEED), Counter[str]()
    there = RATIOS[-1]
    for number in range(KILLS):
        after, waits = moment(drawn, number, known)
        ratio = RATIOS[there == RATIOS[0]]
        why = f"seed {SEED}, kill {number} after {after:.4f} s, {waits} files waiting"
        status = runner.prune(ratio, after, (signal.SIGKILL,), waits)
        assert status in (0, -signal.SIGKILL), (why, runner.told())
        found = runner.contents()
        assert "o.onnx" not in found or known.of(found, SET[:2]) is not None, f"{why}: not its weights"
        left = found.keys() - ALL
        assert runner("init", "m.onnx", "-o", "out/r.toml") == 0, runner.told()
        (runner.folder / "out" / "r.toml").unlink()
        assert not runner.aside(), why
        there = whole(runner, known, why)
        came["finished" if status == 0 else "killed with the " + ("new" if there == ratio else "old") + " set"] += 1
        came["left files that wait"] += bool(left)
        came["left a journal"] += any(name.endswith(".journal") for name in left)
    print(f"\nseed {SEED}: {KILLS} kills: {dict(came)}")


def test_signals(runner: Runner, known: Known) -> None:
    drawn, came = random.Random(SEED + 1), Counter[str]()
    for number in range(max(KILLS // 4, 2)):
        after, waits = moment(drawn, number, known)
        which = [*SIGNALS][number % 2]
        signals = (which,) * drawn.choice((1, 1, 2, 3))  # who is impatient
        why = f"seed {SEED}, {which.name} {len(signals)} times from {after:.4f} s, {waits} files waiting on"
        status = runner.prune(RATIOS[number // 2 % 2], after, signals, waits)
        ended, word = SIGNALS[which]
        # Before the program says what signals do, and behind its last word, they do what they do to any process.
        said = runner.told() == f"graphprune: error: {word}\n"
        assert status in (0, -which, ended) and (said or (status != ended and not runner.told())), (why, runner.told())
        assert not runner.aside(), why
        whole(runner, known, why)
        came[f"{which.name}: {status}"] += 1
    print(f"\nseed {SEED}: {sum(came.values())} times a signal, {dict(came)}")
