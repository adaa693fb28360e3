"""Ways to search each pixel of a store: ours, those of others, and the bare loop.

Each takes a `Case` and returns a `Run`. Starting workers and the work itself are timed apart.
Imports on fresh workers, reading the store, and sending arrays to workers belong to the work.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dask_ml.model_selection import GridSearchCV as DaskGridSearchCV
from distributed import Client, LocalCluster
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold, ParameterGrid
from workloads import Array, Data, Pixels, Workload, load_pixels

import hpc_sweep
from hpc_sweep.store import read_events, run_folder

WORKERS = 2


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
    n_slow : int
        How many pixels the slow methods do.
    """

    data: Data
    workload: Workload
    folder: Path
    n_slow: int


@dataclass(frozen=True)
class Run:
    """What one run of a method took and gave.

    Attributes
    ----------
    start_s : float
        Seconds until there were workers, and to end them.
    work_s : float
        Seconds of work.
    scores : ndarray of float64, shape (n_pixels, n_candidates, n_splits)
        Test scores of the pixels that were done: all, or the first few.
    task_s : float
        Ours only: seconds in its tasks, divided by the workers.
    """

    start_s: float
    work_s: float
    scores: Array
    task_s: float = float("nan")


Method = Callable[[Case], Run]
_COUNT = itertools.count()


def ours(case: Case) -> Run:
    """`hpc_sweep.run`, zarr to zarr, on a local cluster of its own."""
    results = case.folder / f"results-{next(_COUNT)}.zarr"
    begin = time.perf_counter()
    opened = hpc_sweep.run(case.workload.spec(case.data, results, WORKERS))
    whole_s = time.perf_counter() - begin
    events = list(read_events(run_folder(results).events))
    work_s = next(e["seconds"] for e in events if e["event"] == "run_ended")
    task_s = sum(e["seconds"] for e in events if e["event"] == "unit_done") / WORKERS
    _check_candidates(opened, case.workload)
    scores = opened["test_score"].transpose(*_DIMS).values
    return Run(whole_s - work_s, work_s, scores.reshape(-1, *scores.shape[2:]), task_s)


_DIMS = ("latitude", "longitude", "candidate", "split")


def _check_candidates(results: Any, workload: Workload) -> None:
    """Refuse candidates in another order than scikit-learn's: scores could not be compared."""
    for name in workload.param_grid:
        wanted = [params[name] for params in ParameterGrid(dict(workload.param_grid))]
        if results[f"param_{name}"].values.tolist() != wanted:
            raise RuntimeError(f"candidates differ in {name}")


def serial(case: Case) -> Run:
    """Search pixel by pixel with scikit-learn's GridSearchCV."""
    return _timed(lambda: [search(X, y, case.workload) for X, y in load_pixels(case.data)])


def joblib_pixels(case: Case) -> Run:
    """Run scikit-learn's searches with joblib, one pixel a task."""
    with _joblib_workers() as (parallel, start_s):
        return _timed(
            lambda: parallel(
                delayed(search)(X, y, case.workload) for X, y in load_pixels(case.data)
            ),
            start_s,
        )


def client_map(case: Case) -> Run:
    """Run scikit-learn's searches with Client.map, one pixel a task."""

    def work(client: Client) -> Any:
        Xs, ys = zip(*load_pixels(case.data), strict=True)
        futures = client.map(search, Xs, ys, workload=case.workload, pure=False)
        return client.gather(futures)

    with _dask_workers() as (client, start_s):
        return _timed(lambda: work(client), start_s)


def dask_ml(case: Case) -> Run:
    """Search pixel by pixel with dask-ml's GridSearchCV, from here, on the cluster's workers.

    It must not be nested in a task: then it waits for ever.
    """
    with _dask_workers() as (client, start_s):
        return _timed(
            lambda: [
                _dask_search(X, y, case.workload, client)
                for X, y in load_pixels(case.data)[: case.n_slow]
            ],
            start_s,
        )


def bare(case: Case) -> Run:
    """Clone, fit, predict and score in a loop of one process, with nothing around it."""
    return _timed(lambda: bare_loop(load_pixels(case.data), case.workload))


def bare_twice(case: Case) -> Run:
    """Run the bare loop on both cores at once, each over half of the pixels."""

    def work(parallel: Parallel) -> Any:
        pixels = load_pixels(case.data)
        halves = (pixels[i * len(pixels) // 2 : (i + 1) * len(pixels) // 2] for i in range(2))
        return sum(parallel(delayed(bare_loop)(half, case.workload) for half in halves), [])

    with _joblib_workers() as (parallel, start_s):
        return _timed(lambda: work(parallel), start_s)


OURS = "hpc_sweep"
BARE = "bare loop"
METHODS: dict[str, Method] = {
    OURS: ours,
    "scikit-learn, serial": serial,
    "joblib over pixels": joblib_pixels,
    "client.map over pixels": client_map,
    "dask-ml, pixel by pixel": dask_ml,
    BARE: bare,
    "bare loop, 2 processes": bare_twice,
}
SLOW = frozenset({"dask-ml, pixel by pixel"})


def search(X: Array, y: Array, workload: Workload) -> Array:
    """Search one pixel with scikit-learn; shape (n_candidates, n_splits)."""
    found = GridSearchCV(
        workload.estimator, dict(workload.param_grid), cv=workload.cv, scoring="r2", refit=False
    )
    return _split_scores(found.fit(X, y).cv_results_, workload.cv)


def _dask_search(X: Array, y: Array, workload: Workload, client: Client) -> Array:
    found = DaskGridSearchCV(
        workload.estimator,
        dict(workload.param_grid),
        cv=workload.cv,
        scoring="r2",
        refit=False,
        iid=False,
        scheduler=client,
    )
    return _split_scores(found.fit(X, y).cv_results_, workload.cv)


def _split_scores(results: dict[str, Any], n_splits: int) -> Array:
    return np.stack([results[f"split{i}_test_score"] for i in range(n_splits)], axis=1)


def bare_loop(pixels: Pixels, workload: Workload) -> list[Array]:
    """Return the scores of some pixels, each of shape (n_candidates, n_splits)."""
    grid = list(ParameterGrid(dict(workload.param_grid)))
    return [_bare_pixel(X, y, workload, grid) for X, y in pixels]


def _bare_pixel(X: Array, y: Array, workload: Workload, grid: list[dict[str, Any]]) -> Array:
    splits = [(X[a], y[a], X[b], y[b]) for a, b in KFold(workload.cv).split(X)]
    scores: NDArray[np.float64] = np.empty((len(grid), len(splits)))
    for row, params in enumerate(grid):
        for column, (X_train, y_train, X_test, y_test) in enumerate(splits):
            estimator = clone(workload.estimator).set_params(**params)
            predicted = estimator.fit(X_train, y_train).predict(X_test)
            scores[row, column] = r2_score(y_test, predicted)
    return scores


def _timed(work: Callable[[], Any], start_s: float = 0.0) -> Run:
    begin = time.perf_counter()
    scores = work()
    return Run(start_s, time.perf_counter() - begin, np.stack(scores))


@contextlib.contextmanager
def _joblib_workers() -> Iterator[tuple[Parallel, float]]:
    begin = time.perf_counter()
    try:
        parallel = Parallel(n_jobs=WORKERS)
        parallel(delayed(os.getpid)() for _ in range(WORKERS))
        yield parallel, time.perf_counter() - begin
    finally:
        get_reusable_executor().shutdown(wait=True)


@contextlib.contextmanager
def _dask_workers() -> Iterator[tuple[Client, float]]:
    begin = time.perf_counter()
    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Sending large graph")
        client.wait_for_workers(WORKERS)
        yield client, time.perf_counter() - begin
