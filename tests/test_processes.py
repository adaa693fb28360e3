"""Worker processes from a fork server: what forks share, what they must not, and its death."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pytest
from conftest import (
    Spec,
    equal_stores,
    fork_servers,
    forked,
    hpc_sweep,
    small_spec,
    start_run,
    wait_for_units,
)
from distributed import Client
from threadpoolctl import threadpool_info

from hpc_sweep import processes
from hpc_sweep.clusters import make_cluster, settings
from hpc_sweep.errors import ClusterError
from hpc_sweep.processes import FILES, FILES_PER_WORKER, open_files_missing, raise_open_files
from hpc_sweep.spec import ClusterSpec, load_spec
from hpc_sweep.sweep import execute


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Return a client of three local workers."""
    patch = pytest.MonkeyPatch()
    patch.setenv("SET_BY_A_TEST", "late")  # the fork server runs already, maybe
    spec = ClusterSpec(kind="local", workers=3, memory="1GB")
    cluster = make_cluster(spec, tmp_path_factory.mktemp("run"), lambda event, **facts: None)
    with settings():
        yield cluster.start()
        cluster.close()
    patch.undo()


def test_the_fork_server_has_one_thread(client: Client) -> None:
    """Another thread would be missing in the forks, and what it had locked stays locked."""
    (server,) = fork_servers(psutil.Process())
    assert server.num_threads() == 1
    assert len(server.children()) == 3
    assert "hpc_sweep.preloaded" in server.cmdline()[-1]


def test_workers_have_the_libraries_and_one_thread(client: Client) -> None:
    def look() -> tuple[bool, list[int]]:
        names = {"sklearn.svm", "xarray", "zarr", "hpc_sweep.work", "sparse"}
        return names <= set(sys.modules), [pool["num_threads"] for pool in threadpool_info()]

    for loaded, threads in client.run(look).values():
        assert loaded
        assert threads
        assert set(threads) == {1}


def test_the_first_fit_of_a_process_looks_at_no_file(client: Client) -> None:
    """Else a disk that does not answer for a moment is a fit that took too long."""

    def look() -> list[str]:
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVR

        looked, thread, on = [], threading.get_ident(), [True]

        def hook(event: str, arguments: Any) -> None:
            watched = event in ("open", "import", "os.listdir", "os.scandir")
            if on and watched and threading.get_ident() == thread:
                looked.append(str(arguments[0]))

        sys.addaudithook(hook)
        X, y = np.eye(4), [0, 1, 0, 1]
        for made in (Ridge(), make_pipeline(StandardScaler(), SVR()), LogisticRegression()):
            made.fit(X, y).score(X, y)
        on.clear()
        return looked

    assert list(client.run(look).values()) == [[], [], []]


def test_forks_do_not_draw_the_same_numbers(client: Client) -> None:
    """NumPy's own generator is seeded at import, which they have in common; Dask seeds it anew."""
    drawn = client.run(lambda: np.random.random()).values()
    assert len(set(drawn)) == 3


def test_workers_have_the_environment_of_now(client: Client) -> None:
    assert set(client.run(os.environ.get, "SET_BY_A_TEST").values()) == {"late"}


def test_what_terminals_send_is_blocked_in_all(client: Client) -> None:
    (server,) = fork_servers(psutil.Process())
    for process in (server, *forked(psutil.Process())):
        status = Path(f"/proc/{process.pid}/status").read_text()
        blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
        assert blocked & 1 << signal.SIGINT - 1, process
        assert blocked & 1 << signal.SIGHUP - 1, process


def test_a_killed_fork_server(
    spec: Spec, data: Path, write_spec: Callable[[Spec], Path], tmp_path: Path
) -> None:
    """The memory killer may take it: another one is started, no worker of the old one stays."""
    store = Path(spec["output"]["store"])
    spec["models"][1]["param_grid"] = {"svr__C": [1, 10, 100, 1000]}
    process = start_run(write_spec(spec))
    wait_for_units(store, 1, process)
    (server,) = fork_servers(psutil.Process(process.pid))
    before = server.children()
    assert len(before) == 2
    server.kill()
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert not [worker for worker in before if worker.is_running()]
    whole = {**small_spec(data, tmp_path / "whole.zarr"), "models": spec["models"]}
    equal_stores(store, execute(load_spec(whole)).store.path)


def test_a_fork_server_that_is_just_dying(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [ConnectionRefusedError(), FileNotFoundError(), (3, 4)]

    def connect(fds: list[int]) -> tuple[int, int]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        found: tuple[int, int] = answer
        return found

    monkeypatch.setattr("hpc_sweep.processes._connect", connect)
    assert processes._connect_patiently([1]) == (3, 4)
    monkeypatch.setattr("hpc_sweep.processes.CONNECT_S", 0)
    answers[:] = [ConnectionRefusedError()] * 9
    with pytest.raises(ConnectionRefusedError):
        processes._connect_patiently([1])


def test_a_nanny_that_is_gone_is_replaced(tmp_path: Path) -> None:
    spec = ClusterSpec(kind="local", workers=2, memory="1GB")
    cluster = make_cluster(spec, tmp_path, lambda event, **facts: None)
    with settings(), dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}):
        client = cluster.start()
        try:
            nanny = cluster._cluster.workers[0]
            cluster._cluster.sync(nanny.close)
            end = time.monotonic() + 60
            while len(client.nthreads()) > 1 or 0 in cluster._cluster.workers:
                assert time.monotonic() < end
                time.sleep(0.1)
            cluster.top_up()
            client.wait_for_workers(2, timeout=60)
        finally:
            cluster.close()


def limited(soft: int, hard: int) -> dict[str, Any]:
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))}


def test_the_soft_limit_of_open_files_is_raised(
    spec: Spec, write_spec: Callable[[Spec], Path]
) -> None:
    spec["cluster"]["workers"] = 8
    spec["cluster"]["memory"] = "600MB"
    done = hpc_sweep("run", write_spec(spec), **limited(64, 1024))
    assert done.returncode == 0, done.stderr


def test_the_hard_limit_is_too_low(spec: Spec, write_spec: Callable[[Spec], Path]) -> None:
    spec["cluster"]["workers"] = 100
    refused = hpc_sweep("plan", write_spec(spec), **limited(512, 1024))
    assert refused.returncode == 2
    words = "cluster.workers: 100 workers need 1,856 open files in one process, but 1,024 are "
    assert words in refused.stderr
    assert "enough for 48" in refused.stderr
    command = [sys.executable, "-m", "hpc_sweep.worker", "tcp://127.0.0.1:9", "--nworkers", "100"]
    job = subprocess.run(command, capture_output=True, text=True, **limited(512, 1024))
    assert job.returncode == 1
    assert job.stderr.startswith("error: 100 workers need 1,856 open files")


def test_open_files_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    hard = FILES + 3 * FILES_PER_WORKER
    monkeypatch.setattr(resource, "getrlimit", lambda which: (10, hard))
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: asked.append(limits))
    assert not open_files_missing(3)
    raise_open_files(3)
    raise_open_files(1)
    assert asked == [(hard, hard), (FILES + FILES_PER_WORKER, hard)]
    with pytest.raises(ClusterError, match="enough for 3"):
        raise_open_files(4)
