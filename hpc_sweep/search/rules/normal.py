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

NEARLY_CONSTANT = 1e-9
"""A column whose variance is less than this times its squared mean: centring it loses so many
digits that two ways to do it differ."""

HARMLESS = 450.0
"""Ratio of means to deviations up to which the best condition is the only limit: what centring
leaves of the means is so small that a condition multiplies it to less than 1e-9."""

FAR_OFF = 1e4
"""Of squares about a partition's mean to those about a split's own: above, the latter, which
are made of the former, lose too many digits."""

WIDTH = 32
"""Widths are multiples of this, so that splits of similar sizes go together."""

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
    problems: Problems, n_features: int, *, centred: bool, scaled: bool, intercept: bool
) -> Moments:
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
    intercept : bool
        Whether targets lose their means too.
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
    if not centred:  # of targets without deviations predictions lose digits too
        squares = squares.copy()
        squares[:, n_features:] -= (sums**2 / count[:, np.newaxis])[:, n_features:]
    raw = (problems.shift + sums / count[:, np.newaxis]) ** 2 * count[:, np.newaxis]
    clear = squares > NEARLY_CONSTANT * raw
    if centred:
        clear &= squares * FAR_OFF > np.einsum("sii->si", products[:, 1:, 1:])
    constant = _constant(problems.train, ~clear[:, :n_features])
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
    strain = far[:, :n_features].max(axis=1) if centred else np.ones(len(Z))
    if not intercept:  # features that are not quite centred meet targets that are not at all
        strain = strain * np.maximum(1.0, far[:, n_features:].max(axis=1))
    strain = np.maximum(1.0, strain / HARMLESS)
    return Moments(mean, XX, Xy, scale, sound, strain, raw[:, :n_features].sum(axis=1))


def _constant(side: Side, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which features that are asked for are the same in all samples, to the last bit."""
    constant = np.zeros_like(asked)
    (splits,) = np.nonzero(asked.any(axis=1))
    for split in splits:
        values = side.Z[split, : int(side.count[split]), 1 : 1 + asked.shape[1]]
        constant[split] = (values == values[0]).all(axis=0)
    return constant & asked
