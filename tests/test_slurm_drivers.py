"""Drivers' jobs on a real Slurm that never begin, and chains that get nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Spec, hpc_sweep, wait_until_queue_is_empty
from running import exit_code, job_states, kill_driver, wait_for_end
from test_slurm import driver_jobs, submit

from hpc_sweep.store import read_events, run_folder

WriteSpec = Callable[[Spec], Path]
pytestmark = pytest.mark.slurm

ELSEWHERE = ["export PYTHONHOME=/not/mounted/here"]
"""A prologue as of a site whose nodes have another Python environment."""


@pytest.fixture(autouse=True)
def empty_queue(slurm: Any) -> Iterator[None]:
    """Leave no job to the next test."""
    yield
    subprocess.run(["scancel", "--user=root"], check=True)
    wait_until_queue_is_empty()


@pytest.mark.parametrize(
    ("options", "log"),
    [
        ((), "driver-{}.log"),
        (("--one-job", "--nodes", 1), "sweep-{}.log"),
        (("--drivers", 2), "sweep-{}_1.log"),
    ],
)
def test_an_environment_that_nodes_lack(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec, options: tuple[object, ...], log: str
) -> None:
    """The log ends with one message, and status tells it with the queue's words."""
    store = Path(spec["output"]["store"])
    spec["cluster"] = {**slurm_cluster, "prologue": ELSEWHERE, "workers_per_node": 1}
    job = submit(write_spec(spec), *options)
    one = f"{job}_1" if "--drivers" in options else job
    assert wait_for_end(one) == "FAILED"
    assert exit_code(one) == "ExitCode=3:0"
    last = (run_folder(store).logs / log.format(job)).read_text().splitlines()[-1]
    assert last.startswith("error: the driver cannot begin on node")
    assert "hpc-sweep doctor" in last
    if one != job:
        assert wait_for_end(f"{job}_2") == "FAILED"
    shown = hpc_sweep("status", store)
    assert shown.returncode == 0, shown.stderr
    assert "ended without beginning: " in shown.stdout
    assert "FAILED (NonZeroExitCode); the end of its log" in shown.stdout
    assert last in shown.stdout
    assert ("small: not begun" in shown.stdout) == (one == job)
    (facts,) = json.loads(hpc_sweep("status", "--json", store).stdout)
    (waiting,) = facts["not_begun"]
    assert waiting["ended"] is True
    assert waiting["shares"] == ([] if one == job else ["1/2", "2/2"])
    # a machine without the queue's commands sees the files
    far = hpc_sweep("status", store, env={**os.environ, "PATH": "/nowhere"})
    assert far.returncode == 0, far.stderr
    assert f"job {job}" in far.stdout
    assert last in far.stdout


def test_a_chain_whose_links_never_begin(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec
) -> None:
    """It is two jobs long, and status tells of both."""
    store = Path(spec["output"]["store"])
    spec["cluster"] = {**slurm_cluster, "prologue": ELSEWHERE}
    submit(write_spec(spec), "--chain")
    jobs = driver_jobs(store)
    assert len(jobs) == 2
    assert [wait_for_end(job) for job in jobs] == ["FAILED", "FAILED"]
    wait_until_queue_is_empty()
    assert driver_jobs(store) == jobs
    shown = hpc_sweep("status", store).stdout
    for job in jobs:
        assert f"job {job} ended without beginning: FAILED" in shown


def test_status_of_a_driver_that_waits(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec
) -> None:
    """Before the store is made: the queue's reason; after a cancellation: nothing is left."""
    store = Path(spec["output"]["store"])
    spec["cluster"] = {**slurm_cluster, "driver": {"queue": "closed"}}
    job = submit(write_spec(spec))
    shown = hpc_sweep("status", store)
    assert shown.returncode == 0, shown.stderr
    assert "small: not begun" in shown.stdout
    assert f"job {job} has not begun: PENDING (Partition" in shown.stdout
    assert hpc_sweep("cancel", store).returncode == 0
    assert wait_for_end(job) == "CANCELLED"
    shown = hpc_sweep("status", store).stdout
    assert "driver:     none" in shown
    assert "last event: cancelled" in shown


@pytest.mark.waits
def test_a_link_that_adds_nothing_ends_the_chain(
    spec: Spec,
    slurm_cluster: Spec,
    write_spec: WriteSpec,
    tmp_path: Path,
    faulty_on_workers: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One fit takes longer than a link's walltime."""
    store = Path(spec["output"]["store"])
    spec["models"] = [{"estimator": "faulty.Slow"}]
    spec["cluster"] = {**slurm_cluster, "workers": 1, "walltime": "00:01:00"}
    monkeypatch.setenv("TEST_SLOW_FIT", "90")
    monkeypatch.setenv("TEST_SLOW_LOG", str(tmp_path / "fits.log"))
    first = submit(write_spec(spec), "--chain")
    assert wait_for_end(first) == "FAILED"
    assert exit_code(first) == "ExitCode=3:0"
    wait_until_queue_is_empty()
    log = (run_folder(store).logs / f"driver-{first}.log").read_text()
    message = "a link that had workers and added nothing ends the chain"
    assert message in log.splitlines()[-1]
    assert "Traceback" not in log
    links = driver_jobs(store)
    assert len(links) == 3
    assert {job_states()[job] for job in links[1:]} == {"CANCELLED"}
    shown = hpc_sweep("status", store).stdout
    assert "small: stopped" in shown
    assert "fits:       0 of 144" in shown
    assert "driver:     none" in shown
    assert message in shown
    assert not [e for e in read_events(run_folder(store).events) if e["event"] == "unit_done"]


@pytest.mark.waits
def test_links_that_are_killed_end_the_chain(
    spec: Spec,
    slurm_cluster: Spec,
    write_spec: WriteSpec,
    tmp_path: Path,
    faulty_on_workers: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each driver gets a SIGKILL as soon as its worker is there, as from want of memory."""
    store = Path(spec["output"]["store"])
    spec["models"] = [{"estimator": "faulty.Slow"}]
    spec["cluster"] = {**slurm_cluster, "workers": 1, "walltime": "00:01:00"}
    monkeypatch.setenv("TEST_SLOW_FIT", "90")
    monkeypatch.setenv("TEST_SLOW_LOG", str(tmp_path / "fits.log"))
    submit(write_spec(spec), "--chain")
    killed: list[str] = []
    end = time.monotonic() + 240
    while (last := last_event(store))["event"] != "chain_ended":
        assert time.monotonic() < end, killed
        job = job_with_workers(store)
        if job not in ("", *killed):
            kill_driver(job)
            killed.append(job)
        time.sleep(0.05)
    words = f"3 links (jobs {', '.join(killed)}) were killed while they had workers, and added"
    assert last["reason"].startswith(words)
    links = driver_jobs(store)
    judge = links[links.index(killed[-1]) + 1]
    assert wait_for_end(judge) == "FAILED"
    assert exit_code(judge) == "ExitCode=3:0"
    wait_until_queue_is_empty()
    left = links[links.index(judge) + 1 :]
    assert left
    assert {job_states()[job] for job in left} == {"CANCELLED"}
    log = (run_folder(store).logs / f"driver-{judge}.log").read_text()
    assert f"error: {words}" in log
    assert f"cancelled the queued links {', '.join(left)}" in log
    assert "Traceback" not in log
    shown = hpc_sweep("status", store).stdout
    assert "small: stopped" in shown
    assert "driver:     none" in shown
    assert words in shown


def last_event(store: Path) -> dict[str, Any]:
    """Return the last event of a log that has one."""
    *_, last = read_events(run_folder(store).events)
    return last


def job_with_workers(store: Path) -> str:
    """Return the job of the last run of a log if it had workers, else ``""``."""
    job = found = ""
    for event in read_events(run_folder(store).events):
        if event["event"] == "run_started":
            job, found = event["job"], ""
        elif event["event"] == "workers_ready":
            found = job
    return found
