"""The models that the project trains itself score what their metadata says."""

import onnx
import pytest

import graphprune
import models

pytest.importorskip("sklearn")

from models.digits import accuracy, images


@pytest.mark.parametrize(("name", "least"), [("digits-transformer", 0.95), ("digits-cnn", 0.98)])
def test_their_score_is_what_they_say(name: str, least: float) -> None:
    model = onnx.load(models.trained(name))
    (stored,) = [p.value for p in model.metadata_props if p.key == "held_out_accuracy"]
    assert accuracy(model) == pytest.approx(float(stored), abs=0.003) and float(stored) > least


def test_parts_do_not_overlap() -> None:
    train, held_out = ({image.tobytes() for image in images(part)[0]} for part in ("train", "held out"))
    assert len(held_out) == 450 and not train & held_out


def test_metadata_survives_pruning() -> None:
    result = graphprune.prune(models.trained("digits-cnn"), ratio=0.2)
    assert [p.key for p in result.model.proto.metadata_props] == [
        "held_out_accuracy",
        "graphprune.version",
        "graphprune.recipe",
        "graphprune.original.sha256",
        "graphprune.plan.sha256",
    ]
