"""Splits of partitions, made once where they depend on the number of samples only."""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    LeaveOneGroupOut,
    LeaveOneOut,
    LeavePGroupsOut,
    LeavePOut,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    TimeSeriesSplit,
)
from sklearn.utils import resample
from sklearn.utils.validation import _num_samples

Split = tuple[NDArray[np.intp], NDArray[np.intp]]

_BY_COUNT = (
    KFold,
    LeaveOneOut,
    LeavePOut,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    TimeSeriesSplit,
)
"""Splitters of scikit-learn that look at neither features nor target."""

_BY_GROUPS = (GroupKFold, GroupShuffleSplit, LeaveOneGroupOut, LeavePGroupsOut)
"""Those that look at groups alone."""

_KEPT_BYTES = 64 * 2**20
"""So much of splits is remembered."""


def drawn(split: Split, counts: tuple[int, int], seed: int) -> Split:
    """Return so many training and test samples of a split, as scikit-learn's halving draws them."""
    train, test = (
        resample(indices, replace=False, random_state=seed, n_samples=count)
        for indices, count in zip(split, counts, strict=True)
    )
    return train, test


class Splits:
    """Makes the splits of one splitter.

    Parameters
    ----------
    splitter : splitter
        Of scikit-learn's kind.
    """

    def __init__(self, splitter: Any) -> None:
        self._splitter = splitter
        draws = getattr(splitter, "shuffle", True)
        self._open = getattr(splitter, "random_state", 0) is None and draws
        self._by_count = type(splitter) in _BY_COUNT and not self._open
        self._by_groups = type(splitter) in _BY_GROUPS and not self._open
        self._known: dict[Hashable, list[Split]] = {}
        self._kept_bytes = 0

    def make(self, X: Any, y: Any, seed: int, groups: NDArray[Any] | None = None) -> list[Split]:
        """Return the splits of a partition: the same list for all that are split alike.

        Parameters
        ----------
        X, y : array-like
            Its samples.
        seed : int
            What a splitter draws with, whose random state nobody has set.
        groups : ndarray, shape (n_samples,), optional
            The label of the group each sample belongs to.

        Raises
        ------
        ValueError
            When the splitter cannot split it, or gives samples that there are not.
        """
        if self._by_count:
            key: Hashable = _num_samples(X)
        elif self._by_groups and groups is not None:
            key = tuple(groups) if groups.dtype.hasobject else groups.tobytes()
        else:
            return self._split(X, y, seed, groups)
        if key not in self._known:
            made = self._split(X, y, seed, groups)
            size = sum(part.nbytes for split in made for part in split)
            if self._kept_bytes + size > _KEPT_BYTES:
                self._known.clear()
                self._kept_bytes = 0
            self._kept_bytes += size
            self._known[key] = made
        return self._known[key]

    def _split(self, X: Any, y: Any, seed: int, groups: NDArray[Any] | None) -> list[Split]:
        splitter = self._splitter
        if self._open:
            splitter = clone(splitter, safe=False)
            splitter.random_state = seed
        with warnings.catch_warnings():
            # of rare classes scikit-learn warns for each partition; the scores tell
            warnings.simplefilter("ignore", UserWarning)
            more = () if groups is None else (groups,)  # a user's splitter may take none
            n_samples = _num_samples(X)
            return [
                (_counted(train, n_samples), _counted(test, n_samples))
                for train, test in splitter.split(X, y, *more)
            ]


def _counted(side: Any, n_samples: int) -> NDArray[np.intp]:
    """Return numbers of samples, counted from the first one, as NumPy takes indices and masks."""
    indices = np.asarray(side)
    if indices.dtype == bool:
        if len(indices) != n_samples:
            raise ValueError(f"the splitter gave a mask of {len(indices)}")
        return np.flatnonzero(indices)
    if not indices.size:
        return np.empty(0, dtype=np.intp)
    if indices.dtype.kind not in "iu":
        raise ValueError(f"the splitter gave {indices.dtype} in place of indices")
    low, high = int(indices.min()), int(indices.max())
    if low < -n_samples or high >= n_samples:
        raise ValueError(f"the splitter gave sample {high if high >= n_samples else low}")
    return np.asarray(indices if low >= 0 else indices % n_samples, dtype=np.intp)
