"""Splits of partitions, made once where they depend on the number of samples only."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import (
    KFold,
    LeaveOneOut,
    LeavePOut,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    TimeSeriesSplit,
)

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

_KEPT = 4096
"""Numbers of samples that are remembered."""


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
        self._known: dict[int, list[Split]] = {}

    def make(self, X: Any, y: Any, seed: int) -> list[Split]:
        """Return the splits of a partition: the same list for all that are split alike.

        Parameters
        ----------
        X, y : array-like
            Its samples.
        seed : int
            What a splitter draws with, whose random state nobody has set.

        Raises
        ------
        ValueError
            When the splitter cannot split it.
        """
        if not self._by_count:
            return self._split(X, y, seed)
        count = len(X)
        if count not in self._known:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[count] = self._split(X, y, seed)
        return self._known[count]

    def _split(self, X: Any, y: Any, seed: int) -> list[Split]:
        splitter = self._splitter
        if self._open:
            splitter = clone(splitter, safe=False)
            splitter.random_state = seed
        with warnings.catch_warnings():
            # of rare classes scikit-learn warns for each partition; the scores tell
            warnings.simplefilter("ignore", UserWarning)
            return list(splitter.split(X, y))
