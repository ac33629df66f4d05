"""Where errors become words: one line on standard error, and an exit status.

Every error passes here, those that the program raises on purpose and all others. Nothing ends as a traceback; ``-v``
prints that of a fault before the line.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

import click

from graphprune.cli.harmless import harmless
from graphprune.cli.scratch import Terminated, ending_on_signals, scratch
from graphprune.errors import FaultError, GraphpruneError, InputError, UserCodeError

_INTERRUPTED = 130
"""As shells say of what SIGINT ended."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Carried(Exception):
    """Holds, as its cause, an error that click would take for one of its own."""


@contextmanager
def past_click() -> Iterator[None]:
    """Carry errors past click: it takes the end of any file for an interruption, and exits with 1 at a closed pipe."""
    try:
        yield
    except (KeyboardInterrupt, EOFError, OSError) as error:
        raise _Carried from error


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status once everything is said."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        from graphprune.cli.commands import cli

        with ending_on_signals(), scratch(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # what overflows is told as what is not finite
            status = cli.main(arguments, prog_name="graphprune", standalone_mode=False)
        with printing():
            pass  # what is still to be flushed
        return status if isinstance(status, int) else 0
    except (Exception, KeyboardInterrupt) as caught:
        if arguments is None and callable(signal.getsignal(signal.SIGINT)):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt but saying how it ended
        error = _behind(caught)
        if isinstance(error, BrokenPipeError):
            drop_output()
            return 0
        return _tell(error, verbose=any(re.fullmatch(r"-[a-z]*v[a-z]*|--verbose", a) for a in given))


def _behind(caught: BaseException) -> BaseException:
    """What happened: what is carried past click, or an interruption, which libraries may make an error of their own."""
    error = (caught.__cause__ or caught) if isinstance(caught, _Carried) else caught
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return next((e for e in chain if isinstance(e, KeyboardInterrupt)), error)


@contextmanager
def printing() -> Iterator[None]:
    """Print to standard output: whoever reads it may stop before the end, which is no failure.

    Raises:
        InputError: it cannot be written.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
    except OSError as error:
        drop_output()
        raise InputError(f"standard output: cannot be written ({error.strerror or error})") from error


def drop_output() -> None:
    """Let what is still printed go nowhere, so that the interpreter's last flush does not fail."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _tell(error: BaseException, verbose: bool) -> int:
    """Say what went wrong; returns the exit status."""
    message, status = _said(error)
    if sys.stderr is None:  # it was closed before the program began
        return status
    if verbose and (status == FaultError.exit_status or isinstance(error, UserCodeError)):
        traceback.print_exception(error)
    shown = "\n" if status == _INTERRUPTED and sys.stderr.isatty() else ""  # a terminal shows ^C
    with suppress(OSError):  # nobody can be told
        print(f"{shown}graphprune: error: {harmless(' '.join(message.split()))}", file=sys.stderr, flush=True)
    return status


def _said(error: BaseException) -> tuple[str, int]:
    """What to say of an error, and the exit status."""
    if isinstance(error, GraphpruneError):
        return str(error), error.exit_status
    if isinstance(error, click.ClickException):
        return error.format_message(), InputError.exit_status
    if isinstance(error, Terminated):
        return "terminated", error.exit_status
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "interrupted", _INTERRUPTED
    if isinstance(error, MemoryError):
        return _no_memory(error), InputError.exit_status
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _FULL):
        return _system(error), InputError.exit_status
    return _fault(error), FaultError.exit_status


def _no_memory(error: MemoryError) -> str:
    where = f" at {place}" if (place := _place(error)) else ""
    what = f" ({error})" if str(error) else ""
    return f"out of memory{where}{what}; a smaller --input-shape, fewer samples, or a machine with more of it helps"


def _system(error: OSError) -> str:
    """What the system refuses: a file that the user named, or room for what the program puts aside."""
    if error.filename is not None:
        name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
        return f"{name}: {error.strerror or error}"
    return f"{error.strerror}: what is put aside lies in {tempfile.gettempdir()}; TMPDIR names another folder"


def _fault(error: BaseException) -> str:
    text = " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    where = f" at {place}" if (place := _place(error)) else ""
    return (
        f"a fault of graphprune itself{where}: {what}; please report it, with the command, what -v prints, and the "
        "model if you may share it"
    )


def _place(error: BaseException) -> str:
    """Where in this package an error was raised, or what it called when it was: ``graphprune/x/y.py:12, in z``."""
    own: FrameType | None = None
    line = 0
    for frame, number in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if module.split(".")[0] == "graphprune" and module != __name__:
            own, line = frame, number
    if own is None:
        return ""
    path = own.f_globals["__name__"].replace(".", "/")
    return f"{path}.py:{line}, in {own.f_code.co_name}"
