"""Train the small language model in ``models/trained`` on the prose of Python's standard library, and export it.

    pip install torch==2.14.1 onnxscript
    nice python -m models.make_lm

A decoder of four layers as Llama's are: rotary positions, RMS norms, gated feed-forward, four query heads for each of
two heads of keys and values. Tokens are bytes. Three files share the weights in ``tiny-lm.data``:

- ``tiny-lm.onnx``: ``input_ids``, int64 ``[batch, sequence]``, to ``logits``, ``[batch, sequence, 256]``;
- ``tiny-lm-decoder.onnx`` gives beside them the cache: for each layer ``present.N.key`` and ``present.N.value``,
  ``[batch, 2, sequence, 16]``;
- ``tiny-lm-decoder-with-past.onnx`` takes such a cache too, as ``past_key_values.N.key`` and ``.value`` of any length,
  0 among them, and as many further tokens as are given.

What a byte of held-out text costs (``models.prose.bits``) stands in the metadata of the first. ``--keep`` keeps a state
dict; ``--go-on FILE`` trains one on, at half the rate, and ``--export FILE`` exports it as it is. All is drawn from
seed 0.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto
from torch import Tensor, nn
from torch.nn import functional as F

from models import TRAINED, prose

NAME = "tiny-lm"
WIDTH, DEPTH, HEADS, SHARED, HEAD, INNER = 128, 4, 8, 2, 16, 384
"""Hidden size, layers, heads of queries, heads of keys and values, dims of a head, features of the feed-forward."""
WINDOW, BATCH, SECONDS, RATE = 256, 8, 700, 4e-3
"""Bytes of a text in training, texts in a step, seconds of the processor, and the highest rate of learning."""
Cache = tuple[tuple[Tensor, Tensor], ...]


class Norm(nn.Module):
    """Root mean square over the last axis (Zhang and Sennrich, 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al., 2021), the halves of a head turned against each other."""
    a, b = x[..., : HEAD // 2], x[..., HEAD // 2 :]
    return x * cos + torch.cat((-b, a), -1) * sin


class Layer(nn.Module):
    """Attention with a cache and a gated feed-forward, each behind a norm and beside a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = Norm(), Norm()
        self.query, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.key, self.value = (nn.Linear(WIDTH, SHARED * HEAD, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(WIDTH, INNER, bias=False) for _ in range(2))
        self.down = nn.Linear(INNER, WIDTH, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, hidden: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y = self.before(x)
        q, k, v = (
            one(y).unflatten(-1, (heads, HEAD)).transpose(1, 2)
            for one, heads in ((self.query, HEADS), (self.key, SHARED), (self.value, SHARED))
        )
        q, k = turned(q, cos, sin), turned(k, cos, sin)
        if past is not None:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
        keys, values = (one.repeat_interleave(HEADS // SHARED, 1) for one in (k, v))
        if self.training:  # several times as fast
            mixed = F.scaled_dot_product_attention(q, keys, values, is_causal=True)
        else:
            scores = (q @ keys.transpose(2, 3) * HEAD**-0.5).masked_fill(hidden, -1e9)
            mixed = torch.softmax(scores, -1) @ values
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y = self.between(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y)), (k, v)


class Decoder(nn.Module):
    """Tokens, and keys and values of those before them, to logits and keys and values of all."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(DEPTH))
        self.norm, self.head = Norm(), nn.Linear(WIDTH, 256, bias=False)
        self.register_buffer("rates", 10000.0 ** (-torch.arange(0, HEAD, 2) / HEAD), persistent=False)

    def forward(self, ids: Tensor, past: Cache | None = None) -> tuple[Tensor, Cache]:
        before = 0 if past is None else past[0][0].shape[2]
        here = torch.arange(ids.shape[1], device=ids.device) + before
        every = torch.arange(ids.shape[1] + before, device=ids.device)
        angles = here[:, None].float() * self.rates
        cos, sin = (torch.cat((one, one), -1) for one in (angles.cos(), angles.sin()))
        x, present = self.embedding(ids), []
        for number, layer in enumerate(self.layers):
            x, kept = layer(x, cos, sin, every > here[:, None], None if past is None else past[number])
            present.append(kept)
        return self.head(self.norm(x)), tuple(present)


class Plain(nn.Module):
    """Logits alone."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids)[0]


class Cached(nn.Module):
    """Logits, keys and values, as a flat tuple; the cache in front of the tokens in pairs, if there is one."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        pairs = tuple(zip(past[::2], past[1::2], strict=True)) or None
        logits, present = self.model(input_ids, pairs)
        return logits, *(one for pair in present for one in pair)


def rate(share: float, highest: float = RATE) -> float:
    """The rate of learning after a share of the time: a short rise, a cosine down to a hundredth."""
    return highest * min(share / 0.03, 0.505 + 0.495 * float(np.cos(np.pi * share)))


def train(model: Decoder, highest: float = RATE) -> None:
    """AdamW on windows drawn at random, for so many seconds of the processor: slower ones train less."""
    whole = torch.from_numpy(np.frombuffer(prose.text("train"), np.uint8).astype(np.int64))
    large = [p for p in model.parameters() if p.ndim > 1]
    small = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": large, "weight_decay": 0.1}, {"params": small, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, RATE, betas=(0.9, 0.95))
    start, step, share = time.process_time(), 0, 0.0
    while share < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate(share, highest)
        first = torch.randint(len(whole) - WINDOW, (BATCH,))
        ids = whole[first[:, None] + torch.arange(WINDOW + 1)]
        loss = F.cross_entropy(model(ids[:, :-1])[0].flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step, share = step + 1, (time.process_time() - start) / SECONDS
        if step % 50 == 0:
            print(f"step {step}, {100 * share:.0f} %: {loss.item() / np.log(2):.3f} bits", flush=True)


def exported(module: nn.Module, past: int | None, outputs: list[str]) -> ModelProto:
    """A graph of one of the three kinds."""
    batch, length, before = torch.export.Dim("batch"), torch.export.Dim("sequence"), torch.export.Dim("past")
    feeds: tuple[Tensor, ...] = (torch.randint(3, 100, (2, 9)),)
    names, shapes = ["input_ids"], [{0: batch, 1: length}]
    if past is not None:
        names += [one.replace("present", "past_key_values") for one in outputs[1:]]
        feeds += tuple(torch.randn(2, SHARED, past, HEAD) for _ in outputs[1:])
        shapes += [{0: batch, 2: before} for _ in outputs[1:]]
    dynamic = (shapes[0],) if past is None else (shapes[0], tuple(shapes[1:]))
    program = torch.onnx.export(
        module, feeds, dynamo=True, opset_version=18, input_names=names, output_names=outputs,
        dynamic_shapes=dynamic, verbose=False,
    )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    del proto.metadata_props[:]
    for node in proto.graph.node:  # where in the exporter's world a node came from is of no use here
        del node.metadata_props[:]
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
    return proto


def share(protos: dict[str, ModelProto], data: Path) -> None:
    """Put large weights into one file, each once; the models name it."""
    places: dict[bytes, int] = {}
    with data.open("wb") as file:
        for tensor in (t for proto in protos.values() for t in proto.graph.initializer):
            if len(tensor.raw_data) < 1024:
                continue
            raw = tensor.raw_data
            if raw not in places:
                places[raw] = file.tell()
                file.write(raw)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", str(places[raw])), ("length", str(len(raw)))):
                tensor.external_data.add(key=key, value=value)


def export(model: Decoder, folder: Path = TRAINED) -> None:
    """Write the three files and their weights."""
    model.eval()
    cache = [f"present.{n}.{kind}" for n in range(DEPTH) for kind in ("key", "value")]
    protos = {
        NAME: exported(Plain(model), None, ["logits"]),
        f"{NAME}-decoder": exported(Cached(model), None, ["logits", *cache]),
        f"{NAME}-decoder-with-past": exported(Cached(model), 5, ["logits", *cache]),
    }
    told = prose.bits(protos[NAME])
    protos[NAME].metadata_props.add(key="held_out_bits_per_byte", value=f"{told:.4f}")
    share(protos, folder / f"{NAME}.data")
    for name, proto in protos.items():
        onnx.save(proto, folder / f"{name}.onnx")
    print(NAME, sum(p.numel() for p in model.parameters()), f"parameters, {told:.4f} bits a byte")


def main(arguments: list[str]) -> None:
    """Train and write all, or write what was trained."""
    torch.manual_seed(0)
    np.random.seed(0)
    model = Decoder()
    for p in model.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=0.02 if p.shape[0] == 256 else p.shape[1] ** -0.5 * 0.6)
    given = next((arguments[k + 1] for k, one in enumerate(arguments) if one in ("--export", "--go-on")), None)
    if given is not None:
        model.load_state_dict(torch.load(given))
    if "--export" not in arguments:
        train(model, RATE if given is None else RATE / 2)
    if "--keep" in arguments:
        torch.save(model.state_dict(), TRAINED / f"{NAME}.pt")
    export(model)


if __name__ == "__main__":
    main(sys.argv[1:])
