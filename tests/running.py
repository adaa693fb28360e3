"""Sweeps at work in other processes: what they print, their drivers, workers and jobs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from conftest import forked, start_run, wait_for_units

from hpc_sweep.store import read_events, run_folder

UNFINISHED = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")


class Run:
    """A run in a process of its own, and what it prints, as it comes."""

    def __init__(self, spec_file: Path, store: Path, *words: object, **options: Any) -> None:
        self.process = start_run(spec_file, *words, **options)
        self.store = store
        self.text = ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line

    def wait_for(self, words: str) -> None:
        """Wait until the process has printed that."""
        end = time.monotonic() + 60
        while words not in self.text:
            assert time.monotonic() < end, self.text
            assert self.process.poll() is None, self.text
            time.sleep(0.05)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the run and its workers."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def paused_in_the_middle(self) -> Iterator[None]:
        """Pause the run and its workers when a unit is done."""
        wait_for_units(self.store, 1, self.process)
        with self.paused():
            yield

    def end(self, timeout: float = 180) -> int:
        """Wait for the process, and return its exit code."""
        code = self.process.wait(timeout)
        self._thread.join()
        return code

    def close(self) -> None:
        """Leave nothing behind, however the test ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.end()
        assert self.process.stdout is not None
        self.process.stdout.close()


def half_written(folder: Path) -> list[Path]:
    """Return what killed writers leave."""
    return [path for path in folder.rglob("*") if path.suffix in (".tmp", ".partial")]


def kinds(store: Path) -> list[str]:
    """Return the kinds of a run's events, in order."""
    return [event["event"] for event in read_events(run_folder(store).events)]


def nannies_of(store: Path) -> list[psutil.Process]:
    """Return the processes that look after a run's workers on nodes."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(run_folder(store).keys) in " ".join(process.info["cmdline"] or [])
        and "hpc_sweep.worker" in process.info["cmdline"]
    ]


def workers_of(store: Path) -> list[psutil.Process]:
    """Return the worker processes that belong to a run, on all nodes; not their nannies."""
    return [worker for nanny in nannies_of(store) for worker in forked(nanny)]


def driver_of(job: str) -> psutil.Process:
    """Return a job's driver."""
    drivers = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found = process.environ()
            array = f"{found.get('SLURM_ARRAY_JOB_ID')}_{found.get('SLURM_ARRAY_TASK_ID')}"
            if job in (found.get("SLURM_JOB_ID"), array) and "run" in process.cmdline():
                drivers.append(process)
    (driver,) = drivers
    return driver


def kill_driver(job: str) -> None:
    """Send SIGKILL to a job's driver; scancel, asked for that, sends SIGTERM first."""
    driver_of(job).kill()


def job_states() -> dict[str, str]:
    """Return the states of all jobs that Slurm remembers, by id."""
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(line.split() for line in lines)


def wait_for_end(job: str, seconds: float = 150) -> str:
    """Return the state of a job once it has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = job_states()[job]
        if state not in UNFINISHED:
            return state
        time.sleep(1)  # each look is a process
    raise AssertionError(f"job {job} is still {state}")


def exit_code(job: str) -> str:
    """Return a job's exit code and signal, as Slurm shows it."""
    command = ["scontrol", "show", "job", job]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return next(word for word in shown.split() if word.startswith("ExitCode="))
