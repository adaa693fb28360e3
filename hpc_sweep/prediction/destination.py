"""Where predictions go: a zarr store whose chunks are written once each, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from hpc_sweep.choices import STATUS_MEANINGS
from hpc_sweep.errors import DiskError, StoreError, disk_errors
from hpc_sweep.prediction.cutting import Cutting
from hpc_sweep.prediction.outputs import CLASS, Output, Outputs
from hpc_sweep.store import (
    chunk_name,
    consolidate,
    coordinate_arrays,
    create_array,
    made_whole,
    real_place,
    sync,
    write_durably,
    write_fixed,
    writing,
)

ATTRIBUTE = "hpc_sweep_prediction"
SCHEMA = 1

MEANINGS = (*STATUS_MEANINGS, "unknown", "not_predicted")
"""What ``status`` of a partition means: of its model in the sweep's store, or of its prediction."""

UNKNOWN, NOT_PREDICTED = len(STATUS_MEANINGS), len(STATUS_MEANINGS) + 1


@dataclass(frozen=True)
class Job:
    """What decides predictions: which models, of which data, what of it.

    Attributes
    ----------
    store : str
        Id of the sweep's store.
    models : str
        Digest of its best candidates.
    data : str
        Identity of the data.
    split : str
        Which samples.
    proba : bool
        Whether probabilities.
    """

    store: str
    models: str
    data: str
    split: str
    proba: bool


@dataclass(frozen=True)
class Header:
    """What a store of predictions knows of itself.

    Attributes
    ----------
    id : str
        Random, made with it.
    job : Job
        What it is for.
    steps : tuple of int
        Of its chunks.
    versions : dict
        Of Python and the libraries.
    schema : int
        Version of this format.
    """

    id: str
    job: Job
    steps: tuple[int, ...]
    versions: Mapping[str, str]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Destination:
    """A store of predictions.

    Attributes
    ----------
    path : Path
        Where.
    header : Header
        What it knows of itself.
    """

    path: Path
    header: Header

    @classmethod
    def find(cls, path: str | Path) -> Destination | None:
        """Open one; None where nothing is.

        Raises
        ------
        StoreError
            When something else is there.
        """
        place = real_place(path)
        with disk_errors(place, "read"):
            if not place.exists() or (place.is_dir() and not any(place.iterdir())):
                return None
        foreign = StoreError(f"{place} is there, and is no prediction of hpc_sweep; name another")
        try:
            with disk_errors(place / "zarr.json", "read"):
                found = json.loads((place / "zarr.json").read_text())["attributes"][ATTRIBUTE]
            header = json.loads(found)
            if header["schema"] != SCHEMA:
                raise StoreError(
                    f"{place} is a prediction of schema {header['schema']}, this version makes "
                    f"{SCHEMA}; use the version of hpc_sweep that began it, or name another"
                )
            job = Job(**header.pop("job"))
            return cls(place, Header(**{**header, "job": job, "steps": tuple(header["steps"])}))
        except (DiskError, StoreError):
            raise
        except (OSError, ValueError, KeyError, TypeError):
            raise foreign from None

    def check(self, job: Job) -> None:
        """Refuse to mix the predictions of two jobs.

        Raises
        ------
        StoreError
            With what differs.
        """
        mine, theirs = dataclasses.asdict(self.header.job), dataclasses.asdict(job)
        words = {
            "store": "of another sweep's store",
            "models": "of other best models: the sweep's store has changed since",
            "data": "of other data, or its coordinates or attributes have changed",
            "split": f"of --split {mine['split']}, not {theirs['split']}",
            "proba": "of probabilities" if mine["proba"] else "not of probabilities (--proba)",
        }
        differ = [words[key] for key in mine if mine[key] != theirs[key]]
        if differ:
            raise StoreError(
                f"{self.path} has predictions already, and they are {'; '.join(differ)}. Name "
                "another place for these, or delete it"
            )

    @cached_property
    def group(self) -> zarr.Group:
        """The zarr group."""
        with disk_errors(self.path, "read"):
            return zarr.open_group(str(self.path), mode="r+")

    def dataset(self) -> xr.Dataset:
        """Open the predictions with xarray, lazily."""
        opened: xr.Dataset = xr.open_zarr(self.path, chunks=None)
        return opened

    def file(self, output: Output, index: tuple[int, ...], more: int) -> Path:
        """Return the file of a chunk, of an array with so many dimensions more."""
        return self.path / output.name / chunk_name(output.dtype, (*index, *(0,) * more))

    def open_boxes(self, cutting: Cutting, outputs: Outputs) -> list[int]:
        """Return the boxes that are not there whole, by number."""
        there = []
        for output in outputs.arrays:
            folder = self.path / output.name
            with disk_errors(folder, "read"), os.scandir(folder) as found:
                # a power cut may leave a file that is empty
                there.append({entry.name for entry in found if entry.stat().st_size})
        extra = (0,) * len(outputs.more)
        return [
            number
            for number, index in cutting.numbers()
            if not all(
                chunk_name(output.dtype, (*index, *extra)) in names
                for output, names in zip(outputs.arrays, there, strict=True)
            )
        ]

    def write(
        self, cutting: Cutting, number: int, outputs: Outputs, values: list[NDArray[Any]]
    ) -> None:
        """Write a box, array by array, each flushed to the disk."""
        window = tuple(cutting.window(number).values())
        more = tuple(slice(0, n) for n in outputs.more)
        for output, array in zip(outputs.arrays, values, strict=True):
            file = self.file(output, cutting.index(number), len(more))
            with disk_errors(file), writing():
                target: Any = self.group[output.name]
                target[(*window, *more)] = array
                sync(file)
                sync(file.parent)

    def note_failures(self, folder: Path, number: int, failures: Mapping[str, str]) -> None:
        """Keep which partitions could not be predicted in a box, and why."""
        content = json.dumps(dict(failures)).encode()
        write_durably(folder / f"{self.header.id}-failed-{number}.json", content)

    def failures(self, folder: Path) -> dict[tuple[int, ...], str]:
        """Return which partitions could not be predicted somewhere, and why."""
        found: dict[tuple[int, ...], str] = {}
        with disk_errors(folder, "read"):
            for file in sorted(folder.glob(f"{self.header.id}-failed-*.json")):
                for key, text in json.loads(file.read_text()).items():
                    found[tuple(int(each) for each in key.split(".") if each)] = text
        return found

    def has_status(self, status: NDArray[np.int8]) -> bool:
        """Return whether that is the status of all partitions."""
        with disk_errors(self.path, "read"):
            return bool(np.array_equal(self.dataset()["status"].values, status))

    def write_status(self, status: NDArray[np.int8]) -> None:
        """Write the status of all partitions."""
        with disk_errors(self.path), writing():
            array: Any = self.group["status"]
            array[...] = status

    def remove_leftovers(self, folder: Path) -> None:
        """Remove what killed writers left, and notes of what was here before."""
        with disk_errors(self.path):
            for file in (*self.path.glob("*/*.partial"), *folder.glob(".*.tmp")):
                file.unlink(missing_ok=True)
            for file in folder.glob("*-failed-*.json"):
                if not file.name.startswith(self.header.id):
                    file.unlink(missing_ok=True)


def create_destination(
    path: str | Path,
    job: Job,
    cutting: Cutting,
    outputs: Outputs,
    coordinates: xr.Dataset,
    status: xr.DataArray,
    *,
    versions: Mapping[str, str],
    title: str,
    group: int | None = None,
) -> Destination:
    """Create a store of predictions with all its metadata, or nothing.

    Parameters
    ----------
    path : path
        Where; an empty folder may be there.
    job : Job
        What it is for.
    cutting : Cutting
        Says its chunks.
    outputs : Outputs
        Its arrays.
    coordinates : xarray.Dataset
        The data's own.
    status : xarray.DataArray
        Of each partition.
    versions : mapping
        To record.
    title : str
        Of the whole.
    group : int, optional
        Whom it is shared with.
    """
    header = Header(secrets.token_hex(8), job, cutting.steps, dict(versions))
    place = real_place(path)
    with made_whole(place, header.id, group) as temporary:
        attributes = {
            "Conventions": "CF-1.11",
            "title": title,
            ATTRIBUTE: json.dumps(dataclasses.asdict(header)),
        }
        made = zarr.create_group(temporary, zarr_format=3, attributes=attributes)
        for output in outputs.arrays:
            attached = _attached(coordinates, cutting.dims)
            array = create_array(
                made,
                output.name,
                (*cutting.dims, *([CLASS] if outputs.classes is not None else [])),
                (*cutting.lengths, *outputs.more),
                (*cutting.steps, *outputs.more),
                output.dtype,
                output.fill,
                {**output.attributes, **attached},
            )
            if output.dtype.startswith("int"):  # else xarray takes it for a number like others
                array.update_attributes({"_FillValue": int(output.fill)})
        for fixed in _fixed(coordinates, outputs, status):
            write_fixed(made, fixed, {})
        consolidate(made)
    return Destination(place, header)


def _attached(coordinates: xr.Dataset, dims: tuple[str, ...]) -> dict[str, str]:
    """Return the CF ``coordinates`` attribute of a prediction, if it has any."""
    names = [
        str(name)
        for name, array in coordinates.coords.items()
        if name not in coordinates.dims and {*array.dims} <= {*dims}
    ]
    return {"coordinates": " ".join(names)} if names else {}


def _fixed(coordinates: xr.Dataset, outputs: Outputs, status: xr.DataArray) -> Iterator[Any]:
    """Yield the arrays that are written once."""
    yield from coordinate_arrays(coordinates)
    labels = status.coords.to_dataset()
    known = [name for name in labels.variables if name in coordinates.variables]
    yield from coordinate_arrays(labels.drop_vars(known))
    if outputs.classes is not None:
        text = any(isinstance(each, str) for each in outputs.classes)
        classes = np.array(outputs.classes, dtype=object if text else None)
        if classes.dtype.kind == "b":
            classes = classes.astype(np.int8)
        yield CLASS, (CLASS,), classes, {"long_name": "class, as the models know it"}
    attributes = {
        "long_name": "status of the partition's model, or of its prediction",
        "flag_values": list(range(len(MEANINGS))),
        "flag_meanings": " ".join(MEANINGS),
    }
    yield "status", tuple(map(str, status.dims)), status.values.astype(np.int8), attributes
