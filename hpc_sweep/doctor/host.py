"""Looks at the host that this process is on; the same on both sides.

Imports what a worker imports inside functions only: that is what one of them measures.
"""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_sweep.doctor.checks import Seen, fail, ok, warn
from hpc_sweep.doctor.route import own_address
from hpc_sweep.processes import FILES, PRELOADED, open_files_missing

if TYPE_CHECKING:
    from hpc_sweep.spec import SweepSpec

SLOW_IMPORT_S = 20.0
MANY_JOBS = 50
NETWORK_DISKS = frozenset(
    {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "panfs", "wekafs", "cifs", "9p", "afs"}
)
PACK = (
    "a job's imports are 15,000 small reads, shared by its workers, and many jobs start at once: "
    "take more workers_per_node, put the environment into one image (apptainer, squashfs), or "
    "unpack it to local scratch in cluster.prologue"
)

WRITES = 10
SLOW_WRITE_S = 0.25
LEAST_BYTES = 1_000_000_000


def environment(workers: int, jobs: int) -> Seen:
    """Import what a worker imports, and tell how long it took."""
    began = time.perf_counter()
    for name in PRELOADED:
        importlib.import_module(name)
    taken = time.perf_counter() - began
    disk = file_system(Path(sys.prefix))
    text = f"{sys.executable} ({disk}): a worker's imports took {taken:.1f} s"
    if taken > SLOW_IMPORT_S:
        return warn(f"{text}, over {SLOW_IMPORT_S:.0f} s", PACK)
    if disk in NETWORK_DISKS and jobs >= MANY_JOBS:
        return warn(f"{text} alone; {workers:,} workers in {jobs:,} jobs are asked for", PACK)
    return ok(text)


def file_system(path: Path) -> str:
    """Return the type of the file system that a path is on, such as ``lustre``."""
    import psutil

    real = path.resolve()
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounts[above] for above in (real, *real.parents) if above in mounts), "unknown")


def durable_writes(folder: Path) -> Seen:
    """Write, flush, rename over an older file, read back, and link, as runs do."""
    from hpc_sweep.store.durable import write_durably

    remedy = "put output.store on a file system with atomic renames, hard links and fsync"
    file, times = folder / "probe", []
    for number in range(WRITES):
        content = os.urandom(4096)
        began = time.perf_counter()
        write_durably(file, content)
        times.append(time.perf_counter() - began)
        if file.read_bytes() != content:
            return fail(f"{file} reads differently after rename {number + 1}", remedy)
    claim = folder / "claim"
    try:
        os.link(file, claim)  # the lease is made of these
    except OSError as error:
        return fail(f"no hard links in {folder}: {error.strerror}", remedy)
    try:
        os.link(file, claim)
    except FileExistsError:
        pass
    else:
        return fail(f"a hard link in {folder} replaced another one", remedy)
    finally:
        claim.unlink()
        file.unlink()
    middle = statistics.median(times)
    text = f"{file_system(folder)}: write, fsync and rename in {1000 * middle:.1f} ms"
    if middle > SLOW_WRITE_S:
        slow = "each finished unit costs one; a run of many small units will wait for it"
        return warn(f"{text}, over {1000 * SLOW_WRITE_S:.0f} ms", slow)
    return ok(text)


def space(folder: Path, needed_bytes: int, needed_files: int) -> Seen:
    """Compare what is free with what a run needs; quotas are not seen here."""
    from hpc_sweep.plan import format_bytes

    stat = os.statvfs(folder)
    free, files = stat.f_bavail * stat.f_frsize, stat.f_favail
    of_files = f"{files:,} files" if stat.f_files else "files without limit"
    needed = f"{format_bytes(needed_bytes)} and {needed_files:,} files needed"
    text = f"{format_bytes(free)} and {of_files} free in {folder}; {needed}"
    if free < needed_bytes or (stat.f_files and files < needed_files):
        return fail(text, "make room, or name another output.store or a lower output.max_files")
    if free < max(2 * needed_bytes, LEAST_BYTES):
        return warn(text, "make room before a long run")
    return ok(text)


def open_files(workers: int, each: int) -> Seen:
    """Compare the limit of open files with what one process needs for its workers.

    Parameters
    ----------
    workers : int
        How many.
    each : int
        Open files for each, as `hpc_sweep.processes` counts them.
    """
    missing = open_files_missing(workers, each)
    if missing:
        return fail(missing, "fewer workers, or fewer workers_per_node")
    soft, hard = (
        "none" if limit == resource.RLIM_INFINITY else f"{limit:,}"
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    needed = FILES + each * workers
    return ok(f"soft limit {soft}, raised up to the hard one of {hard}; {needed:,} needed")


def interface(name: str | None, key: str) -> Seen:
    """Look for the network interface that the spec names, and listen on it."""
    try:
        address = own_address(name)
        socket.create_server((address, 0)).close()
    except LookupError as error:
        return fail(str(error), f"set {key} to one of them")
    except OSError as error:
        return fail(f"{name or 'default route'}: nothing can listen there: {error}", f"set {key}")
    return ok(f"{name or 'default route'}: {address}")


def scratch(folder: str | None, needed_bytes: int = 0) -> Seen:
    """Write into the local scratch folder."""
    from hpc_sweep.plan import format_bytes

    place = Path(os.path.expandvars(folder or tempfile.gettempdir()))
    remedy = "name a writable local folder in cluster.scratch"
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(1_000_000))
    except OSError as error:
        return fail(f"{place} cannot be written: {error.strerror}", remedy)
    free, disk = shutil.disk_usage(place).free, file_system(place)
    text = f"{place} ({disk}): {format_bytes(free)} free"
    if needed_bytes > free:
        return warn(f"{text} of {format_bytes(needed_bytes)} in cluster.scratch.size", remedy)
    if disk == "tmpfs":
        return warn(text, "what is written there counts as memory of the job; " + remedy)
    return warn(text, remedy) if free < LEAST_BYTES else ok(text)


def data(spec: SweepSpec) -> Seen:
    """Open the spec's data."""
    from hpc_sweep.errors import SpecError
    from hpc_sweep.source import open_source

    began = time.perf_counter()
    try:
        source = open_source(spec.data, spec.search)
    except SpecError as error:
        text = "; ".join(map(str, error.faults))
        return fail(text, "data.store must be readable here, on a file system that all nodes see")
    taken = time.perf_counter() - began
    shape = " × ".join(map(str, source.grid.shape)) or "1"
    return ok(f"{spec.data.origin} opens in {taken:.1f} s: {shape} partitions")


def models(spec: SweepSpec) -> Seen:
    """Import the spec's estimators."""
    from hpc_sweep import estimators, strategies

    models = {f"models.{index}": model for index, model in enumerate(spec.models)}
    faults: list[Any] = [*strategies.faults(spec.search, models)]
    for place, model in models.items():
        faults += estimators.check_model(
            place, model.estimator, model.pipeline, {"param_grid": model.param_grid}
        )
    if faults:
        remedy = "install them in the environment that runs here, or set PYTHONPATH in the prologue"
        return fail("; ".join(map(str, faults)), remedy)
    return ok(f"{len(spec.models)} models can be made")
