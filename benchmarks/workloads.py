"""What the benchmarks work on: the data, and what is searched for in each of its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from searches import Pixels, Search
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

DIMS = ("latitude", "longitude")
ERA5 = (
    ("t2m_now", "t2m_lag1", "t2m_lag2", "t2m_lag24", "t2m_around", "hour_sin", "hour_cos"),
    "t2m_next",
)
GENERATED = (("wet", "warm", "green", "rain", "wind", "season_sin", "season_cos"), "slope")


@dataclass(frozen=True)
class Data:
    """A zarr store with some pixels.

    Attributes
    ----------
    store : Path
        Where it is.
    features : tuple of str
        Variables that make X; some run along time only.
    target : str
        The variable y.
    name : str
        For the table.
    """

    store: Path
    features: tuple[str, ...]
    target: str
    name: str


@dataclass(frozen=True)
class Workload:
    """A grid search that is done in each pixel.

    Attributes
    ----------
    name : str
        For the table.
    model : mapping
        The model as a spec has it, without its grid.
    search : Search
        The same for the peers, built by hand: they get nothing from our package.
    """

    name: str
    model: Mapping[str, Any]
    search: Search

    @property
    def n_fits(self) -> int:
        """Fits in one pixel."""
        return self.search.cv * len(self.search.candidates)

    def spec(self, data: Data, results: Path, workers: int) -> dict[str, Any]:
        """Return the spec of the same searches."""
        return {
            "name": self.name,
            "data": {
                "store": str(data.store),
                "features": list(data.features),
                "target": data.target,
                "partition_by": list(DIMS),
            },
            "models": [{**self.model, "param_grid": dict(self.search.param_grid)}],
            "search": {"cv": self.search.cv, "scoring": "r2"},
            "cluster": {"kind": "local", "workers": workers},
            "output": {"store": str(results)},
        }


WORKLOADS = (
    Workload(
        "ridge 8 × 5",
        {"estimator": "sklearn.linear_model.Ridge"},
        Search(Ridge(), {"alpha": [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0]}, cv=5),
    ),
    Workload(
        "scaled SVR 4 × 3",
        {"pipeline": ["sklearn.preprocessing.StandardScaler", "sklearn.svm.SVR"]},
        Search(
            make_pipeline(StandardScaler(), SVR()),
            {"svr__C": [1.0, 10.0], "svr__gamma": [0.03, 0.1]},
            cv=3,
        ),
    ),
)


def generate(path: Path, pixels: int, samples: int = 200, chunk: int = 4) -> Data:
    """Write `pixels` × `pixels` made-up pixels: half linear, half curved, with noise."""
    rng = np.random.default_rng(0)
    shape = (pixels, pixels, samples)
    day = np.arange(samples)
    season = [np.sin(day * 2 * np.pi / 365), np.cos(day * 2 * np.pi / 365)]
    states = rng.normal(size=(5, *shape))
    weights = rng.normal(size=(7, pixels, pixels, 1))
    linear = np.tensordot(np.ones(5), weights[:5] * states, 1)
    curved = np.sin(states[0] * states[1]) + weights[5] * season[0] + weights[6] * season[1]
    slope = linear + rng.random((pixels, pixels, 1)) * 2 * curved + rng.normal(0, 0.5, shape)
    names, target = GENERATED
    cube = (*DIMS, "time")
    variables: dict[str, Any] = {name: (cube, states[i]) for i, name in enumerate(names[:5])}
    variables |= {name: ("time", season[i]) for i, name in enumerate(names[5:])}
    variables[target] = (cube, slope)
    axis = np.arange(pixels) / 4
    coordinates: dict[str, Any] = {"latitude": 60 - axis, "longitude": axis, "time": day}
    dataset = xr.Dataset(variables, coordinates).astype("float32")
    _write(dataset, path, {"latitude": chunk, "longitude": chunk})
    return Data(path, names, target, f"generated, {pixels} × {pixels} pixels × {samples} samples")


def cut_out(store: Path, path: Path, pixels: int) -> Data:
    """Copy the first `pixels` × `pixels` pixels of the ERA5 store, in its own chunks."""
    names, target = ERA5
    opened = xr.open_zarr(store, chunks=None)[[*names, target]]
    chunks = {dim: opened[target].encoding["preferred_chunks"][dim] for dim in DIMS}
    corner = opened.isel({dim: slice(pixels) for dim in DIMS}).load().drop_encoding()
    _write(corner, path, chunks)
    sizes = corner.sizes
    size = f"{sizes['latitude']} × {sizes['longitude']} pixels × {sizes['time']} samples"
    return Data(path, names, target, f"{store.name}, {size}")


def _write(dataset: xr.Dataset, path: Path, chunks: Mapping[str, int]) -> None:
    encoding = {
        name: {
            "chunks": [
                min(chunks.get(str(dim), size), size) for dim, size in variable.sizes.items()
            ]
        }
        for name, variable in dataset.data_vars.items()
    }
    dataset.to_zarr(path, zarr_format=3, encoding=encoding, consolidated=False)


def load_pixels(data: Data) -> Pixels:
    """Read the store once, and return X and y of each pixel without missing samples.

    Returns
    -------
    list of (ndarray of float64, ndarray of float64)
        Shapes (n_samples, n_features) and (n_samples,).
    """
    opened = xr.open_zarr(data.store, chunks=None, consolidated=False)
    table = opened[[*data.features, data.target]].load().to_dataarray("column")
    values = table.stack(pixel=DIMS).transpose("pixel", "time", "column").values
    rows = np.ascontiguousarray(values, dtype=np.float64)
    return [(row[:, :-1], row[:, -1]) for row in (r[~np.isnan(r).any(axis=1)] for r in rows)]
