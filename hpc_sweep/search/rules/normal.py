"""Normal equations of many partitions and splits at once.

What is computed for a split does not depend, to the last bit, on which others come along: sums
are matrix products, one a split, of a width that depends on the split alone; all else goes
element by element.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

LARGEST_CONDITION = 1e5
"""Of a scaled system: above, two ways to solve it may differ by more than 1e-9."""

LARGEST_RATIO = 1e14
"""Of two variances of features: above, scikit-learn's Cholesky warns."""

LARGEST_RATIO_SVD = 1e12
"""Above, scikit-learn's singular values are wrong by more than 1e-9."""

CONSTANT = 1e-31
"""A column whose variance is less than this times its squared mean is constant.

So it is to scikit-learn's scaler too, of any two samples: it takes the square of their number
times the machine's precision.
"""

NEARLY_CONSTANT = 1e-11
"""Below this, centring loses so many digits that two ways to do it differ."""

FAR_OFF = 1e4
"""Of squares about a partition's mean to those about a split's own: above, the latter, which
are made of the former, lose too many digits."""

WIDTH = 32
"""Widths are multiples of this, so that splits of similar sizes go together."""

ELEMENTWISE = 16
"""Up to so many features systems are solved element by element over all splits."""

CHUNK_BYTES = 4 * 2**20
"""So much is gathered at once: it should stay in the processor's cache."""


@dataclass(frozen=True)
class Side:
    """The training or the test samples of some splits.

    Attributes
    ----------
    Z : ndarray of float64, shape (n_splits, width, 1 + n_features + n_targets)
        A column of ones, features, targets, both shifted; rows beyond the samples are zero.
    count : ndarray of float64, shape (n_splits,)
        Numbers of samples.
    """

    Z: Floats
    count: Floats

    def sums(self, values: Floats) -> Floats:
        """Return sums over samples, shape (n_splits, n_columns), of values that are 0 beyond."""
        found: Floats = np.matmul(np.ones((1, self.Z.shape[1])), values)
        return found[:, 0]


@dataclass(frozen=True)
class Problems:
    """Splits of several partitions, of the same widths.

    Attributes
    ----------
    train, test : Side
        Their samples.
    task, column : ndarray of intp, shape (n_splits,)
        Which partition, and which of its splits.
    shift : ndarray of float64, shape (n_splits, n_features + n_targets)
        What was subtracted from features and targets.
    """

    train: Side
    test: Side
    task: Indices
    column: Indices
    shift: Floats


def gathered(
    arrays: Sequence[tuple[Floats, Floats]], splits: Sequence[Sequence[Any]], *, shifted: bool
) -> Iterator[Problems]:
    """Yield the splits of partitions, some at a time.

    Parameters
    ----------
    arrays : sequence of (ndarray, ndarray)
        Features, shape (n_samples, n_features), and targets, shape (n_samples, n_targets), of
        each partition; not empty.
    splits : sequence of sequence of (ndarray, ndarray)
        Of each partition; the same object where they are the same.
    shifted : bool
        Whether to subtract each partition's means, so that squares lose no digits.
    """
    counts = np.array([len(X) for X, _ in arrays])
    starts = np.cumsum(counts) - counts
    n_features, n_targets = arrays[0][0].shape[1], arrays[0][1].shape[1]
    total = int(counts.sum())
    Z = np.zeros((total + 1, 1 + n_features + n_targets))
    Z[:total, 0] = 1.0
    np.concatenate([X for X, _ in arrays], out=Z[:total, 1 : 1 + n_features])
    np.concatenate([y for _, y in arrays], out=Z[:total, 1 + n_features :])
    shift = np.zeros((len(arrays), n_features + n_targets))
    if shifted:
        shift = np.add.reduceat(Z[:total, 1:], starts, axis=0) / counts[:, np.newaxis]
        Z[:total, 1:] -= np.repeat(shift, counts, axis=0)
    for train, test, task, column in _by_width(splits, starts, total):
        row_bytes = 8 * Z.shape[1] * (train.shape[1] + test.shape[1])
        step = max(1, CHUNK_BYTES // row_bytes)
        for first in range(0, len(task), step):
            part = slice(first, first + step)
            yield Problems(
                _side(Z, train[part]),
                _side(Z, test[part]),
                task[part],
                column[part],
                shift[task[part]],
            )


def _side(Z: Floats, rows: Indices) -> Side:
    """Return rows of Z, whose last one stands for none."""
    return Side(Z[rows], (rows < len(Z) - 1).sum(axis=1).astype(float))


def _by_width(
    splits: Sequence[Sequence[Any]], starts: Indices, blank: int
) -> Iterator[tuple[Indices, Indices, Indices, Indices]]:
    """Yield rows of training and test samples, partition and column, by width.

    Row `blank` stands for none.
    """
    alike: dict[int, list[int]] = defaultdict(list)
    for task, made in enumerate(splits):
        alike[id(made)].append(task)
    found: dict[tuple[int, int], list[tuple[Indices, ...]]] = defaultdict(list)
    for tasks in (np.array(members) for members in alike.values()):
        made = splits[int(tasks[0])]
        by_width: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, (train, test) in enumerate(made):
            by_width[_width(train), _width(test)].append(number)
        for widths, columns in by_width.items():
            rows = []
            for side, width in enumerate(widths):
                base = np.full((len(columns), width), -1)
                for place, at in enumerate(columns):
                    chosen = made[at][side]
                    base[place, : len(chosen)] = chosen
                spread = base + starts[tasks][:, np.newaxis, np.newaxis]
                spread[:, base < 0] = blank
                rows.append(spread.reshape(-1, width))
            column = np.tile(np.array(columns), len(tasks))
            found[widths].append((*rows, np.repeat(tasks, len(columns)), column))
    for pieces in found.values():
        joined = [np.concatenate(each) for each in zip(*pieces, strict=True)]
        yield joined[0], joined[1], joined[2], joined[3]


def _width(indices: Any) -> int:
    return -(-max(1, len(indices)) // WIDTH) * WIDTH


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
    """

    mean: Floats
    XX: Floats
    Xy: Floats
    scale: Floats
    sound: NDArray[np.bool_]


def moments(problems: Problems, n_features: int, *, centred: bool, scaled: bool) -> Moments:
    """Return the moments of splits; constant features are zero in them.

    Parameters
    ----------
    problems : Problems
        The splits.
    n_features : int
        Columns after the first one that are features.
    centred : bool
        Whether about the means of the training samples.
    scaled : bool
        Whether features are divided by their standard deviation.
    """
    Z, count = problems.train.Z, problems.train.count
    products = np.matmul(Z.transpose(0, 2, 1), Z)
    sums = products[:, 0, 1:]
    about = products[:, 1:, 1:]
    mean = np.zeros_like(sums)
    if centred:
        mean = sums / count[:, np.newaxis]
        about = about - sums[:, :, np.newaxis] * mean[:, np.newaxis, :]
    XX, Xy = about[:, :n_features, :n_features], about[:, :n_features, n_features:]
    squares = np.einsum("sii->si", about)
    raw = (problems.shift + mean) ** 2 * count[:, np.newaxis]
    clear = squares > NEARLY_CONSTANT * raw
    clear &= squares * FAR_OFF > np.einsum("sii->si", products[:, 1:, 1:])
    constant = (squares <= CONSTANT * raw)[:, :n_features]
    clear[:, :n_features] |= constant
    sound = clear.all(axis=1)
    sound &= np.isfinite(products).all(axis=(1, 2)) & (count > n_features)
    kept, squares = ~constant, squares[:, :n_features]
    scale = np.ones_like(squares)
    if scaled:
        scale = np.where(kept, np.sqrt(squares / count[:, np.newaxis]), 1.0)
    factor = kept / scale
    XX = XX * factor[:, :, np.newaxis] * factor[:, np.newaxis, :]
    Xy = Xy * factor[:, :, np.newaxis]
    return Moments(mean, XX, Xy, scale, sound)


def ridge(found: Moments, alphas: Floats, largest_ratio: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Solve ``(XX + alpha I) w = Xy`` for all alphas.

    Systems are scaled to a diagonal of ones and solved by Cholesky's or Gauss's elimination.

    Parameters
    ----------
    found : Moments
        Of the splits.
    alphas : ndarray of float64, shape (n_alphas,)
        Penalties.
    largest_ratio : float
        Of two elements of a diagonal; beyond it scikit-learn, which does not scale, warns or
        is itself wrong by more than 1e-9.

    Returns
    -------
    w : ndarray, shape (n_splits, n_alphas, n_features, n_targets)
        Coefficients of scaled features.
    sound : ndarray of bool, shape (n_splits, n_alphas)
        Whether the condition is good enough for them to be right to 1e-9.
    """
    n_features = found.XX.shape[1]
    squares = np.einsum("sii->si", found.XX)
    diagonals = squares[:, np.newaxis] + alphas[:, np.newaxis]
    d = 1 / np.sqrt(diagonals)
    possible = diagonals.max(axis=2) < largest_ratio * diagonals.min(axis=2)
    possible &= found.sound[:, np.newaxis] & np.isfinite(d).all(axis=2)
    if n_features <= ELEMENTWISE:
        w, determinant = _elementwise(found, d)
        # the smallest eigenvalue of a matrix with ones on its diagonal is at least det / e
        sound = possible & (determinant > np.e * n_features / LARGEST_CONDITION)
        return w, sound | _well_conditioned(found, d, possible & ~sound)
    weakest = np.zeros_like(possible)
    weakest[:, np.argmin(alphas)] = possible[:, np.argmin(alphas)]
    # a larger penalty makes no condition worse
    enough = np.asarray(_well_conditioned(found, d, weakest).any(axis=1))
    sound = possible & enough[:, np.newaxis]
    sound |= _well_conditioned(found, d, possible & ~sound)
    systems = _scaled_systems(found, d)
    systems[~sound] = np.eye(n_features)
    w = np.linalg.solve(systems, found.Xy[:, np.newaxis] * d[..., np.newaxis])
    return w * d[..., np.newaxis], sound


def _well_conditioned(found: Moments, d: Floats, asked: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of the systems that are asked for are, by their eigenvalues."""
    answer = np.zeros_like(asked)
    if asked.any():
        split, alpha = np.nonzero(asked)
        values = np.linalg.eigvalsh(_scaled_systems(found, d, split, alpha))
        answer[split, alpha] = values[:, -1] < LARGEST_CONDITION * values[:, 0]
    return answer


def _scaled_systems(
    found: Moments, d: Floats, split: Any = slice(None), alpha: Any = slice(None)
) -> Floats:
    """Return systems with ones on their diagonals: all, or some pairs of split and alpha."""
    one_each = not isinstance(split, slice)
    factors = d[split, alpha]
    XX = found.XX[split] if one_each else found.XX[:, np.newaxis]
    systems: Floats = XX * factors[..., :, np.newaxis] * factors[..., np.newaxis, :]
    diagonal = np.arange(systems.shape[-1])
    systems[..., diagonal, diagonal] = 1.0
    return systems


def _elementwise(found: Moments, d: Floats) -> tuple[Floats, Floats]:
    """Return solutions and determinants by Cholesky, element by element over all systems."""
    n_splits, n_alphas, size = d.shape
    factors = np.ascontiguousarray(np.moveaxis(d, 2, 0))
    determinant = np.ones((n_splits, n_alphas))
    lower: list[list[Floats]] = [[] for _ in range(size)]
    inverse: list[Floats] = []
    for j in range(size):
        pivot = np.ones((n_splits, n_alphas))
        for k in range(j):
            pivot -= lower[j][k] * lower[j][k]
        determinant *= np.maximum(pivot, 0.0)
        inverse.append(1 / np.sqrt(pivot))
        for i in range(j + 1, size):
            entry = found.XX[:, i, j, np.newaxis] * factors[i] * factors[j]
            for k in range(j):
                entry -= lower[i][k] * lower[j][k]
            lower[i].append(entry * inverse[j])
    n_targets = found.Xy.shape[2]
    w = np.empty((n_splits, n_alphas, size, n_targets))
    for target in range(n_targets):
        x: list[Floats] = []
        for i in range(size):
            value = found.Xy[:, i, target, np.newaxis] * factors[i]
            for k in range(i):
                value -= lower[i][k] * x[k]
            x.append(value * inverse[i])
        for i in reversed(range(size)):
            for k in range(i + 1, size):
                x[i] -= lower[k][i] * x[k]
            x[i] *= inverse[i]
            np.multiply(x[i], factors[i], out=w[:, :, i, target])
    return w, determinant


def principal_ridge(
    found: Moments, alphas: Floats, kept: Indices
) -> tuple[Floats, NDArray[np.bool_]]:
    """Solve ridge regressions on the first principal components of features.

    Parameters
    ----------
    found : Moments
        About the means.
    alphas : ndarray of float64, shape (n_candidates,)
        Penalties.
    kept : ndarray of intp, shape (n_candidates,)
        How many components are kept.

    Returns
    -------
    w : ndarray, shape (n_splits, n_candidates, n_features, n_targets)
        Coefficients of scaled features.
    sound : ndarray of bool, shape (n_splits, n_candidates)
        Whether components and coefficients are right to 1e-9: neighbouring variances are
        apart where components are cut off.
    """
    n_features = found.XX.shape[1]
    usable = found.sound[:, np.newaxis, np.newaxis]
    values, vectors = np.linalg.eigh(np.where(usable, found.XX, 0.0))
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    projected = np.matmul(vectors.transpose(0, 2, 1), found.Xy)
    penalised = values[:, np.newaxis] + alphas[:, np.newaxis]
    inside = np.arange(n_features) < kept[:, np.newaxis]
    weights = np.where(inside, 1 / penalised, 0.0)
    coefficients = projected[:, :, np.newaxis] * weights.transpose(0, 2, 1)[..., np.newaxis]
    shape = coefficients.shape
    w = np.matmul(vectors, coefficients.reshape(*shape[:2], -1)).reshape(shape)
    largest = values[:, :1]
    behind = np.concatenate([values, np.full_like(largest, -np.inf)], axis=1)
    last = np.minimum(kept, n_features) - 1
    gap = behind[:, last] - behind[:, last + 1]
    sound = np.array(gap * LARGEST_CONDITION > largest)
    sound &= found.sound[:, np.newaxis]
    sound &= kept <= n_features
    sound &= penalised[:, np.arange(len(last)), last] * LARGEST_CONDITION > largest
    return w.transpose(0, 2, 1, 3), sound
