"""The source: what is opened, what is refused, and that reading is plain selection."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from hpc_sweep.errors import SpecError
from hpc_sweep.partitions import partition_labels
from hpc_sweep.source import Source, open_source
from hpc_sweep.source.reading import PlainReading
from hpc_sweep.spec import DataSpec

SIZES = {"y": 5, "x": 7, "time": 12, "member": 3}
CHUNKS = {"y": 2, "x": 3, "time": 12, "member": 3}
Write = Callable[..., str]


def array(*dims: str, seed: int = 0, gaps: float = 0.0, dtype: str = "float64") -> xr.DataArray:
    rng = np.random.default_rng([seed, len(dims)])
    values = rng.normal(0, 10, [SIZES[dim] for dim in dims])
    values[rng.random(values.shape) < gaps] = np.nan
    return xr.DataArray(values.astype(dtype), dims=dims)


def dataset(**more: Any) -> xr.Dataset:
    return xr.Dataset(
        {
            "a": array("y", "x", "time", seed=1, gaps=0.1),
            "b": array("time", "x", "y", seed=2, gaps=0.1),
            "hour": array("time", seed=3),
            "height": array("y", "x", "time", seed=4, dtype="float32"),
            "slope": array("y", "x", "time", seed=5, gaps=0.1),
            "other": array("x", "time", "y", seed=6, gaps=0.2),
            "kind": array("y", "x", "time", seed=7, dtype="int16"),
            **more,
        },
        coords={
            "y": np.arange(SIZES["y"]) * 0.25,
            "x": ("x", [f"a-rather-long-name-of-column-{i}" for i in range(SIZES["x"])]),
            "time": np.datetime64("2020-01-01", "ns") + np.arange(12) * np.timedelta64(1, "D"),
            "lat": (("y", "x"), array("y", "x", seed=8).values),
            "row": ("y", np.arange(SIZES["y"])),
            "height_of_sensor": 2.0,
        },
    )


def chunked(data: xr.Dataset) -> dict[str, dict[str, list[int]]]:
    return {
        str(name): {"chunks": [CHUNKS.get(str(dim), 1) for dim in variable.dims]}
        for name, variable in data.data_vars.items()
        if variable.dims
    }


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(data: xr.Dataset, name: str = "in.zarr", **options: Any) -> str:
        path = str(tmp_path / name)
        if name.endswith(".nc"):
            data.to_netcdf(path, **options)
            return path
        options = {"zarr_format": 2, "consolidated": True, "encoding": chunked(data)} | options
        with warnings.catch_warnings():
            # zarr warns that consolidated metadata and texts are not in the v3 specification
            warnings.simplefilter("ignore")
            data.to_zarr(path, **options)
        return path

    return write


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of `dataset`; read only."""
    path = str(tmp_path_factory.mktemp("source") / "common.zarr")
    data = dataset()
    data.to_zarr(path, zarr_format=2, consolidated=True, encoding=chunked(data))
    return path


def spec(store: str, **keys: Any) -> DataSpec:
    usual = {"features": ["a", "b"], "target": "slope", "partition_by": ["y", "x"]}
    return DataSpec(**{"store": store, **usual, **keys})


def opened(store: str, **keys: Any) -> Source:
    return open_source(spec(store, **keys))


def everything(source: Source) -> np.ndarray[Any, Any]:
    grid = source.grid
    return grid.reading_order(grid.shape, (0,) * len(grid.shape))


def faults(store: str, **keys: Any) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        opened(store, **keys)
    assert len({fault.path for fault in caught.value.faults}) == len(caught.value.faults)
    return {fault.path: fault.message for fault in caught.value.faults}


# what is read


def selected(
    source: Source, data: xr.Dataset, partition: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Select a partition with plain xarray: the other way to the same arrays."""
    here = dict(zip(source.dims, map(int, partition), strict=False))

    def columns(names: list[str]) -> np.ndarray[Any, Any]:
        variables = [
            data[n].isel({d: i for d, i in here.items() if d in data[n].dims}) for n in names
        ]
        # all dimensions, in the order of the samples, even where no variable has them all
        full = xr.broadcast(*(v.reset_coords(drop=True) for v in variables), data["_samples"])[:-1]
        found = [v.transpose(*source.sample_dims).values.ravel() for v in full]
        return np.stack(found, axis=1)

    sizes = [data.sizes[dim] for dim in source.sample_dims]
    data = data.assign(_samples=(source.sample_dims, np.zeros(sizes)))
    X = columns(source.data.features).astype(source.data.dtype)
    targets = list(source.targets)
    if source.separate:
        targets = [targets[partition[-1]]]
    if not targets:
        return (X[~np.isnan(X).any(axis=1)] if source.data.dropna else X), None
    y = columns(targets)
    if y.dtype.kind == "f":
        y = y.astype(source.data.dtype)
    if source.data.dropna:
        kept = ~(np.isnan(X).any(axis=1) | np.isnan(y.astype(float)).any(axis=1))
        X, y = X[kept], y[kept]
    return X, y[:, 0] if len(targets) == 1 else y


def assert_reads(source: Source, data: xr.Dataset, partitions: np.ndarray[Any, Any]) -> None:
    found = list(source.read(partitions))
    assert len(found) == len(partitions)
    for partition, samples in zip(partitions, found, strict=True):
        X, y = samples.X, samples.y
        expected_X, expected_y = selected(source, data, partition)
        np.testing.assert_array_equal(X, expected_X, strict=True)
        if expected_y is None:
            assert y is None
        else:
            np.testing.assert_array_equal(y, expected_y, strict=True)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one dimension": {"partition_by": ["y"], "features": ["a", "hour"]},
    "order of the spec": {"partition_by": ["x", "y"]},
    "lacks partition dims": {"features": ["hour", "a"]},
    "only such": {"features": ["hour"]},
    "keeps gaps": {"dropna": False},
    "float32": {"dtype": "float32", "features": ["a", "height", "kind"]},
    "integer target": {"target": "kind"},
    "integer target, float32": {"target": "kind", "dtype": "float32"},
    "float32 target": {"target": "height"},
    "joint": {"target": ["slope", "other"]},
    "joint, mixed": {"target": ["slope", "kind"]},
    "separate": {"target": ["slope", "other", "kind"], "outputs": "separate"},
    "no target": {"target": None},
    "samples are pixels": {"partition_by": ["time"], "features": ["a", "b"]},
    "two sample dims": {"partition_by": ["x"], "sample_dims": ["time", "y"]},
    "other order": {"partition_by": ["x"], "sample_dims": ["y", "time"], "features": ["hour", "b"]},
}


@pytest.mark.parametrize("case", CASES)
def test_reading_is_plain_selection(common: str, case: str) -> None:
    source = opened(common, **CASES[case])
    assert_reads(source, dataset(), everything(source))


@pytest.mark.parametrize("seed", range(12))
def test_reading_any_block_is_plain_selection(common: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = opened(common, **list(CASES.values())[seed % len(CASES)])
    grid = source.grid
    chunks = tuple(int(rng.integers(1, n + 1)) for n in grid.shape)
    index = tuple(int(rng.integers(n)) for n in grid.chunk_grid(chunks))
    order = grid.reading_order(chunks, index)
    start = int(rng.integers(len(order)))
    assert_reads(source, dataset(), order[start : start + int(rng.integers(1, 9))])
    assert_reads(source, dataset(), rng.permutation(everything(source))[:4])


def test_reading_reads_a_block_once(common: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(common)
    loads: list[str] = []
    load = PlainReading.read
    monkeypatch.setattr(
        PlainReading,
        "read",
        lambda self, names, box: loads.extend(names) or load(self, names, box),
    )
    for _ in source.read(everything(source)[:6]):
        pass
    assert loads == ["a", "b", "slope"]


def test_opening_reads_no_data(common: str) -> None:
    source = opened(common)
    _ = source.grid, source.source_bytes, source.chunk_bytes, source.identity()
    assert not any(source.dataset[name]._in_memory for name in source.variables)


@pytest.mark.parametrize("dropna", [True, False])
def test_infinite_numbers_are_no_gaps(write: Write, dropna: bool) -> None:
    data = dataset()
    data["slope"][:] = np.inf
    data["other"][:] = -np.inf
    data["a"][:] = np.inf
    features = {"features": ["a", "hour"], "target": ["slope", "other"], "dropna": dropna}
    source = opened(write(data), **features)
    assert_reads(source, data, everything(source)[:2])
    samples = next(source.read(everything(source)))
    X, y = samples.X, samples.y
    assert len(X) == SIZES["time"]
    assert y is not None


def test_a_partition_without_data_is_empty_and_no_fault(write: Write) -> None:
    data = dataset()
    data["slope"][0, 0] = np.nan
    samples = next(opened(write(data)).read(np.array([[0, 0]])))
    X, y = samples.X, samples.y
    assert X.shape == (0, 2)
    assert y is not None
    assert y.shape == (0,)


def test_integer_targets_without_gaps_keep_every_sample_with_features(common: str) -> None:
    source = opened(common, features=["hour"], target="kind")
    for samples in source.read(everything(source)):
        assert len(samples) == SIZES["time"]
        assert samples.y.dtype == np.int16


def test_scale_and_offset_are_applied(write: Write) -> None:
    data = dataset()
    packed = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 5.0, "_FillValue": -32768}
    encoding = chunked(data)
    encoding["a"] |= packed  # type: ignore[arg-type]
    source = opened(write(data, encoding=encoding), features=["a"])
    for X, partition in zip(
        (samples.X for samples in source.read(everything(source))), everything(source), strict=True
    ):
        plain = data[["a", "slope"]].isel(y=partition[0], x=partition[1]).to_dataframe().dropna()
        np.testing.assert_allclose(X[:, 0], plain["a"], atol=0.006)


def test_a_masked_integer_target_loses_its_gaps(write: Write) -> None:
    data = dataset()
    encoding = chunked(data)
    encoding["kind"] |= {"_FillValue": int(data["kind"][0, 0, 0])}  # type: ignore[dict-item]
    source = opened(write(data, encoding=encoding), features=["hour"], target="kind")
    samples = next(source.read(np.array([[0, 0]])))
    X, y = samples.X, samples.y
    assert len(X) < SIZES["time"]
    assert y is not None
    assert not np.isnan(y).any()


def test_durations_are_numbers(write: Write) -> None:
    data = dataset()
    data["a"].attrs["units"] = "days"
    source = opened(write(data))
    assert_reads(source, data, everything(source)[:2])


def test_a_coordinate_can_be_a_feature(write: Write) -> None:
    data = dataset().assign_coords(age=("time", np.arange(12.0)))
    source = opened(write(data), features=["a", "age"])
    assert_reads(source, data, everything(source)[:3])


@pytest.mark.parametrize("kept", [0, 40, -1])
def test_a_damaged_chunk_is_an_error_and_no_number(write: Write, kept: int) -> None:
    store = write(dataset(), zarr_format=3)
    chunk = Path(store, "a", "c", "0", "0", "0")
    chunk.write_bytes(chunk.read_bytes()[:kept])
    with pytest.raises(RuntimeError, match="decompress"):
        next(opened(store).read(np.array([[0, 0]])))


# formats


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
def test_zarr(write: Write, zarr_format: int, consolidated: bool) -> None:
    store = write(dataset(), zarr_format=zarr_format, consolidated=consolidated)
    source = opened(store)
    assert source.grid.dims == ("y", "x")
    assert source.grid.read_chunks == (2, 3)
    assert_reads(source, dataset(), everything(source)[:5])


def test_chunked_netcdf(write: Write) -> None:
    data = dataset()
    sizes = {name: {"chunksizes": encoding["chunks"]} for name, encoding in chunked(data).items()}
    source = opened(write(data, "in.nc", encoding=sizes))
    assert source.grid.read_chunks == (2, 3)
    assert source.chunk_bytes == 2 * 3 * 12 * 8
    assert_reads(source, data, everything(source)[:5])
    source.dataset.close()


def test_contiguous_netcdf(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write(dataset(), "in.nc")
    source = opened(store)
    assert source.grid.read_chunks == (5, 7)
    assert source.chunk_bytes == 0
    assert_reads(source, dataset(), everything(source)[:5])
    source.dataset.close()
    monkeypatch.setattr("hpc_sweep.source.layout.FREE_BLOCK_BYTES", 15 * source.partition_bytes)
    assert opened(store).grid.read_chunks == (2, 7)
    monkeypatch.setattr("hpc_sweep.source.layout.FREE_BLOCK_BYTES", 1)
    assert opened(store).grid.read_chunks == (1, 1)


def test_url(write: Write) -> None:
    store = write(dataset())
    assert opened(f"file://{store}").identity() == opened(store).identity()


def test_chunks_are_those_of_the_largest_variable(write: Write) -> None:
    data = dataset(wide=array("member", "y", "x", "time"))
    encoding = chunked(data)
    encoding["wide"] = {"chunks": [3, 5, 1, 12]}
    source = opened(
        write(data, encoding=encoding),
        features=["a", "wide"],
        target=None,
        sample_dims=["time", "member"],
    )
    assert source.grid.read_chunks == (5, 1)


def test_bytes(common: str) -> None:
    source = opened(common, features=["a", "height"])
    assert source.source_bytes == 5 * 7 * 12 * (8 + 4 + 8)
    assert source.partition_bytes == 12 * (8 + 4 + 8)
    assert source.chunk_bytes == 2 * 3 * 12 * 8
    assert source.n_samples == 12


# the grid


def test_partition_dims_are_in_the_order_of_the_data(common: str) -> None:
    for names in (["x", "y"], ["y", "x"]):
        source = opened(common, partition_by=names)
        assert source.grid.dims == ("y", "x")
        assert source.grid.shape == (5, 7)


def test_separate_targets_are_a_dimension_read_as_one(common: str) -> None:
    source = opened(common, target=["slope", "other"], outputs="separate")
    assert source.grid.dims == ("y", "x", "target")
    assert source.grid.shape == (5, 7, 2)
    assert source.grid.read_chunks == (2, 3, 2)
    labels = partition_labels(source.coordinates, source.grid.dims, [1, 2, 1])
    assert labels == {"y": 0.25, "x": "a-rather-long-name-of-column-2", "target": "other"}


def test_joint_targets_are_no_dimension(common: str) -> None:
    assert opened(common, target=["slope", "other"]).grid.dims == ("y", "x")


def test_sample_dims_are_inferred(write: Write) -> None:
    data = dataset(wide=array("member", "y", "x", "time"))
    source = opened(write(data), target="wide")
    assert source.sample_dims == ("member", "time")
    assert source.n_samples == 36
    assert_reads(source, data, everything(source)[:3])


def test_kept_coordinates(common: str) -> None:
    kept = opened(common).kept_coordinates
    assert set(kept.variables) == {"y", "x", "lat", "row"}
    assert kept["lat"].dims == ("y", "x")
    np.testing.assert_array_equal(kept["lat"], dataset()["lat"])
    only_y = opened(common, partition_by=["y"], features=["a", "b"]).kept_coordinates
    assert set(only_y.variables) == {"y", "row"}


def test_dimensions_without_coordinates_have_no_labels(write: Write) -> None:
    source = opened(write(dataset().drop_vars(["y", "lat", "row"])))
    assert set(source.coordinates) == {"x"}
    labels = partition_labels(source.coordinates, source.grid.dims, [3, 0])
    assert labels == {"y": 3, "x": "a-rather-long-name-of-column-0"}


# faults


def test_missing_store_names_the_nearest_file(write: Write, tmp_path: Path) -> None:
    write(dataset(), "era5.zarr")
    found = faults(str(tmp_path / "era5.zar"))
    assert set(found) == {"data.store"}
    assert "does not exist; did you mean 'era5.zarr'?" in found["data.store"]


@pytest.mark.parametrize("name", ["nowhere/in.zarr", "a" * 300, "file/in.zarr"])
def test_missing_store(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("text")
    assert "does not exist" in faults(str(tmp_path / name))["data.store"]


@pytest.mark.parametrize("name", ["text.zarr", "text.nc", "empty.nc", "folder.zarr", "array.zarr"])
def test_not_a_data_set(tmp_path: Path, name: str) -> None:
    import zarr

    (tmp_path / "text.zarr").write_text("no zarr")
    (tmp_path / "text.nc").write_text("no netCDF")
    (tmp_path / "empty.nc").write_bytes(b"")
    (tmp_path / "folder.zarr").mkdir()
    zarr.create_array(tmp_path / "array.zarr", shape=(2,), dtype="f8")
    found = faults(str(tmp_path / name))
    assert set(found) == {"data.store"}
    assert "is not a data set that xarray can open" in found["data.store"]
    assert name in found["data.store"]
    assert len(found["data.store"]) < 700


@pytest.mark.parametrize("url", ["nonsense://a/b.zarr", "memory://nothing.zarr", "a::b"])
def test_not_a_url(url: str) -> None:
    assert "is not a data set that xarray can open" in faults(url)["data.store"]


def test_damaged_metadata(write: Write) -> None:
    store = write(dataset(), consolidated=False)
    Path(store, "a", ".zarray").write_text("{")
    assert "is not a data set that xarray can open" in faults(store)["data.store"]


def test_unknown_names_are_faults_all_at_once(common: str) -> None:
    found = faults(
        common,
        features=["a", "heigth", "zzz"],
        target=["slop"],
        partition_by=["y", "xx"],
        sample_dims=["tiem"],
    )
    assert set(found) == {
        "data.features.1",
        "data.features.2",
        "data.target.0",
        "data.partition_by.1",
        "data.sample_dims",
    }
    assert "no variable 'heigth'; did you mean 'height'?" in found["data.features.1"]
    assert "no variable 'zzz'; it has" in found["data.features.2"]
    assert "did you mean 'slope'?" in found["data.target.0"]
    assert "'xx' is no dimension" in found["data.partition_by.1"]
    assert (
        "'tiem' is no dimension of the data set; did you mean 'time'?" in found["data.sample_dims"]
    )


def test_partition_by_a_variable_without_dimension(common: str) -> None:
    message = faults(common, partition_by=["height_of_sensor"])["data.partition_by.0"]
    assert "'height_of_sensor' has 0 dimensions; labels lie on one or 2" in message


def test_a_dimension_twice(common: str) -> None:
    found = faults(common, sample_dims=["time", "x"])
    assert found == {"data.sample_dims": "'x' is also in data.partition_by"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((5, 7, 12), "text"), "<U4"),
        (np.full((5, 7, 12), np.datetime64("2020-01-01", "ns")), "datetime64"),
        (np.full((5, 7, 12), 1j), "complex128"),
    ],
)
def test_variables_that_are_no_numbers(write: Write, values: Any, words: str) -> None:
    store = write(dataset(bad=(("y", "x", "time"), values)), encoding={})
    message = faults(store, features=["a", "bad"])["data.features.1"]
    assert "'bad' is of dtype" in message
    assert words in message
    assert "need numbers" in message


def test_feature_without_the_sample_dimension(write: Write) -> None:
    store = write(dataset(flat=array("y", "x")))
    found = faults(store, features=["a", "flat"])
    assert list(found) == ["data.features.1"]
    assert "lacks the sample dimension time: it is the same for all" in found["data.features.1"]


def test_target_without_the_sample_dimension(write: Write) -> None:
    store = write(dataset(flat=array("y", "x")))
    assert faults(store, target="flat", sample_dims=["time"]) == {
        "data.target.0": "'flat' lacks the sample dimension time: it is the same for all samples "
        "of a partition"
    }


def test_target_without_a_partition_dimension(common: str) -> None:
    assert faults(common, target="hour") == {
        "data.target.0": "the target 'hour' lacks the dimension x, y"
    }


def test_variable_with_a_further_dimension(write: Write) -> None:
    store = write(dataset(wide=array("member", "y", "x", "time")))
    found = faults(store, features=["a", "wide"], sample_dims=["time"])
    assert found == {
        "data.features.1": "'wide' has member besides; put it into partition_by or sample_dims"
    }


def test_no_dimension_left_for_samples(common: str) -> None:
    found = faults(common, partition_by=["y", "x", "time"])
    assert set(found) == {"data.partition_by"}
    assert "no dimension is left for samples" in found["data.partition_by"]


def test_partition_dimension_that_no_variable_has(write: Write) -> None:
    store = write(dataset(wide=array("member", "y", "x", "time")))
    found = faults(store, partition_by=["y", "x", "member"])
    assert found == {"data.partition_by": "no feature or target has the dimension 'member'"}


@pytest.mark.parametrize("name", ["candidate", "split", "target"])
def test_dimension_with_a_name_of_ours(write: Write, name: str) -> None:
    found = faults(write(dataset().rename(time=name), encoding={}))
    assert set(found) == {"data.store"}
    assert f"dimension '{name}' is a name of ours in the store; rename it" in found["data.store"]


def test_a_name_of_ours_on_other_variables_is_no_fault(write: Write) -> None:
    data = dataset(unused=("candidate", np.zeros(3)))
    opened(write(data, encoding={}))


@pytest.mark.parametrize("dim", ["y", "time"])
def test_empty_dimension(write: Write, dim: str) -> None:
    found = faults(write(dataset().isel({dim: slice(0)}), encoding={}))
    assert found == {"data.store": f"the dimension '{dim}' has no elements"}


# identity


def test_identity_is_that_of_a_copy(write: Write, tmp_path: Path) -> None:
    store = write(dataset())
    shutil.copytree(store, tmp_path / "elsewhere.zarr")
    assert opened(str(tmp_path / "elsewhere.zarr")).identity() == opened(store).identity()


def test_identity_is_that_of_other_chunks_and_formats(write: Write) -> None:
    one = opened(write(dataset(), "one.zarr"))
    assert opened(write(dataset(), "two.zarr", encoding={})).identity() == one.identity()
    assert opened(write(dataset(), "three.zarr", zarr_format=3)).identity() == one.identity()


def test_identity_does_not_depend_on_other_variables(write: Write) -> None:
    one = opened(write(dataset(), "one.zarr"))
    data = dataset(more=array("time"))
    data.attrs["history"] = "copied today"
    assert opened(write(data, "two.zarr")).identity() == one.identity()


def shifted(data: xr.Dataset, dim: str) -> xr.Dataset:
    return data.assign_coords({dim: data[dim] + (data[dim][1] - data[dim][0])})


@pytest.mark.parametrize(
    "change",
    [
        lambda data: shifted(data, "y"),
        lambda data: shifted(data, "time"),
        lambda data: data.assign_coords(x=[f"A{name[1:]}" for name in data["x"].values]),
        lambda data: data.isel(y=slice(4)),
        lambda data: data.isel(x=slice(None, None, -1)),
        lambda data: data.assign(a=data["a"].astype("float32")),
        lambda data: data.assign(a=data["a"].assign_attrs(units="K")),
        lambda data: data.assign(a=data["a"].transpose("time", "y", "x")),
        lambda data: data.drop_vars("time"),
    ],
)
def test_identity_changes_with_coordinates_and_metadata(
    write: Write, change: Callable[[xr.Dataset], xr.Dataset]
) -> None:
    one = opened(write(dataset(), "one.zarr", encoding={}))
    other = opened(write(change(dataset()), "two.zarr", encoding={}))
    assert one.identity() != other.identity()


def test_identity_sees_long_texts_of_variable_length(write: Write) -> None:
    found = set()
    for letter in "ABA":
        names = [f"{letter}-rather-long-name-of-column-{i}" for i in range(SIZES["x"])]
        texts = np.array(names, dtype=np.dtypes.StringDType())
        data = dataset().assign_coords(x=("x", texts))
        store = write(data, f"{letter}{len(found)}.zarr", zarr_format=3)
        found.add(opened(store).identity())
    assert len(found) == 2


# masks, and targets that are no numbers


@pytest.mark.parametrize("dims", [("time",), ("y", "x"), ("x", "y", "time"), ("y", "time")])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_mask_says_which_samples_there_are(
    write: Write, dims: tuple[str, ...], inverted: bool
) -> None:
    data = dataset(valid=array(*dims, seed=9) > 0)
    if len(dims) == 2:  # netCDF has no truth values
        data["valid"] = data["valid"].astype("i1")
    source = opened(write(data), where="~valid" if inverted else "valid", dropna=False)
    partitions = everything(source)
    for partition, samples in zip(partitions, source.read(partitions), strict=True):
        here = data.isel(y=int(partition[0]), x=int(partition[1]))
        mask = here["valid"].astype(bool).broadcast_like(here["a"]).values ^ inverted
        expected = np.stack([here["a"].values, here["b"].values], axis=1)[mask]
        np.testing.assert_array_equal(samples.X, expected)
        np.testing.assert_array_equal(samples.y, here["slope"].values[mask])


def test_a_mask_that_is_none_is_refused(common: str) -> None:
    assert "boolean" in faults(common, where="kind")["data.where"]
    assert "'height'" in faults(common, where="~heigt")["data.where"]


def test_texts_are_targets_and_gaps_in_them_drop_samples(write: Write) -> None:
    texts = np.array(["wet", "dry", None], dtype=object)[np.arange(12 * 35).reshape(5, 7, 12) % 3]
    source = opened(write(dataset(), "in.nc"))
    source.dataset["kind"] = (("y", "x", "time"), texts)
    source = dataclasses.replace(source, data=spec("-", target="kind"))
    samples = next(source.read(np.array([[1, 2]])))
    here = source.dataset[["a", "b", "kind"]].isel(y=1, x=2).to_dataframe().dropna()
    assert samples.y.tolist() == here["kind"].tolist()
    np.testing.assert_array_equal(samples.X, here[["a", "b"]].to_numpy())


def test_texts_in_a_store_are_targets(write: Write) -> None:
    texts = np.array(["wet", "dry"])[np.arange(12 * 35).reshape(5, 7, 12) % 2]
    data = dataset(kind=(("y", "x", "time"), texts))
    samples = next(opened(write(data), target="kind", dropna=False).read(np.array([[1, 2]])))
    assert samples.y.tolist() == texts[1, 2].tolist()
    data["kind"][1, 2, 3:5] = ""
    here = data.isel(y=1, x=2)
    samples = next(opened(write(data, "c.zarr"), target="kind").read(np.array([[1, 2]])))
    whole = np.isfinite(here["a"].values + here["b"].values) & (data["kind"][1, 2] != "")
    assert samples.y.tolist() == data["kind"].values[1, 2][whole].tolist()
    assert "numbers" in faults(write(data, "b.zarr"), features=["kind"])["data.features.0"]


def test_samples_held_out_by_what_formats_have(write: Write) -> None:
    """No truth values, and decimal numbers of four bytes."""
    flag, depth = np.arange(12, dtype="i1"), np.arange(12, dtype="f4") / 10
    path = write(dataset(flag=("time", flag % 2), depth=("time", depth), more=("time", flag % 3)))
    for holdout, held in (({"mask": "flag"}, flag % 2 == 1), ({"depth": [0.1, 0.7]}, [1, 7])):
        found = next(opened(path, holdout=holdout, dropna=False).read(np.array([[1, 2]])))
        assert found.held_out is not None
        np.testing.assert_array_equal(found.held_out.y, dataset()["slope"].values[1, 2][held])
    assert "'more' has the value 2" in faults(path, holdout={"mask": "more"})["data.holdout"]
    assert "'more' has the value 2" in faults(path, where="~more")["data.where"]
