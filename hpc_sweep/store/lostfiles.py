"""Files of a store that should be there and are not: shared file systems purge single ones."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.errors import StoreError, disk_errors
from hpc_sweep.plan import Chunk
from hpc_sweep.store.files import fixed_files
from hpc_sweep.store.store import Store


def check_fixed_files(store: Store) -> None:
    """Raise a `StoreError` where a file is missing that was made with the store."""
    lost = _lost_fixed(store)
    if lost:
        raise StoreError(
            f"{lost[0]} is missing, which was made with the store ({len(lost)} such files); "
            f"bring it back, or delete {store.path} to compute all again"
        )


def _lost_fixed(store: Store) -> list[Path]:
    """Return missing files of metadata and coordinates."""
    arrays = {array.name for array in store.arrays}
    with disk_errors(store.path, "read"):
        group = json.loads((store.path / "zarr.json").read_text())
        files = []
        for name, node in group["consolidated_metadata"]["metadata"].items():
            files.append(store.path / name / "zarr.json")
            if name not in arrays:
                dtype = "str" if node["data_type"] == "string" else node["data_type"]
                chunks = node["chunk_grid"]["configuration"]["chunk_shape"]
                files += fixed_files(store.path / name, dtype, node["shape"], chunks)
        return [file for file in files if not file.exists()]


def check_files(store: Store) -> None:
    """Raise where a file of the store itself is missing; what lies beside it is not looked at.

    Raises
    ------
    StoreError
        With the first one.
    """
    check_fixed_files(store)
    there = {}
    for chunk in np.ndindex(*store.grid.chunk_grid(store.header.chunks)):
        status = store.read_status(chunk)
        if status is not None:
            there[chunk] = blocks_begun(store, status)
    check_result_files(store, there)


def blocks_begun(store: Store, status: NDArray[np.int8]) -> list[int]:
    """Return the blocks of a result chunk's candidates of which something is settled."""
    return [block for block, rows in enumerate(store.blocks) if status[:, rows].any()]


def check_result_files(store: Store, there: Mapping[Chunk, Sequence[int]]) -> None:
    """Raise a `StoreError` where a file is missing of what some status says is done.

    Parameters
    ----------
    store : Store
        The store.
    there : mapping of tuple of int to sequence of int
        By result chunk, the blocks of which something is settled.
    """
    lost = _lost_results(store, there)
    if lost:
        file, status = lost[0]
        raise StoreError(
            f"{file} is missing although its status says done ({len(lost)} such files); "
            f"bring it back, or delete {status} to compute that chunk again"
        )


def _lost_results(store: Store, there: Mapping[Chunk, Sequence[int]]) -> list[tuple[Path, Path]]:
    """Return missing files, each with that of its status."""
    lost, status = [], store.arrays[-1]
    for array in store.arrays:
        with disk_errors(store.path / array.name, "read"):
            names = set(os.listdir(store.path / array.name))
        files = (
            (store.chunk_file(array, chunk, block), store.chunk_file(status, chunk, block))
            for chunk, blocks in sorted(there.items())
            for block in (blocks if store.has_rows(array) else blocks[:1])
        )
        lost += [each for each in files if each[0].name not in names]
    return lost
