"""Ensembles whose smaller ones are the first members of the largest one."""

from __future__ import annotations

import abc
import copy
import time
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

from hpc_sweep.search.copies import identity, is_seeded, kind, leaves_input
from hpc_sweep.search.rules.base import Data, Fitted, Rule


class Stages(Rule):
    """Fits the candidate with the most members; the others are its first ones.

    Where that fit warns, it alone is yielded: which member warned cannot be told.

    Attributes
    ----------
    kinds : frozenset of str
        Which estimators.
    size : str
        Parameter that counts the members.
    """

    kinds: ClassVar[frozenset[str]]
    size: ClassVar[str] = "n_estimators"

    def matches(self, estimator: Any) -> Hashable | None:
        """Return all parameters but the number of members."""
        if kind(estimator) not in self.kinds or not leaves_input(estimator):
            return None
        if not (fits_once(estimator) and self.is_repeatable(estimator)):
            return None
        return identity(estimator, without=(self.size,))

    def fitted(self, estimators: Sequence[Any], data: Data) -> Iterator[Fitted]:
        """Yield the largest ensemble and its beginnings."""
        sizes = [getattr(each, self.size) for each in estimators]
        last = sizes.index(max(sizes))
        largest = estimators[last]
        start = len(data.warned)
        begin = time.perf_counter()
        self.fit(largest, data)
        seconds = time.perf_counter() - begin
        if warned := tuple(data.warned[start:]):
            yield Fitted(last, largest, seconds, warned=warned)
            return
        for position, size in enumerate(sizes):
            begun = copy.copy(largest)
            setattr(begun, self.size, size)
            self.cut(begun, size)
            yield Fitted(position, begun, seconds / len(sizes), warned=())

    def is_repeatable(self, estimator: Any) -> bool:
        """Return whether two fits of the same estimator are the same."""
        return is_seeded(estimator)

    def fit(self, estimator: Any, data: Data) -> None:
        """Fit on the training samples."""
        estimator.fit(data.X_train, data.y_train)

    @abc.abstractmethod
    def cut(self, ensemble: Any, size: int) -> None:
        """Take all but the first members from a fitted ensemble.

        Parameters
        ----------
        ensemble : estimator
            A shallow copy: what it holds must not be changed.
        size : int
            How many members a fit alone would have been allowed.
        """


def fits_once(estimator: Any) -> bool:
    """Return whether a fit begins anew, prints nothing, has one thread, and scores nothing."""
    params = estimator.get_params(deep=False)
    if any(params.get(name) for name in ("warm_start", "oob_score", "verbose")):
        return False
    return params.get("n_jobs") in (None, 1)
