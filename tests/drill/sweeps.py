"""A sweep to be broken: its spec, its command, and how to reach what it consists of."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import xarray as xr
import zarr
from builders import small_disk
from conftest import Spec, forked, hpc_sweep, make_data, small_spec
from disks import FileServer
from outside import OutsideCluster
from ruamel.yaml import YAML
from running import UNFINISHED, Run, job_states, nannies_of, workers_of
from submitted import CHAIN, DRIVERS, JOB, ONE_JOB, OPTIONS, Submitted
from warm import MARK

from hpc_sweep.errors import EXIT_OK, EXIT_PARTITIONS
from hpc_sweep.store import RunFolder, read_events, run_folder

LOCAL, OUTSIDE, SLURM = "local", "outside", "slurm"
"""Where a sweep is at work: on this machine; on a Dask cluster that somebody else has started
there; with workers in jobs. With its driver in a job too: `SUBMITTED`."""

SUBMITTED = (JOB, CHAIN, ONE_JOB, DRIVERS)
ON_QUEUE = (SLURM, *SUBMITTED)
PLACES = (LOCAL, OUTSIDE, *ON_QUEUE)

SLOW_FIT_S = {LOCAL: 0.02, OUTSIDE: 0.02} | dict.fromkeys(ON_QUEUE, 0.04)
BLAMING = {
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "1.0",
}
"""What we advise for schedulers of others, so that a worker's death blames one unit at once."""

LONGEST_S = 900.0
"""How long one command may take."""

DISK_KILOBYTES = 24_000


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code, and all that it printed."""

    code: int
    text: str


@dataclass
class Sweep:
    """One sweep in a folder of its own.

    Attributes
    ----------
    where : str
        One of `PLACES`.
    folder : Path
        Its spec, a copy of its data, and its store.
    disk : Path
        Where its store is; mounted, of `LOCAL`.
    spec : dict
        What its spec file is made of.
    slurm : ThrowawaySlurm or None
        The cluster.
    outside : OutsideCluster or None
        The Dask cluster, of `OUTSIDE`.
    environment : dict
        Of its commands.
    kills : int
        How often something of it was killed: so often may units in flight be repeated.
    fails : bool
        Whether partitions may fail before the last run, which then does those again.
    taken_over : bool
        Whether a driver woke up after another one had taken the store over.
    undo : ExitStack
        What ends an act that lasts.
    mounts : ExitStack
        What unmounts its disks.
    disk_refused : bool
        Whether its disk has refused to write for a while, the logs of drivers in jobs, too.
    has_quota : bool
        Whether its store is on a disk with a quota.
    server : FileServer or None
        By which its disk is seen.
    ended : list of Ended
        Commands so far.
    """

    where: str
    folder: Path
    disk: Path
    spec: Spec
    slurm: Any = None
    outside: OutsideCluster | None = None
    environment: dict[str, str] = field(default_factory=dict)
    kills: int = 0
    fails: bool = False
    taken_over: bool = False
    undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    mounts: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    disk_refused: bool = False
    has_quota: bool = False
    server: FileServer | None = None
    ended: list[Ended] = field(default_factory=list)
    _run: Run | None = None
    _submitted: Submitted | None = None
    _refused: Ended | None = None

    @property
    def mountable(self) -> Path:
        """A folder of its own: all its machines see what is mounted below it."""
        if self.where not in ON_QUEUE:
            return self.folder
        folder = Path(self.slurm.mounts / self.folder.name)
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def store(self) -> Path:
        """Its store."""
        return Path(self.spec["output"]["store"])

    @property
    def data(self) -> Path:
        """Its own copy of the data."""
        return Path(self.spec["data"]["store"])

    @property
    def run_folder(self) -> RunFolder:
        """Its run folder."""
        return run_folder(self.store)

    @property
    def spec_file(self) -> Path:
        """What its command is given."""
        return self.folder / "sweep.yaml"

    @property
    def hindered(self) -> Path:
        """What says how openings of files below stores are hindered, as `faulty` has it."""
        return self.folder / "hindered"

    def move_to(self, disk: Path) -> None:
        """Have its store and its copy of the data elsewhere; before it begins."""
        self.spec["data"]["store"] = str(shutil.move(self.data, disk / "data.zarr"))
        self.spec["output"]["store"] = str(disk / "results.zarr")

    def write_spec(self, spec: Spec | None = None) -> None:
        """Write the spec file."""
        with self.spec_file.open("w") as file:
            YAML(typ="safe", pure=True).dump(self.spec if spec is None else spec, file)

    def all_environment(self) -> dict[str, str]:
        """Return the environment of its commands."""
        return {**os.environ, MARK: str(self.folder), **self.environment}

    def start(self, *options: object) -> None:
        """Start its command, always the same one."""
        environment = self.all_environment()
        if self.outside is not None and not self.outside.is_whole():
            self.outside.stop()
            self.outside.environment = environment | BLAMING
            self.outside.start()
        if self.where not in SUBMITTED:
            self._run = Run(self.spec_file, self.store, *options, env=environment)
            return
        way = OPTIONS[self.where]
        done = hpc_sweep("submit", self.spec_file, *way, *options, env=environment)
        if "as job " in done.stdout:
            job = done.stdout.split("as job ")[1].split(";")[0].split()[0]
            self._submitted = Submitted(self.where, job, self.run_folder)
        else:  # it is refused, or complete
            self._refused = Ended(done.returncode, done.stdout + done.stderr)

    def is_running(self) -> bool:
        """Return whether the command is still at work."""
        if self._submitted is not None:
            return bool(self._submitted.unfinished())
        return self._run is not None and self._run.process.poll() is None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Pause its drivers and workers, on all machines."""
        stopped = self.processes()
        for process in stopped:
            with contextlib.suppress(psutil.Error):
                process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                with contextlib.suppress(psutil.Error):
                    process.resume()

    def text(self) -> str:
        """Return what the command has printed so far."""
        if self._submitted is not None:
            return "\n".join(map(self._submitted.text, self._submitted.jobs()))
        return self._run.text if self._run else ""

    def plain_environment(self) -> dict[str, str]:
        """Return the environment of a command that nothing is done to."""
        return {**os.environ, "PYTHONPATH": self.environment["PYTHONPATH"]}

    def collect(self) -> list[Ended]:
        """Wait for the end of the command, if one was given that was not collected yet.

        Of several drivers and of the links of a chain, each has an end.
        """
        before = len(self.ended)
        if self._run is not None:
            code = self._run.end(LONGEST_S)
            self.ended.append(Ended(code, self._run.text))
            self._run.close()
            self._run = None
        elif self._submitted is not None:
            self.ended += self._ends_of_jobs(self._submitted)
            self._submitted = None
        elif self._refused is not None:
            self.ended.append(self._refused)
            self._refused = None
        return self.ended[before:]

    def whole(self, code: int) -> bool:
        """Return whether a command that ended so has done all that there was to do."""
        return code == EXIT_OK or (self.fails and code == EXIT_PARTITIONS)

    def succeeded(self, ended: list[Ended]) -> bool:
        """Return whether a command has brought the sweep to its end: all drivers, or a link."""
        enough = any if self.where == CHAIN else all
        return enough(each.code == 0 for each in ended)

    def _ends_of_jobs(self, submitted: Submitted) -> list[Ended]:
        end = time.monotonic() + LONGEST_S
        while left := submitted.unfinished():
            assert time.monotonic() < end, f"jobs {left} do not end\n{self.text()}"
            time.sleep(0.5)
        return [Ended(code, submitted.text(job)) for job, code in submitted.codes().items()]

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """Return its events, all or those of a kind, one driver's after the other's."""
        logs = sorted(self.run_folder.path.glob("events*.jsonl"))
        found = [event for log in logs for event in read_events(log)]
        return [event for event in found if kind in ("", event["event"])]

    def reach(self, kind: str, count: int) -> bool:
        """Wait for so many more events of a kind; return whether they came before the end."""
        wanted = len(self.events(kind)) + count
        end = time.monotonic() + LONGEST_S
        while len(self.events(kind)) < wanted:
            if not self.is_running():
                return False
            assert time.monotonic() < end, f"no {kind}\n{self.text()}"
            time.sleep(0.3 if self.where in SUBMITTED else 0.03)
        return True

    def running_jobs(self) -> list[str]:
        """Return the drivers' jobs that run."""
        return [] if self._submitted is None else self._submitted.running()

    def drivers(self) -> list[psutil.Process]:
        """Return the drivers' processes that are there."""
        with contextlib.suppress(psutil.Error):
            if self._run is not None:
                return [psutil.Process(self._run.process.pid)]
        return [] if self._submitted is None else self._submitted.drivers()

    def workers(self) -> list[psutil.Process]:
        """Return its worker processes, without those in which they guard fits."""
        return [process for process in self.forks() if listens(process)]

    def guarded(self) -> list[psutil.Process]:
        """Return the processes in which its workers have fits done that are guarded."""
        return [process for process in self.forks() if not listens(process)]

    def forks(self) -> list[psutil.Process]:
        """Return its worker processes and their children, which come from the same fork server."""
        with contextlib.suppress(psutil.Error):
            if self.outside is not None:
                return forked(psutil.Process(self.outside.nannies.pid)) or [
                    child
                    for child in psutil.Process(self.outside.nannies.pid).children()
                    if "multiprocessing.spawn" in " ".join(child.cmdline())
                ]
            if self.where in (LOCAL, DRIVERS):
                return [worker for driver in self.drivers() for worker in forked(driver)]
            return workers_of(self.store)
        return []

    def nannies(self) -> list[psutil.Process]:
        """Return what looks after the workers."""
        if self.outside is not None:
            return [psutil.Process(self.outside.nannies.pid)] if self.outside.is_whole() else []
        return nannies_of(self.store)

    def worker_jobs(self) -> list[str]:
        """Return its worker jobs that are not known to have ended."""
        states = job_states()
        jobs = [str(event["job"]) for event in self.events("job_submitted")]
        return [job for job in jobs if states.get(job, "") in UNFINISHED]

    def wait_for(self, found: Callable[[], list[Any]], count: int = 1) -> list[Any]:
        """Return what there is once it is that many, or the command has ended."""
        end = time.monotonic() + 60
        while len(there := found()) < count and self.is_running() and time.monotonic() < end:
            time.sleep(0.1)
        return there

    def processes(self) -> list[psutil.Process]:
        """Return every process that was started for it and is alive."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                marked = process.environ().get(MARK) == str(self.folder)
                if marked and process.status() != "zombie":
                    found.append(process)
        return [*(driver for driver in self.drivers() if driver not in found), *found]


def listens(process: psutil.Process) -> bool:
    """Return whether others can connect to a process, as to a worker, on whatever node it is."""
    own = Path(f"/proc/{process.pid}")
    with contextlib.suppress(OSError):
        tables = [(own / "net" / name).read_text() for name in ("tcp", "tcp6")]
        lines = [line for table in tables for line in table.splitlines()]
        words = [line.split() for line in lines]
        waiting = {f"socket:[{word[9]}]" for word in words if word[3] == "0A"}
        return not waiting.isdisjoint(str(file.readlink()) for file in (own / "fd").iterdir())
    return False


@contextlib.contextmanager
def sweep(where: str, folder: Path, data: Path, cluster: Spec, slurm: Any) -> Iterator[Sweep]:
    """Context with a sweep that nothing was done to yet; what it left is gone afterwards.

    Parameters
    ----------
    where : str
        One of `PLACES`.
    folder : Path
        A new one, for the sweep alone.
    data : Path
        Copied into it.
    cluster : dict
        Section of the spec, of sweeps on Slurm.
    slurm : ThrowawaySlurm or None
        The cluster.
    """
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        disk = folder
        if where == LOCAL:
            disk = stack.enter_context(small_disk(folder, DISK_KILOBYTES))
        spec = drill_spec(shutil.copytree(data, folder / "data.zarr"), disk / "results.zarr")
        made = Sweep(where, folder, disk, spec, slurm)
        if where in ON_QUEUE:
            spec["cluster"] = copy.deepcopy(cluster)
        made.environment["TEST_SLOW_FIT"] = str(SLOW_FIT_S[where])
        made.environment["TEST_HINDERED"] = str(made.hindered)
        made.environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
        if where == OUTSIDE:
            made.outside = OutsideCluster(folder / "dask")
            spec["cluster"] = made.outside.section
        try:
            yield made
        finally:
            made.undo.close()
            if made._run is not None:
                made._run.close()
            if made.outside is not None:
                made.outside.stop()
            if where in ON_QUEUE:
                subprocess.run(["scancel", "--user=root"], check=True)
            for process in made.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(made.processes(), timeout=20)
            made.mounts.close()


def drill_spec(data: Path, store: Path) -> Spec:
    """Return the drill's sweep: 192 pixels in 16 chunks; ridge, and a model that waits."""
    spec = small_spec(data, store)
    spec["models"][1] = {"estimator": "faulty.Slow"}
    return spec


def make_drill_data(folder: Path) -> Path:
    """Write the drill's data, with chunks that know when they are damaged."""
    plain = make_data(folder / "plain.zarr", shape=(12, 16), samples=96)
    made = folder / "data.zarr"
    opened = xr.open_zarr(plain, consolidated=False).load()
    chunks = {"latitude": 3, "longitude": 4, "time": 96}
    encoding = {
        name: {
            "chunks": [chunks[str(dim)] for dim in variable.dims],
            "compressors": [zarr.codecs.ZstdCodec(checksum=True)],
        }
        for name, variable in opened.data_vars.items()
    }
    opened.drop_encoding().to_zarr(made, zarr_format=3, encoding=encoding, consolidated=False)
    shutil.rmtree(plain)
    return made
