"""Normal equations of many partitions and splits at once.

What is computed for a split does not depend, to the last bit, on which others come along: sums
are matrix products, one a split, of a width that depends on the split alone; all else goes
element by element.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.search.rules.gathering import Floats

NEARLY_CONSTANT = 1e-9
"""A column whose variance is less than this times its squared mean: centring it loses so many
digits that two ways to do it differ."""

HARMLESS = 450.0
"""Ratio of means to deviations up to which the best condition is the only limit: what centring
leaves of the means is so small that a condition multiplies it to less than 1e-9."""

FAR_OFF = 1e4
"""Of squares about a partition's mean to those about a split's own: above, the latter, which
are made of the former, lose too many digits."""


SMALLEST = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps)
"""Sums of squares below this have lost digits, in scikit-learn's standard deviations too."""


class Training(Protocol):
    """The training samples of some splits: `Problems`, or all samples of partitions."""

    @property
    def n_train(self) -> Floats:
        """How many each split has, shape (n_splits,)."""

    @property
    def shift(self) -> Floats:
        """What was subtracted, shape (n_splits, n_features + n_targets)."""

    def products(self) -> Floats:
        """Return sums of products of columns: ones, features, targets."""

    def constant(self, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which features that are asked for are the same in all samples."""


@dataclass(frozen=True)
class Moments:
    """Second moments of the training samples about their means, or about 0.

    Attributes
    ----------
    mean : ndarray of float64, shape (n_splits, n_features + n_targets)
        Means of what was shifted; 0 where moments are about 0.
    XX, Xy : ndarray of float64, shape (n_splits, n_features, n_features or n_targets)
        Sums of products, of features divided by their scale.
    scale : ndarray of float64, shape (n_splits, n_features)
        Standard deviations, or 1.
    sound : ndarray of bool, shape (n_splits,)
        Whether no column is so nearly constant, or so far off, that digits are lost.
    strain : ndarray of float64, shape (n_splits,)
        What conditions are multiplied by before they are compared with the largest one.
    squared_means : ndarray of float64, shape (n_splits,)
        Sum over features and samples, of what is shifted.
    """

    mean: Floats
    XX: Floats
    Xy: Floats
    scale: Floats
    sound: NDArray[np.bool_]
    strain: Floats
    squared_means: Floats


def moments(
    problems: Training, n_features: int, *, centred: bool, scaled: bool, intercept: bool
) -> Moments:
    """Return the moments of splits; constant features are zero in them.

    Parameters
    ----------
    problems : Training
        The splits.
    n_features : int
        Columns after the first one that are features.
    centred : bool
        Whether about the means of the training samples.
    scaled : bool
        Whether features are divided by their standard deviation.
    intercept : bool
        Whether targets lose their means too.
    """
    count, products = problems.n_train, problems.products()
    sums = products[:, 0, 1:]
    about = products[:, 1:, 1:]
    mean = np.zeros_like(sums)
    if centred:
        mean = sums / count[:, np.newaxis]
        about = about - sums[:, :, np.newaxis] * mean[:, np.newaxis, :]
    XX, Xy = about[:, :n_features, :n_features], about[:, :n_features, n_features:]
    squares = np.einsum("sii->si", about)
    if not centred:  # of targets without deviations predictions lose digits too
        squares = squares.copy()
        squares[:, n_features:] -= (sums**2 / count[:, np.newaxis])[:, n_features:]
    raw = (problems.shift + sums / count[:, np.newaxis]) ** 2 * count[:, np.newaxis]
    clear = (squares > NEARLY_CONSTANT * raw) & (squares > SMALLEST)
    if centred:
        clear &= squares * FAR_OFF > np.einsum("sii->si", products[:, 1:, 1:])
    constant = problems.constant(~clear[:, :n_features])
    clear[:, :n_features] |= constant & (intercept or not centred)
    sound = clear.all(axis=1)
    sound &= np.isfinite(products).all(axis=(1, 2)) & (count > n_features)
    kept = ~constant
    scale = np.ones_like(XX[:, 0])
    if scaled:
        scale = np.where(kept, np.sqrt(squares[:, :n_features] / count[:, np.newaxis]), 1.0)
    factor = kept / scale
    XX = XX * factor[:, :, np.newaxis] * factor[:, np.newaxis, :]
    Xy = Xy * factor[:, :, np.newaxis]
    known = clear & (squares > 0)
    far = np.sqrt(np.divide(raw, squares, out=np.zeros_like(raw), where=known))
    strain = far[:, :n_features].max(axis=1) if centred else np.ones(len(count))
    if not intercept:  # features that are not quite centred meet targets that are not at all
        strain = strain * np.maximum(1.0, far[:, n_features:].max(axis=1))
    strain = np.maximum(1.0, strain / HARMLESS)
    return Moments(mean, XX, Xy, scale, sound, strain, raw[:, :n_features].sum(axis=1))
