"""The command line without the two seconds of imports: forked from a process that has made them.

``python warm.py`` is that process: it reads commands from its standard input, a socket. What it
forks is a process like any other, with streams, environment and folder of its own, and a child of
whoever asked; `Warm` is `subprocess.Popen` for it. The first fork server of such a command is its
own fork, so that its workers take no imports either.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import inspect
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from multiprocessing import forkserver, util
from pathlib import Path
from typing import Any

MODULE = "hpc_sweep"
MOST_BYTES = 1 << 20
SET_CHILD_SUBREAPER = 36
"""Of prctl: orphans among the descendants become children of this process."""
SET_NAME = 15
"""Of prctl: what this process is called."""
FORK_SERVER = "forkserver"
STARTING_WORKERS = {"run", "predict", "plan"}
"""Commands that may start a fork server."""

MARK = "TEST_DRILL"
"""Environment variable by which all that a sweep starts is known: the folder of the drill's round.

Of a fork the kernel shows the environment of the warm process: where it is set, no fork server is.
"""

READ_WHEN_ASKED = ("PATH", "XDG_CONFIG_HOME", "SLURM_CONF", "TEST_", "PYTEST_")
"""Variables, or how they begin, that mean the same when they are set after the imports."""

LEFT_BEHIND = {
    "HDF5_PLUGIN_PATH",
    "MALLOC_TRIM_THRESHOLD_",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED",
    "__DASK_PARENT_PID",
}
"""By Dask's nannies and by netCDF4, in a test process that had them: meant for nobody else."""

_lock = threading.Lock()
_servers: dict[int, tuple[socket.socket, subprocess.Popen[bytes], dict[str, str]]] = {}


class Warm(subprocess.Popen[str]):
    """``python -m hpc_sweep …`` from the warm process; its arguments are those of the command."""

    def _execute_child(self, *arguments: Any) -> None:
        names = inspect.signature(subprocess.Popen._execute_child).parameters  # type: ignore[attr-defined]
        given = dict(zip(list(names)[1:], arguments, strict=True))
        wanted = (given["p2cread"], given["c2pwrite"], given["errwrite"])
        streams = [number if other == -1 else other for number, other in enumerate(wanted)]
        os.umask(umask := os.umask(0))
        request = {
            "arguments": list(map(str, given["args"])),
            "environment": dict(os.environ if given["env"] is None else given["env"]),
            "folder": str(given["cwd"] or Path.cwd()),
            "process_group": given["process_group"],
            "umask": umask,
        }
        assert given["preexec_fn"] is None, "nothing is run between the fork and the command"
        server, *_ = _server()
        with _lock, _adopting():
            socket.send_fds(server, [json.dumps(request).encode()], streams)
            self.pid = int(server.recv(MOST_BYTES))
        self._child_created = True
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[end] for end in ends))


def is_alike(environment: dict[str, str] | None) -> bool:
    """Return whether a command with this environment may come from the warm process."""
    there = _server()[2]
    here = dict(os.environ) if environment is None else environment
    differ = {name for name in {*there, *here} if there.get(name) != here.get(name)} - LEFT_BEHIND
    # with or without this folder: modules of ours that none replace
    if {there.get("PYTHONPATH"), here.get("PYTHONPATH")} <= {None, str(Path(__file__).parent)}:
        differ.discard("PYTHONPATH")
    return all(name.startswith(READ_WHEN_ASKED) for name in differ)


def _server() -> tuple[socket.socket, subprocess.Popen[bytes], dict[str, str]]:
    """Return the warm process of this one, started at first use; it ends with this one."""
    if os.getpid() not in _servers:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = dict(os.environ)
        process = subprocess.Popen([sys.executable, __file__], stdin=theirs)
        theirs.close()
        _servers[os.getpid()] = ours, process, environment
    return _servers[os.getpid()]


@contextlib.contextmanager
def _adopting() -> Any:
    """Context in which orphans become children of this process."""
    library = ctypes.CDLL(None)
    library.prctl(SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        library.prctl(SET_CHILD_SUBREAPER, 0)


def serve() -> None:
    """Fork a process for each command; return in it."""
    requests = socket.socket(fileno=os.dup(0))
    while True:
        message, fds, *_ = socket.recv_fds(requests, MOST_BYTES, 3)
        if not message:
            os._exit(0)
        assert len(os.listdir("/proc/self/task")) == 1, "a fork would lack these threads"
        reading, writing = os.pipe()
        middle = os.fork()
        if not middle:
            child = os.fork()
            if not child:
                os.close(reading)
                os.close(writing)
                requests.close()
                _become(json.loads(message), fds)
                return
            os.write(writing, str(child).encode())
            os._exit(0)
        os.waitpid(middle, 0)  # from now on the child is an orphan
        requests.send(os.read(reading, 99))
        for number in (reading, writing, *fds):
            os.close(number)


def _become(request: dict[str, Any], fds: list[int]) -> None:
    """Make this process what its request says."""
    if request["process_group"] not in (None, -1):
        os.setpgid(0, request["process_group"])
    for number, given in enumerate(fds):
        os.dup2(given, number)
    for given in fds:
        os.close(given)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.umask(request["umask"])
    os.chdir(request["folder"])
    sys.argv = ["hpc_sweep", *request["arguments"]]
    more = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:1] = [request["folder"], *more]
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = open(number, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
    if MARK not in os.environ and STARTING_WORKERS.intersection(request["arguments"][:1]):
        _keep_a_fork_server()


def _keep_a_fork_server() -> None:
    """Fork now, before there are threads, what will be this process's first fork server."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if not child:
        ours.close()
        _become_a_fork_server(theirs)
    theirs.close()
    cold = util.spawnv_passfds

    def spawnv_passfds(path: Any, arguments: list[str], fds: list[int]) -> int:
        if FORK_SERVER not in arguments[-1]:
            return cold(path, arguments, fds)
        util.spawnv_passfds = cold
        request = {
            "environment": dict(os.environ),
            "folder": str(Path.cwd()),
            "blocked": list(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
            "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
        }
        socket.send_fds(ours, [json.dumps(request).encode()], fds)
        ours.close()
        return child

    util.spawnv_passfds = spawnv_passfds


def _become_a_fork_server(asked: socket.socket) -> None:
    """Wait until the parent needs this process, or is gone; never return."""
    # for the parent alone, until it asks
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    code = 1
    try:
        message, fds, *_ = socket.recv_fds(asked, MOST_BYTES, 2)
        if message:
            asked.close()
            request = json.loads(message)
            ctypes.CDLL(None).prctl(SET_NAME, FORK_SERVER.encode())
            os.environ.clear()
            os.environ.update(request["environment"])
            os.chdir(request["folder"])
            signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
            resource.setrlimit(resource.RLIMIT_NOFILE, tuple(request["open_files"]))
            forkserver.main(*fds, [])
        code = 0
    except SystemExit:  # the last process that may ask it is gone
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)


def _import_all() -> None:
    import click.testing  # noqa: F401

    import hpc_sweep.cancellation
    import hpc_sweep.chain
    import hpc_sweep.cli.plan
    import hpc_sweep.cli.progress
    import hpc_sweep.prediction
    import hpc_sweep.preloaded
    import hpc_sweep.results
    import hpc_sweep.submission
    import hpc_sweep.sweep  # noqa: F401


if __name__ == "__main__":
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"
    _import_all()
    gc.freeze()
    serve()
    runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
