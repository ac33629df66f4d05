"""How much memory this process has taken, and how much it may take."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak() -> int | None:
    """Largest resident size so far, in bytes; None where the system does not tell.

    Linux keeps ``ru_maxrss`` across ``exec``, so that a small child of a large parent would seem large; the high-water
    mark in ``/proc`` is of this program alone.
    """
    if _STATUS.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        return int(found[1]) << 10 if found else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def limit(size: int) -> None:
    """Cap the data that this process may hold, in bytes, where the system can."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
