"""Arrays under any name."""

from pathlib import Path

import numpy as np

from graphprune.run.arrays import read, write


def test_any_name_comes_back(tmp_path: Path) -> None:
    arrays = {
        "file": np.arange(3),
        "a/b:0": np.eye(2, dtype=np.float16),
        "n": np.float32(2),
        "s": np.array(["x"], object),
    }
    write(tmp_path / "a.npz", arrays)
    found = read(tmp_path / "a.npz")
    assert list(found) == list(arrays)
    assert all(np.array_equal(found[k], v) and found[k].dtype == np.asarray(v).dtype for k, v in arrays.items())
