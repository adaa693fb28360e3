"""Successive halving: few resources for all candidates, more for the better ones.

The numbers are those of scikit-learn's ``HalvingGridSearchCV``: the formulas of iterations
and resources, the subsamples and the order of equal candidates.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.candidates import Candidate
from hpc_sweep.errors import Fault
from hpc_sweep.estimators import build_estimator, is_classifier
from hpc_sweep.spec import HalvingRandomSpec, HalvingSpec, ModelSpec, SearchSpec, SweepSpec
from hpc_sweep.strategies.base import Strategy
from hpc_sweep.strategies.exchange import (
    NAN,
    Answer,
    Array,
    Counts,
    Partition,
    Request,
    Search,
    Unsearchable,
)
from hpc_sweep.strategies.random import Random, drawn_once

SAMPLES = "n_samples"


def schedule(search: HalvingSpec, n_candidates: int, least: int, most: int) -> tuple[int, ...]:
    """Return the resources of each iteration, as scikit-learn computes them.

    Parameters
    ----------
    search : HalvingSpec
        The ``search`` section.
    n_candidates : int
        At the beginning.
    least : int
        What ``min_resources: smallest`` stands for.
    most : int
        What ``max_resources: auto`` stands for.

    Raises
    ------
    Unsearchable
        When the first iteration would need more than there is.
    """
    required = required_iterations(n_candidates, search.factor)
    minimum: float = least if isinstance(search.min_resources, str) else search.min_resources
    maximum = most if search.max_resources == "auto" else search.max_resources
    if minimum > maximum:
        remedy = "lower it" if minimum == search.min_resources else "set it to less, or lower cv"
        raise Unsearchable(
            f"the first iteration needs {minimum} {search.resource} (search.min_resources: "
            f"{search.min_resources}), but {maximum} are the most there are; {remedy}"
        )
    if search.min_resources == "exhaust":
        minimum = max(minimum, maximum // search.factor ** (required - 1))
    possible = 1 + math.floor(math.log(maximum // minimum, search.factor))
    hurries = search.aggressive_elimination
    powers: Iterable[int] = range(required if hurries else min(possible, required))
    if hurries:  # stay at the beginning until few enough are left
        powers = [max(0, power - required + possible) for power in powers]
    return tuple(min(int(search.factor**power * minimum), maximum) for power in powers)


def required_iterations(n_candidates: int, factor: float) -> int:
    """Return after how many iterations fewer than `factor` candidates are left."""
    return 1 + math.floor(math.log(n_candidates, factor))


class Halving(Strategy):
    """All settings of the models' grids, of which each iteration keeps one in `factor`."""

    is_parted = False
    chooses = True

    @property
    def _search(self) -> HalvingSpec:
        return cast(HalvingSpec, self.spec.search)

    @property
    def _has_parameter(self) -> bool:
        """Whether the resource is a parameter."""
        return self._search.resource != SAMPLES

    @classmethod
    def faults(cls, search: SearchSpec, models: Mapping[str, ModelSpec]) -> Iterable[Fault]:
        """Yield a resource that a model has not, or that a grid sets."""
        search = cast(HalvingSpec, search)
        if search.resource == SAMPLES:
            return
        if search.max_resources == "auto":
            text = f"is needed: how much {search.resource} the last iteration may have"
            yield Fault("search.max_resources", text)
        for place, model in models.items():
            space = getattr(model, search.space)
            spaces = space if isinstance(space, list) else [space]
            if any(search.resource in each for each in spaces):
                text = "is the resource of the search, so no candidate can set it"
                yield Fault(f"{place}.{search.space}.{search.resource}", text)
            try:
                known = build_estimator(model.estimator, model.pipeline).get_params(deep=True)
            except Exception:  # noqa: S112, a fault of the model, told elsewhere
                continue
            if search.resource not in known:
                yield Fault("search.resource", f"'{search.resource}' is no parameter of {place}")

    # what it leaves

    @property
    def more_lengths(self) -> dict[str, int]:
        """``iteration``, as many as any partition may need."""
        return {"iteration": required_iterations(self.n_rows, self._search.factor)}

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Resources of each iteration, and how far each candidate came."""
        resource = self._search.resource
        return (
            Array(
                "n_resources",
                ("iteration",),
                "int64",
                -1,
                {"long_name": f"{resource} of each iteration", "comment": "-1: there was none"},
                is_found=True,
            ),
            Array(
                "last_iteration",
                ("candidate",),
                "int32",
                -1,
                {
                    "long_name": "last iteration that each candidate took part in",
                    "comment": "-1: none; results of later iterations are absent, not failed",
                },
                is_found=True,
            ),
        )

    def by_model(self) -> str:
        """Return how many candidates are of which model, and how often they are halved."""
        return f"{super().by_model()}; {self.more_lengths['iteration']} iterations at the most"

    def n_fits(self, n_splits: int) -> int:
        """Return the fits of as many iterations as any partition may need."""
        count, fits = self.n_rows, 0
        for _ in range(self.more_lengths["iteration"]):
            fits += count * n_splits
            count = math.ceil(count / self._search.factor)
        return fits

    @property
    def parameters(self) -> dict[str, tuple[str, Any]]:
        """The resource is one, if it is a parameter."""
        more = {self._search.resource: ("float64", NAN)} if self._has_parameter else {}
        return {**super().parameters, **more}

    # what it does

    def search(self, partition: Partition, first: int, last: int) -> Search:
        """Ask for all candidates with few resources, then for the better ones with more."""
        n_samples = partition.n_samples
        planned = schedule(self._search, self.n_rows, self._least(partition), n_samples)
        results = _Results(self, max(map(len, partition.counts.values()), default=0))
        rows = np.arange(self.n_rows)
        for iteration, n_resources in enumerate(planned):
            answer = yield Request(
                (self._has_parameter and n_resources, tuple(rows.tolist())),
                [self._with_resource(self.candidates[row], n_resources) for row in rows],
                self._subsampled(partition, n_resources),
            )
            mean = results.put(rows, iteration, answer)
            ordered = np.roll(np.argsort(mean), np.count_nonzero(np.isnan(mean)))
            entrants, rows = rows, rows[ordered[-math.ceil(len(rows) / self._search.factor) :]]
        resources = np.full(self.more_lengths["iteration"], -1)
        resources[: len(planned)] = planned
        won = not np.isnan(mean).all()
        return replace(
            results.found,
            more={
                "n_resources": resources,
                "last_iteration": results.last_iteration,
                "best_index": entrants[np.nanargmax(mean)] if won else -1,
                "best_score": np.nanmax(mean) if won else NAN,
            },
        )

    def _least(self, partition: Partition) -> int:
        """Return twice the splits, for each class; 1 of a parameter."""
        if self._has_parameter:
            return 1
        least = 2 * max(map(len, partition.counts.values()), default=0)
        if any(map(self._classifiers.__getitem__, partition.counts)):
            least *= partition.n_classes
        return least

    @functools.cached_property
    def _classifiers(self) -> list[bool]:
        """Which models are classifiers."""
        made = (build_estimator(model.estimator, model.pipeline) for model in self.spec.models)
        return [is_classifier(estimator) for estimator in made]

    def _with_resource(self, candidate: Candidate, n_resources: int) -> Candidate:
        if not self._has_parameter:
            return candidate
        params = {**candidate.params, self._search.resource: n_resources}
        return replace(candidate, params=params)

    def _subsampled(self, partition: Partition, n_resources: int) -> Counts | None:
        """Return how many samples of each split take part, as scikit-learn counts them.

        Raises
        ------
        Unsearchable
            When a split has not so many, or keeps none.
        """
        if self._has_parameter:
            return None
        n_samples = partition.n_samples

        def part(length: int) -> int:
            count = int(n_resources / n_samples * length)
            if count > length:
                raise Unsearchable(
                    f"an iteration needs {n_resources} samples (search.max_resources: "
                    f"{self._search.max_resources}), but there are {n_samples} here; set it to "
                    "auto, which is as many as a partition has"
                )
            if not count:
                raise Unsearchable(
                    f"an iteration of {n_resources} of {n_samples} samples has none of the "
                    f"{length} on one side of a split; raise search.min_resources "
                    f"({self._search.min_resources})"
                )
            return count

        return {
            model: [(part(train), part(test)) for train, test in splits]
            for model, splits in partition.counts.items()
        }

    # what is made of it

    def took_part(self, values: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which candidates were in which iterations."""
        iterations = np.arange(self.more_lengths["iteration"])
        return np.asarray(iterations <= values["last_iteration"][..., np.newaxis])

    def best(
        self, values: Mapping[str, NDArray[Any]], index: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """Return what a grid has, with the resource that the last iteration had."""
        found = super().best(values, index)
        if self._has_parameter:
            each = np.arange(len(index))
            last = values["last_iteration"][each, index]
            had = values["n_resources"][each, last].astype("float64")
            found[f"best_param_{self._search.resource}"] = np.where(index >= 0, had, NAN)
        return found

    def candidate(self, at: Callable[[str], Any], row: int) -> Candidate:
        """Return a candidate with the resources of its last iteration."""
        return self._with_resource(
            self.candidates[row], int(at("n_resources")[at("last_iteration")[row]])
        )


class HalvingRandom(Halving):
    """The same of settings drawn once, all partitions having the same."""

    @classmethod
    def faults(cls, search: SearchSpec, models: Mapping[str, ModelSpec]) -> Iterable[Fault]:
        """Yield distributions that cannot be drawn from, too."""
        yield from super().faults(search, models)
        yield from Random.faults(search, models)

    @classmethod
    def draw(cls, spec: SweepSpec, before: Strategy | None = None) -> tuple[Candidate, ...]:
        """Draw the candidates with the sweep's seed; a store that has some keeps them."""
        return drawn_once(spec, cast(HalvingRandomSpec, spec.search).n_candidates, before)


class _Results:
    """What the iterations of one partition have found so far."""

    def __init__(self, strategy: Halving, n_splits: int) -> None:
        self.found = strategy.nothing(0, 1, n_splits=n_splits)
        self.last_iteration = np.full(strategy.n_rows, -1)
        self._metric = strategy.spec.refit_metric

    def put(self, rows: NDArray[np.intp], iteration: int, answer: Answer) -> NDArray[np.float64]:
        """Put the results of an iteration in their places; return the means that count."""
        found = self.found
        for metric, scores in answer.scores.items():
            found.scores[metric][rows, iteration] = scores
        found.fit_time[rows, iteration] = answer.fit_time
        found.score_time[rows, iteration] = answer.score_time
        found.failed[rows] = answer.failed  # the last iteration counts
        cast(dict[int, int], found.states).update(
            {int(rows[number]): state for number, state in answer.states.items()}
        )
        messages = cast(list[str], found.messages)
        for row, failed, message in zip(rows, answer.failed, answer.messages, strict=True):
            if message and (failed or not messages[row]):
                messages[row] = f"iteration {iteration}: {message}"
        self.last_iteration[rows] = iteration
        mean: NDArray[np.float64] = np.average(answer.scores[self._metric], axis=1)
        return mean
