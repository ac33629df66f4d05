"""Texts as the input of a model: a sample a line, made ids of by a ``tokenizer.json``.

Files are ``.txt`` with a sample a line, or ``.jsonl`` with one in the ``field`` of each line. Settings, each said by
the user, else by the tokenizer, else what stands first:

- ``tokenizer``: the file; by default the ``tokenizer.json`` beside the texts or the model;
- ``length``: at most so many tokens; by default the model's own, that of the tokenizer, or 512. A model whose length is
  fixed gets all samples of that length, others as long as the longest of a batch;
- ``field``: ``text``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ValueInfoProto

from graphprune.errors import BackendError, InputError
from graphprune.model import Model, paths
from graphprune.relation import Shape, Values
from graphprune.run.reading import asked, batches, configs, filling, kinds
from graphprune.run.reading.asked import Settings

KEYS = ("tokenizer", "length", "field")
_MASKS = ("attention_mask", "input_mask", "mask")
_TYPES = ("token_type_ids", "segment_ids", "token_types", "type_ids")
_POSITIONS = ("position_ids", "cache_position")
_PADS = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""Tokens that a text is filled with where its tokenizer says none, the likeliest first."""
_MOST = 512
_LONGEST = 1 << 24
"""Characters of the longest line that is read."""


@dataclass(frozen=True)
class Text:
    """What is done with a text; see the module."""

    tokenizer: Path
    length: int
    field: str

    def told(self) -> str:
        """In words: ``at most 128 tokens by tokenizer.json``."""
        return f"at most {self.length} tokens by {self.tokenizer.name}"

    def plain(self) -> dict[str, Any]:
        """As settings, all of them said."""
        return {"tokenizer": str(self.tokenizer), "length": self.length, "field": self.field}


def settle(given: Settings, model: Model, place: Path, input_shapes: Mapping[str, Shape]) -> Text:
    """What is done with texts.

    Raises:
        InputError: there is no tokenizer, or the model takes no ids.
        BackendError: tokenizers is not installed.
    """
    path = _tokenizer(given, model, place)
    value = _main(model, place)
    sizes = filling.dims(value)
    given_shape = input_shapes.get(value.name, ())
    fixed = sizes[-1] or (given_shape[-1] if len(given_shape) == len(sizes) else 0)
    length = asked.whole("--preprocess length", given["length"]) if "length" in given else 0
    if fixed and length > fixed:
        raise InputError(f"--preprocess length={length}: input {value.name!r} takes {fixed} tokens")
    if not {*KEYS} <= given.keys():  # seen once, a tokenizer need not be opened to be settled again
        said = (_opened(path).truncation or {}).get("max_length") or _declared(path) or _MOST
        length = length or fixed or said
    return Text(path, length, str(given.get("field", "text")))


def _tokenizer(given: Settings, model: Model, place: Path) -> Path:
    if "tokenizer" in given:
        path = Path(str(given["tokenizer"]))
        return path / "tokenizer.json" if path.is_dir() else path
    folders = [place if place.is_dir() else place.parent, *configs.beside(model)]
    for folder in folders:
        if (folder / "tokenizer.json").is_file():
            return folder / "tokenizer.json"
    raise InputError(
        f"{place}: holds texts, and ids are made of them by a tokenizer: give one by --tokenizer tokenizer.json"
    )


def _declared(tokenizer: Path) -> int:
    """The length that a model of transformers takes at most; 0 where nothing near the tokenizer says it."""
    path = tokenizer.parent / "tokenizer_config.json"
    if not path.is_file():
        return 0
    paths.reads(configs.SETTINGS, path)
    with suppress(InputError):
        most = configs.read(path).data.get("model_max_length")
        if isinstance(most, int) and 0 < most < 1 << 20:  # what is larger stands for none
            return most
    return 0


def _opened(path: Path) -> Any:
    try:
        tokenizers = importlib.import_module("tokenizers")
    except ImportError as error:
        raise BackendError(
            "tokenizers is not installed, and makes ids of texts: pip install 'graphprune[text]', or give arrays"
        ) from error
    if not path.is_file():
        raise InputError(f"--tokenizer {path}: no such file")
    paths.reads("the tokenizer", path)
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # it raises nothing more special
        raise InputError(f"--tokenizer {path}: not a tokenizer ({' '.join(str(error).split())[:200]})") from error


def _main(model: Model, place: Path) -> ValueInfoProto:
    """The input that ids go into."""
    known = (*_MASKS, *_TYPES, *_POSITIONS)
    found = [
        v
        for v in model.inputs
        if filling.dtype(v).kind in "iu" and len(filling.dims(v)) in (1, 2) and filling.ending(v.name) not in known
    ]
    if len(found) != 1:
        names = ", ".join(v.name for v in model.inputs)
        raise InputError(
            f"{place}: holds texts, and {model.name} wants {names}, of which "
            f"{'none takes' if not found else 'more than one may take'} ids of tokens: give inputs by module:function"
        )
    return found[0]


def read(files: Sequence[Path], text: Text, model: Model, place: Path, batch: int) -> Iterator[dict[str, Values]]:
    """Every text, so many at a time, or as many as the model fixes; one where nothing tells it what is padding.

    Raises:
        InputError: a file is none, or a line of it.
    """
    value = _main(model, place)
    sizes = filling.dims(value)
    fixed = sizes[-1]
    masked = any(filling.ending(v.name) in _MASKS for v in model.inputs)
    count = 1 if len(sizes) == 1 else sizes[0] or (batch if masked or fixed else 1)
    tokenizer = _opened(text.tokenizer)
    pad, left = _padding(tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(min(text.length, fixed or text.length))
    lines = chain.from_iterable(_lines(path, text.field) for path in files)
    while chunk := list(islice(lines, count)):
        if len(chunk) < count and sizes[0] and len(sizes) > 1:
            return  # what the model takes in batches of a fixed size it cannot take less of
        encoded = tokenizer.encode_batch(chunk)
        long = fixed or max(1, *(len(one.ids) for one in encoded))
        ids, types = (np.full((len(encoded), long), fill, np.int64) for fill in (pad, 0))
        mask = np.zeros((len(encoded), long), np.int64)
        for row, one in enumerate(encoded):
            here = slice(long - len(one.ids), long) if left else slice(0, len(one.ids))
            ids[row, here], types[row, here], mask[row, here] = one.ids, one.type_ids, 1
        yield _fed(ids, types, mask, value, model, place)


def _fed(
    ids: Values, types: Values, mask: Values, value: ValueInfoProto, model: Model, place: Path
) -> dict[str, Values]:
    roles: dict[str, filling.Make] = {
        **dict.fromkeys(_MASKS, lambda: mask),
        **dict.fromkeys(_TYPES, lambda: types),
        "position_ids": lambda: np.maximum(np.cumsum(mask, 1) - 1, 0),
        "cache_position": lambda: np.arange(ids.shape[1]),
    }
    return filling.filled(model, value, ids[0] if len(filling.dims(value)) == 1 else ids, roles, str(place))


def _padding(tokenizer: Any) -> tuple[int, bool]:
    """The id that a text is filled with, and whether that stands in front of it."""
    if tokenizer.padding is not None:
        return tokenizer.padding["pad_id"], tokenizer.padding["direction"] == "left"
    ids = (tokenizer.token_to_id(token) for token in _PADS)
    return next((one for one in ids if one is not None), 0), False


def left_over(files: Sequence[Path], text: Text, model: Model, place: Path) -> str:
    """How many texts are left over where the model takes a fixed number of them, in words.

    Raises:
        InputError: they do not make one batch, or a file is none.
    """
    sizes = filling.dims(_main(model, place))
    if len(sizes) == 1 or not sizes[0]:
        return ""
    count = sum(1 for path in files for _ in _lines(path, text.field))
    return batches.told(place, kinds.TEXT, count, sizes[0], model)


def _lines(path: Path, field: str) -> Iterator[str]:
    """The texts of a file; empty lines are none."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST + 1), ""), 1):
                if len(line) > _LONGEST:
                    raise InputError(f"{path}:{number}: is longer than {_LONGEST:,} characters; a text is one line")
                if line.strip():
                    yield line.strip() if path.suffix.lower() != ".jsonl" else _field(path, number, line, field)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error


def _field(path: Path, number: int, line: str, field: str) -> str:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{number}: not JSON ({error})") from error
    if not isinstance(data, dict) or not isinstance(data.get(field), str):
        there = ", ".join(data) if isinstance(data, dict) else f"a {type(data).__name__}"
        raise InputError(f"{path}:{number}: holds no text called {field!r} but {there}; --preprocess field names it")
    return str(data[field])
