"""Start many workers on this machine: Dask's default way beside ours, in one run.

A way is ready when every worker has run a task that needs the libraries. Its memory is the sum
of the proportional set sizes of its processes (a page that ten share counts a tenth in each),
and beside it the sum of the resident ones.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from distributed import Client, LocalCluster, Security

from hpc_sweep.clusters.base import WORKER_ENVIRONMENT
from hpc_sweep.clusters.certificates import make_certificates
from hpc_sweep.processes import FILES_PER_CONNECTION, raise_open_files

WAYS = {"dask worker": "distributed.cli.dask_worker", "hpc_sweep.worker": "hpc_sweep.worker"}


@dataclass(frozen=True)
class Measured:
    """One start of all workers.

    Attributes
    ----------
    way : str
        Key of `WAYS`.
    connected_s, ready_s : float
        Until all workers were known to the scheduler, and until all had run a task.
    pss_bytes, rss_bytes : int
        Of all its processes, then.
    files, scheduler_files : int
        Open files of the process with the nannies, and of the scheduler's.
    """

    way: str
    connected_s: float
    ready_s: float
    pss_bytes: int
    rss_bytes: int
    files: int
    scheduler_files: int


def use_libraries() -> int:
    """Need what a unit needs; returns the process."""
    import hpc_sweep.work  # noqa: F401

    return os.getpid()


def measure(way: str, workers: int, security: Security, timeout: float) -> Measured:
    """Start the workers one way, wait, and end them."""
    command = [sys.executable, "-m", WAYS[way], "--nworkers", str(workers), "--nthreads", "1"]
    command += ["--no-dashboard", "--memory-limit", "0", "--death-timeout", str(timeout)]
    for name, text in security.get_tls_config_for_role("worker").items():
        if name != "ciphers":
            command += [f"--tls-{name.replace('_', '-')}", text]
    with (
        LocalCluster(
            n_workers=0,
            host="127.0.0.1",
            protocol="tls://",
            security=security,
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
        ) as cluster,
        Client(cluster) as client,
        tempfile.TemporaryFile() as log,
    ):
        began = time.perf_counter()
        process = psutil.Popen(
            [*command, cluster.scheduler_address],
            env={**os.environ, **WORKER_ENVIRONMENT},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            client.wait_for_workers(workers, timeout=timeout)
            connected = time.perf_counter() - began
            assert len(set(client.run(use_libraries).values())) == workers
            ready = time.perf_counter() - began
            memory = [each.memory_full_info() for each in family(process)]
            return Measured(
                way,
                connected,
                ready,
                sum(each.pss for each in memory),
                sum(each.rss for each in memory),
                process.num_fds(),
                psutil.Process().num_fds(),
            )
        except TimeoutError:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-2000:])
            raise
        finally:
            children = process.children(recursive=True)
            process.terminate()
            psutil.wait_procs([process, *children], timeout=60)


def family(process: psutil.Process) -> Sequence[psutil.Process]:
    """Return a process and all below it."""
    return [process, *process.children(recursive=True)]


def table(found: Sequence[Measured]) -> str:
    """Return the medians by way, and what the default takes times ours, round by round."""
    lines = [
        "| way | connected, s | ready, s | PSS, GB | RSS, GB | files a worker |",
        "|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        rows = [row for row in found if row.way == way]
        values = (
            f"{statistics.median(row.connected_s for row in rows):.1f}",
            f"{statistics.median(row.ready_s for row in rows):.1f}",
            f"{statistics.median(row.pss_bytes for row in rows) / 1e9:.2f}",
            f"{statistics.median(row.rss_bytes for row in rows) / 1e9:.2f}",
            f"{rows[0].files / ARGUMENTS.workers:.1f}",
        )
        lines.append(f"| {way} | {' | '.join(values)} |")
    default, ours = ([row for row in found if row.way == way] for way in WAYS)
    pairs = list(zip(default, ours, strict=True))
    ratios = {
        "ready": [a.ready_s / b.ready_s for a, b in pairs],
        "PSS": [a.pss_bytes / b.pss_bytes for a, b in pairs],
        "RSS": [a.rss_bytes / b.rss_bytes for a, b in pairs],
    }
    lines.append("")
    for name, values in ratios.items():
        spread = f"{min(values):.1f}–{max(values):.1f}"
        lines.append(f"default ÷ ours, {name}: {statistics.median(values):.1f} ({spread})")
    return "\n".join(lines)


def main() -> None:
    """Alternate the ways, and print."""
    raise_open_files(ARGUMENTS.workers, FILES_PER_CONNECTION)
    found: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder:
        security = make_certificates(Path(folder))
        for turn in range(ARGUMENTS.repeats):
            for way in list(WAYS) if turn % 2 == 0 else reversed(WAYS):
                found.append(measure(way, ARGUMENTS.workers, security, ARGUMENTS.timeout))
                print(found[-1], file=sys.stderr)
    if ARGUMENTS.json:
        ARGUMENTS.json.write_text(json.dumps([asdict(row) for row in found], indent=1))
    print(table(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=600)
    parser.add_argument("--json", type=Path)
    ARGUMENTS = parser.parse_args()
    main()
