"""Assert that searches whose work is shared give scikit-learn's numbers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import chain
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from threadpoolctl import threadpool_limits

from hpc_sweep.estimators import build_scorers, build_splitter
from hpc_sweep.search import Evaluation, Evaluator, Model, Setting, Task

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A search whose candidates are shared by rules.

    Attributes
    ----------
    estimator, param_grid : estimator, mapping or list of mapping
        What is searched.
    groups : tuple of int or None
        Sizes of the groups of candidates that share work, largest first; None: whatever they are,
        and whether anything can be scored.
    scoring, cv : object
        As in `GridSearchCV`.
    tolerance : float
        Largest difference of a score; 0: bit-identical.
    train : bool
        Whether training samples are scored too.
    left : int or None
        How many fits the rules leave to be done alone; None: any number.
    """

    estimator: Any
    param_grid: Any
    groups: tuple[int, ...] | None
    scoring: Any = None
    cv: Any = 3
    tolerance: float = 0.0
    train: bool = True
    left: int | None = 0


def samples(classifier: bool, n_samples: int = 90, seed: int = 3) -> tuple[Array, Array]:
    """Return X and y with something to learn."""
    rng = np.random.default_rng(seed)
    X = rng.normal(3, 2, (n_samples, 5)) * [1, 10, 0.1, 1, 3]
    y = X @ [1.0, 0.1, 5.0, 0.0, -0.5] + np.sin(X[:, 0]) + rng.normal(size=n_samples)
    return X, np.digitize(y, np.quantile(y, [0.3, 0.6])) if classifier else y


def evaluator_of(case: Case, rules: Any = None) -> tuple[Evaluator, Any]:
    """Return what evaluates a case, and its splitter."""
    classifier = is_classifier(case.estimator)
    splitter = (
        build_splitter(case.cv, classifier) if isinstance(case.cv, int) else check_cv(case.cv)
    )
    if isinstance(case.scoring, dict) and any(map(callable, case.scoring.values())):
        scorer = check_scoring(case.estimator, case.scoring, raise_exc=False)
    else:
        named = case.scoring is None or not callable(case.scoring)
        scorer = build_scorers(case.estimator, case.scoring) if named else case.scoring
    metrics = tuple(case.scoring) if isinstance(case.scoring, (list, dict)) else ("score",)
    settings = [Setting(0, params) for params in ParameterGrid(case.param_grid)]
    options = {} if rules is None else {"rules": rules}
    model = Model(case.estimator, splitter, scorer)
    return Evaluator([model], settings, metrics, train_scores=case.train, **options), splitter


def evaluated(case: Case, X: Array, y: Array | None, rules: Any = None) -> Evaluation:
    evaluator, splitter = evaluator_of(case, rules)
    return evaluator.evaluate([Task(X, y, {0: list(splitter.split(X, y))})])[0]


def searched(case: Case, X: Array, y: Array | None) -> dict[str, Any]:
    """Return scikit-learn's scores, shape (n_candidates, n_splits), by kind and metric."""
    search = GridSearchCV(
        case.estimator,
        case.param_grid,
        cv=case.cv,
        scoring=case.scoring,
        refit=False,
        error_score=np.nan,
        return_train_score=True,
    )
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        results = search.fit(X, y).cv_results_
    metrics = tuple(case.scoring) if isinstance(case.scoring, (list, dict)) else ("score",)
    return {
        f"{kind}_{metric}": np.stack(
            [results[f"split{i}_{kind}_{metric}"] for i in range(search.n_splits_)], axis=1
        )
        for kind in ("test", "train")
        for metric in metrics
    }


def conforms(case: Case, X: Array, y: Array | None) -> Evaluation:
    """Assert that a case gives scikit-learn's numbers, in the groups that it should."""
    evaluator, splitter = evaluator_of(case)
    groups = [rows for rule, rows in evaluator.groups if rule]
    if case.groups is not None:
        assert tuple(sorted(map(len, groups), reverse=True)) == case.groups
    before = X.copy(), None if y is None else y.copy()
    task = Task(X, y, {0: list(splitter.split(X, y))})
    again = mock.patch.object(evaluator, "alone", wraps=evaluator.alone)
    with again as alone_again, threadpool_limits(1):
        found = evaluator.evaluate([task])[0]
    shared = set(chain(*groups))
    calls = [call.args for call in alone_again.call_args_list if call.args[0] in shared]
    if case.left is not None:
        assert sum(len(columns) for _, _, columns, _ in calls) == case.left
    expected = searched(case, X, y)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])  # type: ignore[arg-type]
    for kind, scores in (("test", found.scores), ("train", found.train_scores)):
        for metric, values in scores.items():
            wanted = expected[f"{kind}_{metric}"]
            assert case.groups is None or np.isfinite(wanted).any()
            if case.tolerance:
                np.testing.assert_allclose(values, wanted, rtol=0, atol=case.tolerance)
            else:
                np.testing.assert_array_equal(values, wanted)
    with threadpool_limits(1):
        alone = evaluated(case, X, y, rules=())
    assert found.messages == alone.messages
    np.testing.assert_array_equal(found.failed, alone.failed)
    assert (found.fit_time[np.isfinite(alone.fit_time)] > 0).all()
    return found
