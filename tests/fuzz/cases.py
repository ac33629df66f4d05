"""Case N of seed S: what is mutated, by which steps, and what is then done with it; the same in every run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from onnx import ModelProto

from tests.fuzz import bases, nodes, raw, tensors, wholes

STRUCTURAL = {
    f"{module.__name__.rpartition('.')[2]}.{one.__name__}": one
    for module in (nodes, tensors, wholes)
    for one in module.MUTATIONS
}
_WEIGHTED = [
    f"{module.__name__.rpartition('.')[2]}.{one.__name__}"
    for module, times in ((nodes, 3), (tensors, 5), (wholes, 2))
    for one in module.MUTATIONS * times
]
MILD = (
    *(
        "nodes.insert",
        "nodes.insert",
        "nodes.bypass",
        "nodes.double",
        "nodes.retype",
        "nodes.rewire",
        "nodes.swap_inputs",
    ),
    *("tensors.change", "tensors.interface", "wholes.branch", "wholes.function", "wholes.repeat"),
)
"""Mutations that often leave a model that runs."""
BYTES = "bytes"
MODEL, OUTPUT = "model.onnx", "out.onnx"
SURFACES = {"model": 85, "plan": 4, "recipe": 3, "inputs": 2, "pictures": 2, "weights": 2, "options": 2}
"""Of 100 cases how many mutate what."""
ALL = ("--memory", "1G")
PRUNE = ("prune", MODEL, "-o", OUTPUT, "-q", *ALL)
COMMANDS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (30, (*PRUNE, "--ratio", "0.5", "--align", "1", "--uniform")),
    (10, (*PRUNE, "--ratio", "0.3", "--align", "1", "--allow-statistical")),
    (4, (*PRUNE, "--ratio", "0.5", "--calibration", "generated")),
    (4, (*PRUNE, "--blocks", "1")),
    (3, (*PRUNE, "--ratio", "0.3", "--rotate")),
    (3, (*PRUNE, "--low-rank", "0.3")),
    (2, (*PRUNE, "--target", "macs=0.6", "--steps", "2")),
    (5, ("sparsify", MODEL, "-o", OUTPUT, "-q", *ALL)),
    (2, ("sparsify", MODEL, "-o", OUTPUT, "-q", *ALL, "--permute")),
    (8, ("inspect", MODEL, *ALL)),
    (3, ("explain", MODEL, *ALL)),
    (2, ("graph", MODEL, "-o", "graph.json", *ALL)),
    (4, ("validate", MODEL, "--against", "base.onnx", *ALL)),
    (4, ("diff", MODEL, "base.onnx")),
    (1, ("bench", MODEL, "--rounds", "2", *ALL)),
    (1, ("init", MODEL, "-o", "made.toml")),
    (1, ("distill", MODEL, "base.onnx", "-o", OUTPUT, "-q", "--steps", "2", "--calibration", "generated", *ALL)),
)
"""What is done with a mutated model, and how often."""


@dataclass
class Case:
    """One case, before it is made.

    Attributes:
        seed, number: which.
        surface: what is mutated, of ``SURFACES``.
        base: the model that it starts from.
        steps: names of mutations, each with a chance of its own, so that some can be left out (see ``shrink``).
        command: the arguments of graphprune.
    """

    seed: int
    number: int
    surface: str
    base: str
    steps: list[str] = field(default_factory=list)
    command: tuple[str, ...] = ()

    @property
    def heavy(self) -> bool:
        """Whether it starts from a model of the usual kind, which takes many times what small ones take."""
        return self.base.startswith(("zoo", "packaged"))

    def random(self, *about: object) -> Random:
        """The chance of one part of the case."""
        return Random("/".join(map(str, (self.seed, self.number, *about))))


def case(seed: int, number: int) -> Case:
    """Case number N of a seed."""
    random = Random(f"{seed}/{number}")
    surface = random.choices(list(SURFACES), list(SURFACES.values()))[0]
    found = Case(seed, number, surface, bases.chosen(random))
    if surface != "model":
        found.base = f"small:{random.choice(['residual', 'chain', 'attention'])}"
        return found
    way = random.random()
    if way < 0.35:
        found.steps = [random.choice(_WEIGHTED)]
    elif way < 0.6:
        found.steps = [random.choice(MILD) for _ in range(random.choice([1, 1, 2, 3]))]
    elif way < 0.7:
        found.steps = [BYTES]
    else:
        several = random.choice([2, 2, 3, 3, 4, 6])
        found.steps = [random.choice([*_WEIGHTED, *[BYTES] * 5]) for _ in range(several)]
        found.steps.sort(key=lambda step: step == BYTES)  # bytes come last: few files are models behind them
    weights, commands = zip(*COMMANDS, strict=True)
    found.command = random.choices(commands, weights)[0]
    return found


def model(case: Case) -> bytes:
    """The bytes of a mutated model."""
    data = bases.data(case.base)
    proto = ModelProto.FromString(data)
    for place, step in enumerate(case.steps):
        if step == BYTES:
            continue
        try:
            STRUCTURAL[step](proto, case.random(place, step))
        except (ValueError, TypeError, OverflowError, IndexError):  # two steps that exclude each other
            continue
    structural = [s for s in case.steps if s != BYTES]
    data = proto.SerializeToString(deterministic=True) if structural else data
    for place, step in enumerate(case.steps):
        if step == BYTES:
            random = case.random(place, step)
            data = raw.mutated(data, random, bases.data(bases.chosen(random)))
    return data


def make(case: Case, folder: Path) -> tuple[str, ...]:
    """Write the files of a case into a folder; returns the command."""
    if case.surface != "model":
        from tests.fuzz import others

        return others.make(case, folder)
    (folder / MODEL).write_bytes(model(case))
    (folder / "base.onnx").write_bytes(bases.data(case.base))
    return case.command
