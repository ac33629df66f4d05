"""Image classifiers in PyTorch, at small sizes, for ``models.make_exports``, and the blocks that they are made of.

Only the ways in which tensors meet matter here (what is added to, joined with, or normalised over what), so widths and
depths are a fraction of the published ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as f
from torch import Tensor, nn


def unit(i: int, o: int, k: int = 3, s: int = 1, g: int = 1, act: type[nn.Module] | None = nn.ReLU) -> nn.Sequential:
    """Convolution, batch normalisation, activation."""
    layers: list[nn.Module] = [nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([act()] if act else []))


def head(c: int, classes: int = 10) -> nn.Sequential:
    """Global pooling and a classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes))


class Residual(nn.Module):
    """``act(shortcut(x) + body(x))``."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut, self.act = body, shortcut or nn.Identity(), act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.shortcut(x) + self.body(x))


class Branches(nn.Module):
    """Outputs of several modules on the same input, joined along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([b(x) for b in self.branches], 1)


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al., 2018)."""

    def __init__(self, c: int, gate: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c // 4, 1), nn.ReLU(), nn.Conv2d(c // 4, c, 1), gate()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.net(x)


def vgg() -> nn.Module:
    """VGG (2014): plain convolutions, and a classifier on flattened maps."""
    layers: list[nn.Module] = []
    for i, o in ((3, 16), (16, 32), (32, 48)):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.Conv2d(o, o, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(48 * 16, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 64), nn.ReLU(),
        nn.Linear(64, 10),
    )  # fmt: skip


def resnext() -> nn.Module:
    """ResNeXt (2017): grouped convolutions inside residual blocks."""

    def block(i: int, w: int, o: int) -> nn.Module:
        body = nn.Sequential(unit(i, w, 1), unit(w, w, 3, g=8), unit(w, o, 1, act=None))
        return Residual(body, None if i == o else unit(i, o, 1, act=None), nn.ReLU())

    return nn.Sequential(unit(3, 16), block(16, 32, 64), block(64, 32, 64), block(64, 64, 96), head(96))


class DenseLayer(nn.Module):
    """A layer that joins what it makes to what it was given."""

    def __init__(self, c: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(c), unit(c, 4 * growth, 1)
        self.out = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.out(self.conv(f.relu(self.norm(x))))], 1)


def densenet() -> nn.Module:
    """DenseNet (2017)."""
    layers, c = [unit(3, 24)], 24
    for _ in range(2):
        for _ in range(4):
            layers.append(DenseLayer(c, 12))
            c += 12
        layers += [unit(c, c // 2, 1), nn.AvgPool2d(2)]
        c //= 2
    return nn.Sequential(*layers, head(c))


def inception() -> nn.Module:
    """Inception (2015): parallel branches, asymmetric kernels."""

    def block(i: int) -> nn.Module:
        asym = nn.Sequential(
            unit(i, 16, 1), nn.Conv2d(16, 24, (1, 7), padding=(0, 3)), nn.Conv2d(24, 24, (7, 1), padding=(3, 0))
        )
        pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), unit(i, 16, 1))
        return Branches(unit(i, 24, 1), nn.Sequential(unit(i, 16, 1), unit(16, 24), unit(24, 24)), asym, pool)

    return nn.Sequential(unit(3, 32, s=2), block(32), block(88), nn.MaxPool2d(2), head(88))


def mobilenet_v1() -> nn.Module:
    """MobileNet (2017): depthwise separable convolutions."""
    layers, i = [unit(3, 16)], 16
    for o in (32, 48, 48, 64):
        layers += [unit(i, i, g=i), unit(i, o, 1)]
        i = o
    return nn.Sequential(*layers, head(i))


def _inverted(i: int, o: int, k: int, act: type[nn.Module], se: bool, gate: type[nn.Module] = nn.Sigmoid) -> nn.Module:
    w = 4 * i
    body = nn.Sequential(
        unit(i, w, 1, act=act), unit(w, w, k, g=w, act=act), SqueezeExcite(w, gate) if se else nn.Identity(),
        unit(w, o, 1, act=None),
    )  # fmt: skip
    return Residual(body) if i == o else body


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 (2018): inverted residuals."""
    blocks = [_inverted(i, o, 3, nn.ReLU6, False) for i, o in ((16, 24), (24, 24), (24, 32), (32, 32))]
    return nn.Sequential(unit(3, 16, act=nn.ReLU6), *blocks, unit(32, 96, 1, act=nn.ReLU6), head(96))


def mobilenet_v3() -> nn.Module:
    """MobileNetV3 (2019): hard swish, and squeeze-excite with a hard gate."""
    blocks = [_inverted(i, o, 5, nn.Hardswish, True, nn.Hardsigmoid) for i, o in ((16, 24), (24, 24), (24, 40))]
    return nn.Sequential(unit(3, 16, act=nn.Hardswish), *blocks, unit(40, 96, 1, act=nn.Hardswish), head(96))


def efficientnet() -> nn.Module:
    """EfficientNet (2019): swish and squeeze-excite in inverted residuals."""
    blocks = [_inverted(i, o, k, nn.SiLU, True) for i, o, k in ((16, 24, 3), (24, 24, 5), (24, 40, 3), (40, 40, 5))]
    return nn.Sequential(unit(3, 16, act=nn.SiLU), *blocks, unit(40, 128, 1, act=nn.SiLU), head(128))


def regnet() -> nn.Module:
    """RegNetY (2020): grouped bottlenecks with squeeze-excite."""

    def block(i: int, o: int) -> nn.Module:
        body = nn.Sequential(unit(i, o, 1), unit(o, o, g=o // 8), SqueezeExcite(o), unit(o, o, 1, act=None))
        return Residual(body, None if i == o else unit(i, o, 1, act=None), nn.ReLU())

    return nn.Sequential(unit(3, 16), block(16, 32), block(32, 32), block(32, 64), head(64))


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle (Zhang et al., 2018)."""
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class ShuffleV1(nn.Module):
    """A ShuffleNet block: grouped pointwise convolutions and a shuffle between."""

    def __init__(self, c: int, groups: int = 2) -> None:
        super().__init__()
        self.groups = groups
        self.a, self.b = unit(c, c, 1, g=groups), unit(c, c, g=c, act=None)
        self.c = unit(c, c, 1, g=groups, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return f.relu(x + self.c(self.b(shuffle(self.a(x), self.groups))))


class ShuffleV2(nn.Module):
    """A ShuffleNetV2 block: half of the channels pass, then both halves are shuffled."""

    def __init__(self, c: int) -> None:
        super().__init__()
        w = c // 2
        self.body = nn.Sequential(unit(w, w, 1), unit(w, w, g=w, act=None), unit(w, w, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return shuffle(torch.cat([a, self.body(b)], 1), 2)


def shufflenet_v1() -> nn.Module:
    """ShuffleNet (2018)."""
    return nn.Sequential(unit(3, 48), ShuffleV1(48), ShuffleV1(48), unit(48, 64, 1), head(64))


def shufflenet_v2() -> nn.Module:
    """ShuffleNetV2 (2018)."""
    return nn.Sequential(unit(3, 48), ShuffleV2(48), ShuffleV2(48), unit(48, 96, 1), head(96))


class Ghost(nn.Module):
    """A ghost module: half of the channels are cheap functions of the other half (Han et al., 2020)."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.primary, self.cheap = unit(i, o // 2, 1), unit(o // 2, o // 2, g=o // 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)


def ghostnet() -> nn.Module:
    """GhostNet (2020)."""
    blocks = [Residual(nn.Sequential(Ghost(32, 64), SqueezeExcite(64), Ghost(64, 32))) for _ in range(2)]
    return nn.Sequential(unit(3, 32), *blocks, unit(32, 96, 1), head(96))


def squeezenet() -> nn.Module:
    """SqueezeNet (2016): fire modules, and a convolution as classifier."""

    def fire(i: int, s: int, o: int) -> nn.Module:
        wide = Branches(
            nn.Sequential(nn.Conv2d(s, o, 1), nn.ReLU()), nn.Sequential(nn.Conv2d(s, o, 3, padding=1), nn.ReLU())
        )
        return nn.Sequential(nn.Conv2d(i, s, 1), nn.ReLU(), wide)

    last = nn.Sequential(nn.Conv2d(64, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), fire(32, 12, 24), nn.MaxPool2d(2), fire(48, 16, 32), last)
