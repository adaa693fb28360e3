"""The store as a zarr group: layout, fills, coordinates, all-or-nothing creation, opening."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import xarray as xr
import zarr
from builders import (
    NEIGHBORS,
    RIDGE,
    all_chunks,
    invent,
    leave,
    make_spec,
    make_store,
    whole,
)

from hpc_sweep.choices import PENDING, STATUS_MEANINGS
from hpc_sweep.errors import StoreError
from hpc_sweep.partitions import PartitionGrid
from hpc_sweep.store import Store, create_store, fold, run_folder
from hpc_sweep.store import header as headers
from hpc_sweep.strategies import draw


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power cuts."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def metadata(store: Store) -> dict[str, Any]:
    """Return the content of ``zarr.json`` of every array by name."""
    files = store.path.glob("*/zarr.json")
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def opened(store: Store) -> xr.Dataset:
    """Open as any user would; warnings are errors here."""
    results: xr.Dataset = xr.open_zarr(store.path).load()
    return results


def make_coordinates() -> xr.Dataset:
    """Return coordinates of many kinds for the grid of 3 × 4."""
    lat, lon = np.meshgrid([52.0, 51.5, 51.0], [-1.0, -0.75, -0.5, -0.25], indexing="ij")
    lat[0, 0] = np.nan
    seen = np.array(["2001-02-03T04:05", "1850-01-01", "NaT"], dtype="datetime64[ns]")
    return xr.Dataset(
        coords={
            "latitude": ("latitude", np.array([3.5, 2.5, 1.5]), {"units": "degrees_north"}),
            "longitude": ("longitude", ["Þórsmörk", "b", "", "a long name"]),
            "seen": ("latitude", seen, {"long_name": "first seen"}),
            "lat": (("latitude", "longitude"), lat, {"standard_name": "latitude"}),
            "lon": (("latitude", "longitude"), lon.astype("float32")),
            "land": ("longitude", np.array([True, False, True, True])),
            "zone": ("longitude", np.arange(4, dtype="int8"), {"flag_values": np.arange(4)}),
            "age": ("latitude", np.array([1, 2, 3], dtype="timedelta64[h]").astype("m8[ns]")),
        }
    )


# layout


def test_pending_store_reads_as_missing(tmp_path: Path) -> None:
    store = make_store(tmp_path, models=[RIDGE, NEIGHBORS], scoring=["r2", "max_error"], refit="r2")
    results = opened(store)
    fills: dict[str, Any] = {"best_index": -1, "n_samples": -1, "n_splits": -1, "revision": -1}
    fills |= {f"rank_test_{metric}": -1 for metric in ("r2", "max_error")}
    fills |= {"status": PENDING, "partition_status": PENDING}
    for array in store.arrays:
        values = results[array.name].values
        assert values.shape[:2] == (3, 4)
        if array.dtype == "str":
            assert (values == "").all()
        elif array.name in fills:
            assert (values == fills.pop(array.name)).all()
        else:
            assert values.dtype.kind == "f"
            assert np.isnan(values).all(), array.name
    assert not fills


def test_dimensions_are_natural(tmp_path: Path) -> None:
    results = opened(make_store(tmp_path, models=[RIDGE, NEIGHBORS], n_splits=4))
    dims = ("latitude", "longitude")
    assert results.sizes == {"latitude": 3, "longitude": 4, "candidate": 5, "split": 4}
    assert results["best_score"].dims == dims
    assert results["status"].dims == (*dims, "candidate")
    assert results["test_score"].dims == (*dims, "candidate", "split")
    assert results["param_alpha"].dims == ("candidate",)


def test_dimensions_without_coordinates_get_none(tmp_path: Path) -> None:
    assert set(opened(make_store(tmp_path)).coords) == {"candidate", "split"}


@pytest.mark.parametrize("name", ["status", "partition_status"])
def test_states_have_flag_attributes(tmp_path: Path, name: str) -> None:
    attributes = opened(make_store(tmp_path))[name].attrs
    assert list(attributes["flag_values"]) == list(range(len(STATUS_MEANINGS)))
    assert attributes["flag_meanings"].split() == list(STATUS_MEANINGS)
    assert attributes["flag_meanings"].split()[0] == "pending"


def test_every_array_is_zarr_3_with_flat_keys_and_checksums(tmp_path: Path) -> None:
    store = make_store(tmp_path, coordinates=make_coordinates())
    arrays = metadata(store)
    assert {"status", "latitude", "lat", "candidate_json", "split"} <= set(arrays)
    for name, array in arrays.items():
        assert array["zarr_format"] == 3, name
        assert array["chunk_key_encoding"]["configuration"] == {"separator": "."}, name
        assert [codec["name"] for codec in array["codecs"]][-1] == "crc32c", name
        assert array["dimension_names"], name


def test_text_is_of_variable_length(tmp_path: Path) -> None:
    arrays = metadata(make_store(tmp_path, coordinates=make_coordinates(), models=[NEIGHBORS]))
    for name in ("message", "best_model", "candidate_json", "param_weights", "longitude"):
        assert arrays[name]["data_type"] == "string", name


def test_metadata_is_consolidated(tmp_path: Path) -> None:
    store = make_store(tmp_path, coordinates=make_coordinates())
    group = zarr.open_consolidated(str(store.path))
    assert set(group.array_keys()) == set(metadata(store))
    xr.open_zarr(store.path, consolidated=True).close()


def test_a_chunk_is_one_inode_and_nothing_foreign_is_inside(tmp_path: Path) -> None:
    store = make_store(tmp_path, coordinates=make_coordinates())
    truth = invent(store)
    for chunk in all_chunks(store):
        fold(store, chunk, [leave(store, truth, whole(store, chunk))])
    for place in store.path.rglob("*"):
        depth = len(place.relative_to(store.path).parts)
        if place.is_dir():
            assert depth == 1, place
            assert (place / "zarr.json").is_file(), place
        else:
            # text has other names than numbers
            named = place.name == "zarr.json" or re.fullmatch(r"(c\.)?\d(\.\d)*", place.name)
            assert named, place
            assert depth <= 2, place


def test_run_folder_lies_beside_and_keys_are_private(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    assert store.run.path == tmp_path / "results.zarr.run"
    assert (store.run.keys.stat().st_mode & 0o777) == 0o700
    assert store.run.parts.is_dir()
    assert run_folder(f"{store.path}/").path == store.run.path
    store.run.make()


def test_candidates_are_described(tmp_path: Path) -> None:
    store = make_store(tmp_path, models=[RIDGE, NEIGHBORS])
    results = opened(store)
    assert results["model"].values.tolist() == ["ridge"] * 3 + ["kneighborsregressor"] * 2
    assert results["param_alpha"].values.tolist() == ["0.1", "1", "10", "", ""]
    assert results["param_weights"].values.tolist() == ["", "", "", "uniform", "distance"]
    described = [json.loads(text) for text in results["candidate_json"].values]
    assert described[3] == {
        "model": "kneighborsregressor",
        "params": {"n_neighbors": 3, "weights": "uniform"},
    }
    assert len(set(results["candidate_id"].values.tolist())) == 5


def test_parameter_that_all_candidates_have_as_numbers_is_numeric(tmp_path: Path) -> None:
    results = opened(make_store(tmp_path))
    np.testing.assert_array_equal(results["param_alpha"], [0.1, 1.0, 10.0])
    assert results["best_param_alpha"].dtype == "float64"


@pytest.mark.parametrize(
    "values",
    [[True, False], [None, 1], ["", "1"], [[1, 2], [3]], [{"a": 1}, 2], [2**70, 1]],
    ids=str,
)
def test_parameter_values_that_are_no_plain_numbers(tmp_path: Path, values: list[Any]) -> None:
    models = [{"estimator": "x.Y", "param_grid": {"p": values}}]
    results = opened(make_store(tmp_path, models=models))
    described = [json.loads(text)["params"]["p"] for text in results["candidate_json"].values]
    assert described == values
    assert len(results["param_p"]) == 2


def test_attributes_hold_spec_and_identity(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    attributes = opened(store).attrs
    header = json.loads(attributes["hpc_sweep"])
    assert attributes["Conventions"].startswith("CF-")
    assert attributes["seed"] == 3
    assert header["digest"] == store.spec.digest()
    assert header["source"] == "invented"
    assert "id" in header


# coordinates


def test_coordinates_survive(tmp_path: Path) -> None:
    coordinates = make_coordinates()
    results = opened(make_store(tmp_path, coordinates=coordinates))
    assert {"seen", "lat", "lon", "land", "zone", "age"} <= set(results["best_score"].coords)
    decoded = xr.decode_cf(results, decode_timedelta=True)
    for name, expected in coordinates.coords.items():
        found = decoded[name]
        assert found.dims == expected.dims, name
        assert found.dtype.kind == expected.dtype.kind or found.dtype.kind == "T", name
        np.testing.assert_array_equal(found.values, expected.values, err_msg=str(name))
    assert results["latitude"].attrs == {"units": "degrees_north"}
    assert results["lat"].attrs == {"standard_name": "latitude"}
    assert results["seen"].attrs == {"long_name": "first seen"}
    assert list(results["zone"].attrs["flag_values"]) == [0, 1, 2, 3]


def packed(coordinates: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Return encodings with packing and fill values, as archives have them."""
    return {
        "lat": {"dtype": "int16", "scale_factor": 0.25, "add_offset": 50.0, "_FillValue": -9999},
        "seen": {"dtype": "int64", "units": "hours since 1900-01-01", "_FillValue": -1},
    }


@pytest.mark.parametrize("kind", ["zarr2", "zarr3", "netcdf"])
def test_packed_coordinates_of_a_source_survive(tmp_path: Path, kind: str) -> None:
    coordinates = make_coordinates().drop_vars("age")
    coordinates["seen"] = coordinates["seen"].dt.floor("h")
    path = tmp_path / "source"
    if kind == "netcdf":
        coordinates.to_netcdf(path, encoding=packed(coordinates))
        source = xr.open_dataset(path, engine="netcdf4")
    else:
        options: dict[str, Any] = {"zarr_format": int(kind[-1]), "consolidated": kind == "zarr2"}
        short = coordinates.drop_vars("longitude")  # zarr 2 warns of text
        short.to_zarr(path, encoding=packed(short), **options)
        source = xr.open_zarr(path, chunks=None, consolidated=kind == "zarr2")
    expected = source.load()
    assert np.isnan(expected["lat"][0, 0])
    assert np.isnat(expected["seen"].values[2])
    results = opened(make_store(tmp_path, coordinates=expected))
    for name in expected.coords:
        found = results[name]
        np.testing.assert_array_equal(found.values, expected[name].values, err_msg=str(name))


def test_station_names_as_bytes_survive(tmp_path: Path) -> None:
    names = np.array([b"Kew", b"Cork", b"Oslo"])
    coordinates = xr.Dataset(coords={"latitude": ("latitude", names)})
    results = opened(make_store(tmp_path, coordinates=coordinates))
    assert [str(name) for name in results["latitude"].values] == ["Kew", "Cork", "Oslo"]


def test_missing_float_coordinates_read_as_nan(tmp_path: Path) -> None:
    store = make_store(tmp_path, coordinates=make_coordinates())
    (store.path / "lon" / "c.0.0").unlink()
    assert np.isnan(opened(store)["lon"]).all()


# chunks of fill values


def test_chunks_of_fill_values_are_written(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    truth = invent(store)
    for array in (*truth.scores.values(), truth.fit_time, truth.score_time):
        array[...] = np.nan
    truth.message[...] = ""
    for chunk in all_chunks(store):
        fold(store, chunk, [leave(store, truth, whole(store, chunk))])
    for array in store.arrays:
        for chunk in all_chunks(store):
            assert store.chunk_file(array, chunk).stat().st_size > 0, (array.name, chunk)


def test_no_chunk_is_there_before_a_fold(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for array in store.arrays:
        assert [p.name for p in (store.path / array.name).iterdir()] == ["zarr.json"]


# creation


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("place", ["_fixed_arrays", "sync"])
def test_creation_is_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: type[BaseException]
) -> None:
    def fail(*arguments: Any) -> Iterator[None]:
        raise error("killed here")

    monkeypatch.setattr(f"hpc_sweep.store.creation.{place}", fail)
    with pytest.raises(error, match="killed here"):
        make_store(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_nothing_but_what_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("killed here")

    monkeypatch.setattr("hpc_sweep.store.creation.shutil.rmtree", die)  # a SIGKILL cleans nothing
    monkeypatch.setattr("hpc_sweep.store.creation.zarr.consolidate_metadata", die)
    with pytest.raises(RuntimeError):
        make_store(tmp_path)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".results.zarr.")
    assert left.name.endswith(".tmp")
    (tmp_path / ".results.zarr.notes.tmp").mkdir()  # somebody else's
    (tmp_path / left.name.replace("results", "other")).mkdir()  # another sweep's, at work
    monkeypatch.undo()
    assert opened(make_store(tmp_path)).sizes["candidate"] == 3
    assert not left.exists()
    assert sum(path.name.endswith(".tmp") for path in tmp_path.iterdir()) == 2


def test_all_is_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        steps.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        inside = {path.name for path in (self, *self.rglob("*"))}
        assert inside <= set(steps)
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    make_store(tmp_path)
    assert steps[-2:] == ["rename", tmp_path.name]


# links


def test_a_link_leads_to_the_one_run_folder(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    links = tmp_path / "links"
    links.mkdir()
    (links / "first.zarr").symlink_to(store.path)
    (links / "second.zarr").symlink_to(links / "first.zarr")
    for name in ("first.zarr", "second.zarr"):
        assert run_folder(links / name) == store.run
        assert Store.open(links / name).run == store.run
        assert Store.open(links / name).path == store.path


def test_a_link_to_a_store_that_is_not_there_yet(tmp_path: Path) -> None:
    """A link from a home to a large disk, made before the first run."""
    (tmp_path / "large").mkdir()
    (tmp_path / "results.zarr").symlink_to(tmp_path / "large" / "results.zarr")
    store = make_store(tmp_path)
    assert store.path == tmp_path / "large" / "results.zarr"
    assert (tmp_path / "results.zarr").is_symlink()
    assert store.run.parts.is_relative_to(tmp_path / "large")
    assert Store.open(tmp_path / "results.zarr").header.id == store.header.id


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "results.zarr").mkdir()
    assert Store.open(make_store(tmp_path).path).header.shape == (3, 4)


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    other = tmp_path / "results.zarr" / "thesis.tex"
    other.parent.mkdir()
    other.write_text("years of work")
    with pytest.raises(OSError, match="not empty"):
        make_store(tmp_path)
    assert other.read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["results.zarr"]


def test_parent_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "results.zarr"
    spec = make_spec(tmp_path)
    grid = PartitionGrid(("latitude",), (2,), (2,))
    create_store(path, draw(spec), grid, (2,), 3, xr.Dataset(), source_identity="", versions={})
    assert Store.open(path).header.dims == ("latitude",)


# opening


def test_opening_gives_what_was_created(tmp_path: Path) -> None:
    store = make_store(tmp_path, (3, 4, 2), (2, 3, 2), (1, 2, 2), models=[RIDGE, NEIGHBORS])
    again = Store.open(str(store.path))
    assert again.header == store.header
    assert again.spec == store.spec
    assert again.grid == store.grid
    assert again.arrays == store.arrays
    assert again.arrays[-1].name == "status"


def test_opening_from_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    monkeypatch.chdir(store.path)
    assert Store.open(".").run.parts.is_dir()


def spoiled(store: Store, change: Any) -> None:
    """Apply `change` to the decoded ``zarr.json`` of the group."""
    file = store.path / "zarr.json"
    content = json.loads(file.read_text())
    change(content["attributes"])
    file.write_text(json.dumps(content))


def test_absent_path(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.zarr does not exist; `hpc-sweep run SPEC`"):
        Store.open(tmp_path / "none.zarr")


FOREIGN = "is no store of a sweep: it is .*; name the store of a sweep, its output.store"
DAMAGED = "is no store of a sweep: it has a zarr.json that makes no sense; bring that back"


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("{}")
    with pytest.raises(StoreError, match=FOREIGN):
        Store.open(tmp_path / "f")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("r.zip", r"as it is, for all else unpack it: unzip \S+r\.zip -d \S+r\.zarr$"),
        ("r.nc", "as it is, for all else name the store that it was made of$"),
    ],
)
def test_an_archive(tmp_path: Path, name: str, remedy: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(
        StoreError, match=rf"{name} is no store of a sweep: it is an archive; .*{remedy}"
    ):
        Store.open(tmp_path / name)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=FOREIGN):
        Store.open(tmp_path)


@pytest.mark.parametrize("version", [2, 3])
def test_a_foreign_zarr(tmp_path: Path, version: Literal[2, 3]) -> None:
    zarr.create_group(tmp_path / "z", zarr_format=version, attributes={"title": "other"})
    with pytest.raises(StoreError, match=FOREIGN):
        Store.open(tmp_path / "z")


@pytest.mark.parametrize("text", ["", "[]", "null", "\x00" * 40, '{"attributes": []}', "\xff"])
def test_foreign_metadata(tmp_path: Path, text: str) -> None:
    (tmp_path / "zarr.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreError, match=f"{FOREIGN}|{DAMAGED}"):
        Store.open(tmp_path)


def test_truncated_metadata_at_any_length(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    file = store.path / "zarr.json"
    content = file.read_bytes()
    for length in range(0, len(content) - 1, 97):
        file.write_bytes(content[:length])
        with pytest.raises(StoreError, match=DAMAGED):
            Store.open(store.path)


@pytest.mark.parametrize("header", ["", "5", "null", "[1]", '"text"', "{}"])
def test_damaged_header(tmp_path: Path, header: str) -> None:
    store = make_store(tmp_path)
    spoiled(store, lambda attributes: attributes.update(hpc_sweep=header))
    with pytest.raises(StoreError, match=f"{DAMAGED}|of schema None"):
        Store.open(store.path)


def test_a_header_that_was_changed_by_a_disk(tmp_path: Path) -> None:
    """Every digit and letter of it counts; a store that has no checksum yet is read as ever."""
    store = make_store(tmp_path)
    file, good = store.path / "zarr.json", (store.path / "zarr.json").read_text()
    for before, after in (("n_splits", "n_split"), ("seed", "sede"), ("invented", "inventad")):
        assert before in good
        file.write_text(good.replace(before, after))
        with pytest.raises(StoreError, match=f"{DAMAGED}|is damaged: its attribute hpc_sweep"):
            Store.open(store.path)
    metadata = json.loads(good)
    header = json.loads(metadata["attributes"]["hpc_sweep"])
    del header["crc32c"]
    metadata["attributes"]["hpc_sweep"] = json.dumps(header)
    file.write_text(json.dumps(metadata))
    assert Store.open(store.path).header == store.header
    with headers.changed_header(store.path) as changed:
        changed["revision"] = 1
    assert "crc32c" in json.loads(json.loads(file.read_text())["attributes"]["hpc_sweep"])


@pytest.mark.parametrize("key", ["id", "chunks", "spec"])
def test_incomplete_header(tmp_path: Path, key: str) -> None:
    store = make_store(tmp_path)

    def drop(attributes: dict[str, Any]) -> None:
        header = json.loads(attributes["hpc_sweep"])
        del header[key], header["crc32c"]
        attributes["hpc_sweep"] = headers.packed(header)

    spoiled(store, drop)
    with pytest.raises(StoreError, match=DAMAGED):
        Store.open(store.path)


def test_another_schema(tmp_path: Path) -> None:
    store = make_store(tmp_path)

    def newer(attributes: dict[str, Any]) -> None:
        header = json.loads(attributes["hpc_sweep"]) | {"schema": 99, "more": 1}
        del header["crc32c"]
        attributes["hpc_sweep"] = headers.packed(header)

    spoiled(store, newer)
    with pytest.raises(StoreError, match=r"is of schema 99, this version reads \d+"):
        Store.open(store.path)


# leftovers


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    kept = store.run.parts / str(leave(store, invent(store), whole(store, (0, 0))))
    partial = store.path / "status" / "c.0.0.0.1234.partial"
    foreign = store.run.parts / "abcd_0.0_0-1_0-1_3_00000000.npz"
    for file in (partial, foreign):
        file.write_bytes(b"abc")
    store.remove_leftovers()
    assert kept.exists()
    assert not partial.exists()
    assert not foreign.exists()
