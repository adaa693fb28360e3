"""What a sharing rule is."""

from __future__ import annotations

import abc
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hpc_sweep.search.weighing import fit

if TYPE_CHECKING:
    from hpc_sweep.search.evaluator import Evaluator
    from hpc_sweep.search.results import Evaluations
    from hpc_sweep.search.tasks import Task


@dataclass(frozen=True)
class Weights:
    """Sample weights of one split of one partition.

    Attributes
    ----------
    train, test : array-like, shape (n_samples,)
        Of the training and of the test samples.
    name : str or None
        By which ``fit`` takes them; None where it takes none.
    """

    train: Any
    test: Any
    name: str | None

    def of_last_step(self) -> Weights:
        """Return them as the last step of the pipeline takes them that `name` is of."""
        return replace(self, name=(self.name or "").partition("__")[2])


@dataclass
class Data:
    """One split of one partition.

    Attributes
    ----------
    X_train, X_test : array-like or sparse matrix, shape (n_samples, n_features)
        Features. A rule must leave them as they are.
    y_train, y_test : array-like or None
        Target.
    warned : list of str
        What was warned of since the evaluation of the split began.
    weights : Weights or None
        Where samples have weights.
    """

    X_train: Any
    y_train: Any
    X_test: Any
    y_test: Any
    warned: list[str] = field(default_factory=list)
    weights: Weights | None = None

    def fit(self, estimator: Any) -> None:
        """Fit an estimator on the training samples.

        Raises
        ------
        TypeError
            When there are weights, and it takes none.
        """
        given = (None, None) if self.weights is None else (self.weights.train, self.weights.name)
        fit(estimator, self.X_train, self.y_train, *given)


@dataclass
class Fitted:
    """A candidate, fitted on a split.

    Attributes
    ----------
    position : int
        Of the candidate among those that the rule was given.
    estimator : estimator
        Fitted; it gives the numbers that it would give if it had been fitted alone.
    seconds : float
        Its share of the time spent in fits.
    steps : tuple of transformer
        Fitted steps of a pipeline that come before `estimator`.
    X_test : array-like or None
        What to give to `estimator` in place of the split's own test samples; None: these, by
        way of `steps`.
    score_seconds : float
        Its share of the time spent in transforming the test samples.
    transformed : array-like or None
        By a transformer: the training samples, as ``fit_transform`` gives them.
    warned : sequence of str or None
        What the fit warned of; None: all that came since the evaluation began.
    """

    position: int
    estimator: Any
    seconds: float
    steps: tuple[Any, ...] = ()
    X_test: Any = None
    score_seconds: float = 0.0
    transformed: Any = None
    warned: Sequence[str] | None = None


class Rule(abc.ABC):
    """A way to evaluate several candidates in less work than one by one.

    Attributes
    ----------
    least : int
        How many candidates it takes to be worth it.
    is_exact : bool
        Whether its numbers are those of candidates fitted alone to the last bit.
    """

    least: int = 2
    is_exact: bool = True

    @abc.abstractmethod
    def matches(self, estimator: Any) -> Hashable | None:
        """Return what an estimator must have in common with others to share work with them.

        Parameters
        ----------
        estimator : estimator
            Unfitted, all parameters set.

        Returns
        -------
        hashable or None
            None where the rule does not apply.
        """

    def together(self, estimator: Any) -> Hashable | None:
        """Return what estimators have in common that cost about as much as one of them.

        No two workers are given some each of these. None where there is nothing like that.
        """
        return self.matches(estimator)

    @abc.abstractmethod
    def fitted(self, estimators: Sequence[Any], data: Data) -> Iterator[Fitted]:
        """Yield each of several candidates, fitted, in any order.

        Whatever this raises, or does not yield, is fitted alone instead.

        Parameters
        ----------
        estimators : sequence of estimator
            Unfitted copies, which are the rule's to use.
        data : Data
            The split.
        """

    def evaluate(
        self,
        evaluator: Evaluator,
        rows: Sequence[int],
        tasks: Sequence[Task],
        results: Evaluations,
    ) -> None:
        """Evaluate candidates on all splits of all partitions.

        Parameters
        ----------
        evaluator : Evaluator
            Has the candidates.
        rows : sequence of int
            Which of them; all of one model.
        tasks : sequence of Task
            The partitions.
        results : Evaluations
            Where scores go.
        """
        for task, result in zip(tasks, results, strict=True):
            for column in range(evaluator.n_splits(rows[0], task)):
                evaluator.share(self, rows, task, column, result)
