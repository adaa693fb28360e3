"""Candidates trained block by block on the cluster, by the incremental searches of dask-ml.

What dask-ml 2025.1 does otherwise is settled here, each thing where it says so.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from hpc_sweep.search.evaluator import Evaluator
from hpc_sweep.search.results import Evaluation, brief, numbers
from hpc_sweep.search.tasks import Task
from hpc_sweep.search.warned import recorded_once
from hpc_sweep.search.watch import NOBODY, Watch

LOWEST = -1e300
"""The score of what failed: dask-ml compares scores, and NaN is neither less nor more."""


@dataclass(frozen=True)
class Blocks:
    """One partition as Dask arrays that lie on the cluster, cut along samples.

    Attributes
    ----------
    X_train, X_test : dask.array.Array, shape (n_samples, n_features)
        Features; each block of the one is a block of the other's, too.
    y_train, y_test : dask.array.Array, or None
        Target.
    classes : ndarray or None
        Of the target, where a model is a classifier.
    """

    X_train: Any
    y_train: Any
    X_test: Any
    y_test: Any
    classes: NDArray[Any] | None = None


class Score(float):
    """A score that knows how it came about: of a training dask-ml keeps nothing but scores.

    Attributes
    ----------
    fit_seconds, score_seconds : float
        What the candidate has taken until now.
    failure, warned : str
        Why it failed, and its first warning.
    """

    fit_seconds: float
    score_seconds: float
    failure: str
    warned: str


class Trainee:
    """A candidate that notes what its training raises, and is trained no more.

    Parameters
    ----------
    estimator : estimator or str
        Unfitted; or why there is none.
    classes : ndarray, optional
        What is told to estimators that want to know all classes.
    supervised : bool
        Whether there is a target.
    """

    def __init__(self, estimator: Any, classes: NDArray[Any] | None, *, supervised: bool) -> None:
        self.estimator = estimator
        self.failure = estimator if isinstance(estimator, str) else ""
        self.warned = ""
        self.fit_seconds = self.score_seconds = 0.0
        self._supervised = supervised
        self._classes = classes

    def partial_fit(self, X: Any, y: Any) -> None:
        """Train on a block."""
        if self.failure:
            return
        begin = time.perf_counter()
        with recorded_once() as warned:
            try:
                self.estimator.partial_fit(X, *([y] if self._supervised else []), **self._more())
            except (Exception, SystemExit) as error:  # it is the candidate's failure
                self.failure = brief(type(error).__name__, error)
        self.fit_seconds += time.perf_counter() - begin
        self.warned = self.warned or str(next(iter(warned), ""))

    def _more(self) -> dict[str, Any]:
        wanted = self._classes is not None and takes_classes(self.estimator)
        return {"classes": self._classes} if wanted else {}

    def score(self, scorer: Callable[..., Any], X: Any, y: Any) -> Score:
        """Return the score on the test samples."""
        begin, value = time.perf_counter(), LOWEST
        with recorded_once() as warned:
            try:
                if not self.failure:
                    given = scorer(self.estimator, X, *([y] if self._supervised else []))
                    ((_, found),) = numbers(given, ("score",))
                    value = float(found)
                    if not math.isfinite(value):
                        self.failure = f"scoring: the score is {value}"
            except (Exception, SystemExit) as error:
                self.failure = brief("scoring", error)
        self.score_seconds += time.perf_counter() - begin
        score = Score(LOWEST if self.failure else value)
        score.fit_seconds, score.score_seconds = self.fit_seconds, self.score_seconds
        score.failure, score.warned = self.failure, self.warned or str(next(iter(warned), ""))
        return score


def takes_classes(estimator: Any) -> bool:
    """Return whether ``partial_fit`` wants to know all classes beforehand."""
    return "classes" in inspect.signature(estimator.partial_fit).parameters


class Trainees(BaseEstimator):  # type: ignore[misc]
    """Stands for all candidates of a search: setting its one parameter gives one of them.

    So candidates of several models compete in one search, and dask-ml sets no parameters.

    Parameters
    ----------
    members : sequence of Trainee
        The candidates.
    """

    def __init__(self, members: Sequence[Trainee] = ()) -> None:
        self.members = members

    def fit(self, X: Any, y: Any = None) -> Any:
        """Raise: only one of the members can be trained."""
        raise TypeError("this stands for several candidates, set row first")

    def set_params(self, *, row: int) -> Any:
        """Return the candidate."""
        return self.members[row]


@dataclass(frozen=True)
class Scoring:
    """A scorer of trainees.

    Attributes
    ----------
    scorer : callable
        ``scorer(estimator, X, y)`` gives a number.
    """

    scorer: Callable[..., Any]

    def __call__(self, trainee: Trainee, X: Any, y: Any) -> Score:
        """Return the score of a trainee."""
        return trainee.score(self.scorer, X, y)


@dataclass(frozen=True)
class Trained(Evaluation):
    """What came out of a tournament; there is one split.

    Attributes
    ----------
    calls : ndarray of int, shape (n_candidates,)
        Of ``partial_fit``; a block without samples counts too.
    survived : ndarray of bool, shape (n_candidates,)
        Who stayed to the end.
    """

    calls: NDArray[np.int64] = None  # type: ignore[assignment]
    survived: NDArray[np.bool_] = None  # type: ignore[assignment]


class Trainer:
    """Holds tournaments of candidates; to be called by the driver, never in a task.

    Parameters
    ----------
    evaluator : Evaluator
        Has the candidates.
    kind : str
        Which search of `dask_ml.model_selection`.
    options : mapping
        Its keyword arguments.
    client : callable
        Gives a context in which dask-ml finds its client.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        kind: str,
        options: Mapping[str, Any],
        client: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._evaluator = evaluator
        self._kind = kind
        self._options = options
        self._client = client

    def evaluate(self, tasks: Sequence[Task], watch: Watch = NOBODY) -> list[Trained]:
        """Train and score the candidates on each partition.

        Parameters
        ----------
        tasks : sequence of Task
            The partitions; X is a `Blocks`.
        watch : Watch
            Not told anything.
        """
        return [self._train(task) for task in tasks]

    def _train(self, task: Task) -> Trained:
        rows = range(len(self._evaluator.settings))
        blocks: Blocks = task.X
        trainees = [
            Trainee(self._made(row, task), blocks.classes, supervised=blocks.y_train is not None)
            for row in rows
        ]
        search = _search_class(self._kind)(
            Trainees(trainees),
            {"row": list(rows)},
            scoring=Scoring(self._evaluator.models[0].scorer),
            random_state=task.seed,
            **self._options,
        )
        with self._client():
            search.fit(blocks)
        return self._results(search)

    def _made(self, row: int, task: Task) -> Any:
        """Return the unfitted estimator of a candidate, or why there is none."""
        try:
            return self._evaluator.made(row, task.seed)
        except Exception as error:
            return brief(type(error).__name__, error)

    def _results(self, search: Any) -> Trained:
        count = len(self._evaluator.settings)
        (metric,) = self._evaluator.metrics
        found = Trained(
            {metric: np.full((count, 1), np.nan)},
            np.zeros((count, 1)),
            np.zeros((count, 1)),
            np.zeros(count, dtype=bool),
            [""] * count,
            calls=np.zeros(count, dtype=np.int64),
            survived=np.zeros(count, dtype=bool),
        )
        for number, history in search.model_history_.items():
            last = history[-1]
            row, score = last["params"]["row"], last["score"]
            found.calls[row] = last["partial_fit_calls"]
            found.survived[row] = number in search.survivors_
            found.fit_time[row], found.score_time[row] = score.fit_seconds, score.score_seconds
            found.failed[row] = bool(score.failure)
            found.messages[row] = score.failure or score.warned
            if not score.failure:
                found.scores[metric][row] = float(score)
        return found


def _search_class(kind: str) -> Any:
    """Return a search of dask-ml's that takes `Blocks`, split already, and tells who survived."""
    from dask_ml import model_selection

    class OfBlocks(getattr(model_selection, kind)):  # type: ignore[misc]
        def _get_train_test_split(self, X: Blocks, y: None) -> tuple[Any, Any, Any, Any]:
            # no target: what dask-ml hands on in its place is not looked at
            ys = (X.X_train, X.X_test) if X.y_train is None else (X.y_train, X.y_test)
            return X.X_train, X.X_test, *ys

        def _process_results(self, results: Any) -> Any:
            self.survivors_ = set(results.models)
            return results

    return OfBlocks
