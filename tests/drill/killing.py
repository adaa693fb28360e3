"""Acts on processes."""

from __future__ import annotations

import contextlib
import signal
import time
from random import Random

import psutil
from conftest import hpc_sweep
from submitted import CHAIN, JOB, ONE_JOB
from sweeps import LOCAL, ON_QUEUE, OUTSIDE, PLACES, SLURM, Sweep
from table import act


def _kill(sweep: Sweep, processes: list[psutil.Process], rng: Random, what: str) -> str:
    if not processes:
        return ""
    process = rng.choice(sorted(processes, key=lambda process: process.pid))
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
        sweep.kills += 1
        return f"SIGKILL to {what} {process.pid}"
    return ""


@act(*PLACES)
def kill_driver(sweep: Sweep, rng: Random) -> str:
    return _kill(sweep, sweep.drivers(), rng, "the driver")


@act(*PLACES)
def kill_worker(sweep: Sweep, rng: Random) -> str:
    return _kill(sweep, sweep.wait_for(sweep.workers), rng, "worker")


@act(*PLACES)
def kill_all_workers(sweep: Sweep, rng: Random) -> str:
    workers = sweep.wait_for(sweep.workers, 2)
    return ", ".join(filter(None, (_kill(sweep, [worker], rng, "worker") for worker in workers)))


@act(*PLACES)
def kill_guarded(sweep: Sweep, rng: Random) -> str:
    """The process in which a worker has its fits done, if they are guarded."""
    guards = "timeout" in sweep.spec["search"]
    found = sweep.wait_for(sweep.guarded) if guards else sweep.guarded()
    return _kill(sweep, found, rng, "a process of guarded fits")


@act(OUTSIDE, SLURM, JOB, CHAIN, ONE_JOB)
def kill_nanny(sweep: Sweep, rng: Random) -> str:
    """Of a cluster from outside that is the end of all workers; somebody starts others."""
    did = _kill(sweep, sweep.wait_for(sweep.nannies), rng, "nanny")
    if did and sweep.outside is not None:
        sweep.outside.nannies.wait()
        sweep.outside.start_workers()
    return did


@act(OUTSIDE)
def kill_scheduler(sweep: Sweep, rng: Random) -> str:
    """Elsewhere the scheduler is in the driver's process."""
    assert sweep.outside is not None
    return _kill(sweep, [psutil.Process(sweep.outside.scheduler.pid)], rng, "the scheduler")


@act(LOCAL, *ON_QUEUE)
def kill_fork_server(sweep: Sweep, rng: Random) -> str:
    workers = sweep.wait_for(sweep.workers)
    with contextlib.suppress(psutil.Error):
        servers = [parent for worker in workers if (parent := worker.parent())]
        return _kill(sweep, servers, rng, "fork server")
    return ""


@act(LOCAL, *ON_QUEUE)
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


@act(*PLACES)
def stop_driver(sweep: Sweep, rng: Random) -> str:
    return _stop(sweep.drivers(), rng, "the driver", 8)


@act(*PLACES, waits=True)
def stop_driver_for_long(sweep: Sweep, rng: Random) -> str:
    return _stop(sweep.drivers(), rng, "the driver", 60)


@act(*PLACES)
def stop_worker(sweep: Sweep, rng: Random) -> str:
    return _stop(sweep.wait_for(sweep.workers), rng, "worker", 8)


@act(LOCAL, *ON_QUEUE, waits=True)
def stop_worker_for_long(sweep: Sweep, rng: Random) -> str:
    """Longer than a heartbeat may stand still."""
    sweep.kills += 1
    return _stop(sweep.wait_for(sweep.workers), rng, "worker", 60)


@act(*PLACES, waits=True)
def suspend_everything(sweep: Sweep, rng: Random) -> str:
    """As a queue does to a job that has to wait for another one, and a user with Ctrl-Z."""
    seconds = round(rng.uniform(1, 60), 1)
    sweep.kills += 1
    stopped = {*sweep.processes(), *sweep.nannies(), *sweep.forks()}
    try:
        for process in stopped:
            with contextlib.suppress(psutil.Error):
                process.suspend()
        time.sleep(seconds)
    finally:
        for process in stopped:
            with contextlib.suppress(psutil.Error):
                process.resume()
    return f"SIGSTOP to {len(stopped)} processes for {seconds} s" if stopped else ""


@act(*PLACES)
def signal_driver(sweep: Sweep, rng: Random) -> str:
    number = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
    drivers = sweep.drivers()
    if not drivers or not sweep.reach("run_started", 1 - len(sweep.events("run_started"))):
        return ""
    with contextlib.suppress(psutil.NoSuchProcess):
        rng.choice(drivers).send_signal(number)
        return f"{number.name} to the driver"
    return ""


@act(LOCAL, OUTSIDE, SLURM)
def take_over(sweep: Sweep, rng: Random) -> str:
    """The driver stands still, another one takes its store, and it wakes up again."""
    drivers = sweep.drivers()
    if not drivers or not sweep.run_folder.lease.exists():
        return ""
    (driver,) = drivers
    sweep.kills += 1
    sweep.taken_over = True
    driver.suspend()
    try:
        done = hpc_sweep(
            "run", sweep.spec_file, "--take-over", timeout=200, env=sweep.all_environment()
        )
    finally:
        driver.resume()
    assert sweep.whole(done.returncode), (
        f"exit code {done.returncode} of --take-over\n{done.stderr}"
    )
    return "another driver took the store over from one that stood still"
