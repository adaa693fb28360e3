"""Sweeps on a real Slurm of three nodes: kills, rejections, waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import xarray as xr
from conftest import (
    Spec,
    equal_stores,
    hpc_sweep,
    make_data,
    repeated_units,
    start_run,
    wait_for_units,
    wait_until_queue_is_empty,
)

from hpc_sweep.spec import load_spec
from hpc_sweep.store import read_events, run_folder
from hpc_sweep.sweep import execute

WriteSpec = Callable[[Spec], Path]
pytestmark = pytest.mark.slurm


@pytest.fixture(autouse=True)
def empty_queue(slurm: Any) -> Iterator[None]:
    """Leave no job to the next test."""
    yield
    subprocess.run(["scancel", "--user=root"], check=True)
    wait_until_queue_is_empty()


@pytest.fixture(scope="module")
def larger_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of 24 source chunks, so that a run has 24 units or more."""
    return make_data(tmp_path_factory.mktemp("larger") / "data.zarr", shape=(18, 16), samples=120)


def larger(spec: Spec, data: Path) -> Spec:
    spec["data"]["store"] = str(data)
    spec["models"][1]["param_grid"] = {"svr__C": [1, 10, 100]}
    return spec


@pytest.fixture(scope="module")
def uninterrupted(larger_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of the larger sweep, made in one go on this machine."""
    from conftest import small_spec

    spec = small_spec(larger_data, tmp_path_factory.mktemp("whole") / "whole.zarr")
    return execute(load_spec(larger(spec, larger_data))).store.path


def workers_of(store: Path) -> list[psutil.Process]:
    """Return the worker processes that belong to a run, on all nodes; not their nannies."""
    nannies = [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(run_folder(store).keys) in " ".join(process.info["cmdline"] or [])
        and "dask_worker" in " ".join(process.info["cmdline"])
    ]
    return [
        child
        for nanny in nannies
        for child in nanny.children()
        if "spawn_main" in " ".join(child.cmdline())
    ]


@pytest.mark.parametrize("units", [1, 6, 12])
def test_killed_driver_and_worker(
    spec: Spec,
    slurm_cluster: Spec,
    larger_data: Path,
    write_spec: WriteSpec,
    uninterrupted: Path,
    units: int,
) -> None:
    """A worker is killed, then the driver; the same command goes on to the same store."""
    store = Path(spec["output"]["store"])
    spec_file = write_spec({**larger(spec, larger_data), "cluster": slurm_cluster})
    process = start_run(spec_file)
    wait_for_units(store, units, process)
    workers = workers_of(store)
    assert len(workers) == 3
    os.kill(workers[0].pid, signal.SIGKILL)
    wait_for_units(store, units + 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    half = xr.open_zarr(store, chunks=None).load()  # a half-finished store opens
    pending = (half["partition_status"] == 0).values
    assert pending.any()
    assert half["best_score"].isnull().values[pending].all()
    assert (half["best_index"].values[pending] == -1).all()
    wait_until_queue_is_empty()  # workers without a driver end by themselves
    done = hpc_sweep("run", spec_file)
    assert done.returncode == 0, done.stderr
    again, twice = repeated_units(store)
    assert len(again) <= 9  # in flight: three for each of three workers
    assert len(twice) == 0
    equal_stores(store, uninterrupted)
    events = [event["event"] for event in read_events(run_folder(store).events)]
    assert 1 <= events.count("unit_lost") <= 2
    assert not list(run_folder(store).parts.iterdir())
    assert not list(run_folder(store).keys.iterdir())


def test_keys_are_private_while_it_runs(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec
) -> None:
    store = Path(spec["output"]["store"])
    process = start_run(write_spec({**spec, "cluster": slurm_cluster}))
    wait_for_units(store, 1, process)
    keys = run_folder(store).keys
    assert keys.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in keys.iterdir()} == {0o600}
    assert process.communicate(timeout=120)[0]
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"queue": "nonesuch"}, "Invalid partition name specified"),
        ({"walltime": "30-00:00:00"}, "Requested time limit is invalid"),
        ({"memory": "900GB"}, "Requested node configuration is not available"),
        ({"directives": ["--no-such-option"]}, "unrecognized option"),
    ],
)
def test_a_rejected_sbatch(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec, change: Spec, words: str
) -> None:
    """Slurm's own words reach the user in one message, at once."""
    spec["cluster"] = {**slurm_cluster, **change}
    began = time.monotonic()
    refused = hpc_sweep("run", write_spec(spec))
    assert refused.returncode == 3
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stderr.startswith("error: the queue refused the worker jobs: sbatch: ")
    assert words in refused.stderr
    assert time.monotonic() - began < 60


def test_jobs_that_pend_for_ever(spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec) -> None:
    """At the deadline the queue's reason is in the one message, and the jobs are cancelled."""
    spec["cluster"] = {**slurm_cluster, "queue": "closed", "start_timeout": 15}
    refused = hpc_sweep("run", write_spec(spec))
    assert refused.returncode == 3
    last = refused.stderr.strip().splitlines()[-1]
    assert last.startswith("error: no worker within 15 s (cluster.start_timeout): 3 job(s) PENDING")
    assert "Partition" in last
    assert "waiting for workers: 3 job(s) PENDING" in refused.stderr
    wait_until_queue_is_empty()


def test_jobs_that_end_at_once(spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec) -> None:
    """Three in a row stop the run, with the end of the last one's own log."""
    prologue = ["echo no such module >&2; exit 7"]
    spec["cluster"] = {**slurm_cluster, "prologue": prologue}
    refused = hpc_sweep("run", write_spec(spec))
    assert refused.returncode == 3
    assert "3 worker jobs in a row ended within 60 s of their start" in refused.stderr
    assert "FAILED (NonZeroExitCode)" in refused.stderr
    assert refused.stderr.strip().splitlines()[-1] == "no such module"


def test_a_node_dies(
    spec: Spec,
    slurm: Any,
    slurm_cluster: Spec,
    larger_data: Path,
    write_spec: WriteSpec,
    uninterrupted: Path,
) -> None:
    """All workers are on one node, which is cut off: they are replaced on the others."""
    store = Path(spec["output"]["store"])
    cluster = {**slurm_cluster, "workers": 2, "directives": ["--exclude=node3", "--no-requeue"]}
    spec = {**larger(spec, larger_data), "cluster": cluster}
    spec["models"][1]["param_grid"] = {"svr__C": [1, 10, 100]}
    process = start_run(write_spec(spec))
    wait_for_units(store, 1, process)
    command = ["squeue", "--noheader", "--format=%N"]
    nodes = set(subprocess.run(command, capture_output=True, text=True).stdout.split())
    for node in nodes:
        slurm.kill_node(node)
    try:
        other = {"node1", "node2"} - nodes
        if not other:
            for node in nodes:
                slurm.start_node(node)
        output = process.communicate(timeout=280)[0]
    finally:
        process.kill()
        for node in nodes:
            slurm.start_node(node)
    assert process.returncode == 0, output
    equal_stores(store, uninterrupted)
    submitted = [e for e in read_events(run_folder(store).events) if e["event"] == "job_submitted"]
    assert len(submitted) > 2


def test_the_users_jobqueue_yaml(
    spec: Spec,
    slurm_cluster: Spec,
    write_spec: WriteSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the spec leaves open comes from the user's own Dask configuration."""
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / "jobqueue.yaml").write_text(
        "jobqueue:\n  slurm:\n    memory: 1GB\n    queue: closed\n    walltime: '00:03:00'\n"
        "    interface: eth0\n"
    )
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path / "dask"))
    for key in ("memory", "walltime", "interface"):
        del slurm_cluster[key]
    spec["cluster"] = {**slurm_cluster, "workers": 1, "queue": "short"}
    done = hpc_sweep("run", write_spec(spec))
    assert done.returncode == 0, done.stderr
    jobs = [e["job"] for e in read_events(run_folder(spec["output"]["store"]).events) if "job" in e]
    job = next(job for job in jobs if job)
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True)
    assert "Partition=short" in shown.stdout
    assert "TimeLimit=00:03:00" in shown.stdout
