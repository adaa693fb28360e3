"""Means, ranks and winners are scikit-learn's, also with NaN, infinities and ties."""

from __future__ import annotations

from typing import Any

import numpy as np
from builders import Scores, cv_results
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from hpc_sweep.store.ranks import best, mean_and_std, rank


def ours(scores: Scores) -> tuple[Scores, Scores, NDArray[np.int32]]:
    """Return mean, std and rank of partitions that have all splits."""
    with np.errstate(all="ignore"):
        mean, std = mean_and_std(scores, np.ones((len(scores), scores.shape[2]), dtype=bool))
        return mean, std, rank(mean)


def first(counts: Any, length: int) -> NDArray[np.bool_]:
    """Return the presence of so many splits, the first ones."""
    return np.arange(length) < np.asarray(counts)[:, np.newaxis]


VALUES = st.one_of(
    st.sampled_from([0.0, 0.5, -1.0, 1e-17, np.nan, np.inf, -np.inf]),
    st.floats(-1e6, 1e6),
    st.floats(allow_nan=False, allow_infinity=False),
)


@settings(max_examples=60, deadline=None)
@given(
    npst.arrays(
        "float64",
        st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 11)),
        elements=VALUES,
        fill=st.nothing(),
    )
)
@example(np.array([[[-np.inf, 0], [np.nan, 0], [1, 2]]]))
@example(np.array([[[-np.inf, 0], [np.nan, 0], [np.inf, np.inf]]]))
@example(np.full((2, 3, 2), np.nan))
@example(np.ones((1, 3, 2)))
def test_bit_equal_to_scikit_learn(scores: Scores) -> None:
    mean, std, ranks = ours(scores)
    for row, partition in enumerate(scores):
        expected = cv_results(partition)
        np.testing.assert_array_equal(mean[row], expected["mean_test_score"])
        np.testing.assert_array_equal(std[row], expected["std_test_score"])
        np.testing.assert_array_equal(ranks[row], expected["rank_test_score"])
        assert ranks.dtype == expected["rank_test_score"].dtype


@settings(max_examples=100, deadline=None)
@given(npst.arrays("float64", (3, 4), elements=VALUES, fill=st.nothing()))
@example(np.array([[np.nan, -1e300, np.nan, np.nan], [np.nan, -1e17, -1e17, 0], [np.nan] * 4]))
def test_the_best_is_the_first_of_the_largest(mean: Scores) -> None:
    found = best(rank(mean), mean)
    for row, index in zip(mean, found, strict=True):
        if np.isnan(row).all():
            assert index == -1
        else:  # scikit-learn ranks infinity like the largest number
            assert index == int(np.nanargmax(np.where(np.isnan(row), row, np.nan_to_num(row))))


def test_absent_splits_are_passed_over() -> None:
    scores = np.array([[[1.0, 2.0, 6.0]], [[1.0, 2.0, np.nan]], [[1.0, np.nan, np.nan]]])
    mean, std = mean_and_std(scores, first([3, 2, 1], 3))
    np.testing.assert_array_equal(mean, [[3.0], [1.5], [1.0]])
    np.testing.assert_array_equal(std[1:], [[0.5], [0.0]])


def test_a_split_that_failed_is_not_absent() -> None:
    scores = np.array([[[1.0, np.nan], [1.0, 2.0]]])
    mean, std = mean_and_std(scores, first([2], 2))
    np.testing.assert_array_equal(mean, [[np.nan, 1.5]])
    np.testing.assert_array_equal(np.isnan(std), [[True, False]])


def test_no_splits_are_no_mean() -> None:
    mean, std = mean_and_std(np.ones((1, 2, 3)), first([0], 3))
    assert np.isnan(mean).all()
    assert np.isnan(std).all()


def test_absent_splits_are_not_looked_at() -> None:
    mean, _ = mean_and_std(np.array([[[1.0, 1e9, 3.0]]]), np.array([[True, False, True]]))
    assert mean == [[2.0]]


def test_absent_splits_do_not_change_the_last_bit() -> None:
    rng = np.random.default_rng(4)
    scores, present = rng.normal(size=(20, 3, 13)), rng.random((20, 13)) < 0.7
    mean, std = mean_and_std(scores, present)
    for row, own in enumerate(present):
        expected = cv_results(scores[row][:, own])
        np.testing.assert_array_equal(mean[row], expected["mean_test_score"])
        np.testing.assert_array_equal(std[row], expected["std_test_score"])
