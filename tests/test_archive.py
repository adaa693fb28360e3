"""``archive``: the same arrays in one file, or no file at all."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from builders import NEIGHBORS, RIDGE, all_chunks, invent, leave, make_store, whole
from click.testing import CliRunner, Result

from hpc_sweep.cli import main
from hpc_sweep.keeping import verify
from hpc_sweep.results import open_results
from hpc_sweep.store import Journal, Store, fold, hold, run_folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def coordinates() -> xr.Dataset:
    """Return coordinates of every kind that netCDF has its own ways with."""
    seen = np.array(["2001-02-03T04:05", "1850-01-01", "NaT"], dtype="datetime64[ns]")
    return xr.Dataset(
        coords={
            "latitude": ("latitude", np.array([3.5, 2.5, 1.5]), {"units": "degrees_north"}),
            "longitude": ("longitude", ["Þórsmörk", "b", "", "a long name"]),
            "seen": ("latitude", seen, {"long_name": "first seen"}),
            "land": ("longitude", np.array([True, False, True, True])),
            "zone": ("longitude", np.arange(4, dtype="int8"), {"flag_values": np.arange(4)}),
            "age": ("latitude", np.array([1, 2, 3], dtype="timedelta64[h]").astype("m8[ns]")),
        }
    )


def make(folder: Path, chunks: int | None = None, text: str = "größer") -> Store:
    store = make_store(folder, coordinates=coordinates(), models=[RIDGE, NEIGHBORS])
    truth = invent(store)
    truth = replace(truth, message=np.where(truth.message == "", text, truth.message))
    for chunk in all_chunks(store)[:chunks]:
        fold(store, chunk, [leave(store, truth, whole(store, chunk))])
    Journal(store.run.events).write("run_ended", result="complete")
    (store.run.keys / "private.pem").write_text("secret")
    (store.run.logs / "job.log").write_text("host names")
    return store


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archived")
    make(folder)
    return folder


@pytest.fixture
def store(pristine: Path, tmp_path: Path) -> Path:
    shutil.copytree(pristine, tmp_path, dirs_exist_ok=True)
    return tmp_path / "results.zarr"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def same(archived: xr.Dataset, store: Path) -> None:
    """Fail unless values, types and attributes are those of the store; text is text."""
    with archived, xr.open_zarr(store, chunks=None) as right:
        xr.testing.assert_equal(archived.load(), right.load())
        assert dict(archived.attrs) == dict(right.attrs)
        for name in right.variables:
            has, had = archived[name], right[name]
            assert has.dtype == had.dtype or {has.dtype.kind, had.dtype.kind} <= set("OTU"), name
            assert set(has.attrs) == set(had.attrs)
            for key, value in had.attrs.items():
                assert np.array_equal(has.attrs[key], value), (name, key)


def test_a_zip_is_opened_by_xarray_and_unpacked(store: Path, tmp_path: Path) -> None:
    (run_folder(store).path / "performance-20261122T010203.html").write_text("<p>" * 9999)
    result = invoke("archive", store, tmp_path / "it.zip")
    assert result.exit_code == 0, result.output
    assert f'open: xarray.open_zarr("zip::{tmp_path / "it.zip"}")' in result.output
    same(xr.open_zarr(f"zip::{tmp_path / 'it.zip'}", chunks=None), store)
    with zipfile.ZipFile(tmp_path / "it.zip") as archived:
        sizes = {each.filename: each.compress_size for each in archived.infolist()}
        kinds = {each.compress_type for each in archived.infolist() if each.filename[0] != "."}
        assert kinds == {zipfile.ZIP_STORED}
        beside = {name for name in archived.namelist() if name.startswith(".")}
        page = ".run/performance-20261122T010203.html"
        assert beside == {".run/events.jsonl", page}  # no key and no log
        assert sizes[page] < 9999
        archived.extractall(tmp_path / "again.zarr")
    same(xr.open_zarr(tmp_path / "again.zarr", chunks=None), store)
    assert verify(tmp_path / "again.zarr").findings == []
    assert not [*tmp_path.glob(".*.tmp")]


def test_netcdf_holds_types_text_flags_and_attributes(store: Path, tmp_path: Path) -> None:
    result = invoke("archive", store, tmp_path / "it.nc", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.output)
    assert facts["kind"] == "netcdf"
    assert facts["bytes"] == (tmp_path / "it.nc").stat().st_size
    assert zipfile.ZipFile(facts["beside"]).namelist() == [".run/events.jsonl"]
    same(xr.open_dataset(tmp_path / "it.nc"), store)
    with xr.open_dataset(tmp_path / "it.nc") as opened:
        assert opened["status"].attrs["flag_values"].dtype == np.int8


@pytest.mark.parametrize("name", ["it.zip", "it.nc"])
def test_results_are_read_of_archives(store: Path, tmp_path: Path, name: str) -> None:
    assert invoke("archive", store, tmp_path / name).exit_code == 0
    rows = [json.loads(invoke("results", at, "--json").output) for at in (store, tmp_path / name)]
    assert rows[0] == rows[1]
    with open_results(tmp_path / name) as opened:
        assert opened.sweep.models().equals(open_results(store).sweep.models())
    result = invoke("status", tmp_path / name)
    assert result.exit_code == 2
    assert "it is an archive; hpc-sweep results reads it as it is" in result.stderr


def test_models_go_with_it(store: Path, tmp_path: Path) -> None:
    folder = store.with_name("results.zarr.models")
    folder.mkdir()
    (folder / "0.0.skops").write_bytes(b"model")
    assert invoke("archive", store, tmp_path / "it.zip").exit_code == 0
    with zipfile.ZipFile(tmp_path / "it.zip") as archived:
        assert archived.read(".models/0.0.skops") == b"model"


def test_what_is_half_finished_wants_a_word(tmp_path: Path) -> None:
    store = make(tmp_path, chunks=1)
    result = invoke("archive", store.path, tmp_path / "it.nc")
    assert result.exit_code == 2
    assert "1 of 4 result chunks are done" in result.stderr
    assert not (tmp_path / "it.nc").exists()
    result = invoke("archive", store.path, tmp_path / "it.nc", "--partial")
    assert result.exit_code == 0, result.output
    assert "half finished" in result.output
    same(xr.open_dataset(tmp_path / "it.nc"), store.path)


@pytest.mark.parametrize("name", ["it.zip", "it.nc"])
def test_nothing_is_written_of_what_is_damaged(store: Path, tmp_path: Path, name: str) -> None:
    file = store / "message" / "1.0.0"
    file.write_bytes(file.read_bytes()[:-3])
    (tmp_path / name).write_text("precious")
    result = invoke("archive", store, tmp_path / name, "--force")
    assert result.exit_code == 2
    assert str(file) in result.stderr
    assert (tmp_path / name).read_text() == "precious"
    assert not [*tmp_path.glob(".*.tmp")]


@pytest.mark.parametrize("name", ["it.zip", "it.nc"])
def test_a_stop_leaves_what_was_there(
    store: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hpc_sweep.keeping.archiving.sync", stop)
    (tmp_path / name).write_text("precious")
    assert invoke("archive", store, tmp_path / name, "--force").exit_code == 130
    assert (tmp_path / name).read_text() == "precious"
    assert not [*tmp_path.glob(".*.tmp")]


def test_what_netcdf_cannot_hold_is_said(tmp_path: Path) -> None:
    store = make(tmp_path, text="a\x00b")
    result = invoke("archive", store.path, tmp_path / "it.nc")
    assert result.exit_code == 2
    assert "message" in result.stderr
    assert "archive it as .zip" in result.stderr
    assert not (tmp_path / "it.nc").exists()
    assert invoke("archive", store.path, tmp_path / "it.zip").exit_code == 0


def test_places_that_cannot_be(store: Path, tmp_path: Path) -> None:
    (tmp_path / "there.zip").touch()
    for place, words in (
        ("it.tar", "names no kind of archive; end its name with .zip or .nc"),
        ("there.zip", "exists already"),
        ("absent/it.zip", "does not exist; make it first"),
        ("results.zarr/it.zip", "is inside the store"),
    ):
        result = invoke("archive", store, tmp_path / place)
        assert result.exit_code == 2
        assert words in result.stderr
    with hold(Store.open(store).run.lease):
        result = invoke("archive", store, tmp_path / "it.zip", "--partial")
    assert result.exit_code == 2
    assert "a driver is at work" in result.stderr
