"""Files of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from graphprune.errors import InputError
from graphprune.model import load, paths
from graphprune.relation import Values
from graphprune.run import samples
from tests.run.reading.helpers import INT64, net

pytest.importorskip("tokenizers")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "three", "four"]
LINES = ["one two", "", "three one two four", "two"]


def tokenizer(folder: Path, **changes: Any) -> Path:
    """A tokenizer of a few words, as a file."""
    data: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "decoder": None,
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "model": {"type": "WordLevel", "vocab": {word: k for k, word in enumerate(WORDS)}, "unk_token": "[UNK]"},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(data | changes))
    return folder / "tokenizer.json"


def read(place: Path, model: ModelProto, **settings: Any) -> tuple[list[dict[str, Values]], str]:
    settled = samples.settled({"from": place, **settings}, load(model))
    assert samples.settled(settled.source, load(model)).source == settled.source
    return list(samples.load(settled.source, load(model))), settled.told


def encoder(length: int | str = "t", *others: str, batch: int | str = "n") -> ModelProto:
    return net(dict.fromkeys(("input_ids", *others), (INT64, (batch, length))))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    tokenizer(tmp_path)
    (tmp_path / "a.txt").write_text("\n".join(LINES))
    return tmp_path


def test_a_line_is_a_sample_and_a_batch_is_as_long_as_its_longest(texts: Path) -> None:
    (found,), told = read(texts, encoder("t", "attention_mask", "token_type_ids", "position_ids"))
    assert told == "texts: at most 512 tokens by tokenizer.json"
    assert found["input_ids"].tolist() == [[2, 4, 5, 3, 0, 0], [2, 6, 4, 5, 7, 3], [2, 5, 3, 0, 0, 0]]
    assert found["attention_mask"].sum(1).tolist() == [4, 6, 3] and not found["token_type_ids"].any()
    assert found["position_ids"][0].tolist() == [0, 1, 2, 3, 3, 3]


def test_lengths(texts: Path) -> None:
    assert [f["input_ids"].shape for f in read(texts, encoder("t"))[0]] == [(1, 4), (1, 6), (1, 3)]  # no mask, no pads
    assert read(texts, encoder("t", "attention_mask"), length="5")[0][0]["input_ids"][1].tolist() == [2, 6, 4, 5, 3]
    assert [f["input_ids"].shape for f in read(texts, encoder(5, batch=2))[0]] == [(2, 5)]
    with pytest.raises(InputError, match="length=9: input 'input_ids' takes 5 tokens"):
        read(texts, encoder(5), length=9)
    (texts / "tokenizer_config.json").write_text('{"model_max_length": 4}')
    assert read(texts, encoder("t", "attention_mask"))[0][0]["input_ids"].shape == (3, 4)


def test_the_tokenizer_says_how_it_fills(texts: Path) -> None:
    padding = {
        "strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 1, "pad_type_id": 0,
        "pad_token": "[UNK]",
    }  # fmt: skip
    tokenizer(texts, padding=padding)
    (found,), _ = read(texts, encoder("t", "attention_mask", "position_ids"))
    assert found["input_ids"][0].tolist() == [1, 1, 2, 4, 5, 3]
    assert found["position_ids"][0].tolist() == [0, 0, 0, 1, 2, 3]


def test_caches_have_not_begun(texts: Path) -> None:
    model = net({
        "input_ids": (INT64, ("batch", "sequence")), "attention_mask": (INT64, ("batch", "total")),
        "past_key_values.0.key": (1, ("batch", 2, "past", 8)), "past_key_values.0.value": (1, ("batch", 2, "past", 8)),
        "use_cache_branch": (9, (1,)),
    })  # fmt: skip
    (found,), _ = read(texts, model)
    assert found["past_key_values.0.key"].shape == found["past_key_values.0.value"].shape == (3, 2, 0, 8)
    assert found["attention_mask"].shape == (3, 6) and found["use_cache_branch"].tolist() == [False]


def test_jsonl_and_the_tokenizer_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    tokenizer(tmp_path)
    onnx.save(encoder("t", "attention_mask"), tmp_path / "onnx" / "m.onnx")
    file = tmp_path / "onnx" / "a.jsonl"
    file.write_text('{"text": "one", "other": "two three"}\n\n{"text": "four", "other": "one"}\n')
    model = load(tmp_path / "onnx" / "m.onnx")
    (found,) = samples.load({"from": file}, model)
    assert found["input_ids"].tolist() == [[2, 4, 3], [2, 7, 3]]
    (found,) = samples.load({"from": file, "field": "other"}, model)
    assert found["input_ids"].tolist() == [[2, 5, 6, 3], [2, 4, 3, 0]]
    settled = samples.settled(file, model)
    assert settled.data["tokenizer"] == "tokenizer.json"  # plans lead to no place of a machine


def test_what_is_wrong_is_said(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than one may take ids"):
        read(texts, encoder("t", "decoder_input_ids"))
    with pytest.raises(InputError, match="none takes ids"):
        read(texts, net({"x": (1, ("n", 3, 8, 8))}))
    (tmp_path / "b.jsonl").write_text('{"text": 3}\n')
    with pytest.raises(InputError, match=r"b\.jsonl:1: holds no text called 'text' but text"):
        read(tmp_path / "b.jsonl", encoder())
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{')
    with pytest.raises(InputError, match=r"b\.jsonl:2: not JSON"):
        read(tmp_path / "b.jsonl", encoder())
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match=r"c\.txt: cannot be read as text"):
        read(tmp_path / "c.txt", encoder())
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"--tokenizer .*tokenizer\.json: not a tokenizer"):
        read(texts, encoder())
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="give one by --tokenizer"):
        read(texts, encoder())


def test_fixed_batches_are_whole(texts: Path) -> None:
    found, told = read(texts, encoder("t", "attention_mask", batch=2))
    assert [np.shape(f["input_ids"]) for f in found] == [(2, 6)]
    assert told == "texts: at most 512 tokens by tokenizer.json; 1 of 3 left out, since 2 make a batch"
    with pytest.raises(InputError, match="holds 3 texts, fewer than the batch of 4 that"):
        read(texts, encoder("t", batch=4))


def test_a_tokenizer_is_not_written_over(texts: Path) -> None:
    (texts / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    for name, what in (("tokenizer.json", "the tokenizer"), ("tokenizer_config.json", "a file of settings")):
        with paths.run():
            paths.writes("the JSON", texts / name)
            with pytest.raises(InputError, match=f"{name}: is {what} itself, which writing the JSON would overwrite"):
                read(texts, encoder())
