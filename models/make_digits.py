"""Train the small models in ``models/trained`` on scikit-learn's digits, and export them.

    pip install torch==2.13.0 onnxscript scikit-learn
    python -m models.make_digits

``digits-transformer`` is a pre-norm transformer of eight layers over the sixteen 2x2 patches of an image,
``digits-cnn`` a residual convolutional net with batch normalisation. Both take ``image``, float32 ``[batch, 1, 8, 8]``
in [0, 1], and give ``logits``, ``[batch, 10]``. The share of held-out images that each gets right stands in its
metadata. The digits are the UCI ML hand-written digits data set (Alpaydin and Kaynak, 1998; CC BY 4.0), which
scikit-learn carries.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from models import TRAINED
from models.digits import accuracy, images


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a skip."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](x)
        q, k, v = self.split(self.query(y)), self.split(self.key(y)), self.split(self.value(y))
        weights = torch.softmax(q @ k.transpose(2, 3) * self.scale, -1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return x + self.narrow(nn.functional.gelu(self.wide(self.norms[1](x))))


class Transformer(nn.Module):
    """Eight layers over patches."""

    def __init__(self, width: int = 32, depth: int = 8, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.position = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2) + self.position
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(1))


class Block(nn.Module):
    """Two convolutions beside a skip."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o))
        same = i == o and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(x)) + self.skip(x))


def cnn() -> nn.Module:
    """A stem, five residual blocks in two stages, and a head."""
    stem = nn.Sequential(nn.Conv2d(1, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
    blocks = [Block(24, 24, 1), Block(24, 24, 1), Block(24, 48, 2), Block(48, 48, 1), Block(48, 48, 1)]
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


def shifted(x: Tensor) -> Tensor:
    """Images moved by up to a pixel, so that 1,347 of them go further."""
    dx, dy = (int(v) for v in torch.randint(-1, 2, (2,)))
    return torch.roll(x, (dy, dx), (2, 3))


def train(model: nn.Module, epochs: int, rate: float) -> None:
    """AdamW with one cycle of the learning rate."""
    x, y = (torch.from_numpy(v) for v in images("train"))
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.05)
    steps = epochs * (len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x))[: len(x) // 64 * 64].reshape(-1, 64):
            loss = nn.functional.cross_entropy(model(shifted(x[batch])), y[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def export(model: nn.Module, name: str, folder: Path = TRAINED) -> None:
    """Write a model, its score in its metadata."""
    feeds = (torch.from_numpy(images("train")[0][:3]),)
    program = torch.onnx.export(
        model, feeds, dynamo=True, opset_version=18, input_names=["image"], output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
    )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    del proto.metadata_props[:]
    for node in proto.graph.node:  # where in the exporter's world a node came from is of no use here
        del node.metadata_props[:]
    proto.metadata_props.add(key="held_out_accuracy", value=f"{accuracy(proto):.4f}")
    folder.mkdir(exist_ok=True)
    onnx.save(proto, folder / f"{name}.onnx")
    print(name, sum(p.numel() for p in model.parameters()), "parameters", proto.metadata_props[0].value)


def main() -> None:
    """Train and write both."""
    sys.setrecursionlimit(10_000)
    torch.manual_seed(0)
    np.random.seed(0)
    for name, model, epochs, rate in (
        ("digits-transformer", Transformer(), 500, 2e-3),
        ("digits-cnn", cnn(), 60, 4e-3),
    ):
        train(model, epochs, rate)
        torch.save(model.state_dict(), TRAINED / f"{name}.pt") if "--keep" in sys.argv else None
        export(model, name)


if __name__ == "__main__":
    main()
