"""All checks, in order; nothing is left behind."""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from hpc_sweep.clusters import JobQueue, current_queue, make_cluster
from hpc_sweep.doctor import host
from hpc_sweep.doctor.checks import Check, Seen, Verdict, fail, look, ok, skipped, warn
from hpc_sweep.doctor.job import node_checks
from hpc_sweep.doctor.scheduler import scheduler_checks
from hpc_sweep.errors import Interrupted, SweepError
from hpc_sweep.plan import Plan
from hpc_sweep.prepare import check_versions, prepare
from hpc_sweep.processes import FILES_PER_CONNECTION, FILES_PER_WORKER
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store import run_folder

QUOTA_S = 60
FULL_PERCENT = 95.0
BLOCK_BYTES = 4096
"""A file takes no less."""
FILES_BESIDE = 1000
"""Files of a run folder, beside those of the store."""


def examine(
    spec: SweepSpec,
    *,
    with_data: bool,
    with_job: bool = True,
    wait_s: float = 300.0,
    say: Callable[[str], None] = lambda text: None,
) -> list[Check]:
    """Look at everything that a run needs, from here and from inside a small job.

    Parameters
    ----------
    spec : SweepSpec
        The spec; of one without data only ``cluster`` and the store's folder count.
    with_data : bool
        Whether its data, models and plan are looked at.
    with_job : bool
        Whether a small job is submitted.
    wait_s : float
        How long to wait for its start.
    say : callable
        Told what is going on.

    Returns
    -------
    list of Check
        In the order in which they were made.

    Raises
    ------
    Interrupted
        On SIGINT, SIGTERM and SIGHUP; the job is cancelled before.
    """
    here = socket.gethostname()
    if current_queue() is not None:  # as for a driver in a job: this is no login node
        cluster_spec = spec.cluster.model_copy(update={"scheduler_interface": None})
        spec = spec.model_copy(update={"cluster": cluster_spec})
    checks: list[Check] = []
    plans: list[Plan] = []
    if with_data:
        checks.append(look("plan", here, partial(_plan, spec, plans)))
    run = run_folder(spec.output.store)
    cluster = make_cluster(spec.cluster, run.path, lambda *a, **k: None)
    parent = _existing(run.path.parent)
    with _ending_in_order(), contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(_probe_folder(parent))
            own = folder / "here"
            own.mkdir()
        except OSError as error:
            text = f"{parent} cannot be written: {error.strerror}"
            remedy = "name an output.store in a folder that you may write"
            return [*checks, look("durable writes", here, lambda: fail(text, remedy))]
        each = FILES_PER_CONNECTION if isinstance(cluster, JobQueue) else FILES_PER_WORKER
        checks += [
            look("durable writes", here, partial(host.durable_writes, own)),
            look("space", here, partial(_space, spec, plans, parent)),
            look("quota", here, partial(_quota, spec, parent)),
            look("open files", here, partial(host.open_files, cluster.workers, each)),
        ]
        if not isinstance(cluster, JobQueue):
            checks.append(look("local scratch", here, partial(host.scratch, None)))
            if spec.cluster.kind != "local":
                text = f"cluster.kind {spec.cluster.kind} has no queue to ask"
                checks.append(look("small job", here, lambda: skipped(text)))
            return checks
        name = cluster.interfaces()[1]
        key = "cluster.scheduler_interface (or cluster.interface)"
        checks.append(look("driver's interface", here, partial(host.interface, name, key)))
        checks += scheduler_checks(cluster, own, here)
        written = next(check for check in checks if check.name == "durable writes")
        why_not = ""
        if not with_job:
            why_not = "--no-job"
        elif shutil.which(cluster.queue.submit_command) is None:
            why_not = "there is no way to submit it"
        elif written.verdict is Verdict.FAIL:
            why_not = "its files cannot be written"
        if why_not:
            return [*checks, look("small job", here, lambda: skipped(why_not))]
        return checks + node_checks(
            spec, cluster, folder, here, with_data=with_data, wait_s=wait_s, say=say
        )


def _plan(spec: SweepSpec, plans: list[Plan]) -> Seen:
    """Check and plan the spec as `run` does; a good plan is put into `plans`."""
    try:
        prepared = prepare(spec)
        if prepared.store is not None:
            check_versions(prepared.store, mixed=False)
    except SweepError as error:
        text = " ".join(str(error).split())
        return fail(text, "change what it names; hpc-sweep plan says the same")
    plans.append(prepared.plan)
    return ok(f"{prepared.plan.workload.n_fits:,} fits in {prepared.plan.n_units():,} units")


def _space(spec: SweepSpec, plans: list[Plan], folder: Path) -> Seen:
    """Compare what is free with what the plan needs, if there is one."""
    n_bytes, n_files = 0, spec.output.max_files
    for plan in plans:
        n_files = plan.n_files
        n_bytes = plan.grid.size * plan.workload.cell_bytes + n_files * BLOCK_BYTES
    return host.space(folder, n_bytes, n_files + FILES_BESIDE)


def _quota(spec: SweepSpec, folder: Path) -> Seen:
    """Run the site's own command for quotas."""
    command = spec.cluster.quota_command
    if not command:
        return skipped("cluster.quota_command is not set")
    words = shlex.split(command)
    try:
        said = subprocess.run(
            words, capture_output=True, text=True, timeout=QUOTA_S, check=False, cwd=folder
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return warn(f"{words[0]}: {error}", "correct cluster.quota_command")
    text = "; ".join(line.strip() for line in said.stdout.splitlines() if line.strip())[-300:]
    if said.returncode:
        return warn(
            f"{words[0]} failed: {said.stderr.strip() or text}", "correct cluster.quota_command"
        )
    used = [float(number) for number in re.findall(r"(\d+(?:\.\d+)?)\s*%", text)]
    if used and max(used) >= FULL_PERCENT:
        return warn(text, f"over {FULL_PERCENT:.0f} % is used: make room before a long run")
    return ok(text or f"{words[0]} says nothing")


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


@contextlib.contextmanager
def _probe_folder(parent: Path) -> Iterator[Path]:
    """Make a folder beside the store for the time of the checks."""
    folder = parent / f".hpc-sweep-doctor-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        for _ in range(20):  # a node may still hold or show a file for a moment
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.5)


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Turn the first signal into an exception, so that job and files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    stopped: list[int] = []

    def stop(number: int, frame: object) -> None:
        stopped.append(number)
        if len(stopped) == 1:  # later ones do not disturb the clearing up
            raise Interrupted(f"stopped by {signal.Signals(number).name}; nothing is left behind")

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
