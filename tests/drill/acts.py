"""What the drill does to a sweep: one small function for each act, in a table.

Acts are done before the first command, in the middle of it, or to the finished store. Each
returns what it did, in a few words, ``""`` where there was nothing to do it to. What lasts is
ended through `Sweep.undo`.
"""

from __future__ import annotations

import contextlib
import copy
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil
from builders import fill, make_read_only
from conftest import hpc_sweep
from sweeps import JOB, LOCAL, OUTSIDE, SLURM, Sweep

BEFORE, MIDDLE, AFTER = "before", "middle", "after"

Do = Callable[[Sweep, Random], str]


@dataclass(frozen=True)
class Act:
    """One act.

    Attributes
    ----------
    name : str
        What it is called.
    do : callable
        What it does.
    where : tuple of str
        Which sweeps it can be done to.
    when : str
        `BEFORE` the first command, in the `MIDDLE` of one, or `AFTER` the last one.
    prepare : callable
        What has to be done to the sweep before its first command.
    waits : bool
        Whether it needs most of a minute.
    is_possible : callable
        Whether this machine has what it takes.
    """

    name: str
    do: Do
    where: tuple[str, ...]
    when: str
    prepare: Callable[[Sweep], None]
    waits: bool
    is_possible: Callable[[], bool]


TABLE: dict[str, Act] = {}


def act(
    *where: str,
    when: str = MIDDLE,
    prepare: Callable[[Sweep], None] = lambda sweep: None,
    waits: bool = False,
    is_possible: Callable[[], bool] = lambda: True,
) -> Callable[[Do], Do]:
    """Put a function into the table."""

    def add(do: Do) -> Do:
        TABLE[do.__name__] = Act(do.__name__, do, where, when, prepare, waits, is_possible)
        return do

    return add


# processes


def _kill(sweep: Sweep, processes: list[psutil.Process], rng: Random, what: str) -> str:
    if not processes:
        return ""
    process = rng.choice(sorted(processes, key=lambda process: process.pid))
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
        sweep.kills += 1
        return f"SIGKILL to {what} {process.pid}"
    return ""


@act(LOCAL, OUTSIDE, SLURM, JOB)
def kill_driver(sweep: Sweep, rng: Random) -> str:
    driver = sweep.driver()
    return _kill(sweep, [driver] if driver else [], rng, "the driver")


@act(LOCAL, OUTSIDE, SLURM, JOB)
def kill_worker(sweep: Sweep, rng: Random) -> str:
    return _kill(sweep, sweep.wait_for(sweep.workers), rng, "worker")


@act(LOCAL, OUTSIDE, SLURM, JOB)
def kill_all_workers(sweep: Sweep, rng: Random) -> str:
    workers = sweep.wait_for(sweep.workers, 2)
    return ", ".join(filter(None, (_kill(sweep, [worker], rng, "worker") for worker in workers)))


@act(OUTSIDE, SLURM, JOB)
def kill_nanny(sweep: Sweep, rng: Random) -> str:
    return _kill(sweep, sweep.wait_for(sweep.nannies), rng, "nanny")


@act(OUTSIDE)
def kill_scheduler(sweep: Sweep, rng: Random) -> str:
    """Elsewhere the scheduler is in the driver's process."""
    assert sweep.outside is not None
    return _kill(sweep, [psutil.Process(sweep.outside.scheduler.pid)], rng, "the scheduler")


@act(LOCAL, SLURM, JOB)
def kill_fork_server(sweep: Sweep, rng: Random) -> str:
    workers = sweep.wait_for(sweep.workers)
    with contextlib.suppress(psutil.Error):
        servers = [parent for worker in workers if (parent := worker.parent())]
        return _kill(sweep, servers, rng, "fork server")
    return ""


@act(LOCAL, SLURM, JOB)
def kill_everything(sweep: Sweep, rng: Random) -> str:
    """All processes at once, as when the power of the machine goes."""
    processes = sweep.processes()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    sweep.kills += 3
    return f"SIGKILL to {len(processes)} processes" if processes else ""


def _stop(processes: list[psutil.Process], rng: Random, what: str, longest: float) -> str:
    if not processes:
        return ""
    process = rng.choice(sorted(processes, key=lambda process: process.pid))
    seconds = round(rng.uniform(1, longest), 1)
    with contextlib.suppress(psutil.NoSuchProcess):
        process.suspend()
        time.sleep(seconds)
        process.resume()
        return f"SIGSTOP to {what} {process.pid} for {seconds} s"
    return ""


@act(LOCAL, OUTSIDE, SLURM, JOB)
def stop_driver(sweep: Sweep, rng: Random) -> str:
    driver = sweep.driver()
    return _stop([driver] if driver else [], rng, "the driver", 8)


@act(LOCAL, OUTSIDE, SLURM, JOB, waits=True)
def stop_driver_for_long(sweep: Sweep, rng: Random) -> str:
    driver = sweep.driver()
    return _stop([driver] if driver else [], rng, "the driver", 60)


@act(LOCAL, OUTSIDE, SLURM, JOB)
def stop_worker(sweep: Sweep, rng: Random) -> str:
    return _stop(sweep.wait_for(sweep.workers), rng, "worker", 8)


@act(LOCAL, SLURM, JOB, waits=True)
def stop_worker_for_long(sweep: Sweep, rng: Random) -> str:
    """Longer than a heartbeat may stand still."""
    sweep.kills += 1
    return _stop(sweep.wait_for(sweep.workers), rng, "worker", 60)


@act(LOCAL, OUTSIDE, SLURM, JOB)
def signal_driver(sweep: Sweep, rng: Random) -> str:
    number = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
    driver = sweep.driver()
    if driver is None or not sweep.reach("run_started", 1 - len(sweep.events("run_started"))):
        return ""
    with contextlib.suppress(psutil.NoSuchProcess):
        driver.send_signal(number)
        return f"{number.name} to the driver"
    return ""


@act(LOCAL, OUTSIDE, SLURM)
def take_over(sweep: Sweep, rng: Random) -> str:
    """The driver stands still, another one takes its store, and it wakes up again."""
    driver = sweep.driver()
    if driver is None or not sweep.run_folder.lease.exists():
        return ""
    sweep.kills += 1
    driver.suspend()
    try:
        done = hpc_sweep(
            "run", sweep.spec_file, "--take-over", timeout=200, env=sweep.all_environment()
        )
    finally:
        driver.resume()
    assert done.returncode == 0, f"exit code {done.returncode} of --take-over\n{done.stderr}"
    return "another driver took the store over from one that stood still"


# jobs, nodes, networks


@act(SLURM, JOB)
def cancel_worker_job(sweep: Sweep, rng: Random) -> str:
    jobs = sweep.wait_for(sweep.worker_jobs)
    if not jobs:
        return ""
    job = rng.choice(sorted(jobs))
    sweep.kills += 1
    subprocess.run(["scancel", job], check=True)
    return f"scancel of worker job {job}"


@act(JOB)
def cancel_driver_job(sweep: Sweep, rng: Random) -> str:
    subprocess.run(["scancel", sweep.job], check=True)
    sweep.kills += 1
    return f"scancel of the driver's job {sweep.job}"


def _node_at_work(rng: Random) -> str:
    command = ["squeue", "--noheader", "--states=RUNNING", "--format=%N"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return rng.choice(sorted(set(found))) if found else ""


@act(SLURM, JOB, waits=True)
def kill_node(sweep: Sweep, rng: Random) -> str:
    sweep.wait_for(sweep.workers)
    node, seconds = _node_at_work(rng), round(rng.uniform(0, 30), 1)
    if not node:
        return ""
    sweep.kills += 3
    sweep.slurm.kill_node(node)
    try:
        time.sleep(seconds)
    finally:
        sweep.slurm.start_node(node)
    return f"power of {node} cut for {seconds} s"


def _cut_network(sweep: Sweep, rng: Random, shortest: float, longest: float) -> str:
    sweep.wait_for(sweep.workers)
    node, seconds = _node_at_work(rng), round(rng.uniform(shortest, longest), 1)
    if not node:
        return ""
    sweep.kills += 3
    sweep.slurm.cut_network(node)
    try:
        time.sleep(seconds)
    finally:
        sweep.slurm.heal_network(node)
    return f"network of {node} cut for {seconds} s"


@act(SLURM, JOB)
def cut_network(sweep: Sweep, rng: Random) -> str:
    return _cut_network(sweep, rng, 1, 6)


@act(SLURM, JOB, waits=True)
def cut_network_for_long(sweep: Sweep, rng: Random) -> str:
    """Until Slurm and Dask give the node up."""
    return _cut_network(sweep, rng, 15, 45)


@act(SLURM, JOB)
def restart_controller(sweep: Sweep, rng: Random) -> str:
    seconds = round(rng.uniform(0, 6), 1)
    sweep.slurm.kill_controller()
    try:
        time.sleep(seconds)
    finally:
        sweep.slurm.start_controller()
    return f"the queue's controller was away for {seconds} s"


@act(SLURM, JOB, when=BEFORE, waits=True)
def short_walltime(sweep: Sweep, rng: Random) -> str:
    """Worker jobs that end before the sweep does."""
    sweep.spec["cluster"]["walltime"] = "00:01:00"
    sweep.environment["TEST_SLOW_FIT"] = "0.3"
    sweep.kills += 3
    return "worker jobs of one minute for a sweep of two"


# disks


def _while_paused(sweep: Sweep, rng: Random, hinder: Callable[[], Callable[[], object]]) -> float:
    """Hinder the disk while nobody writes, then for some seconds while everybody does."""
    seconds = round(rng.uniform(1, 8), 1)
    with sweep.paused():
        heal = hinder()
    try:
        time.sleep(seconds)
    finally:
        heal()
    return seconds


@act(LOCAL)
def fill_disk(sweep: Sweep, rng: Random) -> str:
    disk = sweep.store.parent

    def hinder() -> Callable[[], object]:
        fill(disk)
        return (disk / "filling").unlink

    return f"the disk was full for {_while_paused(sweep, rng, hinder)} s"


@act(LOCAL)
def make_disk_read_only(sweep: Sweep, rng: Random) -> str:
    disk = str(sweep.store.parent)

    def heal() -> None:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)

    def hinder() -> Callable[[], object]:
        end = time.monotonic() + 20
        while True:  # refused while a file is open for writing
            try:
                make_read_only(sweep.store.parent)
            except subprocess.CalledProcessError:
                if time.monotonic() > end:
                    return lambda: None
                time.sleep(0.05)
            else:
                return heal

    return f"the disk was read-only for {_while_paused(sweep, rng, hinder)} s"


@act(LOCAL, OUTSIDE, SLURM, JOB)
def slow_files(sweep: Sweep, rng: Random) -> str:
    """From now on, as long as this command runs."""
    seconds = round(rng.uniform(0.02, 0.2), 2)
    sweep.hindered.write_text(f"slow {seconds}")
    sweep.undo.callback(sweep.hindered.unlink, missing_ok=True)
    return f"each opening of a file took {seconds} s longer"


@act(LOCAL, OUTSIDE, SLURM, JOB)
def quota(sweep: Sweep, rng: Random) -> str:
    """No new file for some seconds. It is said where files are opened: this kernel has no quota."""
    seconds = round(rng.uniform(1, 8), 1)
    sweep.hindered.write_text("quota")
    try:
        time.sleep(seconds)
    finally:
        sweep.hindered.unlink()
    return f"over quota for {seconds} s"


# units


def _misbehave(sweep: Sweep, how: str) -> str:
    """Put a candidate into the search that misbehaves in one partition of a hundred."""
    model = {"name": how, "estimator": {"faulty.Rare": {"how": how, "above": 0.22}}}
    sweep.spec["models"].append(model)
    if how in ("hang", "loop"):
        sweep.spec["search"]["timeout"] = 2
    return f"fits of some partitions: {how}"


@act(LOCAL, OUTSIDE, SLURM, JOB, when=BEFORE)
def a_fit_segfaults(sweep: Sweep, rng: Random) -> str:
    return _misbehave(sweep, "crash")


@act(LOCAL, OUTSIDE, SLURM, JOB, when=BEFORE)
def a_fit_ends_its_process(sweep: Sweep, rng: Random) -> str:
    return _misbehave(sweep, "kill")


@act(LOCAL, SLURM, JOB, when=BEFORE)
def a_fit_eats_memory(sweep: Sweep, rng: Random) -> str:
    return _misbehave(sweep, "memory")


@act(LOCAL, SLURM, JOB, when=BEFORE)
def a_fit_never_ends(sweep: Sweep, rng: Random) -> str:
    return _misbehave(sweep, rng.choice(["hang", "loop"]))


# damage


def _flip(file: Path, rng: Random) -> int:
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return place


@act(LOCAL, OUTSIDE, SLURM, JOB, when=BEFORE)
def flip_input(sweep: Sweep, rng: Random) -> str:
    """A byte of a chunk of the data; it is mended before the last command."""
    chunks = [
        file for name in ("wet", "green", "slope") for file in (sweep.data / name / "c").rglob("*")
    ]
    file = rng.choice(sorted(each for each in chunks if each.is_file()))
    whole = file.read_bytes()
    place = _flip(file, rng)
    sweep.undo.callback(file.write_bytes, whole)
    sweep.fails = True
    return f"byte {place} of {file.relative_to(sweep.data)} flipped"


@act(LOCAL, OUTSIDE, SLURM, JOB)
def flip_part(sweep: Sweep, rng: Random) -> str:
    """A byte of what a unit has left, after the driver was killed."""
    kill_driver(sweep, rng)
    sweep.collect()
    parts = sorted(sweep.run_folder.parts.iterdir()) if sweep.run_folder.parts.exists() else []
    if not parts:
        return "the driver was killed, there were no parts"
    part = rng.choice(parts)
    sweep.kills += 1
    return f"byte {_flip(part, rng)} of part {part.name} flipped"


def _mended(sweep: Sweep, what: str) -> str:
    """Do what ``hpc-sweep verify`` says, and run the same command again."""
    told = hpc_sweep("verify", sweep.store, env=sweep.all_environment())
    if "half finished" not in told.stdout:  # as it is without a status
        assert told.returncode == 2, f"verify saw nothing: {what}\n{told.stdout}{told.stderr}"
    remedies = re.findall(r"^ +delete (.+?)(?:,| and) (?:then )?run", told.stdout, re.MULTILINE)
    for files in remedies:
        for file in files.split():
            Path(file).unlink(missing_ok=True)
    assert remedies or "run the spec again" in told.stdout or not told.returncode, told.stdout
    sweep.kills += 1
    sweep.start()
    ended = sweep.collect()
    assert ended is not None
    assert ended.code == 0, ended.text
    return f"{what}; mended as verify says"


def _result_files(sweep: Sweep) -> list[Path]:
    """Return files of arrays along partitions; the others are made once, with the store."""
    along = {file.parent.name for file in sweep.store.glob("*/c.0.0*")}
    return sorted(file for name in along for file in (sweep.store / name).glob("c.*"))


@act(LOCAL, OUTSIDE, SLURM, JOB, when=AFTER)
def flip_result(sweep: Sweep, rng: Random) -> str:
    file = rng.choice(_result_files(sweep))
    return _mended(sweep, f"byte {_flip(file, rng)} of {file.parent.name}/{file.name} flipped")


@act(LOCAL, OUTSIDE, SLURM, JOB, when=AFTER)
def remove_result(sweep: Sweep, rng: Random) -> str:
    file = rng.choice(_result_files(sweep))
    file.unlink()
    return _mended(sweep, f"{file.parent.name}/{file.name} removed")


def _keep_models(sweep: Sweep) -> None:
    """Have the best models stored."""
    sweep.spec["output"] |= {"models": "skops", "trust": ["faulty.Slow", "faulty.Rare"]}


@act(LOCAL, OUTSIDE, SLURM, JOB, when=BEFORE, prepare=_keep_models)
def keep_models(sweep: Sweep, rng: Random) -> str:
    return "models are stored"


@act(LOCAL, OUTSIDE, SLURM, JOB, when=AFTER, prepare=_keep_models)
def flip_model(sweep: Sweep, rng: Random) -> str:
    folder = sweep.store.with_name(f"{sweep.store.name}.models")
    file = rng.choice(sorted(folder.iterdir()))
    return _mended(sweep, f"byte {_flip(file, rng)} of models {file.name} flipped")


# people


@act(LOCAL, OUTSIDE, SLURM)
def second_driver(sweep: Sweep, rng: Random) -> str:
    """It is refused, or finds nothing to do where the first one has just ended."""
    if not sweep.run_folder.lease.exists():
        return ""
    done = hpc_sweep("run", sweep.spec_file, timeout=200, env=sweep.all_environment())
    refused = done.returncode == 3 and "another driver works on this store" in done.stderr
    first_is_gone = done.returncode == 0 and not sweep.is_running()
    assert refused or first_is_gone, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return "a second driver was refused" if refused else "a second driver came after the first"


@act(LOCAL, OUTSIDE, SLURM)
def edit_spec(sweep: Sweep, rng: Random) -> str:
    """The running driver goes on; the next command is refused until the edit is taken back."""
    edited = copy.deepcopy(sweep.spec)
    edited["search"]["cv"] = 4
    sweep.write_spec(edited)
    try:
        if sweep.is_running():
            sweep.reach("unit_done", 1)
        done = hpc_sweep("run", sweep.spec_file, timeout=200, env=sweep.all_environment())
    finally:
        sweep.write_spec()
    assert done.returncode in (2, 3), f"exit code {done.returncode}\n{done.stderr}"
    assert "search.cv" in done.stderr, done.stderr
    return "the spec said cv 4 for a while, and was refused"


@act(LOCAL, OUTSIDE, SLURM)
def look_at_it(sweep: Sweep, rng: Random) -> str:
    """``status``, ``verify`` and ``results`` while it is at work: they never disturb."""
    if not (sweep.store / "zarr.json").exists():
        return ""
    for command in ("status", "verify", "results"):
        done = hpc_sweep(command, sweep.store, timeout=100, env=sweep.all_environment())
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return "status, verify, results"
