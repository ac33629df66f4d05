"""What came of a case, and how many came to what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

GOOD = ("error", "refused", "done", "proven")
"""A clean error; one with exit status 1 or 3; done, with nothing to compare; done, and compared with the original."""
BAD = ("traceback", "hang", "memory", "crash", "wrong", "noise")
"""A fault, over 60 s, over 4 GB, a signal, another result than that of the masked original, more than one line said."""


@dataclass
class Outcome:
    """What came of one case.

    Attributes:
        number: of the case.
        kind: of ``GOOD`` or ``BAD``.
        place: where it comes from: a line of code, or the error without what it names.
        said: the error in full.
        seconds: of processor time.
        memory: bytes at the peak.
    """

    number: int
    kind: str
    place: str = ""
    said: str = ""
    seconds: float = 0.0
    memory: int = 0

    @property
    def bad(self) -> bool:
        return self.kind in BAD


def table(outcomes: Iterable[Outcome], seed: int) -> str:
    """How many came to what, and each bad kind by its place, with the cases that came there."""
    found = list(outcomes)
    counts = Counter(o.kind for o in found)
    lines = [f"seed {seed}, {len(found)} cases"]
    lines += [f"{counts[kind]:7,} {kind}" for kind in (*GOOD, *BAD)]
    seconds = sum(o.seconds for o in found), max((o.seconds for o in found), default=0)
    peak = max((o.memory for o in found), default=0) / 2**20
    lines.append(f"        {seconds[0]:,.0f} s of processor time, at most {seconds[1]:.0f} s and {peak:,.0f} MiB each")
    places: dict[tuple[str, str], list[Outcome]] = {}
    for one in found:
        if one.bad:
            places.setdefault((one.kind, one.place), []).append(one)
    for (kind, place), own in sorted(places.items(), key=lambda entry: -len(entry[1])):
        numbers = ", ".join(str(o.number) for o in own[:8])
        lines += [f"{len(own):5} {kind}: {place} [{numbers}]", f"          {own[0].said[:300]}"]
    return "\n".join(lines)
