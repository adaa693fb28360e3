"""What a search is told, asks, is answered, and finds."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.candidates import (
    Candidate,
)

NAN = float("nan")


@dataclass(frozen=True)
class Array:
    """One result array, chunked like the partitions.

    Attributes
    ----------
    name : str
        Its name in the store.
    dims : tuple of str
        Dimensions behind the partition dimensions.
    dtype : str
        A NumPy dtype's name, or ``str`` for text of variable length.
    fill : object
        What a pending cell reads as.
    attributes : dict
        CF-style attributes.
    is_found : bool
        Whether the search in a partition finds it, by `Found.more`.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    fill: Any
    attributes: dict[str, Any] = field(default_factory=dict)
    is_found: bool = False


Counts = Mapping[int, Sequence[tuple[int, int]]]
"""By model: training and test samples of each split."""


class Partition(Protocol):
    """What a strategy sees of a partition: never its samples, which may be elsewhere."""

    @property
    def n_samples(self) -> int:
        """How many samples it has."""

    @property
    def n_classes(self) -> int:
        """How many different values its target has; 1 without one."""

    @property
    def counts(self) -> Counts:
        """How many samples its splits have."""

    @property
    def seed(self) -> int:
        """What is drawn with here, made of the sweep's seed and the partition's labels."""


@dataclass(frozen=True)
class Training:
    """A tournament of candidates that are trained block by block, in place of fits on splits.

    Attributes
    ----------
    kind : str
        Which search of `dask_ml.model_selection` decides who goes on.
    options : mapping
        Its keyword arguments, but for estimator, parameters, scoring and random state.
    """

    kind: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """Candidates that a strategy asks results of.

    Attributes
    ----------
    key : hashable
        The same for all requests of a run that ask for the same candidates: partitions are
        evaluated together by it.
    candidates : sequence of Candidate
        Which.
    counts : Counts, optional
        So many samples are drawn of each split of the partition, in place of all.
    training : Training, optional
        In place of splits.
    columns : sequence of int, optional
        Which splits; None: all.
    """

    key: Hashable
    candidates: Sequence[Candidate]
    counts: Counts | None = None
    training: Training | None = None
    columns: Sequence[int] | None = None


class Answer(Protocol):
    """What an evaluator finds: rows are the candidates asked for, columns the splits."""

    @property
    def scores(self) -> Mapping[str, NDArray[np.float64]]:
        """Test scores by metric."""

    @property
    def fit_time(self) -> NDArray[np.float64]:
        """Seconds."""

    @property
    def score_time(self) -> NDArray[np.float64]:
        """Seconds."""

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which candidates failed."""

    @property
    def messages(self) -> Sequence[str]:
        """Why, or the first warning."""

    @property
    def states(self) -> Mapping[int, int]:
        """By row, the status of those that failed for more than an exception."""

    @property
    def calls(self) -> NDArray[np.int64]:
        """Of a training: how many blocks each candidate was trained on."""

    @property
    def survived(self) -> NDArray[np.bool_]:
        """Of a training: who stayed to the end."""


@dataclass(frozen=True)
class Found:
    """What a search found in one partition.

    Attributes
    ----------
    scores : mapping of str to ndarray of float64, shape (n_rows, …, n_splits)
        Test scores by metric, along the strategy's `dims`.
    fit_time, score_time : ndarray of float64, same shape
        Seconds.
    failed : ndarray of bool, shape (n_rows,)
        Which rows failed.
    messages : sequence of str, length n_rows
        Why, or the first warning.
    states : mapping of int to int
        By row, the status of those that failed for more than an exception.
    more : mapping of str to array-like
        The strategy's own arrays, by name; what is left out reads as their fill.
    """

    scores: Mapping[str, NDArray[np.float64]]
    fit_time: NDArray[np.float64]
    score_time: NDArray[np.float64]
    failed: NDArray[np.bool_]
    messages: Sequence[str]
    states: Mapping[int, int] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


Search = Generator[Request, Answer, Found]
"""A search in one partition: asks, is answered, returns what it found."""


def asked_once(request: Request) -> Search:
    """Ask for one thing, and return the answer as it is."""
    answer = yield request
    return Found(
        answer.scores,
        answer.fit_time,
        answer.score_time,
        answer.failed,
        answer.messages,
        answer.states,
    )


class Unsearchable(ValueError):
    """A partition cannot be searched; the text says why."""
