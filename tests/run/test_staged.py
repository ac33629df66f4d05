"""Stages of a model: what they make is what the whole model makes, and weights may change between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import models
from graphprune.analysis import Analysis, analyze
from graphprune.analysis.products import Product, find_products
from graphprune.errors import InputError
from graphprune.model import load
from graphprune.run.runtime import exposing, generate, run, session
from graphprune.run.staged import Staged, waves
from models.small import Net, residual


def numbered(analysis: Analysis) -> dict[str, int]:
    return {product.output: k for k, wave in enumerate(products(analysis)) for product in wave}


def products(analysis: Analysis) -> list[list[Product]]:
    return waves(analysis.model, {product.node: product for product in find_products(analysis.model, analysis.rulings)})


def test_waves_follow_the_data() -> None:
    analysis = analyze(models.export("vit-ts16"))
    found = products(analysis)
    names = [[analysis.model.nodes[product.node].name for product in wave] for wave in found]
    assert sorted(n.split("/")[-2] for n in names[1]) == ["k_proj", "q_proj", "v_proj"]
    assert sum(map(len, found)) == 14


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("name", ["vit-ts16", "yolo-dynamo18", "bert-classifier-ts17", "unet-ts10", "moe-ts12"])
def test_stages_make_what_the_model_makes(name: str, behind: bool, tmp_path: Path) -> None:
    analysis = analyze(models.export(name))
    model, number = analysis.model, numbered(analysis)
    feeds = [generate(model, analysis.witness.inputs, seed) for seed in range(2)]
    staged = Staged(model, number, behind, tmp_path)
    for k, one in enumerate(feeds):
        staged.start(k, one)
    key = "input" if behind else "output"
    for wave in range(max(number.values()) + 1):
        names = list(
            dict.fromkeys(getattr(n, key) for n in find_products(model, analysis.rulings) if number[n.output] == wave)
        )
        found = list(staged.run(model, wave, 2, names))
        with session(exposing(model, [n for n in names if n in model.producer])) as active:
            for one, values in zip(feeds, found, strict=True):
                inside = [n for n in names if n in model.producer]
                for tensor, expected in zip(inside, run(active, one, inside) if inside else [], strict=True):
                    assert np.allclose(values[tensor], expected, atol=1e-4), (wave, tensor)


def test_only_what_later_stages_read_is_kept(tmp_path: Path) -> None:
    model = load(residual())
    number = numbered(analyze(model))
    staged = Staged(model, number, True, tmp_path)
    staged.start(0, generate(model, {"x": (2, 3, 8, 8)}))
    for wave in range(max(number.values()) + 1):
        list(staged.run(model, wave, 1, []))
        assert len(staged.shelf.get(0)) <= 2


@pytest.mark.parametrize("crosses", [False, True])
def test_sequences_are_refused_where_they_cross_stages(crosses: bool, tmp_path: Path) -> None:
    net = Net()
    x = net.linear(net.input("x", [2, 4]), 4, 4)
    parts = net.op("SplitToSequence", x, axis=1)
    if crosses:  # what is inserted is made a stage later than the sequence
        parts = net.op("SequenceInsert", parts, net.linear(x, 4, 1))
    y = net.op("ConcatFromSequence", parts, axis=1)
    loaded = load(net.model(net.linear(y, 5 if crosses else 4, 4), rank=2))
    marked = {i: n for i, n in enumerate(loaded.nodes) if n.op_type == "MatMul"}  # such a model has no analysis
    number = {n.output[0]: k for k, wave in enumerate(waves(loaded, marked)) for n in wave}
    staged = Staged(loaded, number, True, tmp_path)
    staged.start(0, generate(loaded, {"x": (2, 4)}))
    stages = range(max(number.values()) + 1)
    if not crosses:
        assert [len(list(staged.run(loaded, wave, 1, []))) for wave in stages] == [1] * len(stages)
        return
    with pytest.raises(InputError, match="--no-compensate"):
        for wave in stages:
            list(staged.run(loaded, wave, 1, []))
