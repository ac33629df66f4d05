"""The level ``detections`` of a verdict."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.model import Model
from graphprune.relation import Values
from graphprune.verdict.checks import Checks, Level
from graphprune.verdict.detections.agreement import agreement
from graphprune.verdict.detections.forms import AUTO, Unclear, announced, find

Outputs = Sequence[Sequence[Values]]


def asked(checks: Checks, original: Model | None) -> bool:
    """Whether boxes are to be compared."""
    wanted = checks.min_map is not None or checks.detections is not None
    return wanted or (original is not None and announced(original))


def judge(level: Level, checks: Checks, original: Model, made: tuple[Outputs, Outputs]) -> str:
    """Compare boxes, and say why the level fails; empty where it does not.

    Args:
        level: is told what was found.
        checks: what is asked.
        original: the model whose boxes are taken for true.
        made: for each run outputs of the original and of the other.

    Raises:
        Unclear: the form of boxes that is asked for is not that of the outputs.
    """
    wanted = checks.min_map is not None or checks.detections is not None
    try:
        form = find(original, made[0], checks.detections or AUTO)
    except Unclear as why:
        if wanted:
            raise
        level.status, level.message = "skipped", str(why)
        return ""
    if checks.inputs is None and not wanted:
        level.status = "skipped"
        level.message = "inputs were made up, and boxes in noise say nothing; give images by --inputs"
        return ""
    found = agreement(*([one for outputs in side for one in form.read(outputs)] for side in made))
    if not found.boxes:
        level.message = (
            "the original detects nothing in these inputs; give images in which there is something, by --inputs"
        )
        level.status = "skipped"
        return level.message if wanted else ""
    level.details |= {"form": form.name, **found.to_json()}
    if checks.min_map is not None and not found.map >= checks.min_map:
        return f"boxes have a mAP of {found.map:.3f} against the original's, less than {checks.min_map:g}"
    return ""
