"""Other architectures in PyTorch, at small sizes, for ``models.make_exports``: those that transformers does not have.

Detectors, segmenters, generators, sequences, points and tables; see ``models.classifiers`` for what they are made of.
"""

from __future__ import annotations

import torch
import torch.nn.functional as f
from torch import Tensor, nn

from models.classifiers import Residual, unit


class UNet(nn.Module):
    """U-Net (2015), with transposed convolutions and skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([self._double(3, 16), self._double(16, 32), self._double(32, 64)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)])
        self.join = nn.ModuleList([self._double(64, 32), self._double(32, 16)])
        self.out = nn.Conv2d(16, 2, 1)

    @staticmethod
    def _double(i: int, o: int) -> nn.Module:
        return nn.Sequential(unit(i, o), unit(o, o))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for k, layer in enumerate(self.down):
            x = layer(x if k == 0 else f.max_pool2d(x, 2))
            skips.append(x)
        for k, (up, join) in enumerate(zip(self.up, self.join, strict=True)):
            x = join(torch.cat([skips[1 - k], up(x)], 1))
        return self.out(x)


class GroupNormUNet(nn.Module):
    """The down path of a diffusion U-Net: group normalisation, and a time embedding that shifts channels."""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.stem, self.time = nn.Conv2d(4, c, 3, padding=1), nn.Linear(16, c)
        self.a, self.b = nn.GroupNorm(4, c), nn.GroupNorm(4, c)
        self.first, self.second = nn.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)
        self.norm, self.out = nn.GroupNorm(4, c), nn.Conv2d(c, 4, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.first(f.silu(self.a(x))) + self.time(f.silu(t))[:, :, None, None]
        x = x + self.second(f.silu(self.b(y)))
        return self.out(f.silu(self.norm(x)))


class Bottleneck(nn.Module):
    """The residual unit of YOLO's CSP blocks."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b = unit(c, c, act=nn.SiLU), unit(c, c, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(self.a(x))


class C2f(nn.Module):
    """A cross-stage block: the input is split, refined step by step, and every step is kept."""

    def __init__(self, c: int, n: int = 2) -> None:
        super().__init__()
        self.a, self.b = unit(c, c, 1, act=nn.SiLU), unit((2 + n) * c // 2, c, 1, act=nn.SiLU)
        self.steps = nn.ModuleList(Bottleneck(c // 2) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.a(x).chunk(2, 1))
        for step in self.steps:
            parts.append(step(parts[-1]))
        return self.b(torch.cat(parts, 1))


class SPPF(nn.Module):
    """Spatial pyramid pooling by repeated max pooling."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b = unit(c, c // 2, 1, act=nn.SiLU), unit(2 * c, c, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.a(x)]
        for _ in range(3):
            parts.append(f.max_pool2d(parts[-1], 5, 1, 2))
        return self.b(torch.cat(parts, 1))


class Yolo(nn.Module):
    """A detector in YOLOv8's manner: CSP blocks, SPPF, an upsampling neck, and a head with distributed boxes."""

    def __init__(self, c: int = 32, classes: int = 8, bins: int = 8) -> None:
        super().__init__()
        self.classes, self.bins = classes, bins
        self.stem = nn.Sequential(unit(3, 16, s=2, act=nn.SiLU), unit(16, c, s=2, act=nn.SiLU), C2f(c))
        self.deep = nn.Sequential(unit(c, 2 * c, s=2, act=nn.SiLU), C2f(2 * c), SPPF(2 * c))
        self.neck = nn.Sequential(unit(3 * c, c, 1, act=nn.SiLU), C2f(c))
        self.boxes, self.scores = nn.ModuleList(), nn.ModuleList()
        for w in (c, 2 * c):
            self.boxes.append(nn.Sequential(unit(w, 16, act=nn.SiLU), nn.Conv2d(16, 4 * bins, 1)))
            self.scores.append(nn.Sequential(unit(w, 16, act=nn.SiLU), nn.Conv2d(16, classes, 1)))
        self.project = nn.Parameter(torch.arange(bins).float(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.stem(x)
        deep = self.deep(shallow)
        joined = self.neck(torch.cat([f.interpolate(deep, scale_factor=2.0, mode="nearest"), shallow], 1))
        found = []
        for y, box, score in zip((joined, deep), self.boxes, self.scores, strict=True):
            found.append(torch.cat([box(y), score(y)], 1).flatten(2))
        both = torch.cat(found, 2)
        box, score = both.split((4 * self.bins, self.classes), 1)
        b, _, n = box.shape
        share = box.view(b, 4, self.bins, n).softmax(2)
        return torch.cat([torch.einsum("bkin,i->bkn", share, self.project), score.sigmoid()], 1)


class Detector(nn.Module):
    """The same at the size that people use: strides of 8, 16 and 32, a neck up and down, 11 million parameters."""

    def __init__(self, c: int = 32, classes: int = 80, bins: int = 16) -> None:
        super().__init__()
        self.classes, self.bins = classes, bins
        widths, depths = [c * 2**k for k in range(5)], (2, 4, 4, 2)
        self.stem = unit(3, c, s=2, act=nn.SiLU)
        self.down = nn.ModuleList(
            nn.Sequential(unit(i, o, s=2, act=nn.SiLU), C2f(o, n))
            for i, o, n in zip(widths, widths[1:], depths, strict=False)
        )
        self.pool = SPPF(widths[4])
        low, middle, high = widths[2:]
        self.up = nn.ModuleList([_merge(middle + high, middle), _merge(low + middle, low)])
        self.stride = nn.ModuleList([unit(low, low, s=2, act=nn.SiLU), unit(middle, middle, s=2, act=nn.SiLU)])
        self.back = nn.ModuleList([_merge(low + middle, middle), _merge(middle + high, high)])
        self.boxes, self.scores = nn.ModuleList(), nn.ModuleList()
        for w in (low, middle, high):
            self.boxes.append(self._head(w, 64, 4 * bins))
            self.scores.append(self._head(w, low, classes))
        self.project = nn.Parameter(torch.arange(bins).float(), requires_grad=False)

    @staticmethod
    def _head(i: int, c: int, o: int) -> nn.Module:
        return nn.Sequential(unit(i, c, act=nn.SiLU), unit(c, c, act=nn.SiLU), nn.Conv2d(c, o, 1))

    def forward(self, x: Tensor) -> Tensor:
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
        box, score = torch.cat(found, 2).split((4 * self.bins, self.classes), 1)
        b, _, n = box.shape
        share = box.view(b, 4, self.bins, n).softmax(2)
        return torch.cat([torch.einsum("bkin,i->bkn", share, self.project), score.sigmoid()], 1)


def _merge(i: int, o: int) -> nn.Module:
    return nn.Sequential(unit(i, o, 1, act=nn.SiLU), C2f(o))


class Pyramid(nn.Module):
    """A feature pyramid on a small backbone, with one head for all levels (RetinaNet, 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([unit(3, 24, s=2), unit(24, 32, s=2), unit(32, 48, s=2)])
        self.lateral = nn.ModuleList(nn.Conv2d(c, 32, 1) for c in (24, 32, 48))
        self.smooth = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(3))
        self.tower = nn.Sequential(unit(32, 32), unit(32, 32))
        self.boxes, self.scores = nn.Conv2d(32, 4, 3, padding=1), nn.Conv2d(32, 8, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        y = self.lateral[2](levels[2])
        merged = [y]
        for k in (1, 0):
            y = self.lateral[k](levels[k]) + f.interpolate(y, size=levels[k].shape[-2:], mode="nearest")
            merged.append(y)
        outputs: list[Tensor] = []
        for y, smooth in zip(merged, self.smooth, strict=True):
            z = self.tower(smooth(y))
            outputs += [self.boxes(z), self.scores(z)]
        return tuple(outputs)


def dcgan() -> nn.Module:
    """The generator of DCGAN (2016)."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(32, 64, 4, 1, 0, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    for i, o in ((64, 48), (48, 32)):
        layers += [nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Tanh())


def super_resolution() -> nn.Module:
    """Sub-pixel convolution (Shi et al., 2016), with a residual trunk."""
    trunk = [Residual(nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.PReLU(32))) for _ in range(2)]
    up = [nn.Conv2d(32, 64, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(16)]
    return nn.Sequential(nn.Conv2d(3, 32, 5, padding=2), *trunk, *up, nn.Conv2d(16, 3, 3, padding=1))


class PointNet(nn.Module):
    """PointNet (2017): a shared network on points, a maximum over them, and a learned transform of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU())
        self.t = nn.Sequential(nn.Conv1d(32, 48, 1), nn.ReLU())
        self.transform = nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 32 * 32))
        self.b = nn.Sequential(nn.Conv1d(32, 64, 1), nn.BatchNorm1d(64), nn.ReLU(), nn.Conv1d(64, 96, 1), nn.ReLU())
        self.out = nn.Sequential(nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 10))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        m = self.transform(self.t(y).max(2)[0]).view(-1, 32, 32)
        y = torch.bmm(y.transpose(1, 2), m).transpose(1, 2)
        return self.out(self.b(y).max(2)[0])


def conv3d() -> nn.Module:
    """A residual net on volumes."""

    def block(i: int, o: int) -> nn.Module:
        body = nn.Sequential(nn.Conv3d(i, o, 3, padding=1), nn.BatchNorm3d(o), nn.ReLU(), nn.Conv3d(o, o, 3, padding=1))
        return Residual(body, nn.Conv3d(i, o, 1), nn.ReLU())

    pool = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, 10))
    return nn.Sequential(nn.Conv3d(1, 16, 3, padding=1), nn.ReLU(), block(16, 24), nn.MaxPool3d(2), block(24, 32), pool)


class WaveNet(nn.Module):
    """WaveNet (2016): dilated causal convolutions, gates, skip connections."""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, c, 1)
        self.gates = nn.ModuleList(nn.Conv1d(c, 2 * c, 2, dilation=2**k) for k in range(4))
        self.residual = nn.ModuleList(nn.Conv1d(c, c, 1) for _ in range(4))
        self.skip = nn.ModuleList(nn.Conv1d(c, 48, 1) for _ in range(4))
        self.out = nn.Sequential(nn.ReLU(), nn.Conv1d(48, 48, 1), nn.ReLU(), nn.Conv1d(48, 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        total = None
        for k, (gate, residual, skip) in enumerate(zip(self.gates, self.residual, self.skip, strict=True)):
            a, b = gate(f.pad(x, (2**k, 0))).chunk(2, 1)
            y = torch.tanh(a) * torch.sigmoid(b)
            total = skip(y) if total is None else total + skip(y)
            x = x + residual(y)
        return self.out(total)


class Tagger(nn.Module):
    """A tagger of sequences: embeddings, a bidirectional recurrence of two layers, a classifier."""

    def __init__(self, kind: type[nn.Module], hidden: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 32)
        self.rnn = kind(32, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(2 * hidden, 8)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.rnn(self.embed(ids))[0])


class Mixer(nn.Module):
    """MLP-Mixer (2021): one network over the patches, one over the channels."""

    def __init__(self, c: int = 48, patches: int = 16) -> None:
        super().__init__()
        self.stem, self.norm, self.out = nn.Conv2d(3, c, 8, 8), nn.LayerNorm(c), nn.Linear(c, 10)
        self.blocks = nn.ModuleList()
        for _ in range(2):
            tokens = nn.Sequential(nn.Linear(patches, 64), nn.GELU(), nn.Linear(64, patches))
            channels = nn.Sequential(nn.LayerNorm(c), nn.Linear(c, 96), nn.GELU(), nn.Linear(96, c))
            self.blocks.append(nn.ModuleList([nn.LayerNorm(c), tokens, channels]))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).flatten(2).transpose(1, 2)
        for norm, tokens, channels in self.blocks:
            y = y + tokens(norm(y).transpose(1, 2)).transpose(1, 2)
            y = y + channels(y)
        return self.out(self.norm(y).mean(1))


class Recommender(nn.Module):
    """DLRM (2019): embeddings, a network on dense features, and the dot products of all pairs."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(50, width) for _ in range(4))
        self.bottom = nn.Sequential(nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, width), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(width + 25, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        x = self.bottom(dense)
        vectors = torch.stack([x, *[table(sparse[:, k]) for k, table in enumerate(self.tables)]], 1)
        pairs = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)
        return torch.sigmoid(self.top(torch.cat([x, pairs], 1)))


class Selective(nn.Module):
    """A Mamba-like block (2023): a depthwise causal convolution and an unrolled selective recurrence."""

    def __init__(self, c: int = 32, state: int = 8, rank: int = 4) -> None:
        super().__init__()
        self.c, self.state, self.rank, inner = c, state, rank, 2 * c
        self.embed, self.norm = nn.Embedding(100, c), nn.RMSNorm(c, eps=1e-5)
        self.inward, self.out = nn.Linear(c, 2 * inner, bias=False), nn.Linear(inner, c, bias=False)
        self.conv = nn.Conv1d(inner, inner, 4, padding=3, groups=inner)
        self.project = nn.Linear(inner, rank + 2 * state, bias=False)
        self.step, self.log = nn.Linear(rank, inner), nn.Parameter(torch.rand(inner, state))
        self.skip, self.head = nn.Parameter(torch.ones(inner)), nn.Linear(c, 100)

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        x = self.embed(ids)
        y, gate = self.inward(self.norm(x)).chunk(2, -1)
        y = f.silu(self.conv(y.transpose(1, 2))[..., :length].transpose(1, 2))
        step, b, c = self.project(y).split((self.rank, self.state, self.state), -1)
        step = f.softplus(self.step(step))
        decay, drive = torch.exp(step[..., None] * -torch.exp(self.log)), (step * y)[..., None] * b[:, :, None, :]
        h, found = torch.zeros_like(drive[:, 0]), []
        for t in range(length):
            h = decay[:, t] * h + drive[:, t]
            found.append((h * c[:, t, None, :]).sum(-1))
        y = (torch.stack(found, 1) + y * self.skip) * f.silu(gate)
        return self.head(x + self.out(y))


class Experts(nn.Module):
    """A mixture of experts (Shazeer et al., 2017) with dense routing: every expert runs, a softmax weighs them."""

    def __init__(self, c: int = 32, hidden: int = 48, experts: int = 6) -> None:
        super().__init__()
        self.stem, self.out = nn.Linear(16, c), nn.Linear(c, 10)
        self.router = nn.Linear(c, experts)
        self.up, self.down = (
            nn.Parameter(torch.randn(experts, c, hidden) / 6),
            nn.Parameter(torch.randn(experts, hidden, c) / 6),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        share = torch.sigmoid(self.router(x))
        y = torch.einsum("bc,ech->beh", x, self.up)
        y = torch.einsum("beh,ehc->bec", f.gelu(y), self.down)
        return self.out(x + torch.einsum("be,bec->bc", share, y))


class Routed(nn.Module):
    """A block whose tokens go to the best two of several experts (GShard: Lepikhin et al., 2021).

    Args:
        how: ``scatter``: every expert runs, and shares are placed by number (as GPT-OSS does on one device);
            ``lookup``: each token looks up the weights of its experts, with shares from a softmax over all (Mixtral);
            ``onehot``: the same shares, placed by one-hot vectors (Switch transformers on accelerators).
    """

    def __init__(self, how: str, c: int = 24, hidden: int = 32, experts: int = 8, top: int = 2) -> None:
        super().__init__()
        self.how, self.top, self.experts = how, top, experts
        self.stem, self.norm, self.out = nn.Linear(16, c), nn.LayerNorm(c), nn.Linear(c, 10)
        self.router = nn.Linear(c, experts)
        self.up, self.down = (nn.Parameter(torch.randn(experts, a, b) / 5) for a, b in ((c, hidden), (hidden, c)))
        self.bias = nn.Parameter(torch.randn(experts, hidden) / 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(x)
        return self.out(x + (self.lookup(y) if self.how == "lookup" else self.dense(y)))

    def lookup(self, x: Tensor) -> Tensor:
        """Each token with the weights of its own experts."""
        shares, chosen = torch.topk(torch.softmax(self.router(x), -1), self.top, -1)
        shares = shares / shares.sum(-1, keepdim=True)
        flat = chosen.reshape(-1)
        tokens = x[:, None].expand(-1, self.top, -1).reshape(-1, 1, x.shape[-1])
        y = f.gelu(torch.bmm(tokens, self.up[flat]) + self.bias[flat][:, None])
        y = torch.bmm(y, self.down[flat])[:, 0] * shares.reshape(-1, 1)
        return y.reshape(-1, self.top, x.shape[-1]).sum(1)

    def dense(self, x: Tensor) -> Tensor:
        """Every token with all experts; what is not chosen has no share."""
        best, chosen = torch.topk(self.router(x), self.top, -1)
        best = torch.softmax(best, -1)
        if self.how == "scatter":
            shares = torch.zeros(x.shape[0], self.experts).scatter(1, chosen, best)
        else:
            shares = (f.one_hot(chosen, self.experts).to(x.dtype) * best[..., None]).sum(1)
        y = f.gelu(torch.matmul(x[None], self.up) + self.bias[:, None])
        y = torch.matmul(y, self.down)
        return (y * shares.transpose(0, 1)[..., None]).sum(0)
