"""What a file or folder holds, by the names of its files."""

from __future__ import annotations

from pathlib import Path

from graphprune.errors import InputError
from graphprune.model import paths

INPUTS = "the inputs that are read"
"""What files of inputs are called in messages."""
ARRAYS, IMAGES, AUDIO, TEXT = "arrays", "images", "sounds", "texts"
_SUFFIXES = {
    ARRAYS: (".npy", ".npz"),
    IMAGES: (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
    AUDIO: (".aif", ".aiff", ".flac", ".mp3", ".ogg", ".opus", ".wav"),
    TEXT: (".jsonl", ".txt"),
}


def _kind(path: Path) -> str | None:
    """What a file holds; None where its name does not say it."""
    suffix = path.suffix.lower()
    return next((name for name, own in _SUFFIXES.items() if suffix in own), None)


def held(path: Path) -> tuple[str, list[Path]]:
    """What a file or folder holds, and its files by name; those of folders within it, where it has none of its own.

    Text beside other files is taken for notes on them. All that is found is declared as read.

    Raises:
        InputError: a folder holds several kinds, or none; or one of its files is to be written, too.
    """
    kind, files = _held(path)
    for file in files:
        paths.reads(INPUTS, file)
    return kind, files


def _held(path: Path) -> tuple[str, list[Path]]:
    if path.is_file():
        return _kind(path) or ARRAYS, [path]
    for files in (path.iterdir(), path.rglob("*")):
        found: dict[str, list[Path]] = {}
        for file in sorted(f for f in files if not f.name.startswith(".")):
            if (name := _kind(file)) is not None and file.is_file():
                found.setdefault(name, []).append(file)
        if len(found) > 1:
            found.pop(TEXT, None)
        if len(found) > 1:
            counts = ", ".join(f"{len(own)} {'file' if len(own) == 1 else 'files'} of {n}" for n, own in found.items())
            raise InputError(f"{path}: holds several kinds of inputs ({counts}); give a folder of one kind")
        if found:
            return next(iter(found.items()))
    known = "; ".join(f"{name}: {', '.join(own)}" for name, own in _SUFFIXES.items())
    raise InputError(f"{path}: holds no samples: files that end in what says their kind ({known})")
