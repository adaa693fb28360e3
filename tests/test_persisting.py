"""A few large partitions: each read once, kept on workers, its candidates in slices over all."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import distributed.comm.tcp as tcp
import numpy as np
import pytest
import xarray as xr
from conftest import Spec, equal_stores
from distributed import Client

from hpc_sweep.choices import DONE
from hpc_sweep.cli.plan import plan_facts, plan_text
from hpc_sweep.clusters import make_cluster, settings
from hpc_sweep.plan import Unit
from hpc_sweep.prepare import Prepared, create, prepare
from hpc_sweep.spec import load_spec
from hpc_sweep.store import read_events, run_folder
from hpc_sweep.store.parts import read_part
from hpc_sweep.sweep import execute
from hpc_sweep.work import Context, PersistingTasks

SITES, SAMPLES, CHUNK = 3, 60_000, 20_000


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of three sites, 2.9 MB each in chunks of its own; read only."""
    rng = np.random.default_rng(5)
    shape = SITES, SAMPLES
    made = xr.Dataset({f"f{i}": (("site", "time"), rng.normal(size=shape)) for i in range(5)})
    made["y"] = made["f0"] - made["f1"] ** 2 + rng.normal(0, 0.1, shape)
    made["f3"][0, ::7] = np.nan
    path = tmp_path_factory.mktemp("few") / "few.zarr"
    made.chunk(site=1, time=CHUNK).to_zarr(path, consolidated=False)
    return path


@pytest.fixture
def spec(few: Path, tmp_path: Path) -> Spec:
    return {
        "data": {
            "store": str(few),
            "features": [f"f{i}" for i in range(5)],
            "target": "y",
            "partition_by": ["site"],
        },
        "models": [
            {
                "estimator": "sklearn.linear_model.Lasso",
                "param_grid": {"alpha": [0.001, 0.01, 0.1, 0.2, 0.5, 1.0]},
            }
        ],
        "search": {"cv": 2},
        "cluster": {"kind": "local", "workers": 2, "memory": "1GB", "performance_report": False},
        "output": {"store": str(tmp_path / "results.zarr")},
    }


@pytest.fixture
def opened(few: Path, tmp_path: Path) -> tuple[Path, Callable[[], list[str]]]:
    """Return a module that has processes note which chunks they open, and a function: which."""
    log, module = tmp_path / "opened.txt", tmp_path / "note_opens.py"
    module.write_text(
        "import os, sys\n"
        f"data, log, open_ = {str(few)!r}, {str(log)!r}, os.open\n"
        "def hook(event, args):\n"
        "    if event == 'open' and isinstance(args[0], str) and args[0].startswith(data):\n"
        "        if '/c/' in args[0]:\n"
        "            fd = open_(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
        "            os.write(fd, (args[0] + '\\n').encode())\n"
        "            os.close(fd)\n"
        "if not hasattr(sys, 'counted'):  # Dask loads it twice\n"
        "    sys.counted = sys.addaudithook(hook)\n"
    )
    log.touch()
    return module, lambda: log.read_text().splitlines()


def chunks(few: Path, site: str = "*") -> list[str]:
    return [str(path) for path in few.glob(f"*/c/{site}/*") if path.is_file()]


@pytest.mark.parametrize("timeout", [None, 60])
def test_each_chunk_is_read_once(
    spec: Spec,
    few: Path,
    tmp_path: Path,
    opened: Any,
    monkeypatch: pytest.MonkeyPatch,
    timeout: float | None,
) -> None:
    module, noted = opened
    with module.open("a") as file:  # processes in which fits are guarded import it before they read
        file.write("from sklearn.linear_model import Lasso\nclass Noted(Lasso): pass\n")
    spec["models"][0]["estimator"] = "note_opens.Noted"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "note_opens", raising=False)
    spec["cluster"]["options"] = {"preload": [str(module)]}
    spec["search"]["timeout"] = timeout  # then fits are in a child, which is given what was read
    made = prepare(load_spec(spec))
    assert made.plan.is_sliced
    assert made.plan.read_factor == 1
    outcome = execute(load_spec(spec))
    assert outcome.progress is not None
    assert outcome.progress.units >= 2 * SITES
    assert sorted(noted()) == sorted(chunks(few))
    # one worker with all candidates of a partition in a unit
    whole = {**spec, "output": {"store": str(tmp_path / "whole.zarr")}}
    whole["cluster"] = {"kind": "local", "workers": 1, "memory": "420MB"}
    equal_stores(outcome.store.path, execute(load_spec(whole)).store.path)


@pytest.mark.parametrize("partition_by", [["site"], []])
def test_best_candidates_are_fitted_again_without_reading_again(
    spec: Spec, few: Path, opened: Any, partition_by: list[str]
) -> None:
    module, noted = opened
    spec["cluster"]["options"] = {"preload": [str(module)]}
    spec["data"] |= {"partition_by": partition_by, "holdout": {"mask": "late"}}
    source = xr.open_zarr(few, chunks=None, consolidated=False)
    late = xr.DataArray(np.arange(SAMPLES) >= 50_000, dims="time")
    path = Path(spec["output"]["store"]).with_name("in.zarr")
    chunked = source.assign(late=late).drop_encoding().chunk(site=1, time=CHUNK)
    chunked.to_zarr(path, consolidated=False)
    spec["data"]["store"] = str(path)
    module.write_text(module.read_text().replace(str(few), str(path)))
    made = prepare(load_spec(spec))
    assert made.plan.is_sliced
    assert made.plan.read_factor == 1
    found = execute(load_spec(spec)).store.dataset()
    assert np.isfinite(found["holdout_score"]).all()
    assert np.isfinite(found["coef"]).all()
    read = [name for name in noted() if "/late/" not in name]  # the driver looks at the mask too
    assert sorted(read) == sorted(name for name in chunks(path) if "/late/" not in name)


# one by one, on a cluster


@pytest.fixture
def cluster(spec: Spec, opened: Any, tmp_path: Path) -> Iterator[Client]:
    spec["cluster"]["options"] = {"preload": [str(opened[0])]}
    made = make_cluster(load_spec(spec).cluster, tmp_path / "run", lambda *event, **facts: None)
    with settings(), contextlib.closing(made):
        client = made.start()
        client.wait_for_workers(2)
        yield client


def tasks_of(made: Prepared) -> PersistingTasks:
    store = create(made)
    store.run.make()
    context = Context(
        str(store.path), made.spec.model_dump_json(), "", 60.0, {}, str(store.run.lease), False
    )
    return PersistingTasks(context, made.plan)


def kept_keys(client: Client) -> dict[str, tuple[str, ...]]:
    """Return what is kept on workers, and on which."""
    found = client.who_has()
    return {key: on for key, on in found.items() if on and str(key).startswith("read-")}


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 90
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_kept_until_the_last_slice_and_read_anew_after_a_death(
    spec: Spec, few: Path, opened: Any, cluster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = opened[1]
    spec["output"]["models"] = "none"  # else it is kept until the best one is fitted again
    received = 0
    from_frames = tcp.from_frames

    async def counting(frames: Any, *more: Any, **options: Any) -> Any:
        nonlocal received
        received += sum(map(len, frames))
        return await from_frames(frames, *more, **options)

    monkeypatch.setattr(tcp, "from_frames", counting)
    tasks = tasks_of(prepare(load_spec(spec)))

    def receipts(site: int, *columns: int) -> list[Any]:
        units = [Unit((site,), 0, 1, n, n + 1) for n in columns]
        futures = [tasks.evaluate(cluster, unit, guarded=False) for unit in units]
        return [each.result(timeout=60) for each in futures]

    receipts(0, 0, 1)
    assert sorted(noted()) == sorted(chunks(few, "0"))
    until(lambda: len(kept_keys(cluster)) == 1)
    ((lost, holders),) = kept_keys(cluster).items()
    for holder in holders:
        cluster.run(os._exit, 1, workers=[holder], on_error="ignore")
    until(lambda: not {*holders} & {*cluster.nthreads()})  # else a slice may die there, too
    until(lambda: len(noted()) == 2 * len(chunks(few, "0")))  # nobody has asked: it was needed
    until(lambda: cluster.futures[lost].status == "finished")
    cluster._handle_lost_data(lost)  # so it is called until it has been read anew
    last = receipts(0, 2, 3)
    assert {each.part.unit.first for each in last} == {2, 3}
    assert sorted(noted()) == sorted(2 * chunks(few, "0"))
    receipts(1, 0)
    until(lambda: len(kept_keys(cluster)) == 1)
    (key,) = kept_keys(cluster)
    assert key.startswith("read-1_")
    assert received < SAMPLES * 6 * 8 / 5
    store = prepare(load_spec(spec)).store
    assert store is not None
    assert read_part(store.run.parts, last[0].part).n_samples[0] == SAMPLES - -(-SAMPLES // 7)


# plan


def facts_of(spec: Spec, **cluster: Any) -> tuple[dict[str, Any], str]:
    made = prepare(load_spec({**spec, "cluster": {**spec["cluster"], **cluster}}))
    facts = plan_facts(made)
    return facts, plan_text(made, facts)


def test_what_has_no_room_is_read_by_each_slice(spec: Spec) -> None:
    kept, text = facts_of(spec)
    assert kept["kept_partitions"] == 1
    assert "stays on workers until the last slice" in text
    needed = kept["projected_memory_bytes"]
    slices_and_refit = kept["units"] / SITES + 1
    for memory, factor in ((needed, 1), (needed - 1, slices_and_refit)):
        facts, text = facts_of(spec, memory=f"{memory}B")
        assert facts["read_factor"] == factor > 0
        assert facts["projected_memory_bytes"] <= memory
        assert ("a worker has no memory for it" in text) == (factor > 1)
    assert "kept:" not in facts_of(spec, workers=1, memory="1GB")[1] or kept["units"] > SITES


def test_partitions_in_one_chunk_are_read_together(spec: Spec, few: Path, tmp_path: Path) -> None:
    path = tmp_path / "together.zarr"
    source = xr.open_zarr(few, chunks=None, consolidated=False).drop_encoding()
    source.chunk(site=3, time=CHUNK).to_zarr(path, consolidated=False)
    spec["data"]["store"] = str(path)
    facts, _ = facts_of(spec)
    assert facts["kept_partitions"] == SITES
    assert facts["read_factor"] == 1


def test_what_shares_its_work_is_in_one_slice(spec: Spec) -> None:
    spec["models"].append(
        {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [0.1, 1.0, 10.0]}}
    )
    boosting = {"n_estimators": [5, 10], "max_depth": [1, 2]}
    spec["models"].append(
        {"estimator": "sklearn.ensemble.GradientBoostingRegressor", "param_grid": boosting}
    )
    scaled = ["sklearn.preprocessing.StandardScaler", "sklearn.svm.SVR"]
    spec["models"].append({"pipeline": scaled, "param_grid": {"svr__C": [1, 10]}})
    forest = {"n_estimators": [5, 10], "random_state": [0, 1]}  # groups lie among each other
    spec["models"].append(
        {"estimator": "sklearn.ensemble.RandomForestRegressor", "param_grid": forest}
    )
    made = prepare(load_spec({**spec, "cluster": {**spec["cluster"], "workers": 50}}))
    assert made.plan.workload.borders == (*range(1, 7), 9, 11, 13, *range(14, 20))
    units = list(made.plan.units((0,)))
    assert {unit.last for unit in units} <= {*made.plan.workload.borders}
    assert {(6, 9), (9, 11), (11, 13)} <= {(unit.first, unit.last) for unit in units}
    of_all = Unit((0,), 0, 1, 0, 19)
    assert made.plan.halves(of_all) == (Unit((0,), 0, 1, 0, 9), Unit((0,), 0, 1, 9, 19))
    assert made.plan.halves(Unit((0,), 0, 1, 5, 9)) == (
        Unit((0,), 0, 1, 5, 6),
        Unit((0,), 0, 1, 6, 9),
    )
    shares_its_work, scores = Unit((0,), 0, 1, 9, 11), Unit((0,), 0, 1, 0, 0)
    for whole in (shares_its_work, scores):
        assert made.plan.halves(whole) == (whole,)


def test_a_candidate_that_kills_its_worker_costs_few_others_their_time(
    spec: Spec, few: Path, tmp_path: Path, faulty_on_workers: None
) -> None:
    """Its slice is cut in two at each death, and what is left of it is guarded."""
    small = xr.open_zarr(few, chunks=None, consolidated=False).isel(time=slice(0, 900))
    small["f0"] = abs(small["f0"])
    small.load().drop_encoding().to_zarr(tmp_path / "small.zarr", consolidated=False)
    names = ["well"] * 24
    names[2] = "kill"
    spec["data"] |= {"store": str(tmp_path / "small.zarr"), "partition_by": []}
    spec["models"] = [
        {
            "estimator": "faulty.Faulty",
            "param_grid": [{"how": [name], "random_state": [n]} for n, name in enumerate(names)],
        }
    ]
    store = execute(load_spec(spec)).store
    status = store.dataset()["status"].values
    assert [*np.flatnonzero(status != DONE)] == [2]
    assert "exit code 7), 2 times" in str(store.dataset()["message"].values[2])
    events = list(read_events(run_folder(spec["output"]["store"]).events))
    lost = [event for event in events if event["event"] == "unit_lost"]
    assert [event["deaths"] for event in lost] == [1, 2]
    assert [event["unit"] for event in lost] == ["_0-1_0-3", "_0-1_1-3"]
    started = Counter(event["unit"] for event in events if event["event"] == "unit_started")
    assert all(started[event["unit"]] == 1 for event in lost)
