"""``python -m tests.fuzz --cases 10000 --jobs 2``: mutated inputs, each in a process of its own with limits.

One case again: ``python -m tests.fuzz --seed 0 --only 17 --keep FOLDER``; made small and added to what was found: with
``--shrink NAME.onnx``. What was found before: ``--found``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tests.fuzz import cases, found, outcome, shrink, workers


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=300, help="how many, of those from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*", help="these alone, with what they say")
    parser.add_argument("--surface", choices=cases.SURFACES, help="only those that mutate this")
    parser.add_argument("--light", action="store_true", help="only those that start from small models, as in CI")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for the files of cases that end badly")
    parser.add_argument("--log", type=Path, help="a file to which each outcome is added, a line of JSON each")
    parser.add_argument(
        "--shrink", metavar="NAME.onnx", help="with --only N: make the case small, and add it to 'found'"
    )
    parser.add_argument("--found", action="store_true", help="the files of the folder 'found' instead")
    return parser.parse_args()


def main() -> int:
    """Run what the arguments say; returns 1 where a case ended badly."""
    given = arguments()
    numbers = given.only or range(given.first, given.first + given.cases)
    if given.shrink is not None:
        case = cases.case(given.seed, numbers[0])
        data, told = shrink.shrunk(case)
        found.keep(given.shrink, data, case.command)
        print(told)
        return 0
    if given.found:
        ends = list(found.again(given.jobs))
        print("\n".join(f"{name}: {one}" for name, one in ends if one.bad))
        return int(any(one.bad for _, one in ends))
    drawn = (cases.case(given.seed, n) for n in (given.only or count(given.first)))
    wanted = (one for one in drawn if given.surface in (None, one.surface) and not (given.light and one.heavy))
    chosen = islice(wanted, len(numbers))
    ended, begun = [], time.monotonic()
    for one in workers.over(chosen, given.jobs, given.keep):
        ended.append(one)
        if given.log is not None:
            with open(given.log, "a") as file:
                file.write(json.dumps(asdict(one)) + "\n")
        if given.only:
            case = cases.case(given.seed, one.number)
            print(f"{one.number}: {case.surface} {case.base} {case.steps} {' '.join(case.command)}\n  {one}")
        elif one.bad or len(ended) % 100 == 0:
            told = f"{one.kind}: {one.place}" if one.bad else ""
            print(f"{len(ended)} after {time.monotonic() - begun:.0f} s: case {one.number} {told}", file=sys.stderr)
    print(outcome.table(ended, given.seed))
    return int(any(one.bad for one in ended))


if __name__ == "__main__":
    sys.exit(main())
