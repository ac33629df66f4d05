"""Arguments from Python: what is wrong is said in one line, with the parameter, what was given and what is expected."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest

import graphprune
from graphprune.analysis import analyze
from graphprune.errors import InputError
from graphprune.model.arguments import InputShapes, Least, Seed, checked, described, read
from graphprune.passes.depth import depth
from graphprune.passes.sparse import sparse
from models.small import chain, residual
from tests.helpers import command

FUNCTIONS: list[Callable[..., Any]] = [
    graphprune.prune,
    graphprune.sparsify,
    graphprune.apply,
    graphprune.analyze,
    graphprune.validate,
    graphprune.bench,
]
PARAMETERS = [(f, p.name) for f in FUNCTIONS for p in inspect.signature(f).parameters.values()]


class Stranger:
    """What no parameter is."""

    def __repr__(self) -> str:
        return "this"


@pytest.mark.parametrize(("function", "name"), PARAMETERS, ids=lambda v: getattr(v, "__name__", v))
def test_every_parameter_is_checked(function: Callable[..., Any], name: str) -> None:
    """A parameter that is added later is checked without a further line."""
    needed = {"model": chain(), "plan": "p.json"}
    others = {n: v for n, v in needed.items() if n in inspect.signature(function).parameters}
    with pytest.raises(InputError, match=rf"^{name}.* is this \(Stranger\), and must be (a|True|None)"):
        if name == "models":
            function(chain(), Stranger())
        else:
            function(**others | {name: Stranger()})


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "ratio as a dict": ({"ratio": {"a": 1}}, "ratio is {'a': 1} (dict), and must be a number"),
    "ratio as text": ({"ratio": "0.3"}, "ratio is '0.3' (str), and must be a number"),
    "ratio nan": ({"ratio": float("nan")}, "ratio is nan (float), and must be a number"),
    "ratio too long": ({"ratio": 10**400}, "(int), and must be a number"),
    "ratio True": ({"ratio": True}, "ratio is True (bool)"),
    "align 4.0": ({"align": 4.0}, "align is 4.0 (float), and must be a whole number or None"),
    "include as text": ({"ratio": 0.3, "include": "abc"}, "include is 'abc' (str), and must be a list of strings"),
    "exclude with a number": ({"ratio": 0.3, "exclude": ["a", 1]}, "exclude[1] is 1 (int), and must be a string"),
    "shapes as a list": (
        {"ratio": 0.3, "input_shapes": [1, 3]},
        "input_shapes is [1, 3] (list), and must be a dict of lists of whole numbers from 1 up by strings or None",
    ),
    "a shape as text": ({"input_shapes": {"x": "1x3x8x8"}}, "input_shapes['x'] is '1x3x8x8' (str), and must be a list"),
    "a size of 0": ({"input_shapes": {"x": [0, 3, 8, 8]}}, "input_shapes['x'][0] is 0 (int), and must be a whole"),
    "a seed below 0": ({"ratio": 0.3, "seed": -1}, "seed is -1 (int), and must be a whole number from 0 up"),
    "blocks as a dict": ({"blocks": {"count": 2}}, "blocks is {'count': 2} (dict), and must be a Request, a whole"),
    "blocks below 0": ({"blocks": -2}, "--blocks -2 is out of range"),
    "a request of text": ({"blocks": depth.Request(count="2")}, "blocks.count is '2' (str), and must be a whole"),  # type: ignore[arg-type]
    "checks as text": ({"ratio": 0.3, "checks": "all"}, "checks is 'all' (str), and must be a Checks or None"),
    "a check of text": (
        {"ratio": 0.3, "checks": graphprune.Checks(min_cosine="0.9")},  # type: ignore[arg-type]
        "checks.min_cosine is '0.9' (str), and must be a number or None",
    ),
    "a check that nothing fails": ({"checks": graphprune.Checks(max_abs=float("nan"))}, "checks.max_abs is nan"),
    "a profile of two": (
        {"checks": graphprune.Checks(profile={"x": ((1,), (2,))})},  # type: ignore[dict-item]
        "checks.profile['x'] is ((1,), (2,)) (tuple), and must be a tuple of",
    ),
    "sparsity as text": ({"ratio": 0.3, "sparsity": "2:4"}, "sparsity is '2:4' (str), and must be a Request or None"),
    "a scope of text": (
        {"sparsity": sparse.Request(scope=sparse.Scope(also="*"))},
        "sparsity.scope.also is '*' (str), and must be a list",
    ),
    "no function": ({"ratio": 0.3, "progress": 1}, "progress is 1 (int), and must be a Progress"),
    "calibration of numbers": ({"calibration": 3}, "calibration is 3 (int), and must be a string"),
    "calibration of one number": (
        {"ratio": 0.3, "calibration": {"x": np.zeros(3)}},
        "calibration: input 'x' has shape 3",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case: str) -> None:
    given, words = WRONG[case]
    with pytest.raises(InputError) as error:
        graphprune.prune(chain(), **given)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("model", [None, 3, ["m.onnx"]])
def test_what_is_no_model(model: Any) -> None:
    with pytest.raises(
        InputError, match=r"^model is .*, and must be a string, a path, bytes, a ModelProto, a Model or an onnx_ir"
    ):
        graphprune.prune(model, ratio=0.5)


def test_what_fits_is_passed_on_in_plain_types() -> None:
    """Numbers of NumPy, lists for tuples: what one would expect to work works, and can be written to JSON."""
    shapes = {"x": [np.int64(2), 3, 8, 8]}
    result = graphprune.prune(chain(), ratio=np.float32(0.5), seed=np.int64(3), align=np.int32(1), input_shapes=shapes)  # type: ignore[arg-type, dict-item]
    assert result.plan.proof is not None and type(result.plan.proof["inputs"][0]["seed"]) is int
    assert result.plan.model["witness"] == {"x": [2, 3, 8, 8]}


def test_blocks_by_number_and_by_name() -> None:
    def gone(blocks: Any) -> list[str]:
        return [b.id for b in graphprune.prune(residual(), blocks=blocks).plan.blocks]

    assert gone(1) == gone(depth.Request(count=1)) and len(gone(1)) == 1
    assert gone(["layer:relu_34"]) == gone(depth.Request(["layer:relu_34"])) == ["layer:relu_34"]


def test_signatures_stay() -> None:
    for function in FUNCTIONS:
        assert function.__doc__ and next(iter(inspect.signature(function).parameters)) in ("model", "plan", "models")


def test_a_negative_seed_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(chain().SerializeToString())
    for first in ("prune", "validate", "bench"):
        options = ("--ratio", "0.5") if first == "prune" else ()
        status, _, err = command(capsys, first, "m.onnx", *options, "--seed", "-1")
        assert status == 2 and "'--seed': -1 is not in the range x>=0" in err


def test_hints_in_words() -> None:
    assert described(Sequence[str]) == "a list of strings"
    assert described(str | os.PathLike[str] | None) == "a string, a path or None"
    assert described(Mapping[str, tuple[int, ...]]) == "a dict of lists of whole numbers by strings"
    assert described(tuple[int, str]) == "a tuple of a whole number and a string"
    assert described(Annotated[int, Least(2)] | None) == "a whole number from 2 up or None"
    assert read("n", {"x": [1]}, InputShapes) == {"x": (1,)}


def test_any_function_can_be_checked() -> None:
    @checked
    def function(first: int, *rest: str, seed: Seed = 0) -> tuple[object, ...]:
        return first, *rest, seed

    assert function(np.int8(1), "a", "b") == (1, "a", "b", 0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"rest\[1\] is 2 \(int\), and must be a string"):
        function(1, "a", 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword"):
        function(1, other=2)  # type: ignore[call-arg]


def test_checks_have_hints_that_can_be_read() -> None:
    assert analyze(chain()).groups
    for kind in (graphprune.Checks, depth.Request, sparse.Request):
        assert read("it", kind(), kind) == kind() and fields(kind)
