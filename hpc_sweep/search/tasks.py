"""What is evaluated: models, candidates as estimators take them, partitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import _num_samples

from hpc_sweep.search.splits import Split, drawn
from hpc_sweep.strategies import Counts

Sums = dict[bool, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Sums over all samples of a partition of products of columns (ones, features, targets), and what
was subtracted from these before: by whether anything was."""


@dataclass(frozen=True)
class Model:
    """A model of the spec, built.

    Attributes
    ----------
    estimator : estimator
        Unfitted; candidates are clones of it with their parameters set.
    splitter : splitter
        Makes the splits of a partition.
    scorer : callable
        ``scorer(estimator, X, y)`` gives a number, or a dict by metric.
    """

    estimator: Any
    splitter: Any
    scorer: Callable[..., Any]


@dataclass(frozen=True)
class Setting:
    """A candidate, as estimators take it.

    Attributes
    ----------
    model : int
        Index of the model.
    params : mapping
        Parameter values.
    seeded : tuple of str
        Names of the parameters that get the partition's seed.
    """

    model: int
    params: Mapping[str, Any]
    seeded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One partition.

    Attributes
    ----------
    X : array-like or sparse matrix, shape (n_samples, n_features)
        Features.
    y : array-like, shape (n_samples,) or (n_samples, n_outputs), or None
        Target.
    splits : mapping of int to sequence of (ndarray, ndarray)
        By model: train and test indices of each split.
    seed : int
        What the random states get that nobody has set.
    names : sequence of str
        What messages call its splits; by their numbers where empty.
    columns : ndarray of intp, shape (n_splits,), optional
        Where its splits stand among those of all partitions; at the beginning where absent.
    weights : array-like, shape (n_samples,), optional
        Sample weights.
    sums : dict, optional
        Where a rule leaves what `coefficients_at_once` would compute again.
    """

    X: Any
    y: Any
    splits: Mapping[int, Sequence[Split]]
    seed: int = 0
    names: Sequence[str] = ()
    columns: NDArray[np.intp] | None = None
    weights: Any = None
    sums: Sums | None = None

    @property
    def n_samples(self) -> int:
        """How many samples the partition has."""
        return int(_num_samples(self.X))

    @property
    def n_classes(self) -> int:
        """How many different values its target has; 1 without one."""
        return 1 if self.y is None else len(np.unique(self.y))

    @property
    def counts(self) -> Counts:
        """How many training and test samples its splits have."""
        return {
            model: [(len(train), len(test)) for train, test in splits]
            for model, splits in self.splits.items()
        }

    def part(self, columns: Sequence[int] | None, counts: Counts | None) -> Task:
        """Return the partition with some of its splits, and so many samples of each.

        Parameters
        ----------
        columns : sequence of int or None
            Which splits; None: all.
        counts : Counts or None
            How many samples are drawn; None: all are taken.
        """
        if columns is None and counts is None:
            return self
        splits, names = {}, self.names
        for model, made in self.splits.items():
            chosen = [n for n in (columns or range(len(made))) if n < len(made)]
            splits[model] = [
                made[n] if counts is None else drawn(made[n], counts[model][n], self.seed)
                for n in chosen
            ]
        if columns is not None:
            names = [names[n] if names else str(n) for n in columns]
        return replace(self, splits=splits, names=names)

    @property
    def n_splits(self) -> int:
        """How many splits it has, of the model that has most."""
        return max((len(made) for made in self.splits.values()), default=0)
