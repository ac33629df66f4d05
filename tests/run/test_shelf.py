"""Arrays of many runs: what memory has no room for comes back from disk as it was."""

from pathlib import Path

import numpy as np

from graphprune.run.shelf import Shelf


def test_what_memory_has_no_room_for_lies_on_disk_until_it_is_dropped(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((40, 50)) for name in ("file", "a/b:0")}
    small = {"n": np.float32(2), "s": np.array(["x"] * 20, object), "none": np.zeros((0, 3))}
    shelf = Shelf(tmp_path, memory=20_000)
    shelf.put(3, {**arrays, **small})
    assert len(list(tmp_path.iterdir())) == 1, "one of two fits"
    for name, value in shelf.get(3).items():
        expected = {**arrays, **small}[name]
        assert np.array_equal(value, expected) and value.dtype == np.asarray(expected).dtype
    shelf.put(3, {"a/b:0": arrays["file"]})
    assert np.array_equal(shelf.get(3, ["a/b:0"])["a/b:0"], arrays["file"])
    shelf.drop(3, ["file", "a/b:0", "not there"])
    assert not list(tmp_path.iterdir()) and sorted(shelf.get(3)) == ["n", "none", "s"]
    shelf.put(0, arrays)
    assert len(list(tmp_path.iterdir())) == 1, "what was dropped left its room"
