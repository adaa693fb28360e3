"""Where predictions go: a zarr store whose chunks are written once each, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from hpc_sweep.errors import StoreError, disk_errors
from hpc_sweep.prediction.cutting import Cutting
from hpc_sweep.prediction.outputs import CLASS, Output, Outputs
from hpc_sweep.store import (
    MEANINGS,
    Job,
    PredictionHeader,
    Predictions,
    Store,
    chunk_name,
    consolidate,
    coordinate_arrays,
    create_array,
    is_free,
    made_whole,
    packed,
    real_place,
    sync,
    what_is,
    write_durably,
    write_fixed,
    writing,
)
from hpc_sweep.store.predictions import ATTRIBUTE


class Destination(Predictions):
    """A store of predictions that are made or gone on with."""

    @classmethod
    def there(cls, path: str | Path) -> Destination | None:
        """Open one; None where nothing is.

        Raises
        ------
        StoreError
            When something else is there, or predictions of another schema.
        """
        found = cls.find(path)
        place = real_place(path)
        if found is None and not is_free(place):
            what, _ = what_is(place)
            raise StoreError(
                f"{place} is there, and is no prediction of hpc_sweep: it {what}; name another OUT"
            )
        return found

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

    def file(self, output: Output, index: tuple[int, ...], more: int) -> Path:
        """Return the file of a chunk, of an array with so many dimensions more."""
        return self.path / output.name / chunk_name(output.dtype, (*index, *(0,) * more))

    def open_boxes(self, cutting: Cutting) -> list[int]:
        """Return the boxes that are not there whole, by number."""
        there = self.boxes_there()
        return [number for number, index in cutting.numbers() if index not in there]

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

    def note_failures(
        self, folder: Path, index: tuple[int, ...], failures: Mapping[str, str]
    ) -> None:
        """Keep which partitions could not be predicted in a box, and why, in place of before."""
        note = self.note(folder, index)
        if failures:
            write_durably(note, json.dumps(dict(failures)).encode())
        else:
            with disk_errors(note):
                note.unlink(missing_ok=True)

    def has_status(self, status: NDArray[np.int8]) -> bool:
        """Return whether that is the status of all partitions; what is damaged is not."""
        try:
            return bool(np.array_equal(self.status(), status))
        except StoreError:
            return False

    def write_status(self, status: NDArray[np.int8]) -> None:
        """Write the status of all partitions."""
        with disk_errors(self.path), writing():
            array: Any = self.group["status"]
            array[...] = status

    def remove_leftovers(self, folder: Path) -> None:
        """Remove what killed writers left, and notes of what was here before."""
        with disk_errors(self.path):
            for file in self.leftovers(folder):
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
    sweep: Store,
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
    sweep : Store
        Has the models.
    group : int, optional
        Whom it is shared with.
    """
    name, arrays = sweep.spec.name, tuple(output.name for output in outputs.arrays)
    header = PredictionHeader(
        secrets.token_hex(8),
        job,
        name,
        str(sweep.path),
        arrays,
        cutting.lengths,
        cutting.steps,
        dict(versions),
    )
    place, kind = real_place(path), "probabilities" if job.proba else "predictions"
    with made_whole(place, header.id, group) as temporary:
        attributes = {
            "Conventions": "CF-1.11",
            "title": f"{kind} by the best models of {name}",
            ATTRIBUTE: packed(dataclasses.asdict(header)),
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
