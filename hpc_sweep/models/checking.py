"""Whether all files of models beside a store are whole."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.errors import StoreError
from hpc_sweep.models.labels import coordinates_of
from hpc_sweep.partitions import describe, partition_labels
from hpc_sweep.store import ModelFiles, Store, all_chunks


@dataclass(frozen=True)
class ModelFault:
    """What is wrong with a file of models.

    Attributes
    ----------
    file, fault, remedy : str
        Where, what, and what mends it.
    """

    file: str
    fault: str
    remedy: str


@dataclass
class CheckedModels:
    """What was found in the files of models of a store.

    Attributes
    ----------
    n_files, n_models, n_bytes : int
        How many are there and whole.
    faults : list of ModelFault
        What is missing or damaged.
    n_unstored : int
        Best models that could not be fitted or stored; ``refit_message`` says why.
    """

    n_files: int = 0
    n_models: int = 0
    n_bytes: int = 0
    faults: list[ModelFault] = field(default_factory=list)
    n_unstored: int = 0


def check_models(store: Store, wanted: NDArray[np.bool_] | None = None) -> CheckedModels:
    """Read files of models of a store, and compare every checksum; nothing is loaded.

    Result chunks that are not finished are passed over.

    Parameters
    ----------
    store : Store
        The store.
    wanted : ndarray of bool, shape of the partitions, optional
        Only the files that have models of these partitions.

    Raises
    ------
    DiskError
        When the disk refuses.
    """
    found, files = CheckedModels(), ModelFiles.of(store)
    if files is None:
        return found
    (best,) = (array for array in store.arrays if array.name == "best_index")
    coordinates = coordinates_of(store)
    for chunk in all_chunks(store):
        if wanted is not None and not wanted[store.region(chunk)].any():
            continue
        status = store.read_status(chunk)
        if status is None or not store.settled(status).all():
            continue
        try:
            index = store.gather(chunk, store.read(best, chunk))
        except StoreError:  # that is no fault of models
            continue
        path, remedy = str(files.path(chunk)), files.remedy(chunk)
        try:
            file = files.open(chunk)
        except StoreError as error:
            words = str(error).removeprefix(f"{path} ").removesuffix(f"; {remedy}")
            found.faults.append(ModelFault(path, words, remedy))
            continue
        order = store.grid.reading_order(store.header.chunks, chunk)
        damaged = set(file.damaged())
        other = set(np.flatnonzero((file.candidates() != index) & (index >= 0)).tolist())
        for position in sorted(damaged | other):
            labels = partition_labels(coordinates, store.header.dims, order[position])
            what = "is damaged" if position in damaged else "is of another candidate, or missing"
            words = f"has a fault: the model of {describe(labels)} {what}"
            found.faults.append(ModelFault(path, words, remedy))
        has_model = index >= 0
        empty = (file.index[:, 1] == 0) & has_model
        found.n_files += 1
        found.n_unstored += int(empty.sum())
        found.n_models += int(has_model.sum()) - int(empty.sum()) - len(damaged)
        found.n_bytes += file.path.stat().st_size
    return found
