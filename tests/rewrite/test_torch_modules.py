"""A Python file cuts the training code's module: its outputs are those of the pruned model."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.helpers import command, relative

pytestmark = pytest.mark.torch


def export(module: Any, feeds: dict[str, np.ndarray], path: Path, dynamo: bool = False) -> None:
    """A module as ONNX, and its state dict beside it."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    inputs = tuple(map(torch.from_numpy, feeds.values()))
    torch.onnx.export(
        module.eval(), inputs, path, input_names=list(feeds), dynamo=dynamo, verbose=False,
        **({} if dynamo else {"do_constant_folding": False, "training": torch.onnx.TrainingMode.EVAL}),
    )  # fmt: skip
    torch.save(module.state_dict(), path.with_suffix(".pt"))


def drawn(module: Any) -> Any:
    """A module whose weights and statistics are no trifle."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if value.dtype.is_floating_point:
            one = value.ndim == 1 and name.endswith(("weight", "running_var"))
            torch.nn.init.uniform_(value, 0.5, 1.5) if one else torch.nn.init.normal_(value, std=0.3)
    return module


def written(path: Path) -> Any:
    """The file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cut(
    capsys: pytest.CaptureFixture[str], folder: Path, module: Any, feeds: dict[str, np.ndarray], *options: str | Path
) -> tuple[Any, list[Any], np.ndarray]:
    """Export, prune, and cut the module: the file, its hints, and what the pruned model gives."""
    if not (folder / "m.onnx").exists():
        export(module, feeds, folder / "m.onnx")
    done = command(capsys, "prune", folder / "m.onnx", "-o", folder / "s.onnx", "--align", "1", "--force", *options)
    assert done[0] == 0, done[2]
    given = folder / "s.plan.json", folder / "m.pt"
    code, told, said = command(capsys, "torch-modules", *given, "-o", folder / "s_modules.py", "--force")
    assert code == 0 and "import it, and call its narrow(module)" in told, said
    made = written(folder / "s_modules.py")
    (wanted,) = ort.InferenceSession(folder / "s.onnx", providers=["CPUExecutionProvider"]).run(None, feeds)
    return made, made.narrow(module, print), wanted


def given(module: Any, feeds: dict[str, np.ndarray]) -> np.ndarray:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        found = module(*map(torch.from_numpy, feeds.values()))
    return np.asarray(found.numpy())


def convolutional() -> Any:
    """Every kind of convolution and of norm, a skip, and a transposed convolution."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, width: int, middle: Any) -> None:
            super().__init__()
            self.first, self.middle = nn.Conv2d(width, 2 * width, 1, bias=False), middle
            self.norm, self.last = nn.BatchNorm2d(2 * width), nn.Conv2d(2 * width, width, 1)

        def forward(self, x: Any) -> Any:
            return x + self.last(torch.relu(self.norm(self.middle(torch.relu(self.first(x))))))

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.PReLU(16),
        Block(16, nn.Conv2d(32, 32, 3, padding=1, groups=32)),
        Block(16, nn.Conv2d(32, 32, 3, padding=1, groups=4)),
        Block(16, nn.Conv2d(32, 32, 3, padding=1)),
        nn.ConvTranspose2d(16, 24, 2, 2), nn.GroupNorm(6, 24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 5),
    )  # fmt: skip


@pytest.mark.parametrize("dynamo", [True, False])
def test_convolutions_say_their_new_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str], dynamo: bool) -> None:
    module = drawn(convolutional())
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8), np.float32)}
    export(module, feeds, tmp_path / "m.onnx", dynamo)
    made, _, wanted = cut(capsys, tmp_path, module, feeds, "--ratio", "0.5")
    assert relative(wanted, given(module, feeds)) < 1e-5
    depthwise, grouped = module[3].middle, module[4].middle
    assert depthwise.groups == depthwise.in_channels == depthwise.out_channels == 16
    assert (grouped.groups, grouped.in_channels, grouped.out_channels) == (2, 8, 8)  # half of them, and half of each
    lines = capsys.readouterr().out.splitlines()
    assert "0: out_channels 16 -> 8" in lines and "3.middle: groups 32 -> 16" in lines
    assert (module[0].out_channels, module[1].num_features, module[6].in_channels) == (8, 8, 8)
    assert module[6].out_channels == module[7].num_channels == module[11].in_features == 12
    with pytest.raises(ValueError, match="or it is cut already"):
        made.narrow(module)
    text = (tmp_path / "s_modules.py").read_text()
    assert "import s_modules" in text and "import graphprune" not in text
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--ignore", "E501"]
    assert subprocess.run([*ruff, tmp_path / "s_modules.py"], check=False).returncode == 0


TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "attn_implementation": "eager",
}


def encoder(kind: str) -> tuple[Any, dict[str, np.ndarray]]:
    """A transformer of the library from a configuration, and inputs for it."""
    hf = pytest.importorskip("transformers")
    from models.make_exports import Wrapped

    rng = np.random.default_rng(0)
    if kind == "bert":
        config = hf.BertConfig(vocab_size=50, max_position_embeddings=16, **TINY)
        feeds, output = {"input_ids": rng.integers(3, 50, (2, 9))}, "last_hidden_state"
        return Wrapped(hf.BertModel(config), ("input_ids",), output), feeds
    config = hf.ViTConfig(image_size=16, patch_size=4, num_labels=5, **TINY)
    feeds, output = {"pixel_values": rng.standard_normal((2, 3, 16, 16), np.float32)}, "logits"
    return Wrapped(hf.ViTForImageClassification(config), ("pixel_values",), output), feeds


@pytest.mark.parametrize(("kind", "option"), [("bert", "--no-compensate"), ("vit", "--allow-statistical")])
def test_a_transformer_of_another_library(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, option: str
) -> None:
    """Heads, their elements and features go; what a forward reads beside tensors is found, and set."""
    module, feeds = encoder(kind)
    drawn(module)
    _, hints, wanted = cut(capsys, tmp_path, module, feeds, "--ratio", "0.5", option)
    assert relative(wanted, given(module, feeds)) > 1e-3  # two heads of four elements taken for one of eight
    said = {hint.attribute: str(hint) for hint in hints}
    assert said["num_attention_heads"].endswith("as many as there were of a group of kind head: set 2")
    assert "config.intermediate_size is 48" in said["config.intermediate_size"]
    for hint in hints:
        if len(hint.after) == 1 and "config" not in hint.attribute:
            hint.set(module)
    assert relative(wanted, given(module, feeds)) < 1e-5


def test_what_torch_cannot_express_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Attention of torch is as wide as what it reads; recurrent layers have one width."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.norm = nn.MultiheadAttention(32, 4, batch_first=True), nn.LayerNorm(32)
            self.wide, self.narrow = nn.Linear(32, 48), nn.Linear(48, 32)

        def forward(self, x: Any) -> Any:
            x = self.norm(x + self.attention(x, x, x)[0])
            return x + self.narrow(torch.relu(self.wide(x)))

    feeds = {"x": np.random.default_rng(0).standard_normal((2, 6, 32), np.float32)}
    with pytest.raises(ValueError, match=r"attention: nn\.MultiheadAttention has heads as wide in all as its input"):
        cut(capsys, tmp_path, module := drawn(Block()), feeds, "--ratio", "0.5")
    assert module.wide.weight.shape == (48, 32)  # nothing of it was cut
    _, hints, wanted = cut(capsys, tmp_path, module, feeds, "--ratio", "0.5", "--exclude", "*attention*")
    assert module.wide.out_features == module.narrow.in_features == 24 and not hints
    assert relative(wanted, given(module, feeds)) < 1e-5


def test_recurrent_layers_and_tied_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Tagger(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.table, self.states = nn.Embedding(20, 12), nn.LSTM(12, 16, batch_first=True)
            self.back, self.head = nn.Linear(16, 12), nn.Linear(12, 20, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: Any) -> Any:
            return self.head(torch.tanh(self.back(self.states(self.table(ids))[0])))

    feeds = {"ids": np.random.default_rng(0).integers(0, 20, (2, 7))}
    module = drawn(Tagger())
    _, _, wanted = cut(capsys, tmp_path, module, feeds, "--ratio", "0.5")
    assert module.head.weight is module.table.weight and module.states.hidden_size == 8
    assert relative(wanted, given(module, feeds)) < 1e-5


def test_a_module_in_two_places_is_cut_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And a module that the file does not fit stays as it is."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Norm(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(16)), 1e-3

        def forward(self, x: Any) -> Any:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight

    class Twice(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.norm, self.last = nn.Linear(12, 16), Norm(), nn.Linear(16, 5)
            self.a = self.b = nn.Conv1d(16, 16, 1)
            self.again = self.norm

        def forward(self, x: Any) -> Any:
            x = self.norm(self.wide(x))
            return self.last(self.again(self.b(torch.relu(self.a(x.transpose(1, 2)))).transpose(1, 2)))

    module, other = drawn(Twice()), drawn(Twice())
    other.last.weight = nn.Parameter(torch.ones(5, 15))
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 6, 12), np.float32)}
    made, _, wanted = cut(capsys, tmp_path, module, feeds, "--ratio", "0.5", "--no-compensate")
    assert {"a.weight", "b.weight", "norm.weight", "again.weight"} <= made.SLICES.keys()
    assert (module.a.in_channels, module.a.out_channels) == (8, 8) and module.a is module.b
    assert relative(wanted, given(module, feeds)) < 1e-5
    with pytest.raises(ValueError, match=r"last\.weight is"):
        made.narrow(other)
    assert other.wide.out_features == 16 and other.wide.weight.shape == (16, 12)
