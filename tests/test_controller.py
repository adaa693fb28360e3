"""A controller of Slurm that is really down: while a sweep runs, starts, or is submitted."""

from __future__ import annotations

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
    repeated_units,
    start_run,
    wait_for_units,
    wait_until_queue_is_empty,
)
from running import job_states, wait_for_end
from test_slurm import driver_jobs, submit, wait_for_event

from hpc_sweep.spec import load_spec
from hpc_sweep.store import read_events, run_folder
from hpc_sweep.sweep import execute

WriteSpec = Callable[[Spec], Path]
pytestmark = pytest.mark.slurm


@pytest.fixture(autouse=True)
def whole_slurm(slurm: Any) -> Iterator[None]:
    """Leave a controller and three nodes to the next test, and no job."""
    yield
    slurm.start_controller()
    for node in ("node1", "node2", "node3"):
        slurm.start_node(node)
    subprocess.run(["scancel", "--user=root"], check=True)
    wait_until_queue_is_empty()


@pytest.fixture
def slow_spec(
    spec: Spec, tmp_path: Path, faulty_on_workers: None, monkeypatch: pytest.MonkeyPatch
) -> tuple[Spec, Path]:
    """Return a spec whose fits take a while on workers, and its store made in one go."""
    spec["models"] = [{"estimator": "faulty.Slow"}]
    store = spec["output"]["store"]
    spec["output"]["store"] = str(tmp_path / "whole.zarr")
    whole = execute(load_spec(spec)).store.path
    spec["output"]["store"] = store
    monkeypatch.setenv("TEST_SLOW_FIT", "0.1")
    monkeypatch.setenv("TEST_SLOW_LOG", str(tmp_path / "fits.log"))
    return spec, whole


def wait_for_reason(store: Path, words: str) -> None:
    """Wait until the driver has heard these words when it asked for workers."""
    end = time.monotonic() + 150
    while not any(
        words in event.get("reason", "") for event in read_events(run_folder(store).events)
    ):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.waits
def test_a_controller_that_is_down_during_a_run(
    slow_spec: tuple[Spec, Path], slurm: Any, slurm_cluster: Spec, write_spec: WriteSpec
) -> None:
    """Meanwhile the node of the only worker dies: it is replaced when the controller is back."""
    spec, whole = slow_spec
    store = Path(spec["output"]["store"])
    spec["cluster"] = {**slurm_cluster, "workers": 1, "directives": ["--no-requeue"]}
    process = start_run(write_spec(spec))
    try:
        wait_for_units(store, 1, process)
        command = ["squeue", "--noheader", "--format=%N"]
        (node,) = subprocess.run(command, capture_output=True, text=True).stdout.split()
        slurm.kill_controller()
        slurm.kill_node(node)
        wait_for_reason(store, "Unable to contact slurm controller")
        assert process.poll() is None
        slurm.start_controller()
        output = process.communicate(timeout=280)[0]
    finally:
        process.kill()
    assert process.returncode == 0, output
    # squeue or sbatch, whichever was asked in the minute of its silence
    assert "waiting for workers: " in output
    assert "Unable to contact slurm controller" in output
    assert "Traceback" not in output
    equal_stores(store, whole)
    again, twice = repeated_units(store)
    assert (again, twice) == ([], [])
    events = [event["event"] for event in read_events(run_folder(store).events)]
    assert events.count("job_submitted") == 2


def test_a_run_that_starts_while_the_controller_is_down(
    spec: Spec, slurm: Any, slurm_cluster: Spec, write_spec: WriteSpec
) -> None:
    """It waits, says for what, and goes on."""
    store = Path(spec["output"]["store"])
    slurm.kill_controller()
    spec["cluster"] = {**slurm_cluster, "workers": 1}
    process = start_run(write_spec(spec))
    try:
        wait_for_reason(store, "the queue takes no job now: sbatch: error: ")
        slurm.start_controller()
        output = process.communicate(timeout=150)[0]
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "waiting for workers: the queue takes no job now: sbatch: error: " in output
    assert "Unable to contact slurm controller" in output


def test_submit_while_the_controller_is_down(
    spec: Spec, slurm: Any, slurm_cluster: Spec, write_spec: WriteSpec
) -> None:
    """One message, nothing half-way; the same command works later."""
    store = Path(spec["output"]["store"])
    spec["cluster"] = {**slurm_cluster, "workers": 1}
    spec_file = write_spec(spec)
    slurm.kill_controller()
    for options in (), ("--chain",), ("--drivers", 2):
        done = hpc_sweep("submit", spec_file, *options)
        assert done.returncode == 3
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: the queue does not answer: sbatch: error: ")
        assert "Unable to contact slurm controller" in line
        assert "nothing was submitted, the same command can be tried again" in line
        assert "refused" not in line
        assert driver_jobs(store) == []
    assert hpc_sweep("status", store).returncode == 0
    slurm.start_controller()
    job = submit(spec_file, "--drivers", 2)
    for each in (f"{job}_1", f"{job}_2"):
        assert wait_for_end(each) == "COMPLETED"


@pytest.mark.waits
def test_a_link_of_a_chain_that_meets_a_silent_controller(
    slow_spec: tuple[Spec, Path], slurm: Any, slurm_cluster: Spec, write_spec: WriteSpec
) -> None:
    """It has no successor but the first one, until it asks again at its end."""
    spec, whole = slow_spec
    store = Path(spec["output"]["store"])
    go = store.with_name("go")
    prologue = [f"until [ -e {go} ]; do sleep 0.1; done"]
    spec["cluster"] = {**slurm_cluster, "workers": 1, "prologue": prologue}
    first = submit(write_spec(spec), "--chain")
    end = time.monotonic() + 60
    while job_states()[first] != "RUNNING":
        assert time.monotonic() < end
        time.sleep(0.2)
    slurm.kill_controller()
    go.touch()
    wait_for_reason(store, "the queue takes no job now")
    log = run_folder(store).logs / f"driver-{first}.log"
    assert "no successor could be queued from here: scontrol failed: " in log.read_text()
    assert len(driver_jobs(store)) == 2
    slurm.start_controller()
    wait_for_event(store, "unit_done", 150)
    subprocess.run(["scancel", "--batch", "--signal=USR1", first], check=True)
    wait_for_end(first)
    assert "queued job" in log.read_text()
    links = driver_jobs(store)
    assert wait_for_end(links[1]) == "COMPLETED"
    wait_until_queue_is_empty()
    equal_stores(store, whole)
