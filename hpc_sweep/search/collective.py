"""Estimators of dask-ml, fitted on Dask arrays and scored on one worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sklearn.base import BaseEstimator

from hpc_sweep.search.dropins import computed
from hpc_sweep.search.evaluator import Evaluator
from hpc_sweep.search.results import Evaluation, Evaluations, brief, numbers
from hpc_sweep.search.tasks import Task
from hpc_sweep.search.training import Blocks
from hpc_sweep.search.warned import logged_as_warnings, recorded_once
from hpc_sweep.search.watch import NOBODY, Watch

Submit = Callable[..., Any]
"""Runs a function on a worker and gives its result, as `distributed.Client.submit` does."""


class Collective:
    """Evaluates candidates that are fitted by all workers; to be called by the driver.

    Parameters
    ----------
    evaluator : Evaluator
        Has the candidates.
    client : callable
        Gives a context in which dask-ml finds its client, and that client.
    """

    def __init__(
        self, evaluator: Evaluator, client: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._evaluator = evaluator
        self._client = client

    def evaluate(self, tasks: Sequence[Task], watch: Watch = NOBODY) -> Evaluations:
        """Fit and score the candidates on each partition, one after the other.

        Parameters
        ----------
        tasks : sequence of Task
            The partitions; X is a `Blocks`.
        watch : Watch
            Not told anything.
        """
        results = self._evaluator.blank(tasks)
        for task, result in zip(tasks, results, strict=True):
            with self._client() as client:
                tests = [
                    None if part is None else client.compute(part)
                    for part in (task.X.X_test, task.X.y_test)
                ]
                for row in range(len(self._evaluator.settings)):
                    self._one(client, row, task, tests, result)
        return results

    def _one(self, client: Any, row: int, task: Task, tests: Any, result: Evaluation) -> None:
        """Fit and score one candidate; what it raises is its own failure."""
        blocks: Blocks = task.X
        model = self._evaluator.models[self._evaluator.settings[row].model]
        begin = fitted = time.perf_counter()
        try:
            estimator = self._evaluator.made(row, task.seed)
            targets = [] if blocks.y_train is None else [blocks.y_train]
            with recorded_once() as warned, logged_as_warnings("dask_ml"):
                estimator.fit(blocks.X_train, *targets)
                _settle(estimator)
            result.warn(row, warned)
            fitted = time.perf_counter()
            found = client.submit(scores, estimator, model.scorer, *tests, pure=False).result()
            for metric, score in numbers(found, self._evaluator.metrics):
                if isinstance(score, str):
                    last = score.strip().splitlines()[-1]
                    result.fail(row, 0, brief(f"scoring {metric}", last))
                else:
                    result.scores[metric][row, 0] = score
                    if score != score:
                        result.fail(row, 0, f"scoring {metric}: the score is NaN")
        except Exception as error:
            if self._client_is_gone(client, error):
                raise
            result.fail(row, 0, brief(type(error).__name__, error))
            fitted = time.perf_counter() if fitted == begin else fitted
        result.fit_time[row, 0] = fitted - begin
        result.score_time[row, 0] = time.perf_counter() - fitted

    @staticmethod
    def _client_is_gone(client: Any, error: Exception) -> bool:
        """Return whether it was no fault of the candidate: a worker died, or the run ends."""
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        return client.status != "running" or isinstance(error, (KilledWorker, FutureCancelledError))


def _settle(estimator: Any) -> None:
    """Compute what a fit has left to be computed: it hangs on all the samples."""
    for part in (each for _, each in getattr(estimator, "steps", [("", estimator)])):
        names = [name for name, value in vars(part).items() if hasattr(value, "__dask_graph__")]
        values = computed(*(getattr(part, name) for name in names))
        for name, value in zip(names, values, strict=True):
            setattr(part, name, value)


def scores(estimator: Any, scorer: Callable[..., Any], X: Any, y: Any) -> Any:
    """Return what a scorer says of a fitted estimator on arrays in memory."""
    import dask

    with dask.config.set(scheduler="synchronous"):
        given = scorer(Concrete(estimator), X) if y is None else scorer(Concrete(estimator), X, y)
        return dask.compute(given)[0]


class Concrete(BaseEstimator):  # type: ignore[misc]
    """An estimator whose predictions are arrays: of arrays some of dask-ml's give lazy ones.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any = None) -> Any:
        """Raise: it is fitted already."""
        raise TypeError("it is fitted already")

    def predict(self, X: Any) -> Any:
        """Return predictions in memory."""
        return _computed(self.estimator.predict(X))

    def score(self, X: Any, y: Any = None) -> Any:
        """Return the estimator's own score."""
        return _computed(self.estimator.score(X) if y is None else self.estimator.score(X, y))

    def __sklearn_is_fitted__(self) -> bool:
        return True


def _computed(value: Any) -> Any:
    import dask

    return dask.compute(value)[0]
