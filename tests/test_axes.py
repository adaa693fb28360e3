"""Axes: labels, tiles, groups and bins; what each partition holds is what plain xarray picks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.errors import SpecError
from hpc_sweep.partitions import partition_labels
from hpc_sweep.source import Source, open_source
from hpc_sweep.spec import DataSpec

SHAPE = {"y": 7, "x": 10, "time": 60}
CHUNKS = {"y": 3, "x": 4, "time": 60}
Labels = Callable[[xr.Dataset], xr.DataArray]


def dataset() -> xr.Dataset:
    rng = np.random.default_rng(3)
    dims = ("y", "x", "time")

    def variable(*names: str, gaps: float = 0.0) -> xr.DataArray:
        values = rng.normal(size=[SHAPE[name] for name in names])
        values[rng.random(values.shape) < gaps] = np.nan
        return xr.DataArray(values, dims=names)

    zone = rng.integers(1, 5, (SHAPE["y"], SHAPE["x"])).astype("int8")
    zone[0, :3] = -1  # the fill value
    return xr.Dataset(
        {
            "a": variable(*dims, gaps=0.1),
            "b": variable("time", "x", "y"),
            "hour": variable("time"),
            "height": variable("y", "x"),
            "t": variable(*dims, gaps=0.1),
            "u": variable("x", "y", "time"),
            "zone": (("y", "x"), zone, {"_FillValue": np.int8(-1), "long_name": "climate zone"}),
            "regime": ("time", rng.choice(["wet", "dry", ""], SHAPE["time"]).astype(object)),
            "is_day": ("time", rng.random(SHAPE["time"]) < 0.5),
            "elevation": variable("y", "x", gaps=0.1) * 100,
            "rank": ("x", rng.integers(0, 3, SHAPE["x"]).astype("float32")),
            "cloud": variable(*dims),
        },
        coords={
            "y": ("y", 60 - np.arange(SHAPE["y"]) / 4, {"units": "degrees_north"}),
            "x": ("x", np.arange(SHAPE["x"]) / 4),
            "time": np.datetime64("2019-01-20", "ns")
            + rng.permutation(SHAPE["time"]) * np.timedelta64(37, "h"),
            "name": ("x", [f"station {i}" for i in range(SHAPE["x"])]),
            "lat": (("y", "x"), variable("y", "x").values),
        },
    )


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return dataset()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, data: xr.Dataset) -> str:
    """Return the path of `dataset`; read only."""
    path = str(tmp_path_factory.mktemp("axes") / "in.zarr")
    encoding = {n: {"chunks": [CHUNKS[str(d)] for d in v.dims]} for n, v in data.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr: texts are not in the v3 specification
        data.to_zarr(path, zarr_format=3, consolidated=False, encoding=encoding)
    return path


def opened(store: str, partition_by: Any, **keys: Any) -> Source:
    usual = {"features": ["a", "b", "hour"], "target": "t"}
    return open_source(DataSpec(**{"store": store, "partition_by": partition_by, **usual, **keys}))


def refused(store: str, partition_by: Any, **keys: Any) -> str:
    with pytest.raises(SpecError) as caught:
        opened(store, partition_by, **keys)
    (fault,) = caught.value.faults
    return f"{fault.path}: {fault.message}"


def every(source: Source) -> NDArray[np.intp]:
    return source.grid.reading_order(source.grid.shape, (0,) * len(source.grid.shape))


def tile(dim: str, length: int) -> Labels:
    def labels(data: xr.Dataset) -> xr.DataArray:
        means = (
            data[dim].reset_coords(drop=True).coarsen({dim: length}, boundary="pad").mean().values
        )
        return xr.DataArray(means[np.arange(data.sizes[dim]) // length], dims=dim)

    return labels


def zone(data: xr.Dataset) -> xr.DataArray:
    return data["zone"].where(data["zone"] >= 0)


def texts(data: xr.Dataset) -> xr.DataArray:
    return data["regime"].where(data["regime"] != "")


def binned(values: xr.DataArray, edges: list[Any], names: list[Any]) -> xr.DataArray:
    found = np.full(values.shape, None, dtype=object)
    for low, high, name in zip(edges[:-1], edges[1:], names, strict=True):
        found[(values.values >= low) & (values.values < high)] = name
    return xr.DataArray(found, dims=values.dims)


PERIODS = ["2019-01-20", "2019-02-10", "2019-03-05"]
CASES: dict[str, tuple[Any, dict[str, Labels]]] = {
    "pixels": (["x", "y"], {"y": lambda d: d["y"], "x": lambda d: d["x"]}),
    "a zone": ("zone", {"zone": zone}),
    "tiles": ({"y": 4, "x": 4}, {"y": tile("y", 4), "x": tile("x", 4)}),
    "tiles of time": ({"time": 25}, {"time": tile("time", 25)}),
    "a tile as large as the grid": ({"y": 70}, {"y": tile("y", 70)}),
    "seasons": ({"time": "season"}, {"season": lambda d: d["time"].dt.season}),
    "a part of a date by name": ("time.month", {"month": lambda d: d["time"].dt.month}),
    "days": ({"time": "date"}, {"date": lambda d: d["time"].dt.floor("D")}),
    "weeks": ({"time": "week"}, {"week": lambda d: d["time"].dt.isocalendar().week}),
    "texts": ("regime", {"regime": texts}),
    "booleans": ("is_day", {"is_day": lambda d: d["is_day"]}),
    "numbers": ("rank", {"rank": lambda d: d["rank"]}),
    "a coordinate of two dimensions": ("lat", {"lat": lambda d: d["lat"]}),
    "zone × season": (
        ["zone", {"time": "season"}],
        {"zone": zone, "season": lambda d: d["time"].dt.season},
    ),
    "season first": (
        [{"time": "season"}, "zone"],
        {"zone": zone, "season": lambda d: d["time"].dt.season},
    ),
    "zone × row": (["zone", "y"], {"zone": zone, "y": lambda d: d["y"]}),
    "zone × tile": (["zone", {"x": 3}], {"zone": zone, "x": tile("x", 3)}),
    "zone × rank": (["zone", "rank"], {"zone": zone, "rank": lambda d: d["rank"]}),
    "season × regime": (
        [{"time": "season"}, "regime"],
        {"season": lambda d: d["time"].dt.season, "regime": texts},
    ),
    "pixel × day and night": (
        ["y", "x", {"time.hour": {"bins": [0, 6, 18, 24], "labels": ["night", "day", "night"]}}],
        {
            "y": lambda d: d["y"],
            "x": lambda d: d["x"],
            "hour_bins": lambda d: binned(
                d["time"].dt.hour, [0, 6, 18, 24], ["night", "day", "night"]
            ),
        },
    ),
    "periods": (
        {"time": {"bins": PERIODS}},
        {
            "time_bins": lambda d: binned(
                d["time"],
                [np.datetime64(day) for day in PERIODS],
                ["[2019-01-20, 2019-02-10)", "[2019-02-10, 2019-03-05)"],
            )
        },
    ),
    "elevations": (
        {"elevation": {"bins": [-100, 0, 50.5]}},
        {
            "elevation_bins": lambda d: binned(
                d["elevation"], [-100, 0, 50.5], ["[-100.0, 0.0)", "[0.0, 50.5)"]
            )
        },
    ),
    "all": ([], {}),
}


def picked(
    source: Source, data: xr.Dataset, axes: dict[str, Labels], labels: dict[str, Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pick the samples of a partition with plain xarray: the other way to the same arrays."""
    here = xr.DataArray(True)
    for name, make in axes.items():
        values, label = make(data), labels[name]
        if values.dtype.kind == "M":
            label = np.datetime64(label)
        here = here & xr.DataArray(values.values == label, dims=values.dims)
    order = data[source.targets[0]].dims  # of samples too
    names = [*source.data.features, *source.targets]
    full = xr.broadcast(here, *(data[name].reset_coords(drop=True) for name in names))
    here, *columns = (each.transpose(*order).values.ravel() for each in full)
    found = np.stack([column[here] for column in columns], axis=1)
    found = found[~np.isnan(found).any(axis=1)]
    return found[:, :-1], found[:, -1]


def assert_reads(
    source: Source, data: xr.Dataset, axes: dict[str, Labels], partitions: NDArray[np.intp]
) -> int:
    found = list(source.read(partitions))
    assert len(found) == len(partitions)
    total = 0
    for index, samples in zip(partitions, found, strict=True):
        labels = partition_labels(source.coordinates, source.grid.dims, index)
        X, y = picked(source, data, axes, labels)
        np.testing.assert_array_equal(samples.X, X, strict=True)
        np.testing.assert_array_equal(samples.y, y, strict=True)
        total += len(X)
    return total


@pytest.mark.parametrize("case", CASES)
def test_partitions_are_what_plain_xarray_picks(store: str, data: xr.Dataset, case: str) -> None:
    partition_by, axes = CASES[case]
    source = opened(store, partition_by)
    assert source.grid.dims == tuple(axes)
    total = assert_reads(source, data, axes, every(source))
    labelled = xr.DataArray(True)
    for make in axes.values():
        labelled = labelled & make(data).notnull().drop_vars(["y", "x", "time"], errors="ignore")
    full = xr.broadcast(labelled, *(data[name].reset_coords(drop=True) for name in "abt"))
    whole = np.logical_and.reduce([each.notnull().values for each in full[1:]])
    assert total == int((full[0].values & whole).sum()), "samples are lost or doubled"


@pytest.mark.parametrize("seed", range(2))
def test_any_few_partitions_read_alike(store: str, data: xr.Dataset, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for partition_by, axes in CASES.values():
        source = opened(store, partition_by, features=["a", "hour"], target="u")
        some = rng.permutation(every(source))[: rng.integers(1, 5)]
        assert_reads(source, data, axes, some)
