"""YOLOv8's architecture in PyTorch, written from its description, and exported in the form that its users have.

Stages of C2f blocks at strides of 2 to 32, SPPF, a neck up and down, and a head that gives at three strides, for each
cell, how probable each distance of a box's four sides is (distribution focal loss; Li et al., 2020) and a score a
class. The output is ``[batch, 4 + classes, cells]``: centre, width and height in pixels of the input, then scores.
"""

from __future__ import annotations

import torch
import torch.nn.functional as f
from onnx import ModelProto
from torch import Tensor, nn

from models.architectures import SPPF, Bottleneck
from models.classifiers import unit

NANO = ((16, 32, 64, 128, 256), (1, 2, 2, 1), 80, 16)
"""Widths, depths, classes and bins of YOLOv8n."""
STRIDES = (8, 16, 32)


class Plain(nn.Module):
    """A bottleneck without its skip."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b = unit(c, c, act=nn.SiLU), unit(c, c, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


class Stage(nn.Module):
    """C2f: a projection in two halves, of which one is refined step by step; every step is kept."""

    def __init__(self, i: int, o: int, depth: int = 1, skip: bool = False) -> None:
        super().__init__()
        step = Bottleneck if skip else Plain
        self.wide, self.narrow = unit(i, o, 1, act=nn.SiLU), unit((2 + depth) * o // 2, o, 1, act=nn.SiLU)
        self.steps = nn.ModuleList(step(o // 2) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.wide(x).chunk(2, 1))
        for step in self.steps:
            parts.append(step(parts[-1]))
        return self.narrow(torch.cat(parts, 1))


class Yolo8(nn.Module):
    """The detector.

    Args:
        widths: of the stages at strides 2 to 32.
        depths: bottlenecks of the stages from stride 4 on.
        classes: how many.
        bins: of the distances of a side, in cells.
        size: height and width of images.
    """

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], classes: int, bins: int, size: int) -> None:
        super().__init__()
        self.classes, self.bins, self.size = classes, bins, size
        self.stem = unit(3, widths[0], s=2, act=nn.SiLU)
        self.down = nn.ModuleList(
            nn.Sequential(unit(i, o, s=2, act=nn.SiLU), Stage(o, o, n, skip=True))
            for i, o, n in zip(widths, widths[1:], depths, strict=False)
        )
        self.pool = SPPF(widths[4])
        low, middle, high = widths[2:]
        self.up = nn.ModuleList([Stage(middle + high, middle, depths[0]), Stage(low + middle, low, depths[0])])
        self.stride = nn.ModuleList([unit(low, low, s=2, act=nn.SiLU), unit(middle, middle, s=2, act=nn.SiLU)])
        self.back = nn.ModuleList([Stage(low + middle, middle, depths[0]), Stage(middle + high, high, depths[0])])
        sides, scores = max(16, low // 4, 4 * bins), max(low, min(classes, 100))
        self.boxes = nn.ModuleList(self._head(w, sides, 4 * bins) for w in widths[2:])
        self.scores = nn.ModuleList(self._head(w, scores, classes) for w in widths[2:])
        self.project = nn.Conv2d(bins, 1, 1, bias=False).requires_grad_(False)
        self.project.weight.data[:] = torch.arange(bins).float().view(1, bins, 1, 1)
        cells, strides = grid(size)
        self.register_buffer("cells", cells, persistent=False)
        self.register_buffer("strides", strides, persistent=False)

    @staticmethod
    def _head(i: int, c: int, o: int) -> nn.Module:
        return nn.Sequential(unit(i, c, act=nn.SiLU), unit(c, c, act=nn.SiLU), nn.Conv2d(c, o, 1))

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of distances ``[batch, 4 * bins, cells]`` and of classes ``[batch, classes, cells]``."""
        x, levels = self.stem(x), []
        for stage in self.down:
            x = stage(x)
            levels.append(x)
        high = self.pool(x)
        middle = self.up[0](torch.cat([f.interpolate(high, scale_factor=2.0, mode="nearest"), levels[2]], 1))
        low = self.up[1](torch.cat([f.interpolate(middle, scale_factor=2.0, mode="nearest"), levels[1]], 1))
        middle = self.back[0](torch.cat([self.stride[0](low), middle], 1))
        high = self.back[1](torch.cat([self.stride[1](middle), high], 1))
        found = [
            torch.cat([box(y), score(y)], 1).flatten(2)
            for y, box, score in zip((low, middle, high), self.boxes, self.scores, strict=True)
        ]
        both: tuple[Tensor, Tensor] = torch.cat(found, 2).split((4 * self.bins, self.classes), 1)
        return both

    def sides(self, logits: Tensor) -> Tensor:
        """Expected distances of left, top, right and bottom from a cell's centre, ``[batch, 4, cells]``, in cells."""
        shares = logits.view(logits.shape[0], 4, self.bins, logits.shape[2]).transpose(2, 1).softmax(1)
        return self.project(shares).view(logits.shape[0], 4, logits.shape[2])

    def forward(self, images: Tensor) -> Tensor:
        sides, scores = self.raw(images)
        before, behind = self.sides(sides).chunk(2, 1)
        first, last = self.cells - before, self.cells + behind
        boxes = torch.cat([(first + last) / 2, last - first], 1) * self.strides
        return torch.cat([boxes, scores.sigmoid()], 1)


def grid(size: int) -> tuple[Tensor, Tensor]:
    """Centres of all cells, ``[1, 2, cells]``, in cells, and the stride of each, ``[1, cells]``."""
    centres, strides = [], []
    for stride in STRIDES:
        line = torch.arange(size // stride).float() + 0.5
        y, x = torch.meshgrid(line, line, indexing="ij")
        centres.append(torch.stack([x.flatten(), y.flatten()]))
        strides.append(torch.full((len(line) ** 2,), float(stride)))
    return torch.cat(centres, 1)[None], torch.cat(strides)[None]


def describe(model: ModelProto, names: dict[int, str], size: int, batch: int = 1) -> None:
    """What Ultralytics' exporter says of a detector in the metadata of its files."""
    said = {"stride": STRIDES[-1], "task": "detect", "batch": batch, "imgsz": [size, size], "names": names}
    del model.metadata_props[:]
    for key, value in said.items():
        model.metadata_props.add(key=key, value=str(value))
