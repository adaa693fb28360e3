"""Acts on jobs, nodes and networks."""

from __future__ import annotations

import subprocess
import time
from random import Random

from submitted import CHAIN, JOB
from sweeps import ON_QUEUE, SLURM, SUBMITTED, Sweep
from table import BEFORE, act


@act(SLURM, JOB, CHAIN)
def cancel_worker_job(sweep: Sweep, rng: Random) -> str:
    jobs = sweep.wait_for(sweep.worker_jobs)
    if not jobs:
        return ""
    job = rng.choice(sorted(jobs))
    sweep.kills += 1
    subprocess.run(["scancel", job], check=True)
    return f"scancel of worker job {job}"


@act(*SUBMITTED)
def cancel_driver_job(sweep: Sweep, rng: Random) -> str:
    jobs = sweep.running_jobs()
    if not jobs:
        return ""
    job = rng.choice(jobs)
    subprocess.run(["scancel", job], check=True)
    sweep.kills += 1
    return f"scancel of the driver's job {job}"


def node_at_work(rng: Random) -> str:
    command = ["squeue", "--noheader", "--states=RUNNING", "--format=%N"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if not found:
        return ""
    command = ["scontrol", "show", "hostnames", ",".join(found)]
    nodes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return rng.choice(sorted(set(nodes)))


@act(*ON_QUEUE, waits=True)
def kill_node(sweep: Sweep, rng: Random) -> str:
    sweep.wait_for(sweep.workers)
    node, seconds = node_at_work(rng), round(rng.uniform(0, 30), 1)
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
    node, seconds = node_at_work(rng), round(rng.uniform(shortest, longest), 1)
    if not node:
        return ""
    sweep.kills += 3
    sweep.slurm.cut_network(node)
    try:
        time.sleep(seconds)
    finally:
        sweep.slurm.heal_network(node)
    return f"network of {node} cut for {seconds} s"


@act(*ON_QUEUE)
def cut_network(sweep: Sweep, rng: Random) -> str:
    return _cut_network(sweep, rng, 1, 6)


@act(*ON_QUEUE, waits=True)
def cut_network_for_long(sweep: Sweep, rng: Random) -> str:
    """Until Slurm and Dask give the node up."""
    return _cut_network(sweep, rng, 15, 45)


@act(*ON_QUEUE)
def restart_controller(sweep: Sweep, rng: Random) -> str:
    seconds = round(rng.uniform(0, 6), 1)
    sweep.slurm.kill_controller()
    try:
        time.sleep(seconds)
    finally:
        sweep.slurm.start_controller()
    return f"the queue's controller was away for {seconds} s"


@act(SLURM, JOB, CHAIN, when=BEFORE, waits=True)
def short_walltime(sweep: Sweep, rng: Random) -> str:
    """Jobs that end before the sweep does."""
    sweep.spec["cluster"]["walltime"] = "00:01:00"
    sweep.environment["TEST_SLOW_FIT"] = "0.3"
    sweep.kills += 3
    return "jobs of one minute for a sweep of two"
