"""What a run writes is there whole, wherever it was killed, once the next run has come by."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from graphprune.model import commit, paths
from graphprune.model.files import atomically

SET = ("m.onnx.data", "m.plan.json", "m.onnx")
WRITE = """
import os, signal, sys
from pathlib import Path
from graphprune.model import paths
from graphprune.model.files import atomically

def counted(call):
    def counting(*given, **named):
        global done
        done += 1
        if done == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)
    return counting

Path.replace, Path.unlink, os.link = map(counted, (Path.replace, Path.unlink, os.link))
for moment, (folder, text) in enumerate(zip(sys.argv[1::2], sys.argv[2::2])):
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    done, folder = 0, Path(folder)
    with paths.run():
        for name in ("m.onnx.data", "m.plan.json"):
            paths.writes(name, folder / name)
        paths.writes(paths.OUTPUT, folder / "m.onnx")
        for name in ("m.onnx", "m.onnx.data", "m.plan.json"):
            atomically(folder / name, lambda file: file.write(text.encode()))
    print(done, flush=True)
    os._exit(0)
"""


def written(*folders: tuple[Path, str]) -> list[int]:
    """Write a set to each folder, and die at the first, second, third ... call that changes it; the first lives.

    Returns:
        How many such calls those that lived have made.
    """
    given = [str(word) for folder in folders for word in folder]
    done = subprocess.run([sys.executable, "-c", WRITE, *given], capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.splitlines()]


def contents(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in sorted(folder.iterdir())}


def test_killed_at_any_moment(tmp_path: Path) -> None:
    folders = [tmp_path / str(moment) for moment in range(40)]
    for folder in folders:
        folder.mkdir()
        for name in SET:
            (folder / name).write_text("old")
    calls, *whole = written(*((folder, "new") for folder in folders))
    assert 10 < calls < len(folders) - 1 and whole == [calls] * (len(folders) - 1 - calls), "the others were killed"
    assert contents(folders[0]) == dict.fromkeys(sorted(SET), "new"), "and nothing beside it"
    found = set()
    for folder in folders[1 : calls + 1]:
        with paths.run():  # the next run, to another output
            paths.writes(paths.OUTPUT, folder / "other")
            atomically(folder / "other", lambda file: file.write(b"other"))
        left = contents(folder)
        assert left.pop("other") == "other" and left.keys() == set(SET), folder
        assert len(set(left.values())) == 1, (folder, left)
        found |= set(left.values())
    assert found == {"old", "new"}


def test_what_a_live_process_makes_is_left_alone(tmp_path: Path) -> None:
    handle, waits = commit.waiting(tmp_path, "a.onnx")
    with open(handle, "wb") as file:
        file.write(b"not done")
    code = "import sys, pathlib as p;from graphprune.model import commit; commit.waiting(p.Path(sys.argv[1]), 'a.onnx')"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    assert waits.read_bytes() == b"not done"
    assert len(list(tmp_path.iterdir())) == 2
    commit.move([(waits, tmp_path / "a.onnx")])
    handle, waits = commit.waiting(tmp_path, "b.onnx")
    assert {p.name for p in tmp_path.iterdir()} == {"a.onnx", waits.name}, "the other's is cleared away"


def test_a_journal_leads_nowhere_else(tmp_path: Path) -> None:
    folder, outside = tmp_path / "inside", tmp_path / "outside"
    folder.mkdir()
    outside.write_text("mine")
    (folder / ".a.waiting").write_text("theirs")
    (folder / ".graphprune-journal").write_text(f'[[".a.waiting", "{outside}"], [".a.waiting", "../outside"]]')
    commit.waiting(folder, "a.onnx")
    assert outside.read_text() == "mine" and not (folder / ".graphprune-journal").exists()
