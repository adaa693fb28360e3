"""What the numbers of a sweep say: who wins where, by how much, and what is uncertain."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.candidates import plain_text
from hpc_sweep.choices import DONE, EMPTY, PENDING
from hpc_sweep.partitions import Label
from hpc_sweep.reporting.gathering import Choice, Floats, Gathered
from hpc_sweep.reporting.lying import Lying, lying_of
from hpc_sweep.reporting.words import Metric
from hpc_sweep.spec import SweepSpec
from hpc_sweep.spec.partitions import wanted_axes

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""The quantiles that are shown."""

BINS = 8
"""Values that strategies draw are put together to so many kinds."""

MOST_VALUES = 24
"""A parameter with more values than these is put together to `BINS` kinds."""


@dataclass(frozen=True)
class Response:
    """How scores go with the values of one parameter of one model.

    Attributes
    ----------
    model : int
        Position of the model.
    values : ndarray of float64, shape (n_values,)
        Numbers, or codes of texts.
    quantiles : ndarray of float64, shape (5, n_values)
        At `LEVELS`, over the partitions, of the best score with that value.
    """

    model: int
    values: Floats
    quantiles: Floats

    @property
    def median(self) -> Floats:
        """Of the scores."""
        return np.asarray(self.quantiles[2])


@dataclass(frozen=True)
class Findings:
    """Numbers for the text and the figures.

    Attributes
    ----------
    gathered : Gathered
        What was read.
    lying : Lying
        How partitions lie.
    metrics : dict of str to Metric
        How metrics are shown.
    """

    gathered: Gathered
    lying: Lying
    metrics: Mapping[str, Metric]

    @property
    def spec(self) -> SweepSpec:
        """Of the store."""
        return self.gathered.store.spec

    @property
    def metric(self) -> Metric:
        """The one that chooses the best."""
        return self.metrics[self.spec.refit_metric]

    @cached_property
    def has_best(self) -> NDArray[np.bool_]:
        """Which partitions have a best candidate."""
        return np.asarray(self.gathered.model >= 0)

    @property
    def n_best(self) -> int:
        """How many partitions have one."""
        return int(self.has_best.sum())

    @property
    def n_settled(self) -> int:
        """How many partitions are done, failed or empty."""
        return int((self.gathered.status != PENDING).sum())

    @property
    def n_with_data(self) -> int:
        """How many partitions are settled and not empty."""
        return int(((self.gathered.status != PENDING) & (self.gathered.status != EMPTY)).sum())

    @cached_property
    def wins(self) -> NDArray[np.int64]:
        """In how many partitions each model is the best, shape (n_models,)."""
        codes = self.gathered.model[self.has_best]
        return np.bincount(codes, minlength=len(self.gathered.models)).astype(np.int64)

    @cached_property
    def ranking(self) -> list[int]:
        """Models by how often they win."""
        return [int(i) for i in np.argsort(-self.wins, kind="stable")]

    @property
    def is_close(self) -> NDArray[np.bool_]:
        """Where the next model is so near that the splits do not agree which one is better.

        The mean difference over the splits is less than its standard deviation.
        """
        return np.asarray(self.gathered.lead < self.gathered.doubt)

    @property
    def is_compared(self) -> NDArray[np.bool_]:
        """Where `is_close` is known."""
        return np.isfinite(self.gathered.lead) & np.isfinite(self.gathered.doubt)

    @cached_property
    def quantiles(self) -> Floats:
        """Of the best scores, at `LEVELS`; NaN where there are none."""
        return quantiles(self.gathered.best_score)

    def ordered(self, most: int, best_first: bool) -> list[int]:
        """Return the partitions with the best or worst scores."""
        scores = self.gathered.best_score
        keys = np.where(np.isnan(scores), np.inf, -scores if best_first else scores)
        order = np.argsort(keys, kind="stable")[:most]
        return [int(i) for i in order if np.isfinite(scores[i])]

    def labels(self, flat: int) -> dict[str, Label]:
        """Return the labels of a partition."""
        return self.lying.labels(flat)

    @cached_property
    def differences(self) -> Floats:
        """Each model's scores minus those of the one that wins most, shape (n_models, n)."""
        scores = self.gathered.of_model.astype(float)
        return np.asarray(scores - scores[self.ranking[0]])

    @cached_property
    def tested(self) -> dict[str, Choice]:
        """The values of each parameter that were tried, over all candidates and models."""
        found = {}
        for name, choice in self.gathered.params.items():
            rows = _values_of_rows(self.gathered, name, choice)
            tried = rows if np.isfinite(rows).any() else choice.values
            found[name] = Choice(np.unique(tried[np.isfinite(tried)]), choice.texts)
        return found

    def responses(self, name: str) -> Iterator[Response]:
        """Yield how scores go with a parameter, for each model that has it."""
        gathered = self.gathered
        if not gathered.scores.size:
            return
        values = np.broadcast_to(
            _values_of_rows(gathered, name, gathered.params[name]), gathered.scores.shape
        )
        models = _models_of_rows(gathered)
        for code in range(len(gathered.models)):
            mine = np.where((models == code) & np.isfinite(gathered.scores), values, np.nan)
            kinds, places = _kinds(mine)
            if len(kinds) < 2:
                continue
            best = [
                np.fmax.reduce(np.where(places == i, gathered.scores, np.nan), axis=1)
                for i in range(len(kinds))
            ]
            spread = np.stack([quantiles(scores) for scores in best], axis=1)
            yield Response(code, kinds, spread)


def find(gathered: Gathered, target_units: str = "") -> Findings:
    """Return what the numbers of a store say.

    Parameters
    ----------
    gathered : Gathered
        What was read of it.
    target_units : str
        Of what is predicted.
    """
    store = gathered.store
    scoring = store.spec.search.scoring
    scorers = scoring if isinstance(scoring, Mapping) else {m: m for m in store.spec.metrics}
    if isinstance(scoring, str):
        scorers = {"score": scoring}
    elif scoring is None:
        scorers = {"score": "score"}
    metrics = {m: Metric.of(m, scorers[m], target_units) for m in store.spec.metrics}
    how = {item.name: item.how for item in wanted_axes(store.spec.data.partition_by)}
    return Findings(gathered, lying_of(store.header.dims, store.dataset(), how), metrics)


def quantiles(scores: NDArray[Any], levels: tuple[float, ...] = LEVELS) -> Floats:
    """Return quantiles of the finite scores; NaN where there are none."""
    known = scores[np.isfinite(scores)]
    found = np.quantile(known, levels) if known.size else np.full(len(levels), np.nan)
    return np.asarray(found, dtype=float)


def n_done(gathered: Gathered) -> int:
    """Return how many partitions are done."""
    return int((gathered.status == DONE).sum())


def _values_of_rows(gathered: Gathered, name: str, choice: Choice) -> Floats:
    """Return a parameter's value in each row: of all partitions, or of each one sampled."""
    if gathered.drawn:
        drawn = gathered.drawn[name].astype(float)
        if choice.texts is None:
            return drawn
        return np.where(drawn < 0, np.nan, _recoded(gathered, name, choice, drawn))
    found = []
    for candidate in gathered.store.candidates:
        value = candidate.params.get(name)
        if choice.texts is None:
            found.append(np.nan if value is None else float(value))
            continue
        found.append(_code(choice.texts, value) if name in candidate.params else np.nan)
    return np.array(found, dtype=float)


def _recoded(gathered: Gathered, name: str, choice: Choice, drawn: Floats) -> Floats:
    """Return the store's codes as positions in the texts of a choice."""
    categories = json.loads(str(gathered.store.group[f"param_{name}"].attrs["categories"]))
    table = np.array([_code(choice.texts or [], value) for value in categories], dtype=float)
    return np.asarray(table[np.maximum(drawn, 0).astype(int)])


def _code(texts: list[str], value: Any) -> float:
    """Return the position of a value's text."""
    return float(texts.index(plain_text(value)))


def _models_of_rows(gathered: Gathered) -> NDArray[Any]:
    if gathered.drawn:
        return gathered.drawn["model"]
    codes = [gathered.models.index(c.model_name) for c in gathered.store.candidates]
    return np.broadcast_to(np.array(codes), gathered.scores.shape)


def _kinds(values: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Return the distinct values, or middles of bins, and of which kind each place is; −1: none."""
    known = np.unique(values[np.isfinite(values)])
    absent = np.isnan(values)
    if known.size <= MOST_VALUES:
        places = np.searchsorted(known, np.where(absent, 0, values))
        return known, np.where(absent, -1, places)
    shown = values[~absent]
    edges = np.unique(np.quantile(shown, np.linspace(0, 1, BINS + 1)))
    places = np.clip(
        np.searchsorted(edges, np.where(absent, edges[0], values), "right") - 1, 0, len(edges) - 2
    )
    middles = [float(np.median(values[(places == i) & ~absent])) for i in range(len(edges) - 1)]
    return np.array(middles), np.where(absent, -1, places)
