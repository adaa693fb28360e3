"""Coefficients on all samples of many partitions, by normal equations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from hpc_sweep.search.rules.gathering import Floats, gathered
from hpc_sweep.search.rules.solving import Form, System, form_of, is_plain

Coefficients = tuple[Floats, Floats]
Problem = tuple[Any, Any, Any]
"""An estimator, unfitted, all parameters set, with the X and y of its partition."""


def coefficients_at_once(problems: Sequence[Problem]) -> list[Coefficients | None]:
    """Return what estimators come to, each on all samples of its partition.

    Parameters
    ----------
    problems : sequence of (estimator, X, y)
        Without sample weights.

    Returns
    -------
    list of (ndarray, ndarray) or None
        Coefficients, shape (n_targets, n_features), in the units of the features, and
        intercepts, shape (n_targets,); those that scikit-learn's fit gives to 1e-9. None where
        the estimator is of another form, or the condition is too poor.
    """
    found: list[Coefficients | None] = [None] * len(problems)
    forms = {id(estimator): form_of(estimator) for estimator, _, _ in problems}
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for number, (estimator, X, y) in enumerate(problems):
        form = forms[id(estimator)]
        if form is not None and is_plain(X, y):
            alike[form[0], X.shape[1], y.shape[1:]].append(number)
    for numbers in alike.values():
        own = [problems[number] for number in numbers]
        known = [forms[id(estimator)] or (None, 0.0, None) for estimator, _, _ in own]
        form, penalties, kept = zip(*known, strict=True)
        columns = (
            np.array(penalties)[:, np.newaxis],
            np.array([n or 0 for n in kept])[:, np.newaxis],
        )
        with np.errstate(all="ignore"):  # what is not finite is fitted alone
            _solve(form[0], columns, own, numbers, found)
    return found


def _solve(
    form: Form,
    columns: tuple[Floats, Any],
    problems: Sequence[Problem],
    numbers: Sequence[int],
    found: list[Coefficients | None],
) -> None:
    """Solve estimators of one form on partitions of as many features and targets."""
    alphas, kept = columns
    arrays = [(X, y.reshape(len(y), -1)) for _, X, y in problems]
    every = {len(X): [(np.arange(len(X)), np.arange(0))] for X, _ in arrays}
    n_features, n_targets = arrays[0][0].shape[1], arrays[0][1].shape[1]
    splits = [every[len(X)] for X, _ in arrays]
    for some in gathered(arrays, splits, shifted=form.centred):
        system = System(form, alphas[some.task], kept[some.task])
        W, sound = system.solve(some, n_features, n_targets)
        weights = W[:, 1 : 1 + n_features].transpose(0, 2, 1)
        constant = W[:, 0] + some.shift[:, n_features:]
        constant -= np.matmul(weights, some.shift[:, :n_features, np.newaxis])[..., 0]
        sound = sound[:, 0] & np.isfinite(weights).all(axis=(1, 2))
        for place in np.flatnonzero(sound).tolist():
            found[numbers[some.task[place]]] = weights[place], constant[place]
