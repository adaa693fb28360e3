"""Builders of small stores, of parts with invented numbers, and of small disks."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from hpc_sweep.choices import DONE
from hpc_sweep.partitions import PartitionGrid
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.spec import SweepSpec, load_spec
from hpc_sweep.store import Part, PartName, Store, create_store, write_part
from hpc_sweep.strategies import draw


def one_map_a_chunk(data: Path, path: Path) -> Path:
    """Write the data of `conftest.data` anew, one map in each chunk."""
    made = xr.open_zarr(data, chunks=None, consolidated=False).load().drop_encoding()
    made = made.transpose("time", "latitude", "longitude")
    encoding = {
        name: {"chunks": tuple(1 if dim == "time" else n for dim, n in array.sizes.items())}
        for name, array in made.items()
        if array.ndim == 3
    }
    made.to_zarr(path, zarr_format=3, encoding=encoding, consolidated=False)
    return path


RIDGE = {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [0.1, 1, 10]}}
NEIGHBORS = {
    "estimator": "sklearn.neighbors.KNeighborsRegressor",
    "param_grid": {"n_neighbors": [3], "weights": ["uniform", "distance"]},
}
Scores = NDArray[np.float64]
DIMS = ("latitude", "longitude", "season")


def make_spec(
    folder: Path,
    models: Sequence[Mapping[str, Any]] = (RIDGE,),
    dims: Sequence[str] = DIMS[:2],
    **search: Any,
) -> SweepSpec:
    """Return a spec whose data does not exist: nothing here reads it."""
    raw = {
        "name": "tiny",
        "data": {
            "store": str(folder / "data.zarr"),
            "features": ["a", "b"],
            "target": "t",
            "partition_by": list(dims),
        },
        "models": [dict(model) for model in models],
        "search": {"cv": 3, "scoring": "r2", "seed": 3, **search},
        "output": {"store": str(folder / "results.zarr"), "models": "none"},
    }
    return load_spec(raw)


def make_store(
    folder: Path,
    shape: tuple[int, ...] = (3, 4),
    chunks: tuple[int, ...] = (2, 3),
    read_chunks: tuple[int, ...] | None = None,
    *,
    n_splits: int = 3,
    coordinates: xr.Dataset | None = None,
    models: Sequence[Mapping[str, Any]] = (RIDGE,),
    **search: Any,
) -> Store:
    """Create a store with its run folder."""
    dims = DIMS[: len(shape)]
    spec = make_spec(folder, models, dims, **search)
    store = create_store(
        folder / "results.zarr",
        draw(spec),
        PartitionGrid(dims, shape, read_chunks or chunks),
        chunks,
        n_splits,
        xr.Dataset() if coordinates is None else coordinates,
        source_identity="invented",
        versions={"python": "3"},
    )
    store.run.make()
    return store


@dataclass(frozen=True)
class Truth:
    """What all units of a store would find; arrays run along the whole grid."""

    scores: dict[str, NDArray[np.float64]]
    fit_time: NDArray[np.float32]
    score_time: NDArray[np.float32]
    status: NDArray[np.int8]
    message: NDArray[Any]
    n_samples: NDArray[np.int64]
    n_splits: NDArray[np.int64]


def invent(store: Store, seed: int = 0) -> Truth:
    """Invent results: everything done, all splits there, a message in the first cell."""
    rng = np.random.default_rng(seed)
    cells = (*store.header.shape, len(store.candidates))
    fits = (*cells, store.header.n_splits)
    message = np.full(cells, "", dtype=object)
    message.flat[0] = "ConvergenceWarning: größer als 1 → stopped"
    return Truth(
        {metric: rng.normal(size=fits) for metric in store.spec.metrics},
        rng.random(fits).astype("float32"),
        rng.random(fits).astype("float32"),
        np.full(cells, DONE, dtype=np.int8),
        message,
        rng.integers(10, 99, store.header.shape),
        np.full(store.header.shape, store.header.n_splits),
    )


def positions(store: Store, chunk: Chunk) -> list[tuple[int, ...]]:
    """Return the partitions of a chunk in reading order, computed in the plainest way."""
    header = store.header
    ranges = [
        range(index * width, min((index + 1) * width, length))
        for index, width, length in zip(chunk, header.chunks, header.shape, strict=True)
    ]

    def source_chunk_then_place(place: tuple[int, ...]) -> tuple[Any, ...]:
        return tuple(p // r for p, r in zip(place, header.read_chunks, strict=True)), place

    return sorted(itertools.product(*ranges), key=source_chunk_then_place)


def cut(store: Store, truth: Truth, unit: Unit) -> Part:
    """Return the part that a unit leaves."""
    where = positions(store, unit.chunk)[unit.start : unit.stop]
    columns = slice(unit.first, unit.last)

    def rows(values: NDArray[Any]) -> NDArray[Any]:
        return np.stack([values[place] for place in where])

    texts = rows(truth.message)[:, columns]
    return Part(
        {metric: rows(scores)[:, columns] for metric, scores in truth.scores.items()},
        rows(truth.fit_time)[:, columns],
        rows(truth.score_time)[:, columns],
        rows(truth.status)[:, columns],
        rows(truth.n_samples),
        rows(truth.n_splits),
        {(int(i), int(j)): texts[i, j] for i, j in np.argwhere(texts != "")},
    )


def leave(store: Store, truth: Truth, unit: Unit) -> PartName:
    """Write the part that a unit leaves."""
    return write_part(store.run.parts, store.header.id, unit, cut(store, truth, unit))


def whole(store: Store, chunk: Chunk) -> Unit:
    """Return the unit that is a whole result chunk."""
    return Unit(chunk, 0, len(positions(store, chunk)), 0, len(store.candidates))


def halves(unit: Unit) -> tuple[Unit, Unit]:
    """Return two halves of a unit, by partitions."""
    middle = (unit.start + unit.stop) // 2
    return replace(unit, stop=middle), replace(unit, start=middle)


def all_chunks(store: Store) -> list[Chunk]:
    """Return the indices of all result chunks."""
    return list(np.ndindex(*store.grid.chunk_grid(store.header.chunks)))


class Told(BaseEstimator):
    """Scores on split i what it was told to."""

    def __init__(self, scores: tuple[float, ...] = ()) -> None:
        self.scores = scores

    def fit(self, X: Any, y: Any = None) -> Told:
        return self

    def score(self, X: Any, y: Any = None) -> float:
        return self.scores[int(X[0, 0])]


def cv_results(scores: Scores) -> dict[str, Any]:
    """Return scikit-learn's results for scores of shape (n_candidates, n_splits)."""
    splits = np.arange(scores.shape[1])
    grid = {"scores": [tuple(row) for row in scores.tolist()]}
    search = GridSearchCV(Told(), grid, cv=PredefinedSplit(splits), refit=False)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of scores that are not finite
        results: dict[str, Any] = search.fit(splits[:, None].astype(float)).cv_results_
    return results


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int = 64) -> Iterator[Path]:
    """Mount a disk of a given size while the context lasts; skip without the right to."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small disk")
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def make_read_only(disk: Path) -> bool:
    """Remount a small disk so that nothing can be written any more.

    It is refused while a file is open for writing: then it is tried again, for some seconds.
    """
    remount = ["mount", "-o", "remount,ro", str(disk)]
    end = time.monotonic() + 20
    while subprocess.run(remount, capture_output=True, check=False).returncode:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def fill(disk: Path, but: int = 0) -> None:
    """Fill a small disk but for some bytes."""
    stat = os.statvfs(disk)
    (disk / "filling").write_bytes(bytes(stat.f_bavail * stat.f_frsize - but))
