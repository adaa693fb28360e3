"""What an evaluation leaves: scores, times, and the reasons of failures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

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
        Seconds. The time of a fit that several candidates share is divided by their number.
    failed : ndarray of bool, shape (n_candidates,)
        Whether any fit or score of the candidate raised.
    messages : list of str, length n_candidates
        Why it failed, or the first warning, or ``""``.
    train_scores : dict of str to ndarray of float64, shape (n_candidates, n_splits)
        The same on the training samples, where asked for.
    """

    scores: dict[str, NDArray[np.float64]]
    fit_time: NDArray[np.float64]
    score_time: NDArray[np.float64]
    failed: NDArray[np.bool_]
    messages: list[str] = field(default_factory=list)
    train_scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def blank(
        cls, n_candidates: int, n_splits: int, metrics: Sequence[str], train: bool = False
    ) -> Evaluation:
        """Return one in which nothing has been fitted."""

        def nothing() -> NDArray[np.float64]:
            return np.full((n_candidates, n_splits), np.nan)

        return cls(
            {metric: nothing() for metric in metrics},
            nothing(),
            nothing(),
            np.zeros(n_candidates, dtype=bool),
            [""] * n_candidates,
            {metric: nothing() for metric in metrics} if train else {},
        )

    def fail(self, row: int, column: int, message: str) -> None:
        """Note why a candidate failed on a split; the first reason stays."""
        if not self.failed[row]:
            self.messages[row] = f"split {column}: {message}"
        self.failed[row] = True

    def warn(self, row: int, texts: Sequence[str]) -> None:
        """Note the first warning of a candidate that has nothing worse."""
        if texts and not self.messages[row]:
            self.messages[row] = texts[0]

    def clear(self, row: int, column: int) -> None:
        """Forget the scores of a fit that is going to be done again."""
        for scores in (*self.scores.values(), *self.train_scores.values()):
            scores[row, column] = np.nan


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
            score = score.item()
        if isinstance(score, bool) or not isinstance(score, (int, float)):
            raise ValueError(f"the scorer gave {score!r} ({type(score).__name__}), not a number")
        yield metric, float(score)
