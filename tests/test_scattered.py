"""Labels that are scattered: brought together by a copy, with the samples of direct reading."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from hpc_sweep.source import CopiedSource, Copy, Source, copied_source, open_source, tiling_for
from hpc_sweep.source.tables import Table
from hpc_sweep.spec import DataSpec, SearchSpec

SHAPE = (5, 7, 48)
CHUNKS = {"lat": 2, "lon": 3, "time": 48}
MAPS = {"lat": 5, "lon": 7, "time": 1}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpc_sweep.source.tiling.TILE_BYTES", (3000, 3000))


def grid(folder: Path, chunks: dict[str, int] = CHUNKS) -> Path:
    """Write a grid with labels scattered over it, in places without any."""
    rng = np.random.default_rng(3)
    dims = ("time", "lat", "lon")
    size = (SHAPE[2], *SHAPE[:2])
    zone = rng.integers(0, 6, SHAPE[:2]).astype(float)
    zone[rng.random(SHAPE[:2]) < 0.2] = np.nan
    wet = rng.normal(size=size).astype("float32")
    wet[rng.random(size) < 0.1] = np.nan
    made = xr.Dataset(
        {
            "wet": (dims, wet),
            "slope": (dims, rng.normal(size=size)),
            "count": (("lat", "time", "lon"), rng.integers(0, 9, (5, 48, 7)).astype("int16")),
            "height": (("lat", "lon"), rng.normal(size=SHAPE[:2])),
            "tide": ("time", rng.normal(size=SHAPE[2])),
            "there": (dims, rng.random(size) > 0.3),
            "zone": (("lat", "lon"), zone),
            "regime": ("time", rng.integers(0, 3, SHAPE[2])),
        },
        coords={
            "lat": 60 - np.arange(5) / 4,
            "lon": np.arange(7) / 4,
            "time": np.datetime64("2019-03-01", "ns") + np.arange(48) * np.timedelta64(6, "h"),
        },
    )
    encoding = {
        name: {"chunks": tuple(chunks[str(dim)] for dim in array.dims)}
        for name, array in made.items()
    }
    made.to_zarr(folder / "grid.zarr", zarr_format=3, encoding=encoding, consolidated=False)
    return folder / "grid.zarr"


def opened(store: Path, search: SearchSpec | None = None, **keys: Any) -> Source:
    usual = {"features": ["wet", "count"], "target": "slope", "partition_by": ["zone"]}
    return open_source(DataSpec(store=str(store), **{**usual, **keys}), search)


def copied(source: Source, folder: Path, slab_bytes: int = 1500) -> CopiedSource:
    """Return a source that reads a copy, made slab by slab."""
    tiling = tiling_for(source, slab_bytes, 1e6)
    assert tiling is not None
    made = copied_source(source, Copy(folder / "copy.zarr", tiling, source.identity()))
    made.copy.begin(made.streams)
    for _, slab in list(made.copy.open_slabs()):
        made.copy_slab(slab)
    made.copy.end()
    return made


def assert_same(source: Source, made: Source) -> None:
    """Check all partitions, read in blocks, bit by bit."""
    grid = source.grid
    assert made.grid.shape == grid.shape
    order = grid.reading_order(grid.shape, (0,) * len(grid.shape))
    step = -(-len(order) // 3)
    for first in range(0, len(order), step):
        some = order[first : first + step]
        for one, other in zip(source.read(some), made.read(some), strict=True):
            for left, right in ((one, other), (one.held_out, other.held_out)):
                if left is None or right is None:
                    assert left is right
                    continue
                for name in ("X", "y", "groups"):
                    expected, found = getattr(left, name), getattr(right, name)
                    np.testing.assert_array_equal(expected, found)
                    if expected is not None:
                        assert expected.dtype == found.dtype


KINDS: dict[str, dict[str, Any]] = {
    "two-dimensional labels": {},
    "a mask": {"where": "there"},
    "lags along time": {"features": ["wet@-6h", "wet@-1D", "count"]},
    "lags between labels": {
        "partition_by": [{"time": "hour"}],
        "features": ["wet@-6h", "count"],
    },
    "lags at places without label": {"features": ["wet", "height"], "partition_by": ["zone"]},
    "parts of dates": {"features": ["wet", "time.hour", "tide"]},
    "time labels": {"partition_by": ["regime"]},
    "label × time label": {"partition_by": ["zone", "regime"]},
    "label × part of a date": {"partition_by": ["zone", {"time": "dayofweek"}]},
    "two time labels": {"partition_by": ["regime", {"time": "hour"}]},
    "dimension × its own label": {"partition_by": ["lat", "zone"]},
    "dimension × time label": {"partition_by": ["lat", "lon", "regime"]},
    "tiles × time label": {"partition_by": {"lat": 2, "time": "hour"}},
    "several targets": {"target": ["slope", "count"], "features": ["wet"]},
    "separate targets": {
        "target": ["slope", "count"],
        "features": ["wet", "height"],
        "outputs": "separate",
    },
    "held out": {"holdout": {"time": "2019-03-08"}},
    "an order of samples": {"sample_dims": ["lat", "lon", "time"]},
}


@pytest.mark.parametrize("chunks", [CHUNKS, MAPS], ids=["boxes", "maps"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_those_of_direct_reading(
    kind: str, chunks: dict[str, int], tmp_path: Path
) -> None:
    source = opened(grid(tmp_path, chunks), **KINDS[kind])
    made = copied(source, tmp_path)
    assert len(list(made.copy.tiling.slabs())) > 6
    assert_same(source, made)
    assert made.identity() == source.identity()
    assert made.n_samples == source.n_samples
    assert made.kept_coordinates.identical(source.kept_coordinates)
