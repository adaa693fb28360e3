"""Ridge and least squares of all candidates, splits and partitions by normal equations.

Alone or after a scaler, after principal components, or both: one decomposition a split serves
all penalties and numbers of components. Differs from scikit-learn by at most 1e-9; where the
condition is too poor for that, candidates are fitted alone.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from hpc_sweep.search.rules.base import Data, Fitted, Rule
from hpc_sweep.search.rules.gathering import Floats, Problems, gathered
from hpc_sweep.search.rules.measures import Measure, Residuals, measures_of
from hpc_sweep.search.rules.normal import Moments, moments
from hpc_sweep.search.rules.systems import (
    LARGEST_RATIO,
    LARGEST_RATIO_SVD,
    principal_ridge,
    ridge,
)

if TYPE_CHECKING:
    from hpc_sweep.search.evaluator import Evaluator
    from hpc_sweep.search.results import Evaluations
    from hpc_sweep.search.tasks import Task

MAX_FULL = 500
"""Up to so many samples or features ``PCA(svd_solver="auto")`` is exact in any case."""


@dataclass(frozen=True)
class Form:
    """What candidates have in common.

    Attributes
    ----------
    kind : type
        Class of the regressor.
    fit_intercept : bool
        Its parameter.
    svd : bool
        Whether scikit-learn solves it by singular values.
    cutoff : float
        Of singular values, those below this times the largest are dropped: ``tol`` of
        `LinearRegression`.
    scaler : bool or None
        ``with_std`` of the `StandardScaler` before it, if there is one.
    pca : str or None
        ``svd_solver`` of the `PCA` before it, if there is one.
    """

    kind: type
    fit_intercept: bool
    svd: bool
    cutoff: float = 0.0
    scaler: bool | None = None
    pca: str | None = None

    @property
    def centred(self) -> bool:
        """Whether features lose their means."""
        return self.fit_intercept or self.scaler is not None or self.pca is not None


def form_of(estimator: Any) -> tuple[Form, float, int | None] | None:
    """Return form, penalty and number of components of an estimator; None for any other."""
    steps = [estimator]
    if type(estimator) is Pipeline:
        if estimator.memory is not None or estimator.verbose or estimator.transform_input:
            return None
        steps = [each for _, each in estimator.steps if each not in (None, "passthrough")]
    if not steps or type(steps[-1]) not in (Ridge, LinearRegression):
        return None
    *before, last = steps
    alpha = getattr(last, "alpha", 0.0)
    solver = getattr(last, "solver", "svd")
    if last.positive or solver not in ("auto", "cholesky", "svd") or np.ndim(alpha):
        return None
    scaler = pca = n_components = None
    if before and type(before[0]) is StandardScaler and before[0].with_mean:
        scaler = bool(before.pop(0).with_std)
    if before and type(before[0]) is PCA:
        step = before.pop(0)
        n_components, pca = step.n_components, step.svd_solver
        exact = pca in ("auto", "full", "covariance_eigh") and not step.whiten
        if not exact or not (n_components is None or _is_count(n_components)):
            return None
    if before:
        return None
    cutoff = float(last.tol) if type(last) is LinearRegression else 0.0
    form = Form(type(last), bool(last.fit_intercept), solver == "svd", cutoff, scaler, pca)
    return form, float(alpha), n_components


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and bool(value >= 1)


class Linear(Rule):
    """Solves linear models in batches.

    Parameters
    ----------
    otherwise : Rule
        For pipelines whose scorer needs more than predictions.
    """

    least = 1

    def __init__(self, otherwise: Rule) -> None:
        self._otherwise = otherwise

    def matches(self, estimator: Any) -> Hashable | None:
        """Return the form."""
        found = form_of(estimator)
        return None if found is None else found[0]

    def fitted(self, estimators: Sequence[Any], data: Data) -> Iterator[Fitted]:
        """Yield nothing: one split alone is not worth it."""
        yield from ()

    def evaluate(
        self,
        evaluator: Evaluator,
        rows: Sequence[int],
        tasks: Sequence[Task],
        results: Evaluations,
    ) -> None:
        """Evaluate candidates on all splits of all partitions."""
        forms = [form_of(evaluator.template(row)) for row in rows]
        form, _, _ = forms[0]  # type: ignore[misc]
        index = evaluator.settings[rows[0]].model
        measures = measures_of(evaluator.models[index].scorer, evaluator.metrics, form.kind)
        if measures is None or any(task.weights is not None for task in tasks):
            self._evaluate_otherwise(evaluator, rows, tasks, results)
            return
        alphas = np.array([found[1] for found in forms if found])
        kept = np.array([found[2] or 0 for found in forms if found])
        batch = _Batch(evaluator, np.array(rows), form, alphas, kept, measures, tasks, results)
        shapes: dict[Hashable, list[int]] = defaultdict(list)
        for number, task in enumerate(tasks):
            if _is_plain(task) and evaluator.n_splits(rows[0], task):
                shapes[task.X.shape[1], task.y.shape[1:]].append(number)
        for numbers in shapes.values():
            batch.evaluate(numbers, index)
        batch.finish()

    def _evaluate_otherwise(
        self, evaluator: Evaluator, rows: Sequence[int], tasks: Sequence[Task], results: Evaluations
    ) -> None:
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for row in rows:
            groups[self._otherwise.matches(evaluator.template(row))].append(row)
        for common, members in groups.items():
            if common is None or len(members) < self._otherwise.least:
                evaluator.all_alone(members, tasks, results)
            else:
                self._otherwise.evaluate(evaluator, members, tasks, results)


def _is_plain(task: Task) -> bool:
    """Return whether arrays are such that scikit-learn computes in float64."""
    X, y = task.X, task.y
    if type(X) is not np.ndarray or type(y) is not np.ndarray or X.ndim != 2 or y.ndim > 2:
        return False
    fits = X.dtype == np.float64 or X.dtype.kind in "iub"
    return bool(fits and (y.dtype == np.float64 or y.dtype.kind in "iub") and len(X) and X.size)


def _none_dropped(found: Moments, cutoff: float, n_kept: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return for which splits and candidates all singular values are above the cutoff."""
    values = np.linalg.eigvalsh(np.where(found.sound[:, np.newaxis, np.newaxis], found.XX, 0.0))
    smallest = values[:, -np.minimum(n_kept, values.shape[1])]
    # squares of singular values; twice, since their last digits are not known
    return np.asarray(smallest > 2 * cutoff**2 * values[:, -1:])


@dataclass
class _Batch:
    """Some candidates of some partitions."""

    evaluator: Evaluator
    rows: NDArray[np.intp]
    form: Form
    alphas: Floats
    kept: NDArray[np.intp]
    measures: dict[str, Measure]
    tasks: Sequence[Task]
    results: Evaluations

    def __post_init__(self) -> None:
        shape = (len(self.tasks), len(self.rows), self.results.fit_time.shape[2])
        self.done = np.zeros(shape, dtype=bool)
        self.told: Any = np.geterr()

    def evaluate(self, numbers: Sequence[int], model: int) -> None:
        """Evaluate partitions of the same numbers of features and targets."""
        arrays = [
            (self.tasks[n].X, self.tasks[n].y.reshape(len(self.tasks[n].y), -1)) for n in numbers
        ]
        splits = [self.tasks[n].splits[model] for n in numbers]
        n_features, n_targets = arrays[0][0].shape[1], arrays[0][1].shape[1]
        with np.errstate(all="ignore"):  # what is not finite is fitted alone
            begin = time.perf_counter()
            for problems in gathered(arrays, splits, shifted=self.form.centred):
                W, sound = self._solved(problems, n_features, n_targets)
                fitted = time.perf_counter()
                where = (
                    np.array(numbers)[problems.task][:, np.newaxis],
                    self.rows[np.newaxis],
                    problems.column[:, np.newaxis],
                )
                sound &= self._score(problems, W, n_targets, where, splits)
                self.done[where[0], np.arange(len(self.rows)), where[2]] = sound
                scored = time.perf_counter()
                # what has no time is not done yet
                times = np.where(sound, (fitted - begin) / sound.size, np.nan)
                self.results.fit_time[where] = times
                self.results.score_time[where] = (scored - fitted) / sound.size
                begin = time.perf_counter()

    def _solved(
        self, problems: Problems, n_features: int, n_targets: int
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Return what makes residuals of samples, and which candidates are sound.

        Returns
        -------
        W : ndarray, shape (n_splits, 1 + n_features + n_targets, n_candidates * n_targets)
            By what `Side.Z` is multiplied.
        sound : ndarray of bool, shape (n_splits, n_candidates)
            Whether to 1e-9.
        """
        form = self.form
        found = moments(
            problems,
            n_features,
            centred=form.centred,
            scaled=bool(form.scaler),
            intercept=form.fit_intercept,
        )
        n_kept = np.where(self.kept, self.kept, n_features)
        if form.pca is None:
            ratio = LARGEST_RATIO_SVD if form.svd else LARGEST_RATIO
            w, sound = ridge(found, self.alphas, ratio)
        else:
            shifted = form.scaler is None
            w, sound = principal_ridge(found, self.alphas, n_kept, shifted=shifted)
            sound &= self._exact(problems.n_train, n_features, n_kept)
        if form.cutoff:
            sound &= _none_dropped(found, form.cutoff, n_kept)
        w = w / found.scale[:, np.newaxis, :, np.newaxis]
        n_splits, n_candidates = w.shape[:2]
        mean_X, mean_y = found.mean[:, :n_features], found.mean[:, n_features:]
        constant = -np.matmul(mean_X[:, np.newaxis, np.newaxis], w)[:, :, 0]
        if form.fit_intercept:
            constant += mean_y[:, np.newaxis]
        else:
            constant -= problems.shift[:, np.newaxis, n_features:]
        W = np.empty((n_splits, 1 + n_features + n_targets, n_candidates, n_targets))
        W[:, 0] = constant
        W[:, 1 : 1 + n_features] = w.transpose(0, 2, 1, 3)
        W[:, 1 + n_features :] = -np.eye(n_targets)[:, np.newaxis]
        return W.reshape(*W.shape[:2], -1), sound

    def _exact(self, count: Floats, n_features: int, n_kept: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return for which splits and candidates scikit-learn's PCA is exact too."""
        smallest = np.minimum(count, n_features)[:, np.newaxis]
        exact = n_kept <= smallest
        if self.form.pca == "auto":
            tall = (n_features <= 2 * MAX_FULL) & (count >= 10 * n_features)
            small = np.maximum(count, n_features) <= MAX_FULL
            exact &= (tall | small)[:, np.newaxis] | (n_kept >= 0.8 * smallest)
        return np.asarray(exact)

    def _score(
        self,
        problems: Problems,
        W: Floats,
        n_targets: int,
        where: tuple[NDArray[np.intp], ...],
        splits: Sequence[Any],
    ) -> NDArray[np.bool_]:
        """Write scores; return where all of them are numbers."""
        sound = np.ones((len(W), len(self.rows)), dtype=bool)
        kinds = [(problems.test, 1, self.results.scores)]
        if self.results.train_scores:
            kinds.append((problems.train, 0, self.results.train_scores))
        for side, which, scores in kinds:
            residuals = Residuals(
                side, np.matmul(side.Z, W), n_targets, problems.shift[:, -n_targets:]
            )
            for metric, measure in self.measures.items():
                if measure.at_once is not None:
                    values = measure.sign * measure.at_once(residuals)
                else:
                    values = self._one_by_one(measure, residuals, problems, where, splits, which)
                sound &= np.isfinite(values)
                scores[metric][where] = values
        return sound

    def _one_by_one(
        self,
        measure: Measure,
        residuals: Residuals,
        problems: Problems,
        where: tuple[NDArray[np.intp], ...],
        splits: Sequence[Any],
        which: int,
    ) -> Floats:
        """Ask scikit-learn's function, or a user's, about every candidate's predictions.

        Candidates of which it warns are fitted alone, as those for which it fails: so it is told
        of whom, and once.
        """
        values = np.full((len(residuals.values), len(self.rows)), np.nan)
        for place, (number, column) in enumerate(zip(where[0][:, 0], problems.column, strict=True)):
            task = self.tasks[number]
            samples = splits[problems.task[place]][column][which]
            y = task.y[samples]
            if (y == y[:1]).all(axis=0).any():
                continue  # some metrics turn on whether a constant is predicted to the last bit
            missed = residuals.values[place, : len(samples)].reshape(len(samples), -1, *y.shape[1:])
            for candidate in range(len(self.rows)):
                predicted = y + missed[:, candidate]
                try:
                    with self.evaluator.recorded() as warned, np.errstate(**self.told):
                        score = float(measure.function(y, predicted, **measure.options))
                except Exception:  # noqa: S112, it is fitted alone, and says why
                    continue
                if not warned:
                    values[place, candidate] = measure.sign * score
        return values

    def finish(self) -> None:
        """Fit alone what could not be solved."""
        for number, row in zip(*np.nonzero(~self.done.all(axis=2)), strict=True):
            task, result = self.tasks[number], self.results[number]
            n_splits = self.evaluator.n_splits(self.rows[row], task)
            left = np.flatnonzero(~self.done[number, row, :n_splits]).tolist()
            if left:
                for column in left:
                    result.clear(self.rows[row], column)
                self.evaluator.alone(int(self.rows[row]), task, left, result)
