"""Tasks in a folder: computed once, whoever computes them, and again where they are damaged."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import pytest
from onnx import ModelProto
from threadpoolctl import threadpool_info

from graphprune.errors import InputError, UserCodeError
from graphprune.passes.study.tasks import Found, Place, Shard, Task, missing, run_all
from graphprune.run import runtime

TASKS: Sequence[Task] = [{"square": k} for k in range(5)]


class Counted:
    """Work that knows what it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, task: Task) -> Found:
        self.asked.append(task["square"])
        return {"is": task["square"] ** 2}


def threads(task: Task) -> Found:
    options: list[Any] = []
    import onnxruntime as ort

    def seen(source: Any, given: ort.SessionOptions, providers: Any) -> None:
        options.append(given.intra_op_num_threads)

    original, ort.InferenceSession = ort.InferenceSession, seen
    try:
        with runtime.session(runtime.Model(ModelProto())):
            pass
    finally:
        ort.InferenceSession = original
    blas = (one for one in threadpool_info() if one["user_api"] == "blas")
    return {"ort": options, "blas": sorted({one["num_threads"] for one in blas})}


def in_dask(task: Task) -> Found:
    from distributed import get_worker

    return {"is": task["square"] ** 2, "worker": str(get_worker().name)}


def fails(task: Task) -> Found:
    raise UserCodeError(f"mine: raised at {task['square']}")


def test_what_is_there_is_not_computed_again(tmp_path: Path) -> None:
    place, work = Place(tmp_path / "made", "about"), Counted()
    wanted = [{"is": k**2} for k in range(5)]
    assert run_all(TASKS, work, place) == wanted and work.asked == list(range(5))
    assert run_all(TASKS, work, place) == wanted and len(work.asked) == 5
    assert run_all(TASKS, work, Place(tmp_path / "made", "other")) == wanted and len(work.asked) == 10
    assert len(list((tmp_path / "made").iterdir())) == 10
    damaged = [place.of(task) for task in TASKS[:3]]
    damaged[0].write_bytes(damaged[0].read_bytes()[:-9])
    damaged[1].write_bytes(damaged[1].read_bytes().replace(b'"is": 1', b'"is": 2'))
    damaged[2].write_text("[]")
    assert run_all(TASKS, work, place) == wanted and work.asked[10:] == [0, 1, 2]


def test_each_shard_computes_its_part(tmp_path: Path) -> None:
    place, first, second = Place(tmp_path, ""), Counted(), Counted()
    told: list[tuple[int, int]] = []
    found = run_all(TASKS, first, place, shard=Shard.read("1/2"), progress=lambda *steps: told.append(steps))
    assert found == [{"is": 0}, None, {"is": 4}, None, {"is": 16}] and told == [(k, 3) for k in range(4)]
    assert missing(TASKS, place) == [TASKS[1], TASKS[3]]
    assert None not in run_all(TASKS, second, place, shard=Shard.read("2/2")) and second.asked == [1, 3]
    for text in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(InputError, match=f"--shard {text}: .*1/2"):
            Shard.read(text)


@pytest.mark.parametrize("jobs", [None, 2])
def test_each_task_has_one_thread(jobs: int | None, tmp_path: Path) -> None:
    before = threadpool_info()
    for found in run_all(TASKS[:2], threads, Place(tmp_path, ""), jobs):
        assert found is not None and found["ort"] == [1] and set(found["blas"]) <= {1}
    assert threadpool_info() == before


def dies(task: Task) -> Found:
    os._exit(1)


def test_what_goes_wrong_in_a_worker_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserCodeError, match="mine: raised at"):
        run_all(TASKS, fails, Place(tmp_path, ""), 2)
    with pytest.raises(InputError, match=r"a worker ended before its work did, .*fewer --jobs"):
        run_all(TASKS, dies, Place(tmp_path, ""), 2)
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match=r"--folder .*taken: cannot be written"):
        run_all(TASKS, Counted(), Place(tmp_path / "taken", ""))


def test_dask_computes_them(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, protocol="inproc://"
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        found = run_all(TASKS, in_dask, Place(tmp_path, ""))
    assert found == [{"is": k**2, "worker": "0"} for k in range(5)]
