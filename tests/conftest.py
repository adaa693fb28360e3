"""Shared fixtures: a small generated data set, the ERA5 store, and a real Slurm."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import warm
import xarray as xr
from hypothesis import settings

from hpc_sweep.store import read_events, run_folder

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts"))
pytest.register_assert_rewrite("conformance")
settings.register_profile("long", print_blob=True)

Spec = dict[str, Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the drill, which else is short."""
    group = parser.getgroup("drill")
    group.addoption("--drill-seconds", type=float, default=0, help="play rounds for so long")
    group.addoption("--drill-seed", type=int, default=0, help="which rounds")
    group.addoption(
        "--drill-on", default="local,outside,slurm,job,chain,one-job,drivers", help="where"
    )
    group.addoption("--drill-acts", default="", help="only these, joined by commas")
    group.addoption("--drill-report", default="drill.jsonl", help="a line of JSON for each round")


def make_data(path: Path, *, shape: tuple[int, int] = (6, 8), samples: int = 60) -> Path:
    """Write a small data set: two features by pixel, one by time only; gaps and empty pixels."""
    rng = np.random.default_rng(7)
    size = (*shape, samples)
    wet = rng.normal(size=size).astype("float32")
    green = rng.normal(size=size).astype("float32")
    hour = np.sin(np.arange(samples) * 2 * np.pi / 24)
    slope = (0.7 * wet - 0.3 * green**2 + 0.2 * hour + rng.normal(0, 0.3, size)).astype("float32")
    wet[rng.random(size) < 0.05] = np.nan
    slope[0, 0] = slope[3, 5] = np.nan
    dims = ("latitude", "longitude", "time")
    data = xr.Dataset(
        {
            "wet": (dims, wet),
            "green": (dims, green),
            "hour": ("time", hour),
            "slope": (dims, slope),
            "both": (dims, (slope * 2 + wet).astype("float32")),
            "zone": (dims[:2], np.arange(shape[0] * shape[1]).reshape(shape) % 3),
        },
        coords={
            "latitude": ("latitude", 60 - np.arange(shape[0]) / 4, {"units": "degrees_north"}),
            "longitude": ("longitude", np.arange(shape[1]) / 4 - 1, {"units": "degrees_east"}),
            "time": np.datetime64("2019-03-01", "ns") + np.arange(samples) * np.timedelta64(1, "h"),
        },
    )
    chunks = {"latitude": 3, "longitude": 4, "time": samples}
    encoding = {n: {"chunks": [chunks[str(d)] for d in v.dims]} for n, v in data.items()}
    data.to_zarr(path, zarr_format=3, encoding=encoding, consolidated=False)
    return path


@pytest.fixture(scope="session", autouse=True)
def _no_key_at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the key that signs trusted types out of the user's own data folder."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data-home")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a small data set; read only."""
    return make_data(tmp_path_factory.mktemp("data") / "data.zarr")


def small_spec(data: Path, store: Path) -> Spec:
    """Return a small spec: 48 pixels × 5 candidates × 3 splits on two local workers."""
    return {
        "name": "small",
        "data": {
            "store": str(data),
            "features": ["wet", "green", "hour"],
            "target": "slope",
            "partition_by": ["latitude", "longitude"],
        },
        "models": [
            {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [0.1, 1, 10]}},
            {
                "name": "scaled-svr",
                "pipeline": ["sklearn.preprocessing.StandardScaler", "sklearn.svm.SVR"],
                "param_grid": {"svr__C": [1, 10]},
            },
        ],
        "search": {"cv": 3, "scoring": "r2", "seed": 0},
        "cluster": {
            "kind": "local",
            "workers": 2,
            "memory": "1GB",
            "performance_report": False,  # a second or two, of those that take long enough
        },
        "output": {"store": str(store)},
    }


@pytest.fixture
def spec(data: Path, tmp_path: Path) -> Spec:
    """Return `small_spec` with its store in the test's own folder."""
    return small_spec(data, tmp_path / "results.zarr")


@contextlib.contextmanager
def one_worker() -> Iterator[list[str]]:
    """Context with the settings of a cluster of one worker, a thread of this process."""
    from distributed import LocalCluster

    from hpc_sweep.clusters import settings

    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with (
        settings(),
        LocalCluster(processes=False, protocol="tcp", host="127.0.0.1", **options) as cluster,
    ):
        address = f"cluster.address={cluster.scheduler_address}"
        yield ["cluster.kind=external", address, "cluster.security=none"]


@pytest.fixture(scope="module")  # its threads draw random numbers, which Hypothesis forbids
def here() -> Iterator[list[str]]:
    """Return the settings of a cluster of one worker, a thread of this process."""
    with one_worker() as settings:
        yield settings


@pytest.fixture
def faulty_on_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers import `faulty`."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests"))


def slow(spec: Spec) -> Spec:
    """Make units that take long enough for something to happen in the middle."""
    spec["models"][1]["param_grid"] = {"svr__C": [1, 10, 100, 1000]}
    return spec


@pytest.fixture(scope="session")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of the slow sweep made in one go; read only."""
    from hpc_sweep.spec import load_spec
    from hpc_sweep.sweep import execute

    spec = slow(small_spec(data, tmp_path_factory.mktemp("whole") / "whole.zarr"))
    return execute(load_spec(spec)).store.path


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[[Spec], Path]:
    """Return a function that writes a spec as YAML."""
    from ruamel.yaml import YAML

    def write(spec: Spec) -> Path:
        path = tmp_path / "sweep.yaml"
        with path.open("w") as file:
            YAML(typ="safe", pure=True).dump(spec, file)
        return path

    return write


@pytest.fixture(scope="session")
def era5() -> Path:
    """Return the path of the ERA5 store, which is not part of the project."""
    path = REPOSITORY.parent / "shared" / "data" / "era5_uk_t2m.zarr"
    if not path.is_dir():
        pytest.skip("the ERA5 store is not here")
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the tests on Slurm, which wait more than they work, to the processes of pytest-xdist.

    Each begins with a range of the list. The longest come first in it, and none of them in its
    last quarter: at the end all processes shall have work. Every other process begins with tests
    that work, while the rest wait.
    """
    on_slurm, plain = [], []
    for item in items:
        (on_slurm if item.get_closest_marker("slurm") else plain).append(item)
    on_slurm.sort(key=lambda item: item.get_closest_marker("waits") is None)
    hands = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    items.clear()
    for hand in range(hands):
        here = on_slurm[hand::hands]
        rest = plain[len(plain) * hand // hands : len(plain) * (hand + 1) // hands]
        first = 0.15 * (hand % 2)
        placed = [(first + (0.75 - first) * i / len(here), item) for i, item in enumerate(here)]
        placed += [(i / len(rest), item) for i, item in enumerate(rest)]
        items += [item for _, item in sorted(placed, key=lambda each: each[0])]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a running Slurm of three nodes; ``SLURM_CONF`` is set while it runs.

    Without the right or the packages the tests are skipped, but with ``CI=true`` they fail.
    """
    from throwaway_slurm import ThrowawaySlurm, ThrowawaySlurmError

    base = tmp_path_factory.getbasetemp()
    # /tmp is each node's own: what all have to see of it is named
    shared = {base, REPOSITORY, Path(sys.prefix)}
    below_tmp = sorted(path for path in shared if path.is_relative_to("/tmp"))
    cluster = ThrowawaySlurm(base / "slurm", shared=below_tmp)
    try:
        cluster.up()
    except ThrowawaySlurmError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no Slurm: {error}")
    patch = pytest.MonkeyPatch()
    patch.setenv("SLURM_CONF", str(cluster.conf))
    yield cluster
    patch.undo()
    cluster.down()
    assert str(cluster.mounts) not in Path("/proc/mounts").read_text()


@pytest.fixture
def slurm_cluster(slurm: Any) -> Spec:
    """Return the ``cluster`` section for the throwaway Slurm."""
    return {
        "kind": "slurm",
        "workers": 3,
        "memory": "1GB",
        "queue": "debug",
        "walltime": "00:20:00",
        "interface": "eth0",
        "scheduler_interface": slurm.bridge,
        "start_timeout": 120,
        "performance_report": False,
    }


def hpc_sweep(
    *arguments: object, timeout: float | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    with start_hpc_sweep(*arguments, stderr=subprocess.PIPE, **options) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def start_hpc_sweep(
    *arguments: object, env: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start the command line in a process of its own: a fresh one where that may matter."""
    options = {"stdout": subprocess.PIPE, "text": True, "env": env, **options}
    if "preexec_fn" not in options and warm.is_alike(env):
        return warm.Warm([*arguments], **options)
    return subprocess.Popen([sys.executable, "-m", "hpc_sweep", *map(str, arguments)], **options)


def wait_until_queue_is_empty(seconds: float = 60) -> None:
    """Fail unless Slurm has no job any more within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        states = "--states=PENDING,CONFIGURING,RUNNING,SUSPENDED"  # completing ones have ended
        command = ["squeue", "--noheader", states, "--format=%i %T"]
        left = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if not left.strip():
            return
        time.sleep(0.5)
    raise AssertionError(f"jobs are left in the queue:\n{left}")


def start_run(spec_file: Path, *words: object, **options: Any) -> subprocess.Popen[str]:
    """Start ``hpc-sweep run`` in a process of its own."""
    options = {"stderr": subprocess.STDOUT, "process_group": 0, **options}
    return start_hpc_sweep("run", spec_file, *words, **options)


def fork_servers(process: psutil.Process) -> list[psutil.Process]:
    """Return the fork server of a process that looks after workers, if it runs."""
    found = []
    for child in process.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now, or waits to be buried
            if any(warm.FORK_SERVER in word for word in (child.name(), *child.cmdline())):
                found.append(child)
    return found


def forked(process: psutil.Process) -> list[psutil.Process]:
    """Return the worker processes that a process looks after."""
    return [worker for server in fork_servers(process) for worker in server.children()]


def wait_for_units(store: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until that many units are done in the run folder's event log."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        events = read_events(run_folder(store).events)
        if sum(event["event"] == "unit_done" for event in events) >= count:
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.03)
    raise AssertionError(f"fewer than {count} units within two minutes")


def repeated_units(store: Path) -> tuple[list[str], list[str]]:
    """Return the units that were started in several runs, and those of them that had finished."""
    runs: list[list[str]] = []
    done: list[str] = []
    logs = sorted(run_folder(store).path.glob("events*.jsonl"))  # of each driver
    for event in (event for log in logs for event in read_events(log)):
        if event["event"] == "run_started":
            runs.append([])
        elif event["event"] == "unit_started":
            runs[-1].append(event["unit"])
        elif event["event"] == "unit_done":
            done.append(event["unit"])
    started = Counter(unit for run in runs for unit in set(run))
    again = [unit for unit, count in started.items() if count > 1]
    return again, [unit for unit in again if done.count(unit) > 1]


def pending_reads_as_missing(store: Path, whole: Path) -> None:
    """Fail unless what is pending in a half-finished store reads as missing, never as a result.

    In the chunk whose fold was killed (``status`` is written last) a result may stand already;
    then it is the final one.
    """
    half, final = (xr.open_zarr(path, chunks=None).load() for path in (store, whole))
    pending = (half["partition_status"] == 0).values
    assert pending.any()
    score, index = half["best_score"].values[pending], half["best_index"].values[pending]
    assert ((final["best_score"].values[pending] == score) | np.isnan(score)).all()
    assert ((final["best_index"].values[pending] == index) | (index == -1)).all()
    assert np.isnan(score).any()


def equal_stores(first: Path, second: Path, aside: Collection[str] = ()) -> None:
    """Fail unless all arrays of two stores are bit-equal, times and those that are named aside."""
    left, right = (xr.open_zarr(path, chunks=None).load() for path in (first, second))
    assert set(left.variables) == set(right.variables)
    different = []
    for name in left.variables:
        if name in ("fit_time", "score_time", *aside):
            continue
        a, b = left[name].values, right[name].values
        same = (a == b) | ((a != a) & (b != b))
        if not same.all():
            pairs = list(zip(np.argwhere(~same).tolist(), a[~same], b[~same], strict=True))
            told = "".join(f"\n  {place}: {x!r}, not {y!r}" for place, x, y in pairs[:5])
            where = f"{name} differs in {len(pairs)} of {same.size} places"
            if a.dtype.kind == "f":
                with np.errstate(invalid="ignore"):
                    where += f", by {np.fmax.reduce(abs(a - b), axis=None, initial=0):.1e} at most"
            different.append(where + told)
    assert not different, "\n".join(different)
