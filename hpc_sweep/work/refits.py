"""The best candidates of partitions, fitted again: scores, coefficients, models to be kept."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.plan import Unit
from hpc_sweep.search import (
    Affine,
    Problem,
    Sums,
    affine,
    brief,
    coefficients_at_once,
    held_out_scores,
    try_refit,
)
from hpc_sweep.serialization import to_bytes
from hpc_sweep.source import Samples
from hpc_sweep.store import Choice, best, mean_and_std, rank
from hpc_sweep.strategies import Found, Strategy
from hpc_sweep.work.bench import Bench
from hpc_sweep.work.remains import Attendant, Loss, Remains

NOTHING: Mapping[int, Sums] = {}


class Partition(Protocol):
    """Which partition it is."""

    @property
    def position(self) -> int:
        """In the reading order of the result chunk."""

    @property
    def index(self) -> NDArray[np.intp]:
        """Shape (n_dims,)."""

    @property
    def samples(self) -> Samples | Loss:
        """Its samples, or why there are none."""


@dataclass(slots=True)
class Refit:
    """What came of the best candidate of a partition, fitted again.

    Attributes
    ----------
    n_samples : int
        How many are held out.
    index : int
        Which candidate it was; −1: none.
    scores : mapping of str to float
        By metric, on the samples held out.
    message : str
        Why something is missing.
    affine : tuple of ndarray or None
        Coefficients, shape (n_outputs, n_features), and intercepts, shape (n_outputs,).
    model : bytes
        The fitted model, where it is kept.
    """

    n_samples: int = 0
    index: int = -1
    scores: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    affine: Affine | None = None
    model: bytes = b""


def has_all(strategy: Strategy, unit: Unit) -> bool:
    """Return whether a unit has all candidates that the spec asks for."""
    asked = strategy.columns_in_spec
    return not (asked[: unit.first].any() or asked[unit.last :].any())


def choices_of(strategy: Strategy, unit: Unit, found: Sequence[Found]) -> list[Choice | None]:
    """Return the best candidate of each partition, as a fold of these results will find them."""
    first = strategy.rows(unit.first, unit.last).start
    indices = np.full(len(found), -1, dtype=np.int64)
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, each in enumerate(found):
        if strategy.chooses or not each.fit_time.shape[-1]:
            indices[number] = each.more.get("best_index", -1)
        else:
            alike[each.scores[strategy.spec.refit_metric].shape].append(number)
    for shape, numbers in alike.items():
        scores = np.stack([found[n].scores[strategy.spec.refit_metric] for n in numbers])
        mean, _ = mean_and_std(scores, np.ones((len(numbers), shape[-1]), dtype=bool))
        mean[:, ~strategy.in_spec[first : first + mean.shape[1]]] = np.nan
        indices[numbers] = best(rank(mean), mean)
    fills = {array.name: array.fill for array in strategy.arrays}

    def choice(each: Found, index: int) -> Choice | None:
        def at(name: str) -> Any:
            return each.more.get(name, fills.get(name))

        return Choice(index, strategy.candidate(at, index)) if index >= 0 else None

    indices[indices >= 0] += first
    return list(map(choice, found, indices.tolist()))


def refit_of(samples: Any) -> Refit:
    """Return how many samples of a partition are held out, nothing fitted again."""
    return Refit(_n_held_out(samples))


def _n_held_out(samples: Any) -> int:
    others = samples.held_out if isinstance(samples, Samples) else None
    return len(others or ())


def refit_together(
    bench: Bench,
    partitions: Sequence[Partition],
    choices: Sequence[Choice | None],
    attendant: Attendant,
    remains: Remains,
    sums: Mapping[int, Sums] = NOTHING,
) -> list[Refit]:
    """Fit the best candidates of some partitions again, on all their training samples.

    What is asked of them are scores on samples held out, coefficients of linear models, and the
    models themselves. For coefficients alone partitions are solved together, where that can be.

    Parameters
    ----------
    bench : Bench
        Has the models.
    partitions : sequence of Partition
        Which ones, with their samples.
    choices : sequence of Choice or None
        The best candidate of each.
    attendant : Attendant
        Told before a fit begins.
    remains : Remains
        Says which refits are given up.
    sums : mapping of int to dict
        By position, what searches left in `Task.sums`.
    """
    found: list[Refit] = []
    asked: dict[int, tuple[Partition, Samples, Choice]] = {}
    for partition, choice in zip(partitions, choices, strict=True):
        samples, n_held_out = partition.samples, _n_held_out(partition.samples)
        index = -1 if choice is None else choice.index
        if choice is None:
            found.append(Refit(n_held_out))
        elif not isinstance(samples, Samples):
            found.append(Refit(n_held_out, index, message=samples.reason))
        elif n_held_out or bench.keeps is not None or partition.position in remains.refits:
            found.append(_refit(bench, partition, samples, choice, attendant, remains))
        else:
            if choice.candidate.model in bench.linear:
                asked[len(found)] = partition, samples, choice
            found.append(Refit(n_held_out, index))
    solved = _solved(bench, [*asked.values()], sums)
    for (number, each), solution in zip(asked.items(), solved, strict=True):
        if solution is not None:
            found[number] = Refit(0, each[2].index, affine=solution)
        else:
            found[number] = _refit(bench, *each, attendant, remains)
    return found


def _solved(
    bench: Bench,
    asked: Sequence[tuple[Partition, Samples, Choice]],
    sums: Mapping[int, Sums],
) -> Sequence[Affine | None]:
    """Return the coefficients of best candidates that can be solved for together."""
    if bench.source.has_weights:
        return [None] * len(asked)
    candidates = {id(choice.candidate): choice.candidate for _, _, choice in asked}
    unfitted = {key: bench.unfitted(candidate) for key, candidate in candidates.items()}
    return coefficients_at_once(
        [
            Problem(
                unfitted[id(choice.candidate)], samples.X, samples.y, sums.get(partition.position)
            )
            for partition, samples, choice in asked
        ]
    )


def _refit(
    bench: Bench,
    partition: Partition,
    samples: Samples,
    choice: Choice,
    attendant: Attendant,
    remains: Remains,
) -> Refit:
    """Fit the best candidate of one partition again, as `load_model` does."""
    others, metrics = samples.held_out, bench.store.spec.metrics
    found = Refit(len(others or ()), choice.index, dict.fromkeys(metrics, math.nan))
    if partition.position in remains.refits:
        return replace(found, message=remains.refits[partition.position].reason)
    attendant.refits(partition.position)
    model = bench.models[choice.candidate.model]
    params = bench.params(choice.candidate, bench.seed(partition.index))
    estimator, message = try_refit(model, params, samples.given)
    if estimator is None:
        return replace(found, message=message)
    if choice.candidate.model in bench.linear:
        found = replace(found, affine=_affine(bench, samples, estimator))
    if others is not None and len(others):
        scores, message = held_out_scores(model, estimator, others.given, metrics)
        found = replace(found, scores=scores, message=message)
    if bench.keeps is None:
        return found
    try:
        content = to_bytes(estimator, bench.keeps)
    except Exception as error:  # of what cannot be stored, whatever its parts raise
        words = brief(type(error).__name__, error)
        return replace(found, message=found.message or f"{bench.keeps} cannot store it: {words}")
    bench.check_trust(choice.candidate, content)
    return replace(found, model=content)


def _affine(bench: Bench, samples: Samples, estimator: Any) -> Affine | None:
    n_outputs = bench.store.lengths.get("output", 1)
    try:
        return affine(estimator, samples.X.shape[1], n_outputs)
    except (AttributeError, TypeError, ValueError):  # of attributes that another version lacks
        return None
