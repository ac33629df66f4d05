"""Random graphs: whatever is drawn, the proof holds, the model is valid, and a mask made by hand agrees."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto

import graphprune
from graphprune.errors import InputError
from tests import helpers
from tests.random_graphs import convolutional

NOTHING = ("nothing is prunable", "nothing can be removed", "removes nothing")


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(convolutional(), st.sampled_from([0.3, 0.5, 0.7]))
def test_random_graphs(model: ModelProto, ratio: float) -> None:
    helpers.check(model)
    try:
        result = graphprune.prune(model, ratio=ratio)
    except InputError as error:
        assert any(words in str(error) for words in NOTHING)
        return
    helpers.check(result.model.proto)
    feeds = helpers.random_feeds(model, {"batch": 2})
    masked = helpers.run(helpers.mask_by_hand(model, result.plan.to_json()), feeds)
    for expected, found in zip(masked, helpers.run(result.model.proto, feeds), strict=True):
        assert helpers.relative(expected, found) < 1e-4
