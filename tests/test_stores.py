"""Where data may be: groups, archives, servers, patterns, several stores joined."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from hpc_sweep.errors import SpecError
from hpc_sweep.source import Source, open_source
from hpc_sweep.spec import DataSpec, load_spec

HOUR = np.timedelta64(1, "h")
START = np.datetime64("2020-01-01", "ns")

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata")


def hours(first: int, count: int, names: str = "ab", **more: Any) -> xr.Dataset:
    rng = np.random.default_rng([first, count, len(names)])
    variables = {name: (("time", "y"), rng.normal(size=(count, 3))) for name in names}
    time = START + np.arange(first, first + count) * HOUR
    return xr.Dataset({**variables, **more}, coords={"time": time, "y": [1.0, 2.0, 3.0]})


def spec(*store: str, **keys: Any) -> DataSpec:
    usual = {"features": ["a"], "target": "b", "partition_by": ["y"]}
    return DataSpec(**{"store": list(store), **usual, **keys})


def opened(*store: str | Path, **keys: Any) -> Source:
    return open_source(spec(*map(str, store), **keys))


def fault(*store: str | Path, key: str = "data.store", **keys: Any) -> str:
    with pytest.raises(SpecError) as caught:
        opened(*store, **keys)
    return {each.path: each.message for each in caught.value.faults}[key]


def assert_is(source: Source, data: xr.Dataset) -> None:
    """Check that what is opened is some data, and that partitions of it are read."""
    xr.testing.assert_equal(source.dataset[["a", "b"]].load(), data[["a", "b"]])
    samples = next(source.read(np.array([[1]])))
    np.testing.assert_array_equal(samples.X[:, 0], data["a"].isel(y=1))
    np.testing.assert_array_equal(samples.y, data["b"].isel(y=1))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [False, True])
def test_groups_of_zarr(tmp_path: Path, zarr_format: int, consolidated: bool) -> None:
    data, path = hours(0, 9), tmp_path / "in.zarr"
    data.to_zarr(path, group="deep/er", zarr_format=zarr_format, consolidated=consolidated)
    assert_is(opened(path, group="deep/er"), data)
    assert "deep/er" in fault(path)
    assert "did you mean 'deep/er'" in fault(path, group="deep/re", key="data.group")


def test_groups_of_netcdf(tmp_path: Path) -> None:
    data, path = hours(0, 9), tmp_path / "in.nc"
    data.to_netcdf(path, group="deep/er")
    assert_is(opened(path, group="deep/er"), data)
    assert "deep/er" in fault(path)
    assert "did you mean 'deep/er'" in fault(path, group="deep/re", key="data.group")


def test_urls_of_local_files(tmp_path: Path) -> None:
    data = hours(0, 9)
    data.to_netcdf(tmp_path / "in.nc")
    assert_is(opened(f"file://{tmp_path}/in.nc"), data)
    assert "'/absent.nc' does not exist" in fault("file:///absent.nc")


def test_options_are_those_of_xarray(tmp_path: Path) -> None:
    data = hours(0, 9)
    data.to_netcdf(tmp_path / "in", engine="scipy")
    assert_is(opened(tmp_path / "in", open_options={"engine": "scipy"}), data)
    message = fault(tmp_path / "in", open_options={"engin": "scipy"}, key="data.open_options")
    assert "engin" in message


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_urls(tmp_path: Path, url: str) -> None:
    data = hours(0, 9)
    data.to_zarr(tmp_path / "in.zarr", zarr_format=3)
    data.to_netcdf(tmp_path / "in.nc")
    (tmp_path / "plain").symlink_to(tmp_path / "in.zarr")
    for place in (
        *(f"file://{tmp_path}/in.zarr", f"local://{tmp_path}/plain"),
        *(f"{url}/in.zarr", f"{url}/plain", f"simplecache::{url}/in.nc"),
    ):
        assert_is(opened(place), data)
    assert "absent.zarr" in fault(f"{url}/absent.zarr")
    assert "simplecache::" in fault(f"{url}/absent.nc")


def test_archives(tmp_path: Path) -> None:
    data = hours(0, 9)
    data.to_zarr(tmp_path / "in.zarr", zarr_format=3)
    archive = shutil.make_archive(str(tmp_path / "in"), "zip", tmp_path / "in.zarr")
    for place in (archive, f"zip::file://{archive}"):
        assert_is(opened(place), data)


def test_an_absent_protocol_is_a_library_that_is_missing() -> None:
    assert "not installed" in fault("gs://bucket/in.zarr")


# several stores


@pytest.fixture
def pieces(tmp_path: Path) -> list[Path]:
    hours(0, 10).to_zarr(tmp_path / "1.zarr", encoding={"a": {"chunks": (4, 3)}})
    hours(10, 7).to_netcdf(tmp_path / "2.nc")
    hours(17, 3).to_zarr(tmp_path / "3.zarr", zarr_format=2)
    return [tmp_path / "3.zarr", tmp_path / "1.zarr", tmp_path / "2.nc"]


@pytest.fixture
def whole() -> xr.Dataset:
    parts = [hours(0, 10), hours(10, 7), hours(17, 3)]
    return xr.combine_by_coords(parts, join="exact", data_vars="all")  # type: ignore[return-value]


def test_pieces_are_what_xarray_combines(pieces: list[Path], whole: xr.Dataset) -> None:
    source = opened(*pieces)
    assert not source.dataset["a"]._in_memory
    assert_is(source, whole)
    found = opened(*pieces).dataset["a"].variable
    for key in (
        (3,),
        (slice(8, 18),),
        (slice(18, 8, -2),),
        (slice(None, None, 3), 1),
        (np.array([1, 9, 10, 16]), slice(1, 3)),
        (np.array([19, 3, 3]),),
        (slice(0, 0),),
    ):
        np.testing.assert_array_equal(found[key].values, whole["a"].variable[key].values)


def test_pieces_may_have_more_than_is_named_in_any_order(
    pieces: list[Path], whole: xr.Dataset
) -> None:
    other = hours(10, 7).assign(more=("y", [1, 2, 3]), c=("time", np.arange(7)), unit=3.0)
    other["a"] = other["a"].round().astype("i4")
    other.transpose("y", "time").to_netcdf(pieces[-1])
    expected = whole.copy(deep=True)
    expected["a"][10:17] = other["a"]
    assert_is(opened(*pieces), expected)
    found = opened(*pieces).dataset["a"].variable
    for key in ((12, 1), (slice(9, 12), 0), (slice(16, 8, -3),), (np.array([9, 11, 17]),)):
        np.testing.assert_array_equal(found[key].values, expected["a"].variable[key].values)


@pytest.mark.parametrize("step", [-1, 1])
def test_pieces_along_numbers(tmp_path: Path, step: int) -> None:
    whole = hours(0, 9).isel(y=slice(None, None, step))
    for name, part in {"e": slice(2, None), "w": slice(0, 2)}.items():
        whole[["a"]].isel(y=part).to_zarr(tmp_path / f"{name}.zarr")
    whole[["b"]].to_netcdf(tmp_path / "b.nc")
    assert_is(opened(*(tmp_path / name for name in ("e.zarr", "w.zarr", "b.nc"))), whole)


def test_patterns(pieces: list[Path], whole: xr.Dataset, tmp_path: Path) -> None:
    assert_is(opened(tmp_path / "[0-9].*"), whole)
    assert_is(opened(f"file://{tmp_path}/[0-9].*"), whole)
    assert "nothing fits" in fault(tmp_path / "*.grib")
    assert "it holds 1.zarr, 2.nc, 3.zarr: name one" in fault(tmp_path)


def test_only_pieces_in_demand_are_read(pieces: list[Path]) -> None:
    source = opened(*pieces)
    for chunk in (pieces[0] / "a").glob("0.*"):
        chunk.write_bytes(b"damaged")
    source.dataset["a"].isel(time=slice(0, 17)).load()
    with pytest.raises(RuntimeError):
        source.dataset["a"].isel(time=slice(0, 18)).load()


def test_variables_side_by_side(pieces: list[Path], whole: xr.Dataset, tmp_path: Path) -> None:
    more = hours(0, 20, "cd", zone=("y", [1, 2, 1])).assign_coords(height=2.0)
    hours(0, 20, "e", zone=("y", [1, 2, 1])).assign_coords(height=10.0).to_netcdf(tmp_path / "e.nc")
    more.to_zarr(tmp_path / "more.zarr")
    source = opened(*pieces, tmp_path / "more.zarr", tmp_path / "e.nc", features=["a", "c", "e"])
    assert_is(source, whole)
    np.testing.assert_array_equal(source.dataset["d"], more["d"])


def test_conflicts(pieces: list[Path], tmp_path: Path) -> None:
    def with_(name: str, data: xr.Dataset) -> str:
        data.to_netcdf(tmp_path / name)
        return fault(*pieces, tmp_path / name)

    assert "overlap" in with_("overlapping.nc", hours(8, 4))
    assert "'time' differs between" in with_("shorter.nc", hours(0, 19, "c"))
    assert "'a' differs between" in with_("other.nc", hours(0, 20, "ac"))
    moved = hours(20, 5).assign_coords(y=[1.0, 2.0, 4.0])
    assert "along one dimension" in with_("moved.nc", moved)
    kelvin = hours(20, 5)
    kelvin["a"].attrs["units"] = "K"
    message = with_("kelvin.nc", kelvin)
    assert "units" in message
    assert "kelvin.nc" in message
    assert "pieces differ along one dimension" in fault(pieces[1], shutil_copy(pieces[1]))
    hours(30, 4).isel(time=0).to_netcdf(tmp_path / "30.nc")
    hours(31, 4).isel(time=0).to_netcdf(tmp_path / "31.nc")
    assert "and time is none there" in fault(tmp_path / "30.nc", tmp_path / "31.nc")
    assert "1.0 and 0.5 at index 0" in with_(
        "half.nc", hours(0, 20, "c").assign_coords(y=[0.5, 2, 3])
    )
    texts = hours(20, 5)
    texts["a"] = texts["a"].astype(str)
    assert "the values of 'a' are numbers in" in with_("texts.nc", texts)
    noleap = hours(20, 5).convert_calendar("noleap", use_cftime=True)
    assert "cannot be compared" in with_("noleap.nc", noleap)


def test_what_pieces_have_in_common_is_compared_where_it_is_named(tmp_path: Path) -> None:
    for name, zone in {"1.nc": 1, "2.nc": 2}.items():
        data = hours(10 * zone, 9, height=("y", [5.0, 6.0, zone]), zone=("y", [1, 1, zone]))
        data.to_netcdf(tmp_path / name)
    places = tmp_path / "1.nc", tmp_path / "2.nc"
    assert opened(*places).dataset.sizes["time"] == 18
    for keys in ({"features": ["a", "height"], "partition_by": []}, {"partition_by": ["zone"]}):
        message = fault(*places, **keys)
        assert "differs between" in message
        assert "2.nc" in message


def shutil_copy(path: Path) -> Path:
    return Path(shutil.copytree(path, path.with_name("copy.zarr")))


# loaders


def loading(folder: Path, code: str, name: str = "load", **keys: Any) -> DataSpec:
    (folder / "mine.py").write_text(code)
    data = {"loader": f"mine:{name}", "features": ["a"], "target": "b", "partition_by": ["y"]}
    raw = {"data": data | keys, "models": [{"estimator": "sklearn.linear_model.Ridge"}]}
    (folder / "spec.yaml").write_text(json.dumps(raw | {"output": {"store": "out.zarr"}}))
    return load_spec(folder / "spec.yaml").data


def refused(data: DataSpec) -> str:
    with pytest.raises(SpecError) as caught:
        open_source(data)
    (fault,) = caught.value.faults
    assert fault.path == "data.loader"
    return fault.message


LOADER = """
import numpy as np, xarray as xr
from sibling import SCALE

def load(count=9):
    values = SCALE * np.arange(3 * count, dtype=float).reshape(count, 3)
    return xr.Dataset({"a": (("t", "y"), values), "b": (("t", "y"), -values)})

def fail():
    return 1 / 0

other = 3
"""


def test_a_loader_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "sibling.py").write_text("SCALE = 2")
    data = loading(tmp_path, LOADER, loader_args={"count": 4})
    samples = next(open_source(data).read(np.array([[1]])))
    np.testing.assert_array_equal(samples.X[:, 0], 2 * np.arange(1, 12, 3))
    assert open_source(data).identity() != open_source(loading(tmp_path, LOADER)).identity()
    assert "mine.py:10" in refused(loading(tmp_path, LOADER, "fail"))
    assert "ZeroDivisionError" in refused(loading(tmp_path, LOADER, "fail"))
    assert "did you mean 'load'" in refused(loading(tmp_path, LOADER, "lod"))
    assert "type int" in refused(loading(tmp_path, LOADER, "other"))
    assert "'size'" in refused(loading(tmp_path, LOADER, loader_args={"size": 1}))
    assert "SyntaxError" in refused(loading(tmp_path, "def load(:"))
    message = refused(loading(tmp_path, "import xarray\ndef load(): return xarray.Dataset()"))
    assert "no variables" in message
    assert "returned dict" in refused(loading(tmp_path, "def load(): return {}"))


LEVELS = """
import numpy as np, pandas as pd, xarray as xr

def load():
    index = pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["net", "number"])
    stations = xr.Coordinates.from_pandas_multiindex(index, "station")
    X = np.arange(12, dtype=">f4").reshape(4, 3)
    arrays = {"a": (("station", "t"), X), "b": (("station", "t"), X.astype(">i2"))}
    return xr.Dataset({**arrays, "zone": ("station", np.array([1, 2, 1, 2], ">i4"))}, stations)

def leave():
    raise SystemExit(3)
"""


@pytest.mark.parametrize(
    ("by", "labels", "count"),
    [("station", None, 3), ("net", ["a", "b"], 6), ("zone", [1, 2], 6)],
)
def test_a_loader_may_return_what_no_store_has(
    tmp_path: Path, by: str, labels: Any, count: int
) -> None:
    """Coordinates of several levels, and the bytes of other machines."""
    data = loading(tmp_path, LEVELS, features=["a"], target="b", partition_by=[by])
    source = open_source(data)
    assert len(source.identity()) == 64
    assert labels is None or source.coordinates[by].tolist() == labels
    assert {"net", "number"} <= {*source.kept_coordinates.variables} or by != "station"
    samples = next(source.read(np.array([[1]])))
    assert samples.y.dtype == np.dtype("i2")
    np.testing.assert_array_equal(samples.X[:, 0], samples.y)
    assert len(samples) == count


def test_a_loader_that_leaves_python(tmp_path: Path) -> None:
    assert "raised SystemExit in" in refused(loading(tmp_path, LEVELS, "leave"))


def test_the_folder_of_a_loader_is_in_no_digest(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "sibling.py").write_text("SCALE = 2")
    digests = set()
    for folder in (tmp_path / "one", tmp_path / "two"):
        loading(folder, LOADER)
        digests.add(load_spec(folder / "spec.yaml").digest())
    assert len(digests) == 1


def test_a_loader_that_is_installed() -> None:
    data = DataSpec(loader="json:dumps", features=["a"], partition_by=["y"])
    assert "cannot be called" in refused(data)
    data = DataSpec(loader="no_such_module:load", features=["a"], partition_by=["y"])
    assert "no_such_module" in refused(data)
