"""What a strategy is: which results it leaves, and what it asks for in one partition."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.candidates import (
    Candidate,
    expand,
    is_numeric,
    model_names,
    parameter_names,
    repeated,
    value_text,
)
from hpc_sweep.errors import Fault
from hpc_sweep.estimators import build_estimator, is_collective
from hpc_sweep.spec import ModelSpec, SearchSpec, SweepSpec
from hpc_sweep.strategies.exchange import NAN, Array, Found, Partition, Search


class Strategy(abc.ABC):
    """How candidates are chosen and compared.

    A strategy asks and is answered; it never fits. What it draws depends on the partition's
    seed and answers alone, so that it finds the same in whatever unit, batch or run.

    Parameters
    ----------
    spec : SweepSpec
        The spec.
    candidates : sequence of Candidate
        What `draw` gave, and what the store has besides.
    dropped : iterable of int
        Positions of those that are not in the spec any more.

    Attributes
    ----------
    dim : str
        The dimension that results run along.
    is_parted : bool
        Whether a unit may hold some of a partition's candidates.
    chooses : bool
        Whether a search itself tells ``best_index`` and ``best_score``; else ranks do.
    trains : bool
        Whether candidates are trained block by block, on partitions that no worker holds.
    """

    dim: ClassVar[str] = "candidate"
    is_parted: ClassVar[bool] = True
    chooses: ClassVar[bool] = False
    trains: ClassVar[bool] = False

    def __init__(
        self, spec: SweepSpec, candidates: Sequence[Candidate], dropped: Iterable[int] = ()
    ) -> None:
        self.spec = spec
        self.candidates = tuple(candidates)
        self.dropped = tuple(dropped)

    @classmethod
    def faults(cls, search: SearchSpec, models: Mapping[str, ModelSpec]) -> Iterable[Fault]:
        """Yield what is wrong with a valid ``search`` section and models, by their place."""
        return ()

    @classmethod
    def draw(cls, spec: SweepSpec, before: Strategy | None = None) -> tuple[Candidate, ...]:
        """Return the candidates that all partitions have in common.

        Parameters
        ----------
        spec : SweepSpec
            The spec.
        before : Strategy, optional
            What a store has, which another version of a library might draw otherwise.

        Raises
        ------
        SpecError
            With all faults that only drawing shows.
        """
        return expand(spec.model_dump(mode="json")["models"])

    def repeats(self) -> Iterable[Fault]:
        """Yield candidates that are the same as an earlier one."""
        for first, second in repeated(self.candidates):
            candidate = self.candidates[second]
            text = f"candidates {first} and {second} are the same: {candidate.json}"
            yield Fault(f"models.{candidate.model}.param_grid", text)

    @cached_property
    def on_blocks(self) -> bool:
        """Whether partitions lie on all workers, cut into blocks, and are searched by all."""
        models = self.spec.models
        built = (build_estimator(model.estimator, model.pipeline) for model in models)
        return self.trains or any(map(is_collective, built))

    # what it leaves

    @property
    def n_rows(self) -> int:
        """Length of `dim`."""
        return len(self.candidates)

    @property
    def n_columns(self) -> int:
        """How many pieces a partition's work may be cut into: candidates, or the whole."""
        return self.n_rows if self.is_parted else 1

    @property
    def in_spec(self) -> NDArray[np.bool_]:
        """Which rows the spec asks for, shape (n_rows,)."""
        found = np.ones(self.n_rows, dtype=bool)
        found[list(self.dropped)] = False
        return found

    @property
    def columns_in_spec(self) -> NDArray[np.bool_]:
        """Which columns the spec asks for, shape (n_columns,)."""
        return self.in_spec if self.is_parted else np.ones(1, dtype=bool)

    @property
    def more_lengths(self) -> dict[str, int]:
        """Dimensions between `dim` and ``split``, with their lengths."""
        return {}

    @property
    def lengths(self) -> dict[str, int]:
        """The dimensions that scores run along before ``split``, with their lengths."""
        return {self.dim: self.n_rows, **self.more_lengths}

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Result arrays of its own."""
        return ()

    def n_fits(self, n_splits: int) -> int:
        """Return how many fits a partition takes at the most."""
        return int(self.in_spec.sum()) * n_splits

    def rows(self, first: int, last: int) -> slice:
        """Return the rows that the columns of a unit stand for."""
        whole = slice(0, self.n_rows if last > first else 0)
        return slice(first, last) if self.is_parted else whole

    def models(self, first: int, last: int) -> list[int]:
        """Return which models the columns of a unit fit."""
        return sorted({candidate.model for candidate in self.candidates[self.rows(first, last)]})

    def by_model(self) -> str:
        """Return for people how many candidates are of which model."""
        kept = zip(self.candidates, self.in_spec, strict=True)
        names = [candidate.model_name for candidate, in_spec in kept if in_spec]
        return ", ".join(f"{name} {names.count(name)}" for name in dict.fromkeys(names))

    @property
    def block_samples(self) -> int | None:
        """How many samples a block has at the least; None: any."""
        return None

    @property
    def test_size(self) -> float | None:
        """Which part of each block scores are of; None: what suits."""
        return None

    @property
    def model_names(self) -> list[str]:
        """Names of the models in order."""
        return model_names([model.model_dump() for model in self.spec.models])

    # what it does

    @abc.abstractmethod
    def search(self, partition: Partition, first: int, last: int) -> Search:
        """Search a partition.

        Parameters
        ----------
        partition : Partition
            Where.
        first, last : int
            Columns of the unit.

        Raises
        ------
        Unsearchable
            When there is nothing to be asked for.
        """

    def nothing(self, first: int, last: int, reason: str = "", n_splits: int = 0) -> Found:
        """Return what is found where nothing is evaluated, all failed if for a reason."""
        rows = self.rows(first, last)
        count = rows.stop - rows.start

        def blank() -> NDArray[np.float64]:
            return np.full((count, *self.more_lengths.values(), n_splits), np.nan)

        return Found(
            {metric: blank() for metric in self.spec.metrics},
            blank(),
            blank(),
            np.full(count, bool(reason)),
            [reason] * count,
        )

    # what is made of it

    def took_part(self, values: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_] | None:
        """Return which means are of fits that were to be done; None: all.

        Parameters
        ----------
        values : mapping of str to ndarray
            The store's arrays of some partitions, which run along the first axis.
        """
        return None

    @property
    def parameters(self) -> dict[str, tuple[str, Any]]:
        """Type and fill of ``best_param_<name>``, by name."""
        return {
            name: ("float64", NAN) if is_numeric(self.candidates, name) else ("str", "")
            for name in parameter_names(self.candidates)
        }

    def best(
        self, values: Mapping[str, NDArray[Any]], index: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """Return ``best_model`` and ``best_param_<name>`` of some partitions.

        Parameters
        ----------
        values : mapping of str to ndarray
            The store's arrays of these partitions, which run along the first axis.
        index : ndarray of int64, shape (n_partitions,)
            Their best rows; −1 where there is none.
        """
        names = [candidate.model_name for candidate in self.candidates]
        found = {"best_model": chosen(names, "str", index)}
        for name, (dtype, _) in self.parameters.items():
            texts = [value_text(candidate, name) for candidate in self.candidates]
            numbers = [candidate.params.get(name) for candidate in self.candidates]
            found[f"best_param_{name}"] = chosen(texts if dtype == "str" else numbers, dtype, index)
        return found

    def candidate(self, at: Callable[[str], Any], row: int) -> Candidate:
        """Return the candidate of a row of one partition, as it was fitted last.

        Parameters
        ----------
        at : callable
            Gives an array of the store at this partition, by name.
        row : int
            Along `dim`.
        """
        return self.candidates[row]


def chosen(values: Sequence[Any], dtype: str, index: NDArray[np.int64]) -> NDArray[Any]:
    """Return ``values[index]`` with the fill value appended, so that −1 picks it."""
    if dtype == "str":
        return np.array([*values, ""], dtype=object)[index]
    return np.array([*values, np.nan], dtype=dtype)[index]
