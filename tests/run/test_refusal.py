"""A fault on a model that ONNX Runtime does not run is the model's; any other stays a fault."""

from __future__ import annotations

import pytest

import graphprune
from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.run.refusal import blamed
from models.small import Net, chain


def impossible() -> Model:
    """A graph whose shapes fit by name alone: what is reshaped has other elements than it is to have."""
    net = Net()
    x = net.input("x", ["batch", "length", 6])
    target = net.op("Concat", net.op("Shape", x), net.ints(7), axis=0)
    return Model(net.model(net.op("Reshape", x, target)))


def test_faults_of_the_model() -> None:
    with pytest.raises(InputError, match="Reshape"), blamed(impossible()):
        raise KeyError("axis")


@pytest.mark.parametrize("fault", [KeyError("axis"), ValueError("x"), ZeroDivisionError()])
def test_faults_of_the_program(fault: Exception) -> None:
    with pytest.raises(type(fault)), blamed(Model(chain())):
        raise fault


def test_what_is_told_stays() -> None:
    with pytest.raises(InputError, match=r"^told$"), blamed(impossible()):
        raise InputError("told")


def test_analysis_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr("graphprune.analysis.web.build", raises)
    with pytest.raises(IndexError):
        graphprune.analyze(chain())
    with pytest.raises(InputError):
        graphprune.analyze(impossible())
