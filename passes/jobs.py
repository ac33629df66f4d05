"""The main jobs as functions: each builds a recipe, and runs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from graphprune.errors import InputError
from graphprune.model import AnyModel, Model, load
from graphprune.model.arguments import InputShapes, Seed, Size, checked
from graphprune.passes import budget, recipes
from graphprune.passes.aim.meet import Meet
from graphprune.passes.choose.steering import Steering
from graphprune.passes.choose.steering import load as load_steering
from graphprune.passes.depth import depth
from graphprune.passes.distill.distill import Distill
from graphprune.passes.rank.low_rank import LowRank
from graphprune.passes.results import Result
from graphprune.passes.running import run_recipe
from graphprune.passes.sparse import sparse
from graphprune.passes.sparse.targets import Scope
from graphprune.passes.state import Job
from graphprune.passes.vocabulary.vocabulary import Vocabulary
from graphprune.progress import Progress
from graphprune.rewrite import replay
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.plan import load as load_plan
from graphprune.run.calibration import Source
from graphprune.verdict.checks import Checks


@checked
def prune(
    model: AnyModel,
    output: str | os.PathLike[str] | None = None,
    *,
    ratio: float = 0.0,
    target: Meet | str | Sequence[str] = (),
    steps: int = 1,
    align: int | None = None,
    blocks: depth.Request | int | Sequence[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    allow_statistical: bool = False,
    allow_io: bool = False,
    input_shapes: InputShapes | None = None,
    prove: bool = True,
    seed: Seed = 0,
    plan: str | os.PathLike[str] | None = None,
    checks: Checks | None = None,
    calibration: Source | None = None,
    criterion: str | None = None,
    uniform: bool = False,
    compensate: str | None = None,
    sparsity: sparse.Request | None = None,
    packed: str | os.PathLike[str] | None = None,
    store: str = "dense",
    time: float | str | None = None,
    resume: str | os.PathLike[str] | None = None,
    distill: bool | Size | str = False,
    backend: str | None = None,
    steering: Steering | str | os.PathLike[str] | None = None,
    uniform_widths: bool = False,
    rotate: bool | None = None,
    search: str | int | None = None,
    low_rank: LowRank | float | str | None = None,
    vocabulary: Vocabulary | str | os.PathLike[str] | Sequence[int] | None = None,
    keep_tokens: Size | None = None,
    progress: Progress | None = None,
) -> Result:
    """Remove whole blocks of a model, or the least important classes of every exact group, or both.

    What is left can be made sparse in the same run: widths then stay multiples of what pattern and TensorRT ask for.

    Args:
        model: a path, bytes, a ``ModelProto``, an ``onnx_ir.Model``, an ``onnx_graphsurgeon.Graph``, or a loaded model;
            it is not changed.
        output: where to write the pruned model; the plan goes beside it as ``<output without .onnx>.plan.json``.
        ratio: share of each group's classes to remove, in [0, 1).
        target: what the result is to come to, in place of a ratio: ``macs=0.5``, ``params=3e6``, ``bytes=10M``,
            ``latency=0.67``, ``speedup=1.5``, ``drop=0.01``, one or several of different kinds; all hold. A
            :class:`graphprune.Meet` says more.
        steps: in how many rounds: each removes the same share of what is left, fits, and ranks what stays anew.
        blocks: which whole blocks are to go, before groups are cut: how many, by score, or their ids or globs on these.
        align: widths that remain are rounded up to a multiple of this; by default to a multiple of 4, or of 2, where
            that costs little of a group (see ``graphprune.passes.choose.ratio.ALIGNMENTS``).
        include, exclude: globs on group ids and node names.
        allow_statistical: prune statistical groups too: a mean runs over them, so removal leaves an error, which the
            proof reports.
        allow_io: let inputs and outputs of the graph shrink: those that carry a state round (a cache of keys and
            values), and others where ``include`` names their group.
        input_shapes: sizes for inputs whose free dims the program cannot guess.
        prove: compare the pruned model with the masked original before anything is written.
        seed: of the generated inputs of the proof.
        plan: where to write the plan instead.
        calibration: unlabelled inputs (see ``graphprune.run.samples``), or ``generated`` for made-up ones (see
            ``graphprune.run.synthetic``): classes and blocks are scored on them, and what is left is fitted.
        criterion: one of ``graphprune.passes.choose.criteria.names()``; by default, and with ``auto``, ``obs`` with
            calibration inputs, ``magnitude`` without.
        uniform: remove the same share of every group; else the ratio says only how many multiply-accumulates go, and
            calibration inputs which groups give them (see ``graphprune.passes.choose.allocation``).
        search: look for an allocation that keeps outputs closer to the original's on held-out inputs: a number of
            candidates, or a time as ``10m``, in each round and try (see ``graphprune.passes.choose.search``).
        compensate: one of ``graphprune.passes.fit.compensation.COMPENSATIONS``: ``refit`` fits what is left of each
            linear operator to what the original made, ``repair`` brings back the mean and variance of its outputs alone
            (both ask for calibration inputs), ``fold`` lets the class most like a removed one do what that did,
            ``none`` leaves weights as they are. By default ``refit`` with calibration inputs, ``none`` without.
        time: how long it may take, in seconds or as ``5m``: with calibration inputs it is measured how many of them
            can be looked at, and these are used.
        resume: a folder where finished parts are kept, so that the same job goes on where it was interrupted.
        progress: is told of every phase and of its steps (see ``graphprune.progress``).
        sparsity: make what is left sparse too (see :func:`sparsify`).
        packed: where to write the sparse weights packed (see ``graphprune.rewrite.packed``).
        store: how weights are stored in the file: ``dense``; as ONNX's sparse tensors, with ``sparse`` what this run
            makes sparse, with ``auto`` what is smaller so. ONNX Runtime reads these; TensorRT does not.
        distill: train what is left towards the original (see :func:`distill`): so many steps, a time as ``5m``, or True
            for as many steps as are done by default. With ``steps`` each earlier round has a quarter of it.
        rotate: change bases before anything is chosen, exactly: heads, bottlenecks and hidden sizes are put into
            principal directions, and layer norms lose their means (see ``graphprune.passes.basis``); None does it where
            there are calibration inputs.
        uniform_widths: layers that repeat keep one width, so that a configuration with one number for all of them fits
            (see ``graphprune.passes.choose.families``); targets take no whole blocks then.
        checks: judge the pruned model by :func:`graphprune.validate` before it is written; None does not.
        low_rank: weights become products of two where that pays: the share of parameters that goes with it, or of
            multiply-accumulates as ``macs=0.2``, or ``auto`` for all that costs little (see ``graphprune.LowRank``).
        vocabulary: the ids that stay of an input that holds ids of tokens: a file, or the ids; what they look up loses
            the rows of all others (:class:`graphprune.Vocabulary` says more).
        keep_tokens: beside these so many of the ids that calibration inputs hold most often.
        backend: the runtime that the model is for, as ``tensorrt`` or ``qnn:int8``, or a file that says what one is
            like: widths become multiples of what pays there (see ``graphprune.passes.choose.backends``), where
            ``align`` does not say otherwise.
        steering: ratios and limits of single groups, regions, layers that stay whole (:class:`graphprune.Steering`); or
            a file of these.

    Raises:
        InputError: bad model or arguments, or nothing can be removed.
        ProofError: the pruned model is not what the masked original is; nothing was written.
        TargetError: a target cannot be met; nothing was written.
        VerdictError: it does not pass the checks; nothing was written.
        BackendError: the checks ask for TensorRT, which is not installed.
    """
    job = Job(dict(input_shapes or {}), allow_io, prove, calibration, seed, _seconds(time))
    said = steering if isinstance(steering, Steering) else Steering() if steering is None else load_steering(steering)
    wish = recipes.Wish(ratio, align, include, exclude, allow_statistical, criterion, uniform, steps, backend, said)
    wish = replace(wish, target=_meet(target), uniform_widths=uniform_widths, rotate=rotate)
    wish = replace(wish, search=None if search is None else str(search))
    wish = replace(wish, low_rank=LowRank.asked(low_rank), vocabulary=Vocabulary.asked(vocabulary, keep_tokens))
    recipe = recipes.pruning(wish, job, depth.request(blocks), sparsity, compensate, checks, store, distill)
    return run_recipe(recipe, model, output, plan=plan, packed=packed, progress=progress, resume=resume)


def _meet(target: Meet | str | Sequence[str]) -> Meet | None:
    """A pass from what a caller gives."""
    if isinstance(target, Meet):
        return target
    texts = [target] if isinstance(target, str) else list(target)
    return Meet(texts) if texts else None


def _seconds(time: float | str | None) -> float | None:
    return None if time is None else budget.seconds(time)


@checked
def sparsify(
    model: AnyModel,
    output: str | os.PathLike[str] | None = None,
    *,
    pattern: str = "2:4",
    method: str | None = None,
    permute: bool = False,
    amount: float | None = None,
    steps: int = 1,
    rewind: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    also: Sequence[str] = (),
    calibration: Source | None = None,
    compensate: str | None = None,
    packed: str | os.PathLike[str] | None = None,
    store: str = "dense",
    input_shapes: InputShapes | None = None,
    prove: bool = True,
    seed: Seed = 0,
    plan: str | os.PathLike[str] | None = None,
    checks: Checks | None = None,
    time: float | str | None = None,
    resume: str | os.PathLike[str] | None = None,
    distill: bool | Size | str = False,
    progress: Progress | None = None,
) -> Result:
    """Make the weights of products sparse: a pattern along what they sum over, or single weights.

    Args:
        model: as for :func:`prune`.
        output: where to write the sparse model; the plan goes beside it as ``<output without .onnx>.plan.json``.
        pattern: ``N:M`` keeps N of every M weights, ``1xW`` lets W of them go as one, ``unstructured`` single ones; or
            the pattern of another package (see ``graphprune.analysis.patterns``).
        method: one of ``graphprune.passes.sparse.masks.METHODS``; by default, and with ``auto``, ``sparsegpt`` with
            calibration inputs, ``magnitude`` without and where single weights go.
        permute: let channels change places so that the pattern keeps more; proven before any weight is changed.
        amount: the share of weights that go, for ``1xW`` and ``unstructured``.
        steps: in how many rounds, each with more zeros than the last and a fit of what stays: ``amount`` grows fast at
            first (Zhu and Gupta's cubic schedule), ``2:4`` comes after ``3:4``.
        rewind: in each round what stays goes back to the original's values before it is fitted, for ``unstructured`` by
            ``magnitude``.
        include: globs on names of nodes and weights: these and no others, whatever speaks against them.
        exclude: globs: not these.
        also: globs: these too, whatever speaks against them.
        calibration: unlabelled inputs (see ``graphprune.run.samples``), or ``generated``.
        compensate: what makes up for what went: ``refit`` (the default with calibration inputs) fits every linear
            operator to what the original makes, masks fixed; ``repair``; ``none``.
        packed: where to write the sparse weights packed (see ``graphprune.rewrite.packed``).
        store: how weights are stored in the file: ``dense``; as ONNX's sparse tensors, with ``sparse`` what this run
            makes sparse, with ``auto`` what is smaller so. ONNX Runtime reads these; TensorRT does not.
        input_shapes: sizes for inputs whose free dims the program cannot guess.
        prove: compare the permuted model with the original.
        seed: of the search for orders, of the choice of rows and of generated inputs.
        plan: where to write the plan instead.
        checks: judge the sparse model by :func:`graphprune.validate` before it is written; None does not.
        time: how long it may take, as for :func:`prune`.
        resume: a folder where finished parts are kept, as for :func:`prune`.
        distill: train what stays towards the original, as for :func:`prune`; zeros stay zero.
        progress: is told of every phase and of its steps (see ``graphprune.progress``).

    Raises:
        InputError: bad model or arguments, or nothing can become sparse.
        ProofError: the permuted model is not what the original is; nothing was written.
        VerdictError: it does not pass the checks; nothing was written.
        BackendError: the checks ask for TensorRT, or ``packed`` for safetensors, which is not installed.
    """
    if compensate == "fold":
        raise InputError("--compensate fold is about removed channels; sparse weights have refit, repair or none")
    return prune(
        model,
        output,
        sparsity=sparse.Request(pattern, method, permute, amount, Scope(include, exclude, also), steps, rewind),
        calibration=calibration,
        compensate=compensate,
        packed=packed,
        store=store,
        input_shapes=input_shapes,
        prove=prove,
        seed=seed,
        plan=plan,
        checks=checks,
        time=time,
        resume=resume,
        distill=distill,
        progress=progress,
    )


@checked
def distill(
    student: AnyModel,
    teacher: AnyModel,
    output: str | os.PathLike[str] | None = None,
    *,
    calibration: Source,
    steps: Size | None = None,
    time: str | None = None,
    loss: str | Callable[..., Any] = "auto",
    train: str = "weights",
    rate: float | None = None,
    batch: Size = 16,
    augment: bool = True,
    seams: float = 0.1,
    labels: float = 0.5,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    plan: str | os.PathLike[str] | Plan | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    input_shapes: InputShapes | None = None,
    seed: Seed = 0,
    checks: Checks | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train a model towards another one, on unlabelled inputs; zeros stay zero, and shapes stay as they are.

    Args:
        student: the model that is trained, as for :func:`prune`; it is not changed.
        teacher: the model that it should do as: the one that it was made of.
        output: where to write what was trained; its plan goes beside it as ``<output without .onnx>.plan.json``.
        calibration: inputs of the teacher (see ``graphprune.run.samples``), or ``generated``. Arrays that are called
            ``label:`` and an output's name are what is known to be right of it, and are learnt too.
        steps: how many steps; 300 where neither steps nor time are given.
        time: how long, as ``90s``, ``5m`` or ``1h``, in place of steps.
        loss: how outputs are compared: ``kl``, ``bernoulli``, ``cosine``, ``squares``, or ``auto``, by what each holds.
            One's own takes the place of all other terms: an ONNX file, or a function or ``module:function`` from two
            dicts of arrays by output, the student's and the teacher's, to the loss and a dict of its gradients.
        train: ``weights`` of products, or ``all`` float constants.
        rate: of learning; by default it is found by short trials.
        batch: samples of a step.
        augment: shift, crop and light pictures otherwise at each step; not where there are labels.
        seams: how much tensors on the way count beside the outputs.
        labels: the share of labels in what is learnt, where there are any.
        include, exclude: globs on names of weights.
        plan: the plan by which the student was made of the teacher: tensors are compared without what went. Without it
            those are that have one name and shape in both.
        checkpoint: a file that the training is kept in, and that an interrupted one goes on from.
        input_shapes: sizes for inputs whose free dims the program cannot guess.
        seed: of what is drawn by chance.
        checks: judge the result beside the student by :func:`graphprune.validate` before it is written.
        progress: is told of every phase and of its steps (see ``graphprune.progress``).

    Raises:
        InputError: bad models or arguments, or nothing can be trained.
        VerdictError: it does not pass the checks; nothing was written.
    """
    one = Distill(
        steps, time, loss, train, rate, batch, augment, seams, labels,
        teacher=os.fspath(teacher) if isinstance(teacher, os.PathLike) else teacher,
        plan=os.fspath(plan) if isinstance(plan, os.PathLike) else plan,
        checkpoint=None if checkpoint is None else os.fspath(checkpoint), include=include, exclude=exclude,
    )  # fmt: skip
    job = Job(dict(input_shapes or {}), calibration=calibration, seed=seed)
    return run_recipe(recipes.distilling(one, job, checks), student, output, progress=progress)


@checked
def apply(
    plan: str | os.PathLike[str] | Plan,
    model: AnyModel,
    output: str | os.PathLike[str] | None = None,
    *,
    original: AnyModel | None = None,
    fitted: AnyModel | None = None,
    input_shapes: InputShapes | None = None,
    prove: bool = True,
    seed: Seed = 0,
    progress: Progress | None = None,
) -> Result:
    """Redo a plan on the same model, on another precision of it, or on another file of the same network.

    Args:
        plan: a plan file, or a plan. Its groups say what to remove; its slices, where there are any, must be what
            these groups come to.
        model: the model.
        output: where to write the pruned model and, beside it, the plan of this run.
        original: the model that the plan was made for, where ``model`` is another file of the same network (a decoder
            with a cache beside one without): weights are matched by what they hold, and inputs and outputs may shrink.
        fitted: with ``original``: the pruned model of the plan; what stays gets the values that it has there.
        input_shapes: sizes for inputs whose free dims the program cannot guess; by default those of the plan.
        prove: compare the pruned model with the masked original before anything is written.
        seed: of the generated inputs of the proof.
        progress: is told of every phase and of its steps (see ``graphprune.progress``).

    Raises:
        InputError: the plan does not fit the model; says at which group. Or the files share no weights.
        ProofError: the pruned model is not what the masked original is; nothing was written.
    """
    read, job = load_plan(plan), Job(prove=prove, seed=seed)
    if original is None and fitted is not None:
        raise InputError("--fitted is for another file of the same network: give the model of the plan by --original")
    with replay.naming(read):
        if original is None:
            recipe = recipes.replaying(read, plan, job)
        else:
            source = plan if isinstance(plan, Plan) else os.fspath(plan)
            recipe = recipes.transferring(source, _held(original), job, None if fitted is None else _held(fitted))
    return run_recipe(recipe, model, output, input_shapes=input_shapes, progress=progress)


def _held(model: AnyModel) -> str | Model:
    """A model as a pass holds it: by its path, where it has one."""
    return os.fspath(model) if isinstance(model, str | os.PathLike) else load(model)
