"""Coefficients on all samples of many partitions, by normal equations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.search.rules.gathering import Floats, Stack, stacked
from hpc_sweep.search.rules.solving import Form, System, form_of, is_plain

if TYPE_CHECKING:
    from hpc_sweep.search.tasks import Sums

Coefficients = tuple[Floats, Floats]


@dataclass(slots=True)
class Problem:
    """An estimator that is to be fitted on all samples of a partition.

    Attributes
    ----------
    estimator : estimator
        Unfitted, all parameters set.
    X, y : array-like
        Its samples, without weights.
    sums : dict, optional
        What a search of the partition left.
    """

    estimator: Any
    X: Any
    y: Any
    sums: Sums | None = None


@dataclass(frozen=True)
class _Whole:
    """All samples of partitions, as the training samples of one split each."""

    features: Sequence[Floats]
    sums: Floats
    shift: Floats

    @property
    def n_train(self) -> Floats:
        """How many samples each has."""
        return np.array([len(X) for X in self.features], dtype=float)

    def products(self) -> Floats:
        """Return sums over samples of products of columns."""
        return self.sums

    def constant(self, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which features that are asked for are the same in all samples."""
        constant = np.zeros_like(asked)
        for number in np.flatnonzero(asked.any(axis=1)).tolist():
            X = self.features[number]
            constant[number] = (X[0] == X).all(axis=0)
        return constant & asked


def stacked_for(
    form: Form, arrays: Sequence[tuple[Floats, Floats]], sums: Sequence[Sums | None]
) -> Stack:
    """Bring the samples of partitions together, and put their sums where these are wanted.

    Parameters
    ----------
    form : Form
        What is solved.
    arrays : sequence of (ndarray, ndarray)
        Features and targets, as `stacked` takes them.
    sums : sequence of dict or None
        By partition; what is there already stays.
    """
    wanted = any(each is not None and form.centred not in each for each in sums)
    X, y = arrays[0]
    n_columns = 1 + X.shape[1] + y.shape[1]
    # of fewer samples than columns nothing is solved, and sums take more memory than these
    fits = len(arrays) * n_columns <= sum(len(X) for X, _ in arrays)
    stack = stacked(arrays, shifted=form.centred, summed=wanted and fits)
    if stack.products is not None:
        for each, products, shift in zip(sums, stack.products, stack.shift, strict=True):
            if each is not None:
                each.setdefault(form.centred, (products, shift))
    return stack


def coefficients_at_once(problems: Sequence[Problem]) -> list[Coefficients | None]:
    """Return what estimators come to, each on all samples of its partition.

    Parameters
    ----------
    problems : sequence of Problem
        Partitions with their estimators.

    Returns
    -------
    list of (ndarray, ndarray) or None
        Coefficients, shape (n_targets, n_features), in the units of the features, and
        intercepts, shape (n_targets,); those that scikit-learn's fit gives to 1e-9. None where
        the estimator is of another form, or the condition is too poor. Neither which others
        come along nor whether sums are known changes a bit.
    """
    found: list[Coefficients | None] = [None] * len(problems)
    estimators = {id(each.estimator): each.estimator for each in problems}
    forms = {key: form_of(estimator) for key, estimator in estimators.items()}
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for number, each in enumerate(problems):
        form = forms[id(each.estimator)]
        if form is not None and is_plain(each.X, each.y):
            n_columns = 1 + each.X.shape[1] + (1 if each.y.ndim == 1 else each.y.shape[1])
            if len(each.X) >= n_columns:
                alike[form[0], each.X.shape[1], each.y.shape[1:]].append(number)
    for numbers in alike.values():
        own = [problems[number] for number in numbers]
        known = [forms[id(each.estimator)] or (None, 0.0, None) for each in own]
        form, alphas, kept = zip(*known, strict=True)
        penalties = np.array(alphas)[:, np.newaxis]
        system = System(form[0], penalties, np.array([n or 0 for n in kept])[:, np.newaxis])
        with np.errstate(all="ignore"):  # what is not finite is fitted alone
            for number, solved in zip(numbers, _solved(system, own), strict=True):
                found[number] = solved
    return found


def _solved(system: System, problems: Sequence[Problem]) -> list[Coefficients | None]:
    """Solve estimators of one form on partitions of as many features and targets."""
    form = system.form
    sums: list[Sums] = [{} if each.sums is None else each.sums for each in problems]
    missing = [number for number, each in enumerate(sums) if form.centred not in each]
    if missing:
        arrays = [
            (each.X, each.y.reshape(len(each.y), -1)) for each in map(problems.__getitem__, missing)
        ]
        stacked_for(form, arrays, [sums[number] for number in missing])
    products, shift = (
        np.stack(parts) for parts in zip(*(each[form.centred] for each in sums), strict=True)
    )
    n_features = problems[0].X.shape[1]
    whole = _Whole([each.X for each in problems], products, shift)
    W, sound = system.solve(whole, n_features, products.shape[1] - 1 - n_features)
    weights = W[:, 1 : 1 + n_features].transpose(0, 2, 1)
    constant = W[:, 0] + shift[:, n_features:]
    constant -= np.matmul(weights, shift[:, :n_features, np.newaxis])[..., 0]
    sound = sound[:, 0] & np.isfinite(weights).all(axis=(1, 2))
    return [
        (weights[place], constant[place]) if is_sound else None
        for place, is_sound in enumerate(sound.tolist())
    ]
