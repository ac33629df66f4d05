"""Train the small detector in ``models/trained`` on drawn shapes, and export it as Ultralytics' exporter would.

    pip install torch==2.13.0
    nice python -m models.make_shapes

``shapes-detector.onnx`` is YOLOv8 (``models.yolo``) at small widths: ``images``, float32 ``[batch, 3, 96, 96]`` in
[0, 1], to ``output0``, ``[batch, 7, 189]``: centre, width, height, and scores of three classes. Its mean average
precision on held-out images stands in the metadata. All is drawn from seed 0.

Cells are assigned to boxes by alignment (Feng et al., TOOD, 2021): the ten inside a box for which ``score^0.5 IoU^6``
is highest. The loss is cross-entropy of the scores with the alignment, complete IoU (Zheng et al., 2020) and
distribution focal loss (Li et al., 2020), at 0.5, 7.5 and 1.5.
"""

from __future__ import annotations

import io
import sys
import time

import numpy as np
import onnx
import torch
import torch.nn.functional as f
from torch import Tensor

from models import TRAINED
from models.shapes import MOST, NAMES, SIZE, drawn, precision
from models.yolo import Yolo8, describe

NAME = "shapes-detector"
WIDTHS, DEPTHS, BINS = (8, 16, 32, 48, 56), (1, 1, 1, 1), 8
IMAGES, BATCH, STEPS, RATE = 6000, 32, 1800, 4e-3
TOP = 10


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes x1, y1, x2, y2 in the last axis."""
    size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    both = size.prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return both / (areas - both + 1e-7)


def complete(a: Tensor, b: Tensor) -> Tensor:
    """IoU less how far apart centres are and how unlike the shapes."""
    whole = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    apart = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) ** 2).sum(-1) / 4
    (w, h), (v, g) = (((c[..., 2:] - c[..., :2]).clamp(min=1e-3)).unbind(-1) for c in (a, b))
    shape = 4 / torch.pi**2 * (torch.atan(v / g) - torch.atan(w / h)) ** 2
    iou = overlap(a, b)
    with torch.no_grad():
        weight = shape / (1 - iou + shape + 1e-7)
    return iou - apart / ((whole**2).sum(-1) + 1e-7) - weight * shape


def assign(scores: Tensor, boxes: Tensor, truth: Tensor, centres: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which cells are to find which box.

    Args:
        scores: ``[batch, cells, classes]``.
        boxes: ``[batch, cells, 4]``, in pixels.
        truth: ``[batch, most, 5]``, boxes and classes; a class of -1 where there is none.
        centres: ``[cells, 2]``, in pixels.

    Returns:
        ``[batch, cells]``: whether it finds one, which, and how well aligned it is beside the others of the box.
    """
    kinds, there = truth[..., 4].long().clamp(min=0), truth[..., 4] >= 0
    own = scores.transpose(1, 2).gather(1, kinds[..., None].expand(-1, -1, scores.shape[1]))
    iou = overlap(truth[:, :, None, :4], boxes[:, None])
    sides = torch.cat([centres - truth[:, :, None, :2], truth[:, :, None, 2:4] - centres], -1)
    inside = (sides.amin(-1) > 0) & there[..., None]
    aligned = own.sqrt() * iou**6 * inside
    best = aligned.topk(TOP, -1).indices
    taken = torch.zeros_like(inside).scatter(-1, best, True) & inside
    shared = torch.where(taken, iou, -1.0)
    which = shared.argmax(1)
    taken &= torch.zeros_like(taken).scatter(1, which[:, None], True)
    aligned = aligned * taken
    most = (iou * taken).amax(-1, keepdim=True)
    share = (aligned / (aligned.amax(-1, keepdim=True) + 1e-9) * most).amax(1)
    return taken.any(1), which, share


def loss(model: Yolo8, images: Tensor, truth: Tensor) -> Tensor:
    """What is to become small."""
    logits, classes = model.raw(images)
    strides, cells = model.strides[0][:, None], model.cells[0].T
    sides = model.sides(logits).transpose(1, 2)
    boxes = torch.cat([cells - sides[..., :2], cells + sides[..., 2:]], -1) * strides
    classes = classes.transpose(1, 2)
    with torch.no_grad():
        found, which, share = assign(classes.sigmoid(), boxes, truth, cells * strides)
    own = truth.gather(1, which[..., None].expand(-1, -1, 5))
    wanted = f.one_hot(own[..., 4].long().clamp(min=0), len(NAMES)) * (share * found)[..., None]
    total = wanted.sum().clamp(min=1)
    score = f.binary_cross_entropy_with_logits(classes, wanted, reduction="sum")
    weight = wanted.sum(-1)[found]
    near = ((1 - complete(boxes[found], own[..., :4][found])) * weight).sum()
    at, step = cells.expand(len(truth), -1, -1)[found], strides.expand(len(truth), -1, -1)[found]
    target = torch.cat([at - own[..., :2][found] / step, own[..., 2:4][found] / step - at], -1)
    target = target.clamp(0, BINS - 1.01)
    shares = logits.view(len(truth), 4, BINS, -1).permute(0, 3, 1, 2)[found].log_softmax(-1)
    low = target.floor().long()
    left, right = (shares.gather(-1, (low + k)[..., None])[..., 0] for k in (0, 1))
    focal = -(left * (low + 1 - target) + right * (target - low)).mean(-1) * weight
    return (0.5 * score + 7.5 * near + 1.5 * focal.sum()) / total


def padded(boxes: tuple[np.ndarray, ...]) -> Tensor:
    """Boxes of all images, ``[n, most, 5]``, with a class of -1 where there is none."""
    found = np.full((len(boxes), MOST, 5), -1, np.float32)
    for row, own in zip(found, boxes, strict=True):
        row[: len(own)] = own
    return torch.from_numpy(found)


def mirrored(images: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """All images of a step turned about an axis, or none."""
    truth = truth.clone()
    for axis in (0, 1):
        if torch.rand(()) < 0.5:
            images = images.flip(3 - axis)
            truth[..., [axis, axis + 2]] = SIZE - truth[..., [axis + 2, axis]]
    return images, truth


def train(model: Yolo8) -> None:
    """AdamW with one cycle of the learning rate."""
    images, boxes = drawn("train", IMAGES)
    x, truth = torch.from_numpy(images), padded(boxes)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.1)
    start = time.process_time()
    model.train()
    for step in range(STEPS):
        batch = torch.randint(len(x), (BATCH,))
        value = loss(model, *mirrored(x[batch], truth[batch]))
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(step, f"{value.item():.3f}", f"{time.process_time() - start:.0f} s", flush=True)
    model.eval()


def export(model: Yolo8) -> onnx.ModelProto:
    """As the TorchScript exporter writes it, with what Ultralytics says of a detector."""
    buffer = io.BytesIO()
    with torch.no_grad():
        torch.onnx.export(
            model, (torch.zeros(2, 3, SIZE, SIZE),), buffer, dynamo=False, opset_version=17, input_names=["images"],
            output_names=["output0"], dynamic_axes={"images": {0: "batch"}, "output0": {0: "batch"}},
        )  # fmt: skip
    proto = onnx.load_from_string(buffer.getvalue())
    describe(proto, NAMES, SIZE)
    return proto


def main() -> None:
    """Train and write it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Yolo8(WIDTHS, DEPTHS, len(NAMES), BINS, SIZE)
    for head, stride in zip(model.scores, (8, 16, 32), strict=True):  # few cells find anything
        head[-1].bias.data.fill_(float(np.log(5 / len(NAMES) / (640 / stride) ** 2)))
    for head in model.boxes:
        head[-1].bias.data.fill_(1.0)
    print(sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    train(model)
    torch.save(model.state_dict(), TRAINED / f"{NAME}.pt") if "--keep" in sys.argv else None
    proto = export(model)
    proto.metadata_props.add(key="held_out_map", value=f"{precision(proto):.4f}")
    print("mAP", proto.metadata_props[-1].value)
    onnx.save(proto, TRAINED / f"{NAME}.onnx")


if __name__ == "__main__":
    main()
