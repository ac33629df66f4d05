"""Others on the project's own models, same MACs, same 64 inputs: ``python tests/benchmarks/bench_peers.py``.

onnxsim ranks by activations and refits what it can on the ONNX files; Torch-Pruning cuts the modules that they were
exported from, by group magnitude. For each ratio of theirs the MACs that are left are counted by this program, and ours
is pruned until no more are left. Needs ``pip install torch onnxscript torch-pruning onnxsim scikit-learn`` and the
state dicts that ``python -m models.make_digits --keep`` leaves.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
warnings.simplefilter("ignore")

import graphprune  # noqa: E402
import models  # noqa: E402
from graphprune.analysis import cost  # noqa: E402
from models.digits import accuracy, images  # noqa: E402

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5)


def macs(model: ModelProto) -> int:
    """Multiply-accumulates at the witness shape."""
    return cost.macs(graphprune.analyze(model, {"image": (3, 1, 8, 8)}))


def ours(path: Path, left: float, whole: int, inputs: Path) -> tuple[float, float]:
    """Score and MACs left, at the smallest ratio that leaves no more than ``left``."""
    for ratio in np.arange(0.04, 0.98, 0.02):
        try:
            plain = graphprune.prune(path, ratio=float(ratio), prove=False, input_shapes={"image": (3, 1, 8, 8)})
        except graphprune.InputError:  # less than one class of any group
            continue
        if plain.after.macs <= left * whole:
            break
    result = graphprune.prune(path, ratio=float(ratio), calibration=inputs, input_shapes={"image": (3, 1, 8, 8)})
    return accuracy(result.model.proto), result.after.macs / whole


def onnxsim_pruned(path: Path, ratio: float) -> ModelProto:
    """Structured pruning by weight and activation norms, and its least-squares refit where it has one."""
    from onnxsim import finetune, pruning

    data = [{"image": images("train")[0][k : k + 8]} for k in range(0, 64, 8)]
    pruned = pruning.apply_structured_wanda_pruning(onnx.load(path), calibration_data=data, sparsity=ratio)
    return finetune.apply_pruning_finetune(onnx.load(path), pruned, calibration_data=data)


def torch_pruned(name: str, ratio: float) -> ModelProto:
    """Group magnitude on the module, exported again."""
    import torch
    import torch_pruning as tp

    from models import make_digits

    module = make_digits.cnn() if name == "digits-cnn" else make_digits.Transformer()
    module.load_state_dict(torch.load(models.TRAINED / f"{name}.pt", weights_only=True))
    module.eval()
    heads = {m: getattr(layer, "heads", 4) for layer in module.modules() for m in _projections(layer)}
    pruner = tp.pruner.MagnitudePruner(
        module, torch.zeros(2, 1, 8, 8), importance=tp.importance.GroupMagnitudeImportance(p=2), pruning_ratio=ratio,
        ignored_layers=[m for m in module.modules() if getattr(m, "out_features", 0) == 10], num_heads=heads,
    )  # fmt: skip
    pruner.step()
    with tempfile.TemporaryDirectory() as folder:
        make_digits.export(module, "m", Path(folder))
        return onnx.load(Path(folder) / "m.onnx")


def _projections(layer: object) -> list[object]:
    return [getattr(layer, n) for n in ("query", "key", "value") if hasattr(layer, n)]


def main() -> None:
    """Print a line for each model, peer and ratio."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "in.npz"
        np.savez(inputs, image=images("train")[0][:64])
        for name in ("digits-cnn", "digits-transformer"):
            path = models.trained(name)
            whole = macs(onnx.load(path))
            peers: dict[str, Callable[[float], ModelProto]] = {
                "onnxsim": lambda ratio, path=path: onnxsim_pruned(path, ratio),  # type: ignore[misc]
                "Torch-Pruning": lambda ratio, name=name: torch_pruned(name, ratio),  # type: ignore[misc]
            }
            for peer, prune in peers.items():
                for ratio in RATIOS:
                    try:
                        with contextlib.redirect_stdout(io.StringIO()):
                            other = prune(ratio)
                        left, score = macs(other) / whole, accuracy(other)
                    except Exception as error:
                        print(f"{name} {peer} {ratio:g}: {type(error).__name__}: {str(error).splitlines()[0][:90]}")
                        continue
                    if left > 0.999:
                        print(f"{name} {peer} {ratio:g}: nothing removed", flush=True)
                        continue
                    own, own_left = ours(path, left, whole, inputs)
                    print(
                        f"{name} {peer} {ratio:g}: {100 * score:.1f} at {left:.2f} of the MACs; "
                        f"ours {100 * own:.1f} at {own_left:.2f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
