"""How worker processes come into being: forked from one process that has imported everything.

Of many workers on one node each would import 15,000 files and hold 200 MB of libraries for
itself; forked ones share both. The fork server is `multiprocessing`'s own, one per process
that looks after workers; a worker's own child comes from the server that the worker comes from.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.context import ForkServerProcess
from typing import Any

from hpc_sweep.errors import ClusterError

PRELOADED = ["hpc_sweep.preloaded"]
"""What the fork server imports before its first fork."""

THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}
"""Environment of workers: one thread a process. Libraries read it when they are loaded."""

# Arrow's allocator starts a thread when it is loaded, which a fork would not have
_QUIET = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}

CONNECT_S = 10.0
"""How long a fork server may take to die."""

FILES = 256
FILES_PER_WORKER = 16
"""Open files of a process that looks after workers: 11 a worker seen with its scheduler."""
FILES_PER_CONNECTION = 6
"""Those of a scheduler without its workers: 3 a worker seen."""


@contextlib.contextmanager
def without_terminal_signals() -> Iterator[None]:
    """Let the threads and processes that start meanwhile, and theirs, block SIGINT and SIGHUP.

    A terminal's Ctrl-C goes to all processes of its group, and so does its end; the driver alone
    shall act on it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()  # it unblocks SIGINT in the thread that starts it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_fork_server() -> None:
    """Start this process's fork server, which imports `PRELOADED`; it ends with this process.

    Once it runs nothing happens: its workers get today's ``sys.path`` and working folder, but
    the environment of its start.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    forkserver.connect_to_new_process = _connect_patiently
    environment = {**THREADS, **_QUIET}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        forkserver.ensure_running()
    finally:
        for name, text in before.items():
            if text is None:
                del os.environ[name]
            else:
                os.environ[name] = text


_connect = forkserver.connect_to_new_process


def _connect_patiently(fds: Sequence[int]) -> tuple[int, int]:
    """Ask for a fork; again when the server is dying, which is known only once it is dead.

    A nanny whose worker dies with the server asks in that very moment, and but once.
    """
    end = time.monotonic() + CONNECT_S
    while True:
        try:
            return _connect(fds)
        except (ConnectionError, FileNotFoundError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def start_child(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Start a process that ends with this one, which may be a Dask worker.

    Dask's workers are daemonic, and `multiprocessing` lets these start nothing, since it
    would stay behind when they die: unless it calls `end_with_parent` first of all.
    """
    server: Any = forkserver._forkserver
    if server._forkserver_pid is None and server._forkserver_address is not None:
        # what this process was forked from; it would start another one
        server.ensure_running = resource_tracker.ensure_running
    else:
        start_fork_server()
    child = ForkServerProcess(target=target, args=arguments, daemon=True)
    this = multiprocessing.current_process()
    daemonic, this.daemon = this.daemon, False
    try:
        child.start()
    finally:
        this.daemon = daemonic
    return child


def end_with_parent() -> None:
    """Have this process, from `start_child`, killed when its parent dies.

    By the kernel: a thread that looks would have to wait for compiled code that holds the
    interpreter's lock.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("this process was not started by start_child")
    fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
    fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)  # SIGIO, which kills
    if connection.wait([parent.sentinel], timeout=0):  # it was faster
        os._exit(1)


def open_files_missing(workers: int, each: int = FILES_PER_WORKER) -> str:
    """Return what is wrong when so many workers need more open files than are allowed here.

    Parameters
    ----------
    workers : int
        How many.
    each : int
        Open files of this process for each.
    """
    needed, (_, hard) = FILES + each * workers, resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or needed <= hard:
        return ""
    most = max(0, (hard - FILES) // each)
    return (
        f"{workers:,} workers need {needed:,} open files in one process, but {hard:,} are allowed "
        f"here (ulimit -Hn), enough for {most:,}; take fewer workers, or have the limit raised"
    )


def raise_open_files(workers: int, each: int = FILES_PER_WORKER) -> None:
    """Raise this process's soft limit of open files to what so many workers need.

    Raises
    ------
    ClusterError
        When the hard limit is too low.
    """
    missing = open_files_missing(workers, each)
    if missing:
        raise ClusterError(missing)
    needed, (soft, hard) = FILES + each * workers, resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
