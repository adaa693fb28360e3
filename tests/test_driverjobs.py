"""Which submitted drivers have not begun, by event logs, logs and the queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hpc_sweep import clusters, driverjobs
from hpc_sweep.cli import main
from hpc_sweep.clusters import JobState, QueueSilentError
from hpc_sweep.clusters.slurm import SlurmQueue
from hpc_sweep.plan import Share
from hpc_sweep.store import Journal, RunFolder, read_events, run_folder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return run_folder(tmp_path / "x.zarr").make()


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return what the queue says of jobs, by id."""
    told: dict[str, str] = {}

    class Told(SlurmQueue):
        def name(self) -> str:
            if not told:
                raise QueueSilentError("does not answer")
            return "slurm:here"

        def states(self, jobs: Any) -> list[JobState]:
            return [
                JobState(job, state, "", ended=state not in ("PENDING", "RUNNING"))
                for job, state in told.items()
                if job.partition("_")[0] in jobs
            ]

        def cancel(self, jobs: Any) -> None:
            told.update(dict.fromkeys(jobs, "CANCELLED"))

    monkeypatch.setattr(clusters, "make_queue", lambda kind: Told())
    return told


def submitted(run: RunFolder, job: str, after: str | None = None, **facts: Any) -> None:
    facts = {"kind": "slurm", "queue": "slurm:here", **facts}
    Journal(run.events).write("driver_submitted", job=job, after=after, **facts)


def begun(run: RunFolder, job: str) -> None:
    Journal(run.events).write("run_started", job=job)


def jobs(run: RunFolder) -> list[str]:
    return [found.job for found in driverjobs.not_begun(run)]


def test_which_jobs_are_waited_for(run: RunFolder, states: dict[str, str]) -> None:
    submitted(run, "1")
    assert jobs(run) == ["1"]
    begun(run, "1")
    assert jobs(run) == []
    submitted(run, "2")
    submitted(run, "3", after="2")
    assert jobs(run) == ["2", "3"]
    begun(run, "2")
    submitted(run, "4", after="3")
    assert jobs(run) == ["3", "4"]
    begun(run, "4")  # 3 was passed over
    assert jobs(run) == []
    submitted(run, "5")
    submitted(run, "6")  # a new submission: what became of 5 is history
    assert jobs(run) == ["6"]
    begun(run, "")  # by hand
    assert jobs(run) == []
    submitted(run, "7")
    Journal(run.events).write("cancelled", jobs=["7"])
    assert jobs(run) == []


def test_drivers_of_an_array(run: RunFolder, states: dict[str, str]) -> None:
    """Those of three that have not begun, with the log of the first of them."""
    submitted(run, "7", share="array/3")
    begun(RunFolder(run.path, Share(1, 3)), "8")
    begun(RunFolder(run.path, Share(3, 3)), "9")
    (run.logs / "sweep-7_1.log").write_text("complete")
    (run.logs / "sweep-7_2.log").write_text("error: no Python")
    states.update({"7_1": "RUNNING", "7_2": "FAILED", "7_3": "RUNNING"})
    (found,) = driverjobs.not_begun(run)
    assert found.shares == ("2/3",)
    assert found.state == "2 × RUNNING, FAILED"
    assert found.log.endswith("sweep-7_2.log:\nerror: no Python")
    begun(RunFolder(run.path, Share(2, 3)), "10")
    assert driverjobs.not_begun(run) == []


def test_single_drivers_of_several(run: RunFolder, states: dict[str, str]) -> None:
    for index in (1, 2, 3):
        submitted(run, str(index), share=f"{index}/3")
    begun(RunFolder(run.path, Share(2, 3)), "2")
    assert jobs(run) == ["1", "3"]


@pytest.mark.parametrize(
    ("told", "ended", "words"),
    [
        ({"4": "FAILED"}, True, "job 4 ended without beginning: FAILED; the end of its log"),
        ({"4": "PENDING"}, False, "job 4 has not begun: PENDING"),
        ({"5": "x"}, True, "job 4 ended without beginning: not in the queue any more; the end"),
        ({}, None, "job 4 has not begun, and no queue here tells why; the end of its log"),
    ],
)
def test_the_queues_words(
    run: RunFolder, states: dict[str, str], told: dict[str, str], ended: bool | None, words: str
) -> None:
    (run.logs / "driver-4.log").write_text("error: no Python")
    (run.logs / "driver-44.log").write_text("another one's")
    submitted(run, "4")
    states.update(told)
    (found,) = driverjobs.not_begun(run)
    assert found.ended is ended
    assert str(found).startswith(words)
    assert "another" not in str(found)


def test_jobs_of_another_cluster_are_not_asked_for_here(
    run: RunFolder, states: dict[str, str]
) -> None:
    """Ids of two clusters are the same numbers."""
    states["4"] = "RUNNING"
    submitted(run, "4", queue="slurm:elsewhere")
    (found,) = driverjobs.not_begun(run)
    assert found.ended is None


def test_cancel_leaves_jobs_of_another_cluster_alone(
    run: RunFolder, states: dict[str, str]
) -> None:
    """It says so, ends those that are of this one, and those whose cluster nobody knew."""
    states.update({"4": "RUNNING", "5": "RUNNING", "6": "RUNNING", "7": "RUNNING"})
    submitted(run, "4", queue="slurm:elsewhere")
    Journal(run.events).write("job_submitted", job="5", kind="slurm", queue="slurm:elsewhere")
    submitted(run, "6")
    Journal(run.events).write("job_submitted", job="7", kind="slurm", queue="slurm")
    shown = CliRunner().invoke(main, ["cancel", str(run.path).removesuffix(".run")])
    assert shown.exit_code == 3
    assert "cancelled 6, 7; jobs 4, 5 were not cancelled" in shown.output
    assert "they are jobs of slurm:elsewhere, and the queue here is slurm:here" in shown.output
    assert states == {"4": "RUNNING", "5": "RUNNING", "6": "CANCELLED", "7": "CANCELLED"}
    *_, last = read_events(run.events)
    assert (last["event"], last["jobs"]) == ("cancelled", ["6", "7"])


def test_cancel_where_no_queue_answers(run: RunFolder, states: dict[str, str]) -> None:
    """Nothing is cancelled, so that nothing is written down either."""
    submitted(run, "4")
    shown = CliRunner().invoke(main, ["cancel", str(run.path).removesuffix(".run")])
    assert shown.exit_code == 3
    assert "jobs 4 were not cancelled: does not answer; if they are still" in shown.output
    assert [event["event"] for event in read_events(run.events)] == ["driver_submitted"]


@pytest.mark.parametrize(
    ("module", "code", "words"),
    [
        ("numpy", 3, "error: cannot import numpy: libopenblas is not there; the environment of"),
        ("hpc_sweep.results", 1, "a fault of hpc-sweep"),
    ],
)
def test_an_environment_that_is_not_whole(
    module: str, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object, **named: object) -> None:
        raise ImportError("libopenblas is not there", name=module)

    monkeypatch.setattr("hpc_sweep.watching.look_once", broken)
    shown = CliRunner().invoke(main, ["status", "x.zarr"])
    assert shown.exit_code == code
    assert words in shown.output
