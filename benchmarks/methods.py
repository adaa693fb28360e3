"""Ways to search each pixel of a store: ours, those of others, and the bare loop.

Each takes a `Case` and returns a `Run`. Starting workers and the work itself are timed apart.
Imports on fresh workers, reading the store, and sending arrays to workers belong to the work.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from dask_ml.model_selection import GridSearchCV as DaskGridSearchCV
from distributed import Client, LocalCluster
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from searches import Array, Pixels, Search, bare_loop, search_pixel, split_scores
from workloads import DIMS, Data, Workload, load_pixels

import hpc_sweep
from hpc_sweep.store import read_events, run_folder

WORKERS = 2

LOOP_PIXELS = 48
"""How many pixels, evenly spread, the loops of one process do: their rate needs no more."""

DASK_ML_PIXELS = 6
"""How many dask-ml does: it is slow."""


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes
    ----------
    data : Data
        The pixels.
    workload : Workload
        What is searched in each.
    folder : Path
        For results.
    """

    data: Data
    workload: Workload
    folder: Path

    @property
    def search(self) -> Search:
        """The search, as the peers take it."""
        return self.workload.search

    @property
    def target(self) -> str:
        """The variable that is learnt."""
        return self.data.labels if self.search.scoring == "accuracy" else self.data.target


@dataclass(frozen=True)
class Run:
    """What one run of a method took and gave.

    Attributes
    ----------
    work_s : float
        Seconds of work, from when there were workers.
    scores : ndarray of float64, shape (n_pixels, n_candidates, n_splits)
        Test scores of the pixels that were done.
    step : int
        Each how many-th pixel was done.
    whole_s : float
        Seconds in all, with starting and ending workers.
    task_s : float
        Ours only: seconds in its tasks, divided by the workers.
    cpu_s : float
        Seconds that cores worked for it, in this process and its children.
    others : float
        Share of the cores' time that went to anything else.
    """

    work_s: float
    scores: Array
    step: int = 1
    whole_s: float = float("nan")
    task_s: float = float("nan")
    cpu_s: float = float("nan")
    others: float = float("nan")


Method = Callable[[Case], Run]
_COUNT = itertools.count()


def measure(method: str, case: Case) -> Run:
    """Run a method and time it."""
    busy_s, own_s, begin = _busy_seconds(), _own_seconds(), time.perf_counter()
    run = METHODS[method](case)
    whole_s = time.perf_counter() - begin
    cpu_s = _own_seconds() - own_s
    others_s = _busy_seconds() - busy_s - cpu_s
    others = max(0.0, others_s / whole_s / len(our_cores()))
    if method == OURS:  # its workers are no children of this process
        cpu_s = others = float("nan")
    return replace(run, whole_s=whole_s, cpu_s=cpu_s, others=others)


def our_cores() -> list[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _busy_seconds() -> float:
    """Return for how long our cores have been busy, whoever kept them so."""
    times = psutil.cpu_times(percpu=True)
    idle = ("idle", "iowait", "guest", "guest_nice")  # guests are in user and nice already
    return sum(
        float(seconds)
        for core in our_cores()
        for kind, seconds in times[core]._asdict().items()
        if kind not in idle
    )


def _own_seconds() -> float:
    """Return the seconds of CPU of this process and of the children that have ended."""
    return sum(os.times()[:4])


def ours(case: Case) -> Run:
    """`hpc_sweep.run`, zarr to zarr, on a local cluster of its own."""
    results = case.folder / f"results-{next(_COUNT)}.zarr"
    opened = hpc_sweep.run(case.workload.spec(case.data, results, WORKERS))
    events = list(read_events(run_folder(results).events))
    work_s = next(event["seconds"] for event in events if event["event"] == "run_ended")
    task_s = sum(event["seconds"] for event in events if event["event"] == "unit_done") / WORKERS
    _check_candidates(opened, case.workload)
    scores = opened["test_score"].transpose(*DIMS, "candidate", "split").values
    return Run(work_s, scores.reshape(-1, *scores.shape[2:]), task_s=task_s)


def _check_candidates(results: Any, workload: Workload) -> None:
    """Refuse candidates in another order than scikit-learn's: scores could not be compared."""
    for name in workload.search.param_grid:
        wanted = [params[name] for params in workload.search.candidates]
        if results[f"param_{name}"].values.tolist() != wanted:
            raise RuntimeError(f"candidates differ in {name}")


def serial(case: Case) -> Run:
    """Search pixel by pixel with scikit-learn's GridSearchCV."""
    return _timed(
        case, lambda pixels: [search_pixel(X, y, case.search) for X, y in pixels], LOOP_PIXELS
    )


def joblib_pixels(case: Case) -> Run:
    """Run scikit-learn's searches with joblib, one pixel a call."""
    with _joblib_workers() as parallel:
        return _timed(
            case,
            lambda pixels: parallel(delayed(search_pixel)(X, y, case.search) for X, y in pixels),
            case.workload.peer_pixels,
        )


def client_map(case: Case) -> Run:
    """Run scikit-learn's searches with Client.map, one pixel a task."""

    def work(pixels: Pixels) -> Any:
        Xs, ys = zip(*pixels, strict=True)
        return client.gather(client.map(search_pixel, Xs, ys, search=case.search, pure=False))

    with _dask_workers() as client:
        return _timed(case, work, case.workload.peer_pixels)


def dask_ml(case: Case) -> Run:
    """Search some pixels, one by one, with dask-ml's GridSearchCV on the cluster's workers.

    It is called from here: nested in a task it waits for ever.
    """

    def work(pixels: Pixels) -> list[Array]:
        arguments = {**case.search.arguments(), "iid": False, "scheduler": client}
        found = (DaskGridSearchCV(**arguments).fit(X, y).cv_results_ for X, y in pixels)
        return [split_scores(results, case.search.cv) for results in found]

    with _dask_workers() as client:
        return _timed(case, work, DASK_ML_PIXELS)


def bare(case: Case) -> Run:
    """Clone, fit, predict and score in a loop of one process, with nothing around it."""
    return _timed(case, lambda pixels: bare_loop(pixels, case.search), LOOP_PIXELS)


def bare_at_once(case: Case) -> Run:
    """Run a bare loop on each core at once, each with every other pixel."""

    def work(pixels: Pixels) -> list[Array]:
        parts = [pixels[first::WORKERS] for first in range(WORKERS)]
        found = parallel(delayed(bare_loop)(part, case.search) for part in parts)
        return [
            scores for row in itertools.zip_longest(*found) for scores in row if scores is not None
        ]

    with _joblib_workers() as parallel:
        return _timed(case, work, case.workload.peer_pixels)


OURS = "hpc_sweep"
TASKS = "hpc_sweep, in its tasks"
SERIAL = "scikit-learn, serial"
JOBLIB = "joblib over pixels"
CLIENT_MAP = "client.map over pixels"
DASK_ML = "dask-ml, pixel by pixel"
BARE = "bare loop"
BARE_AT_ONCE = f"{WORKERS} bare loops at once"
METHODS: dict[str, Method] = {
    OURS: ours,
    SERIAL: serial,
    JOBLIB: joblib_pixels,
    CLIENT_MAP: client_map,
    DASK_ML: dask_ml,
    BARE: bare,
    BARE_AT_ONCE: bare_at_once,
}
ROUND = ((SERIAL, BARE, OURS, BARE_AT_ONCE), (CLIENT_MAP, OURS, JOBLIB, DASK_ML))
"""The order of a round: each peer beside one of ours; the two short loops are neighbours."""


def _timed(case: Case, work: Callable[[Pixels], Any], n_pixels: int) -> Run:
    """Time the reading of all pixels, and work on `n_pixels` of them, evenly spread."""
    begin = time.perf_counter()
    pixels = load_pixels(case.data, case.target)
    step = max(1, len(pixels) // n_pixels)
    load_s = time.perf_counter() - begin
    begin = time.perf_counter()
    scores = work(pixels[::step])
    work_s = time.perf_counter() - begin
    return Run(load_s * len(scores) / len(pixels) + work_s, np.stack(scores), step)


@contextlib.contextmanager
def _joblib_workers() -> Iterator[Parallel]:
    try:
        parallel = Parallel(n_jobs=WORKERS)
        parallel(delayed(os.getpid)() for _ in range(WORKERS))
        yield parallel
    finally:
        get_reusable_executor().shutdown(wait=True)


@contextlib.contextmanager
def _dask_workers() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=logging.CRITICAL,  # a heartbeat that meets the closing is no news
        ) as cluster,
        Client(cluster) as client,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Sending large graph")
        client.wait_for_workers(WORKERS)
        yield client
