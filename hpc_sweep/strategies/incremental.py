"""Incremental searches: candidates are trained block by block, and only some to the end.

dask-ml does the training and decides who goes on; here it is said which candidates compete in
which tournament, and what is kept of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.candidates import Candidate
from hpc_sweep.errors import Fault
from hpc_sweep.estimators import build_estimator
from hpc_sweep.spec import (
    HyperbandSpec,
    IncrementalSpec,
    ModelSpec,
    SearchSpec,
    SweepSpec,
)
from hpc_sweep.strategies.base import Strategy
from hpc_sweep.strategies.exchange import NAN, Array, Partition, Request, Search, Training
from hpc_sweep.strategies.random import Random, drawn_once


@dataclass(frozen=True)
class Bracket:
    """One tournament of a Hyperband search.

    Attributes
    ----------
    n_candidates : int
        Of each model, at the beginning.
    n_calls : int
        Of ``partial_fit`` before the first ones leave.
    """

    n_candidates: int
    n_calls: int


def brackets(max_iter: int, aggressiveness: float) -> list[Bracket]:
    """Return the brackets of Hyperband, the one with most candidates first.

    The formulas are those of Li et al., Hyperband, JMLR 18 (2018), algorithm 1, where
    `max_iter` is *R* and `aggressiveness` *η*; dask-ml's brackets are the same ones.
    """
    most = math.floor(math.log(max_iter, aggressiveness))
    return [
        Bracket(
            math.ceil((most + 1) * aggressiveness**number / (number + 1)),
            int(max_iter * aggressiveness**-number),
        )
        for number in reversed(range(most + 1))
    ]


class Incremental(Strategy):
    """Settings drawn once, all trained on the blocks of a collection, maybe fewer and fewer."""

    is_parted = False
    chooses = True
    trains = True

    @property
    def _search(self) -> IncrementalSpec:
        return cast(IncrementalSpec, self.spec.search)

    @classmethod
    def _n_settings(cls, search: SearchSpec) -> int:
        """Return how many settings of each model are drawn."""
        return cast(IncrementalSpec, search).n_initial_parameters

    @classmethod
    def draw(cls, spec: SweepSpec, before: Strategy | None = None) -> tuple[Candidate, ...]:
        """Draw the candidates as a random search does; a store that has some keeps them."""
        return drawn_once(spec, cls._n_settings(spec.search), before)

    @classmethod
    def faults(cls, search: SearchSpec, models: Mapping[str, ModelSpec]) -> Iterable[Fault]:
        """Yield models that cannot be trained, and distributions that cannot be drawn from."""
        yield from Random.faults(search, models)
        if search.scoring is not None and not isinstance(search.scoring, str):
            text = f"{search.strategy} decides by one score after each block; name one scorer"
            yield Fault("search.scoring", text)
        for place, model in models.items():
            try:
                built = build_estimator(model.estimator, model.pipeline)
            except Exception:  # noqa: S112, a fault of the model, told elsewhere
                continue
            if not hasattr(built, "partial_fit"):
                key = "estimator" if model.pipeline is None else "pipeline"
                name = type(built).__name__
                text = f"{name} has no partial_fit, so {search.strategy} cannot train it by blocks"
                yield Fault(f"{place}.{key}", text)

    # what it leaves

    @property
    def arrays(self) -> tuple[Array, ...]:
        """How long each candidate was trained, and whether it stayed to the end."""
        return (
            Array(
                "partial_fit_calls",
                ("candidate",),
                "int32",
                -1,
                {
                    "long_name": "blocks that each candidate was trained on",
                    "comment": "its score is that after the last one; -1: pending",
                },
                is_found=True,
            ),
            Array(
                "survived",
                ("candidate",),
                "int8",
                -1,
                {
                    "long_name": "whether each candidate stayed to the end of its tournament",
                    "flag_values": [0, 1],
                    "flag_meanings": "left stayed",
                    "comment": "-1: pending",
                },
                is_found=True,
            ),
        )

    @property
    def block_samples(self) -> int | None:
        """How many samples a block has at the least."""
        return self._search.block_samples

    @property
    def test_size(self) -> float | None:
        """Which part of each block scores are of."""
        return self._search.test_size

    def n_fits(self, n_splits: int) -> int:
        """Return the calls of ``partial_fit`` if all candidates stayed to the end."""
        return self.n_rows * self._search.max_iter

    # what it does

    def search(self, partition: Partition, first: int, last: int) -> Search:
        """Ask for one tournament after the other; the best of all survivors wins."""
        found = self.nothing(0, 1, n_splits=1)
        calls, survived = np.full(self.n_rows, -1), np.full(self.n_rows, -1)
        for number, (rows, training) in enumerate(self._tournaments()):
            candidates = [self.candidates[row] for row in rows]
            answer = yield Request((number, tuple(rows)), candidates, training=training)
            for metric, scores in answer.scores.items():
                found.scores[metric][rows] = scores
            found.fit_time[rows], found.score_time[rows] = answer.fit_time, answer.score_time
            found.failed[rows] = answer.failed
            calls[rows], survived[rows] = answer.calls, answer.survived
            for row, message in zip(rows, answer.messages, strict=True):
                cast(list[str], found.messages)[row] = message
        score = np.where(survived == 1, found.scores[self.spec.refit_metric][:, 0], NAN)
        won = not np.isnan(score).all()
        return replace(
            found,
            more={
                **self._more(),
                "partial_fit_calls": calls,
                "survived": survived,
                "best_index": np.nanargmax(score) if won else -1,
                "best_score": np.nanmax(score) if won else NAN,
            },
        )

    def _tournaments(self) -> Iterable[tuple[Sequence[int], Training]]:
        """Yield which candidates compete, and how."""
        search, keys = self._search, ("max_iter", "patience", "tol", "fits_per_score")
        options = {key: getattr(search, key) for key in keys}
        kind = "IncrementalSearchCV" if search.decay_rate is None else "InverseDecaySearchCV"
        options |= {"n_initial_parameters": self.n_rows, "decay_rate": search.decay_rate}
        yield range(self.n_rows), Training(kind, options)

    def _more(self) -> dict[str, NDArray[Any]]:
        """Return what else is known of the candidates."""
        return {}


class Hyperband(Incremental):
    """Brackets of successive halving, from many candidates and few blocks to few and many."""

    @property
    def _bands(self) -> HyperbandSpec:
        return cast(HyperbandSpec, self.spec.search)

    @classmethod
    def _n_settings(cls, search: SearchSpec) -> int:
        bands = cast(HyperbandSpec, search)
        return sum(b.n_candidates for b in brackets(bands.max_iter, bands.aggressiveness))

    @property
    def arrays(self) -> tuple[Array, ...]:
        """In which bracket each candidate is, too."""
        bracket = Array(
            "bracket",
            ("candidate",),
            "int16",
            -1,
            {
                "long_name": "bracket of each candidate",
                "comment": "0 is the one with fewest candidates; -1: pending",
            },
            is_found=True,
        )
        return (*super().arrays, bracket)

    def by_model(self) -> str:
        """Return how many candidates are of which model, and in how many brackets."""
        return f"{super().by_model()}; {len(self._places)} brackets"

    def n_fits(self, n_splits: int) -> int:
        """Return the calls of ``partial_fit`` of all brackets."""
        eta, fits = self._bands.aggressiveness, 0
        for bracket, rows in self._places:
            count, had, calls = len(rows), 0, bracket.n_calls
            while count:
                fits, had = fits + count * (calls - had), calls
                calls = min(int(calls * eta), self._bands.max_iter)
                count = int(count / eta) if calls > had else 0
        return fits

    @property
    def _places(self) -> list[tuple[Bracket, list[int]]]:
        """The brackets, and the candidates of each: settings of a model in the order drawn."""
        made = brackets(self._bands.max_iter, self._bands.aggressiveness)
        ends = np.cumsum([bracket.n_candidates for bracket in made])
        own: dict[int, int] = {}
        rows: list[list[int]] = [[] for _ in made]
        for row, candidate in enumerate(self.candidates):
            position = own[candidate.model] = own.get(candidate.model, -1) + 1
            rows[int(np.searchsorted(ends, position, side="right"))].append(row)
        return [(bracket, each) for bracket, each in zip(made, rows, strict=True) if each]

    def _tournaments(self) -> Iterable[tuple[Sequence[int], Training]]:
        bands = self._bands
        for bracket, rows in self._places:
            options = {
                "n_initial_parameters": len(rows),
                "n_initial_iter": bracket.n_calls,
                "aggressiveness": bands.aggressiveness,
                "max_iter": bands.max_iter,
                "tol": bands.tol,
                "patience": max(bands.max_iter // bands.aggressiveness, 1)
                if bands.patience is True
                else bands.patience,
            }
            yield rows, Training("SuccessiveHalvingSearchCV", options)

    def _more(self) -> dict[str, NDArray[Any]]:
        found = np.full(self.n_rows, -1)
        for number, (_, rows) in enumerate(reversed(self._places)):
            found[rows] = number
        return {"bracket": found}
