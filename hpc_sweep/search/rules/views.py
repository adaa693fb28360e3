"""Candidates that are parts of one fit: the first trees, the first components, a pruned tree."""

from __future__ import annotations

import abc
import copy
import time
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

from hpc_sweep.search.copies import identity, is_seeded, kind, leaves_input
from hpc_sweep.search.rules.base import Data, Fitted, Rule


class Views(Rule):
    """Fits one candidate, and makes the others of it.

    Where that fit warns, nothing but the candidate with the largest first parameter is made:
    what of the fit warned cannot be told.

    Attributes
    ----------
    kinds : frozenset of str
        Which estimators.
    varied : tuple of str
        Parameters that may differ between those that share a fit.
    """

    kinds: ClassVar[frozenset[str]]
    varied: ClassVar[tuple[str, ...]]

    def matches(self, estimator: Any) -> Hashable | None:
        """Return all parameters but those that may differ."""
        if kind(estimator) not in self.kinds or not leaves_input(estimator):
            return None
        if not (fits_once(estimator) and self.is_repeatable(estimator)):
            return None
        return identity(estimator, without=self.varied)

    def fitted(self, estimators: Sequence[Any], data: Data) -> Iterator[Fitted]:
        """Yield copies of one fitted estimator, each with its own parameters and its part."""
        positions = [i for i, each in enumerate(estimators) if self.is_part(each, data)]
        if len(positions) < self.least:
            return
        last = max(positions, key=lambda i: self.size(estimators[i]))
        whole = copy.copy(estimators[last])
        start = len(data.warned)
        begin = time.perf_counter()
        transformed = self.fit(whole, data)
        seconds = time.perf_counter() - begin
        warned = tuple(data.warned[start:])
        made = [last] if warned else positions
        for position in made:
            start = len(data.warned)
            begin = time.perf_counter()
            view = copy.copy(whole)
            own = vars(estimators[position])
            vars(view).update({name: own[name] for name in self.varied if name in own})
            part = self.cut(view, data, transformed)
            spent = seconds / len(made) + time.perf_counter() - begin
            texts = (*warned, *data.warned[start:])
            yield Fitted(position, view, spent, transformed=part, warned=texts)

    def is_repeatable(self, estimator: Any) -> bool:
        """Return whether two fits of the same estimator are the same."""
        return is_seeded(estimator)

    def is_part(self, estimator: Any, data: Data) -> bool:
        """Return whether a candidate can be made from others' fit on these samples."""
        return True

    def size(self, estimator: Any) -> Any:
        """Return what is largest for the candidate that the others are parts of."""
        return getattr(estimator, self.varied[0])

    def fit(self, estimator: Any, data: Data) -> Any:
        """Fit the candidate that the others are made of; return what `cut` is to have of it."""
        data.fit(estimator)

    @abc.abstractmethod
    def cut(self, view: Any, data: Data, transformed: Any) -> Any:
        """Leave a candidate what a fit of its own would have given it.

        Parameters
        ----------
        view : estimator
            Fitted, with the candidate's parameters. A shallow copy: what it holds must not be
            changed.
        data : Data
            The split.
        transformed : object
            What `fit` returned.

        Returns
        -------
        array-like or None
            Of a transformer: the training samples as its own ``fit_transform`` gives them.
        """


def kinds_of(*names: str) -> frozenset[str]:
    """Return the classifiers and regressors of scikit-learn with such names."""
    tasks = ("Classifier", "Regressor")
    return frozenset(f"sklearn.{name}{task}" for name in names for task in tasks)


def fits_once(estimator: Any) -> bool:
    """Return whether a fit begins anew, prints nothing, has one thread, and scores nothing."""
    params = estimator.get_params(deep=False)
    if any(params.get(name) for name in ("warm_start", "oob_score")):
        return False
    if params.get("verbose") not in (None, False, 0, -1):
        return False
    return params.get("n_jobs") in (None, 1)
