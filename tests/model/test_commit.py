"""What a run writes is there whole, wherever it was killed, once the next run has come by."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from graphprune.errors import InputError
from graphprune.model import commit, locks, paths
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
for number, folder in enumerate(sys.argv[1:]):
    moment, plans, text = number % MOMENTS, "plans/" if number >= MOMENTS else "", "new"
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    done, folder = 0, Path(folder)
    places = {paths.DATA: "m.onnx.data", "the plan": plans + "m.plan.json", paths.OUTPUT: "m.onnx"}
    with paths.run():
        for what, name in places.items():
            paths.writes(what, folder / name)
        for name in places.values():
            atomically(folder / name, lambda file: file.write(text.encode()))
    print(done, flush=True)
    os._exit(0)
"""


MOMENTS = 40


def written(folders: list[Path]) -> list[int]:
    """Write a set to each folder, and die at the first, second, third ... call that changes it; the first lives.

    Returns:
        How many such calls those that lived have made.
    """
    code = WRITE.replace("MOMENTS", str(MOMENTS))
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.splitlines()]


def contents(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """The plan may lie in another folder, and the next run write to that first."""
    folders = [tmp_path / str(number) for number in range(3 * MOMENTS)]
    plans = ["" if number < MOMENTS else "plans/" for number in range(len(folders))]
    for folder, plan in zip(folders, plans, strict=True):
        (folder / plan).mkdir(parents=True)
        for name in SET:
            (folder / (plan if name == "m.plan.json" else "") / name).write_text("old")
    lived = written(folders)
    found = set()
    for number, (folder, plan) in enumerate(zip(folders, plans, strict=True)):
        seen = contents(folder)
        assert "m.onnx" not in seen or seen["m.onnx"] == seen["m.onnx.data"], "weights are never those of another model"
        if number % MOMENTS == 0:
            assert seen == dict.fromkeys(sorted(SET), "new"), "and nothing beside it"
        for place in dict.fromkeys((plan if number >= 2 * MOMENTS else "", "", plan)):  # the next run, elsewhere
            with paths.run():
                paths.writes(paths.OUTPUT, folder / place / "other")
                atomically(folder / place / "other", lambda file: file.write(b"other"))
            (folder / place / "other").unlink()
            seen = contents(folder)
            assert {seen[name] for name in SET} in ({"old"}, {"new"}), (folder, place, seen)
        assert seen.keys() == set(SET), (folder, seen)
        found |= set(seen.values())
    assert found == {"old", "new"}
    for way in range(3):
        calls = lived[0] if way == 0 else lived[-1]
        assert 10 < calls < MOMENTS - 1 and lived.count(calls) >= MOMENTS - calls, "the others were killed"


def test_what_cannot_be_locked_is_locked_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, where a folder is open for reading alone and cannot be locked."""
    flock = locks.fcntl.flock

    def of_files(handle: int, how: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(handle, how)

    left(tmp_path)
    monkeypatch.setattr(locks.fcntl, "flock", of_files)
    handle, waits = commit.waiting(tmp_path, "a.onnx")
    os.close(handle)
    assert [*tmp_path.iterdir()] == [waits]
    monkeypatch.setattr(locks, "_PATIENCE", 0.05)
    with locks.alone_in([tmp_path]), pytest.raises(InputError, match="another process has held its lock"):
        commit.move([(waits, tmp_path / "a.onnx")])
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_locked_it_goes_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    left(tmp_path)
    (theirs,) = tmp_path.iterdir()
    monkeypatch.setattr(locks.fcntl, "flock", none)
    atomically(tmp_path / "a.onnx", lambda file: file.write(b"x"))
    assert {p.name for p in tmp_path.iterdir()} == {"a.onnx", theirs.name}, "nobody knows whether it is in use"


@pytest.mark.parametrize(
    "name", ["\N{CJK UNIFIED IDEOGRAPH-6A21}" * 85, "a" * 255, "new\nline", os.fsdecode(b"\xff\xfe")]
)
def test_whatever_a_file_may_be_called(name: str, tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        with paths.run():
            for what, one in ((paths.OUTPUT, name), ("the plan", "p")):
                paths.writes(what, tmp_path / one)
                atomically(tmp_path / one, lambda file, text=text: file.write(text))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {name: b"two", "p": b"two"}


def test_what_cannot_be_taken_back_is_brought_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, broken = Path.replace, [True]

    def fails(self: Path, target: Path) -> Path:
        if broken and "p" in (self.name, Path(target).name):
            raise OSError(errno.EIO, "Input/output error")
        if broken and Path(target).name.endswith(".waiting"):
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    with (
        pytest.raises(InputError, match=r"p: cannot be written .* the next run that writes there ends it"),
        paths.run(),
    ):
        for what, name in ((paths.OUTPUT, "m"), ("the data", "d"), ("the plan", "p")):
            paths.writes(what, tmp_path / name)
            atomically(tmp_path / name, lambda file: file.write(b"new"))
    broken.clear()
    commit.settle(tmp_path)
    assert contents(tmp_path) == {"d": "new", "m": "new", "p": "new"}


def test_a_signal_that_comes_meanwhile_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        signal.raise_signal(signal.SIGINT)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), paths.run():
        for what, name in ((paths.OUTPUT, "m"), ("the plan", "p")):
            paths.writes(what, tmp_path / name)
            atomically(tmp_path / name, lambda file: file.write(b"new"))
    assert contents(tmp_path) == {"m": "new", "p": "new"}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


LEAVE = """
import os, sys, pathlib
from graphprune.model import commit
commit.waiting(pathlib.Path(sys.argv[1]), sys.argv[2])
os._exit(0)
"""


def left(folder: Path, name: str = "a.onnx") -> None:
    """A process that ends as if it had been killed, and leaves a file that waits."""
    subprocess.run([sys.executable, "-c", LEAVE, folder, name], check=True)


def test_what_a_live_process_makes_is_left_alone(tmp_path: Path) -> None:
    handle, waits = commit.waiting(tmp_path, "a.onnx")
    with open(handle, "wb") as file:
        file.write(b"not done")
    os.mkfifo(tmp_path / ".b.waiting")  # waits for no writer
    left(tmp_path)
    left(tmp_path)
    assert waits.read_bytes() == b"not done"
    assert len(list(tmp_path.iterdir())) == 3, "the second has cleared away what the first left"
    commit.move([(waits, tmp_path / "a.onnx")])
    assert (tmp_path / "a.onnx").exists() and not waits.exists()


def journal_of(folder: Path, files: list[tuple[str, str]], folders: tuple[str, ...] = (".",)) -> Path:
    path = folder / f".graphprune-{os.geteuid()}.journal"
    path.write_text(json.dumps({"token": "t", "folders": folders, "files": files}))
    return path


def test_a_journal_leads_nowhere_else(tmp_path: Path) -> None:
    folder, outside = tmp_path / "inside", tmp_path / "outside"
    for one in (folder, outside):
        one.mkdir()
        (one / ".a.waiting").write_text("theirs")
        (one / "mine").write_text("mine")
    for place in (str(outside / "mine"), "../outside/mine", "..", ".", "", "a\0b"):
        written = journal_of(folder, [(".a.waiting", place)])
        commit.settle(folder)
        assert not written.exists() and {p.name for p in folder.iterdir()} <= {".a.waiting", "mine"}
        (folder / ".a.waiting").write_text("theirs")
    (folder / ".b.waiting").write_text("theirs")
    journal_of(folder, [(".b.waiting", "b")], (".", "../outside"))  # there is no journal of its own
    commit.settle(folder)
    assert (folder / "b").exists() and (outside / "mine").read_text() == "mine"
    assert (outside / ".a.waiting").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 5000, '{"files": 3}', '{"files": [["a"]]}', "\0" * 100])
def test_a_journal_that_is_none_is_cleared_away(text: str, tmp_path: Path) -> None:
    path = journal_of(tmp_path, [])
    path.write_text(text)
    commit.settle(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_journal_of_somebody_else_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".a.waiting").write_text("theirs")
    (tmp_path / "mine").write_text("mine")
    os.chown(journal_of(tmp_path, [(".a.waiting", "mine")]), 12345, 12345)
    commit.settle(tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"
