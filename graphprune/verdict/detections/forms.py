"""Forms in which detectors give boxes, and which of them a model has.

The form is told by what the exporter wrote into the metadata (``task``, ``names``, ``end2end``, as Ultralytics does),
by names and shapes of outputs, and by what is in them; never by the name of a model. Where that leaves two, the user
says which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.relation import Values
from graphprune.run.reading import exported
from graphprune.verdict.detections import reading
from graphprune.verdict.detections.boxes import Found

AUTO = "auto"
FORMS: Mapping[str, str] = {
    "scores": "one output [n, 4 + classes, cells], or turned: centre, width, height, and a score a class",
    "object": "one output [n, cells, 5 + classes], or turned: the same with how sure it is of any object before them",
    "final": "one output [n, boxes, 6]: corners, score, class",
    "softmax": "logits [n, queries, classes + 1], the last for none, and centre, width, height [n, queries, 4]",
    "sigmoid": "logits [n, queries, classes], and centre, width, height [n, queries, 4]",
    "lists": "corners [boxes, 4], classes [boxes] and scores [boxes] of one image; or with an axis of images before",
}
"""What there is, in words."""
_TASKS = ("detect", "segment", "pose")
"""Tasks whose boxes are upright."""


class Unclear(InputError):
    """It cannot be told whether, or how, outputs hold boxes."""


@dataclass(frozen=True)
class Said:
    """What the exporter says.

    Attributes:
        task: as ``detect``; empty where it says none.
        classes: how many, 0 where it does not say.
        final: whether boxes have been chosen in the model.
    """

    task: str = ""
    classes: int = 0
    final: bool = False


def said(model: Model) -> Said:
    """What the metadata of a file says of its task; what cannot be read says nothing."""
    data = exported.said(model)
    names, options = exported.literal(data.get("names")), exported.literal(data.get("args"))
    chosen = exported.literal(data.get("end2end")) is True or (isinstance(options, dict) and options.get("nms") is True)
    return Said(data.get("task", ""), len(names) if isinstance(names, dict | list) else 0, chosen)


def announced(model: Model) -> bool:
    """Whether a file says that it is a detector: by its task, or by what its outputs are called."""
    return said(model).task in _TASKS or _by_name(model.output_names) is not None


@dataclass(frozen=True)
class Form:
    """How outputs hold boxes.

    Attributes:
        name: one of :data:`FORMS`.
        places: of the outputs that hold them: of several boxes, then logits, or scores and classes.
        last: whether the four numbers of a box lie along the last axis, of one output.
        classes: how many; 0 for all that there is room for.
    """

    name: str
    places: tuple[int, ...]
    last: bool = True
    classes: int = 0

    def read(self, outputs: Sequence[Values]) -> list[Found]:
        """What is found in each image of one run, ranked; overlapping boxes are gone."""
        held = [np.asarray(outputs[place]) for place in self.places]
        if self.name in _DENSE:
            rows = held[0] if self.last else np.moveaxis(held[0], 1, -1)
            return _DENSE[self.name](rows, self.classes)
        return _SEVERAL[self.name](*held)


_DENSE: Mapping[str, Callable[[Values, int], list[Found]]] = {
    "scores": reading.scores, "object": reading.objects, "final": reading.final
}  # fmt: skip
_SEVERAL: Mapping[str, Callable[..., list[Found]]] = {
    "softmax": reading.softmax, "sigmoid": reading.sigmoid, "lists": reading.lists
}  # fmt: skip


def find(model: Model, made: Sequence[Sequence[Values]], asked: str = AUTO) -> Form:
    """How the outputs of a model hold boxes.

    Args:
        model: the original.
        made: its outputs, for each of some runs.
        asked: one of :data:`FORMS`, or ``auto``.

    Raises:
        Unclear: they hold none, it cannot be told, or they have not the form that is asked for; says which.
    """
    if asked not in (AUTO, *FORMS):
        raise Unclear(f"detections:{asked}: there is no such form; there are {', '.join(FORMS)}")
    known, shapes = said(model), [np.asarray(value).shape for value in made[0]]
    if asked == AUTO and known.task and known.task not in _TASKS:
        raise Unclear(f"{model.name}: its metadata says that its task is {known.task!r}, not upright boxes")
    found = _several(model, made, asked) or _one(model, made, asked, known)
    if found is None:
        raise Unclear(f"{model.name}: {_why_none(model.output_names, shapes, asked)}")
    return found


def _by_name(names: Sequence[str]) -> dict[str, int] | None:
    """Places of outputs that are called as boxes, and as scores, labels or logits, are; None where none is."""
    found: dict[str, int] = {}
    for place, name in enumerate(names):
        last = name.lower().replace("pred_", "").split("/")[-1].split(":")[0]
        for kind, words in _WORDS.items():
            if last in words and kind not in found:
                found[kind] = place
    if "boxes" in found and ("logits" in found or {"scores", "classes"} <= found.keys()):
        return found
    return None


_WORDS = {
    "boxes": ("boxes", "bboxes", "detection_boxes", "det_boxes"),
    "classes": ("labels", "classes", "class_ids", "detection_classes", "det_classes"),
    "scores": ("scores", "detection_scores", "det_scores"),
    "logits": ("logits",),
}


def _several(model: Model, made: Sequence[Sequence[Values]], asked: str) -> Form | None:
    """The form of a model that gives boxes and what they are of as outputs of their own."""
    if asked in _DENSE:
        return None
    shapes, named = [np.asarray(value).shape for value in made[0]], _by_name(model.output_names) or {}
    fours = [k for k, shape in enumerate(shapes) if len(shape) in (2, 3) and shape[-1] == 4]
    box = named.get("boxes", fours[0] if len(fours) == 1 else None)
    if box is None or box not in fours:
        return None
    rows = [k for k, shape in enumerate(shapes) if shape == shapes[box][:-1]]
    kinds = [k for k in rows if made[0][k].dtype.kind in "iu"]
    scores = named.get("scores", next((k for k in rows if made[0][k].dtype.kind == "f" and k not in kinds), None))
    classes = named.get("classes", kinds[0] if kinds else None)
    if asked in (AUTO, "lists") and classes in rows and scores in rows and classes != scores:
        return Form("lists", (box, scores, classes))
    wide = [k for k, shape in enumerate(shapes) if k != box and len(shape) == 3 and shape[:2] == shapes[box][:2]]
    logits = named.get("logits", wide[0] if len(wide) == 1 else None)
    if asked == "lists" or logits not in wide:
        return None
    return Form(_sharing(model, made, logits) if asked == AUTO else asked, (box, logits))


def _sharing(model: Model, made: Sequence[Sequence[Values]], place: int) -> str:
    """Whether classes share one probability, the last of them being none, or each has its own."""
    logits = np.concatenate([np.asarray(run[place], np.float64).reshape(-1, run[place].shape[-1]) for run in made])
    rest = np.exp(logits - logits.max(-1, keepdims=True))
    if np.mean(2 * rest[:, -1] > rest.sum(-1)) > 0.5:
        return "softmax"
    if np.mean(logits.max(-1) < 0) > 0.5 and logits.min() < -1:
        return "sigmoid"
    raise Unclear(f"{model.name}: {_ask(model.output_names[place], ('softmax', 'sigmoid'))}")


def _one(model: Model, made: Sequence[Sequence[Values]], asked: str, known: Said) -> Form | None:
    """The form of a model that gives all in one output."""
    if asked in _SEVERAL:
        return None
    for place, value in enumerate(made[0]):
        if np.asarray(value).dtype.kind != "f" or np.asarray(value).ndim != 3:
            continue
        runs = [np.asarray(run[place]) for run in made]
        fitting = [one for one in _fitting(place, runs, known) if asked in (AUTO, one.name)]
        fitting = [one for one in fitting if asked != AUTO or reading.plausible(one.name, one.last, runs)]
        if len(fitting) > 1 and asked == AUTO:
            raise Unclear(f"{model.name}: {_ask(model.output_names[place], [one.name for one in fitting])}")
        if fitting:
            return fitting[0]
    return None


def _fitting(place: int, runs: Sequence[Values], known: Said) -> list[Form]:
    """Forms that an output of three axes may have, by its sizes and what the exporter says."""
    high, wide = runs[0].shape[1:]
    if known.final:
        return [Form("final", (place,), True, known.classes)] * (wide >= 6)
    found = []
    if known.classes:
        more = known.task in ("segment", "pose")
        for last, size in ((False, high), (True, wide)):
            for name, least in (("scores", 4 + known.classes), ("object", 5 + known.classes)):
                if size == least or (
                    more and size > least and name == "scores" and size < runs[0].shape[1 + (not last)]
                ):
                    found.append(Form(name, (place,), last, known.classes))
    elif high < wide and high > 4:
        found.append(Form("scores", (place,), False))
    elif wide < high and wide > 4:
        found += [Form(name, (place,), True) for name in ("object", "scores") if wide > (5 if name == "object" else 4)]
    if wide == 6 and not known.classes and all(reading.chosen(run) for run in runs):
        return [Form("final", (place,))]
    return found + [Form("final", (place,))] * (wide == 6)


def _ask(output: str, names: Sequence[str]) -> str:
    return (
        f"output {output!r} may hold boxes as {' or '.join(dict.fromkeys(names))}: say which, by --metric "
        f"detections:{names[0]} or --detections {names[0]}"
    )


def _why_none(names: Sequence[str], shapes: Sequence[tuple[int, ...]], asked: str) -> str:
    """Why outputs hold no boxes, in words."""
    shown = ", ".join(f"{name!r} {list(shape)}" for name, shape in list(zip(names, shapes, strict=True))[:4])
    if asked != AUTO:
        return f"detections:{asked} asks for {FORMS[asked]}, and its outputs are {shown}"
    if any(len(shape) == 5 for shape in shapes):
        return f"its outputs {shown} are heads that are not decoded yet, no boxes; export it with its decoding"
    if shapes and all(len(shape) == 4 for shape in shapes):
        return f"its outputs {shown} are maps, no boxes; compare them by another metric"
    return f"none of its outputs {shown} holds boxes in a known form; give a function of yours, or another metric"
