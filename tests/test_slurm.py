"""Sweeps on a real Slurm of three nodes: kills, rejections, waiting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    Spec,
    equal_stores,
    hpc_sweep,
    make_data,
    pending_reads_as_missing,
    repeated_units,
    start_run,
    wait_for_units,
    wait_until_queue_is_empty,
)
from ruamel.yaml import YAML
from running import job_states, kill_driver, wait_for_end, workers_of

from hpc_sweep.plan import Share
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


@pytest.fixture(autouse=True)
def slow_fits(faulty_on_workers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one fit of each split sleep on nodes: 858 of them in `larger`, without their work."""
    monkeypatch.setenv("TEST_SLOW_FIT", "0.04")


def larger(spec: Spec, data: Path) -> Spec:
    """Make the sweep take some seconds of three workers, of which the cores see little."""
    spec["data"]["store"] = str(data)
    spec["models"][1] = {"estimator": "faulty.Slow"}
    return spec


@pytest.fixture(scope="module")
def uninterrupted(larger_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of the larger sweep, made in one go on this machine."""
    from conftest import small_spec

    spec = small_spec(larger_data, tmp_path_factory.mktemp("whole") / "whole.zarr")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_SLOW_FIT", "0")
        return execute(load_spec(larger(spec, larger_data))).store.path


@pytest.mark.waits
def test_killed_driver_and_worker(
    spec: Spec,
    slurm_cluster: Spec,
    larger_data: Path,
    write_spec: WriteSpec,
    uninterrupted: Path,
) -> None:
    """A worker is killed, then the driver; the same command goes on to the same store."""
    store = Path(spec["output"]["store"])
    slurm_cluster["workers"] = 2
    spec_file = write_spec({**larger(spec, larger_data), "cluster": slurm_cluster})
    process = start_run(spec_file)
    wait_for_units(store, 1, process)
    while len(workers := workers_of(store)) < 2:  # the first units may be done before the last came
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(workers[0].pid, signal.SIGKILL)
    wait_for_units(store, 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    pending_reads_as_missing(store, uninterrupted)
    done = hpc_sweep("run", spec_file)
    assert done.returncode == 0, done.stderr
    again, twice = repeated_units(store)
    assert len(again) <= 6  # in flight: three for each of two workers
    assert len(twice) == 0
    equal_stores(store, uninterrupted)
    events = [event["event"] for event in read_events(run_folder(store).events)]
    assert events.count("unit_lost") <= 2  # the worker may have been between two units
    assert not list(run_folder(store).parts.iterdir())
    assert not list(run_folder(store).keys.iterdir())
    # workers without a driver end by themselves; one that restarted just then in a minute
    wait_until_queue_is_empty(150)


@pytest.mark.waits
def test_a_replacement_that_starts_slowly_is_kept(
    spec: Spec,
    slurm_cluster: Spec,
    larger_data: Path,
    write_spec: WriteSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dask ends what has a lost worker's name when no worker of it came: not the next job."""
    store = Path(spec["output"]["store"])
    monkeypatch.setenv("TEST_SLOW_FIT", "0.015")
    started = store.with_name("started")
    prologue = [f"test -e {started} && sleep 9", f"touch {started}"]
    spec["cluster"] = {**slurm_cluster, "workers": 1, "prologue": prologue}
    process = start_run(write_spec(larger(spec, larger_data)))
    wait_for_units(store, 1, process)
    subprocess.run(["scancel", *worker_jobs(store)], check=True)
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0, output
    assert len(worker_jobs(store)) == 2


def test_a_fit_that_hangs_is_ended(
    spec: Spec, slurm_cluster: Spec, faulty_on_workers: None, tmp_path: Path
) -> None:
    """On nodes as on a laptop: some partitions hang, and their other model is searched."""
    spec["models"] = [
        {"estimator": {"faulty.Faulty": {"how": "hang"}}},
        {"estimator": "sklearn.linear_model.Lasso"},
    ]
    spec["data"] = {**spec["data"], "partition_by": ["latitude"]}
    spec["search"]["timeout"] = 1
    local = execute(load_spec({**spec, "output": {"store": str(tmp_path / "local.zarr")}}))
    slurm_cluster["workers"] = 2
    there = execute(load_spec({**spec, "cluster": slurm_cluster}))
    equal_stores(there.store.path, local.store.path)
    status = there.store.dataset()["status"].values
    assert 0 < (status[:, 0] == 4).sum() < 6
    assert (status[:, 1] == 1).all()


def test_keys_are_private_while_it_runs(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec
) -> None:
    store = Path(spec["output"]["store"])
    process = start_run(write_spec({**spec, "cluster": {**slurm_cluster, "workers": 1}}))
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
    note, *_, message = refused.stderr.splitlines()
    assert "outside a job" in note
    assert message.startswith("error: the queue refused the worker jobs: sbatch: ")
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


@pytest.mark.waits
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
    assert len(worker_jobs(store)) > 2


def test_the_users_jobqueue_yaml(
    spec: Spec,
    slurm_cluster: Spec,
    write_spec: WriteSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the spec leaves open comes from the user's own Dask configuration.

    The network that it names for the scheduler is that of a login node: a driver in a job does
    without.
    """
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / "jobqueue.yaml").write_text(
        "jobqueue:\n  slurm:\n    memory: 1GB\n    queue: closed\n    walltime: '00:03:00'\n"
        "    interface: eth0\n    scheduler-options:\n"
        f"      interface: {slurm_cluster['scheduler_interface']}\n"
    )
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path / "dask"))
    for key in ("memory", "walltime", "interface", "scheduler_interface"):
        del slurm_cluster[key]
    spec["cluster"] = {**slurm_cluster, "workers": 1, "queue": "short"}
    done = hpc_sweep("run", write_spec(spec))
    assert done.returncode == 0, done.stderr
    jobs = [e["job"] for e in read_events(run_folder(spec["output"]["store"]).events) if "job" in e]
    job = next(job for job in jobs if job)
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True)
    assert "Partition=short" in shown.stdout
    assert "TimeLimit=00:03:00" in shown.stdout
    spec["output"]["store"] = str(tmp_path / "submitted.zarr")
    spec["cluster"]["driver"] = {"memory": "1GB", "walltime": "00:04:00"}
    assert wait_for_end(submit(write_spec(spec))) == "COMPLETED"


# --- the driver in a job of its own ----------------------------------------------------------


def submit(spec_file: Path, *options: object) -> str:
    """Submit and return the id of the driver's job."""
    done = hpc_sweep("submit", spec_file, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("as job ")[1].split(";")[0]


def wait_for_event(store: Path, kind: str, seconds: float = 100) -> None:
    """Wait until there is such an event in the run folder's log."""
    end = time.monotonic() + seconds
    while not any(event["event"] == kind for event in read_events(run_folder(store).events)):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_submit(
    spec: Spec,
    slurm_cluster: Spec,
    write_spec: WriteSpec,
    larger_data: Path,
    uninterrupted: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The driver runs in a job, submits the workers, and leaves no job, and Dask's report."""
    monkeypatch.setenv("TEST_SLOW_FIT", "0.005")
    del slurm_cluster["performance_report"]
    slurm_cluster["workers"] = 1
    store = Path(spec["output"]["store"])
    spec_file = write_spec({**larger(spec, larger_data), "cluster": slurm_cluster})
    job = submit(spec_file)
    assert wait_for_end(job) == "COMPLETED"
    equal_stores(store, uninterrupted)
    log = (run_folder(store).logs / f"driver-{job}.log").read_text()
    assert "complete: 286 done, 2 empty of 288 partitions" in log
    wait_until_queue_is_empty()
    started = next(e for e in read_events(run_folder(store).events) if e["event"] == "run_started")
    assert started["job"] == job
    assert started["host"].startswith("node")
    assert "no performance report" not in log
    (report,) = run_folder(store).performance_reports()
    assert "Task Stream" in report.read_text()


def test_cancel_ends_this_runs_jobs_only(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec, larger_data: Path, uninterrupted: Path
) -> None:
    store = Path(spec["output"]["store"])
    command = ["sbatch", "--parsable", "--output=/dev/null", "--wrap", "sleep 300"]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    slurm_cluster["workers"] = 1
    spec_file = write_spec({**larger(spec, larger_data), "cluster": slurm_cluster})
    job = submit(spec_file)
    end = time.monotonic() + 100
    while len([s for s in job_states().values() if s == "RUNNING"]) < 3:
        assert time.monotonic() < end
        time.sleep(0.2)
    done = hpc_sweep("cancel", store)
    assert done.returncode == 0, done.stderr
    assert job in done.stdout
    assert other not in done.stdout
    assert wait_for_end(job) in ("CANCELLED", "FAILED", "COMPLETED")
    assert job_states()[other] == "RUNNING"
    again = hpc_sweep("cancel", store)
    assert again.stdout == "no job was alive\n"
    resumed = submit(spec_file)
    assert wait_for_end(resumed) == "COMPLETED"
    equal_stores(store, uninterrupted)


def test_a_driver_that_is_told_to_drain(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec, larger_data: Path, uninterrupted: Path
) -> None:
    """A signal comes: units at work are finished and kept, the next job goes on."""
    slurm_cluster["workers"] = 2
    store = Path(spec["output"]["store"])
    spec_file = write_spec({**larger(spec, larger_data), "cluster": slurm_cluster})
    job = submit(spec_file)
    events = run_folder(store).events
    end = time.monotonic() + 100
    while not [e for e in read_events(events) if e["event"] == "unit_done"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    subprocess.run(["scancel", "--batch", "--signal=USR1", job], check=True)
    wait_for_end(job)
    kinds = [event["event"] for event in read_events(events)]
    assert "draining" in kinds
    assert kinds[-1] == "run_ended"
    log = (run_folder(store).logs / f"driver-{job}.log").read_text()
    assert "drained before its end; the same command goes on from here" in log
    started = {e["unit"] for e in read_events(events) if e["event"] == "unit_started"}
    done = [e["unit"] for e in read_events(events) if e["event"] == "unit_done"]
    assert 0 < len(done) < 24
    assert len(started) - len(done) <= 6  # known to the scheduler, not begun
    assert wait_for_end(submit(spec_file)) == "COMPLETED"
    equal_stores(store, uninterrupted)
    assert not repeated_units(store)[1]


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        ({"queue": "nonesuch"}, "Invalid partition name specified"),
        ({"walltime": "30-00:00:00"}, "Requested time limit is invalid"),
        ({"memory": "900GB"}, "Requested node configuration is not available"),
    ],
)
def test_submit_is_refused(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec, driver: Spec, words: str
) -> None:
    spec["cluster"] = {**slurm_cluster, "driver": driver}
    done = hpc_sweep("submit", write_spec(spec))
    assert done.returncode == 3
    assert done.stderr.startswith("error: the queue refused the driver's job: sbatch: error: ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_submit_on_a_machine(
    spec: Spec,
    slurm_cluster: Spec,
    write_spec: WriteSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A profile decides the directives of both jobs, and what is in front of python."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    file = tmp_path / "config" / "hpc-sweep" / "machines" / "here.yaml"
    file.parent.mkdir(parents=True)
    profile = {
        **slurm_cluster,
        "description": "the throwaway Slurm",
        "queue": "short",
        "walltime": "00:04:00",
        "account": "p42",
        "account_option": "--comment",
        "resources": ["--nodes={nodes}", "--ntasks=1", "--mem-per-cpu={memory_mib}M"],
        "directives": ["--time=00:03:00", "--exclude=node3"],
        "skip": ["--time-min"],
        "launcher": ["env", "MARK=it's $(touch touched)"],
        "scratch": {"folder": "/tmp/$SLURM_JOB_ID"},
        "driver": {"memory": "700MB"},
    }
    YAML(typ="safe", pure=True).dump(profile, file)
    spec["cluster"] = {"machine": "here", "workers": 1}
    store = Path(spec["output"]["store"])
    job = submit(write_spec(spec))
    file.unlink()  # nodes may not see it
    assert wait_for_end(job) == "COMPLETED"
    worker = next(
        e["job"] for e in read_events(run_folder(store).events) if e["event"] == "job_submitted"
    )
    for one, limit, memory in ((job, "00:04:00", "668M"), (worker, "00:03:00", "1240M")):
        command = ["scontrol", "show", "job", one]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for words in ("Partition=short", "Comment=p42", f"TimeLimit={limit}", f"={memory}"):
            assert words in shown, f"{words} of {one}"
        assert ("ExcNodeList=node3" in shown) == (one == worker)
    assert not list(tmp_path.rglob("touched"))


@pytest.mark.waits
def test_one_job(
    spec: Spec,
    slurm: Any,
    slurm_cluster: Spec,
    write_spec: WriteSpec,
    larger_data: Path,
    uninterrupted: Path,
) -> None:
    """Driver and workers share a job of three nodes; one of the others dies."""
    store = Path(spec["output"]["store"])
    cluster = {**slurm_cluster, "workers_per_node": 2, "driver": {"memory": "1GB"}}
    spec_file = write_spec({**larger(spec, larger_data), "cluster": cluster})
    job = submit(spec_file, "--one-job", "--nodes", 3, "--performance-report")
    wait_for_event(store, "unit_done")
    assert list(job_states().values()).count("RUNNING") == 1
    started = [e["worker"] for e in read_events(run_folder(store).events) if "worker" in e]
    nodes = {name.split("-")[1] for name in started if name.startswith("worker-")}
    assert nodes == {"node1", "node2", "node3"}
    scheduler = json.loads((run_folder(store).path / "scheduler.json").read_text())
    assert scheduler["address"].startswith("tls://")
    batch = next(e["host"] for e in read_events(run_folder(store).events) if "host" in e)
    slurm.kill_node(max(nodes - {batch}))
    try:
        assert wait_for_end(job, 240) == "COMPLETED"
    finally:
        slurm.start_node(max(nodes - {batch}))
    equal_stores(store, uninterrupted)
    assert not (run_folder(store).path / "scheduler.json").exists()
    assert len(run_folder(store).performance_reports()) == 1


def test_one_job_on_pbs(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec, larger_data: Path, uninterrupted: Path
) -> None:
    """With Slurm's qsub, which leaves no list of nodes: one node."""
    store = Path(spec["output"]["store"])
    cluster = {**slurm_cluster, "kind": "pbs", "workers_per_node": 2, "driver": {"memory": "1GB"}}
    spec_file = write_spec({**larger(spec, larger_data), "cluster": cluster})
    job = submit(spec_file, "--one-job", "--nodes", 1)
    assert wait_for_end(job) == "COMPLETED"
    equal_stores(store, uninterrupted)
    (started,) = [e for e in read_events(run_folder(store).events) if e["event"] == "run_started"]
    assert started["job"] == job
    assert len(list(run_folder(store).logs.glob("worker-node?-1.log"))) == 1


@pytest.mark.waits
def test_four_drivers(
    spec: Spec,
    slurm_cluster: Spec,
    write_spec: WriteSpec,
    larger_data: Path,
    uninterrupted: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An array of drivers with a share each: two are killed, and resumed by the same command."""
    monkeypatch.setenv("TEST_SLOW_FIT", "0.06")
    store = Path(spec["output"]["store"])
    cluster = {**slurm_cluster, "workers": 1, "driver": {"memory": "1GB"}}
    spec_file = write_spec({**larger(spec, larger_data), "cluster": cluster})
    jobs = submit(spec_file, "--drivers", 4)
    shares = [run_folder(store, Share(index, 4)) for index in range(1, 5)]
    for share in shares[1:3]:
        end = time.monotonic() + 100
        while not any(e["event"] == "unit_done" for e in read_events(share.events)):
            assert time.monotonic() < end
            time.sleep(0.02)
        index = shares.index(share) + 1
        kill_driver(f"{jobs}_{index}")
    for index in (1, 4):
        assert wait_for_end(f"{jobs}_{index}") == "COMPLETED"
    assert wait_for_end(f"{jobs}_2") == wait_for_end(f"{jobs}_3") == "FAILED"
    assert not hpc_sweep("status", store).stdout.startswith("sweep:      small: complete")
    jobs = submit(spec_file, "--drivers", 4)
    for index in range(1, 5):
        assert wait_for_end(f"{jobs}_{index}") == "COMPLETED"
    equal_stores(store, uninterrupted)
    assert hpc_sweep("status", store).stdout.startswith("sweep:      small: complete")
    done = [e["unit"] for s in shares for e in read_events(s.events) if e["event"] == "unit_done"]
    assert len(done) == len(set(done))
    logs = "".join(path.read_text() for path in run_folder(store).logs.glob("*.log"))
    assert "result chunks are left to other drivers" in logs
    assert "286 done, 2 empty of 288 partitions" in logs


# --- chains ----------------------------------------------------------------------------------


def driver_jobs(store: Path) -> list[str]:
    """Return the ids of all links of a chain so far."""
    return submitted_jobs(store, "driver_submitted")


def worker_jobs(store: Path) -> list[str]:
    """Return the ids of all worker jobs so far."""
    return submitted_jobs(store, "job_submitted")


def submitted_jobs(store: Path, event: str) -> list[str]:
    """Return the ids of jobs whose submission the journal tells by this name."""
    return [e["job"] for e in read_events(run_folder(store).events) if e["event"] == event]


def wait_for_completion(store: Path, seconds: float) -> None:
    """Wait until a run has ended with nothing left, by the log: it costs less than the command."""
    end = time.monotonic() + seconds
    while not any(
        event["event"] == "run_ended" and event["result"] == "complete"
        for event in read_events(run_folder(store).events)
    ):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert hpc_sweep("status", store).stdout.startswith("sweep:      small: complete")


def drain_driver(job: str) -> None:
    """Send the signal that Slurm sends before a job's end."""
    subprocess.run(["scancel", "--batch", "--signal=USR1", job], check=True)


def test_chain(
    spec: Spec,
    slurm_cluster: Spec,
    write_spec: WriteSpec,
    larger_data: Path,
    uninterrupted: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first link is told to drain, the second one is killed: the third one finishes."""
    monkeypatch.setenv("TEST_SLOW_FIT", "0.015")
    store = Path(spec["output"]["store"])
    slurm_cluster["workers"] = 1
    spec_file = write_spec({**larger(spec, larger_data), "cluster": slurm_cluster})
    first = submit(spec_file, "--chain")
    events = run_folder(store).events
    for link, end_it in enumerate((drain_driver, kill_driver)):
        end = time.monotonic() + 120
        while True:  # until this link has done something
            runs = [
                e["event"]
                for e in read_events(events)
                if e["event"] in ("run_started", "unit_done")
            ]
            if runs.count("run_started") == link + 1 and runs[-1] == "unit_done":
                break
            assert time.monotonic() < end
            time.sleep(0.05)
        jobs = driver_jobs(store)
        waiting = [job for job in jobs if job_states().get(job) == "PENDING"]
        assert 1 <= len(waiting) <= 2
        running = next(job for job in jobs if job_states().get(job) == "RUNNING")
        end_it(running)
    wait_for_completion(store, 150)
    wait_until_queue_is_empty()  # the links that were queued are gone too
    equal_stores(store, uninterrupted)
    assert job_states()[first] in ("COMPLETED", "FAILED")
    _, twice = repeated_units(store)
    assert len(twice) <= 1  # a part written in the moment of the kill
    logs = "".join(path.read_text() for path in run_folder(store).logs.glob("driver-*.log"))
    assert "drained before its end" in logs
    assert "the sweep is complete" in logs


@pytest.mark.waits
def test_a_chain_over_walltimes(
    spec: Spec,
    slurm_cluster: Spec,
    write_spec: WriteSpec,
    larger_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More than two walltimes of driver and workers: nobody helps, and little is done twice."""
    monkeypatch.setenv("TEST_SLOW_FIT", "0")
    spec["data"]["store"] = str(larger_data)
    spec["models"] = [{"estimator": "faulty.Slow"}]
    spec["output"]["store"] = str(tmp_path / "whole.zarr")
    whole = execute(load_spec(spec)).store.path
    store = tmp_path / "chain.zarr"
    spec["output"]["store"] = str(store)
    spec["cluster"] = {**slurm_cluster, "workers": 2, "walltime": "00:01:00"}
    log = tmp_path / "fits.log"
    monkeypatch.setenv("TEST_SLOW_FIT", "0.19")
    monkeypatch.setenv("TEST_SLOW_LOG", str(log))
    submit(write_spec(spec), "--chain")
    wait_for_completion(store, 360)
    wait_until_queue_is_empty()
    equal_stores(store, whole)
    runs = [e for e in read_events(run_folder(store).events) if e["event"] == "run_ended"]
    assert [run["result"] for run in runs[:-1]] == ["Interrupted"] * (len(runs) - 1)
    assert runs[-1]["result"] == "complete"
    assert 3 <= len(runs) <= 5
    fits = log.read_text().splitlines()
    needed = 286 * 3
    assert needed <= len(fits) < 1.1 * needed


def test_a_chain_ends_with_what_would_come_again(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec
) -> None:
    """A link whose workers are refused cancels its successors."""
    store = Path(spec["output"]["store"])
    driver = {"queue": "debug"}
    spec["cluster"] = {**slurm_cluster, "queue": "nonesuch", "driver": driver}
    job = submit(write_spec(spec), "--chain")
    assert wait_for_end(job) == "FAILED"
    wait_until_queue_is_empty()
    log = (run_folder(store).logs / f"driver-{job}.log").read_text()
    assert "the queue refused the worker jobs: sbatch: error: " in log
    assert "cancelled the queued links" in log
    assert len(driver_jobs(store)) <= 3


def test_a_maintenance_stops_the_clock(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec
) -> None:
    """Jobs that an announced maintenance keeps waiting are no reason to give up."""
    store = Path(spec["output"]["store"])
    reservation = ["reservationname=works", "starttime=now+5minutes", "duration=60"]
    more = ["flags=maint,ignore_jobs", "nodes=ALL", "users=nobody"]
    subprocess.run(["scontrol", "create", *reservation, *more], check=True)
    try:
        # patience for 20 s, limits that reach into the maintenance
        cluster = {**slurm_cluster, "workers": 1, "start_timeout": 20}
        spec["cluster"] = {**cluster, "time_min": None}
        process = start_run(write_spec(spec))
        wait_for_event(store, "topped_up")
        waited = 35.0
        time.sleep(waited)
        assert process.poll() is None, process.communicate()[0]
    finally:
        subprocess.run(["scontrol", "delete", "reservationname=works"], check=True)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert "Reserved for maintenance" in output


def test_core_hours_end_a_chain(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec, larger_data: Path
) -> None:
    """At the limit the link ends, and no other one follows."""
    store = Path(spec["output"]["store"])
    cluster = {**slurm_cluster, "workers": 1, "max_core_hours": 0.003}  # eleven seconds of one core
    first = submit(write_spec({**larger(spec, larger_data), "cluster": cluster}), "--chain")
    assert wait_for_end(first) == "FAILED"
    log = (run_folder(store).logs / f"driver-{first}.log").read_text()
    assert "core-hours, and cluster.max_core_hours is 0.003; what is done is kept" in log
    states = job_states()
    links = driver_jobs(store)
    assert len(links) == 3
    assert {states[job] for job in links[1:]} == {"CANCELLED"}
    *_, ended, last = read_events(run_folder(store).events)
    assert ended["result"] == "BudgetError"
    assert last["event"] == "chain_ended"
    assert "core-hours" in last["reason"]
