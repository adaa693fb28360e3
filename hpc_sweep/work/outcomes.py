"""What came out for partitions, and the part that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.serialization import made_with
from hpc_sweep.store import Part, RefitPart
from hpc_sweep.strategies import Array, Found
from hpc_sweep.work.bench import Bench
from hpc_sweep.work.refits import Refit

AFFINE = ("coef", "intercept")


@dataclass
class Outcome:
    """What came out for one partition.

    Attributes
    ----------
    found : Found
        Scores, times, messages.
    status : ndarray of int8, shape (n_candidates,)
        As in the store.
    n_samples : int
        Of the partition.
    n_test_samples : sequence of int
        Of each split.
    columns : ndarray of intp, shape (n_splits,), or None
        Where these splits stand in the store; at the beginning where absent.
    refit : Refit
        What came of the best candidate, fitted again.
    """

    found: Found
    status: NDArray[np.int8]
    n_samples: int = 0
    n_test_samples: Sequence[int] = ()
    columns: NDArray[np.intp] | None = None
    refit: Refit = field(default_factory=Refit)


def part_of(bench: Bench, outcomes: Sequence[Outcome]) -> Part:
    """Return what a part file holds of some partitions."""
    width = bench.store.header.n_splits

    def joined(rows: list[NDArray[Any]], dtype: str, fill: Any = np.nan) -> NDArray[Any]:
        whole = np.full((len(rows), *rows[0].shape[:-1], width), fill, dtype=dtype)
        for values, row, outcome in zip(whole, rows, outcomes, strict=True):
            width_here = row.shape[-1]
            columns = outcome.columns
            where = slice(width_here) if columns is None else columns[:width_here]
            values[..., where] = row
        return whole

    def stacked(array: Array) -> NDArray[Any]:
        shape = [bench.store.lengths[dim] for dim in array.dims]
        rows = [f.more.get(array.name, np.full(shape, array.fill)) for f in found]
        return np.stack(rows).astype(array.dtype)

    found = [outcome.found for outcome in outcomes]
    return Part(
        {m: joined([f.scores[m] for f in found], "float64") for m in bench.store.spec.metrics},
        joined([f.fit_time for f in found], "float32"),
        joined([f.score_time for f in found], "float32"),
        np.stack([outcome.status for outcome in outcomes]),
        np.array([outcome.n_samples for outcome in outcomes], dtype=np.int64),
        np.array([len(outcome.n_test_samples) for outcome in outcomes], dtype=np.int64),
        {
            (i, j): text
            for i, evaluation in enumerate(found)
            for j, text in enumerate(evaluation.messages)
            if text
        },
        {array.name: stacked(array) for array in bench.store.arrays if array.is_found},
        joined([np.array(each.n_test_samples) for each in outcomes], "int64", 0),
        _refit_part(bench, outcomes) if bench.refits else None,
    )


def _refit_part(bench: Bench, outcomes: Sequence[Outcome]) -> RefitPart:
    found, kind = [outcome.refit for outcome in outcomes], bench.keeps
    arrays, affine = {}, {n: each.affine for n, each in enumerate(found) if each.affine is not None}
    for number, array in enumerate(each for each in bench.store.arrays if each.name in AFFINE):
        shape = tuple(bench.store.lengths[dim] for dim in array.dims)
        arrays[array.name] = values = np.full((len(found), *shape), np.nan)
        if affine:
            rows = np.stack([each[number] for each in affine.values()])
            values[[*affine]] = rows.reshape(-1, *shape)
    models = [each.model for each in found]
    return RefitPart(
        np.array([each.n_samples for each in found], dtype=np.int64),
        np.array([each.index for each in found], dtype=np.int64),
        {
            metric: np.array([each.scores.get(metric, np.nan) for each in found])
            for metric in (bench.store.spec.metrics if bench.store.holds_out else ())
        },
        {row: each.message for row, each in enumerate(found) if each.message},
        arrays,
        None if kind is None else lambda: models,
        {} if kind is None else made_with(kind),
    )
