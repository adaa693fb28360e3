"""What an evaluation leaves: scores, times, and the reasons of failures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Number
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Evaluation:
    """What came out for one partition.

    Attributes
    ----------
    scores : dict of str to ndarray of float64, shape (n_candidates, n_splits)
        Test scores by metric; NaN where a fit or score failed.
    fit_time, score_time : ndarray of float64, shape (n_candidates, n_splits)
        Seconds. The time of a fit that several candidates share is divided by their number;
        what has none is not done.
    failed : ndarray of bool, shape (n_candidates,)
        Whether any fit or score of the candidate raised.
    messages : list of str, length n_candidates
        Why it failed, or the first warning, or ``""``.
    train_scores : dict of str to ndarray of float64, shape (n_candidates, n_splits)
        The same on the training samples, where asked for.
    states : dict of int to int
        By row, the status of candidates that failed for more than an exception.
    ended : set of int
        Rows of which nothing more is evaluated.
    names : sequence of str
        What messages call the splits; by their numbers where empty.
    """

    scores: dict[str, NDArray[np.float64]]
    fit_time: NDArray[np.float64]
    score_time: NDArray[np.float64]
    failed: NDArray[np.bool_]
    messages: list[str] = field(default_factory=list)
    train_scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    states: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    names: Sequence[str] = ()

    def name(self, column: int) -> str:
        """Return what messages call a split."""
        return f"split {self.names[column] if self.names else column}"

    def fail(self, row: int, column: int, message: str) -> None:
        """Note why a candidate failed on a split; the first reason stays."""
        if not self.failed[row]:
            self.messages[row] = f"{self.name(column)}: {message}"
        self.failed[row] = True

    def warn(self, row: int, texts: Sequence[str]) -> None:
        """Note the first warning of a candidate that has nothing worse."""
        if texts and not self.messages[row]:
            self.messages[row] = texts[0]

    def clear(self, row: int, column: int) -> None:
        """Forget the scores of a fit that is going to be done again."""
        for scores in (*self.scores.values(), *self.train_scores.values()):
            scores[row, column] = np.nan

    def forget(self, row: int) -> None:
        """Forget all that there is of a candidate, times too."""
        for values in (*self.scores.values(), *self.train_scores.values()):
            values[row] = np.nan
        self.fit_time[row] = self.score_time[row] = np.nan


class Evaluations(Sequence[Evaluation]):
    """What came out for some partitions: one array for all, of which each has its part.

    Parameters
    ----------
    n_candidates : int
        How many candidates.
    n_splits : sequence of int
        How many splits each partition has.
    metrics : sequence of str
        Names of the metrics.
    train : bool
        Whether training samples are scored too.
    names : sequence of sequence of str
        By partition, what messages call its splits.

    Attributes
    ----------
    scores, train_scores, fit_time, score_time
        As in `Evaluation`, with an axis of the partitions before the others, and as many
        splits as any has.
    """

    def __init__(
        self,
        n_candidates: int,
        n_splits: Sequence[int],
        metrics: Sequence[str],
        train: bool = False,
        names: Sequence[Sequence[str]] = (),
    ) -> None:
        n_tasks = len(n_splits)

        def nothing() -> NDArray[np.float64]:
            return np.full((n_tasks, n_candidates, max(n_splits, default=0)), np.nan)

        self.scores = {metric: nothing() for metric in metrics}
        self.train_scores = {metric: nothing() for metric in metrics if train}
        self.fit_time = nothing()
        self.score_time = nothing()
        failed = np.zeros((n_tasks, n_candidates), dtype=bool)
        self._parts = [
            Evaluation(
                {metric: scores[task, :, :own] for metric, scores in self.scores.items()},
                self.fit_time[task, :, :own],
                self.score_time[task, :, :own],
                failed[task],
                [""] * n_candidates,
                {metric: scores[task, :, :own] for metric, scores in self.train_scores.items()},
                names=names[task] if names else (),
            )
            for task, own in enumerate(n_splits)
        ]

    @classmethod
    def around(cls, result: Evaluation) -> Evaluations:
        """Return one partition's results as those of several: what is written goes into them."""
        made = cls(0, [], ())
        made._parts = [result]
        made.scores = {metric: each[np.newaxis] for metric, each in result.scores.items()}
        made.train_scores = {name: each[np.newaxis] for name, each in result.train_scores.items()}
        made.fit_time, made.score_time = result.fit_time[np.newaxis], result.score_time[np.newaxis]
        return made

    def __len__(self) -> int:
        return len(self._parts)

    @overload
    def __getitem__(self, index: int) -> Evaluation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Evaluation]: ...
    def __getitem__(self, index: int | slice) -> Evaluation | Sequence[Evaluation]:
        return self._parts[index]


def brief(kind: str, text: object) -> str:
    """Return kind and text on one line, cut at 500 characters."""
    try:
        words = str(text)
    except Exception as error:  # a user's exception may fail to say what it is
        words = f"(its text cannot be had: {type(error).__name__})"
    line = f"{kind}: {' '.join(words.split())}"
    return line if len(line) <= 500 else line[:497] + "..."


def numbers(scores: Any, metrics: Sequence[str]) -> Iterator[tuple[str, float | str]]:
    """Yield what a scorer gave, by metric: a number, or the traceback of its failure.

    Raises
    ------
    ValueError
        When it is no number.
    """
    several = isinstance(scores, dict)
    for metric in metrics:
        score = scores[metric] if several else scores
        if several and isinstance(score, str):
            yield metric, score
            continue
        if hasattr(score, "item"):
            with contextlib.suppress(ValueError):  # of several elements
                score = score.item()
        if not isinstance(score, Number) or isinstance(score, complex):
            raise ValueError(f"the scorer gave {score!r} ({type(score).__name__}), not a number")
        yield metric, float(score)  # type: ignore[arg-type]
