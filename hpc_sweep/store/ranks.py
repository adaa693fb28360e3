"""Means, ranks, best candidates and states, for many partitions at once.

Formulas are those of scikit-learn's ``cv_results_``: unweighted mean and standard deviation
over splits, ranks by ``scipy.stats.rankdata(-mean, method="min")`` with NaN behind all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.choices import DONE, EMPTY, FAILED, PENDING


def mean_and_std(
    scores: NDArray[np.float64], present: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation over the splits that a partition has.

    Parameters
    ----------
    scores : ndarray, shape (n_partitions, n_candidates, n_splits)
        Test scores.
    present : ndarray of bool, shape (n_partitions, n_splits)
        Which of the splits each partition has; others are not looked at.

    Returns
    -------
    mean, std : ndarray of float64, shape (n_partitions, n_candidates)
        NaN where any split's score is NaN, or where there are no splits.
    """
    mean = np.full(scores.shape[:2], np.nan)
    std = np.full(scores.shape[:2], np.nan)
    kinds, kind = np.unique(present, axis=0, return_inverse=True)
    kind = kind.reshape(-1)  # of NumPy 2.0 it had two axes
    for number, which in enumerate(kinds):
        if not which.any():
            continue
        rows = kind == number
        # NumPy adds up numbers that lie side by side in another order than others
        part = np.ascontiguousarray(scores[rows][:, :, which])
        mean[rows] = np.average(part, axis=2)
        std[rows] = np.sqrt(np.average((part - mean[rows][:, :, None]) ** 2, axis=2))
    return mean, std


def rank(mean: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return ranks along the last axis, 1 is best, as scikit-learn ranks them.

    Parameters
    ----------
    mean : ndarray, shape (n_partitions, n_candidates)
        Mean test scores.

    Returns
    -------
    ndarray of int32, shape (n_partitions, n_candidates)
        All 1 where every mean is NaN.
    """
    from scipy.stats import rankdata  # a third of what `status` would import

    hopeless = np.isnan(mean).all(axis=-1, keepdims=True)
    lowest = np.min(np.where(np.isnan(mean), np.inf, mean), axis=-1, keepdims=True) - 1
    filled = np.where(np.isnan(mean), lowest, np.nan_to_num(mean))
    ranks = rankdata(-filled, method="min", axis=-1).astype(np.int32)
    return np.where(hopeless, np.int32(1), ranks).astype(np.int32)


def best(ranks: NDArray[np.int32], mean: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the index of the best candidate of each partition; −1 where all means are NaN.

    Parameters
    ----------
    ranks, mean : ndarray, shape (n_partitions, n_candidates)
        Ranks and the means they are made of.
    """
    # beside means below -1e16 a NaN may share a rank: it is still not the best
    index = np.where(np.isnan(mean), np.iinfo(ranks.dtype).max, ranks).argmin(axis=-1)
    return np.where(np.isnan(mean).all(axis=-1), -1, index)


def partition_status(status: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return one state for each partition from those of its candidates.

    Parameters
    ----------
    status : ndarray of int8, shape (n_partitions, n_candidates)

    Returns
    -------
    ndarray of int8, shape (n_partitions,)
        Pending if any candidate is; else done if any is; else empty if all are; else the
        largest of the failures.
    """
    worst = np.where(status == EMPTY, FAILED, status).max(axis=1)
    result = np.where((status == EMPTY).all(axis=1), EMPTY, worst)
    result = np.where((status == DONE).any(axis=1), DONE, result)
    return np.where((status == PENDING).any(axis=1), PENDING, result).astype(np.int8)
