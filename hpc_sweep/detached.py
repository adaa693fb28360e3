"""A driver that outlives whoever starts it: a process with a session of its own."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

from hpc_sweep.errors import ClusterError, LeaseError
from hpc_sweep.prepare import check_versions, group_of, prepare
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store import (
    Holder,
    Journal,
    group_access,
    is_known_dead,
    read_holder,
    run_folder,
)
from hpc_sweep.store.durable import write_durably


def start_driver(
    spec: SweepSpec,
    *,
    mixed_versions: bool = False,
    retry: Collection[str] = (),
    origin: str = "the spec",
) -> Holder:
    """Start a driver on this machine, after the checks that need no cluster.

    Its log is in the run folder, as that of a driver in a job is.

    Returns
    -------
    Holder
        The process.

    Raises
    ------
    SpecError, PlanError, StoreError
        As `hpc_sweep.prepare` does.
    LeaseError
        When another driver works on the store.
    ClusterError
        When no process can be started.
    """
    prepared = prepare(spec, origin)
    if prepared.store is not None:
        check_versions(prepared.store, mixed=mixed_versions)
    run, group = run_folder(spec.output.store), group_of(spec)
    holders = [read_holder(lease) for lease in (run.lease, *run.rivals())]
    alive = [holder for holder in holders if holder and not is_known_dead(holder)]
    if alive:
        raise LeaseError(
            f"another driver works on this store: {alive[0]}; "
            f"hpc_sweep.attach({spec.output.store!r}) gives its handle"
        )
    with group_access(group is not None):
        run.make(group)
        write_durably(run.spec, spec.model_dump_json(indent=2).encode())
        log = run.logs / f"driver-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
        options = [*(["--mixed-versions"] if mixed_versions else [])]
        options += [word for kind in retry for word in ("--retry", kind)]
        process = _start(["-m", "hpc_sweep", "run", str(run.spec), *options], log)
    holder = Holder.of(process)
    Journal(run.events).write("driver_started", **holder.place, log=log.name)
    return holder


def _start(arguments: list[str], log: Path) -> int:
    """Start a process of Python that no terminal and no parent ends, and return its id."""
    file, null = os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.devnull
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, *arguments],
            {**os.environ, "PYTHONUNBUFFERED": "1"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), file, 0o666),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            # notebooks may have others
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1],
        )
    except OSError as error:
        raise ClusterError(f"no driver could be started: {error}") from error
