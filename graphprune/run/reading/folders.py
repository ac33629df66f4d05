"""Files and folders as inputs: what is done with them is settled against the model, then they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.relation import Shape, Values
from graphprune.run import synthetic, usercode
from graphprune.run.reading import asked, audio, batches, configs, images, kinds, looks, pixels, text
from graphprune.run.reading.asked import CONFIG, FROM, Settings
from graphprune.run.reading.pictured import Pictured
from graphprune.run.runtime import RefusedError

_BY = "by"
"""The key of settled sources that tells who has said how they are read; then nothing is looked up again."""
_KEYS = {kinds.IMAGES: images.KEYS, kinds.AUDIO: audio.KEYS, kinds.TEXT: text.KEYS}


@dataclass(frozen=True)
class Settled:
    """A source of inputs of which all is said.

    Attributes:
        source: as any function takes it.
        told: what is done, in one line; empty where files are taken as they are.
        data: the same as plain data.
    """

    source: Any
    told: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def settle(source: Any, model: Model, input_shapes: Mapping[str, Shape] | None = None) -> Settled:
    """Say all of how inputs are read: by what the user says, files beside them and the model, and its metadata.

    What is settled stays so, whatever becomes of the model; sources of other kinds are given back as they are.

    Raises:
        InputError: a setting is none, or the model does not take such inputs.
        BackendError: a library that reads them is not installed.
    """
    if isinstance(source, str) and source == synthetic.NAME:
        return Settled(source)
    found, given = asked.place(source), asked.settings(source)
    path = None if found is None else Path(found)
    kind, files = (kinds.ARRAYS, []) if path is None or not path.exists() else kinds.held(path)
    if path is None or kind == kinds.ARRAYS:
        _check_none(given, source)
        return Settled(found if asked.is_asked(source) else source)
    asked.check_keys({k: v for k, v in given.items() if k != _BY}, (*_KEYS[kind], CONFIG), kind)
    plain, words, by, left = _full(kind, files, path, given, model, input_shapes or {})
    where = "; ".join([f"{words} ({by})" if by else words, *([left] if left else [])])
    names = {k: Path(str(plain[k])).name for k in asked.FILES if k in plain}  # plans lead to no place of a machine
    data = {"kind": kind, **plain, **names, FROM: path.name, "told": f"{kind}: {where}"}
    return Settled({FROM: str(path), **plain, _BY: by}, f"{kind}: {where}", data)


def _check_none(given: Settings, source: Any) -> None:
    path = asked.place(source)
    if given and (path is None or Path(path).exists() or path == synthetic.NAME or usercode.names_one(str(path))):
        raise InputError(f"--preprocess {next(iter(given))}: is about images, sounds and texts, and {path} holds none")


def _full(
    kind: str, files: list[Path], path: Path, given: Settings, model: Model, shapes: Mapping[str, Shape]
) -> tuple[dict[str, Any], str, str, str]:
    """All settings, what they are in words, who said them, and how many samples are left over."""
    own = {k: v for k, v in given.items() if k not in (CONFIG, _BY)}
    if kind == kinds.TEXT:
        texts = text.settle(own, model, path, shapes)
        return texts.plain(), texts.told(), "", text.left_over(files, texts, model, path)
    if kind == kinds.AUDIO:
        audio.library()  # what is missing is told before anything is computed
        said, who, unread = _said(audio, given, path, model)
        sound = audio.settle(own, said, model, path, shapes, f"from {who}")
        return sound.plain(), sound.told(), _by(given, who, unread), audio.left_over(files, sound, model, path)
    pixels.library()
    said, who, unread = _said(looks, given, path, model)
    form = Pictured.of(path, model, shapes, own.get("layout"))
    look = images.settle(own, said, form, f"from {who}")
    left = batches.told(path, kinds.IMAGES, len(files), form.batch, model)
    return look.plain(form), look.told(form), _by(given, who, unread), left


def _said(kind: Any, given: Settings, path: Path, model: Model) -> tuple[dict[str, Any], str, list[str]]:
    """What others say, who they are, and in words which of their files cannot be read; nothing where all is said."""
    unread: list[str] = []
    if _BY in given:
        return {}, "", unread
    for config in configs.found(given, path, model, unread):
        if said := kind.from_config(config):
            return said, config.path.name, unread
        if CONFIG in given:
            raise InputError(f"--preprocess {config.path}: says nothing that is known of such inputs")
    said = kind.from_metadata(model)
    return said, "the metadata of the model" if said else "", unread


def _by(given: Settings, who: str, unread: list[str]) -> str:
    """Who says how inputs are read, in words."""
    if _BY in given:
        return str(given[_BY])
    all_of_them = [*(["--preprocess"] if given.keys() - {CONFIG} else []), *([who] if who else [])]
    said = f"from {' and '.join(all_of_them)}" if all_of_them else "nothing says otherwise; --preprocess does"
    return "; ".join([said, *unread])


def check(settled: Settled, model: Model, input_shapes: Mapping[str, Shape] | None, most: int | None = None) -> None:
    """See before anything is computed that a model runs on images at the sizes that they have.

    Args:
        settled: the source.
        model: the model.
        input_shapes: sizes that images are brought to.
        most: images to look at, all by default.

    Raises:
        InputError: it does not; names the image.
    """
    if settled.data.get("kind") == kinds.IMAGES:
        path = Path(settled.source[FROM])
        look, form = images.settled(path, asked.settings(settled.source), model, input_shapes or {})
        with suppress(RefusedError):  # what runs on nothing fails elsewhere, and not for want of a size
            images.check_sizes(kinds.held(path)[1], look, form, model, most)


def read(
    source: Any, model: Model, batch: int, input_shapes: Mapping[str, Shape] | None
) -> Iterator[Mapping[str, Values]] | None:
    """Inputs of a file or folder of images, sounds or texts; None where it holds none of them.

    Args:
        source: a path, or one with settings.
        model: whose inputs they are to be.
        batch: samples in one run, where the model leaves their number free, and they have one length or are told from
            what fills them; images keep to one.
        input_shapes: sizes of inputs where the model leaves them free.
    """
    settled, shapes = settle(source, model, input_shapes), input_shapes or {}
    if not settled.data:
        return None
    path = Path(settled.source[FROM])
    said = {k: v for k, v in asked.settings(settled.source).items() if k != _BY}
    kind, files = kinds.held(path)
    if kind == kinds.TEXT:
        return text.read(files, text.settle(said, model, path, shapes), model, path, batch)
    if kind == kinds.AUDIO:
        return audio.read(files, audio.settle(said, {}, model, path, shapes), model, path, batch)
    return images.read(files, *images.settled(path, said, model, shapes))
