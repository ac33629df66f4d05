"""The plan: everything that a rewrite did, as plain data that other programs can read, check and replay."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema

from graphprune.errors import InputError
from graphprune.model import parsing, paths
from graphprune.model.model import digest
from graphprune.relation import Values
from graphprune.run import arrays
from graphprune.schema import schema

FORMAT = "graphprune-plan/1"


@dataclass
class GroupPlan:
    """What was removed from one group; class ids are those of the analysis of the original.

    ``order`` is there where classes changed places: those that stay, in their new order.
    """

    id: str
    kind: str
    size: int
    statistical: bool
    removed: list[int]
    order: list[int] | None = None
    score: list[float] | None = None


@dataclass
class Slice:
    """One use of a constant that changed.

    Attributes:
        consumer: name of the consuming node's first output in the original model.
        input: index of that node's input.
        source: name of the constant in the original.
        result: its name in the pruned model.
        removed: for each axis (as a string, for JSON) the original indices of removed elements.
        scaled: factor by which what stayed was multiplied, where it was.
        order: for each axis whose elements changed places (as a string), those that stay in their new order.
    """

    consumer: str
    input: int
    source: str
    result: str
    removed: dict[str, list[int]]
    scaled: float | None = None
    order: dict[str, list[int]] | None = None


@dataclass
class AttributeChange:
    """An attribute of a node that changed with the sizes; ``before`` is None where it was absent."""

    consumer: str
    name: str
    before: Any
    after: Any


@dataclass
class BlockPlan:
    """A block that was taken out.

    Attributes:
        id: of the block.
        kind: ``branch`` (its exit times zero is what removal comes to) or ``layer``.
        output: the tensor that was replaced.
        by: the tensor that replaced it.
        exit: for a branch the operand of the sum that ``output`` is; for a layer ``output`` itself.
    """

    id: str
    kind: str
    output: str
    by: str
    exit: str


@dataclass
class Plan:
    """See the module; field by field as in the file."""

    model: dict[str, Any]
    groups: list[GroupPlan] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    blocks: list[BlockPlan] = field(default_factory=list)
    attributes: list[AttributeChange] = field(default_factory=list)
    corrections: list[dict[str, Any]] = field(default_factory=list)
    interface: list[dict[str, Any]] = field(default_factory=list)
    bases: dict[str, Any] = field(default_factory=dict)
    folded: dict[str, list[int]] = field(default_factory=dict)
    compensated: list[dict[str, Any]] = field(default_factory=list)
    sparsity: list[dict[str, Any]] = field(default_factory=list)
    distilled: dict[str, Any] | None = None
    rounds: list[dict[str, Any]] = field(default_factory=list)
    choices: list[dict[str, Any]] = field(default_factory=list)
    factored: list[dict[str, Any]] = field(default_factory=list)
    vocabulary: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    """How images, sounds or texts were read; not what they were."""
    proof: dict[str, Any] | None = None
    where: str = field(default="the plan", compare=False)
    """What to call it in messages; not in the file."""
    matrices: dict[str, Values] = field(default_factory=dict, compare=False, repr=False)
    """What ``bases`` were changed by, ``<group>/<space>``: R and ``R^-T``, shape ``[2, matrices, classes, classes]``;
    in a file of their own."""

    def to_json(self) -> dict[str, Any]:
        """The plan as it stands in the file."""
        data: dict[str, Any] = {"format": FORMAT, "model": self.model}
        data["groups"] = [_without_none(vars(g)) for g in self.groups]
        data["slices"] = [_without_none(vars(s)) for s in self.slices]
        data["blocks"] = [vars(b) for b in self.blocks]
        data["attributes"] = [
            {"consumer": a.consumer, "name": a.name, "from": a.before, "to": a.after} for a in self.attributes
        ]
        data["corrections"], data["interface"] = self.corrections, self.interface
        if self.bases:
            data["bases"] = self.bases
        if self.folded:
            data["folded"] = self.folded
        data["compensated"], data["sparsity"] = self.compensated, self.sparsity
        if self.distilled is not None:
            data["distilled"] = self.distilled
        if self.rounds:
            data["rounds"] = self.rounds
        if self.choices:
            data["choices"] = self.choices
        if self.factored:
            data["factored"] = self.factored
        if self.vocabulary is not None:
            data["vocabulary"] = self.vocabulary
        if self.calibration is not None:
            data["calibration"] = self.calibration
        if self.proof is not None:
            data["proof"] = self.proof
        return data

    @property
    def selection(self) -> dict[str, list[int]]:
        """Removed classes by group."""
        return {g.id: g.removed for g in self.groups}

    @property
    def orders(self) -> dict[str, list[int]]:
        """By group the classes that stay in their new order, where they changed places."""
        return {g.id: g.order for g in self.groups if g.order is not None}


def from_json(data: Any, where: str = "the plan") -> Plan:
    """Read a plan.

    Raises:
        InputError: it is not what the schema asks for; says at which entry.
    """
    validator = jsonschema.Draft202012Validator(schema("plan"))
    error = jsonschema.exceptions.best_match(validator.iter_errors(data))
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "the top"
        raise InputError(f"{where}: not a {FORMAT} file: at {place}: {error.message[:200]}")
    return Plan(
        model=data["model"],
        groups=[GroupPlan(**g) for g in data["groups"]],
        slices=[Slice(**s) for s in data["slices"]],
        blocks=[BlockPlan(**b) for b in data.get("blocks", [])],
        attributes=[AttributeChange(a["consumer"], a["name"], a["from"], a["to"]) for a in data.get("attributes", [])],
        corrections=data.get("corrections", []),
        interface=data.get("interface", []),
        bases=data.get("bases", {}),
        folded=data.get("folded", {}),
        compensated=data.get("compensated", []),
        sparsity=data.get("sparsity", []),
        distilled=data.get("distilled"),
        rounds=data.get("rounds", []),
        choices=data.get("choices", []),
        factored=data.get("factored", []),
        vocabulary=data.get("vocabulary"),
        calibration=data.get("calibration"),
        proof=data.get("proof"),
        where=where,
    )


def load(plan: str | os.PathLike[str] | Plan) -> Plan:
    """Read a plan file.

    Raises:
        InputError: no such file, not JSON, or not a plan.
    """
    if isinstance(plan, Plan):
        return plan
    path = Path(plan)
    paths.reads("the plan that is read", path)
    try:
        data = parsing.parsed(parsing.text(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no plan, which is JSON: *.plan.json beside a result is one") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a JSON file ({error})") from error
    found = from_json(data, str(path))
    if "sha256" in found.bases:
        found.matrices = _matrices(path, found.bases)
    return found


def matrices_place(plan: Path) -> Path:
    """Where the matrices of a plan go: beside it, as ``<plan without .json>.npz``."""
    return plan.with_name(plan.name.removesuffix(".json") + ".npz")


def _matrices(path: Path, bases: dict[str, Any]) -> dict[str, Values]:
    """The matrices that lie beside a plan.

    Raises:
        InputError: they are not there, are not those of the plan, or cannot be read.
    """
    place = matrices_place(path)
    paths.reads("the matrices of the plan", place)
    try:
        if digest(place) != bases["sha256"]:
            raise InputError(f"{place}: holds other matrices than those that {path} was written with")
        return arrays.read(place)
    except FileNotFoundError:
        raise InputError(
            f"{place}: no such file; {path} changes bases by matrices that lie there: keep the two together"
        ) from None
    except (OSError, *arrays.BROKEN) as error:
        raise InputError(f"{place}: does not hold matrices ({error})") from error


def _without_none(data: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in data.items() if v is not None}
