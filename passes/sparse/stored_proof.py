"""What is stored sparse is the same model: shown on its file, beside the same model stored dense."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from graphprune.analysis import chance
from graphprune.errors import ProofError
from graphprune.model import Model, files, load, storage
from graphprune.model.canonical import canonicalize
from graphprune.passes.state import Job
from graphprune.run import sizing
from graphprune.run.calibration import still
from graphprune.run.runtime import run, session, widened
from graphprune.verdict.loading import Loading, loading


@dataclass(frozen=True)
class Beside:
    """A model stored sparse beside itself stored dense.

    Attributes:
        bytes: of the files, dense and sparse.
        loads: what loading took, dense and sparse; None where ONNX Runtime loads neither.
        compared: how many outputs were compared, bit for bit.
    """

    bytes: tuple[int, int]
    loads: tuple[Loading, Loading] | None
    compared: int


def prove(model: Model, job: Job) -> Beside:
    """Write a model in both forms, and compare these.

    Args:
        model: the model, with what is to be stored sparse.
        job: says whether outputs are compared, and at which sizes.

    Raises:
        ProofError: the sparse form is refused by ONNX's checker, or is another model; says where.
    """
    twin = replace(model, stored=frozenset())
    with tempfile.TemporaryDirectory() as folder:
        dense, sparse = (Path(folder) / form / "model.onnx" for form in ("dense", "sparse"))
        sizes = []
        for path, own in ((dense, twin), (sparse, model)):
            path.parent.mkdir()
            sizes.append(files.save(own, path))
        _check(sparse, model)
        _same_weights(sparse, model)
        compared = _same_outputs(model, twin, job) if job.prove else 0
        before, after = loading(dense), loading(sparse)
        if before is not None and after is None:
            raise ProofError(f"{model.name}: ONNX Runtime loads it with dense weights alone; use --store dense")
    loads = None if before is None or after is None else (before, after)
    return Beside((sizes[0], sizes[1]), loads, compared)


def _check(path: Path, model: Model) -> None:
    try:
        onnx.checker.check_model(path)
    except onnx.checker.ValidationError as error:
        line = str(error).strip().splitlines()[0]
        raise ProofError(
            f"{model.name}: ONNX's checker refuses it with sparse tensors: {line}; use --store dense"
        ) from error


def _same_weights(path: Path, model: Model) -> None:
    """Every weight reads back as it is in memory."""
    read = load(path)
    found = {one.name: one.tensor for one in storage.constants(read.graph)}
    for one in storage.constants(model.graph):
        if one.name in model.stored:
            expected, back = model.tensor_array(one.tensor), read.tensor_array(found[one.name])
            if expected.tobytes() != back.tobytes():
                raise ProofError(
                    f"{model.name}: weight {one.name!r} reads back otherwise; use --store dense, and report it"
                )


def _same_outputs(model: Model, twin: Model, job: Job) -> int:
    """ONNX Runtime makes the same of both on generated inputs.

    Nothing is compared where it draws at random, or runs the model in other types than its own.
    """
    if widened(twin) is not twin or chance.drawn(canonicalize(twin)):
        return 0
    feeds = next(sizing.accepted(twin, still(job.input_shapes, twin), job.seed))
    outputs = []
    for own in (twin, model):
        with session(own, threads=1) as active:
            outputs.append(run(active, feeds))
    for name, one, other in zip(model.output_names, *outputs, strict=True):
        same = np.array_equal(one, other) if one.dtype == object else one.tobytes() == other.tobytes()
        if one.shape != other.shape or not same:
            raise ProofError(
                f"{model.name}: output {name!r} differs where weights are stored sparse; use --store dense"
            )
    return len(model.output_names)
