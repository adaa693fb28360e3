"""Whole sweeps on a local cluster: numbers, resuming, kills, partitions that fail."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pytest
import xarray as xr
from builders import invent, leave, whole
from conftest import (
    Spec,
    equal_stores,
    forked,
    hpc_sweep,
    make_data,
    pending_reads_as_missing,
    repeated_units,
    slow,
    start_run,
    wait_for_units,
)
from distributed import Client, LocalCluster
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from yearly import in_process

import hpc_sweep as package
from hpc_sweep.clusters.base import SETTINGS
from hpc_sweep.errors import LeaseError, StoreError
from hpc_sweep.keeping import verify
from hpc_sweep.plan import Unit
from hpc_sweep.spec import load_spec
from hpc_sweep.store import Holder, Ledger, Store, hold, read_events, run_folder
from hpc_sweep.sweep import execute
from hpc_sweep.work.tasks import Context

WriteSpec = Callable[[Spec], Path]


def search_results(data: xr.Dataset) -> dict[str, Any] | None:
    """Return scikit-learn's own results of the `spec` fixture for one pixel."""
    X = np.stack([data[name].values for name in ("wet", "green", "hour")], axis=1).astype(float)
    y = data["slope"].values.astype(float)
    kept = ~np.isnan(X).any(axis=1) & ~np.isnan(y)
    if not kept.any():
        return None
    both = []
    for estimator, grid in (
        (Ridge(), {"alpha": [0.1, 1, 10]}),
        (make_pipeline(StandardScaler(), SVR()), {"svr__C": [1, 10]}),
    ):
        search = GridSearchCV(estimator, grid, cv=3, scoring="r2")
        both.append(search.fit(X[kept], y[kept]).cv_results_)
    names = ["mean_test_score", "std_test_score", *(f"split{i}_test_score" for i in range(3))]
    return {name: np.concatenate([found[name] for found in both]) for name in names}


def same_scores(found: Any, expected: Any) -> None:
    """Three candidates of ridge, which a rule solves, and two of what nothing shares."""
    np.testing.assert_allclose(found[:3], expected[:3], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found[3:], expected[3:])


def test_numbers_are_those_of_scikit_learn(spec: Spec, data: Path) -> None:
    results = package.run(spec).load()
    source = xr.open_zarr(data, chunks=None, consolidated=False).load()
    assert results["best_score"].dims == ("latitude", "longitude")
    np.testing.assert_array_equal(results["latitude"], source["latitude"])
    for row in range(6):
        for column in range(8):
            place = {"latitude": row, "longitude": column}
            found, expected = results.isel(place), search_results(source.isel(place))
            if expected is None:
                assert found["partition_status"] == 3
                assert found["best_index"] == -1
                assert np.isnan(found["best_score"])
                continue
            for split in range(3):
                same_scores(found["test_score"][:, split], expected[f"split{split}_test_score"])
            same_scores(found["mean_test_score"], expected["mean_test_score"])
            same_scores(found["std_test_score"], expected["std_test_score"])
            assert found["best_index"] == expected["mean_test_score"].argmax()
            assert found["best_score"] == found["mean_test_score"].max()
            assert str(found["best_model"].values) == (
                "ridge" if expected["mean_test_score"].argmax() < 3 else "scaled-svr"
            )
    assert int((results["partition_status"] == 3).sum()) == 2


def test_second_run_finds_it_complete(spec: Spec) -> None:
    first = execute(load_spec(spec))
    events = first.store.run.events.read_text()
    again = execute(load_spec(spec))
    assert again.progress is None
    assert again.counts == {**first.counts}
    assert first.store.run.events.read_text() == events
    run, kept = first.store.run, {"parts", "logs", "keys", "events.jsonl"}
    assert {path.name for path in run.path.iterdir()} == kept
    assert not list(run.parts.iterdir())
    with hold(run.lease):  # another driver's, which is about to end
        assert execute(load_spec(spec)).counts == first.counts
        assert run.lease.exists()
    dead = replace(Holder.this_process(), nonce="0", ticks=1)  # killed as it was about to end
    run.lease.write_text(json.dumps(asdict(dead)))
    assert execute(load_spec(spec)).counts == first.counts
    assert {path.name for path in run.path.iterdir()} == kept


def test_parts_that_came_late_do_not_stay(spec: Spec) -> None:
    """A worker of a driver that was killed ends its unit after the next run has looked."""

    def leave_one(prepared: Any, ledger: Ledger) -> None:
        leave(ledger.store, invent(ledger.store), whole(ledger.store, (0, 0)))

    done = execute(load_spec(spec), on_start=leave_one)
    assert not list(done.store.run.parts.iterdir())


@pytest.mark.parametrize("kind", ["part", "unfinished"])
def test_what_came_after_the_end_goes_with_the_same_command(spec: Spec, kind: str) -> None:
    """A worker of a driver that lost the store writes after the other one has ended."""
    store = execute(load_spec(spec)).store
    if kind == "part":
        leave(store, invent(store), whole(store, (0, 0)))
    else:
        (store.path / "status" / ".c.0.0.0.tmp").touch()
    assert len(verify(store.path).findings) == 1
    events = store.run.events.read_text()
    assert execute(load_spec(spec)).progress is None
    assert verify(store.path).findings == []
    assert store.run.events.read_text() == events
    assert not store.run.lease.exists()


def test_granularity_and_workers_do_not_change_scores(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(load_spec(spec))
    monkeypatch.setattr("hpc_sweep.sweep.execution.UNIT_SECONDS", 0.0)  # one partition a part
    other = {**spec, "output": {"store": str(tmp_path / "other.zarr")}}
    other["cluster"] = {"kind": "local", "workers": 1, "memory": "1GB", "performance_report": False}
    outcome = execute(load_spec(other))
    assert outcome.progress is not None
    assert outcome.progress.units == 48
    equal_stores(tmp_path / "results.zarr", tmp_path / "other.zarr")


def test_each_source_chunk_is_read_once(spec: Spec, tmp_path: Path, data: Path) -> None:
    """Count the opens of the input's chunk files with a copy on which reads leave a trace."""
    log = tmp_path / "opened.txt"
    loader = tmp_path / "count_opens.py"
    loader.write_text(
        "import sys\n"
        f"data, log = {str(data)!r}, {str(log)!r}\n"
        "def hook(event, args):\n"
        "    if event == 'open' and isinstance(args[0], str) and args[0].startswith(data):\n"
        "        if '/c/' in args[0]:\n"
        "            open_ = __import__('os').open\n"
        "            fd = open_(log, 0o2001 | 0o100)\n"
        "            __import__('os').write(fd, (args[0] + '\\n').encode())\n"
        "            __import__('os').close(fd)\n"
        "if not hasattr(sys, 'counted'):  # Dask loads it twice\n"
        "    sys.counted = sys.addaudithook(hook)\n"
    )
    spec["cluster"]["options"] = {"preload": [str(loader)]}
    spec["cluster"]["workers"] = 1  # shared, small variables are read by each worker
    execute(load_spec(spec))
    opened = Counter(line for line in log.read_text().splitlines() if "hour" not in line)
    chunks = [path for name in ("wet", "green", "slope") for path in (data / name / "c").rglob("*")]
    files = [str(path) for path in chunks if path.is_file()]
    assert len(files) == 12
    assert {name: opened[name] for name in files} == dict.fromkeys(files, 1)


def test_separate_targets(spec: Spec, tmp_path: Path) -> None:
    spec["data"] = {**spec["data"], "target": ["slope", "both"], "outputs": "separate"}
    both = package.run(spec).load()
    assert both["best_score"].dims == ("latitude", "longitude", "target")
    assert both["target"].values.tolist() == ["slope", "both"]
    one = {**spec, "data": {**spec["data"], "target": "both", "outputs": "joint"}}
    one["output"] = {"store": str(tmp_path / "one.zarr")}
    alone = package.run(one).load()
    chosen = both.sel(target="both")
    np.testing.assert_array_equal(chosen["test_score"], alone["test_score"])
    assert not np.array_equal(chosen["best_score"], both.sel(target="slope")["best_score"])


def test_joint_targets_and_several_metrics(spec: Spec) -> None:
    spec["data"] = {**spec["data"], "target": ["slope", "both"]}
    spec["models"] = spec["models"][:1]
    scoring = {"fit": "r2", "error": "neg_mean_absolute_error"}
    spec["search"] = {"cv": 3, "scoring": scoring, "refit": "error"}
    results = package.run(spec).load()
    assert {"test_fit", "test_error", "mean_test_fit", "rank_test_error"} <= set(results)
    done = results["partition_status"] == 1
    best = results["mean_test_error"].max("candidate").where(done)
    np.testing.assert_array_equal(results["best_score"], best)


def test_one_bad_partition_fails_alone(spec: Spec, faulty_on_workers: None) -> None:
    spec["models"] = [{"estimator": "faulty.Faulty"}, {"estimator": "sklearn.linear_model.Ridge"}]
    results = package.run(spec).load()
    failed = (results["status"] == 2).isel(candidate=0)
    assert 0 < int(failed.sum()) < 46
    reasons = results["message"].isel(candidate=0).values[failed.values]
    assert all("RuntimeError: the data is too wet" in reason for reason in reasons.tolist())
    assert not (results["status"] == 2).isel(candidate=1).any()
    assert int((results["partition_status"] == 1).sum()) == 46
    assert (results["best_index"].values[failed.values] == 1).all()


def test_bad_data_of_a_partition_stays_there(spec: Spec, tmp_path: Path) -> None:
    """An infinite target, a constant one, fewer samples than splits: as scikit-learn has them."""
    clean = package.run(spec).load()
    source = xr.open_zarr(spec["data"]["store"], chunks=None, consolidated=False).load()
    source["slope"][1, 1, 5] = np.inf
    source["wet"][1, 1, 5] = 1.0
    source["slope"][1, 2] = 0.5
    source["slope"][4, 6, 2:] = np.nan
    source["wet"][4, 6, :2] = 1.0
    path = tmp_path / "bad.zarr"
    source.drop_encoding().chunk(latitude=3, longitude=4).to_zarr(path, consolidated=False)
    spec["data"]["store"], spec["output"]["store"] = str(path), str(tmp_path / "bad-results.zarr")
    bad = package.run(spec).load()
    infinite, constant, few = ({"latitude": i, "longitude": j} for i, j in [(1, 1), (1, 2), (4, 6)])
    assert (bad["status"].isel(infinite) == 2).all()
    assert all("infinity" in text for text in bad["message"].isel(infinite).values.tolist())
    assert (bad["status"].isel(few) == 2).all()
    assert "2 samples cannot be split" in str(bad["message"].isel(few).values[0])
    assert (bad["status"].isel(constant) == 1).all()
    expected = search_results(source.isel(constant))
    assert expected is not None
    np.testing.assert_array_equal(
        bad["mean_test_score"].isel(constant), expected["mean_test_score"]
    )
    others = np.ones((6, 8), dtype=bool)
    others[1, 1] = others[1, 2] = others[4, 6] = False
    for name in ("test_score", "status", "best_index", "message"):
        np.testing.assert_array_equal(bad[name].values[others], clean[name].values[others])


def test_what_is_not_deterministic_suffers_alone(spec: Spec, faulty_on_workers: None) -> None:
    clean = package.run(spec).load()
    spec["models"].insert(1, {"estimator": "faulty.Lottery"})
    spec["output"]["store"] = str(Path(spec["output"]["store"]).with_name("lottery.zarr"))
    mixed = package.run(spec).load().isel(candidate=[0, 1, 2, 4, 5])
    np.testing.assert_array_equal(mixed["test_score"], clean["test_score"])


def test_random_state_is_derived_from_seed_and_labels(
    spec: Spec, tmp_path: Path, faulty_on_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec["models"] = [{"estimator": "faulty.Drawn"}]
    first = package.run(spec).load()
    monkeypatch.setattr("hpc_sweep.sweep.execution.UNIT_SECONDS", 0.0)
    again = package.run(spec, store=tmp_path / "again.zarr").load()
    np.testing.assert_array_equal(first["test_score"], again["test_score"])
    other = package.run(spec, ["search.seed=1"], store=tmp_path / "other.zarr").load()
    assert not np.array_equal(first["test_score"], other["test_score"], equal_nan=True)


def test_two_drivers_at_once(spec: Spec) -> None:
    run = run_folder(spec["output"]["store"])
    run.make()
    with hold(run.lease), pytest.raises(LeaseError, match="another driver works on this store"):
        execute(load_spec(spec))


def test_a_missing_file_is_an_error(spec: Spec) -> None:
    store = execute(load_spec(spec)).store
    victim = store.path / "best_score" / "c.1.1"
    victim.unlink()
    with pytest.raises(
        StoreError, match=r"best_score/c\.1\.1 is missing .* delete .*status/c\.1\.1"
    ):
        package.open_results(store.path)
    (store.path / "status" / "c.1.1.0").unlink()  # the remedy
    execute(load_spec(spec))
    assert victim.exists()


# --- kills -----------------------------------------------------------------------------------


@pytest.fixture
def slow_spec(spec: Spec) -> Spec:
    """Make units that take long enough for a kill to come in the middle."""
    return slow(spec)


@pytest.mark.parametrize("units", [1, 5])
def test_killed_driver(
    slow_spec: Spec, write_spec: WriteSpec, uninterrupted: Path, units: int
) -> None:
    store = Path(slow_spec["output"]["store"])
    spec_file = write_spec(slow_spec)
    process = start_run(spec_file)
    wait_for_units(store, units, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    pending_reads_as_missing(store, uninterrupted)
    ledger = Ledger.read(Store.open(store))
    assert 0 < ledger.cells_done() < 48 * 7
    done = hpc_sweep("run", spec_file)
    assert done.returncode == 0, done.stderr
    assert "going on" in done.stdout
    again, twice = repeated_units(store)
    assert not twice
    assert len(again) <= 6  # in flight: three for each of two workers
    equal_stores(store, uninterrupted)
    assert not list(run_folder(store).parts.iterdir())


def test_killed_worker(
    spec: Spec,
    write_spec: WriteSpec,
    tmp_path: Path,
    faulty_on_workers: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec["models"] = [{"estimator": "faulty.Slow"}]
    uninterrupted, store = tmp_path / "whole.zarr", Path(spec["output"]["store"])
    in_process({**spec, "output": {"store": str(uninterrupted)}})
    monkeypatch.setenv("TEST_SLOW_FIT", "0.05")
    process = start_run(write_spec(spec))
    wait_for_units(store, 2, process)
    workers = forked(psutil.Process(process.pid))
    assert len(workers) == 2
    # between two of its units it would be lost without one: stopped, it has its next one for sure
    workers[0].suspend()
    done = sum(event["event"] == "unit_done" for event in read_events(run_folder(store).events))
    wait_for_units(store, done + 2, process)
    workers[0].kill()
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    events = [event["event"] for event in read_events(run_folder(store).events)]
    assert events.count("unit_lost") == 1
    equal_stores(store, uninterrupted)


GATE = threading.Event()


def wait(*arguments: Any) -> None:
    """Stand in for a unit's work."""
    GATE.wait(60)


def test_a_worker_has_one_unit_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first one on: else its death would count for a unit that it has not begun."""
    monkeypatch.setattr("hpc_sweep.work.tasks.evaluate_unit", wait)
    context = Context("store", "spec", "nonce", 1.0, {}, "lease", False)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with (
        dask.config.set(SETTINGS),
        LocalCluster(processes=False, **options) as cluster,
        Client(cluster) as client,
    ):
        units = [Unit((0, 0), start, start + 1, 0, 1) for start in range(4)]
        futures = [context.evaluate(client, unit, guarded=False) for unit in units]
        states = cluster.scheduler.tasks
        while sum(task.state in ("queued", "processing") for task in states.values()) < len(units):
            time.sleep(0.01)
        held = [len(worker.processing) for worker in cluster.scheduler.workers.values()]
        GATE.set()
        client.gather(futures)
    assert held == [1, 1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("units", [0, 1])
def test_interrupted(
    slow_spec: Spec, write_spec: WriteSpec, number: signal.Signals, units: int
) -> None:
    """As Ctrl-C or a lost login do it: the signal goes to all processes of the group."""
    store = Path(slow_spec["output"]["store"])
    process = start_run(write_spec(slow_spec))
    if units:
        wait_for_units(store, units, process)
    else:  # in the middle of starting the workers
        while not run_folder(store).events.exists():
            time.sleep(0.01)
        time.sleep(0.3)
    if number in (signal.SIGINT, signal.SIGHUP):
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert output.splitlines()[-1].endswith("the same command goes on from here")
    assert "Traceback" not in output
    assert not run_folder(store).lease.exists()


def test_a_damaged_source_chunk_fails_its_partitions_alone(spec: Spec, tmp_path: Path) -> None:
    broken = make_data(tmp_path / "broken.zarr")
    chunk = broken / "wet" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:40])
    spec["data"]["store"] = str(broken)
    outcome = execute(load_spec(spec))
    assert outcome.counts["failed"] == 12
    assert outcome.counts["done"] == 48 - 12 - 2
    results = outcome.store.dataset().load()
    assert (results["partition_status"][3:6, 0:4] == 2).all()
    assert "reading failed: " in str(results["message"].values[3, 0, 0])
