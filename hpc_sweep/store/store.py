"""The store: one zarr group with natural dimensions."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
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
from hpc_sweep.store.durable import sync, write_durably
from hpc_sweep.store.layout import result_arrays
from hpc_sweep.store.runfolder import RunFolder, real_place, run_folder
from hpc_sweep.strategies import Array, Strategy, restore

ATTRIBUTE = "hpc_sweep"
SCHEMA = 1


@dataclass(frozen=True)
class Header:
    """What a store knows of itself.

    Attributes
    ----------
    id : str
        Random, made with the store; parts carry it.
    spec : dict
        The normalised spec.
    digest : str
        Of what defines the results.
    source : str
        Identity of the source.
    dims, shape, read_chunks, chunks : tuple
        The grid of partitions, the source's chunks, and the result chunks.
    n_splits : int
        Length of ``split``.
    versions : dict
        Versions of Python and the libraries, and the CPU model, as of its making.
    mixed_versions : tuple of str
        Other versions of scikit-learn that some of its results were made with.
    schema : int
        Version of this format.
    """

    id: str
    spec: dict[str, Any]
    digest: str
    source: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    read_chunks: tuple[int, ...]
    chunks: tuple[int, ...]
    n_splits: int
    versions: dict[str, str]
    schema: int = SCHEMA
    mixed_versions: tuple[str, ...] = ()


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
    def open(cls, path: str | Path) -> Store:
        """Open a store.

        Raises
        ------
        StoreError
            When there is none, or something else is at that path.
        """
        place = real_place(path)
        with disk_errors(place, "read"):
            if not place.exists():
                raise StoreError(f"{place} does not exist; `hpc-sweep run SPEC` makes it")
        foreign = StoreError(
            f"{place} is there, but it is no store of hpc_sweep; name another output.store"
        )
        try:
            with disk_errors(place / "zarr.json", "read"):
                attributes = json.loads((place / "zarr.json").read_text())["attributes"]
            header: dict[str, Any] = dict(json.loads(attributes[ATTRIBUTE]))
        except DiskError:
            raise
        except (OSError, ValueError, KeyError, TypeError):
            raise foreign from None
        if header.get("schema") != SCHEMA:
            raise StoreError(
                f"{place} is of schema {header.get('schema')}, this version reads {SCHEMA}; "
                "use the version of hpc_sweep that made it"
            )
        lists: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in header.items()
        }
        try:
            return cls(place, Header(**lists))
        except TypeError:  # keys are missing
            raise foreign from None

    @cached_property
    def spec(self) -> SweepSpec:
        """The spec that the store was made for."""
        return SweepSpec.model_validate(self.header.spec)

    @cached_property
    def strategy(self) -> Strategy:
        """The strategy, with the candidates that the store was made with."""
        return self.made_with or restore(self.spec, self._stored_candidates())

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates along ``candidate``."""
        return self.strategy.candidates

    def _stored_candidates(self) -> list[Candidate]:
        if not (self.path / "candidate").exists():  # they differ per partition
            return []
        texts: list[Any] = []
        for name in ("candidate_json", "candidate_id"):
            place = self.path / name
            try:
                with disk_errors(place, "read"):
                    if not (place / "c.0").exists():
                        raise FileNotFoundError(place / "c.0")
                    texts.append(zarr.open_array(str(place), mode="r")[:])
            except DiskError:
                raise
            except (OSError, ValueError, RuntimeError) as error:
                raise StoreError(
                    f"{place} is missing or damaged, which was made with the store; bring it "
                    f"back, or delete {self.path} to compute all again"
                ) from error
        return restored(self.header.spec["models"], *texts)

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays along partitions, ``status`` last."""
        return result_arrays(self.strategy)

    @property
    def lengths(self) -> dict[str, int]:
        """Dimensions of arrays behind those of partitions, with their lengths."""
        return {**self.strategy.lengths, "split": self.header.n_splits}

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

    def region(self, chunk: Chunk) -> tuple[slice, ...]:
        """Return the slices of a result chunk along the partition dimensions."""
        return tuple(
            slice(i * c, min((i + 1) * c, n))
            for i, c, n in zip(chunk, self.header.chunks, self.header.shape, strict=True)
        )

    def chunk_file(self, array: Array, chunk: Chunk) -> Path:
        """Return the file that holds one result chunk of an array."""
        index = (*chunk, *(0 for _ in array.dims))
        return self.path / array.name / ("c." + ".".join(map(str, index)))

    def write(self, array: Array, chunk: Chunk, values: NDArray[Any]) -> None:
        """Write one result chunk of an array and flush it to the disk.

        Parameters
        ----------
        array : Array
            Which.
        chunk : tuple of int
            Which result chunk.
        values : ndarray, shape (partition dims of the chunk …, array.dims …)
            What to write.
        """
        file = self.chunk_file(array, chunk)
        with disk_errors(file), writing():
            opened = zarr.open_array(str(self.path / array.name), mode="r+")
            opened[self.region(chunk)] = values
            sync(file)
            sync(file.parent)

    def read_status(self, chunk: Chunk) -> NDArray[np.int8] | None:
        """Return ``status`` of a result chunk, or None where it is pending or damaged.

        Returns
        -------
        ndarray of int8, shape (partition dims of the chunk …, n_candidates), or None
        """
        file = self.chunk_file(self.arrays[-1], chunk)
        try:
            with disk_errors(file, "read"):
                if not file.exists():
                    return None
                opened = zarr.open_array(str(self.path / "status"), mode="r")
                status = np.asarray(opened[self.region(chunk)], dtype=np.int8)
        except DiskError:
            raise
        except (ValueError, OSError, RuntimeError):  # a short or damaged file
            return None
        return None if (status == PENDING).any() else status

    def record_version(self, scikit_learn: str) -> None:
        """Record that results were made with that version too."""
        file = self.path / "zarr.json"
        with disk_errors(file, "read"):
            metadata = json.loads(file.read_text())
        header = json.loads(metadata["attributes"][ATTRIBUTE])
        known = header.setdefault("mixed_versions", [])
        if scikit_learn not in (header["versions"].get("scikit-learn"), *known):
            known.append(scikit_learn)
            metadata["attributes"][ATTRIBUTE] = json.dumps(header)
            write_durably(file, json.dumps(metadata, indent=2).encode())

    def remove_leftovers(self) -> None:
        """Remove what a killed writer left: unfinished files, parts of an earlier store."""
        with disk_errors(self.path):
            for folder in (self.path, self.run.path):
                for file in folder.glob(".*.tmp"):
                    if "lease" not in file.name:  # that may be another driver's, just now
                        file.unlink(missing_ok=True)
            for array in self.arrays:
                for file in (self.path / array.name).glob("*.partial"):
                    file.unlink(missing_ok=True)
            for file in self.run.parts.iterdir():
                if not file.name.startswith(self.header.id):
                    file.unlink(missing_ok=True)

    def missing_fixed_files(self) -> list[Path]:
        """Return missing files of those made with the store: metadata, coordinates."""
        arrays = {array.name for array in self.arrays}
        files = []
        with disk_errors(self.path, "read"):
            group = json.loads((self.path / "zarr.json").read_text())
            for name, node in group["consolidated_metadata"]["metadata"].items():
                files.append(self.path / name / "zarr.json")
                if name not in arrays:  # written whole, as one chunk
                    files.append(self.path / name / ".".join(["c", *("0" for _ in node["shape"])]))
            return [file for file in files if not file.exists()]

    def missing_files(self, folded: set[Chunk]) -> list[Path]:
        """Return files that should be there, since their chunk's status says done."""
        missing = []
        for array in self.arrays:
            with disk_errors(self.path / array.name, "read"):
                there = set(os.listdir(self.path / array.name))
            files = (self.chunk_file(array, chunk) for chunk in sorted(folded))
            missing += [file for file in files if file.name not in there]
        return missing


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Context in which zarr writes all chunks, also those that hold only fill values."""
    with zarr.config.set({"array.write_empty_chunks": True, "threading.max_workers": 1}):
        yield
