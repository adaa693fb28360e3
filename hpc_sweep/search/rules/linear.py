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

from hpc_sweep.search.rules.base import Data, Fitted, Rule
from hpc_sweep.search.rules.gathering import Floats, Problems, gathered
from hpc_sweep.search.rules.measures import Measure, Residuals, is_generic, measures_of
from hpc_sweep.search.rules.solving import System, form_of, is_plain
from hpc_sweep.search.rules.whole import stacked_for

if TYPE_CHECKING:
    from hpc_sweep.search.evaluator import Evaluator
    from hpc_sweep.search.results import Evaluations
    from hpc_sweep.search.tasks import Task


class Linear(Rule):
    """Solves linear models in batches.

    Parameters
    ----------
    otherwise : Rule
        For pipelines whose scorer needs more than predictions.
    """

    least = 1
    is_exact = False

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
        plain = [n for n, task in enumerate(tasks) if is_plain(task.X, task.y)]
        if measures is None or not plain or any(task.weights is not None for task in tasks):
            self._evaluate_otherwise(evaluator, rows, tasks, results)
            return
        alphas = np.array([[found[1] for found in forms if found]])
        kept = np.array([[found[2] or 0 for found in forms if found]])
        system = System(form, alphas, kept)
        batch = _Batch(evaluator, np.array(rows), system, measures, tasks, results)
        shapes: dict[Hashable, list[int]] = defaultdict(list)
        for number in plain:
            task = tasks[number]
            if evaluator.n_splits(rows[0], task):
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


@dataclass
class _Batch:
    """Some candidates of some partitions."""

    evaluator: Evaluator
    rows: NDArray[np.intp]
    system: System
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
            stack = stacked_for(self.system.form, arrays, [self.tasks[n].sums for n in numbers])
            begin = time.perf_counter()
            for problems in gathered(stack, splits):
                W, sound = self.system.solve(problems, n_features, n_targets)
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
        of whom, and once. So are those about which a user's may say else for the last bits.
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
                if not (measure.is_continuous or is_generic(y, predicted)):
                    continue
                given = y.copy(), predicted.copy()
                try:
                    with self.evaluator.recorded() as warned, np.errstate(**self.told):
                        score = float(measure.function(*given, **measure.options))
                except (Exception, SystemExit):  # noqa: S112, it is fitted alone, and says why
                    continue
                is_clean = np.array_equal(given[0], y) and np.array_equal(given[1], predicted)
                if is_clean and not warned:  # other metrics see what is written into these
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
