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
from conftest import Spec, equal_stores, small_spec

import hpc_sweep.prepare.prepared
from hpc_sweep.cli.plan import plan_facts, plan_text
from hpc_sweep.errors import PlanError
from hpc_sweep.prepare import prepare
from hpc_sweep.source import CopiedSource, Copy, Source, copied_source, open_source, tiling_for
from hpc_sweep.source.tables import Table
from hpc_sweep.spec import DataSpec, SearchSpec, load_spec
from hpc_sweep.store import read_events, run_folder
from hpc_sweep.sweep import execute

SHAPE = (5, 7, 48)
CHUNKS = {"lat": 2, "lon": 3, "time": 48}
MAPS = {"lat": 5, "lon": 7, "time": 1}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpc_sweep.source.tiling.TILE_BYTES", (3000, 3000))


@pytest.fixture(scope="module", params=[CHUNKS, MAPS], ids=["boxes", "maps"])
def grid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a grid with labels scattered over it, in places none; read only."""
    return make_grid(tmp_path_factory.mktemp("grid") / "grid.zarr", request.param)


def make_grid(path: Path, chunks: dict[str, int] = CHUNKS) -> Path:
    """Write that grid."""
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
            "regime": ("time", np.where(np.arange(48) % 7 == 3, np.nan, np.arange(48) * 5 % 3)),
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
    made.to_zarr(path, zarr_format=3, encoding=encoding, consolidated=False)
    return path


def opened(store: Path, search: SearchSpec | None = None, **keys: Any) -> Source:
    usual = {"features": ["wet", "count"], "target": "slope", "partition_by": ["zone"]}
    return open_source(DataSpec(store=str(store), **{**usual, **keys}), search)


def copied(source: Source, folder: Path, wanted_bytes: int = 4000) -> CopiedSource:
    """Return a source that reads a copy, made slab by slab."""
    tiling = tiling_for(source, wanted_bytes, 1e6)
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
    "lags from samples without label": {
        "features": ["wet@-6h", "tide", "height"],
        "partition_by": ["zone", "regime"],
    },
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


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_those_of_direct_reading(kind: str, grid: Path, tmp_path: Path) -> None:
    source = opened(grid, **KINDS[kind])
    made = copied(source, tmp_path)
    assert len(list(made.copy.tiling.slabs())) > 4
    assert_same(source, made)
    assert made.identity() == source.identity()
    assert made.n_samples == source.n_samples
    assert made.kept_coordinates.identical(source.kept_coordinates)


def test_splits_by_groups_and_dates_are_those_of_direct_reading(grid: Path, tmp_path: Path) -> None:
    left_out = SearchSpec(cv={"leave_one_group_out": "time.day"})
    in_time = SearchSpec(cv={"class": "sklearn.model_selection.TimeSeriesSplit"})
    for number, search in enumerate([left_out, in_time]):
        source = opened(grid, search, partition_by=["zone", "regime"])
        (tmp_path / str(number)).mkdir()
        made = copied(source, tmp_path / str(number))
        assert_same(source, made)
        if search is left_out:
            np.testing.assert_array_equal(made.group_labels, source.group_labels)


def test_labels_stand_in_the_order_of_the_shuffle_of_xarray(grid: Path, tmp_path: Path) -> None:
    """Which cannot be used for a copy: what it shuffles is a graph of tasks, all or nothing."""
    tiling = tiling_for(opened(grid), 4000, 1e6)
    assert tiling is not None
    made = copied_source(opened(grid), Copy(tmp_path, tiling, ""))
    whole = xr.open_zarr(grid, chunks={}, consolidated=False)
    stacked = whole[["wet", "zone"]].stack(place=("lat", "lon")).reset_index("place")
    stacked = stacked.isel(place=np.flatnonzero(stacked.zone.notnull().values))
    labels = xr.DataArray(stacked.zone.values, dims="place", name="label")
    shuffled = stacked.assign_coords(label=labels).groupby("label").shuffle_to_chunks()
    (gathered,) = made.gathered
    for dim in ("lat", "lon"):
        ours = whole[dim].values[gathered.indices[dim]]
        np.testing.assert_array_equal(ours, shuffled[dim].values)


def test_each_chunk_is_read_once_and_some_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_grid(tmp_path / "grid.zarr")
    zone = zarr.open_array(store / "zone", mode="r+")
    zone[:2, :3] = np.nan  # no label in one chunk of each variable
    reads: Counter[str] = Counter()
    get = zarr.storage.LocalStore.get

    async def counting(self: Any, key: str, *more: Any, **options: Any) -> Any:
        if str(self.root) == str(store) and "/c" in key:
            reads[key] += 1
        return await get(self, key, *more, **options)

    source = opened(store)
    monkeypatch.setattr(zarr.storage.LocalStore, "get", counting)
    made = copied(source, tmp_path, wanted_bytes=1)
    assert len(list(made.copy.tiling.slabs())) == 3 * 9
    assert len(reads) == 3 * 8
    assert set(reads.values()) == {1}
    assert source.axes[0].n_missing == int(np.isnan(zone[:]).sum())
    reads.clear()
    assert_same(source, made)


# sweeps


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    """A sweep that makes a copy though the data is small."""
    monkeypatch.setattr("hpc_sweep.prepare.rechunking.LEAST_SAVED_S", -1000.0)
    monkeypatch.setattr("hpc_sweep.prepare.rechunking.SLAB_BYTES", 4000)
    made = small_spec(make_grid(tmp_path / "grid.zarr"), tmp_path / "copied.zarr")
    made["data"] |= {"features": ["wet", "count"], "partition_by": ["zone", {"time": "hour"}]}
    return made


def directly(spec: Spec, store: Path) -> Spec:
    cluster = {**spec["cluster"], "rechunk": "never"}
    return {**spec, "cluster": cluster, "output": {"store": str(store)}}


def test_results_are_those_of_direct_reading_whenever_the_way_is_changed(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = execute(load_spec(directly(spec, tmp_path / "direct.zarr"))).store.path
    copied = execute(load_spec(spec)).store.path
    assert "rechunked" in [event["event"] for event in read_events(run_folder(copied).events)]
    equal_stores(copied, whole)
    changed = tmp_path / "changed.zarr"
    with monkeypatch.context() as patch:
        patch.setattr("hpc_sweep.drive.Drive._fold", _stop)
        with pytest.raises(RuntimeError, match="for the test"):
            execute(load_spec({**spec, "output": {"store": str(changed)}}))
    assert run_folder(changed).copy.exists()
    execute(load_spec(directly(spec, changed)))
    equal_stores(changed, whole)


def _stop(*_: Any) -> None:
    raise RuntimeError("for the test")


def test_the_plan_says_that_labels_are_brought_together_and_why(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepare(load_spec(spec))
    facts = plan_facts(made)
    assert facts["rechunk"]["read_factor_directly"] > facts["read_factor"] >= 1
    assert facts["labels"]["zone"]["without_label"] > 0
    text = plan_text(made, facts)
    assert "zone brought together by the copy" in text
    assert "directly each chunk would be read" in text
    monkeypatch.setattr("hpc_sweep.prepare.rechunking.LEAST_SAVED_S", math.inf)
    assert prepare(load_spec(spec)).rechunked is None
    assert plan_facts(prepare(load_spec(directly(spec, Path("a")))))["rechunk"] is None


def test_what_no_worker_could_read_directly_is_copied(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepare(load_spec(spec))
    monkeypatch.setattr("hpc_sweep.prepare.rechunking.LEAST_SAVED_S", 1e9)
    make = hpc_sweep.prepare.prepared.make_plan

    def refused(workload: Any, **facts: Any) -> Any:
        if workload.reads.layouts[0].lengths.keys() & {"lat"}:
            raise PlanError("too large")
        return make(workload, **facts)

    monkeypatch.setattr("hpc_sweep.prepare.prepared.make_plan", refused)
    facts = plan_facts(prepare(load_spec(spec)))
    assert facts["rechunk"]["seconds_directly"] is None
    assert "no worker could hold" in plan_text(made, facts)
    with pytest.raises(PlanError, match="too large"):
        prepare(load_spec(directly(spec, Path("a"))))


# tables


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    made = pd.DataFrame(
        {
            "station": rng.choice(["Rome", "Oslo", "Kyiv", "Lima", None], 600),
            "date": pd.date_range("2019-03-01", periods=600, freq="h"),
            "wind": rng.normal(size=600),
            "count": rng.integers(0, 9, 600),
            "gaps": pd.array(rng.integers(0, 9, 600), dtype="Int64"),
            "valid": pd.array(rng.random(600) > 0.3, dtype="boolean"),
            "slope": rng.normal(size=600),
        }
    )
    for name in ("wind", "gaps", "valid"):
        made.loc[rng.random(600) < 0.1, name] = None
    return made


TABLES: dict[str, dict[str, Any]] = {
    "stations": {"features": ["wind", "gaps", "valid"], "target": "count"},
    "whole numbers that may lack": {"features": ["wind"], "target": "gaps", "dropna": False},
    "lags": {"features": ["wind@-1", "wind@-1h", "date.hour"], "where": "valid"},
    "a part of dates": {"partition_by": ["station", {"date": "week"}]},
    "held out": {"holdout": {"date": "2019-03-20"}, "partition_by": [{"date": "hour"}]},
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_rows_that_are_scattered_over_files(
    kind: str, form: str, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        rows = frame[200 * number : 200 * number + 200]
        if form == "csv":
            rows.to_csv(tmp_path / f"{number}.csv", index=False)
        else:
            rows.to_parquet(tmp_path / f"{number}.parquet", row_group_size=50)
    usual = {"features": ["wind", "count"], "partition_by": ["station"], **TABLES[kind]}
    source = opened(tmp_path / f"*.{form}", **usual)
    assert source.reads.total_bytes
    read, asked = Table.read, []
    monkeypatch.setattr(
        Table, "read", lambda self, *given: asked.append(given) or read(self, *given)
    )
    made = copied(source, tmp_path, wanted_bytes=150 * 4 * 8)
    slabs = list(made.copy.tiling.slabs())
    assert len(slabs) > 1
    assert [len(rows) for _, rows in asked] == [
        s.box["row"].stop - s.box["row"].start for s in slabs
    ]
    assert_same(source, made)
