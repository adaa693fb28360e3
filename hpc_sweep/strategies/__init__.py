"""Strategies: one file each, and the list of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hpc_sweep.candidates import Candidate, merged
from hpc_sweep.errors import Fault
from hpc_sweep.spec import ModelSpec, SearchSpec, SweepSpec
from hpc_sweep.strategies.base import Strategy, chosen
from hpc_sweep.strategies.exchange import (
    Answer,
    Array,
    Counts,
    Found,
    Partition,
    Request,
    Search,
    Training,
    Unsearchable,
    asked_once,
)
from hpc_sweep.strategies.grid import Grid
from hpc_sweep.strategies.halving import Halving, HalvingRandom
from hpc_sweep.strategies.incremental import Hyperband, Incremental
from hpc_sweep.strategies.optuna import Optuna
from hpc_sweep.strategies.random import Random

STRATEGIES: Mapping[str, type[Strategy]] = {
    "grid": Grid,
    "random": Random,
    "halving": Halving,
    "halving_random": HalvingRandom,
    "optuna": Optuna,
    "incremental": Incremental,
    "hyperband": Hyperband,
}


def draw(spec: SweepSpec, before: Strategy | None = None) -> Strategy:
    """Return the strategy of a spec with its candidates, drawn where these are.

    Parameters
    ----------
    spec : SweepSpec
        The spec.
    before : Strategy, optional
        What its store has: its candidates keep their positions.
    """
    kind = STRATEGIES[spec.search.strategy]
    wanted = kind.draw(spec, before)
    return kind(spec, *merged(() if before is None else before.candidates, wanted))


def restore(
    spec: SweepSpec, candidates: Sequence[Candidate], dropped: Iterable[int] = ()
) -> Strategy:
    """Return the strategy of a spec with the candidates that a store has."""
    return STRATEGIES[spec.search.strategy](spec, candidates, dropped)


def faults(search: SearchSpec, models: Mapping[str, ModelSpec]) -> Iterable[Fault]:
    """Yield what is wrong with a valid ``search`` section and models, by their place."""
    yield from STRATEGIES[search.strategy].faults(search, models)


__all__ = [
    "STRATEGIES",
    "Answer",
    "Array",
    "Counts",
    "Found",
    "Partition",
    "Request",
    "Search",
    "Strategy",
    "Training",
    "Unsearchable",
    "asked_once",
    "chosen",
    "draw",
    "faults",
    "restore",
]
