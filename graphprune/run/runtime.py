"""Runs in ONNX Runtime: sessions, generated inputs, recorded shapes."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.errors import InputError
from graphprune.model import Model, apart, interchange, limits, widening
from graphprune.model.checked.asking import said
from graphprune.model.files import save
from graphprune.relation import Shape, Values
from graphprune.run import owed
from graphprune.run.guard import guarded
from graphprune.run.threads import set_threads

_THROUGH_FILE = 1 << 28
"""Bytes of weights above which a model goes to ONNX Runtime through a file, from which these are mapped: else it would
hold them three times (and a protobuf message cannot hold 2 GiB)."""


Feeds = Mapping[str, Values]
"""Inputs of one run, by name."""


class RefusedError(InputError):
    """ONNX Runtime does not load the model at all, whatever its inputs."""


@contextmanager
def session(
    model: Model,
    level: ort.GraphOptimizationLevel = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    *,
    threads: int | None = None,
    provider: str = "CPUExecutionProvider",
    planned: bool = True,
    profile: Path | None = None,
) -> Iterator[ort.InferenceSession]:
    """An ONNX Runtime session; bfloat16 is run as float32.

    Args:
        model: the model; external data is found beside its path.
        level: of optimisation, by default basic ones only.
        threads: within one operator; 0 leaves it to ONNX Runtime. None are as many as ``threads`` says, on all machines
            the same: other numbers give other last bits.
        provider: that executes it.
        planned: whether memory is laid out before a run; then what is needed at different times shares less of it.
        profile: where the runtime's own profile begins; ``end_profiling`` gives the file's whole name.

    Raises:
        RefusedError: ONNX Runtime refuses the model.
    """
    options = quiet(level)
    set_threads(options, threads)
    options.enable_mem_pattern = planned
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    model = widened(model)
    with written(model) as path:
        yield started(model, options, provider, path)


@contextmanager
def written(model: Model) -> Iterator[Path | None]:
    """The file through which a model goes to ONNX Runtime, where its weights are many or lie outside; else None."""
    with tempfile.TemporaryDirectory() as folder:
        external = any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer)
        if external or sum(len(t.raw_data) for t in model.graph.initializer) > _THROUGH_FILE:
            save(model, Path(folder) / "model.onnx", external=True)
            yield Path(folder) / "model.onnx"
        else:
            yield None


def quiet(
    level: ort.GraphOptimizationLevel = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, *, packed: bool = True
) -> ort.SessionOptions:
    """Options of a session that prints nothing.

    Args:
        level: of optimisation.
        packed: whether weights may be packed for many runs, and memory be held between them.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    if not packed:
        set_threads(options, None)
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def started(
    model: Model, options: ort.SessionOptions, provider: str = "CPUExecutionProvider", path: Path | None = None
) -> ort.InferenceSession:
    """A session of a model as it is, or as it was written to a file.

    Raises:
        RefusedError: ONNX Runtime refuses the model.
        KilledError: its first run, which is made before this process runs it, ends the process that runs it.
    """
    owed.settle()
    try:
        return ort.InferenceSession(path or serialised(model), options, providers=_exact(provider))
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise RefusedError(f"{model.name}: ONNX Runtime cannot run it: {said(error)}") from error


def serialised(model: Model) -> bytes:
    """The bytes of a model, with what its file stores sparse."""
    return (interchange.stored(model) if model.stored else model.proto).SerializeToString()


_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def fastest() -> str:
    """The provider for long work: CUDA where this ONNX Runtime has it, else the processor."""
    return _CUDA if _CUDA in ort.get_available_providers() else _CPU


def _exact(provider: str) -> list[Any]:
    """A provider as a session takes it, the processor behind it; CUDA without TF32, which rounds what it multiplies."""
    return [provider] if provider == _CPU else [(provider, {"use_tf32": 0} if provider == _CUDA else {}), _CPU]


def exposing(model: Model, names: Sequence[str]) -> Model:
    """The model with more of its tensors as outputs."""
    probe = ModelProto()
    probe.CopyFrom(model.proto)
    known = {o.name for o in probe.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    return Model(probe, model.path, lazy=model.lazy)


def widened(model: Model) -> Model:
    """A model with float32 in place of bfloat16; itself where there is none."""
    lazy = dict(model.lazy)

    def single(tensor: TensorProto) -> None:
        if tensor.data_location == TensorProto.EXTERNAL and tensor.name in model.initializers:
            lazy[tensor.name] = partial(_single, model, model.initializers[tensor.name])
            tensor.data_type = TensorProto.FLOAT
        else:
            tensor.CopyFrom(numpy_helper.from_array(_single(model, tensor), tensor.name))

    proto = widening.widened(model.proto, single)
    return model if proto is model.proto else Model(proto, model.path, lazy=lazy)


def _single(model: Model, tensor: TensorProto) -> Values:
    return model.tensor_array(tensor).astype(np.float32)


def run(active: ort.InferenceSession, feeds: Mapping[str, Values], outputs: Sequence[str] | None = None) -> list[Any]:
    """Outputs of one run.

    Raises:
        InputError: ONNX Runtime fails on these inputs.
    """
    names = list(outputs) if outputs is not None else None
    if names == []:
        return []  # ONNX Runtime takes no names for all there are
    try:
        with guarded(memory=_CUDA not in active.get_providers()) as one:
            return [_array(v) for v in active.run(names, dict(feeds), one.options)]
    except Exception as error:  # as above
        if one.late:
            told = f"took more than {one.seconds:.3g} s; --run-time allows more"
            raise InputError(f"a run at {told_sizes(feeds)} {told}") from error
        if apart.no_room(error):
            told = f"wants more memory than the {limits.told(limits.room())} that it may take; --memory allows more"
            raise InputError(f"a run at {told_sizes(feeds)} {told}") from error
        raise InputError(f"ONNX Runtime fails on inputs of shapes {told_sizes(feeds)}: {said(error)}") from error


def _array(value: Any) -> Values:
    """An output as one array: a sequence joined, a map by its values."""
    if isinstance(value, dict):
        return np.asarray(list(value.values()))
    if isinstance(value, list):
        parts = [np.ravel(_array(v)) for v in value]
        return np.concatenate(parts) if parts else np.zeros(0)
    return np.asarray(value)


def generate(model: Model, shapes: Mapping[str, Shape], seed: int = 0, off: Collection[str] = ()) -> dict[str, Values]:
    """Random inputs, by name and type.

    Floats are standard normal, booleans true but for those in ``off``, integers below the smallest table that they
    index (see :func:`index_limits`), below 2 where they index none.
    """
    below, chosen = index_limits(model), choices(model)
    rng = np.random.default_rng(seed)
    feeds: dict[str, Values] = {}
    for value in model.inputs:
        if not value.type.HasField("tensor_type"):
            raise RefusedError(f"{model.name}: its input {value.name!r} is no tensor, and no inputs can be made for it")
        kind, shape = value.type.tensor_type.elem_type, shapes[value.name]
        if told := limits.too_large(shape, kind):
            raise InputError(f"{model.name}: input {value.name!r} would be of {told}")
        dtype = helper.tensor_dtype_to_np_dtype(kind if kind != TensorProto.BFLOAT16 else TensorProto.FLOAT)
        if kind == TensorProto.STRING:
            feeds[value.name] = np.full(shape, "a", dtype=object)
        elif kind == TensorProto.BOOL:
            feeds[value.name] = np.full(shape, value.name not in off)
        elif value.name in chosen:
            feeds[value.name] = rng.choice(chosen[value.name], shape).astype(dtype)
        elif np.issubdtype(dtype, np.integer):
            feeds[value.name] = rng.integers(0, below.get(value.name, 2), shape).astype(dtype)
        else:
            feeds[value.name] = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
    return feeds


def switches(model: Model) -> list[str]:
    """Boolean inputs that alone say which branch of an If is taken."""
    nodes, found = model.runnable.graph.node, dict[str, None]()
    makers = {o: node for node in nodes for o in node.output if o}
    boolean = {i.name for i in model.inputs if i.type.tensor_type.elem_type == TensorProto.BOOL}
    for node in nodes:
        if node.op_type != "If":
            continue
        name = node.input[0]
        while name in makers and makers[name].input:
            name = makers[name].input[0]  # cast, squeezed, turned round
        if name in boolean:
            found[name] = None
    return list(found)


def choices(model: Model) -> dict[str, Values]:
    """For each integer input that is compared with single numbers alone (a sampling rate), these numbers."""
    found: dict[str, Values] = {}
    for value in model.inputs:
        met = []
        for use in model.uses.get(value.name, []):
            node = model.nodes[use.node]
            other = model.root(node.input[1 - use.input]) if node.op_type == "Equal" else ""
            met.append(model.array(other).reshape(-1) if other in model.sources else np.zeros(0))
        if met and all(m.size == 1 and m.dtype.kind in "iu" for m in met):
            found[value.name] = np.unique(np.concatenate(met))
    return found


def index_limits(model: Model) -> dict[str, int]:
    """For each integer input that indexes constant tables, the length of the shortest.

    An input that is only compared with constants (a one-hot encoding by ``Equal``) gets the largest of these plus one.
    Indices are followed through nodes that pass values on as they are.
    """
    limits: dict[str, int] = {}
    for value in model.inputs:
        tables: list[int] = []
        compared: list[int] = []
        seen, names = {value.name}, [value.name]
        while names:
            name = names.pop()
            for use in model.uses.get(name, []):
                node = model.nodes[use.node]
                if node.op_type == "Gather" and use.input == 1 and model.root(node.input[0]) in model.sources:
                    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
                    tables.append(model.sources[model.root(node.input[0])].shape[axis])
                elif node.op_type == "Equal" and model.root(node.input[1 - use.input]) in model.sources:
                    other = model.array(model.root(node.input[1 - use.input]))
                    compared.append(int(other.max(initial=1)) + 1 if other.dtype.kind in "iu" else 2)
                elif node.op_type in _PASSING and use.input == 0:
                    fresh = [o for o in node.output if o and o not in seen]
                    seen.update(fresh)
                    names += fresh
        if tables or compared:
            limits[value.name] = min(tables) if tables else max(compared)
    return limits


_PASSING = ("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Slice", "Expand", "Transpose")


def upto(model: Model, names: Sequence[str]) -> Model:
    """The part of a model that makes some tensors, which are its outputs; inputs are all kept."""
    wanted, needed = set(names), []
    for index in range(len(model.nodes) - 1, -1, -1):
        node = model.nodes[index]
        if wanted & set(node.output):
            needed.append(node)
            wanted.update([*node.input, *model.captured.get(index, ())])
    inputs = [i for i in model.graph.input if i.name not in model.initializers or i.name in wanted]
    return part(model, needed[::-1], wanted, inputs, names)


def part(
    model: Model,
    nodes: Sequence[NodeProto],
    read: Set[str],
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[str],
) -> Model:
    """Some nodes of a model as a model: with the weights that they read, and outputs of any type."""
    proto = ModelProto(ir_version=model.proto.ir_version, opset_import=model.proto.opset_import)
    proto.functions.extend(model.proto.functions)
    proto.graph.name = "part"
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(t for t in model.graph.initializer if t.name in read)
    proto.graph.input.extend(inputs)
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in dict.fromkeys(outputs))
    return Model(proto, model.path, lazy=model.lazy)


def fold_constants(model: Model, names: Sequence[str]) -> dict[str, Values]:
    """Values of tensors that are computed from constants alone, by running the nodes that compute them.

    Raises:
        RefusedError: ONNX Runtime does not load them.
    """
    if not names:
        return {}
    constants = upto(model, names)
    del constants.proto.graph.input[:]
    with session(constants) as active:
        return dict(zip(names, run(active, {}, names), strict=True))


def told_sizes(feeds: Mapping[str, Values]) -> str:
    """Inputs of a run as words."""
    return ", ".join(f"{n}={'x'.join(map(str, v.shape))}" for n, v in feeds.items())
