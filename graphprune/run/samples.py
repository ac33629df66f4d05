"""Inputs that the user gives: for calibration, for comparison, for timing.

Five forms. All but the last are read a few samples at a time, so that memory does not grow with their number:

- a ``.npz`` file with one array for each input name, samples along the first axis;
- a folder of such files, or of ``.npy`` files for a model with one input, each a sample or a batch of them;
- a folder of images, sounds or texts, or such a file; as a table where more is to be said of it, ``{"from": FOLDER,
  "fit": "letterbox"}`` (see ``graphprune.run.reading``);
- ``module:function``: a function without arguments that yields dicts of arrays, each ready to run;
- in memory: a dict with one array for each input name, an iterable of dicts that are ready to run, or a function that
  gives one.

Beside inputs there may be labels, arrays that are called ``label:`` and an output's name, samples along the first axis
too: they are read where they are asked for. Other arrays are passed over.

Numbers must be numbers: what is not finite would make NaN of every statistic. -inf is taken in inputs that hold nothing
else but zeros, which are masks.

Where the model fixes its first axis to some size, samples are fed that many at a time; where an input has no axis for
samples (its rank is one less than the array's), one at a time.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from onnx import ValueInfoProto, helper

from graphprune.errors import InputError
from graphprune.model import Model, limits, paths
from graphprune.relation import IntArray, Shape, Values
from graphprune.run import arrays, usercode
from graphprune.run.reading import asked, folders, kinds
from graphprune.run.runtime import Feeds

LABEL = "label:"
"""In front of an output's name: what is known to be right of it."""
BATCH = 8
"""Samples in one run, where the model leaves their number free."""

Source = (
    str | os.PathLike[str] | Mapping[str, Any] | Callable[[], Iterable[Mapping[str, Any]]] | Iterable[Mapping[str, Any]]
)
"""Where inputs come from: a path or a name; or in memory."""


HELD_OUT = 4
"""One in so many samples is not learnt from, and judges what was learnt."""


def held_out(numbers: IntArray, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Whether samples are held out, by their numbers: of every four in a row one.

    Which one is drawn, since samples may come in turns of kinds; it depends on number and seed alone, so that all who
    hold out hold out the same.
    """
    blocks = np.asarray(numbers, np.uint64) // np.uint64(HELD_OUT)
    mixed = (blocks + np.uint64(1 + seed % 2**32)) * np.uint64(0x9E3779B97F4A7C15)  # wraps round, as hashes do
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    found: npt.NDArray[np.bool_] = np.asarray(numbers, np.uint64) % np.uint64(HELD_OUT) == mixed % np.uint64(HELD_OUT)
    return found


Part = tuple[str, Mapping[str, Any]]
"""Inputs for one run as they were found, behind the file or function that gave them."""


def kept(source: Source) -> Source:
    """A source that can be gone through more than once."""
    again = isinstance(source, str | os.PathLike | Mapping | Sequence) or callable(source)
    return source if again else list(usercode.through(source, _MEMORY))


def load(
    source: Source,
    model: Model,
    batch: int = BATCH,
    input_shapes: Mapping[str, Shape] | None = None,
    *,
    finite: bool = True,
    labels: bool = False,
) -> Iterator[Feeds]:
    """Inputs from a source, each ready to run.

    Args:
        source: a file, a folder, a table with one (``from``), or ``module:function``; or what such a file or function
            would give.
        model: whose inputs they are to be.
        batch: samples in one run, where the model leaves their number free.
        input_shapes: sizes that images are brought to, where the model leaves theirs free.
        finite: whether NaN and infinities are an error.
        labels: whether labels are given along.

    Raises:
        InputError: no such source, or one that does not fit the model; says which input, and of what is not finite
            which sample.
        BackendError: a library that reads it is not installed.
    """
    place = asked.place(source)
    if place is None:
        return _fitted(((_MEMORY, one) for one in _held(source, model, batch, labels)), model, _MEMORY, finite, labels)
    path = Path(place)
    paths.reads(kinds.INPUTS, path)
    if path.exists():
        read = folders.read(source, model, batch, input_shapes)
        parts = _files(path, model, batch, labels) if read is None else ((str(path), one) for one in read)
    elif usercode.names_one(str(place)):
        parts = ((str(place), one) for one in usercode.items(str(place)))
    else:
        raise InputError(f"{place}: no such file or folder, and not like module:function")
    return _fitted(parts, model, str(place), finite, labels)


_MEMORY = "calibration"
"""What inputs in memory are called in messages."""


def _held(source: Any, model: Model, batch: int, labels: bool) -> Iterator[Mapping[str, Any]]:
    """Inputs in memory: one array for each input, or dicts that are ready to run."""
    if isinstance(source, Mapping):
        own = {i.name for i in model.inputs}
        arrays = {
            name: _Array(np.asarray(value))
            for name, value in source.items()
            if labels or name in own or not _is_label(name)
        }
        yield from _chunks(arrays, model, batch, _MEMORY)
        return
    for one in usercode.through(source() if callable(source) else source, _MEMORY):
        if not isinstance(one, Mapping):
            raise InputError(f"{_MEMORY}: gives a {type(one).__name__}, and should give dicts of arrays by input name")
        yield one


def _fitted(parts: Iterator[Part], model: Model, source: str, finite: bool, labels: bool) -> Iterator[Feeds]:
    last, start = None, 0
    for where, one in parts:
        start = start if where == last else 0
        feeds = {**_fitting(one, model, where), **(_labels(one, model, where) if labels else {})}
        if finite:
            _check_finite(feeds, where, start)
        last, start = where, start + count(feeds)
        yield feeds
    if last is None:
        raise InputError(f"{source}: holds no samples")


def _check_finite(feeds: Feeds, source: str, start: int) -> None:
    """Raise InputError where an input holds what is not finite; names the first such sample."""
    for name, value in feeds.items():
        if value.dtype.kind in "OUSb" or np.isfinite(value).all():
            continue
        if (value == 0).any() and np.isin(value, (0, -np.inf)).all():
            continue
        lost = ~np.isfinite(value)
        sample = start + (int(np.argmax(lost.reshape(len(value), -1).any(1))) if value.ndim else 0)
        kind = "NaN" if np.isnan(value).any() else "infinite numbers"
        raise InputError(
            f"{source}: input {name!r} holds {kind} in sample {sample}; take such samples out, or mend what makes them"
        )


def settled(
    source: Source,
    model: Model,
    input_shapes: Mapping[str, Shape] | None = None,
    most: int | None = None,
) -> folders.Settled:
    """A source of which all is said, before anything is computed (see ``graphprune.run.reading``).

    Args:
        source: as for :func:`load`.
        model: the model; files beside it and its metadata say how images, sounds and texts are read.
        input_shapes: sizes that images are brought to.
        most: images to look at where they keep their sizes, all by default.

    Raises:
        InputError: a setting is none, or the model does not run on images as they are; names the image.
        BackendError: a library that reads them is not installed.
    """
    found = folders.settle(source, model, input_shapes)
    folders.check(found, model, input_shapes, most)
    return found


def _files(path: Path, model: Model, batch: int, labels: bool) -> Iterator[Part]:
    for file in kinds.held(path)[1]:
        yield from _file(file, model, batch, labels)


def _file(path: Path, model: Model, batch: int, labels: bool) -> Iterator[Part]:
    try:
        found = _single(path, model) if path.suffix == ".npy" else _archive(path, model, batch, labels)
        yield from ((str(path), one) for one in found)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except arrays.BROKEN as error:
        raise InputError(f"{path}: not a NumPy file ({' '.join(map(str, error.args))})") from error


def _single(path: Path, model: Model) -> Iterator[Mapping[str, Any]]:
    if len(model.inputs) != 1:
        names = ", ".join(i.name for i in model.inputs)
        raise InputError(
            f"{path}: the model has {len(model.inputs)} inputs ({names}); give .npz files with all of them"
        )
    value = arrays.mapped(path)
    if (told := limits.too_many(value.nbytes)) is not None:
        raise InputError(f"{path}: is one batch, and takes {told}; cut it into more files")
    name = model.inputs[0].name
    rank = len(model.inputs[0].type.tensor_type.shape.dim)
    yield {name: value[None] if value.ndim == rank - 1 else value}


def _archive(path: Path, model: Model, batch: int, labels: bool) -> Iterator[Mapping[str, Any]]:
    """The arrays of a ``.npz`` file, some samples at a time, without reading any of them whole."""
    wanted = {i.name for i in model.inputs}
    with zipfile.ZipFile(path) as archive:
        there = [n.removesuffix(".npy") for n in archive.namelist()]
        read = [name for name in there if name in wanted or (labels and _is_label(name))]
        streams = {name: _Stream(archive.open(f"{name}.npy")) for name in read}
        for name, stream in streams.items():
            arrays.check_size(stream.shape, stream.dtype, archive.getinfo(f"{name}.npy").file_size, name)
        yield from _chunks(streams, model, batch, str(path), there)


def _chunks(
    streams: Mapping[str, _Stream | _Array], model: Model, batch: int, where: str, there: Sequence[str] = ()
) -> Iterator[Mapping[str, Any]]:
    """Some samples of every input at a time.

    Args:
        streams: of each input its array.
        model: whose inputs they are.
        batch: samples in one run, where the model leaves their number free.
        where: they come from.
        there: names of all arrays that are there.
    """
    wanted = {i.name: i for i in model.inputs}
    if missing := [name for name in wanted if name not in streams]:
        names = ", ".join(sorted(there or streams))
        raise InputError(f"{where}: holds no array for input {missing[0]!r}; it has {names}")
    labels = {name: stream for name, stream in streams.items() if _is_label(name) and name not in wanted}
    streams = {**{name: streams[name] for name in wanted}, **labels}
    if flat := next((name for name, stream in streams.items() if not stream.shape), None):
        raise InputError(f"{where}: the array {flat!r} is a single number, and has no samples along an axis")
    counts = {name: stream.shape[0] for name, stream in streams.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"{where}: its arrays hold different numbers of samples: {counts}")
    steps = [_step(value, streams[name], batch) for name, value in wanted.items()]
    single = {name for name, value in wanted.items() if len(streams[name].shape) == _rank(value) + 1}
    single.update(labels if single else ())
    step, total = min(steps), min(counts.values())
    # what the model takes in batches of a fixed size it cannot take less of
    exact = any(_declared(value) > 1 for value in wanted.values())
    each = sum(prod(stream.shape[1:]) * stream.dtype.itemsize for stream in streams.values())
    if total and not each:
        raise InputError(f"{where}: its samples hold no numbers")
    if (told := limits.too_many(each * min(step, total))) is not None:
        raise InputError(f"{where}: {min(step, total)} samples, which run at once, take {told}")
    for start in range(0, total - (total % step if exact else 0), step):
        chunk = {name: stream.read(min(step, total - start)) for name, stream in streams.items()}
        yield {n: v[0] if n in single else v for n, v in chunk.items()}


class _Array:
    """One array in memory, read along its first axis."""

    def __init__(self, value: Values) -> None:
        self.value, self.shape, self.dtype, self.place = value, value.shape, value.dtype, 0

    def read(self, count: int) -> Values:
        """The next samples."""
        self.place += count
        return self.value[self.place - count : self.place]


class _Stream:
    """One array of a ``.npz`` file, read along its first axis."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        shape, fortran, self.dtype = arrays.header(file)
        if fortran or self.dtype.hasobject or not shape:
            raise ValueError("its arrays must be of numbers, in C order, with samples along the first axis")
        self.shape: tuple[int, ...] = shape

    def read(self, count: int) -> Values:
        """The next samples."""
        shape = (count, *self.shape[1:])
        data = self.file.read(prod(shape) * self.dtype.itemsize)
        return np.frombuffer(data, self.dtype).reshape(shape)


def _rank(value: ValueInfoProto) -> int:
    return len(value.type.tensor_type.shape.dim)


def _declared(value: ValueInfoProto) -> int:
    """The size that an input's first axis is fixed to, 0 where it is free."""
    dims = value.type.tensor_type.shape.dim
    return dims[0].dim_value if dims else 0


def _step(value: ValueInfoProto, stream: _Stream | _Array, batch: int) -> int:
    if len(stream.shape) == _rank(value) + 1:
        return 1
    return _declared(value) if _declared(value) > 0 else batch


def _fitting(feeds: Mapping[str, Any], model: Model, source: str) -> Feeds:
    """Feeds with the types that the model asks for.

    Raises:
        InputError: an input is missing, of another kind, or of another shape.
    """
    if not isinstance(feeds, Mapping):
        raise InputError(f"{source}: gives {type(feeds).__name__}, and not an array for each input by its name")
    found: dict[str, Values] = {}
    for value in model.inputs:
        tensor = value.type.tensor_type
        if value.name not in feeds:
            raise InputError(f"{source}: gives no input {value.name!r}")
        try:
            array = np.asarray(feeds[value.name])
        except (ValueError, TypeError) as error:  # lists that are no box
            raise InputError(f"{source}: input {value.name!r} is no array ({error})") from error
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        if (array.dtype.kind == "f") != (dtype.kind == "f") and dtype.kind in "fiu":
            raise InputError(f"{source}: input {value.name!r} is of type {array.dtype}, the model wants {dtype}")
        dims = [d.dim_value for d in tensor.shape.dim]
        if dims and (len(dims) != array.ndim or any(d > 0 and d != s for d, s in zip(dims, array.shape, strict=True))):
            wanted = "x".join(str(d) if d > 0 else "N" for d in dims)
            raise InputError(
                f"{source}: input {value.name!r} has shape {'x'.join(map(str, array.shape))}, the model wants {wanted}"
            )
        with np.errstate(over="ignore"):  # what the type cannot hold is infinite, and told as that
            found[value.name] = array.astype(dtype, copy=False)
    return found


def _is_label(name: object) -> bool:
    return isinstance(name, str) and name.startswith(LABEL)


def _labels(feeds: Mapping[str, Any], model: Model, source: str) -> Feeds:
    """The labels beside inputs.

    Raises:
        InputError: one is of no output, or holds no numbers.
    """
    own = {i.name for i in model.inputs}
    found = {n: np.asarray(v) for n, v in feeds.items() if _is_label(n) and n not in own}
    for name, value in found.items():
        if name.removeprefix(LABEL) not in model.output_names:
            outputs = ", ".join(model.output_names)
            raise InputError(f"{source}: {name!r} is a label of no output; the model has {outputs}")
        if value.dtype.kind not in "fiub":
            raise InputError(f"{source}: {name!r} is of type {value.dtype}; labels are numbers")
    return found


def count(feeds: Mapping[str, Values]) -> int:
    """How many samples inputs hold: as many as the shortest has, since a state may have layers in front of its own.

    Too few are no harm where samples are only told apart.
    """
    return min((len(v) for v in feeds.values() if v.ndim), default=1)
