"""Whole steps of training beside PyTorch's: ``python tests/benchmarks/bench_gradients.py step [THREADS] [MODEL ...]``.

Each model is a PyTorch module and its export; a step is forward, backward and Adam over all its parameters, ours by
``graphprune.gradients.training``. Both have equal weights and take steps by turns in one process; each figure is the
least of all repeats. With one thread, time is that of the processor. Memory is the peak of a process of its own for
each, above what it held before the first step. ``--profile MODEL`` says where ONNX Runtime spends our step.
"""

from __future__ import annotations

import collections
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import torch
from torch import nn

from graphprune.gradients.training import Trainer, trainer

ROUNDS = 6
SECONDS = 0.6


def block(ins: int, outs: int, kernel: int = 3, stride: int = 1, group: int = 1, act: bool = True) -> nn.Sequential:
    parts = [nn.Conv2d(ins, outs, kernel, stride, kernel // 2, groups=group, bias=False), nn.BatchNorm2d(outs)]
    return nn.Sequential(*parts, *[nn.ReLU()] * act)


class Residual(nn.Module):
    def __init__(self, inner: nn.Module, skip: nn.Module | None, act: bool) -> None:
        super().__init__()
        self.inner, self.skip, self.act = inner, skip or nn.Identity(), nn.ReLU() if act else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.inner(x) + self.skip(x))


def resnet() -> nn.Module:
    """ResNet-18 at half its width."""
    parts: list[nn.Module] = [block(3, 32, 7, 2), nn.MaxPool2d(3, 2, 1)]
    ins = 32
    for outs in (32, 64, 128, 256):
        for k in range(2):
            stride = 2 if k == 0 and outs > 32 else 1
            inner = nn.Sequential(block(ins, outs, 3, stride), block(outs, outs, act=False))
            parts.append(Residual(inner, block(ins, outs, 1, stride, act=False) if stride > 1 else None, True))
            ins = outs
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(ins, 100))


def mobilenet() -> nn.Module:
    """MobileNetV2's blocks, fewer of them."""
    parts: list[nn.Module] = [block(3, 16, 3, 2)]
    ins = 16
    for outs, count, stride in ((24, 2, 2), (32, 2, 2), (64, 3, 2), (96, 2, 1)):
        for k in range(count):
            wide, step = ins * 6, stride if k == 0 else 1
            inner = [block(ins, wide, 1), block(wide, wide, 3, step, wide), block(wide, outs, 1, act=False)]
            parts.append(Residual(nn.Sequential(*inner), None, False) if k else nn.Sequential(*inner))
            ins = outs
    return nn.Sequential(*parts, block(ins, 256, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 100))


class Bert(nn.Module):
    """Four layers of 256 features, sequences of 64."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        sizes = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
        config = BertConfig(vocab_size=2000, attn_implementation="eager", **sizes)
        self.model = BertModel(config, add_pooling_layer=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model(ids).last_hidden_state


class Tagger(nn.Module):
    """An embedding, an LSTM in both directions, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.lstm = nn.Embedding(2000, 128), nn.LSTM(128, 128, bidirectional=True, batch_first=True)
        self.tags = nn.Linear(256, 32)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.tags(self.lstm(self.words(ids))[0])


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet": (resnet, (16, 3, 96, 96)),
    "mobilenet": (mobilenet, (16, 3, 96, 96)),
    "bert": (Bert, (8, 64)),
    "tagger": (Tagger, (16, 32)),
}


class Loss(nn.Module):
    """The mean square of the distance to a target."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return ((self.model(x) - target) ** 2).mean()


def made(name: str) -> tuple[Loss, tuple[torch.Tensor, torch.Tensor]]:
    """A module in the mode of inference, as distillation trains it, and a batch."""
    torch.manual_seed(0)
    builder, shape = MODELS[name]
    module = builder().eval()
    x = torch.randn(shape) if len(shape) > 2 else torch.randint(0, 2000, shape)
    return Loss(module).eval(), (x, torch.randn_like(module(x)))


def exported(module: Loss, batch: tuple[torch.Tensor, torch.Tensor]) -> onnx.ModelProto:
    """The export; normalization stays a node of its own."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            batch,
            buffer,
            input_names=["x", "target"],
            output_names=["loss"],
            dynamo=False,
            opset_version=17,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    return onnx.load_from_string(buffer.getvalue())


def ours(name: str, threads: int) -> tuple[Callable[[], float], Trainer]:
    module, batch = made(name)
    model = exported(module, batch)
    there = {t.name for t in model.graph.initializer}
    names = [n for n, _ in module.named_parameters() if n in there]
    names += sorted(n for n in there if n.startswith("onnx::"))  # matrices that the exporter transposed, gates
    feeds = {"x": batch[0].numpy(), "target": batch[1].numpy()}
    active = trainer(model, names, input_shapes={k: v.shape for k, v in feeds.items()}, threads=threads)
    if active.stopped:
        raise SystemExit(str(active.stopped[0]))
    return lambda: active.step([feeds], 1e-4), active


def theirs(name: str) -> Callable[[], float]:
    module, batch = made(name)
    adam = torch.optim.Adam(module.parameters(), 1e-4, fused=True)

    def step() -> float:
        adam.zero_grad()
        loss = module(*batch)
        loss.backward()
        adam.step()
        return loss.item()

    return step


def timed(name: str, threads: int) -> tuple[float, float, float]:
    """Milliseconds of our step, of PyTorch's, and of our Adam."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    mine, active = ours(name, threads)
    calls = {"ours": mine, "torch": theirs(name)}
    first = {who: call() for who, call in calls.items()}
    assert abs(first["ours"] / first["torch"] - 1) < 1e-3, first
    times = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for who, call in calls.items():
            time.sleep(0.02)
            end = clock() + SECONDS
            while (start := clock()) < end:
                call()
                times[who] = min(times[who], clock() - start)
    update = min(_once(lambda: active.adam.step(1e-4), clock) for _ in range(10))
    return times["ours"] * 1e3, times["torch"] * 1e3, update * 1e3


def _once(call: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def peak(who: str, name: str) -> float:
    """Megabytes that three steps need above what is held before them."""
    step = ours(name, 1)[0] if who == "ours" else theirs(name)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    for _ in range(3):
        step()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def _apart(who: str, name: str) -> float:
    command = [sys.executable, sys.argv[0], "step", "--peak", who, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return float(done.stdout.splitlines()[-1])


def profile(name: str, threads: int, steps: int = 5) -> None:
    """Milliseconds a step by operator, and of the slowest nodes."""
    kept = ort.SessionOptions.__init__

    def profiled(self: Any, *args: Any) -> None:
        kept(self, *args)
        self.enable_profiling = True
        self.profile_file_prefix = str(Path(tempfile.gettempdir()) / "graphprune-profile")

    ort.SessionOptions.__init__ = profiled
    step, active = ours(name, threads)
    for _ in range(steps):
        step()
    events = json.loads(Path(active.backward.end_profiling()).read_text())
    by: dict[str, float] = collections.Counter()
    nodes: dict[str, float] = collections.Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            op, shapes = event["args"]["op_name"], event["args"].get("input_type_shape", "")
            by[op] += event["dur"] / steps / 1e3
            nodes[f"{op} {event['name'].removesuffix('_kernel_time')} {shapes}"] += event["dur"] / steps / 1e3
    print(f"{name}: {sum(by.values()):.1f} ms a step")
    for table, rows in ((by, 20), (nodes, 25)):
        for key, value in sorted(table.items(), key=lambda item: -item[1])[:rows]:
            print(f"{value:8.2f} {key[:220]}")


def main(arguments: Sequence[str]) -> None:
    if "--peak" in arguments:
        print(peak(*arguments[arguments.index("--peak") + 1 :]))
        return
    threads = next((int(a) for a in arguments if a.isdigit()), 2)
    torch.set_num_threads(threads)
    chosen = [a for a in arguments if a in MODELS] or list(MODELS)
    if "--profile" in arguments:
        for name in chosen:
            profile(name, threads)
        return
    print(
        "| model | batch | ours, of it Adam | PyTorch | ratio | memory, ours | PyTorch |\n|---|---|---|---|---|---|---|"
    )
    for name in chosen:
        mine, other, adam = timed(name, threads)
        memory = [_apart(who, name) for who in ("ours", "torch")]
        row = f"{mine:.1f}, {adam:.1f} | {other:.1f} | {mine / other:.2f} | {memory[0]:.0f} MB | {memory[1]:.0f} MB |"
        print(f"| {name} | {'x'.join(map(str, MODELS[name][1]))} | {row}", flush=True)
