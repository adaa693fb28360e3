"""What the benchmarks work on: the data, and what is searched for in each of its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from searches import Pixels, Search
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

DIMS = ("latitude", "longitude")
ERA5 = (
    ("t2m_now", "t2m_lag1", "t2m_lag2", "t2m_lag24", "t2m_around", "hour_sin", "hour_cos"),
    "t2m_next",
)
LABELS = "above_median"
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
    target, labels : str
        The variable y, and one that says for each sample whether y is above its median.
    name : str
        For the table.
    """

    store: Path
    features: tuple[str, ...]
    target: str
    labels: str
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
    side : int
        The data have `side` × `side` pixels: so many that ours works for seconds.
    peer_pixels : int
        How many of them, evenly spread, those do that have the whole machine.
    tolerance : float
        Scores must be equal to this before any time is believed.
    """

    name: str
    model: Mapping[str, Any]
    search: Search
    side: int
    peer_pixels: int
    tolerance: float = 0.0

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
                "target": data.labels if self.search.scoring == "accuracy" else data.target,
                "partition_by": list(DIMS),
            },
            "models": [{**self.model, "param_grid": dict(self.search.param_grid)}],
            "search": {"cv": self.search.cv, "scoring": self.search.scoring},
            "cluster": {"kind": "local", "workers": workers},
            "output": {"store": str(results)},
        }


SCALER = "sklearn.preprocessing.StandardScaler"
ALPHAS = [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0]
WORKLOADS = (
    Workload(
        "ridge 8 × 5",
        {"estimator": "sklearn.linear_model.Ridge"},
        Search(Ridge(), {"alpha": ALPHAS}, cv=5),
        side=256,
        peer_pixels=200,
        tolerance=1e-9,
    ),
    Workload(
        "scale → PCA → ridge 12 × 5",
        {"pipeline": [SCALER, "sklearn.decomposition.PCA", "sklearn.linear_model.Ridge"]},
        Search(
            make_pipeline(StandardScaler(), PCA(), Ridge()),
            {"pca__n_components": [2, 4, 7], "ridge__alpha": [0.1, 1.0, 10.0, 100.0]},
            cv=5,
        ),
        side=192,
        peer_pixels=100,
        tolerance=1e-9,
    ),
    Workload(
        "scaled SVR 4 × 3",
        {"pipeline": [SCALER, "sklearn.svm.SVR"]},
        Search(
            make_pipeline(StandardScaler(), SVR()),
            {"svr__C": [1.0, 10.0], "svr__gamma": [0.03, 0.1]},
            cv=3,
        ),
        side=32,
        peer_pixels=400,
    ),
    Workload(
        "forest 6 × 3",
        {"estimator": {"sklearn.ensemble.RandomForestRegressor": {"random_state": 0}}},
        Search(
            RandomForestRegressor(random_state=0),
            {"max_depth": [4, 8], "n_estimators": [10, 20, 40]},
            cv=3,
        ),
        side=10,
        peer_pixels=40,
    ),
    Workload(
        "boosting 6 × 3",
        {"estimator": {"sklearn.ensemble.GradientBoostingRegressor": {"random_state": 0}}},
        Search(
            GradientBoostingRegressor(random_state=0),
            {"max_depth": [2, 3], "n_estimators": [25, 50, 100]},
            cv=3,
        ),
        side=10,
        peer_pixels=40,
    ),
    Workload(
        "nearest neighbours 10 × 5",
        {"estimator": "sklearn.neighbors.KNeighborsRegressor"},
        Search(
            KNeighborsRegressor(),
            {"n_neighbors": [1, 3, 5, 10, 20], "weights": ["uniform", "distance"]},
            cv=5,
        ),
        side=32,
        peer_pixels=200,
    ),
    Workload(
        "logistic regression 5 × 5",
        {"estimator": "sklearn.linear_model.LogisticRegression"},
        Search(
            LogisticRegression(), {"C": [0.01, 0.1, 1.0, 10.0, 100.0]}, cv=5, scoring="accuracy"
        ),
        side=24,
        peer_pixels=200,
    ),
)


def generate(path: Path, pixels: int, samples: int = 200) -> Data:
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
    variables[LABELS] = (cube, _above_median(slope))
    axis = np.arange(pixels) / 4
    coordinates: dict[str, Any] = {"latitude": 60 - axis, "longitude": axis, "time": day}
    dataset = xr.Dataset(variables, coordinates)
    for name in (*names, target):
        dataset[name] = dataset[name].astype("float32")
    chunk = max(2, pixels // 4)
    _write(dataset, path, {"latitude": chunk, "longitude": chunk})
    size = f"{pixels} × {pixels} pixels × {samples} samples"
    return Data(path, names, target, LABELS, f"generated, {size}")


def cut_out(store: Path, path: Path, pixels: int) -> Data:
    """Copy the first `pixels` × `pixels` pixels of the ERA5 store, in its own chunks."""
    names, target = ERA5
    opened = xr.open_zarr(store, chunks=None)[[*names, target]]
    chunks = {dim: opened[target].encoding["preferred_chunks"][dim] for dim in DIMS}
    corner = opened.isel({dim: slice(pixels) for dim in DIMS}).load().drop_encoding()
    values = corner[target].transpose(*DIMS, "time")
    corner[LABELS] = (values.dims, _above_median(values.values))
    _write(corner, path, chunks)
    sizes = corner.sizes
    size = f"{sizes['latitude']} × {sizes['longitude']} pixels × {sizes['time']} samples"
    return Data(path, names, target, LABELS, f"{store.name}, {size}")


def _above_median(values: NDArray[Any]) -> NDArray[np.int64]:
    return (values > np.nanmedian(values, axis=-1, keepdims=True)).astype(np.int64)


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


def load_pixels(data: Data, target: str) -> Pixels:
    """Read the store once, and return X and y of each pixel without missing samples.

    Returns
    -------
    list of (ndarray of float64, ndarray of float64 or int64)
        Shapes (n_samples, n_features) and (n_samples,).
    """
    opened = xr.open_zarr(data.store, chunks=None, consolidated=False)
    table = opened[[*data.features, target]].load().to_dataarray("column")
    values = table.stack(pixel=DIMS).transpose("pixel", "time", "column").values
    rows = np.ascontiguousarray(values, dtype=np.float64)
    kind = opened[target].dtype.kind
    return [
        (row[:, :-1], row[:, -1].astype(np.int64) if kind == "i" else row[:, -1])
        for row in (r[~np.isnan(r).any(axis=1)] for r in rows)
    ]
