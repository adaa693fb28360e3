"""Samples of the splits of many partitions, gathered so that matrix products are over splits.

Widths depend on the split alone, and so do the last bits of sums.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

WIDTH = 32
"""Widths are multiples of this, so that splits of similar sizes go together."""

CHUNK_BYTES = 4 * 2**20
"""So much is gathered at once: it should stay in the processor's cache."""

BLOCK = 2**16
"""So many samples of a split are multiplied at once."""


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
        found: Floats = np.matmul(np.ones((1, values.shape[1])), values)
        return found[:, 0]


@dataclass(frozen=True)
class Problems:
    """Splits of several partitions, of the same widths.

    Attributes
    ----------
    samples : ndarray of float64, shape (n_samples + 1, 1 + n_features + n_targets)
        Of all partitions, as in `Side.Z`; the last row, of zeros, stands for none.
    train_rows, test_rows : ndarray of intp, shape (n_splits, width)
        Which of them each split has.
    task, column : ndarray of intp, shape (n_splits,)
        Which partition, and which of its splits.
    shift : ndarray of float64, shape (n_splits, n_features + n_targets)
        What was subtracted from features and targets.
    """

    samples: Floats
    train_rows: Indices
    test_rows: Indices
    task: Indices
    column: Indices
    shift: Floats

    @property
    def train(self) -> Side:
        """The training samples; gathered anew, so that they are in memory only while used."""
        return _side(self.samples, self.train_rows)

    @property
    def test(self) -> Side:
        """The test samples; gathered anew."""
        return _side(self.samples, self.test_rows)

    def products(self) -> Floats:
        """Return sums over training samples of products of columns.

        Returns
        -------
        ndarray, shape (n_splits, n_columns, n_columns)
            Of `Side.Z`, as sums over blocks of samples, which depend on the width alone.
        """
        total: Any = 0.0
        for some in _steps(self.train_rows.shape[1], BLOCK):
            Z = np.take(self.samples, self.train_rows[:, some], axis=0)
            total = total + np.matmul(Z.transpose(0, 2, 1), Z)
        found: Floats = total
        return found

    @property
    def n_train(self) -> Floats:
        """How many training samples each split has, shape (n_splits,)."""
        return _counts(self.samples, self.train_rows)

    def constant(self, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which features that are asked for are the same in all samples, to the last bit.

        Parameters
        ----------
        asked : ndarray of bool, shape (n_splits, n_features)
            Which.
        """
        constant = np.zeros_like(asked)
        (splits,) = np.nonzero(asked.any(axis=1))
        for split in splits:
            rows = self.train_rows[split, : int(self.n_train[split])]
            values = self.samples[rows, 1 : 1 + asked.shape[1]]
            constant[split] = (values == values[0]).all(axis=0)
        return constant & asked


@dataclass(frozen=True)
class Stack:
    """All samples of some partitions, one partition after the other.

    Attributes
    ----------
    samples : ndarray of float64, shape (n_samples + 1, 1 + n_features + n_targets)
        As in `Problems`.
    counts : ndarray of intp, shape (n_partitions,)
        How many samples each partition has.
    shift : ndarray of float64, shape (n_partitions, n_features + n_targets)
        What was subtracted from features and targets.
    products : ndarray of float64, shape (n_partitions, n_columns, n_columns), or None
        Sums over all samples of products of columns: one matrix product a partition.
    """

    samples: Floats
    counts: Indices
    shift: Floats

    products: Floats | None

    @property
    def starts(self) -> Indices:
        """Where the samples of each partition begin."""
        return np.asarray(np.cumsum(self.counts) - self.counts)


def stacked(
    arrays: Sequence[tuple[Floats, Floats]], *, shifted: bool, summed: bool = False
) -> Stack:
    """Bring the samples of partitions together.

    Parameters
    ----------
    arrays : sequence of (ndarray, ndarray)
        Features, shape (n_samples, n_features), and targets, shape (n_samples, n_targets), of
        each partition; not empty.
    shifted : bool
        Whether to subtract each partition's means, so that squares lose no digits.
    summed : bool
        Whether `Stack.products` are wanted.
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
    products = np.empty((len(arrays), Z.shape[1], Z.shape[1])) if summed else None
    for first, last in _alike(counts, 8 * Z.shape[1]) if shifted or summed else ():
        count, n_alike = int(counts[first]), last - first
        rows = Z[starts[first] : starts[first] + n_alike * count].reshape(n_alike, count, -1)
        if shifted:
            rows[:, :, 1:] -= shift[first:last, np.newaxis]
        if products is not None:  # of what is in the processor's cache now
            np.matmul(rows.transpose(0, 2, 1), rows, out=products[first:last])
    return Stack(Z, counts, shift, products)


def _alike(counts: Indices, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of partitions of as many samples each, some at a time."""
    changes = np.flatnonzero(np.diff(counts, prepend=-1, append=-1))
    for first, last in itertools.pairwise(changes.tolist()):
        for some in _steps(last - first, CHUNK_BYTES // (row_bytes * int(counts[first]))):
            yield first + some.start, first + some.stop


def gathered(stack: Stack, splits: Sequence[Sequence[Any]]) -> Iterator[Problems]:
    """Yield the splits of partitions, some at a time.

    Parameters
    ----------
    stack : Stack
        Has their samples.
    splits : sequence of sequence of (ndarray, ndarray)
        Of each partition; the same object where they are the same.
    """
    Z, starts, shift = stack.samples, stack.starts, stack.shift
    total = len(Z) - 1
    for pieces in _by_width(splits):
        borders = np.cumsum([0, *(len(piece.tasks) * len(piece.columns) for piece in pieces)])
        row_bytes = 8 * Z.shape[1] * sum(pieces[0].widths)
        for some in _steps(int(borders[-1]), CHUNK_BYTES // row_bytes):
            first, last = np.searchsorted(borders, [some.start, some.stop - 1], "right") - 1
            parts = [
                pieces[place].rows(
                    np.arange(max(some.start, borders[place]), min(some.stop, borders[place + 1]))
                    - borders[place],
                    starts,
                    total,
                )
                for place in range(first, last + 1)
            ]
            train, test, task, column = map(np.concatenate, zip(*parts, strict=True))
            yield Problems(Z, train, test, task, column, shift[task])


def _steps(total: int, step: int) -> Iterator[slice]:
    """Yield slices that cover so many, each of so many."""
    step = max(1, step)
    yield from (slice(low, min(low + step, total)) for low in range(0, total, step))


def _counts(Z: Floats, rows: Indices) -> Floats:
    return np.asarray((rows < len(Z) - 1).sum(axis=1), dtype=float)


def _side(Z: Floats, rows: Indices) -> Side:
    """Return rows of Z, whose last one stands for none."""
    return Side(np.take(Z, rows, axis=0), _counts(Z, rows))


@dataclass
class _Piece:
    """Splits that several partitions have in common, of the same widths.

    Attributes
    ----------
    widths : tuple of int
        Of training and test samples.
    made : sequence of (ndarray, ndarray)
        These samples, counted from a partition's first one.
    tasks, columns : ndarray of intp
        The partitions, and which of their splits.
    """

    widths: tuple[int, int]
    made: Sequence[Any]
    tasks: Indices
    columns: Indices
    _known: tuple[list[int], list[Indices]] = ([], [])

    def rows(self, which: Indices, starts: Indices, blank: int) -> tuple[Indices, ...]:
        """Return training rows, test rows, partition and column of some (partition, split).

        Parameters
        ----------
        which : ndarray of intp
            Pairs, by their number, partition by partition.
        starts : ndarray of intp
            Where the samples of each partition begin.
        blank : int
            Stands for none.
        """
        task, place = np.divmod(which, len(self.columns))
        task = self.tasks[task]
        needed, place_of = np.unique(place, return_inverse=True)
        rows = []
        for base in self._bases(needed.tolist(), keep=len(which) > 1):
            chosen = base[place_of]
            absent = chosen < 0
            chosen += starts[task][:, np.newaxis]
            chosen[absent] = blank
            rows.append(chosen)
        return (*rows, task, self.columns[place])

    def _bases(self, needed: list[int], *, keep: bool) -> list[Indices]:
        """Return samples of some splits, one array a side; −1: none."""
        if self._known[0] == needed:
            return self._known[1]
        bases = []
        for side, width in enumerate(self.widths):
            base = np.full((len(needed), width), -1, dtype=np.intp)
            for row, place in zip(base, needed, strict=True):
                chosen = self.made[self.columns[place]][side]
                row[: len(chosen)] = chosen
            bases.append(base)
        if keep:
            self._known = needed, bases
        return bases


def _by_width(splits: Sequence[Sequence[Any]]) -> Iterator[list[_Piece]]:
    """Yield the splits of partitions, those of the same widths together."""
    alike: dict[int, list[int]] = defaultdict(list)
    for task, made in enumerate(splits):
        alike[id(made)].append(task)
    found: dict[tuple[int, int], list[_Piece]] = defaultdict(list)
    for tasks in (np.array(members) for members in alike.values()):
        made = splits[int(tasks[0])]
        by_width: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, (train, test) in enumerate(made):
            by_width[_width(train), _width(test)].append(number)
        for widths, columns in by_width.items():
            found[widths].append(_Piece(widths, made, tasks, np.array(columns)))
    yield from found.values()


def _width(indices: Any) -> int:
    return -(-max(1, len(indices)) // WIDTH) * WIDTH
