"""Write the graphs in ``models/exports``: ``pip install torch==2.13.0 transformers onnxscript``, then run this file.

Architectures come from transformers with random weights, at their published sizes unless the table says otherwise, by
the TorchScript exporter (``-ts``) and the dynamo exporter (``-dynamo``). Where an exporter fails, that is printed.
"""

from __future__ import annotations

import io
import lzma
import warnings
from collections.abc import Callable
from typing import Any

import onnx
import torch
import transformers as hf

from models import EXPORTS, strip

warnings.filterwarnings("ignore")


class Wrapped(torch.nn.Module):
    """One output of a transformers model, by position of its inputs."""

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...], output: str, **fixed: Any) -> None:
        super().__init__()
        self.model, self.names, self.output, self.fixed = model, names, output, fixed

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        found = self.model(**dict(zip(self.names, inputs, strict=True)), **self.fixed)
        return getattr(found, self.output)


def _vision(model: torch.nn.Module) -> tuple[Wrapped, dict[str, torch.Tensor], dict[str, dict[int, str]]]:
    pixels = torch.randn(2, 3, 224, 224)
    return Wrapped(model, ("pixel_values",), "logits"), {"pixel_values": pixels}, {"pixel_values": {0: "batch"}}


def _encoder(model: torch.nn.Module) -> tuple[Wrapped, dict[str, torch.Tensor], dict[str, dict[int, str]]]:
    ids = torch.randint(0, 100, (2, 16))
    free = {0: "batch", 1: "sequence"}
    names = ("input_ids", "attention_mask")
    feeds = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return Wrapped(model, names, "last_hidden_state"), feeds, dict.fromkeys(names, free)


def _decoder(model: torch.nn.Module) -> tuple[Wrapped, dict[str, torch.Tensor], dict[str, dict[int, str]]]:
    ids = torch.randint(0, 100, (2, 16))
    wrapped = Wrapped(model, ("input_ids",), "logits", use_cache=False)
    return wrapped, {"input_ids": ids}, {"input_ids": {0: "batch", 1: "sequence"}}


LLAMA = hf.LlamaConfig(
    vocab_size=4000,
    hidden_size=512,
    intermediate_size=1376,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=2,
    max_position_embeddings=512,
)

ARCHITECTURES: dict[str, Callable[[], tuple[Wrapped, dict[str, torch.Tensor], dict[str, dict[int, str]]]]] = {
    "bert-base": lambda: _encoder(hf.BertModel(hf.BertConfig())),
    "gpt2-small": lambda: _decoder(hf.GPT2LMHeadModel(hf.GPT2Config())),
    "llama-gqa": lambda: _decoder(hf.LlamaForCausalLM(LLAMA)),
    "resnet50": lambda: _vision(hf.ResNetForImageClassification(hf.ResNetConfig())),
    "vit-b16": lambda: _vision(hf.ViTForImageClassification(hf.ViTConfig())),
}


def main() -> None:
    """Export everything."""
    EXPORTS.mkdir(exist_ok=True)
    for name, make in ARCHITECTURES.items():
        for exporter in ("ts", "dynamo"):
            torch.manual_seed(0)
            module, feeds, free = make()
            try:
                proto = _export(module.eval(), feeds, free, dynamo=exporter == "dynamo")
            except Exception as error:
                print(f"{name}-{exporter}: the exporter fails: {str(error).splitlines()[0]}")
                continue
            strip(proto)
            for node in proto.graph.node:  # stack traces of the exporting machine
                del node.metadata_props[:]
                node.doc_string = ""
            packed = lzma.compress(proto.SerializeToString(deterministic=True), preset=9)
            (EXPORTS / f"{name}-{exporter}.onnx.xz").write_bytes(packed)
            print(f"{name}-{exporter}: {len(proto.graph.node)} nodes, {len(packed) >> 10} KiB")


def _export(
    module: Wrapped, feeds: dict[str, torch.Tensor], free: dict[str, dict[int, str]], dynamo: bool
) -> onnx.ModelProto:
    inputs = tuple(feeds.values())
    if dynamo:
        dims = {word: torch.export.Dim(word) for axes in free.values() for word in axes.values()}
        shapes = (tuple({a: dims[w] for a, w in free[n].items()} for n in feeds),)
        program = torch.onnx.export(
            module, inputs, input_names=list(feeds), output_names=["output"], dynamic_shapes=shapes, dynamo=True
        )
        return program.model_proto
    buffer = io.BytesIO()
    axes = {**free, "output": next(iter(free.values()))}
    torch.onnx.export(
        module,
        inputs,
        buffer,
        input_names=list(feeds),
        output_names=["output"],
        dynamic_axes=axes,
        dynamo=False,
        opset_version=17,
    )
    return onnx.load_from_string(buffer.getvalue())


if __name__ == "__main__":
    main()
