"""A recipe to start from, fitted to a model, with comments that say what could be changed."""

from __future__ import annotations

from collections import Counter

from graphprune.analysis import Analysis
from graphprune.analysis.blocks import find_blocks
from graphprune.passes.recipe import FORMAT
from graphprune.run.sizing import free_dims

RATIO = 0.3
_SHOWN = 5


def starting(analysis: Analysis) -> str:
    """The text of a recipe that runs on the model as it is.

    Args:
        analysis: of the model.
    """
    parts = [
        _head(analysis),
        _job(analysis),
        _blocks(analysis),
        _select(analysis),
        _FIT,
        _SPARSE,
        _DISTILL,
        _MEET,
        _STORE,
        _VALIDATE,
    ]
    return "\n".join(part.strip("\n") + "\n" for part in parts if part)


def _head(analysis: Analysis) -> str:
    name = analysis.model.name
    return f"""
# How {name} is pruned:
#     graphprune run THIS.toml {name} -o OUT.onnx
# Passes are done in order. What a line says that is commented out is the default, or a thing to try.
format = "{FORMAT}"
"""


def _job(analysis: Analysis) -> str:
    lines = [
        "[job]",
        '# Unlabelled inputs to choose and fit on: a .npz file, a folder, module:function, or "generated". Without',
        "# them classes go by magnitude and nothing is fitted: a trained model then loses accuracy quickly.",
        '# calibration = "inputs.npz"  # or {from = "photos", fit = "letterbox"}, as of --preprocess',
        "# seed = 0",
        '# time = "5m"  # use as many inputs as this is enough for',
    ]
    if any(group.interface for group in [*analysis.groups, *analysis.fixed]):
        lines += ["# Let states shrink that callers carry round (caches of keys and values).", "# allow_io = true"]
    shapes = [
        f"{_quoted(name)} = [{', '.join(map(str, analysis.witness.inputs[name]))}]"
        for name, dims in free_dims(analysis.model).items()
        if name in analysis.witness.inputs and any(isinstance(d, str) for d in dims)
    ]
    if shapes:
        lines += [
            "",
            "# Sizes at which inputs with free dims are looked at; these were found to run.",
            "# [job.input_shapes]",
        ]
        lines += [f"# {line}" for line in shapes]
    return "\n".join(lines) + "\n"


def _blocks(analysis: Analysis) -> str:
    blocks = find_blocks(analysis).blocks
    if not blocks:
        return ""
    shown = _quoted(blocks[0].id)
    return f"""
# Whole blocks, the least important first; {len(blocks)} can go ('graphprune inspect' lists them).
# [[passes]]
# use = "select-blocks"
# count = 1
# names = [{shown}]  # or globs, to choose from
# [[passes]]
# use = "remove-blocks"
"""


def _select(analysis: Analysis) -> str:
    exact = [g for g in analysis.groups if not g.statistical and not g.interface]
    statistical = [g for g in analysis.groups if g.statistical and not g.interface]
    groups = exact or statistical
    if not groups:
        return _nothing()
    kinds = Counter(g.kind for g in groups)
    largest = sorted(groups, key=lambda g: -g.parameters.sum())[:_SHOWN]
    widest = max(g.size for g in groups)
    ratio = RATIO if RATIO * widest >= 1 else round(1 / widest + 5e-4, 3)
    lines = [
        f"# {_counted(len(groups))}: "
        + ", ".join(f"{count} of kind {kind}" for kind, count in sorted(kinds.items()))
        + ".",
        "# The largest:",
        *(f"#     {g.id} ({g.size} classes)" for g in largest),
        "[[passes]]",
        'use = "select"',
        f"ratio = {ratio:g}  # share of each group's classes to remove",
        '# criterion = "magnitude"  # "auto" is "obs" with calibration inputs',
        "# align = 8  # widths are rounded up to a multiple; 4 or 2 where that costs little",
        f"# exclude = [{_quoted(largest[0].id)}]  # globs on groups and nodes that stay",
    ]
    if not exact:
        lines.append("allow_statistical = true  # a mean runs over all that there is: an error is left, and reported")
    elif statistical:
        lines.append(f"# allow_statistical = true  # also what a mean runs over: {_counted(len(statistical))}")
    return "\n".join([*lines, *_CUT]) + "\n"


_CUT = (
    "",
    "[[passes]]",
    'use = "cut"  # removes what was chosen, and proves it',
    "",
    "[[passes]]",
    'use = "fold-constants"  # removed channels that no input changes go into biases',
    "",
    "[[passes]]",
    'use = "smaller"  # an error where removal has not made it smaller',
)


def _nothing() -> str:
    return """
# No channel, head or feature can be removed here ('graphprune inspect' says why); weights can become sparse.
[[passes]]
use = "sparsify"
pattern = "unstructured"
amount = 0.5
"""


_FIT = """
# What is left is fitted to the original; needs calibration inputs.
# [[passes]]
# use = "fit"
# method = "refit"
"""
_SPARSE = """
# 2:4 weights for sparse tensor cores, in place of the fit; "sparsegpt" and "refit" need calibration inputs.
# [[passes]]
# use = "sparsify"
# pattern = "2:4"
# method = "sparsegpt"
# compensate = "refit"
"""
_DISTILL = """
# What is left is trained towards the original, end to end; needs calibration inputs.
# [[passes]]
# use = "distill"
# steps = 100
"""
_MEET = """
# What the result is to come to, in place of the ratio above; drop needs calibration inputs.
# [[passes]]
# use = "meet"
# targets = ["macs=0.5"]  # also params=3e6, bytes=8M, speedup=1.5, latency=12ms, drop=0.01; all hold
"""
_STORE = """
# Weights as ONNX's sparse tensors where that is smaller: ONNX Runtime reads them, TensorRT does not.
# [[passes]]
# use = "store"
"""
_VALIDATE = """
# Gates: where one fails nothing is written.
[[passes]]
use = "validate"
# min_cosine = 0.95
# min_speedup = 1.2
# tensorrt = true
"""


def _counted(number: int) -> str:
    return "1 group" if number == 1 else f"{number} groups"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
