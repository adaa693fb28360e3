"""What a store of predictions is, and what of it is there, for whoever looks at it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from hpc_sweep.choices import STATUS_MEANINGS
from hpc_sweep.errors import DiskError, StoreError, disk_errors
from hpc_sweep.store.header import read_facts
from hpc_sweep.store.runfolder import is_free, real_place

ATTRIBUTE = "hpc_sweep_prediction"
SCHEMA = 2

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
class PredictionHeader:
    """What a store of predictions knows of itself.

    Attributes
    ----------
    id : str
        Random, made with it.
    job : Job
        What it is for.
    name : str
        Of the sweep.
    sweep : str
        Where the sweep's store was.
    arrays : tuple of str
        Those that are predicted.
    lengths, steps : tuple of int
        Of their first dimensions, and of the boxes along these, each of which is one chunk.
    versions : dict
        Of Python and the libraries.
    schema : int
        Version of this format.
    """

    id: str
    job: Job
    name: str
    sweep: str
    arrays: tuple[str, ...]
    lengths: tuple[int, ...]
    steps: tuple[int, ...]
    versions: Mapping[str, str]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Predictions:
    """A store of predictions.

    Attributes
    ----------
    path : Path
        Where.
    header : PredictionHeader
        What it knows of itself.
    """

    path: Path
    header: PredictionHeader

    @classmethod
    def find(cls, path: str | Path) -> Self | None:
        """Open one; None where there is nothing, or something else.

        Raises
        ------
        StoreError
            When it is damaged, or of another schema.
        """
        place = real_place(path)
        if is_free(place) or not place.is_dir():
            return None
        header = _read_header(place)
        return None if header is None else cls(place, header)

    @cached_property
    def group(self) -> zarr.Group:
        """The zarr group."""
        with disk_errors(self.path, "read"):
            return zarr.open_group(str(self.path), mode="r+")

    def dataset(self) -> xr.Dataset:
        """Open the predictions with xarray, lazily."""
        opened: xr.Dataset = xr.open_zarr(self.path, chunks=None)
        return opened

    def status(self) -> NDArray[np.int8]:
        """Return the status of all partitions.

        Raises
        ------
        StoreError
            When it is missing or damaged.
        """
        try:
            with disk_errors(self.path, "read"):
                array: Any = self.group["status"]
                return np.asarray(array[...])
        except DiskError:
            raise
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise StoreError(
                f"{self.path / 'status'} is missing or damaged ({error}); hpc-sweep verify "
                f"{self.path} tells what mends it"
            ) from error

    @property
    def n_samples(self) -> int:
        """How many numbers each array has, or has probabilities of."""
        return math.prod(self.header.lengths)

    @property
    def n_boxes(self) -> int:
        """How many boxes there are to be."""
        return math.prod(self.box_counts)

    @property
    def box_counts(self) -> tuple[int, ...]:
        """How many there are to be along each dimension."""
        lengths, steps = self.header.lengths, self.header.steps
        return tuple(-(-n // step) for n, step in zip(lengths, steps, strict=True))

    def boxes_there(self) -> set[tuple[int, ...]]:
        """Return the indices of the boxes of which each array has its chunk."""
        n_dims, there = len(self.header.steps), []
        for name in self.header.arrays:
            folder = self.path / name
            with disk_errors(folder, "read"), os.scandir(folder) as found:
                # a power cut may leave a file that is empty
                indices = (_index(entry.name) for entry in found if entry.stat().st_size)
                there.append({index[:n_dims] for index in indices if index is not None})
        return set[tuple[int, ...]].intersection(*there)

    def failures(self, folder: Path) -> dict[tuple[int, ...], str]:
        """Return which partitions could not be predicted somewhere, and why, by notes in a folder.

        Those that are noted are of a target, too, where each has a model of its own.
        """
        found: dict[tuple[int, ...], str] = {}
        for note in self.notes(folder).values():
            found |= read_note(note)
        return found

    def note(self, folder: Path, index: tuple[int, ...]) -> Path:
        """Return the file for the notes of a box."""
        return folder / f"{self.header.id}-failed-{'.'.join(map(str, index))}.json"

    def notes(self, folder: Path) -> dict[tuple[int, ...], Path]:
        """Return the notes of boxes that there are in a folder."""
        if not folder.is_dir():
            return {}
        start = f"{self.header.id}-failed-"
        with disk_errors(folder, "read"):
            names = sorted(folder.glob(f"{start}*.json"))
        indices = {name: _index(name.stem.removeprefix(start)) for name in names}
        return {index: name for name, index in indices.items() if index is not None}

    def leftovers(self, folder: Path) -> list[Path]:
        """Return what killed writers left, and notes of what was here before."""
        with disk_errors(self.path, "read"):
            return [
                *self.path.glob("*/*.partial"),
                *folder.glob(".*.tmp"),
                *(
                    note
                    for note in folder.glob("*-failed-*.json")
                    if not note.name.startswith(self.header.id)
                ),
            ]


def read_note(file: Path) -> dict[tuple[int, ...], str]:
    """Return which partitions could not be predicted in a box, and why.

    Raises
    ------
    StoreError
        When it is damaged.
    """
    try:
        with disk_errors(file, "read"):
            known = json.loads(file.read_text())
        return {
            tuple(int(each) for each in key.split(".") if each): str(text)
            for key, text in known.items()
        }
    except (ValueError, AttributeError):
        raise StoreError(f"{file} is damaged; hpc-sweep verify tells what mends it") from None


def _read_header(place: Path) -> PredictionHeader | None:
    """Return what predictions know of themselves; None where something else is."""
    facts = read_facts(place, ATTRIBUTE)
    if facts is None:
        return None
    if facts.get("schema") != SCHEMA:
        raise StoreError(
            f"{place} is a prediction of schema {facts.get('schema')}, this version makes "
            f"{SCHEMA}; use the version of hpc_sweep that began it, or name another"
        )
    try:
        job = Job(**facts.pop("job"))
        lists: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()
        }
        return PredictionHeader(job=job, **lists)
    except (KeyError, TypeError):
        return None


def _index(name: str) -> tuple[int, ...] | None:
    """Return which chunk a file is, as `chunk_name` names them; None where it is none."""
    words = name.removeprefix("c.").split(".")
    return tuple(map(int, words)) if all(map(str.isdecimal, words)) else None
