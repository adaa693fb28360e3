"""A sweep that goes on without whoever asked for it, and the handle of it."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import equal_stores, wait_until_queue_is_empty

import hpc_sweep
from hpc_sweep.cancellation import cancel
from hpc_sweep.errors import DiskError, LeaseError, SpecError, StoreError
from hpc_sweep.store import Holder, Journal, hold, read_events, run_folder
from hpc_sweep.tally import Tally
from hpc_sweep.watching import Watching, watch

Spec = dict[str, Any]

ASK = """
import json, sys, hpc_sweep
handle = hpc_sweep.submit(json.loads(sys.argv[1]))
print(repr(handle), flush=True)
sys.stdin.read()
"""


def test_a_sweep_outlives_the_kernel_that_asked_for_it(spec: Spec, uninterrupted: Path) -> None:
    """It is killed with its whole session, as a hub or a terminal that is closed does it."""
    spec["models"][1]["param_grid"] = {"svr__C": [1, 10, 100, 1000]}
    command = [sys.executable, "-c", ASK, json.dumps(spec)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as kernel:
        assert kernel.stdout is not None
        said = kernel.stdout.readline()
        os.killpg(kernel.pid, signal.SIGKILL)
    assert "<sweep " in said
    assert "running" in said
    handle = hpc_sweep.attach(spec["output"]["store"])
    assert handle.wait(120) == "complete", handle.log()
    assert (handle.results()["partition_status"] > 0).all()
    equal_stores(handle.store, uninterrupted)
    assert "complete: 46 done, 2 empty of 48 partitions" in handle.log()
    assert "\x1b" not in handle.log()
    facts = handle.status()
    assert (facts["state"], facts["share_done"]) == ("complete", 1.0)
    assert f"{handle.store}: complete" in repr(handle)
    assert pickle.loads(pickle.dumps(handle)).status()["state"] == "complete"
    kinds = [event["event"] for event in read_events(run_folder(handle.store).events)]
    assert kinds.count("driver_started") == kinds.count("run_started") == 1


def test_what_is_wrong_is_told_at_once_and_nothing_is_started(spec: Spec, tmp_path: Path) -> None:
    spec["models"][0]["param_grid"] = {"alpah": [1]}
    with pytest.raises(SpecError, match="alpah"):
        hpc_sweep.submit(spec)
    assert not run_folder(spec["output"]["store"]).path.exists()
    with pytest.raises(ValueError, match="chain and drivers need a queue"):
        hpc_sweep.submit({**spec, "models": spec["models"][1:]}, chain=True)
    with pytest.raises(ValueError, match="retry has never; there are failed"):
        hpc_sweep.submit(spec, retry=["never"])
    with pytest.raises(StoreError, match="does not exist, nor a run folder"):
        hpc_sweep.attach(tmp_path / "nothing.zarr")


def test_a_store_that_somebody_works_on_is_refused(spec: Spec) -> None:
    run = run_folder(spec["output"]["store"]).make()
    with hold(run.lease), pytest.raises(LeaseError, match=r"hpc_sweep.attach\('.*results.zarr'\)"):
        hpc_sweep.submit(spec)
    assert "driver_started" not in [event["event"] for event in read_events(run.events)]


@pytest.fixture
def sleeper() -> Any:
    """Return a process that does nothing."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_cancel_ends_the_driver_and_no_other_process(tmp_path: Path, sleeper: Any) -> None:
    store = tmp_path / "results.zarr"
    run = run_folder(store).make()
    driver = Holder.of(sleeper.pid)
    reused = {**driver.place, "ticks": driver.ticks - 1}  # its id was another process's before
    Journal(run.events).write("driver_started", **reused)
    assert cancel(store) == []
    assert sleeper.poll() is None
    Journal(run.events).write("driver_started", **driver.place)
    assert Watching(store).look().state == "running"
    assert hpc_sweep.attach(store).cancel() == [str(driver)]
    assert sleeper.wait(10) == -signal.SIGTERM
    assert Watching(store).look().state != "running"
    *_, last = read_events(run.events)
    assert last["jobs"] == [str(driver)]


def test_a_driver_that_ended_before_it_began_is_no_running_sweep(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "results.zarr").make()
    with subprocess.Popen(["true"]) as process:
        holder = Holder.of(process.pid)
        process.wait()
    Journal(run.events).write("driver_started", **holder.place)
    tally = Tally(run.events)
    tally.look()
    assert tally.detached
    assert Watching(tmp_path / "results.zarr").look().state == "absent"


def test_waiting_ends_in_time(tmp_path: Path) -> None:
    run_folder(tmp_path / "results.zarr").make()
    with pytest.raises(TimeoutError, match=r"after 0 s: .*results\.zarr: absent"):
        hpc_sweep.attach(tmp_path / "results.zarr").wait(0)


def test_what_is_shown_in_a_notebook_is_no_markup(tmp_path: Path) -> None:
    store = tmp_path / "<script>alert(1)</script>.zarr"
    run = run_folder(store).make()
    journal = Journal(run.events)
    journal.write("run_started", share="1/1", cells=10, cells_done=0, fits_per_cell=1, workers=1)
    journal.write("phase", phase="fitting")
    reasons = {"<img src=x onerror=alert(1)>": 3}
    journal.write("unit_done", unit="0_0-1_0-1", fits=5, failed=3, reasons=reasons)
    with hold(run.lease):
        shown = hpc_sweep.attach(store)._repr_html_()
    assert "3 candidates failed: &lt;img src=x onerror=alert(1)&gt;" in shown
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown
    assert "<img" not in shown


def test_showing_a_handle_never_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_folder(tmp_path / "results.zarr").make()
    handle = hpc_sweep.attach(tmp_path / "results.zarr")

    def refuse(watching: Watching) -> Any:
        raise DiskError(errno.ESTALE, "Stale file handle: <b>")

    monkeypatch.setattr(Watching, "look", refuse)
    for text in (repr(handle), handle._repr_html_()):
        assert "cannot be read: " in text
    assert "&lt;b&gt;" in text


@pytest.mark.slurm
def test_on_a_queue_the_driver_is_a_job(spec: Spec, slurm_cluster: Spec) -> None:
    spec["cluster"] = {**slurm_cluster, "workers": 1}
    spec["models"] = spec["models"][:1]
    handle = hpc_sweep.submit(spec)
    assert handle.status()["state"] in ("queued", "running")
    assert "job " in repr(handle) or "running" in repr(handle)
    seen: list[Any] = []
    last = watch(handle.store, seen.append, every_s=0.5, timeout_s=150)
    assert last.state == "complete", handle.log()
    phases = list(dict.fromkeys(each.progress.phase for each in seen))
    assert phases[-1] == "complete"
    assert "fitting" in phases
    assert (handle.results()["partition_status"] > 0).all()
    joined = [e for e in read_events(run_folder(handle.store).events) if "worker_" in e["event"]]
    assert {event["job"] for event in joined} == {
        event["job"]
        for event in read_events(run_folder(handle.store).events)
        if event["event"] == "job_submitted"
    }
    wait_until_queue_is_empty()
