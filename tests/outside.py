"""A Dask cluster that somebody else started: a scheduler and workers, by Dask's own commands."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from distributed import Client

SCHEDULER = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
WORKERS = ["worker", "--nthreads", "1", "--no-dashboard", "--nworkers", "2"]


class OutsideCluster:
    """A scheduler and two workers in a folder.

    Attributes
    ----------
    file : Path
        The scheduler file.
    environment : mapping of str to str, or None
        Of its processes; this one's.
    scheduler, nannies : subprocess.Popen
        The two processes; the second one looks after the workers.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.file = folder / "scheduler.json"
        self._folder = folder
        self.environment = environment

    @property
    def section(self) -> dict[str, object]:
        """The ``cluster`` section of a spec."""
        return {"kind": "external", "scheduler_file": str(self.file), "workers": 2}

    def start(self) -> None:
        """Start it, and wait for its workers: what kills one before that ends Dask's command."""
        self.file.unlink(missing_ok=True)
        self.scheduler = self._dask(*SCHEDULER, "--dashboard-address", "127.0.0.1:0")
        self.start_workers()
        end = time.monotonic() + 60
        while not self.file.exists() and time.monotonic() < end:
            time.sleep(0.1)
        with Client(scheduler_file=str(self.file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)

    def start_workers(self) -> None:
        """Start them, in place of others that are gone."""
        self.nannies = self._dask(*WORKERS, "--local-directory", str(self._folder))

    def _dask(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *words, "--scheduler-file", str(self.file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment,
        )

    def is_whole(self) -> bool:
        """Return whether it runs."""
        return hasattr(self, "scheduler") and self.scheduler.poll() is self.nannies.poll() is None

    def stop(self) -> None:
        """End it."""
        if not hasattr(self, "scheduler"):
            return
        for process in (self.nannies, self.scheduler):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()
