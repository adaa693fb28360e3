"""The fits that scikit-learn asks its `Parallel` for, done together where a rule shares them."""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import clone
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.model_selection._validation import _score
from sklearn.utils import get_tags
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _num_samples

from hpc_sweep.search.evaluator import Evaluator
from hpc_sweep.search.results import Evaluation
from hpc_sweep.search.scorers import is_own
from hpc_sweep.search.splits import Split
from hpc_sweep.search.tasks import Model, Setting, Task
from hpc_sweep.search.warned import Warned, recorded
from hpc_sweep.search.weighing import NAME, weight_parameter

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A function and its arguments, as joblib takes them."""

Cell = dict[str, Any]
"""What scikit-learn wants to know of one candidate on one split."""

ALONE = -1
"""In place of the number of a group."""


@dataclass(frozen=True)
class Grid:
    """Candidates and splits of one call, which are evaluated alike.

    Attributes
    ----------
    estimator : estimator
        Unfitted; candidates are clones of it with their parameters set.
    scorer : callable
        ``scorer(estimator, X, y)`` gives a number, or a dict by metric.
    parameters : list of dict
        Of the candidates.
    splits : list of (ndarray, ndarray)
        Train and test indices.
    train_scores : bool
        Whether to score on the training samples too.
    weights : array-like, shape (n_samples,), or None
        What `fit` is given.
    weighs : bool
        Whether the scorer is given them too.
    """

    estimator: Any
    scorer: Callable[..., Any]
    parameters: list[dict[str, Any]]
    splits: list[Split]
    train_scores: bool
    weights: Any = None
    weighs: bool = False

    def part(self, rows: Sequence[int], columns: Sequence[int]) -> Grid:
        """Return some candidates and splits."""
        parameters = [self.parameters[row] for row in rows]
        splits = [self.splits[column] for column in columns]
        return replace(self, parameters=parameters, splits=splits)

    def evaluator(self, scorer: Callable[..., Any]) -> SharedOnly:
        """Return what evaluates them."""
        named = isinstance(scorer, _MultimetricScorer)
        evaluator = SharedOnly(
            [Model(self.estimator, None, scorer)],
            [Setting(0, parameters) for parameters in self.parameters],
            tuple(scorer._scorers) if named else ("score",),  # type: ignore[attr-defined]
            train_scores=self.train_scores,
        )
        evaluator.weighs = self.weighs
        return evaluator


class SharedOnly(Evaluator):
    """Evaluates what rules share; all other fits are left to scikit-learn.

    Attributes
    ----------
    warned : dict of int to list of str
        By candidate, what its fits and scores warned of.
    weighs : bool
        Whether the scorer is given weights.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.warned: dict[int, list[str]] = defaultdict(list)
        self.weighs = False

    def alone(self, row: int, task: Task, columns: Sequence[int], result: Evaluation) -> None:
        """Leave the scores of a candidate as they are: not a number."""

    def recorded(self) -> AbstractContextManager[list[str]]:
        """Return a context that gives all that is warned of in it, as often as it is."""
        return recorded()

    def _weighing(self, row: int) -> tuple[str | None, bool]:
        return super()._weighing(row)[0], self.weighs

    def _warn(self, row: int, texts: Sequence[str], result: Evaluation) -> None:
        self.warned[row] += texts

    def shared(self) -> list[list[int]]:
        """Return which candidates are fitted together."""
        found = []
        for rule, rows in self.groups:
            carried = [row for row in rows if rule and _is_carried(self._templates[row])]
            if len(carried) > 1:
                found.append(carried)
        return found


class SharingParallel(Parallel):  # type: ignore[misc]
    """scikit-learn's `Parallel`, which has fits that share work done together.

    Parameters
    ----------
    groups : list of ndarray
        Gets the groups of the candidates of each call, as in ``shared``.
    n_jobs : int or None
        As in `joblib.Parallel`; where it is None and a Dask client is active, the client's
        workers are used.
    options : mapping
        What else `joblib.Parallel` takes.
    """

    def __init__(self, groups: list[NDArray[np.intp]], n_jobs: int | None, **options: Any) -> None:
        self._groups = groups
        with _place(n_jobs):
            super().__init__(n_jobs=n_jobs, **options)

    def __call__(self, iterable: Iterable[Call]) -> list[Cell]:
        """Return what each call gives, in their order."""
        calls = iter(iterable)
        for first in calls:
            if _may_share(first):
                return self._shared(first, calls)
            found = list(super().__call__(itertools.chain([first], calls)))
            self._note(np.full(len(found) // first[2]["split_progress"][1], ALONE))
            return found
        return []

    def _note(self, groups: NDArray[np.intp]) -> None:
        """Keep groups, numbered on from those of earlier calls."""
        before = sum(map(len, self._groups))
        self._groups.append(np.where(groups == ALONE, ALONE, groups + before))

    def _shared(self, first: Call, others: Iterator[Call]) -> list[Cell]:
        function, (estimator, X, y), _ = first
        # of the others' estimators none is kept: a search may have many
        options = [first[2], *(call[2] for call in others)]
        n_splits = options[0]["split_progress"][1]
        grid = Grid(
            estimator,
            options[0]["scorer"],
            [each["parameters"] for each in options[::n_splits]],
            [(each["train"], each["test"]) for each in options[:n_splits]],
            options[0]["return_train_score"],
            next(iter(options[0]["fit_params"].values()), None),
            weighs=bool(options[0]["score_params"]),
        )
        groups = grid.evaluator(grid.scorer).shared() if _are_counted(grid.splits, X) else []
        slices = _slices(groups, n_splits, self._effective_n_jobs())
        grouped = {row for rows, _ in slices for row in rows}

        def alone(position: int) -> Call:
            return function, (clone(estimator), X, y), options[position]

        left = [at for at in range(len(options)) if at // n_splits not in grouped]
        together = (delayed(evaluate)(grid.part(*each), X, y) for each in slices)
        found = super().__call__(itertools.chain(together, map(alone, left)))
        cells: list[Cell | None] = [None] * len(options)
        for (rows, columns), table in zip(slices, found, strict=False):
            for (row, column), cell in zip(itertools.product(rows, columns), table, strict=True):
                cells[row * n_splits + column] = cell
        self._note(_groups_of(cells, slices, n_splits))
        for at, cell in zip(left, found[len(slices) :], strict=True):
            cells[at] = cell
        again = [at for at, cell in enumerate(cells) if cell is None]
        for at, cell in zip(again, super().__call__(map(alone, again)), strict=True):
            cells[at] = cell
        return [cell for cell in cells if cell is not None]


Slice = tuple[list[int], Sequence[int]]
"""Rows and columns of a grid that one task evaluates."""


def _slices(groups: Sequence[list[int]], n_splits: int, n_jobs: int) -> list[Slice]:
    """Return what tasks evaluate: one for each group, or two for each process at the least."""
    if n_jobs == 1:
        return [(rows, range(n_splits)) for rows in groups]
    pieces = -(-2 * n_jobs // max(1, len(groups) * n_splits))
    return [
        (rows[start : start + size], [column])
        for rows in groups
        for size in [max(2, -(-len(rows) // pieces))]
        for start in range(0, len(rows), size)
        for column in range(n_splits)
    ]


def _groups_of(
    cells: Sequence[Cell | None], slices: Sequence[Slice], n_splits: int
) -> NDArray[np.intp]:
    """Return by candidate the first candidate of those that it shared a fit with."""
    groups = np.full(len(cells) // n_splits, ALONE)
    for rows, columns in slices:
        sharing = [row for row in rows if any(cells[row * n_splits + column] for column in columns)]
        if len(sharing) > 1:
            groups[sharing] = sharing[0]
    return groups


def evaluate(grid: Grid, X: Any, y: Any) -> list[Cell | None]:
    """Evaluate candidates by the rule that they share.

    Returns
    -------
    list of dict or None
        For each candidate, each split: what scikit-learn's own evaluation gives; None where
        that has to be asked.
    """
    X, y, weights = (
        np.asarray(each) if isinstance(each, np.memmap) else each for each in (X, y, grid.weights)
    )
    kept = None if is_own(grid.scorer) else _Kept(grid.scorer)
    evaluator = grid.evaluator(kept or grid.scorer)
    found = evaluator.evaluate([Task(X, y, {0: grid.splits}, weights=weights)])[0]

    def value(scores: dict[str, NDArray[np.float64]], row: int, column: int) -> Any:
        numbers = {metric: float(each[row, column]) for metric, each in scores.items()}
        if kept is not None:
            return kept.values[int(numbers["score"])]
        return numbers if isinstance(grid.scorer, _MultimetricScorer) else numbers["score"]

    def cell(row: int, column: int) -> Cell | None:
        tables = [found.fit_time, *found.scores.values(), *found.train_scores.values()]
        if not all(np.isfinite(table[row, column]) for table in tables):
            return None
        made = {
            "fit_error": None,
            "test_scores": value(found.scores, row, column),
            "n_test_samples": len(grid.splits[column][1]),
            "fit_time": float(found.fit_time[row, column]),
            "score_time": float(found.score_time[row, column]),
        }
        if grid.train_scores:
            made["train_scores"] = value(found.train_scores, row, column)
        return made

    for row in sorted(evaluator.warned):
        for text in evaluator.warned[row]:
            if isinstance(text, Warned):
                text.show()
    size = range(len(grid.parameters)), range(len(grid.splits))
    return [cell(row, column) for row, column in itertools.product(*size)]


class _Kept:
    """A user's scorer, which may give a dict: gives the place of what it gave in `values`."""

    def __init__(self, scorer: Callable[..., Any]) -> None:
        self._scorer = scorer
        self.values: list[Any] = []

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> int:
        self.values.append(_score(estimator, X, y, self._scorer, None))
        return len(self.values) - 1


def _may_share(call: Call) -> bool:
    """Return whether rules can do what is asked for."""
    options = call[2]
    return (
        options["verbose"] < 2
        and _are_weights(call)
        and not getattr(options.get("callback_ctx"), "_callbacks", ())
        and not get_config()["array_api_dispatch"]
    )


def _are_counted(splits: Sequence[Split], X: Any) -> bool:
    """Return whether splits are numbers of samples, counted from the first one."""
    sides = [np.asarray(side) for split in splits for side in split]
    return all(
        side.dtype.kind in "iu" and (not side.size or 0 <= side.min() <= side.max() < n_samples)
        for n_samples in [_num_samples(X)]
        for side in sides
    )


def _are_weights(call: Call) -> bool:
    """Return whether fit and scorer are given nothing, or sample weights alone."""
    _, (estimator, X, _), options = call
    given, scored = options["fit_params"], options["score_params"] or {}
    if not given or get_config()["enable_metadata_routing"]:
        return not given and not scored
    name = weight_parameter(estimator)
    if {*given} != {name} or {*scored} - {NAME} or not is_own(options["scorer"]):
        return False
    values = np.asarray(given[name])
    same = all(each is given[name] for each in scored.values())
    return bool(same and values.shape == (_num_samples(X),) and values.dtype.kind in "biuf")


def _is_carried(estimator: Any) -> bool:
    """Return whether rules know what an estimator wants of its search."""
    parts = (estimator, *estimator.get_params(deep=True).values())
    if any(getattr(part, "_skl_callbacks", None) for part in parts):
        return False
    return not get_tags(estimator).input_tags.pairwise


def _place(n_jobs: int | None) -> Any:
    """Return a context in which `Parallel` finds the workers of an active Dask client."""
    client = _active_client() if n_jobs is None else None
    return joblib.parallel_config("dask", client=client) if client else nullcontext()


def _active_client() -> Any | None:
    """Return the process's Dask client, unless joblib was told otherwise or this is a task."""
    distributed = sys.modules.get("distributed")
    backend, n_jobs = joblib.parallel.get_active_backend()
    chosen = n_jobs not in (None, 1) or type(backend) is not joblib.parallel.LokyBackend
    if distributed is None or chosen:
        return None
    try:
        distributed.get_worker()
    except ValueError:
        pass
    else:
        return None
    try:
        client = distributed.Client.current()
    except ValueError:
        return None
    return None if client.asynchronous else client
