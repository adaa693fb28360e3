"""Sweeps whose drivers are jobs: one, a chain of them, one with its workers, or several."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
from running import UNFINISHED, driver_of, exit_code, job_states

from hpc_sweep.store import RunFolder, read_events

JOB, CHAIN, ONE_JOB, DRIVERS = "job", "chain", "one-job", "drivers"
"""The driver in a job, with workers in others; a chain of those; with its workers in one job; two
drivers with local workers, which share the work."""

OPTIONS: dict[str, tuple[object, ...]] = {
    JOB: (),
    CHAIN: ("--chain",),
    ONE_JOB: ("--one-job", "--nodes", 3, "--set", "cluster.workers_per_node=1"),
    DRIVERS: ("--drivers", 2, "--set", "cluster.workers=1"),
}
"""Of ``hpc-sweep submit``."""

ENDED_FROM_OUTSIDE = ("CANCELLED", "NODE_FAIL", "TIMEOUT", "OUT_OF_MEMORY")
TERMINATED = -15


class Submitted:
    """The drivers' jobs of one ``hpc-sweep submit``.

    Parameters
    ----------
    where : str
        Which way.
    job : str
        What was submitted first.
    run : RunFolder
        Of the sweep.
    """

    def __init__(self, where: str, job: str, run: RunFolder) -> None:
        self._where = where
        self._first = job
        self._run = run

    def jobs(self) -> list[str]:
        """Return the ids of the drivers' jobs so far."""
        if self._where == DRIVERS:
            return [f"{self._first}_{index}" for index in (1, 2)]
        if self._where != CHAIN:
            return [self._first]
        kinds = [event for event in read_events(self._run.events) if "job" in event]
        links = [str(e["job"]) for e in kinds if e["event"] == "driver_submitted"]
        return links[links.index(self._first) :] if self._first in links else [self._first]

    def unfinished(self) -> list[str]:
        """Return those that have not ended."""
        states = job_states()
        return [job for job in self.jobs() if states.get(job, "") in UNFINISHED]

    def running(self) -> list[str]:
        """Return those that run."""
        states = job_states()
        return [job for job in self.jobs() if states.get(job, "") == "RUNNING"]

    def drivers(self) -> list[psutil.Process]:
        """Return the drivers' processes."""
        found = []
        for job in self.running():
            with contextlib.suppress(psutil.Error, ValueError):
                found.append(driver_of(job))
        return found

    def codes(self) -> dict[str, int]:
        """Return the exit codes of jobs that have ended and had begun, below 0 where killed."""
        states, codes = job_states(), {}
        for job in self.jobs():
            number, _, by = exit_code(job).removeprefix("ExitCode=").partition(":")
            code = int(number) or -int(by)
            if states[job] in ENDED_FROM_OUTSIDE:
                code = code or TERMINATED
            if self.log(job).exists():
                codes[job] = code
        return codes or {self._first: TERMINATED}

    def log(self, job: str) -> Path:
        """Return the log of a driver's job."""
        name = "driver" if self._where in (JOB, CHAIN) else "sweep"
        return self._run.logs / f"{name}-{job}.log"

    def text(self, job: str) -> str:
        """Return what a driver has printed."""
        return self.log(job).read_text(errors="replace") if self.log(job).exists() else ""
