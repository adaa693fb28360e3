"""The plain loop: clone, fit, predict, score, for each candidate and split."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone

Split = tuple[NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True)
class Model:
    """A model of the spec, built.

    Attributes
    ----------
    estimator : estimator
        Unfitted; candidates are clones of it with their parameters set.
    splitter : splitter
        Makes the splits of a partition.
    scorer : callable
        ``scorer(estimator, X, y)`` gives a number, or a dict by metric.
    """

    estimator: Any
    splitter: Any
    scorer: Callable[..., Any]


@dataclass(frozen=True)
class Evaluation:
    """What came out for one partition.

    Attributes
    ----------
    scores : dict of str to ndarray of float64, shape (n_candidates, n_splits)
        Test scores by metric; NaN where a fit or score failed.
    fit_time, score_time : ndarray of float64, shape (n_candidates, n_splits)
        Seconds.
    failed : ndarray of bool, shape (n_candidates,)
        Whether any fit or score of the candidate raised.
    messages : list of str, length n_candidates
        Why it failed, or the first warning, or ``""``.
    """

    scores: dict[str, NDArray[np.float64]]
    fit_time: NDArray[np.float64]
    score_time: NDArray[np.float64]
    failed: NDArray[np.bool_]
    messages: list[str] = field(default_factory=list)


def evaluate(
    X: Any,
    y: Any,
    models: Sequence[Model],
    candidates: Sequence[tuple[int, Mapping[str, Any]]],
    splits: Mapping[int, Sequence[Split]],
    metrics: Sequence[str],
) -> Evaluation:
    """Fit and score every candidate on every split.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_features)
        Features.
    y : ndarray, shape (n_samples,) or (n_samples, n_outputs), or None
        Target.
    models : sequence of Model
        The models that candidates refer to.
    candidates : sequence of (int, mapping)
        Index of the model, and parameter values.
    splits : mapping of int to sequence of (ndarray, ndarray)
        By model: train and test indices of each split.
    metrics : sequence of str
        Names of the metrics; one for a scorer that gives a number.

    Returns
    -------
    Evaluation
        Rows in the order of `candidates`. What a candidate raises becomes NaN and a
        message, as with scikit-learn's ``error_score=np.nan``, and touches nothing else.
    """
    shape = (len(candidates), max((len(found) for found in splits.values()), default=0))
    result = Evaluation(
        {metric: np.full(shape, np.nan) for metric in metrics},
        np.full(shape, np.nan),
        np.full(shape, np.nan),
        np.zeros(shape[0], dtype=bool),
        [""] * shape[0],
    )
    for row, (index, params) in enumerate(candidates):
        with _recorded_warnings() as caught:
            for column, split in enumerate(splits[index]):
                # cut anew for each fit, as scikit-learn does: Ridge(copy_X=False) changes its X
                data = _cut(X, y, split)
                # what the first split found valid is not looked at again for the others
                valid = column > 0 and not result.failed[row]
                with config_context(skip_parameter_validation=True) if valid else nullcontext():
                    _fit_and_score(models[index], params, data, result, row, column)
        if caught and not result.messages[row]:
            result.messages[row] = caught[0]
    return result


@contextlib.contextmanager
def _recorded_warnings() -> Iterator[list[str]]:
    """Record what fits warn of: of this thread, and nothing that comes once a process.

    Dask's threads warn too, and lazy imports and the garbage collector warn at times that
    have nothing to do with the candidate.
    """
    texts: list[str] = []
    thread = threading.get_ident()

    def note(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if threading.get_ident() == thread:
            texts.append(_brief(category.__name__, message))

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning):
            warnings.simplefilter("ignore", category)
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.showwarning = note
        yield texts


def _cut(X: Any, y: Any, split: Split) -> tuple[Any, Any, Any, Any]:
    train, test = split
    return X[train], None if y is None else y[train], X[test], None if y is None else y[test]


def _fit_and_score(
    model: Model,
    params: Mapping[str, Any],
    data: tuple[Any, Any, Any, Any],
    result: Evaluation,
    row: int,
    column: int,
) -> None:
    X_train, y_train, X_test, y_test = data
    start = fitted = time.perf_counter()
    try:
        estimator = clone(model.estimator).set_params(**clone(params, safe=False))
        estimator.fit(X_train) if y_train is None else estimator.fit(X_train, y_train)
        fitted = time.perf_counter()
        scores = (
            model.scorer(estimator, X_test)
            if y_test is None
            else model.scorer(estimator, X_test, y_test)
        )
        for metric, score in _numbers(scores, result.scores):
            if isinstance(score, str):
                last = score.strip().splitlines()[-1]
                _fail(result, row, column, _brief(f"scoring {metric}", last))
            else:
                result.scores[metric][row, column] = score
                if math.isnan(score):
                    _fail(result, row, column, f"scoring {metric}: the score is NaN")
    except (Exception, SystemExit) as error:  # whatever it raises is the candidate's failure
        _fail(result, row, column, _brief(type(error).__name__, error))
        fitted = time.perf_counter() if fitted == start else fitted
    result.fit_time[row, column] = fitted - start
    result.score_time[row, column] = time.perf_counter() - fitted


def _numbers(scores: Any, metrics: Mapping[str, Any]) -> Iterator[tuple[str, float | str]]:
    named = scores if isinstance(scores, dict) else dict.fromkeys(metrics, scores)
    for metric in metrics:
        score = named[metric]
        if isinstance(score, str):
            yield metric, score
            continue
        if hasattr(score, "item"):
            score = score.item()
        if isinstance(score, bool) or not isinstance(score, (int, float)):
            raise ValueError(f"the scorer gave {score!r} ({type(score).__name__}), not a number")
        yield metric, float(score)


def _fail(result: Evaluation, row: int, column: int, message: str) -> None:
    result.failed[row] = True
    if not result.messages[row]:
        result.messages[row] = f"split {column}: {message}"


def _brief(kind: str, text: object) -> str:
    """Return kind and text on one line, cut at 500 characters."""
    try:
        words = str(text)
    except Exception as error:  # a user's exception may fail to say what it is
        words = f"(its text cannot be had: {type(error).__name__})"
    line = f"{kind}: {' '.join(words.split())}"
    return line if len(line) <= 500 else line[:497] + "..."
