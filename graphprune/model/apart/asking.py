"""Asks the process that runs models from elsewhere (``worker``), starts it, and says how it ended."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import multiprocessing.spawn
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from graphprune.model.apart import worker
from graphprune.relation import Shape, Values

_LOG = logging.getLogger("graphprune")
_PATIENCE = 120.0
"""Seconds within which a worker that was started must answer; a machine may be busy."""
_START = "import sys,json,runpy;a=json.loads(sys.argv[1]);sys.path[:]=a[1];runpy.run_path(a[0],run_name='__main__')"


@dataclass(frozen=True)
class Job:
    """One run of a model.

    Attributes:
        model: its bytes, or the file that holds it.
        feeds: its inputs.
        names: of what is wanted; None for its outputs.
        values: whether they are wanted themselves, or only how large they are.
        seconds: that it may take.
        memory: bytes that it may take.
        threads: within one operator; 0 leaves it to ONNX Runtime.
    """

    model: bytes | Path
    feeds: Mapping[str, Values]
    names: Sequence[str] | None
    values: bool
    seconds: float
    memory: int
    threads: int = 0


class Made(NamedTuple):
    """A tensor that a run made, with its value where that was asked for."""

    shape: Shape
    dtype: np.dtype[Any]
    value: Values | None


@dataclass(frozen=True)
class Answer:
    """What came of a job: one of the fields says it.

    Attributes:
        made: what was asked for, None for what is no array.
        refused: ONNX Runtime does not load the model; what it says.
        failed: it does not run it on these inputs; what it says.
        room: it wants more memory than it may have.
        late: it takes more time than it may.
        killed: how the process ended that ran it, as ``SIGSEGV``.
    """

    made: list[Made | None] | None = None
    refused: str = ""
    failed: str = ""
    room: bool = False
    late: bool = False
    killed: str = ""


class _Worker:
    """A process, and the thread that hears it."""

    def __init__(self) -> None:
        told = json.dumps([worker.__file__, [p for p in sys.path if isinstance(p, str)]])
        executable = os.fsdecode(multiprocessing.spawn.get_executable() or "")
        self.process = subprocess.Popen(
            [executable, "-c", _START, told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self.heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.ready = False
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(Exception):
            while True:
                self.heard.put(worker.receive(self.process.stdout))
        self.heard.put(None)

    def wait(self, seconds: float) -> tuple[dict[str, Any], list[Values]] | None:
        """Its next message, None where it ended.

        Raises:
            queue.Empty: it takes longer.
        """
        message = self.heard.get(timeout=seconds)
        return None if message is None else message[:2]

    def tell(self, job: Job) -> None:
        """Send a job; that nobody hears it, its answer will say."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            worker.send(self.process.stdin, *_message(job))

    def end(self) -> int:
        """Stop it; returns its exit status."""
        with contextlib.suppress(OSError):
            self.process.kill()
        status = self.process.wait()
        with contextlib.suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]
        return status


def _message(job: Job) -> tuple[dict[str, Any], list[Values], bytes]:
    path, blob = (str(job.model), b"") if isinstance(job.model, Path) else (None, job.model)
    names = None if job.names is None else list(job.names)
    limits = {"seconds": job.seconds, "memory": job.memory, "threads": job.threads}
    head = {"path": path, "feeds": list(job.feeds), "names": names, "values": job.values, **limits}
    return head, [np.asarray(v) for v in job.feeds.values()], blob


_lock = threading.RLock()
_there: _Worker | None = None
_possible = True
"""Whether a process can be started here; where not, models run in this one."""


def start() -> None:
    """Start the process, so that it is there when it is asked; returns at once."""
    global _there, _possible
    with _lock:
        if _there is not None or not _possible:
            return
        if getattr(sys, "frozen", False):  # the executable is a program of its own, and no Python
            _possible = False
            return
        try:
            _there = _Worker()
        except OSError as error:
            _give_up(str(error))


def ask(job: Job) -> Answer:
    """Run a model in the process, which is started where it is not there, and stopped where it takes too long.

    Where none can be started, the model runs in this process.
    """
    with _lock:
        start()
        if _there is not None and not _there.ready:
            _greet(_there)
        if _there is None:
            head, arrays, blob = _message(job)
            return _answer(*worker.execute(head, arrays, blob))
        try:
            _there.tell(job)
            message = _there.wait(job.seconds)
        except queue.Empty:
            stop()
            return Answer(late=True)
        except BaseException:  # interrupted: its answer would be taken for that of the next job
            stop()
            raise
        if message is not None:
            return _answer(*message)
        status = _stopped()
        if status == worker.NO_ROOM:
            return Answer(room=True)
        return Answer(late=True) if _is_alarm(status) else Answer(killed=_ending(status))


def _greet(there: _Worker) -> None:
    """Wait until it can work."""
    try:
        there.ready = there.wait(_PATIENCE) is not None
    except queue.Empty:
        there.ready = False
    except BaseException:
        stop()
        raise
    if not there.ready:
        status = _stopped()
        _give_up(f"it ended with {_ending(status)}")


def _give_up(why: str) -> None:
    global _possible
    _possible = False
    _LOG.warning("no process of its own for models (%s): they run in this one, without limits", why)


def _stopped() -> int:
    """Stop the process, and say how it ended, if it did before."""
    global _there
    assert _there is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        _there.process.wait(5)
    status, _there = _there.end(), None
    return status


def stop() -> None:
    """End the process, if it is there; the next job starts another."""
    global _there
    with _lock:
        if _there is not None:
            _there.end()
            _there = None


def _forget() -> None:
    """In a fork: the process is that of the parent."""
    global _there, _lock
    _there, _lock = None, threading.RLock()


def _answer(head: Mapping[str, Any], values: Sequence[Values]) -> Answer:
    if "shapes" not in head:
        return Answer(refused=head.get("refused", ""), failed=head.get("failed", ""), room="room" in head)
    left = iter(values)
    made = [
        None
        if shape is None
        else Made(tuple(shape), np.dtype(object if kind == worker.TEXT else kind), next(left, None))
        for shape, kind in zip(head["shapes"], head["types"], strict=True)
    ]
    return Answer(made)


def _is_alarm(status: int) -> bool:
    """Whether a process was ended by its own timer; Windows has none."""
    return hasattr(signal, "SIGALRM") and status == -signal.SIGALRM


def _ending(status: int) -> str:
    """What to call an exit status."""
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit status {status:#x}" if status > 255 else f"exit status {status}"


atexit.register(stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
