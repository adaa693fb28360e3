"""What the queue's answers about worker jobs mean, over time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_sweep.clusters.queue import JobState, log_tail
from hpc_sweep.clusters.watching import ABSENT_S, Watch, described
from hpc_sweep.errors import ClusterError


class Clock:
    """Is wound forward by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(tmp_path: Path, clock: Clock) -> Watch:
    return Watch(tmp_path, 3600.0, clock)


def running(job: str) -> JobState:
    return JobState(job, "RUNNING", "None", ended=False, ran_s=100.0)


def test_a_job_that_is_left_out_for_a_while_has_not_ended(watch: Watch, clock: Clock) -> None:
    """Each answer that names it begins the time anew."""
    for left_out_s in (ABSENT_S, ABSENT_S - 1):
        assert watch.ended(["1", "2"], [running("1"), running("2")]) == set()
        clock.now += 60
        assert watch.ended(["1", "2"], [running("1")]) == set()
        clock.now += left_out_s
        assert watch.ended(["1", "2"], [running("1")]) == set()
    clock.now += 2
    assert watch.ended(["1", "2"], [running("1")]) == {"2"}


def test_silence_is_no_absence(watch: Watch, clock: Clock) -> None:
    """After an hour without any answer, the first one that leaves a job out is a hiccup."""
    watch.ended(["1"], [running("1")])
    clock.now += 3600
    assert watch.ended(["1"], []) == set()
    clock.now += 60
    assert watch.ended(["1"], [running("1")]) == set()


def test_a_job_that_the_queue_never_knew(watch: Watch, clock: Clock) -> None:
    assert watch.ended(["1"], []) == set()
    clock.now += ABSENT_S + 1
    assert watch.ended(["1"], []) == {"1"}


def test_quick_ends_are_counted_once_and_in_a_row(watch: Watch) -> None:
    quick = [JobState(str(n), "FAILED", "", ended=True, ran_s=3.0) for n in range(4)]
    worked = JobState("9", "TIMEOUT", "", ended=True, ran_s=3000.0)
    assert watch.ended(["0", "1"], quick[:2]) == {"0", "1"}
    assert watch.ended(["0", "1"], quick[:2]) == {"0", "1"}
    watch.ended(["9"], [worked])
    watch.ended(["0", "1", "2", "3"], quick[:1])
    watch.ended(["2", "3"], quick[2:])
    last = JobState("5", "FAILED", "NonZeroExitCode", ended=True, ran_s=3.0)
    with pytest.raises(ClusterError, match=r"3 worker jobs in a row.*5, FAILED \(NonZ"):
        watch.ended(["5"], [last])


def test_words() -> None:
    assert described([], 0) == "no job is in the queue"
    assert described([running("1"), running("2")], 3) == (
        "2 job(s) RUNNING, 1 job(s) not in the queue"
    )


def test_the_log_of_a_worker_that_did_not_reach_the_driver_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as closed:  # bound and never listening: nobody answers there
        closed.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard"]
        quick = os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
        with (tmp_path / "worker-7.out").open("w") as log:
            subprocess.run(command, env=quick, stderr=log, timeout=60, check=False)
    said = log_tail(tmp_path, "7")
    assert said.startswith(f"the end of its log {tmp_path}/worker-7.out:")
    assert f"could not reach the driver at {address}" in said
    assert "cluster.scheduler_interface" in said
