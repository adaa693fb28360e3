"""What an evaluation that was ended has left, evaluated with as little as possible shared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpc_sweep.search.evaluator import Evaluator
from hpc_sweep.search.results import Evaluation, Evaluations
from hpc_sweep.search.rules import Rule
from hpc_sweep.search.tasks import Task
from hpc_sweep.search.watch import NOBODY, Watch


def finish(
    evaluator: Evaluator,
    tasks: Sequence[Task],
    results: Sequence[Evaluation],
    watch: Watch = NOBODY,
    *,
    alone: bool = False,
) -> None:
    """Evaluate what is missing in results, one by one.

    What has a time is not done again, and nothing of a candidate that was ended. Shared is only
    what gives other last bits than fits do, so that numbers do not depend on what was ended.

    Parameters
    ----------
    evaluator : Evaluator
        Has the candidates.
    tasks : sequence of Task
        The partitions.
    results : sequence of Evaluation
        What there is of them, and where scores go.
    watch : Watch
        Told of each fit before it begins.
    alone : bool
        Whether nothing at all is shared.
    """
    evaluator.begin(tasks, results, watch)
    for task, result in zip(tasks, results, strict=True):
        for rule, rows in evaluator.groups:
            untouched = not np.isfinite(result.fit_time[list(rows)]).any()
            if rule is not None and not rule.is_exact and untouched and not alone:
                _share(evaluator, rule, rows, task, result, watch)
            for row in rows:
                _finish(evaluator, row, task, result)


def _share(
    evaluator: Evaluator,
    rule: Rule,
    rows: Sequence[int],
    task: Task,
    result: Evaluation,
    watch: Watch,
) -> None:
    """Evaluate candidates of one partition by a rule."""
    watch.shares()
    rule.evaluate(evaluator, rows, [task], Evaluations.around(result))
    for row in result.ended.intersection(rows):
        result.forget(row)


def _finish(evaluator: Evaluator, row: int, task: Task, result: Evaluation) -> None:
    """Evaluate one candidate on the splits that it has no time of."""
    done = np.isfinite(result.fit_time[row, : evaluator.n_splits(row, task)])
    left = np.flatnonzero(~done).tolist()
    for column in left:
        result.clear(row, column)
    evaluator.alone(row, task, left, result)
