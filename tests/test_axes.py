"""Axes: labels, tiles, groups and bins; what each partition holds is what plain xarray picks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import hpc_sweep as package
from hpc_sweep.errors import SpecError
from hpc_sweep.partitions import partition_labels
from hpc_sweep.source import Source, open_source
from hpc_sweep.source.axes import make_axes
from hpc_sweep.spec import BinsSpec, DataSpec, Wanted

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


def periods(frequency: str) -> Labels:
    def labels(data: xr.Dataset) -> xr.DataArray:
        time = data["time"].values
        firsts = time.copy()
        for first, part in data["time"].sortby("time").resample(time=frequency):
            firsts[np.isin(time, part.values)] = first
        return xr.DataArray(firsts, dims="time")

    return labels


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
    "ten days": ({"time": "10D"}, {"time": periods("10D")}),
    "from month to month": (["zone", {"time": "MS"}], {"zone": zone, "time": periods("MS")}),
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


# labels, and what has none


def changed(tmp_path: Path, data: xr.Dataset, **variables: Any) -> str:
    path = str(tmp_path / "in.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.assign(variables).drop_encoding().to_zarr(path, zarr_format=3, consolidated=False)
    return path


def test_fill_values_and_gaps_belong_nowhere_and_are_counted(store: str) -> None:
    (axis,) = opened(store, "zone").axes
    assert axis.n_missing == 3
    assert axis.labels is not None
    assert axis.labels.dtype == np.int64, "a fill value makes no floats of integers"
    (texts,) = opened(store, "regime").axes
    assert texts.n_missing == int((dataset()["regime"] == "").sum())
    (bins,) = opened(store, {"elevation": {"bins": [-100, 0, 50.5]}}).axes
    values = dataset()["elevation"].values
    outside = np.isnan(values) | (values < -100) | (values >= 50.5)
    assert bins.n_missing == int(outside.sum()) > 0


def test_labels_of_all_kinds(tmp_path: Path, data: xr.Dataset) -> None:
    days = np.datetime64("2020-01-01", "ns") + np.arange(10) % 3 * np.timedelta64(1, "D")
    days[4] = np.datetime64("NaT")
    path = changed(
        tmp_path,
        data,
        objects=("x", np.array(["b", "a", "", "a", "b"] * 2, dtype=object)),
        fixed=("x", np.array(["north", "south"] * 5)),
        days=("x", days),
        floats=("x", np.array([0.5, np.nan, -1.5, np.inf, 0.5] * 2)),
        flags=("x", np.arange(10) % 2 == 0),
        one=("x", np.ones(10, dtype="uint8")),
    )
    expected = {
        "objects": ["a", "b"],
        "fixed": ["north", "south"],
        "days": ["2020-01-01", "2020-01-02", "2020-01-03"],
        "floats": [-1.5, 0.5, np.inf],
        "flags": [False, True],
        "one": [1],
    }
    for name, labels in expected.items():
        source = opened(path, name)
        found = [
            partition_labels(source.coordinates, [name], [i])[name] for i in range(len(labels))
        ]
        assert found == labels, name
        assert sum(len(samples) for samples in source.read(every(source))) > 0


def test_seasons_are_in_the_order_of_the_year(tmp_path: Path, data: xr.Dataset) -> None:
    times = np.datetime64("2019-01-01", "ns") + np.arange(60) * np.timedelta64(6, "D")
    (axis,) = opened(changed(tmp_path, data, time=times), "time.season").axes
    assert axis.labels is not None
    assert axis.labels.tolist() == ["DJF", "MAM", "JJA", "SON"]
    assert axis.attributes == {"long_name": "season of time"}


def test_coordinates_in_the_results(store: str) -> None:
    source = opened(store, [{"y": 4}, {"time": "season"}])
    kept = source.kept_coordinates
    assert set(kept.variables) == {"y", "season"}, "what lies along a tile is not kept"
    assert kept["y"].attrs == {"units": "degrees_north"}
    np.testing.assert_array_equal(kept["y"], [59.625, 58.75])
    assert opened(store, {"x": 4}).kept_coordinates["x"].values.tolist() == [0.375, 1.375, 2.125]
    pixels = opened(store, ["y", "x", {"time": "season"}]).kept_coordinates
    assert set(pixels.variables) == {"y", "x", "name", "lat", "season"}


def test_tiles_of_dimensions_without_numbers_have_an_index(
    tmp_path: Path, data: xr.Dataset
) -> None:
    path = changed(tmp_path, data.drop_vars("y"), x=[f"column {i}" for i in range(10)])
    source = opened(path, {"y": 4, "x": 4})
    assert source.coordinates == {}
    assert source.grid.shape == (2, 3)


def test_empty_groups_are_read_as_nothing(store: str) -> None:
    source = opened(store, ["zone", {"elevation": {"bins": [-1000, -999, 1000]}}])
    first = every(source)[every(source)[:, 1] == 0]
    assert [len(samples) for samples in source.read(first)] == [0] * 4
    assert [len(samples) > 0 for samples in source.read(every(source))].count(True) == 4


def test_duplicate_coordinates_are_partitions_of_their_own(
    tmp_path: Path, data: xr.Dataset
) -> None:
    path = changed(tmp_path, data, y=[60.0, 60.0, 59.0, 58.0, 57.0, 56.0, 55.0])
    assert opened(path, ["y", "x"]).grid.shape == (7, 10)
    assert opened(path, {"y": 2}).coordinates["y"].tolist() == [60.0, 58.5, 56.5, 55.0]


def test_samples_stand_in_the_order_that_is_asked_for(store: str, data: xr.Dataset) -> None:
    source = opened(store, "zone", sample_dims=["time"], target="u")
    assert source.sample_dims == ("x", "y", "time")
    times_first = opened(store, "zone", sample_dims=["time", "y", "x"])
    samples = next(times_first.read(np.array([[0]])))
    here = xr.broadcast(data["zone"] == 1, data["a"], data["t"])
    columns = [each.transpose("time", "y", "x").values.ravel() for each in here]
    some = columns[0] & ~np.isnan(columns[1]) & ~np.isnan(columns[2])
    np.testing.assert_array_equal(samples.X[:, 0], columns[1][some])


def test_identity_is_of_labels_too(tmp_path: Path, store: str, data: xr.Dataset) -> None:
    other = data["zone"].copy()
    other[6, 9] = 5 - int(other[6, 9])
    path = changed(tmp_path, data, zone=other)
    pixels = [opened(where, ["y", "x"]).identity() for where in (store, path)]
    assert pixels[0] == pixels[1]
    zones = [opened(where, "zone").identity() for where in (store, path)]
    assert zones[0] != zones[1]


# faults


FAULTS: dict[str, tuple[Any, str]] = {
    "no such name": (
        "zon",
        "data.partition_by.0: 'zon' is no dimension of the data set, and no "
        "variable with labels; did you mean 'zone'?",
    ),
    "three dimensions": ("cloud", "'cloud' has 3 dimensions; labels lie on one or 2"),
    "no part of a date": (
        {"time": "seasn"},
        "data.partition_by.0.time: 'seasn' is no part of a date; did you mean 'season'?",
    ),
    "no frequency": ({"time": "10X"}, "'10X' is no part of a date; known are"),
    "a frequency that stands": ({"time": "0D"}, "'0D' is no part of a date; known are"),
    "a frequency of no dates": (
        {"zone": "10D"},
        "'zone' has no 10D: its values are float32, no dates",
    ),
    "parts of no dates": ({"zone": "season"}, "has no season: its values are float32, no dates"),
    "bins beside the values": (
        {"y": {"bins": [0, 1, 2]}},
        "no value of 'y' is in any bin: they go from 58.5 to 60.0",
    ),
    "tiles of no dimension": ({"zone": 4}, "tiles are cut along dimensions, and 'zone' is none"),
    "twice": (["y", {"y": 4}], "two axes of the results would be named 'y'"),
    "bins of texts": ({"regime": {"bins": [0, 1]}}, "bins are of numbers or dates"),
    "edges that fall": ({"elevation": {"bins": [5, 1]}}, "bins must increase monotonically"),
    "edges that are no numbers": ({"elevation": {"bins": ["low", "high"]}}, "no bins of"),
    "edges that are no dates": ({"time": {"bins": ["soon", "later"]}}, "no bins of 'time'"),
    "labels that do not fit": (
        {"elevation": {"bins": [0, 1, 2], "labels": ["one"]}},
        "there are 2 bins, but 1 labels",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults(store: str, case: str) -> None:
    partition_by, words = FAULTS[case]
    assert words in refused(store, partition_by)


def test_labels_that_cannot_be_read(tmp_path: Path, data: xr.Dataset) -> None:
    path = changed(tmp_path, data)
    for chunk in ("zone/c/0/0", "is_day/c/0"):
        (Path(path) / chunk).write_bytes(b"damaged")
    assert "chunk 0.0 of 'zone' is damaged" in refused(path, "zone")
    held_out = opened(path, "y", holdout={"mask": "is_day"}).holdout_faults()
    with pytest.raises(SpecError, match="chunk 0 of 'is_day' is damaged"):
        next(held_out)


def test_labels_that_are_all_missing(tmp_path: Path, data: xr.Dataset) -> None:
    path = changed(tmp_path, data, none=("x", np.full(10, np.nan)))
    assert "all its labels are missing" in refused(path, "none")


def test_labels_of_several_types(
    data: xr.Dataset,
) -> None:
    """No store holds such objects, but a loader can return them."""
    mixed = data.assign(mixed=("x", np.array([1, "a"] * 5, dtype=object)))
    axes, faults = make_axes([Wanted("data.partition_by.0", "mixed", None)], mixed, ["y", "x"])
    assert axes == ()
    assert "labels of 'mixed' are of several types (int, str)" in faults[0].message


@pytest.mark.parametrize("asked", [{"time": "season"}, "time.season", {"time": {"bins": 3}}])
def test_groups_of_a_dimension_without_coordinate(
    tmp_path: Path, data: xr.Dataset, asked: Any
) -> None:
    path = changed(tmp_path, data.drop_vars("time"))
    assert "the dimension 'time' has no coordinate to make groups of" in refused(path, asked)


def test_labels_on_a_dimension_that_no_variable_has(tmp_path: Path, data: xr.Dataset) -> None:
    path = changed(tmp_path, data, band=("bands", np.arange(3)))
    assert "no feature or target has the dimension 'bands'" in refused(path, "band")


def test_dimensions_of_a_label_stand_together(store: str) -> None:
    message = refused(store, "zone", sample_dims=["y", "time", "x"])
    assert "y, x are cut together; name one directly after the other" in message


def test_axes_with_names_of_ours(tmp_path: Path, data: xr.Dataset) -> None:
    path = changed(tmp_path, data, split=("x", np.arange(10)))
    assert "'split' is a name of ours" in refused(path, "split")


def test_nothing_is_written_when_partitions_are_refused(store: str, tmp_path: Path) -> None:
    out = tmp_path / "results.zarr"
    raw = {
        "data": {"store": store, "features": ["a"], "target": "t", "partition_by": {"time": "tea"}},
        "models": [{"estimator": "sklearn.linear_model.Ridge"}],
        "output": {"store": str(out)},
    }
    with pytest.raises(SpecError, match="'tea' is no part of a date"):
        package.run(raw)
    assert list(tmp_path.iterdir()) == []


def test_dates_of_other_calendars(data: xr.Dataset) -> None:
    times = xr.date_range("2019-02-27", periods=60, freq="6h", calendar="noleap", use_cftime=True)
    other = data.assign_coords(time=times)
    for part, labels in {"date": "2019-02-28 00:00:00", "month": 3, "season": "MAM"}.items():
        asked = [Wanted("data.partition_by.0", "time", part)]
        (axis,), _ = make_axes(asked, other, ["y", "x", "time"])
        assert axis.labels is not None
        assert labels in axis.labels.tolist()
    (axis,), _ = make_axes([Wanted("p", "time", "3D")], other, ["y", "x", "time"])
    assert axis.labels is not None
    assert axis.labels[1] == "2019-03-02 00:00:00"
    assert axis.codes[[0, 11, 12, 59]].tolist() == [0, 0, 1, 4]
    bins = BinsSpec(bins=["2019-02-27", "2019-03-01", "2019-03-05"])
    (axis,), _ = make_axes([Wanted("p", "time", bins)], other, ["y", "x", "time"])
    assert axis.labels is not None
    assert axis.labels[0] == "[2019-02-27 00:00:00, 2019-03-01 00:00:00)"
    assert axis.codes[[0, 7, 8, 23, 24]].tolist() == [0, 0, 1, 1, -1]
    (axis,), _ = make_axes([Wanted("p", "time", BinsSpec(bins=2))], other, ["y", "x", "time"])
    assert axis.codes[[0, 29, 30, 59]].tolist() == [0, 0, 1, 1]
    _, faults = make_axes([Wanted("p", "time", "quarter")], other, ["y", "x", "time"])
    assert "'time' has no quarter" in faults[0].message


def test_characters_of_netcdf_are_texts(tmp_path: Path, data: xr.Dataset) -> None:
    """In UTF-8 or not: names that differ in one letter stay two."""
    names = np.array([*map(str.encode, ["K\xf6ln", "K\xe5ln"], ["latin-1"] * 2), "Zürich".encode()])
    few = data.drop_vars(["zone", "lat"]).isel(y=slice(3))
    for by, named in {
        "y": few.assign_coords(y=names),
        "net": few.assign(net=("y", names[[1, 0, 1]])),
    }.items():
        named.to_netcdf(tmp_path / f"{by}.nc")
        source = opened(str(tmp_path / f"{by}.nc"), [by])
        labels = [partition_labels(source.coordinates, source.dims, [i])[by] for i in range(2)]
        assert sorted(map(str, labels)) == ["Kåln", "Köln"]
