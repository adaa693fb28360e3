"""The best candidate of a partition, fitted again and scored on the samples held out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.plan import Unit
from hpc_sweep.search import held_out_scores
from hpc_sweep.source import Samples
from hpc_sweep.store import Choice, best, mean_and_std, rank
from hpc_sweep.strategies import Found, Strategy
from hpc_sweep.work.bench import Bench
from hpc_sweep.work.remains import Attendant, Remains


class Partition(Protocol):
    """Which partition it is."""

    @property
    def position(self) -> int:
        """In the reading order of the result chunk."""

    @property
    def index(self) -> NDArray[np.intp]:
        """Shape (n_dims,)."""


@dataclass(frozen=True)
class HeldOut:
    """What came of a partition's samples that are held out.

    Attributes
    ----------
    n_samples : int
        How many there are.
    index : int
        Which candidate was scored on them; −1: none was.
    scores : mapping of str to float
        By metric.
    message : str
        Why there is no score, where one was to be.
    """

    n_samples: int = 0
    index: int = -1
    scores: Mapping[str, float] = field(default_factory=dict)
    message: str = ""


def has_all(strategy: Strategy, unit: Unit) -> bool:
    """Return whether a unit has all candidates that the spec asks for."""
    asked = strategy.columns_in_spec
    return not (asked[: unit.first].any() or asked[unit.last :].any())


def choice_of(strategy: Strategy, unit: Unit, found: Found) -> Choice | None:
    """Return the best candidate of a partition, as a fold of these results will find it."""
    first = strategy.rows(unit.first, unit.last).start
    if strategy.chooses or not found.fit_time.shape[-1]:
        index = int(found.more.get("best_index", -1))
    else:
        scores = found.scores[strategy.spec.refit_metric][np.newaxis]
        mean, _ = mean_and_std(scores, np.ones((1, scores.shape[-1]), dtype=bool))
        mean[:, ~strategy.in_spec[first : first + mean.shape[1]]] = np.nan
        index = int(best(rank(mean), mean)[0])
    if index < 0:
        return None
    fills = {array.name: array.fill for array in strategy.arrays}

    def at(name: str) -> Any:
        return found.more.get(name, fills.get(name))

    return Choice(first + index, strategy.candidate(at, first + index))


def held_out_of(samples: Any) -> HeldOut:
    """Return how many samples of a partition are held out, nothing scored on them."""
    others = samples.held_out if isinstance(samples, Samples) else None
    return HeldOut(len(others or ()))


def score_held_out(
    bench: Bench,
    partition: Partition,
    samples: Samples,
    choice: Choice | None,
    attendant: Attendant,
    remains: Remains,
) -> HeldOut:
    """Fit a candidate on the training samples of a partition, and score it on the others.

    Parameters
    ----------
    bench : Bench
        Has the models.
    partition : Partition
        Which one.
    samples : Samples
        The partition's.
    choice : Choice or None
        Its best candidate.
    attendant : Attendant
        Told before the fit begins.
    remains : Remains
        Says which refits are given up.
    """
    others = samples.held_out
    if others is None or not len(others) or choice is None:
        return HeldOut(len(others or ()), -1 if choice is None else choice.index)
    metrics = bench.store.spec.metrics
    if partition.position in remains.refits:
        loss = remains.refits[partition.position]
        scores, message = dict.fromkeys(metrics, math.nan), loss.reason
    else:
        attendant.refits(partition.position)
        scores, message = held_out_scores(
            bench.models[choice.candidate.model],
            bench.params(choice.candidate, bench.seed(partition.index)),
            samples.given,
            others.given,
            metrics,
        )
    return HeldOut(len(others), choice.index, scores, message)
