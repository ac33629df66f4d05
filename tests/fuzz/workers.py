"""A process for each case, forked off this one, which has imported everything: no case sees another, and limits hold.

This process must have run no model: threads of ONNX Runtime do not survive a fork.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from tests.fuzz import bases, judge
from tests.fuzz.cases import Case
from tests.fuzz.outcome import Outcome

SECONDS, PATIENCE = 60, 300
"""Of processor time that a case may take; and in all, where the machine does other things too."""
MEMORY = 4 << 30
"""Bytes that a case may have beyond those of this process."""
WARM = (
    "graphprune.cli.apply", "graphprune.cli.bench", "graphprune.cli.diff", "graphprune.cli.explain",
    "graphprune.cli.graph",
    "graphprune.cli.init", "graphprune.cli.inspect", "graphprune.cli.prune", "graphprune.cli.run",
    "graphprune.cli.sparsify",
    "graphprune.cli.validate", "graphprune.cli.distill", "graphprune.cli.sensitivity", "graphprune.cli.state_dict",
    "PIL.Image",
    "graphprune.cli.torch_modules", "graphprune.cli.pages.command", "safetensors.numpy", "onnx.reference",
)  # fmt: skip
Work = Callable[[Path], Outcome]
"""What a process does in a folder of its own."""


@dataclass
class _Running:
    number: int
    folder: Path
    begun: float
    stopped: bool = False


def over(cases: Iterable[Case], jobs: int, keep: Path | None = None) -> Iterator[Outcome]:
    """What comes of cases, in the order in which they end.

    Args:
        cases: the cases.
        jobs: how many run at once.
        keep: a folder where the files of cases that end badly stay.
    """

    def works() -> Iterator[tuple[int, Work]]:
        for case in cases:
            bases.data(case.base)  # here, where it is kept for the next case
            yield case.number, lambda folder, case=case: judge.judged(case, folder)

    yield from run(works(), jobs, keep)


def run(works: Iterable[tuple[int, Work]], jobs: int, keep: Path | None = None) -> Iterator[Outcome]:
    """The same for any work, each with a number."""
    for name in WARM:
        import_module(name)
    left, running = iter(works), dict[int, _Running]()
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as root:
        more = True
        while more or running:
            while more and len(running) < jobs:
                entry = next(left, None)
                if entry is None:
                    more = False
                    break
                folder = Path(root) / str(entry[0])
                folder.mkdir()
                running[_forked(entry[1], folder)] = _Running(entry[0], folder, time.monotonic())
            for pid, one in list(running.items()):
                done, status, used = os.wait4(pid, os.WNOHANG)
                if done:
                    del running[pid]
                    yield _ended(pid, one, status, used, keep)
                elif time.monotonic() - one.begun > PATIENCE and not one.stopped:
                    one.stopped = True
                    os.kill(pid, signal.SIGXCPU)  # says where it is
                    time.sleep(1)
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)


def _forked(work: Work, folder: Path) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        _limit(folder)
        tempfile.tempdir = str(folder)
        outcome = work(folder)
        (folder / "outcome.json").write_text(json.dumps(asdict(outcome)))
        status = 0
    except BaseException:
        import traceback

        (folder / "trace.txt").write_text(traceback.format_exc())
    finally:
        os._exit(status)


def _limit(folder: Path) -> None:
    """Limits of this process; where it is when it goes over them, or crashes, is written down."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY + pages * resource.getpagesize(),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    file = open(folder / "fault.txt", "w")  # noqa: SIM115 -- open as long as the process is
    faulthandler.enable(file)
    faulthandler.register(signal.SIGXCPU, file)


def _ended(pid: int, one: _Running, status: int, used: resource.struct_rusage, keep: Path | None) -> Outcome:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # what it started
    place, seconds = one.folder / "outcome.json", used.ru_utime + used.ru_stime
    fault = one.folder / "fault.txt"
    where = _own_frame(fault.read_text()) if fault.is_file() else ""
    if place.is_file() and status == 0:
        found = Outcome(**json.loads(place.read_text()))
    elif seconds >= SECONDS or one.stopped:
        found = Outcome(one.number, "hang", where, f"{seconds:.0f} s of processor time")
    elif os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        found = Outcome(one.number, "crash", f"{name} {where}", _tail(one.folder / "stderr.txt"))
    else:
        trace = one.folder / "trace.txt"
        kind = "memory" if trace.is_file() and "MemoryError" in trace.read_text() else "traceback"
        found = Outcome(one.number, kind, "outside of the command: " + _tail(trace, 120), _tail(trace))
    found.seconds, found.memory = seconds, used.ru_maxrss * 1024
    if found.memory > MEMORY and not found.bad:
        found.kind, found.place = "memory", "at the peak"
    if found.bad and keep is not None:
        shutil.rmtree(keep / str(one.number), ignore_errors=True)
        shutil.copytree(one.folder, keep / str(one.number))
    shutil.rmtree(one.folder, ignore_errors=True)
    return found


def _own_frame(trace: str) -> str:
    """The first line of the package in what faulthandler wrote of the thread that is told of."""
    found = re.search(r'File "\S*?((?:graphprune|passes)/\S+)", line (\d+) in (\w+)', trace)
    return f"{found[1]}:{found[2]}, in {found[3]}" if found else ""


def _tail(path: Path, size: int = 600) -> str:
    return path.read_text(errors="replace").strip()[-size:] if path.is_file() else ""
