"""The process in which a model that came from elsewhere runs first: it may crash, hang or fill its memory.

Jobs come over standard input, answers go over what was standard output. Numpy and ONNX Runtime are all that it imports,
so that it is there soon. It ends with the process that started it, however that ends: its standard input does.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

import numpy as np
import numpy.typing as npt

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

Array = npt.NDArray[Any]
NO_ROOM = 77
"""Exit status where the worker saw itself that it had taken too much, or cannot take in what it is sent."""
_LENGTH = struct.Struct("<Q")
TEXT = "text"
"""What stands for the type of strings."""
_GRACE = 5.0
"""Seconds behind its time after which a worker that nobody stops ends by itself."""
_REFUSALS = ("bad_alloc", "Failed to allocate memory", "bad allocation", "MemoryError")
"""How ONNX Runtime says that there is no room."""


# --- messages -------------------------------------------------------------------------------------------------------


def send(file: IO[bytes], head: Mapping[str, Any], arrays: Sequence[Array] = (), blob: bytes = b"") -> None:
    """Write a message: words, arrays without pickle, and bytes."""
    told: list[list[Any]] = []
    parts: list[Any] = []
    for value in arrays:
        if value.dtype.hasobject or value.dtype.kind in "SU":
            parts.append(json.dumps([_text(v) for v in value.ravel().tolist()]).encode())
            told.append([TEXT, value.shape, len(parts[-1])])
        else:
            parts.append(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
            told.append([value.dtype.str, value.shape, value.nbytes])
    words = json.dumps({**head, "arrays": told, "blob": len(blob)}).encode()
    file.write(_LENGTH.pack(len(words)) + words)
    for part in (*parts, blob):
        file.write(part)
    file.flush()


def receive(file: IO[bytes]) -> tuple[dict[str, Any], list[Array], bytes]:
    """Read a message.

    Raises:
        EOFError: there is none, nor will be.
    """
    words = json.loads(_exactly(file, _LENGTH.unpack(_exactly(file, _LENGTH.size))[0]))
    arrays = []
    for kind, shape, size in words["arrays"]:
        data = _exactly(file, size)
        flat: Array
        if kind == TEXT:
            flat = np.empty(int(np.prod(shape, dtype=np.int64)), object)
            flat[:] = json.loads(data)
        else:
            flat = np.frombuffer(data, np.dtype(kind))
        arrays.append(flat.reshape(shape))
    return words, arrays, bytes(_exactly(file, words["blob"]))


def _exactly(file: IO[bytes], size: int) -> bytearray:
    held = bytearray(size)
    view, done = memoryview(held), 0
    while done < size:
        read = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not read:
            raise EOFError
        done += read
    return held


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# --- a job ----------------------------------------------------------------------------------------------------------


def execute(head: Mapping[str, Any], arrays: Sequence[Array], blob: bytes) -> tuple[dict[str, Any], list[Array]]:
    """Run a model once.

    Args:
        head: ``path`` of the model where it is no blob, ``feeds`` (names of the arrays), ``names`` of what is wanted
            (None for the outputs), ``values`` (whether these are sent, else only their shapes), ``threads``.
        arrays: the inputs.
        blob: the model, where it lies in no file.

    Returns:
        ``shapes`` and ``types`` of what is wanted, None for what is no array; or ``refused`` (the model is not loaded),
        ``failed`` (it does not run on these inputs) or ``room`` (it wants more memory than there is), with what is
        said; and the values.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = head["threads"]
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # takes twice what it needs
    options.add_session_config_entry("session.disable_prepacking", "1")  # another copy of every weight
    try:
        active = ort.InferenceSession(head["path"] or blob, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        return {"room" if no_room(error) else "refused": str(error)[:4000] or type(error).__name__}, []
    try:
        found = active.run(head["names"], dict(zip(head["feeds"], arrays, strict=True)))
    except Exception as error:  # as above
        return {"room" if no_room(error) else "failed": str(error)[:4000] or type(error).__name__}, []
    kept = [v if isinstance(v, np.ndarray) else None for v in found]
    answer = {
        "shapes": [None if v is None else v.shape for v in kept],
        "types": [None if v is None else TEXT if v.dtype.hasobject else v.dtype.str for v in kept],
    }
    return answer, [v for v in kept if v is not None] if head["values"] else []


def no_room(error: Exception) -> bool:
    """Whether a run failed because there is no memory for it."""
    told = f"{type(error).__name__} {error}"
    return any(words in told for words in _REFUSALS)


# --- the process ----------------------------------------------------------------------------------------------------


def bound(memory: int, seconds: float) -> None:
    """Let this process take so many bytes more than it has, and live so long, where the system can see to it."""
    if hasattr(signal, "setitimer"):  # ends it even where nobody waits for it any more
        signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE)
    if resource is None:
        return
    global _most
    with suppress(OSError, ValueError):
        with open("/proc/self/statm") as file:
            held = int(file.read().split()[5]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        size = held + memory
        resource.setrlimit(resource.RLIMIT_DATA, (size if hard < 0 else min(size, hard), hard))
        return
    begins = _most is None
    _most = _resident() + memory
    if begins:
        threading.Thread(target=_watch, daemon=True).start()


_most: int | None = None
"""Bytes that this process may hold, where it sees to that itself; of its present job."""


def _watch() -> None:
    while True:
        if _most is not None and _resident() > _most:
            os._exit(NO_ROOM)
        time.sleep(0.02)


def _resident() -> int:
    """The largest resident size so far: macOS has no ``/proc`` and keeps to no limit, but tells it, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _read(jobs: queue.SimpleQueue[Any]) -> None:
    """Pass jobs on as they come; when nobody is left who could send any, end."""
    try:
        while True:
            jobs.put(receive(sys.stdin.buffer))
    except MemoryError:  # inputs or a model that the limit of the job before has no room for
        os._exit(NO_ROOM)
    except Exception:  # whatever is no message
        os._exit(0)


def main() -> None:
    """Answer jobs until standard input ends."""
    with suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who waits
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what native code prints is no answer
    import onnxruntime  # noqa: F401 (while nobody waits; on Windows loading waits for whoever reads standard input)

    jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(jobs,), daemon=True).start()
    send(answers, {})
    while True:
        head, arrays, blob = jobs.get()
        bound(head["memory"], head["seconds"])
        try:
            answer, values = execute(head, arrays, blob)
        except MemoryError as error:
            answer, values = {"room": str(error)}, []
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        send(answers, answer, values)


if __name__ == "__main__":
    main()
