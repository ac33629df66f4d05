"""ONNX Runtime, asked whether a model is one; and what it says, in one line."""

from __future__ import annotations

import re

import onnxruntime as ort
import onnxruntime.capi.onnxruntime_pybind11_state as runtime
from onnx import ModelProto

_PLACE = re.compile(r"/\S+\.(?:h|hpp|cc|cpp|cu):\d+ [^()]*\([^()]*\)(?: const)? ")
"""``/onnxruntime_src/x/y.h:46 void n::f(const std::string&, int) ``."""
_BEFORE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:Load model from .*? failed:)?(?:This is an invalid model\. )?"
)


def said(error: BaseException) -> str:
    """What ONNX Runtime says, without where in its code it says so."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return _PLACE.sub("", line)[:500]


def refusal(proto: ModelProto) -> str:
    """Why ONNX Runtime does not load a model; empty where it does, and where it only lacks what would run it."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except runtime.NotImplemented:
        return ""
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        line = said(error)
        return "" if "is not a registered function/op" in line else _BEFORE.sub("", line) or type(error).__name__
    return ""
