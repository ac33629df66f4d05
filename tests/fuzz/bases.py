"""What is mutated: exports of the zoo, models that packages carry, ONNX's own cases, and graphs drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from random import Random

import onnx
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from onnx import ModelProto

import models
from models import small
from tests.fuzz import operators
from tests.random_graphs import convolutional
from tests.random_sequences import sequential

SHARES = {"operator": 30, "random": 20, "onnx": 15, "zoo": 20, "small": 10, "packaged": 5}
"""Of 100 cases how many start from which kind; the small ones are most, since a case of theirs takes a tenth."""
SLOW = ("yolo-int8", "yolo-uint8", "swin-ts", "segformer-ts")
"""Exports that take seconds each."""
PACKAGED = ("ppocr-v4-cls", "densenet121-light", "resnet50-light", "shufflenet-light", "squeezenet-light")
CARRIED = (("magika", "magika/models/standard_v3_3/model.onnx"), ("silero-vad", "silero_vad/data/silero_vad.onnx"))
DRAWN = 200
"""How many graphs hypothesis draws, each when it is asked for."""


def chosen(random: Random) -> str:
    """The name of a base, ``kind:name``."""
    kind = random.choices(list(SHARES), list(SHARES.values()))[0]
    return f"{kind}:{random.choice(names(kind))}"


@cache
def names(kind: str) -> list[str]:
    """Those of a kind, in an order that only changes where there are others."""
    if kind == "operator":
        return sorted(operators.packed())
    if kind == "random":
        return [f"{form}-{k}" for form in ("convolutional", "sequential") for k in range(DRAWN // 2)]
    if kind == "onnx":
        root = _onnx()
        small_ones = (p for p in root.rglob("model.onnx") if p.stat().st_size < 40_000)
        return sorted(p.parent.relative_to(root).as_posix() for p in small_ones)
    if kind == "zoo":
        return [name for name in models.zoo() if not name.startswith(SLOW)]
    if kind == "small":
        return sorted(_SMALL)
    return sorted([*PACKAGED, *(package for package, _ in CARRIED)])


_SMALL: dict[str, Callable[[], ModelProto]] = {
    "chain": small.chain,
    "residual": small.residual,
    "attention": small.attention,
    "attention-scaled": lambda: small.attention(scale_from_shape=True),
}


def _onnx() -> Path:
    return Path(onnx.__file__).parent / "backend/test/data"


@lru_cache(maxsize=64)
def data(name: str) -> bytes:
    """The bytes of a base.

    Raises:
        LookupError: a package that carries it is not installed.
    """
    kind, _, own = name.partition(":")
    if kind == "operator":
        return operators.packed()[own]
    if kind == "random":
        return _drawn(own)
    if kind == "onnx":
        return (_onnx() / own / "model.onnx").read_bytes()
    if kind == "zoo":
        return models.export(own).SerializeToString(deterministic=True)
    if kind == "small":
        return _SMALL[own]().SerializeToString(deterministic=True)
    carried = dict(CARRIED)
    place = models.carried(own, carried[own]) if own in carried else models.packaged(own)
    return place.read_bytes()


def _drawn(own: str) -> bytes:
    """A graph that hypothesis draws, by its number."""
    form, _, number = own.rpartition("-")
    found: list[ModelProto] = []
    strategy = convolutional() if form == "convolutional" else sequential()

    @seed(int(number))
    @settings(
        max_examples=4, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(strategy, st.none())
    def draw(model: ModelProto, _: None) -> None:
        found.append(model)

    draw()
    return max((m.SerializeToString(deterministic=True) for m in found), key=len)
