"""Choice, allocation and refit on exports as they come: of every kind, with inputs that are made up."""

from __future__ import annotations

import numpy as np
import pytest

import graphprune
import models
from graphprune.model import load
from graphprune.run import synthetic
from graphprune.run.runtime import run, session
from tests import rotation
from tests.helpers import check

EXPORTS = models.known(
    "albert-ts14",  # layers that share their weights
    "bart-dynamo18",
    "clip-vision-ts14",
    "diffusion-unet-ts17",
    "llama-dynamo23",  # runs with a batch of one only
    "lstm-tagger-ts9",
    "mamba-like-dynamo18",
    "moe-ts12",
    "segformer-ts14",
    "shufflenet-v2-dynamo18",
    "swin-ts14",
)
LARGE = ("bart-dynamo18", "segformer-ts14")
"""What takes longest, and is of a kind with others."""


@pytest.mark.parametrize("name", [n for n in EXPORTS if rotation.ALL or n not in LARGE])
def test_exports_are_chosen_and_fitted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "SAMPLES", 16)
    proto = models.export(name)
    result = graphprune.prune(proto, ratio=0.3, calibration="generated")
    assert result.proof is not None and result.proof.worst < 1e-4
    assert result.after.macs < 0.85 * result.before.macs
    assert result.fits and all(f.after <= f.before for f in result.fits)
    kept = [f for f in result.fits if f.kept]
    assert min(f.after / f.before for f in kept) < 0.95
    assert [e["weight"] for e in result.plan.compensated] == [f.weight for f in kept]
    check(result.model.proto)
    sizes = next(iter(result.proof.inputs))["shapes"]
    feeds = next(synthetic.inputs(load(proto), {n: tuple(s) for n, s in sizes.items()}))
    with session(load(proto)) as before, session(result.model) as after:
        for wanted, found in zip(run(before, feeds), run(after, feeds), strict=True):
            assert wanted.shape == found.shape and (np.isfinite(found).all() or not np.isfinite(wanted).all())


def test_uniform_takes_the_same_share_of_all() -> None:
    proto = models.export("clip-vision-ts14")
    shares = [
        [len(g.removed) / g.size for g in graphprune.prune(proto, ratio=0.25, align=1, **given).plan.groups]
        for given in ({"calibration": "generated", "uniform": True, "compensate": "none"}, {})
    ]
    assert shares[0] == shares[1]
