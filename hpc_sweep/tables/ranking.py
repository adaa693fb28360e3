"""How models, and how candidates, do over all partitions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpc_sweep.choices import FAILURES
from hpc_sweep.errors import StoreError, listed, nearest
from hpc_sweep.partitions import describe
from hpc_sweep.store import rank
from hpc_sweep.tables.opened import Block, Results


@dataclass(frozen=True)
class _Scores:
    """Of each partition: what models reach, and which one wins (−1: none)."""

    reached: NDArray[np.float64]
    winner: NDArray[np.int16]


def models_table(
    results: Results, *, metric: str | None = None, by: str | None = None, plain: bool = False
) -> pd.DataFrame:
    """Return how models compare, the one that wins most often first.

    A model's score in a partition is that of its best candidate. Columns are ``model``,
    ``partitions`` (that it has a score in), ``wins`` and ``share`` of the partitions that any
    model wins, ``mean``, ``median``, ``std``, ``q25``, ``q75``, ``min``, ``max`` of its scores
    over partitions, ``mean_rank`` among the models (1 is best, one without a score is last),
    ``margin`` (median lead over the next model where it wins) and ``most_at``, where that lead
    is largest. Memory is eight bytes a partition and model, and one result chunk.

    Parameters
    ----------
    results : Results
        Of what.
    metric : str, optional
        Which scores are compared; ``search.refit``'s without it.
    by : str, optional
        A partition dimension: a table of its own for each label, which says where models win.
    plain : bool
        Labels as JSON has them: dates as text.

    Raises
    ------
    StoreError
        When the sweep lacks that metric or dimension.
    """
    if by is not None and by not in results.dims:
        known = listed(results.dims) or "none"
        raise StoreError(
            f"'{by}' is no dimension of partitions{nearest(by, results.dims)}; there is {known}"
        )
    found = _scores(results, results.metric(metric))
    everywhere = np.arange(results.size)
    if by is None:
        return _compared(results, found, everywhere)
    axis = results.dims.index(by)
    place = np.unravel_index(everywhere, results.shape)[axis]
    order = np.argsort(place, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(place[order])) + 1)
    tables = []
    for flat in pieces:
        table = _compared(results, found, flat)
        table.insert(0, by, results.labels(flat[:1], plain=plain)[by][0])
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _scores(results: Results, metric: str) -> _Scores:
    count = len(results.strategy.model_names)
    reached = np.full((results.size, count), np.nan)
    winner = np.full(results.size, -1, dtype=np.int16)
    for block in results.blocks():
        means, models = block.final_means(metric), block.models()
        for model in range(count):
            own = np.where(models == model, means, np.nan)
            best = np.where(np.isnan(own), -np.inf, own).max(axis=1, initial=-np.inf)
            reached[block.flat, model] = np.where(np.isneginf(best), np.nan, best)
        index = block.winners(metric, means)
        of = np.broadcast_to(models, means.shape)
        taken = np.take_along_axis(of, np.maximum(index, 0)[:, np.newaxis], axis=1)[:, 0]
        winner[block.flat] = np.where(index >= 0, taken, -1)
    return _Scores(reached, winner)


def _compared(results: Results, found: _Scores, flat: NDArray[np.intp]) -> pd.DataFrame:
    reached, winner = found.reached[flat], found.winner[flat]
    known = ~np.isnan(reached).all(axis=1)
    ranks = rank(reached[known]).astype(np.float64)
    n_won = int((winner >= 0).sum())
    rows: list[dict[str, Any]] = []
    for model, name in enumerate(results.strategy.model_names):
        scores = reached[:, model][~np.isnan(reached[:, model])]
        won = winner == model
        lead, where = _lead(reached, won, model)
        wins = int(won.sum())
        rows.append(
            {
                "model": name,
                "partitions": len(scores),
                "wins": wins,
                "share": wins / n_won if n_won else np.nan,
                **_spread(scores),
                "mean_rank": ranks[:, model].mean() if len(ranks) else np.nan,
                "margin": lead,
                "most_at": "" if where < 0 else describe(results.label(int(flat[where]))),
            }
        )
    table = pd.DataFrame(rows)
    return table.sort_values(["wins", "mean_rank"], ascending=[False, True], ignore_index=True)


def _lead(reached: NDArray[np.float64], won: NDArray[np.bool_], model: int) -> tuple[float, int]:
    """Return by how much a model leads where it wins, and where by most; −1: nowhere."""
    if reached.shape[1] < 2:
        return np.nan, -1
    rows = np.flatnonzero(won)
    others = np.delete(reached[rows], model, axis=1)
    rival = np.where(np.isnan(others), -np.inf, others).max(axis=1)
    lead = np.where(np.isneginf(rival), np.nan, reached[rows, model] - rival)
    if np.isnan(lead).all():
        return np.nan, -1
    return float(np.nanmedian(lead)), int(rows[np.nanargmax(lead)])


def _spread(scores: NDArray[np.float64]) -> dict[str, float]:
    if not scores.size:
        names = ("mean", "median", "std", "q25", "q75", "min", "max")
        return dict.fromkeys(names, float("nan"))
    low, middle, high = np.quantile(scores, [0.25, 0.5, 0.75])
    return {
        "mean": float(scores.mean()),
        "median": float(middle),
        "std": float(scores.std()),
        "q25": float(low),
        "q75": float(high),
        "min": float(scores.min()),
        "max": float(scores.max()),
    }


class _Sums:
    """Adds up what candidates do, block by block: means and deviations as Chan et al. (1983)."""

    def __init__(self, n_rows: int) -> None:
        self.count = np.zeros(n_rows, dtype=np.int64)
        self.mean = np.zeros(n_rows)
        self._squares = np.zeros(n_rows)
        self.low, self.high = np.full(n_rows, np.inf), np.full(n_rows, -np.inf)

    def add(self, values: NDArray[np.float64]) -> None:
        """Add a block, shape (n, n_rows); NaN is passed over."""
        there = ~np.isnan(values)
        count = there.sum(axis=0)
        safe = np.maximum(count, 1)
        mean = np.where(there, values, 0.0).sum(axis=0) / safe
        squares = (np.where(there, values - mean, 0.0) ** 2).sum(axis=0)
        total = np.maximum(self.count + count, 1)
        step = mean - self.mean
        self._squares += np.where(count, squares + step**2 * self.count * count / total, 0.0)
        self.mean += np.where(count, step * count / total, 0.0)
        self.count += count
        self.low = np.minimum(self.low, np.where(there, values, np.inf).min(axis=0))
        self.high = np.maximum(self.high, np.where(there, values, -np.inf).max(axis=0))

    def table(self) -> dict[str, NDArray[np.float64]]:
        """Return mean, deviation and range; NaN where nothing was added."""
        known = self.count > 0
        deviation = np.sqrt(self._squares / np.maximum(self.count, 1))
        values = {"mean": self.mean, "std": deviation, "min": self.low, "max": self.high}
        return {name: np.where(known, each, np.nan) for name, each in values.items()}


def candidates_table(results: Results, *, metric: str | None = None) -> pd.DataFrame:
    """Return how candidates do over all partitions, the best mean rank first.

    Columns are ``candidate``, ``model``, ``params`` (JSON), ``partitions`` (that it has a score
    in), ``wins``, ``mean``, ``std``, ``min``, ``max`` of its mean scores over partitions,
    ``mean_rank`` among the candidates, ``failed`` (in how many partitions) and ``fit_time``
    (mean seconds of a fit). Memory is one result chunk.

    Parameters
    ----------
    results : Results
        Of what.
    metric : str, optional
        Which scores are compared; ``search.refit``'s without it.

    Raises
    ------
    StoreError
        When partitions have no candidates in common (optuna).
    """
    strategy = results.strategy
    if not strategy.candidates:
        raise StoreError(
            f"with {results.spec.search.strategy} each partition has candidates of its own, so "
            "there is no ranking of them; see the best of each, or the ranking of models"
        )
    wanted, count = results.metric(metric), strategy.n_rows
    scores, ranks, times = _Sums(count), _Sums(count), _Sums(count)
    wins, failed = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for block in results.blocks():
        means = block.final_means(wanted)
        scores.add(means)
        ranks.add(block.final_ranks(wanted))
        times.add(_fit_times(block))
        index = block.winners(wanted, means)
        wins += np.bincount(index[index >= 0], minlength=count)
        failed += np.isin(block.read("status"), FAILURES).sum(axis=0)
    table = pd.DataFrame(
        {
            "candidate": np.arange(count),
            "model": [each.model_name for each in strategy.candidates],
            "params": [json.dumps(dict(each.params)) for each in strategy.candidates],
            "partitions": scores.count,
            "wins": wins,
            **scores.table(),
            "mean_rank": ranks.table()["mean"],
            "failed": failed,
            "fit_time": times.table()["mean"],
        }
    )[strategy.in_spec]
    return table.sort_values(["mean_rank", "candidate"], ignore_index=True)


def _fit_times(block: Block) -> NDArray[np.float64]:
    """Return the mean seconds of each candidate's fits, shape (n, n_rows)."""
    times = block.read("fit_time").astype(np.float64)
    flat = times.reshape(*times.shape[:2], -1)
    there = ~np.isnan(flat)
    count = there.sum(axis=2)
    mean = np.where(there, flat, 0.0).sum(axis=2) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan)
