"""The best model of each partition, and the partitions where it is worst."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpc_sweep.choices import STATUS_MEANINGS
from hpc_sweep.strategies import Strategy, chosen
from hpc_sweep.tables.opened import Results

ROWS = 65_536
"""So many rows are made at once."""


def best_table(
    results: Results,
    *,
    metric: str | None = None,
    top: int | None = None,
    worst: bool = False,
    plain: bool = False,
) -> Iterator[pd.DataFrame]:
    """Yield a row for each partition, some at once, ordered by score.

    Columns are the labels, ``model``, ``params`` (JSON), ``param_<name>``, ``score``,
    ``holdout_<metric>``, ``n_samples`` and ``status``. A few dozen bytes a partition are in
    memory, and one piece of the table.

    Parameters
    ----------
    results : Results
        Of what.
    metric : str, optional
        Which score is shown and ordered by. The best candidate stays the one that the sweep
        chose, by ``search.refit``.
    top : int, optional
        No more rows than that.
    worst : bool
        Lowest scores first, and no partitions without a score; else these come last.
    plain : bool
        Labels as JSON has them: dates as text.
    """
    columns = _columns(results, results.metric(metric))
    scores = columns["score"]
    order = np.argsort(
        np.where(np.isnan(scores), np.inf, scores if worst else -scores), kind="stable"
    )
    if worst:
        order = order[: np.count_nonzero(~np.isnan(scores))]
    order = order[:top]
    describe = _Candidates(results)
    for first in range(0, max(1, len(order)), ROWS):
        flat = order[first : first + ROWS]
        found: dict[str, Any] = dict(results.labels(flat, plain=plain))
        found |= describe(flat)
        found |= {name: values[flat] for name, values in columns.items()}
        found["n_samples"] = np.maximum(found["n_samples"], 0)
        found["status"] = pd.Categorical.from_codes(results.states[flat], pd.Index(STATUS_MEANINGS))
        yield pd.DataFrame(found)


def _columns(results: Results, metric: str) -> dict[str, NDArray[Any]]:
    """Return what there is one number of for each partition."""
    names = {f"holdout_{each}": f"holdout_{each}" for each in results.metrics}
    chosen_by = metric == results.spec.refit_metric
    found = {"score": results.flat("best_score") if chosen_by else _scores(results, metric)}
    found |= {name: results.flat(name) for name in names if name in results.dataset}
    found["n_samples"] = results.flat("n_samples")
    return found


def _scores(results: Results, metric: str) -> NDArray[np.float64]:
    """Return the best candidates' means of another metric than they were chosen by."""
    found = np.full(results.size, np.nan)
    for block in results.blocks():
        index = block.read("best_index").astype(np.intp)
        means = block.final_means(metric)
        taken = np.take_along_axis(means, np.maximum(index, 0)[:, np.newaxis], axis=1)[:, 0]
        found[block.flat] = np.where(index >= 0, taken, np.nan)
    return found


class _Candidates:
    """Tells models and parameters of the best candidates."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._strategy = results.strategy
        self._index = results.flat("best_index").astype(np.int64)
        self._arrays: dict[str, NDArray[Any]] = {}

    def __call__(self, flat: NDArray[np.intp]) -> dict[str, Any]:
        strategy, index = self._strategy, self._index[flat]
        # a candidate is the same in every partition, unless its strategy says otherwise
        if type(strategy).candidate is Strategy.candidate:
            names = [each.model_name for each in strategy.candidates]
            texts = [json.dumps(dict(each.params)) for each in strategy.candidates]
            models, params = chosen(names, "str", index), chosen(texts, "str", index)
        else:
            models = np.full(len(flat), "", dtype=object)
            params = models.copy()
            for row in np.flatnonzero(index >= 0).tolist():
                here = functools.partial(self._value, int(flat[row]))
                each = strategy.candidate(here, int(index[row]))
                models[row], params[row] = each.model_name, json.dumps(dict(each.params))
        found: dict[str, Any] = {"model": models, "params": params}
        for name in strategy.parameters:
            given = [each.params[name] for each in strategy.candidates if name in each.params]
            if given and not any(
                isinstance(v, bool) or not isinstance(v, (int, float)) for v in given
            ):
                numbers = [each.params.get(name, np.nan) for each in strategy.candidates]
                found[f"param_{name}"] = chosen(numbers, "float64", index)
            else:
                found[f"param_{name}"] = self._at(f"best_param_{name}")[flat]
        return found

    def _value(self, flat: int, name: str) -> Any:
        return self._at(name)[flat]

    def _at(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            values = self._results.dataset[name].transpose(*self._results.dims, ...).values
            rest = values.shape[len(self._results.dims) :]
            self._arrays[name] = values.reshape(self._results.size, *rest)
        return self._arrays[name]


def best_frame(
    results: Results,
    *,
    metric: str | None = None,
    top: int | None = None,
    worst: bool = False,
    plain: bool = False,
) -> pd.DataFrame:
    """Return what `best_table` yields as one table."""
    frames = best_table(results, metric=metric, top=top, worst=worst, plain=plain)
    return pd.concat(list(frames), ignore_index=True)
