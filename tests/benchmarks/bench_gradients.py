"""Time of gradients of convolutions beside PyTorch's: ``python tests/benchmarks/bench_gradients.py [THREADS]``.

(Whole steps of training: ``bench_gradients.py step``, see ``tests/benchmarks/steps.py``.)

For each layer: forward, the gradient of the image, and that of the kernel, in milliseconds, ours (ONNX Runtime runs
what ``graphprune.gradients`` writes) and PyTorch's, and the ratio of the sums. Both run by turns in one process; each
figure is the least of all its repeats. With one thread, time is that of the processor, which others on the machine do
not change. With ``--ways`` it also times every way to compute the gradient of the kernel. Without PyTorch, which
nothing else here needs, only ours is printed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("KMP_BLOCKTIME", "1")  # threads of one do not spin while the other is timed

import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402
from onnx import ModelProto, TensorProto, helper  # noqa: E402

from graphprune.gradients import vjp  # noqa: E402
from graphprune.gradients.rules import convolution  # noqa: E402
from graphprune.gradients.terms import Tape, Term  # noqa: E402

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

BATCH = 16
ROUNDS = 5
SECONDS = 0.08
PARTS = ("forward", "image", "kernel")


@dataclass(frozen=True)
class Layer:
    """A convolution, padded so that a stride of 1 keeps the size."""

    name: str
    ins: int
    outs: int
    size: int
    kernel: int
    stride: int = 1
    group: int = 1

    def model(self) -> ModelProto:
        """With image and kernel as inputs, as in training."""
        half = self.kernel // 2
        out = (self.size + 2 * half - self.kernel) // self.stride + 1
        shapes = {
            "x": (BATCH, self.ins, self.size, self.size),
            "w": (self.outs, self.ins // self.group, self.kernel, self.kernel),
            "y": (BATCH, self.outs, out, out),
        }
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
        node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[half] * 4, strides=[self.stride] * 2, group=self.group)
        graph = helper.make_graph([node], self.name, values[:2], values[2:])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


LAYERS = [
    *(Layer("3x3", c, c, s, 3) for c, s in ((32, 56), (64, 56), (128, 28), (256, 14))),
    *(Layer("1x1", c, o, s, 1) for c, o, s in ((64, 256, 56), (256, 64, 56), (512, 128, 28), (1024, 256, 14))),
    *(Layer("3x3 stride 2", c, c, s, 3, 2) for c, s in ((64, 56), (128, 28), (256, 14))),
    Layer("7x7 stride 2", 3, 64, 112, 7, 2),
    *(Layer("depthwise 3x3", c, c, s, 3, 1, c) for c, s in ((32, 112), (64, 56), (128, 28), (256, 14))),
    *(Layer("depthwise 5x5", c, c, s, 5, 1, c) for c, s in ((64, 28), (256, 14))),
    Layer("depthwise 3x3 stride 2", 64, 64, 56, 3, 2, 64),
    Layer("3x3, 4 groups", 128, 128, 28, 3, 1, 4),
]


def session(model: ModelProto, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def bound(model: ModelProto, feeds: dict[str, np.ndarray], threads: int) -> Callable[[], object]:
    """A call that runs a model, without copies of inputs."""
    made = session(model, threads)
    binding = made.io_binding()
    for value in made.get_inputs():
        binding.bind_cpu_input(value.name, feeds[value.name])
    for value in made.get_outputs():
        binding.bind_output(value.name)
    return lambda: made.run_with_iobinding(binding)


def ours(layer: Layer, feeds: dict[str, np.ndarray], threads: int) -> dict[str, Callable[[], object]]:
    model = layer.model()
    models = {"forward": model, "image": vjp(model, wrt=["x"]), "kernel": vjp(model, wrt=["w"])}
    return {part: bound(m, feeds, threads) for part, m in models.items()}


def theirs(layer: Layer, feeds: dict[str, np.ndarray]) -> dict[str, Callable[[], object]]:
    if torch is None:
        return {}
    x, w, g = (torch.from_numpy(feeds[n]) for n in ("x", "w", "d:y"))
    half, stride = [layer.kernel // 2] * 2, [layer.stride] * 2
    back = torch.ops.aten.convolution_backward

    def backward(image: bool) -> object:
        mask = [image, not image, False]
        return back(g, x, w, None, stride, half, [1, 1], False, [0, 0], layer.group, mask)

    return {
        "forward": lambda: torch.nn.functional.conv2d(x, w, None, stride, half, [1, 1], layer.group),
        "image": lambda: backward(True),
        "kernel": lambda: backward(False),
    }


def ways(layer: Layer, feeds: dict[str, np.ndarray], threads: int) -> dict[str, Callable[[], object]]:
    """Every way to compute the gradient of the kernel, the image's by a transposed convolution."""
    shapes = {"x": feeds["x"].shape, "d:y": feeds["d:y"].shape, "w": feeds["w"].shape}
    half = (layer.kernel // 2,) * 2
    how = convolution.Geometry((layer.stride,) * 2, (1, 1), half, half, (layer.kernel,) * 2, layer.group)
    found: dict[str, Callable[[], object]] = {}
    made = {"convolution": convolution.by_convolution, "taps": convolution.by_taps}
    if layer.group == 1:
        made["rows"] = convolution.by_rows
    if layer.group == layer.ins:
        made["bands"] = convolution.by_bands
    for name, way in made.items():
        tape = Tape(set(shapes))
        x, g, w = (Term(tape, n, TensorProto.FLOAT, s) for n, s in shapes.items())
        result = way(x, g, w, how)
        inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items() if n != "w"]
        output = helper.make_tensor_value_info(result.name, TensorProto.FLOAT, shapes["w"])
        graph = helper.make_graph(tape.nodes, name, inputs, [output], list(tape.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        found[name] = bound(model, feeds, threads)
    return found


def least(calls: dict[str, Callable[[], object]], threads: int) -> dict[str, float]:
    """The least time of each call, in milliseconds; all take turns."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    times = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            time.sleep(0.01)
            end = clock() + SECONDS
            while (start := clock()) < end:
                call()
                times[name] = min(times[name], clock() - start)
    return {name: seconds * 1e3 for name, seconds in times.items()}


def main(threads: int, all_ways: bool) -> None:
    rng = np.random.default_rng(0)
    if torch is not None:
        torch.set_num_threads(threads)
    print("| layer | channels | size | ours: forward, image, kernel | PyTorch | ratio |" + (" ways |" * all_ways))
    print("|---|---|---|---|---|---|" + "---|" * all_ways)
    for layer in LAYERS:
        values = (*layer.model().graph.input, *layer.model().graph.output)
        shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
        feeds = {n: rng.standard_normal(s, dtype=np.float32) for n, s in shapes.items()}
        feeds["d:y"] = feeds.pop("y")
        calls = {f"ours {n}": c for n, c in ours(layer, feeds, threads).items()}
        calls |= {f"torch {n}": c for n, c in theirs(layer, feeds).items()}
        more = ways(layer, feeds, threads) if all_ways else {}
        times = least(calls | more, threads)
        sums = {who: [times.get(f"{who} {p}", float("nan")) for p in PARTS] for who in ("ours", "torch")}
        cells = [", ".join(f"{t:.1f}" for t in sums[who]) for who in ("ours", "torch")]
        tried = f" {', '.join(f'{n} {times[n]:.1f}' for n in more)} |" if all_ways else ""
        ratio = sum(sums["ours"]) / sum(sums["torch"])
        size = f"{layer.ins}-{layer.outs} | {layer.size}"
        print(f"| {layer.name} | {size} | {cells[0]} | {cells[1]} | {ratio:.2f} |{tried}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["step"]:
        from tests.benchmarks import steps

        sys.exit(steps.main(sys.argv[2:]))
    numbers = [int(a) for a in sys.argv[1:] if a.isdigit()]
    main(numbers[0] if numbers else 2, "--ways" in sys.argv)
