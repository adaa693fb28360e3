"""Candidates evaluated by dask-ml's grid search on the cluster, with scikit-learn's numbers.

What dask-ml 2025.1 does otherwise is settled here, each thing where it says so. Its means are
not used, which weight folds by their size unless told ``iid=False``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.pipeline import FeatureUnion, Pipeline

from hpc_sweep.search.copies import leaves_input
from hpc_sweep.search.evaluator import Evaluator
from hpc_sweep.search.results import Evaluation, Evaluations, numbers
from hpc_sweep.search.tasks import Task
from hpc_sweep.search.watch import NOBODY, Watch

PIPELINES_OWN = ("memory", "steps", "transform_input", "verbose")
"""Parameters of a pipeline that dask-ml cannot set."""


class DaskML:
    """Evaluates candidates on partitions that lie on the cluster; to be called by the driver.

    Nested in a task, such a search would wait for the worker that it runs on.

    Parameters
    ----------
    evaluator : Evaluator
        Has the candidates.
    compute : callable
        ``compute(graph, keys)`` gives the values of keys of a Dask graph.
    explain : callable
        ``explain(task, rows)`` evaluates some candidates without dask-ml, which does not say
        why a fit failed.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        compute: Callable[[Any, Any], Any],
        explain: Callable[[Task, Sequence[int]], Evaluation],
    ) -> None:
        self._evaluator = evaluator
        self._compute = compute
        self._explain = explain

    def evaluate(self, tasks: Sequence[Task], watch: Watch = NOBODY) -> Evaluations:
        """Fit and score every candidate on every split of every partition.

        Parameters
        ----------
        tasks : sequence of Task
            The partitions; X and y are `dask.delayed`.
        watch : Watch
            Not told anything.
        """
        results = self._evaluator.blank(tasks)
        for task, result in zip(tasks, results, strict=True):
            for index in task.splits:
                rows = [r for r, each in enumerate(self._evaluator.settings) if each.model == index]
                for together in self._rounds(rows):
                    self._search(index, together, task, result)
            self._say_why(task, result)
        return results

    def _rounds(self, rows: Sequence[int]) -> Iterator[list[int]]:
        """Yield candidates that dask-ml may search at once.

        It takes 1, 1.0 and True for the same value, of which one is fitted; and it gives what
        a pipeline's first steps have made to several last steps, which may write into it.
        """
        rounds: list[tuple[list[int], dict[Any, type]]] = []
        for row in rows:
            template = self._evaluator.template(row)
            if isinstance(template, Pipeline) and not leaves_input(template):
                yield [row]
                continue
            params = self._evaluator.settings[row].params
            values = {(n, v): type(v) for n, v in params.items() if isinstance(v, (int, float))}
            for members, known in rounds:
                if all(known.get(each, kind) is kind for each, kind in values.items()):
                    members.append(row)
                    known.update(values)
                    break
            else:
                rounds.append(([row], values))
        yield from (members for members, _ in rounds)

    def _search(self, index: int, rows: Sequence[int], task: Task, result: Evaluation) -> None:
        from dask_ml.model_selection import GridSearchCV

        model, settings = self._evaluator.models[index], self._evaluator.settings
        grids = [
            {
                name: [_step(value)]
                for name, value in {
                    **settings[row].params,
                    **dict.fromkeys(settings[row].seeded, task.seed),
                }.items()
            }
            for row in rows
        ]
        search = GridSearchCV(
            _without_passthrough(model.estimator),
            grids,
            scoring=_scorers(model.scorer, self._evaluator.metrics),
            cv=list(task.splits[index]),
            iid=False,
            refit=False,
            error_score=np.nan,
            # what it keeps of a split may be written into by a fit
            cache_cv=False,
            # given a client, it would try for ever what kills its worker
            scheduler=lambda graph, keys, **options: self._compute(graph, keys),
        )
        with np.errstate(invalid="ignore"):  # it ranks NaN as an integer
            found = search.fit(task.X, task.y).cv_results_
        result.fit_time[rows] = found["mean_fit_time"][:, np.newaxis]
        result.score_time[rows] = found["mean_score_time"][:, np.newaxis]
        for metric, scores in result.scores.items():
            for column in range(len(task.splits[index])):
                scores[rows, column] = found[f"split{column}_test_{metric}"]

    def _say_why(self, task: Task, result: Evaluation) -> None:
        """Note why candidates failed: dask-ml gives NaN and no reason."""
        lacking = [
            row
            for row, setting in enumerate(self._evaluator.settings)
            if any(
                np.isnan(scores[row, : len(task.splits.get(setting.model, ()))]).any()
                for scores in result.scores.values()
            )
        ]
        if not lacking:
            return
        why = self._explain(task, lacking)
        for number, row in enumerate(lacking):
            result.failed[row] = True
            result.messages[row] = why.messages[number] or "dask-ml gave no score"
            if number in why.states:
                result.states[row] = why.states[number]


def unsuited(estimator: Any, names: Sequence[str]) -> dict[str, str]:
    """Return the parameters of candidates that dask-ml cannot set, and why.

    Parameters
    ----------
    estimator : estimator
        Of the model.
    names : sequence of str
        Parameters that its candidates set.
    """
    if not isinstance(estimator, Pipeline):
        return {}
    found = {}
    for name in names:
        step = estimator.get_params(deep=False)["steps"]
        inside = dict(step).get(name.partition("__")[0])
        if name in PIPELINES_OWN:
            found[name] = "a parameter of the pipeline itself"
        elif isinstance(inside, FeatureUnion) and "__" in name and _passes(inside):
            found[name] = "inside a FeatureUnion that passes features through"
    return found


def _passes(union: FeatureUnion) -> bool:
    return any(isinstance(step, str) for _, step in union.transformer_list)


class Careful:
    """A scorer that gives NaN where one raises: dask-ml is thrown off by that.

    Parameters
    ----------
    scorer : callable
        ``scorer(estimator, X, y)`` gives a number.
    """

    def __init__(self, scorer: Callable[..., Any]) -> None:
        self._scorer = scorer

    def __call__(self, estimator: Any, X: Any, *y: Any) -> float:
        """Return the score of a fitted estimator."""
        try:
            ((_, score),) = numbers(self._scorer(estimator, X, *y), ("score",))
        except (Exception, SystemExit):
            return float("nan")
        return float(score)


def _scorers(scorer: Any, metrics: Sequence[str]) -> Careful | Mapping[str, Careful]:
    if isinstance(scorer, _MultimetricScorer):
        return {metric: Careful(scorer._scorers[metric]) for metric in metrics}
    return Careful(scorer)


def _step(value: Any) -> Any:
    """Return a parameter's value as dask-ml knows it: it takes passthrough for an estimator."""
    return None if isinstance(value, str) and value == "passthrough" else value


def _without_passthrough(estimator: Any) -> Any:
    made = clone(estimator)
    if isinstance(made, Pipeline):
        made.steps = [(name, _step(step)) for name, step in made.steps]
    return made
