"""Threads whose number changes no result: how work is cut into parts for threads decides how sums are rounded.

ONNX Runtime cuts products, logarithms and reductions by the number of its threads, OpenBLAS factorises by its own
number. So neither takes it from the machine: sessions have :data:`SESSION` threads everywhere (on fewer cores they take
turns), BLAS has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import onnxruntime as ort

SESSION = 4
"""Threads within one operator of ONNX Runtime: another number gives other last bits."""
_sessions: ContextVar[int] = ContextVar("sessions", default=SESSION)


@contextmanager
def of_sessions(count: int) -> Iterator[None]:
    """Let sessions that do not say otherwise have so many threads: where several processes share a machine, one each.

    Args:
        count: threads within one operator.
    """
    token = _sessions.set(count)
    try:
        yield
    finally:
        _sessions.reset(token)


def sessions() -> int:
    """How many threads sessions have that do not say otherwise."""
    return _sessions.get()


@contextmanager
def steady() -> Iterator[None]:
    """Compute with one thread of BLAS, whatever the machine has and the environment says."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


def set_threads(options: ort.SessionOptions, count: int | None) -> None:
    """Say how many threads a session has.

    Args:
        options: of the session.
        count: threads within one operator; 0 leaves it to ONNX Runtime, None to :func:`of_sessions`.
    """
    options.intra_op_num_threads = sessions() if count is None else count
    if count is None:  # threads that wait do so asleep: there may be more of them than cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
