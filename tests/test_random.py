"""Random graphs: whatever is drawn, the proof holds, the model is valid, and a mask made by hand agrees."""

import os
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from onnx import ModelProto

import graphprune
from graphprune.analysis import blocks
from graphprune.errors import InputError
from graphprune.passes.depth.depth import Request
from tests import helpers
from tests.random_graphs import convolutional
from tests.random_sequences import sequential

NOTHING = ("nothing is prunable", "nothing can be removed", "removes nothing", "would not make it smaller")
BATCHES, SIZE = 8, int(os.environ.get("GRAPHPRUNE_RANDOM_GRAPHS", "800")) // 16
"""In all 800 graphs, in batches that run side by side; the environment asks for more."""
QUIET = settings(max_examples=SIZE, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("batch", range(BATCHES))
def test_convolutional_graphs(batch: int) -> None:
    @seed(batch)
    @QUIET
    @given(convolutional(), st.sampled_from([0.3, 0.5, 0.7]), st.booleans())
    def one(model: ModelProto, ratio: float, allow_statistical: bool) -> None:
        judge(model, ratio, allow_statistical)

    one()


@pytest.mark.parametrize("batch", range(BATCHES))
def test_sequential_graphs(batch: int) -> None:
    @seed(1000 + batch)
    @QUIET
    @given(sequential(), st.sampled_from([0.3, 0.5, 0.7]), st.booleans())
    def one(model: ModelProto, ratio: float, allow_statistical: bool) -> None:
        judge(model, ratio, allow_statistical)

    one()


@pytest.mark.parametrize("batch", range(BATCHES))
def test_blocks(batch: int) -> None:
    """A random half of what is found goes, and then a ratio of the rest."""

    @seed(2000 + batch)
    @settings(QUIET, max_examples=max(SIZE // 4, 1))
    @given(st.one_of(convolutional(), sequential()), st.randoms(use_true_random=False))
    def one(model: ModelProto, random: Random) -> None:
        names = [b.id for b in blocks.find_blocks(graphprune.analyze(model)).blocks]
        chosen = [name for name in names if random.random() < 0.5]
        if not chosen:
            return
        try:
            alone = graphprune.prune(model, blocks=Request(chosen))
            both = graphprune.prune(model, ratio=0.3, blocks=Request(chosen))
        except InputError as error:
            known = ("overlap", "both operands", *NOTHING)
            assert any(words in str(error) for words in known), error
            return
        for result in (alone, both):
            helpers.check(result.model.proto)
            assert result.without is not None and result.without.proof is not None
            assert result.without.proof.worst < 1e-4 and len(result.plan.blocks) > 0

    one()


def judge(model: ModelProto, ratio: float, allow_statistical: bool) -> None:
    """Prune, and check the result in every way there is."""
    helpers.check(model)
    try:
        result = graphprune.prune(model, ratio=ratio, align=1, allow_statistical=allow_statistical)
    except InputError as error:
        assert any(words in str(error) for words in NOTHING), error
        return
    helpers.check(result.model.proto)
    assert result.proof is not None and result.proof.worst < 1e-4
    feeds = helpers.random_feeds(model, {"batch": 2}, top=10)
    found = helpers.run(result.model.proto, feeds)
    if result.proof.statistical or any(n.op_type in ("DequantizeLinear", "If", "Loop") for n in model.graph.node):
        assert all(np.isfinite(v).all() for v in found)
        return
    masked = helpers.run(helpers.mask_by_hand(model, result.plan.to_json()), feeds)
    for expected, value in zip(masked, found, strict=True):
        assert helpers.relative(expected, value) < 1e-4
