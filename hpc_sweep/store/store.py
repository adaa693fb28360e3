"""The store: one zarr group with natural dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from hpc_sweep.candidates import (
    Candidate,
    restored,
)
from hpc_sweep.choices import PENDING
from hpc_sweep.errors import DiskError, StoreError, disk_errors
from hpc_sweep.partitions import PartitionGrid
from hpc_sweep.plan import Chunk
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store.durable import sync
from hpc_sweep.store.files import chunk_name, fixed_files, writing
from hpc_sweep.store.foreign import no_store
from hpc_sweep.store.header import MOST_RUNS, Header, changed_header, read_header
from hpc_sweep.store.layout import refit_lengths, result_arrays
from hpc_sweep.store.runfolder import RunFolder, real_place, run_folder
from hpc_sweep.strategies import Array, Strategy, restore


@dataclass(frozen=True)
class Store:
    """A store that exists.

    Attributes
    ----------
    path : Path
        Where.
    header : Header
        What it knows of itself.
    made_with : Strategy or None
        While it is made: what it is made for.
    """

    path: Path
    header: Header
    made_with: Strategy | None = None

    @classmethod
    def open(cls, path: str | Path, instead: str = "") -> Store:
        """Open a store.

        Parameters
        ----------
        path : path
            Where.
        instead : str
            What to do where something else is, in place of what helps whoever wants to read it.

        Raises
        ------
        StoreError
            When there is none, or something else is at that path.
        """
        place = real_place(path)
        with disk_errors(place, "read"):
            if not place.exists():
                raise StoreError(f"{place} does not exist; `hpc-sweep run SPEC` makes it")
            header = None if place.is_file() else read_header(place)
        if header is None:
            raise no_store(place, instead)
        return cls(place, header)

    @cached_property
    def spec(self) -> SweepSpec:
        """The spec that the store was made for."""
        return SweepSpec.model_validate(self.header.spec)

    @cached_property
    def strategy(self) -> Strategy:
        """The strategy, with the candidates that the store was made with."""
        return self.made_with or restore(self.spec, self._stored_candidates(), self.header.dropped)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates along ``candidate``."""
        return self.strategy.candidates

    def _stored_candidates(self) -> list[Candidate]:
        if not (self.path / "candidate").exists():  # they differ per partition
            return []
        known: list[Any] = []
        for name in ("candidate_json", "candidate_id"):
            place = self.path / name
            try:
                with disk_errors(place, "read"):
                    array: Any = self.group[name]
                    for file in fixed_files(place, "str", array.shape, array.chunks):
                        if not file.exists():
                            raise FileNotFoundError(file)
                    known.append(array[:])
            except DiskError:
                raise
            except (OSError, ValueError, RuntimeError) as error:
                raise StoreError(
                    f"{place} is missing or damaged, which was made with the store; bring it "
                    f"back, or delete {self.path} to compute all again"
                ) from error
        texts, ids = known
        return restored(self.header.spec["models"], texts, ids)

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays along partitions, ``status`` last."""
        return result_arrays(self.strategy)

    @property
    def lengths(self) -> dict[str, int]:
        """Dimensions of arrays behind those of partitions, with their lengths."""
        lengths = {**self.strategy.lengths, "split": self.header.n_splits}
        return {**lengths, **refit_lengths(self.spec)}

    @cached_property
    def group(self) -> zarr.Group:
        """The zarr group, by the metadata that all readers see: those of the group itself."""
        with disk_errors(self.path, "read"):
            return zarr.open_group(str(self.path), mode="r+")

    @property
    def holds_out(self) -> bool:
        """Whether samples are held out, on which the best candidates are scored."""
        return self.spec.data.holdout is not None

    @property
    def blocks(self) -> list[slice]:
        """The rows of each chunk along the candidates."""
        count, size = self.strategy.n_rows, self.header.block
        return [slice(first, min(first + size, count)) for first in range(0, count, size)]

    @cached_property
    def run(self) -> RunFolder:
        """The run folder beside the store."""
        return run_folder(self.path)

    @property
    def grid(self) -> PartitionGrid:
        """The partitions."""
        return PartitionGrid(self.header.dims, self.header.shape, self.header.read_chunks)

    def dataset(self) -> xr.Dataset:
        """Open the results with xarray, lazily."""
        opened: xr.Dataset = xr.open_zarr(self.path, chunks=None)
        return opened

    def split_names(self) -> NDArray[Any]:
        """Return the groups that splits are named after, sorted; texts are Python's."""
        names = self.dataset()["split"].values
        return names.astype(object) if names.dtype.kind in "UT" else names

    def region(self, chunk: Chunk) -> tuple[slice, ...]:
        """Return the slices of a result chunk along the partition dimensions."""
        return tuple(
            slice(i * c, min((i + 1) * c, n))
            for i, c, n in zip(chunk, self.header.chunks, self.header.shape, strict=True)
        )

    def n_partitions(self, chunk: Chunk) -> int:
        """Return how many partitions a result chunk has."""
        return math.prod(self.grid.chunk_shape(self.header.chunks, chunk))

    def has_rows(self, array: Array) -> bool:
        """Return whether an array runs along the candidates."""
        return self.strategy.dim in array.dims

    def chunk_file(self, array: Array, chunk: Chunk, block: int = 0) -> Path:
        """Return the file that holds one chunk of an array.

        Parameters
        ----------
        array : Array
            Which.
        chunk : tuple of int
            Which result chunk.
        block : int
            Which of `blocks`; of arrays without candidates there is the first one only.
        """
        index = (*chunk, *((block, *(0 for _ in array.dims))[: len(array.dims)]))
        return self.path / array.name / chunk_name(array.dtype, index)

    def write(self, array: Array, chunk: Chunk, values: NDArray[Any], block: int = 0) -> None:
        """Write one chunk of an array and flush it to the disk.

        Parameters
        ----------
        array : Array
            Which.
        chunk : tuple of int
            Which result chunk.
        values : ndarray, shape (partition dims of the chunk …, array.dims …)
            What to write.
        block : int
            Which of `blocks` it is, of arrays along the candidates.
        """
        file = self.chunk_file(array, chunk, block)
        with disk_errors(file), writing():
            self._array(array)[self._place(array, chunk, block)] = values
            sync(file)
            sync(file.parent)

    def read(self, array: Array, chunk: Chunk, block: int = 0) -> NDArray[Any]:
        """Return what `write` has written.

        Raises
        ------
        StoreError
            When the file is missing or damaged.
        """
        file = self.chunk_file(array, chunk, block)
        dtype = object if array.dtype == "str" else array.dtype
        try:
            with disk_errors(file, "read"):
                file.stat()
                return np.array(self._array(array)[self._place(array, chunk, block)], dtype=dtype)
        except DiskError:
            raise
        except (ValueError, OSError, RuntimeError) as error:
            status = self.chunk_file(self.arrays[-1], chunk, block)
            raise StoreError(
                f"{file} is missing or damaged although its status says done; bring it back, or "
                f"delete {status} to compute that chunk again"
            ) from error

    def _array(self, array: Array) -> Any:
        return self.group[array.name]

    def _place(self, array: Array, chunk: Chunk, block: int) -> tuple[slice, ...]:
        return (*self.region(chunk), *([self.blocks[block]] if self.has_rows(array) else []))

    def read_status(self, chunk: Chunk) -> NDArray[np.int8] | None:
        """Return ``status`` of a result chunk; None where nothing of it is settled.

        Blocks that are absent or damaged are pending.

        Returns
        -------
        ndarray of int8, shape (n_partitions, n_rows), or None
            In reading order.
        """
        found = []
        for block, rows in enumerate(self.blocks):
            status = self._read_status(chunk, block)
            shape = (*self.grid.chunk_shape(self.header.chunks, chunk), rows.stop - rows.start)
            found.append(np.full(shape, PENDING, dtype=np.int8) if status is None else status)
        status = self.gather(chunk, np.concatenate(found, axis=-1))
        return status if (status != PENDING).any() else None

    def _read_status(self, chunk: Chunk, block: int) -> NDArray[np.int8] | None:
        try:
            return self.read(self.arrays[-1], chunk, block)
        except StoreError:
            return None

    def read_revision(self, chunk: Chunk) -> int:
        """Return the revision that ranks and best candidates of a result chunk are of; −1: none."""
        (array,) = (array for array in self.arrays if array.name == "revision")
        try:
            return int(self.read(array, chunk).flat[0])
        except StoreError:
            return -1

    def settled(self, status: NDArray[np.int8]) -> NDArray[np.bool_]:
        """Return which columns need no more work, by the status of each row.

        Parameters
        ----------
        status : ndarray of int8, shape (n_partitions, n_rows)

        Returns
        -------
        ndarray of bool, shape (n_partitions, n_columns)
            True also for candidates that are not in the spec any more.
        """
        cells = np.asarray((status != PENDING) | ~self.strategy.in_spec)
        return cells if self.strategy.is_parted else np.asarray(cells.all(axis=1, keepdims=True))

    def gather(self, chunk: Chunk, values: NDArray[Any]) -> NDArray[Any]:
        """Return values of a result chunk with its partitions in reading order.

        Parameters
        ----------
        chunk : tuple of int
            Which result chunk.
        values : ndarray, shape (partition dims of the chunk …, …)
            As an array has them.

        Returns
        -------
        ndarray, shape (n_partitions, …)
        """
        flat = self._positions(chunk)
        return values.reshape(len(flat), *values.shape[len(self.header.dims) :])[flat]

    def scatter(self, chunk: Chunk, values: NDArray[Any]) -> NDArray[Any]:
        """Return values in reading order as an array has them: the inverse of `gather`."""
        scattered = np.empty_like(values)
        scattered[self._positions(chunk)] = values
        shape = self.grid.chunk_shape(self.header.chunks, chunk)
        return scattered.reshape(shape + values.shape[1:])

    def positions(self, chunk: Chunk, partitions: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return where partitions of a result chunk, shape (n, n_dims), are in reading order."""
        shape = self.grid.chunk_shape(self.header.chunks, chunk)
        start = np.array([part.start for part in self.region(chunk)], dtype=np.intp)
        order = self._positions(chunk)
        places = np.empty(len(order), dtype=np.intp)
        places[order] = np.arange(len(order))
        flat = np.ravel_multi_index(tuple((partitions - start).T), shape)
        return np.asarray(places[np.broadcast_to(flat, len(partitions))])

    def _positions(self, chunk: Chunk) -> NDArray[np.intp]:
        """Return the place of each partition in the chunk, in reading order."""
        shape = self.grid.chunk_shape(self.header.chunks, chunk)
        order = self.grid.reading_order(self.header.chunks, chunk)
        start = np.array([part.start for part in self.region(chunk)])
        return np.atleast_1d(np.ravel_multi_index(tuple((order - start).T), shape))

    def record_version(self, scikit_learn: str) -> None:
        """Record that results were made with that version too."""
        with changed_header(self.path) as header:
            known = header.setdefault("mixed_versions", [])
            if scikit_learn not in (header["versions"].get("scikit-learn"), *known):
                known.append(scikit_learn)

    def record_spec(self, spec: SweepSpec) -> None:
        """Record what a spec may have changed between two runs: all but models and search."""
        later = spec.model_dump(mode="json", include={"name", "data", "cluster", "output"})
        with changed_header(self.path) as header:
            header["spec"].update(later)

    def record_features(self, features: Mapping[str, Any]) -> None:
        """Record what the variables are that features are made of, by name."""
        with changed_header(self.path) as header:
            header["features"] = dict(features)

    def record_run(self, facts: dict[str, Any]) -> None:
        """Record what is known of a run; facts with the same ``began`` are replaced."""
        with changed_header(self.path) as header:
            others = [run for run in header.get("runs", []) if run["began"] != facts["began"]]
            header["runs"] = [*others, facts][-MOST_RUNS:]

    def leftovers(self) -> list[Path]:
        """Return what a killed writer left: unfinished files, parts of an earlier store."""
        with disk_errors(self.path, "read"):
            arrays = [folder for folder in self.path.iterdir() if folder.is_dir()]
            models = self.path.with_name(f"{self.path.name}.models")
            found = [
                file
                for folder in (self.path, self.run.path, models, *arrays)
                for file in (*folder.glob(".*.tmp"), *folder.glob("*.partial"))
                if "lease" not in file.name  # that may be another driver's, just now
            ]
            parts = self.run.parts.iterdir() if self.run.parts.is_dir() else ()
            return [*found, *(part for part in parts if not part.name.startswith(self.header.id))]

    def remove_leftovers(self) -> None:
        """Remove what a killed writer left."""
        with disk_errors(self.path):
            for file in self.leftovers():
                file.unlink(missing_ok=True)
