"""What transformers' processors make of pictures and sounds, written down once, since importing it takes long.

``python -m tests.run.reading.as_transformers`` writes ``as_transformers.json`` anew: for each case the file that the
processor saves beside a model, and of each result its shape and some of its numbers (transformers 5.24, Pillow 13).
"""

from __future__ import annotations

import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.relation import Values
from tests.run.reading.helpers import picture, tone

PLACE = Path(__file__).with_suffix(".json")
SIZES = ((97, 150), (200, 60), (40, 40))
"""Height and width of the pictures."""
PROCESSORS: list[tuple[str, str, dict[str, Any]]] = [
    ("vit", "ViT", {"size": {"height": 48, "width": 64}}),
    ("convnext", "ConvNext", {"size": {"shortest_edge": 56}}),
    ("convnext", "ConvNext", {"size": {"shortest_edge": 384}}),
    ("clip", "CLIP", {"size": {"shortest_edge": 40}, "crop_size": {"height": 48, "width": 44}}),
    ("levit", "Levit", {}),
    ("mobilevit", "MobileViT", {}),
    ("efficientnet", "EfficientNet", {"rescale_offset": True, "rescale_factor": 1 / 127.5}),
    ("detr", "Detr", {"size": {"shortest_edge": 80, "longest_edge": 133}}),
    ("sam", "Sam", {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}),
]
EXTRACTORS: list[tuple[str, dict[str, Any]]] = [
    ("Wav2Vec2", {}),
    ("Whisper", {"chunk_length": 2}),
    ("Whisper", {"chunk_length": 1, "feature_size": 128}),
    ("AST", {"max_length": 40}),
    ("AST", {"max_length": 16, "num_mel_bins": 64}),
]


def some(value: Values) -> list[float]:
    """Some numbers of an array, from all over it."""
    flat = np.asarray(value, np.float64).reshape(-1)
    found: list[float] = flat[np.linspace(0, flat.size - 1, 61).astype(int)].round(7).tolist()
    return found


def cases(kind: str) -> list[dict[str, Any]]:
    """The cases that were written down, of ``images`` or ``sounds``."""
    found: list[dict[str, Any]] = json.loads(PLACE.read_text())[kind]
    return found


def _case(name: str, processor: Any, folder: Path, results: list[Values]) -> dict[str, Any]:
    processor.save_pretrained(folder)
    config = json.loads((folder / "preprocessor_config.json").read_text())
    return {"name": name, "config": config, "made": [{"shape": r.shape, "some": some(r)} for r in results]}


def _image(module: str, name: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    home = importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    processor = getattr(home, f"{name}ImageProcessorPil")(**options)
    pillow, made = importlib.import_module("PIL.Image"), []
    for size in SIZES:
        picture(folder / "a.png", *size)
        with pillow.open(folder / "a.png") as opened:
            made.append(np.asarray(processor(opened, return_tensors="np")["pixel_values"]))
    return _case(name, processor, folder, made)


def _sound(name: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    extractor = getattr(importlib.import_module("transformers"), f"{name}FeatureExtractor")(**options)
    (made,) = extractor(tone(folder / "a.flac", 0.5), sampling_rate=16000, return_tensors="np").values()
    return _case(name, extractor, folder, [np.asarray(made)])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        said = {
            "images": [_image(*one, Path(made)) for one in PROCESSORS],
            "sounds": [_sound(*one, Path(made)) for one in EXTRACTORS],
        }
    lines = {kind: ",\n".join(json.dumps(one) for one in own) for kind, own in said.items()}
    PLACE.write_text("{" + ",\n".join(f'"{kind}": [\n{own}\n]' for kind, own in lines.items()) + "}\n")
