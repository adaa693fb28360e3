"""Opened results as tables see them: partitions, labels, candidates, block by block."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.candidates import restored
from hpc_sweep.choices import PENDING
from hpc_sweep.errors import StoreError, listed, nearest
from hpc_sweep.partitions import plain_label
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store import ATTRIBUTE
from hpc_sweep.strategies import Strategy, restore

BLOCK_CELLS = 1_000_000
"""So many candidates of partitions are looked at together, where no result chunks are known."""


class Results:
    """What the dataset of a store says of itself.

    Parameters
    ----------
    dataset : xarray.Dataset
        A store opened with xarray, or what a selection of partitions left of it.

    Raises
    ------
    StoreError
        When it is none, or was selected along its candidates.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self.dataset = dataset
        try:
            self._header = json.loads(dataset.attrs[ATTRIBUTE])
        except (KeyError, TypeError, ValueError):
            raise StoreError(
                "this is no dataset of hpc_sweep's results: its attribute "
                f"'{ATTRIBUTE}' is missing; take what xarray.open_zarr gives of a store"
            ) from None
        self.spec = SweepSpec.model_validate(self._header["spec"])
        own = self.strategy.dim
        if own in dataset.sizes and not np.array_equal(
            dataset[own].values, np.arange(self.strategy.n_rows)
        ):
            raise StoreError(f"tables need every {own}; select partitions, not {own}s")

    @cached_property
    def strategy(self) -> Strategy:
        """The strategy that the results were made by, with its candidates."""
        results = self.dataset
        if "candidate_id" not in results:  # they differ per partition
            return restore(self.spec, ())
        models = self.spec.model_dump(mode="json")["models"]
        texts, ids = (
            np.atleast_1d(results[name].values).tolist()
            for name in ("candidate_json", "candidate_id")
        )
        return restore(self.spec, restored(models, texts, ids), self._header["dropped"])

    @property
    def metrics(self) -> Mapping[str, str]:
        """What scores are called in the store, and what the metric is."""
        return self.spec.metric_labels

    def metric(self, name: str | None) -> str:
        """Return a metric by its name; None is the one that the best are chosen by.

        Raises
        ------
        StoreError
            When the sweep has none of that name.
        """
        if name is None:
            return self.spec.refit_metric
        known = {label: key for key, label in self.metrics.items()}
        known |= {key: key for key in self.metrics}
        if name not in known:
            have = listed(dict.fromkeys(self.metrics.values()))
            raise StoreError(f"no metric is called '{name}'{nearest(name, known)}; there is {have}")
        return known[name]

    @cached_property
    def dims(self) -> tuple[str, ...]:
        """The dimensions of partitions."""
        return tuple(str(dim) for dim in self.dataset["best_index"].dims)

    @property
    def shape(self) -> tuple[int, ...]:
        """How many partitions along each of them."""
        return tuple(self.dataset.sizes[dim] for dim in self.dims)

    @property
    def size(self) -> int:
        """How many partitions."""
        return math.prod(self.shape)

    @cached_property
    def states(self) -> NDArray[np.int8]:
        """``partition_status``, shape (size,)."""
        return self.flat("partition_status")

    @property
    def n_pending(self) -> int:
        """How many partitions have no results yet."""
        return int((self.states == PENDING).sum())

    def flat(self, name: str) -> NDArray[Any]:
        """Return an array of one value a partition, shape (size,)."""
        return np.asarray(self.dataset[name].values).reshape(-1)

    def labels(self, flat: NDArray[np.intp], *, plain: bool) -> dict[str, NDArray[Any]]:
        """Return the labels of partitions by dimension.

        Parameters
        ----------
        flat : ndarray of int, shape (n,)
            Which partitions, counted in the order of `dims`.
        plain : bool
            As JSON has them, dates as text.
        """
        index = np.unravel_index(flat, self.shape) if self.dims else ()
        places = dict(zip(self.dims, index, strict=True))
        known = self._plain if plain else self._coordinates
        found = {}
        for dim in self._header["dims"]:
            if dim in places:
                found[dim] = known[dim][places[dim]]
            elif dim in known:  # one label was selected
                found[dim] = np.repeat(known[dim], len(flat))
        return found

    def label(self, flat: int) -> dict[str, Any]:
        """Return the labels of one partition, as JSON has them."""
        found = self.labels(np.array([flat]), plain=True)
        return {dim: plain_label(values[0]) for dim, values in found.items()}

    @cached_property
    def _coordinates(self) -> dict[str, NDArray[Any]]:
        found = {}
        for dim in self._header["dims"]:
            if dim in self.dataset.coords:
                found[dim] = np.atleast_1d(self.dataset[dim].values)
            elif dim in self.dims:
                found[dim] = np.arange(self.dataset.sizes[dim])
        return found

    @cached_property
    def _plain(self) -> dict[str, NDArray[Any]]:
        return {
            dim: values
            if values.dtype.kind in "iuf"
            else np.array([plain_label(value) for value in values], dtype=object)
            for dim, values in self._coordinates.items()
        }

    def blocks(self) -> Iterator[Block]:
        """Yield pieces of the partitions as the store has them: one result chunk after the other.

        So every file is read once, and memory does not grow with the store.
        """
        header = self._header
        whole = dict(zip(header["dims"], header["shape"], strict=True))
        widths = dict(zip(header["dims"], header["chunks"], strict=True))
        sizes = dict(zip(self.dims, self.shape, strict=True))
        if any(whole[dim] != size for dim, size in sizes.items()):  # a selection
            widths = {**sizes}
            for dim in self.dims[:1]:
                cells = self.size // max(1, sizes[dim]) * self.strategy.n_rows
                widths[dim] = max(1, BLOCK_CELLS // max(1, cells))
        numbers = np.arange(self.size).reshape(self.shape)
        ranges = [_cut(size, widths[dim]) for dim, size in sizes.items()]
        for region in itertools.product(*ranges):
            where = dict(zip(self.dims, region, strict=True))
            yield Block(self, where, np.asarray(numbers[region]).reshape(-1))


def _cut(size: int, width: int) -> list[slice]:
    return [slice(first, min(first + width, size)) for first in range(0, size, max(1, width))]


@dataclass(frozen=True)
class Block:
    """Some partitions.

    Attributes
    ----------
    results : Results
        Of what.
    where : dict of str to slice
        Where they are.
    flat : ndarray of int, shape (n,)
        Which, counted in the order of `Results.dims`.
    """

    results: Results
    where: Mapping[str, slice]
    flat: NDArray[np.intp]

    def read(self, name: str) -> NDArray[Any]:
        """Return an array of these partitions, shape (n, …)."""
        found = self.results.dataset[name].isel(dict(self.where))
        values = found.transpose(*self.results.dims, ...).values
        return np.asarray(values).reshape(len(self.flat), *values.shape[len(self.results.dims) :])

    def final_means(self, metric: str) -> NDArray[np.float64]:
        """Return each candidate's mean score: of halving the one of its last iteration.

        Returns
        -------
        ndarray of float64, shape (n, n_rows)
            NaN where there is none, or the spec does not ask for the candidate.
        """
        return np.where(self.results.strategy.in_spec, self._last(f"mean_test_{metric}"), np.nan)

    def final_ranks(self, metric: str) -> NDArray[np.float64]:
        """Return ranks alike, shape (n, n_rows); NaN where there is none."""
        ranks = self._last(f"rank_test_{metric}")
        return np.where(ranks > 0, ranks, np.nan)

    def _last(self, name: str) -> NDArray[Any]:
        values = self.read(name)
        if values.ndim == 2:
            return values
        last = self.read("last_iteration")
        taken = np.take_along_axis(values, np.maximum(last, 0)[..., np.newaxis], axis=2)[..., 0]
        return np.where(last >= 0, taken, np.nan)

    def winners(self, metric: str, means: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the best candidate of each partition by a metric, shape (n,); −1: none.

        Of the metric that the sweep chose by it is ``best_index``. By another one it is the first
        of the highest means, of those candidates that stayed to the end of their search.
        """
        if metric == self.results.spec.refit_metric:
            return self.read("best_index").astype(np.int64)
        stayed = np.ones(means.shape, dtype=bool)
        if "last_iteration" in self.results.dataset:
            last = self.read("last_iteration")
            stayed = last == last.max(axis=1, keepdims=True)
        elif "survived" in self.results.dataset:
            stayed = self.read("survived") == 1
        counted = np.where(stayed & ~np.isnan(means), means, -np.inf)
        return np.where(np.isneginf(counted).all(axis=1), -1, counted.argmax(axis=1))

    def models(self) -> NDArray[np.intp]:
        """Return the position of each row's model in the spec, shape (n or 1, n_rows); −1: none."""
        if not self.results.strategy.candidates:
            return self.read("model").astype(np.intp)
        codes = [candidate.model for candidate in self.results.strategy.candidates]
        return np.array([codes], dtype=np.intp)
