"""Three hundred mutated inputs; ``python -m tests.fuzz --cases 10000`` tries more. And those that were found before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import cases

ROOT = Path(__file__).parents[2]
PARTS, SIZE = 2, int(os.environ.get("GRAPHPRUNE_FUZZ_CASES", "300")) // 2


def fuzzed(*arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("part", range(PARTS))
def test_mutated(part: int) -> None:
    """Small ones, and all that is no model."""
    status, told = fuzzed("--light", "--first", 1000 * part, "--cases", SIZE)
    assert status == 0, told


def test_found() -> None:
    """Each file of ``found`` ends well; ``found.json`` says how it was found and what is done with it."""
    status, told = fuzzed("--found")
    assert status == 0, told


def test_cases_are_the_same_each_time() -> None:
    made = [cases.case(3, n) for n in range(40)]
    assert made == [cases.case(3, n) for n in range(40)]
    models = [n for n, one in enumerate(made) if one.surface == "model" and not one.base.startswith("packaged")]
    assert [cases.model(made[n]) for n in models[:5]] == [cases.model(cases.case(3, n)) for n in models[:5]]


def test_the_fuzzer_sees_what_is_wrong(tmp_path: Path) -> None:
    """A hang, a crash, too much memory and an exception, each told as such."""
    script = tmp_path / "bad.py"
    script.write_text(_BAD)
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], cwd=ROOT, env=own, stdout=subprocess.PIPE, text=True, check=True)
    assert json.loads(done.stdout) == {"0": "hang", "1": "crash", "2": "memory", "3": "traceback"}


_BAD = """
import ctypes, json
from tests.fuzz import workers

def spin(folder):
    while True:
        pass

def crash(folder):
    ctypes.string_at(0)

def fill(folder):
    return bytearray(5 << 30)

def fault(folder):
    raise KeyError("x")

workers.SECONDS, workers.WARM = 1, ()
ended = workers.run(enumerate([spin, crash, fill, fault]), 2)
print(json.dumps({o.number: o.kind for o in sorted(ended, key=lambda o: o.number)}))
"""
