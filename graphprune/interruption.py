"""What must not be broken off halfway waits a moment with signals that end the program."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that would raise an exception within raise it behind: for what is short, as renaming and cleaning up.

    Only Python's own handlers are held back; they run in the main thread alone, and other threads need nothing. A
    signal that kills still kills.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[_Held] = []
    with ExitStack() as stack:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            handler = None if number is None else signal.getsignal(number)
            if number is not None and callable(handler) and not isinstance(handler, _Held):
                held.append(_Held(handler))
                stack.callback(signal.signal, number, handler)
                signal.signal(number, held[-1])
        try:
            yield
        finally:
            for one in held:
                one.holds = False
    for one in held:
        if one.came is not None:
            one.handler(*one.came)


class _Held:
    """A handler that notes a signal for later; once it holds back no more, it is the one that it stands for."""

    def __init__(self, handler: Any) -> None:
        self.handler = handler
        self.holds = True
        self.came: tuple[int, FrameType | None] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.holds:
            self.came = number, frame
        else:
            self.handler(number, frame)
