"""Which partition labels mean, by the store's own coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.errors import StoreError, listed
from hpc_sweep.partitions import plain_label
from hpc_sweep.store import Store


def coordinates_of(store: Store) -> dict[str, NDArray[Any]]:
    """Return the labels along each partition dimension; indices where it has none."""
    results, header = store.dataset(), store.header
    return {
        dim: results[dim].values if dim in results.coords else np.arange(length)
        for dim, length in zip(header.dims, header.shape, strict=True)
    }


def find_partition(
    coordinates: Mapping[str, NDArray[Any]], labels: Mapping[str, Any]
) -> NDArray[np.intp]:
    """Return the index of the partition with these labels, shape (n_dims,).

    Raises
    ------
    StoreError
        When labels name none, or several.
    """
    if set(labels) != set(coordinates):
        raise StoreError(
            f"give one label for each of {listed(coordinates)}; got {listed(labels) or 'none'}"
        )
    places = [_position(known, dim, labels[dim]) for dim, known in coordinates.items()]
    return np.array(places, dtype=np.intp)


def _position(known: NDArray[Any], dim: str, label: Any) -> int:
    if known.dtype.kind in "OT":  # texts, and dates of other calendars
        named = {str(label), f"{label} 00:00:00"}
        found = np.flatnonzero([str(each) in named for each in known])
    else:
        found = np.flatnonzero(
            known == (np.datetime64(label) if known.dtype.kind == "M" else label)
        )
    if found.size > 1:
        raise StoreError(
            f"{found.size} partitions have {dim}={label}, so it names none of them; give the data "
            "coordinates that differ"
        )
    if not found.size:
        near = f"; it has {listed(map(plain_label, known))}"
        if known.dtype.kind in "iuf" and isinstance(label, (int, float)):
            near = f"; the nearest is {known[np.abs(known - label).argmin()].item()}"
        raise StoreError(f"0 partitions have {dim}={label}{near}")
    return int(found[0])
