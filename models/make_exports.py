"""Write the graphs in ``models/exports``: ``pip install torch==2.13.0 transformers onnxscript``, then run this file.

    python -m models.make_exports [NAME ...]

Six architectures stand at their usual sizes; the zoo has many more at small ones. Each is exported as its entry
says: ``ts9`` is the TorchScript exporter with opset 9, ``dynamo18`` the other one with opset 18, a trailing ``s`` means
that all axes are static. Weights are random, and taken out of the file again (see ``models.strip``).
"""

from __future__ import annotations

import inspect
import io
import lzma
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch
import transformers as hf
from torch import nn

from models import EXPORTS, classifiers, strip
from models import architectures as own

warnings.filterwarnings("ignore")
Axes = dict[str, dict[int, str]]


class Wrapped(nn.Module):
    """Chosen outputs of a transformers model, by position of its inputs."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], output: str, **fixed: Any) -> None:
        super().__init__()
        self.model, self.names, self.output, self.fixed = model, names, output, fixed
        given = ", ".join(names)  # the exporters read names from the signature
        exec(f"def forward(self, {given}):\n return self.call({given})", scope := {})
        self.__class__ = type("Wrapped", (Wrapped,), {"forward": scope["forward"]})

    def call(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The output that was asked for."""
        found = self.model(**dict(zip(self.names, inputs, strict=True)), **self.fixed)
        for part in self.output.split("."):
            found = getattr(found, part) if not part.isdigit() else found[int(part)]
        return found


@dataclass
class Case:
    """A module with inputs, and which of their axes are free."""

    module: nn.Module
    feeds: dict[str, torch.Tensor]
    free: Axes = field(default_factory=dict)


def _image(module: nn.Module, size: int = 32, channels: int = 3, free: str = "batch") -> Case:
    axes = {0: "batch"} if free == "batch" else {0: "batch", 2: "height", 3: "width"}
    return Case(module, {"x": torch.randn(2, channels, size, size)}, {"x": axes})


def _vision(model: nn.Module, size: int = 224, output: str = "logits", **fixed: Any) -> Case:
    pixels = torch.randn(2, 3, size, size)
    return Case(
        Wrapped(model, ("pixel_values",), output, **fixed), {"pixel_values": pixels}, {"pixel_values": {0: "batch"}}
    )


def _text(model: nn.Module, output: str, names: tuple[str, ...] = ("input_ids",), **fixed: Any) -> Case:
    ids = torch.randint(3, 100, (2, 16))
    every = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids[:, :8]}
    free = {0: "batch", 1: "sequence"}
    axes = {n: free if n != "decoder_input_ids" else {0: "batch", 1: "target"} for n in names}
    return Case(Wrapped(model, names, output, **fixed), {n: every[n] for n in names}, axes)


def _encoder(model: nn.Module) -> Case:
    return _text(model, "last_hidden_state", ("input_ids", "attention_mask"))


def _decoder(model: nn.Module, **fixed: Any) -> Case:
    return _text(model, "logits", use_cache=False, **fixed)


def _small(config: type[Any], **more: Any) -> Any:
    """A configuration at a small size, under the names that it uses."""
    common = {
        "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2,
    }  # fmt: skip
    return config(**{**common, **more})


def _routed(how: str) -> Case:
    return Case(own.Routed(how), {"x": torch.randn(3, 16)}, {"x": {0: "batch"}})


def _sparse(model: type[Any], config: type[Any], **more: Any) -> Case:
    """A decoder whose tokens look up the weights of their experts, as it is exported."""
    sizes = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48, "num_experts_per_tok": 2, **_KV}
    count = dict.fromkeys(("num_local_experts", "num_experts"), 8)
    made = model(_small(config, **sizes, **count, **more))
    made.set_experts_implementation("batched_mm")
    for weight in made.parameters():
        if weight.ndim > 1 and not weight.std():  # left at zero
            nn.init.normal_(weight, 0, 0.1)
    return _decoder(made)


class Cached(nn.Module):
    """One step of a decoder with its cache of keys and values given and returned."""

    def __init__(self, model: nn.Module, layers: int) -> None:
        super().__init__()
        self.model = model
        names = ", ".join(f"past_key_{i}, past_value_{i}" for i in range(layers))
        exec(f"def forward(self, input_ids, {names}):\n return self.call(input_ids, {names})", scope := {})
        self.__class__ = type("Cached", (Cached,), {"forward": scope["forward"]})

    def call(self, ids: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits, and keys and values of all positions so far."""
        cache = hf.DynamicCache()
        for i in range(0, len(past), 2):
            cache.update(past[i], past[i + 1], i // 2)
        found = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
        outputs = [found.logits]
        for layer in found.past_key_values.layers:
            outputs += [layer.keys, layer.values]
        return tuple(outputs)


def _cached() -> Case:
    config = _small(hf.LlamaConfig, num_key_value_heads=2)
    feeds = {"input_ids": torch.randint(3, 100, (2, 1))}
    axes: Axes = {"input_ids": {0: "batch"}}
    for i in range(2):
        for kind in ("key", "value"):
            feeds[f"past_{kind}_{i}"] = torch.randn(2, 2, 7, 16)
            axes[f"past_{kind}_{i}"] = {0: "batch", 2: "past"}
    return Case(Cached(hf.LlamaForCausalLM(config), 2), feeds, axes)


def _clip(text: bool) -> Case:
    if text:
        model = hf.CLIPTextModelWithProjection(_small(hf.CLIPTextConfig, projection_dim=32))
        return _text(model, "text_embeds", ("input_ids", "attention_mask"))
    config = _small(hf.CLIPVisionConfig, image_size=32, patch_size=8, projection_dim=32)
    return _vision(hf.CLIPVisionModelWithProjection(config), 32, "image_embeds")


def _detr() -> Case:
    backbone = hf.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )
    config = hf.DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, backbone=None, use_pretrained_backbone=False, d_model=64,
        encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128,
        decoder_ffn_dim=128, num_queries=10, num_labels=8,
    )  # fmt: skip
    return _vision(hf.DetrForObjectDetection(config), 64)


def _t5(decoder: bool) -> Case:
    config = hf.T5Config(
        vocab_size=100, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, decoder_start_token_id=0,
        tie_word_embeddings=not decoder,
    )  # fmt: skip
    if decoder:
        names = ("input_ids", "decoder_input_ids")
        return _text(hf.T5ForConditionalGeneration(config), "logits", names, use_cache=False)
    return _text(hf.T5EncoderModel(config), "last_hidden_state", ("input_ids", "attention_mask"))


def _audio(name: str) -> Case:
    if name == "whisper":
        config = hf.WhisperConfig(
            vocab_size=100, num_mel_bins=16, d_model=64, encoder_layers=2, encoder_attention_heads=4,
            encoder_ffn_dim=128, max_source_positions=40, decoder_layers=1, decoder_attention_heads=4,
            decoder_ffn_dim=128, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )  # fmt: skip
        module = Wrapped(hf.WhisperModel(config).encoder, ("input_features",), "last_hidden_state")
        return Case(module, {"input_features": torch.randn(2, 16, 80)}, {"input_features": {0: "batch"}})
    config = _small(
        hf.Wav2Vec2Config, vocab_size=32, conv_dim=[32] * 3, conv_stride=[5, 2, 2], conv_kernel=[10, 3, 3],
        num_feat_extract_layers=3, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    module = Wrapped(hf.Wav2Vec2ForCTC(config), ("input_values",), "logits")
    return Case(module, {"input_values": torch.randn(2, 800)}, {"input_values": {0: "batch"}})


LLAMA = hf.LlamaConfig(
    vocab_size=4000, hidden_size=512, intermediate_size=1376, num_hidden_layers=4, num_attention_heads=8,
    num_key_value_heads=2, max_position_embeddings=512,
)  # fmt: skip

FULL_SIZE: dict[str, tuple[Callable[[], Case], tuple[str, ...]]] = {
    "bert-base": (lambda: _encoder(hf.BertModel(hf.BertConfig())), ("ts17", "dynamo18")),
    "detector": (lambda: _image(own.Detector(), 640), ("ts17",)),
    "gpt2-small": (lambda: _decoder(hf.GPT2LMHeadModel(hf.GPT2Config())), ("dynamo18",)),
    "llama-gqa": (lambda: _decoder(hf.LlamaForCausalLM(LLAMA)), ("dynamo18",)),
    "resnet50": (lambda: _vision(hf.ResNetForImageClassification(hf.ResNetConfig())), ("ts17", "dynamo18")),
    "vit-b16": (lambda: _vision(hf.ViTForImageClassification(hf.ViTConfig())), ("ts17", "dynamo18")),
}

_KV = {"num_key_value_heads": 2}
_EAGER = {"attn_implementation": "eager"}  # scaled_dot_product_attention needs opset 14
ZOO: dict[str, tuple[Callable[[], Case], tuple[str, ...]]] = {
    "albert": (
        lambda: _encoder(hf.AlbertModel(_small(hf.AlbertConfig, embedding_size=32))),
        ("ts14", "dynamo18"),
    ),
    "bart": (
        lambda: _text(
            hf.BartForConditionalGeneration(
                hf.BartConfig(
                    vocab_size=100, d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                    decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, max_position_embeddings=64,
                )
            ),
            "logits", ("input_ids", "decoder_input_ids"), use_cache=False,
        ),
        ("dynamo18",),
    ),
    "bert": (lambda: _encoder(hf.BertModel(_small(hf.BertConfig, **_EAGER))), ("ts11", "dynamo23")),
    "bert-classifier": (
        lambda: _text(
            hf.BertForSequenceClassification(_small(hf.BertConfig)), "logits", ("input_ids", "attention_mask")
        ),
        ("ts17", "dynamo18"),
    ),
    "bert-sdpa": (lambda: _encoder(hf.BertModel(_small(hf.BertConfig))), ("ts14", "ts17", "dynamo23")),
    "bloom": (
        lambda: _decoder(hf.BloomForCausalLM(hf.BloomConfig(vocab_size=100, hidden_size=64, n_layer=2, n_head=4))),
        ("dynamo18",),
    ),
    "clip-text": (lambda: _clip(True), ("dynamo18",)),
    "clip-vision": (lambda: _clip(False), ("ts14", "dynamo18")),
    "conv3d": (
        lambda: Case(own.conv3d(), {"x": torch.randn(2, 1, 8, 16, 16)}, {"x": {0: "batch"}}),
        ("ts9", "dynamo18"),
    ),
    "convnext": (
        lambda: _vision(
            hf.ConvNextForImageClassification(
                hf.ConvNextConfig(depths=[1, 1, 2, 1], hidden_sizes=[16, 24, 32, 48], image_size=64)
            ), 64,
        ),
        ("ts14", "dynamo18"),
    ),
    "dcgan": (lambda: Case(own.dcgan(), {"z": torch.randn(2, 32, 1, 1)}, {"z": {0: "batch"}}), ("ts9", "dynamo18")),
    "deberta": (
        lambda: _encoder(
            hf.DebertaV2Model(
                _small(
                    hf.DebertaV2Config, relative_attention=True, pos_att_type=["p2c", "c2p"], share_att_key=True,
                    max_position_embeddings=512, intermediate_size=256,
                )
            )
        ),
        ("ts17", "dynamo18"),
    ),
    "deit": (
        lambda: _vision(
            hf.DeiTForImageClassification(_small(hf.DeiTConfig, image_size=32, patch_size=8, **_EAGER)), 32
        ),
        ("ts13", "dynamo18"),
    ),
    "densenet": (lambda: _image(classifiers.densenet()), ("ts11", "dynamo18")),
    "detr": (_detr, ("dynamo18",)),
    "diffusion-unet": (
        lambda: Case(
            own.GroupNormUNet(), {"x": torch.randn(2, 4, 16, 16), "t": torch.randn(2, 16)},
            {"x": {0: "batch"}, "t": {0: "batch"}},
        ),
        ("ts17", "dynamo21"),
    ),
    "distilbert": (
        lambda: _encoder(
            hf.DistilBertModel(
                hf.DistilBertConfig(vocab_size=100, dim=64, n_layers=2, n_heads=4, hidden_dim=128, **_EAGER)
            )
        ),
        ("ts12", "dynamo18"),
    ),
    "efficientnet": (lambda: _image(classifiers.efficientnet()), ("ts12", "dynamo18")),
    "falcon": (
        lambda: _decoder(
            hf.FalconForCausalLM(
                hf.FalconConfig(vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
            )
        ),
        ("dynamo18",),
    ),
    "feature-pyramid": (lambda: _image(own.Pyramid(), 64), ("ts11", "dynamo18")),
    "gemma": (
        lambda: _decoder(hf.GemmaForCausalLM(_small(hf.GemmaConfig, head_dim=16, num_key_value_heads=1))),
        ("dynamo18",),
    ),
    "ghostnet": (lambda: _image(classifiers.ghostnet()), ("ts10", "dynamo18")),
    "gpt2": (
        lambda: _decoder(
            hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=100, n_positions=64, n_embd=64, n_layer=2, n_head=4))
        ),
        ("dynamo18", "dynamo23"),
    ),
    "gru-tagger": (
        lambda: Case(
            own.Tagger(nn.GRU), {"ids": torch.randint(0, 100, (2, 12))}, {"ids": {0: "batch", 1: "sequence"}}
        ),
        ("ts13", "dynamo18s"),
    ),
    "gru-wide": (  # so large that the exporter leaves the reordering of its gates in the graph
        lambda: Case(
            own.Tagger(nn.GRU, 96), {"ids": torch.randint(0, 100, (2, 12))}, {"ids": {0: "batch", 1: "sequence"}}
        ),
        ("dynamo18",),
    ),
    "inception": (lambda: _image(classifiers.inception()), ("ts9", "dynamo18")),
    "llama": (lambda: _decoder(hf.LlamaForCausalLM(_small(hf.LlamaConfig, **_KV))), ("dynamo18", "dynamo23")),
    "llama-cache": (_cached, ("dynamo18",)),
    "lstm-tagger": (
        lambda: Case(
            own.Tagger(nn.LSTM), {"ids": torch.randint(0, 100, (2, 12))}, {"ids": {0: "batch", 1: "sequence"}}
        ),
        ("ts9", "dynamo18s"),
    ),
    "lstm-wide": (
        lambda: Case(
            own.Tagger(nn.LSTM, 96), {"ids": torch.randint(0, 100, (2, 12))}, {"ids": {0: "batch", 1: "sequence"}}
        ),
        ("dynamo18",),
    ),
    "mamba-like": (
        lambda: Case(own.Selective(), {"ids": torch.randint(0, 100, (2, 6))}, {"ids": {0: "batch"}}),
        ("dynamo18", "dynamo23"),
    ),
    "mistral": (
        lambda: _decoder(hf.MistralForCausalLM(_small(hf.MistralConfig, sliding_window=8, **_KV))),
        ("dynamo18",),
    ),
    "mixer": (lambda: _image(own.Mixer()), ("ts13", "dynamo18")),
    "mobilenet-v1": (lambda: _image(classifiers.mobilenet_v1()), ("ts9", "dynamo18")),
    "mobilenet-v2": (lambda: _image(classifiers.mobilenet_v2()), ("ts10", "dynamo18")),
    "mobilenet-v3": (lambda: _image(classifiers.mobilenet_v3()), ("ts14", "dynamo18")),
    "moe": (lambda: Case(own.Experts(), {"x": torch.randn(3, 16)}, {"x": {0: "batch"}}), ("ts12", "dynamo18")),
    "moe-gpt-oss": (lambda: _sparse(hf.GptOssForCausalLM, hf.GptOssConfig, head_dim=8), ("dynamo18",)),
    "moe-lookup": (lambda: _routed("lookup"), ("ts14", "dynamo18")),
    "moe-mixtral": (lambda: _sparse(hf.MixtralForCausalLM, hf.MixtralConfig, sliding_window=None), ("dynamo18",)),
    "moe-onehot": (lambda: _routed("onehot"), ("ts14", "dynamo18")),
    "moe-qwen": (
        lambda: _sparse(
            hf.Qwen2MoeForCausalLM, hf.Qwen2MoeConfig, moe_intermediate_size=24, shared_expert_intermediate_size=40
        ),
        ("dynamo18",),
    ),
    "moe-scatter": (lambda: _routed("scatter"), ("ts14", "dynamo18")),
    "opt": (
        lambda: _decoder(
            hf.OPTForCausalLM(_small(hf.OPTConfig, ffn_dim=128, word_embed_proj_dim=64)),
        ),
        ("dynamo18",),
    ),
    "phi": (lambda: _decoder(hf.PhiForCausalLM(_small(hf.PhiConfig))), ("dynamo18",)),
    "pointnet": (lambda: Case(own.PointNet(), {"x": torch.randn(2, 3, 40)}, {"x": {0: "batch"}}), ("ts11", "dynamo18")),
    "qwen2": (lambda: _decoder(hf.Qwen2ForCausalLM(_small(hf.Qwen2Config, **_KV))), ("dynamo18",)),
    "recommender": (
        lambda: Case(
            own.Recommender(), {"dense": torch.randn(3, 13), "sparse": torch.randint(0, 50, (3, 4))},
            {"dense": {0: "batch"}, "sparse": {0: "batch"}},
        ),
        ("ts11", "dynamo18"),
    ),
    "regnet": (lambda: _image(classifiers.regnet()), ("ts11", "dynamo18")),
    "resnext": (lambda: _image(classifiers.resnext()), ("ts9", "dynamo18")),
    "segformer": (
        lambda: _vision(
            hf.SegformerForSemanticSegmentation(
                hf.SegformerConfig(
                    depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 48, 64], num_attention_heads=[1, 2, 2, 4],
                    decoder_hidden_size=32, num_labels=8,
                )
            ), 64,
        ),
        ("ts14", "dynamo18"),
    ),
    "shufflenet-v1": (lambda: _image(classifiers.shufflenet_v1()), ("ts9", "dynamo18")),
    "shufflenet-v2": (lambda: _image(classifiers.shufflenet_v2()), ("ts11", "dynamo18")),
    "squeezenet": (lambda: _image(classifiers.squeezenet()), ("ts9", "dynamo18")),
    "super-resolution": (lambda: _image(own.super_resolution(), 16, free="all"), ("ts11", "dynamo18")),
    "swin": (
        lambda: _vision(
            hf.SwinForImageClassification(
                hf.SwinConfig(image_size=64, patch_size=4, embed_dim=32, depths=[2, 2], num_heads=[2, 4], window_size=4)
            ), 64,
        ),
        ("ts14",),
    ),
    "t5-decoder": (lambda: _t5(True), ("ts14",)),
    "t5-encoder": (lambda: _t5(False), ("ts14",)),
    "unet": (lambda: _image(own.UNet()), ("ts10", "dynamo18")),
    "vgg": (lambda: _image(classifiers.vgg()), ("ts9", "dynamo18s")),
    "vit": (
        lambda: _vision(hf.ViTForImageClassification(_small(hf.ViTConfig, image_size=32, patch_size=8)), 32),
        ("ts16", "dynamo23"),
    ),
    "wav2vec2": (lambda: _audio("wav2vec2"), ("ts14", "dynamo18")),
    "wavenet": (
        lambda: Case(own.WaveNet(), {"x": torch.randn(2, 1, 50)}, {"x": {0: "batch", 2: "length"}}),
        ("ts11", "dynamo18"),
    ),
    "whisper-encoder": (lambda: _audio("whisper"), ("ts14", "dynamo18")),
    "yolo": (lambda: _image(own.Yolo(), 64), ("ts12", "ts17s", "dynamo18")),
}  # fmt: skip


def main(names: list[str]) -> None:
    """Export everything, or what is named."""
    EXPORTS.mkdir(exist_ok=True)
    for name, (make, variants) in {**FULL_SIZE, **ZOO}.items():
        for variant in variants if not names or name in names else ():
            torch.manual_seed(0)
            exporter, opset = variant.rstrip("s").rstrip("0123456789"), int("".join(c for c in variant if c.isdigit()))
            try:
                case = make()
                proto = _export(case, exporter, opset, static=variant.endswith("s"))
            except Exception as error:
                print(f"{name}-{variant}: the exporter fails: {type(error).__name__} {str(error)[:300]}", flush=True)
                continue
            label = f"{name}-{exporter}" if name in FULL_SIZE else f"{name}-{variant}"
            strip(proto, 4096 if name in FULL_SIZE else 128)
            for node in proto.graph.node:  # stack traces of the exporting machine
                del node.metadata_props[:]
                node.doc_string = ""
            packed = lzma.compress(proto.SerializeToString(deterministic=True), preset=9)
            (EXPORTS / f"{label}.onnx.xz").write_bytes(packed)
            print(f"{label}: {len(proto.graph.node)} nodes, {len(packed) >> 10} KiB", flush=True)


def _randomise(module: nn.Module) -> None:
    """Statistics of batch normalisation, and gains that a fresh module leaves at one, so that none is trivial."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            nn.init.normal_(part.running_mean, 0, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
        if hasattr(part, "eps") and isinstance(getattr(part, "weight", None), nn.Parameter):
            nn.init.uniform_(part.weight, 0.5, 1.5)


def _export(case: Case, exporter: str, opset: int, static: bool) -> onnx.ModelProto:
    module, feeds = case.module.eval(), case.feeds
    _randomise(module)
    inputs = tuple(feeds.values())
    if exporter == "dynamo":
        dims = {word: torch.export.Dim(word) for axes in case.free.values() for word in axes.values()}
        names = list(inspect.signature(module.forward).parameters)
        shapes = {p: {a: dims[w] for a, w in case.free.get(n, {}).items()} for p, n in zip(names, feeds, strict=True)}
        if names == ["input"] or isinstance(module, nn.Sequential):
            shapes = {"input": shapes[names[0]]}
        program = torch.onnx.export(
            module, inputs, input_names=list(feeds), dynamic_shapes=None if static else shapes, dynamo=True,
            opset_version=opset, verbose=False,
        )  # fmt: skip
        return program.model_proto
    buffer = io.BytesIO()
    with torch.no_grad():
        torch.onnx.export(
            module, inputs, buffer, input_names=list(feeds), dynamic_axes=None if static else case.free, dynamo=False,
            opset_version=opset,
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


if __name__ == "__main__":
    main(sys.argv[1:])
